from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from postoffice.config.places import MailboxRule
from postoffice.directory.accounts import Account, SystemUsers, VirtualUsers
from postoffice.directory.domains import Domains, LocalNames, OurDomain
from postoffice.directory.lookup import Directory, Postmaster, Source, SystemMailboxes, VirtualMailboxes
from postoffice.directory.mailboxes import mailbox_of, tree_of
from postoffice.interfaces import IDirectory
from postoffice.mail.address import Address
from postoffice.mail.destination import Destination, Mailbox, Remote
from postoffice.mail.reply import Refusal, Reply
from postoffice.watched import Watch


class LookupTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.virtual = os.path.abspath(self.mktemp())
        os.makedirs(f"{self.virtual}/Example.org")
        self.write("domains.cf", "joe:Example.org:1:\n")
        self.write("Example.org/passwd", "Alice:x\n")
        self.directory = self.make()

    def make(self, relay_host: Remote | None = None) -> Directory:
        watch = Watch(self.clock.seconds, lambda text: None)
        names = LocalNames("mx.example.org", ("local.example",), f"{self.virtual}/mailname")
        domains = Domains(names, self.virtual, lambda: frozenset({"192.0.2.7"}), watch)
        system = SystemUsers(Account("joe", 1000, "/home/joe"))
        sources: list[Source] = [
            SystemMailboxes(system, MailboxRule("maildir", "~/Maildir")),
            VirtualMailboxes(VirtualUsers(self.virtual, watch), MailboxRule("mbox", "/vmail/%d")),
            Postmaster(Account("joe", 1000, "/home/joe"), MailboxRule("maildir", "~/Maildir")),
        ]
        return Directory(domains, sources, relay_host)

    def write(self, name: str, text: str) -> None:
        with open(f"{self.virtual}/{name}", "w") as file:
            file.write(text)
        self.clock.advance(1)

    def resolve(self, local: str, domain: str) -> Destination:
        return self.successResultOf(self.directory.resolve(Address(local, domain)))

    def refusal(self, local: str, domain: str) -> Reply:
        failure = self.failureResultOf(self.directory.resolve(Address(local, domain)), Refusal)
        reply: Reply = failure.value.reply
        return reply

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IDirectory, self.directory))

    def test_every_domain_has_a_postmaster(self) -> None:
        expected = Mailbox("maildir", "/home/joe/Maildir", "joe")
        for domain in ("", "mx.example.org", "example.org"):
            self.assertEqual(self.resolve("PostMaster", domain), expected)
        self.write("Example.org/passwd", "postmaster:x\n")
        self.assertEqual(
            self.resolve("postmaster", "example.org"),
            Mailbox("mbox", "/vmail/Example.org/postmaster", "postmaster@Example.org"),
        )

    def test_system_user(self) -> None:
        expected = Mailbox("maildir", "/home/joe/Maildir", "joe")
        for domain in ("", "localhost", "LOCAL.example.", "mx.example.org", "[192.0.2.7]"):
            self.assertEqual(self.resolve("Joe", domain), expected, domain)

    def test_virtual_user(self) -> None:
        expected = Mailbox("mbox", "/vmail/Example.org/Alice", "Alice@Example.org")
        self.assertEqual(self.resolve("aLiCe", "example.ORG."), expected)

    def test_users_do_not_cross_domains(self) -> None:
        for local, domain in (("joe", "example.org"), ("alice", "localhost"), ("alice", "")):
            self.assertEqual(str(self.refusal(local, domain)), "550 5.1.1 No such user here")

    def test_no_such_user(self) -> None:
        for local in (
            "",
            "..",
            "../alice",
            "alice/",
            "-f",
            "alice\x00",
            "root",
            "alice ",
            "|id",
            "/etc/passwd",
        ):
            self.assertEqual(str(self.refusal(local, "example.org")), "550 5.1.1 No such user here")
            self.assertEqual(str(self.refusal(local, "localhost")), "550 5.1.1 No such user here")

    def test_is_local(self) -> None:
        for domain in ("", "localhost", "example.org", "local.example", "[127.0.0.1]"):
            self.assertTrue(self.directory.is_local(domain), domain)
        for domain in ("example.com", "[192.0.2.8]", "org"):
            self.assertFalse(self.directory.is_local(domain), domain)

    def test_remote(self) -> None:
        self.assertEqual(self.resolve("x", "Example.COM."), Remote("example.com"))
        self.assertEqual(self.resolve("x", "[192.0.2.8]"), Remote("[192.0.2.8]", direct=True))

    def test_relay_host_takes_all_that_is_not_ours(self) -> None:
        relay = Remote("smart.example", 587, direct=True)
        self.directory = self.make(relay)
        self.assertEqual(self.resolve("x", "example.com"), relay)
        self.assertEqual(self.resolve("x", "[192.0.2.8]"), relay)
        self.assertIsInstance(self.resolve("joe", "localhost"), Mailbox)

    def test_nothing_final_while_users_are_not_known(self) -> None:
        self.write("Example.org/passwd", "nonsense\n")
        self.directory = self.make()
        self.assertEqual(self.refusal("alice", "example.org").code, 451)
        self.assertIsInstance(self.resolve("joe", "localhost"), Mailbox)

    def test_nothing_final_while_domains_are_not_known(self) -> None:
        self.write("domains.cf", "nonsense\n")
        self.directory = self.make()
        self.assertEqual(self.refusal("alice", "example.org").status, "4.3.0")
        self.assertEqual(self.assertRaises(Refusal, self.directory.is_local, "example.org").reply.code, 451)

    def test_the_first_source_that_answers_wins(self) -> None:
        class Always:
            def __init__(self, name: str) -> None:
                self.name = name

            def find(self, local: str, domain: OurDomain) -> Destination | None:
                return Mailbox("mbox", f"/{self.name}", local) if local.startswith(self.name) else None

        watch = Watch(self.clock.seconds, lambda text: None)
        domains = Domains(LocalNames("mx"), self.virtual, frozenset[str], watch)
        self.directory = Directory(domains, [Always("ab"), Always("a"), Always("")])
        for local, path in (("abc", "/ab"), ("ac", "/a"), ("c", "/")):
            self.assertEqual(self.resolve(local, "mx"), Mailbox("mbox", path, local))


class MailboxRuleTests(SynchronousTestCase):
    def test_places(self) -> None:
        for kind, template, place in (
            ("mbox", "/var/mail", "/var/mail/u"),
            ("mbox", "/v/%d", "/v/d.example/u"),
            ("mbox", "/v/%u%%d", "/v/u%d/u"),
            ("maildir", "~/Maildir", "/home/u/Maildir"),
            ("maildir", "/v/%d/%u/Maildir", "/v/d.example/u/Maildir"),
        ):
            rule = MailboxRule(kind, template)  # type: ignore[arg-type]
            self.assertEqual(
                mailbox_of(rule, "u", "d.example", "/home/u", "o"), Mailbox(rule.kind, place, "o")
            )

    def test_what_is_put_in_is_not_read_again(self) -> None:
        rule = MailboxRule("maildir", "/v/%d/%u")
        self.assertEqual(mailbox_of(rule, "%d", "%u", "", "o").path, "/v/%u/%d")

    def test_tree(self) -> None:
        for template, tree in (
            ("/v/%d", "/v"),
            ("/v/m-%d/%u", "/v"),
            ("/var/mail", "/var/mail"),
            ("/%d", ""),
        ):
            self.assertEqual(tree_of(MailboxRule("mbox", template)), tree)
