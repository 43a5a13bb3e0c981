"""Which address is whose: domains, users, and what is refused."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from postoffice.config.places import MailboxRule
from postoffice.directory.mailboxes import mailbox_of, tree_of
from postoffice.interfaces import IDirectory
from postoffice.mail.address import Address
from postoffice.mail.destination import Mailbox, Remote, where_to
from postoffice.mail.reply import Refusal
from postoffice.smtp.grammar import parse_address
from tests.directory.support import DirectoryTestCase
from tests.doubles import StaticResolver

ANN = Mailbox("mbox", "/var/mail/ann", "ann")
BOB = Mailbox("mbox", "/vmail/example.org/bob", "bob@example.org")


class LookupTests(DirectoryTestCase):
    def is_local(self, domain: str) -> bool:
        return self.successResultOf(self.directory.is_local(domain))  # type: ignore[no-any-return]

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IDirectory, self.directory))

    def test_every_domain_has_a_postmaster(self) -> None:
        for address in ("PostMaster", "postmaster@mx.example.net", "postmaster@example.org"):
            self.assertEqual(self.resolved(address), ANN)
        self.write("virtual/example.org/passwd", "bob:x\npostmaster:x\n")
        self.assertEqual(
            self.resolved("postmaster@example.org"),
            Mailbox("mbox", "/vmail/example.org/postmaster", "postmaster@example.org"),
        )

    def test_system_user(self) -> None:
        self.make("localdomain=local.example")
        for domain in ("", "@localhost", "@LOCAL.example", "@mx.example.net", "@[192.0.2.7]"):
            self.assertEqual(self.resolved(f"Ann{domain}"), ANN, domain)

    def test_virtual_user(self) -> None:
        self.assertEqual(self.resolved("bOb@example.ORG"), BOB)

    def test_users_do_not_cross_domains(self) -> None:
        for address in ("ann@example.org", "bob@localhost", "bob"):
            self.assertEqual(str(self.refusal(address)), "550 5.1.1 No such user here")
            self.assertEqual(self.checked(address), "550 5.1.1 No such user here")

    def test_no_such_user(self) -> None:
        for local in ("", "..", "../bob", "bob/", "-f", "bob\x00", "root", "bob ", "|id", "/etc/passwd", "*"):
            for domain in ("example.org", "localhost"):
                work = self.directory.resolve(Address(local, domain))
                reply = self.failureResultOf(work, Refusal).value.reply
                self.assertEqual(str(reply), "550 5.1.1 No such user here")

    def test_is_local(self) -> None:
        for domain in ("", "localhost", "example.org", "mx.example.net", "[127.0.0.1]"):
            self.assertTrue(self.is_local(domain), domain)
        for domain in ("example.com", "[192.0.2.8]", "org", "nowhere.example"):
            self.assertFalse(self.is_local(domain), domain)

    def test_remote(self) -> None:
        self.assertEqual(self.resolved("x@Example.COM"), Remote("example.com"))
        self.assertEqual(self.resolved("x@[192.0.2.8]"), Remote("[192.0.2.8]", direct=True))
        self.assertEqual(self.checked("x@example.com"), "fine")

    def test_relay_host_takes_all_that_is_not_ours(self) -> None:
        self.make("relay-host=smart.example:587")
        relay = Remote("smart.example", 587, direct=True)
        self.assertEqual(self.resolved("x@example.com"), relay)
        self.assertEqual(self.resolved("x@[192.0.2.8]"), relay)
        self.assertEqual(self.resolved("ann@localhost"), ANN)

    def test_nothing_final_while_users_are_not_known(self) -> None:
        self.write("virtual/example.org/passwd", "nonsense\n")
        self.make()
        self.assertEqual(self.refusal("bob@example.org").code, 451)
        self.assertTrue(self.checked("bob@example.org").startswith("451 4.3.0"))
        self.assertEqual(self.resolved("ann"), ANN)

    def test_nothing_final_while_domains_are_not_known(self) -> None:
        self.write("virtual/domains.cf", "nonsense\n")
        self.make()
        self.assertEqual(self.refusal("bob@example.org").status, "4.3.0")
        refused = self.failureResultOf(self.directory.is_local("example.org"), Refusal)
        self.assertEqual(refused.value.reply.code, 451)

    def test_configured_domains_are_not_asked_of_the_dns(self) -> None:
        self.make("localdomain=local.example")
        for address in ("ann", "ann@localhost", "ann@local.example", "bob@example.org", "ann@[127.0.0.1]"):
            self.resolved(address)
        self.assertEqual(self.resolver.asked, [])


class ExplainTests(DirectoryTestCase):
    def explained(self, text: str) -> tuple[list[str], list[str]]:
        """The steps of an explanation, and its copies, as texts."""
        work = Deferred.fromCoroutine(self.directory.explain(parse_address(text)))
        told = self.successResultOf(work)
        steps = [f"{step.depth} {step.address}: {step.what}" for step in told.steps]
        copies = [f"{copy.address}: {refusal or where_to(copy.destination)}" for copy, refusal in told.copies]
        return steps, copies + ([str(told.refusal)] if told.refusal else [])

    def test_each_step_and_the_final_destinations(self) -> None:
        path = self.write(
            "aliases", "all: team, x@example.com, nobody, x@fails.test\nteam: ann, bob+y@example.org\n"
        )
        self.write("home/.forward", "ann, x@example.com\n")
        self.resolver = StaticResolver(mx={"example.com": [(10, "mx.example.com")]}, failing=["fails.test"])
        self.make()
        self.assertEqual(
            self.explained("all"),
            (
                [
                    f"0 all: {path}",
                    f"1 team: {path}",
                    "2 ann: ~ann/.forward",
                    "3 ann: users",
                    "3 x@example.com: elsewhere",
                    "2 bob+y@example.org: bob, with the detail y",
                    "2 bob+y@example.org: users",
                    "1 x@example.com: elsewhere",
                    "1 nobody: 550 5.1.1 No such user here",
                    "1 x@fails.test: elsewhere",
                ],
                [
                    "ann: mbox /var/mail/ann",
                    "bob+y@example.org: mbox /vmail/example.org/bob",
                    "nobody: 550 5.1.1 No such user here",
                    "x@fails.test: 451 4.4.3 The DNS gives no answer about the domain, try again later",
                    "x@example.com: smtp example.com",
                ],
            ),
        )

    def test_elsewhere(self) -> None:
        steps, copies = self.explained("x@example.com")
        self.assertEqual(steps, ["0 x@example.com: elsewhere"])
        self.assertEqual(copies, ["x@example.com: smtp example.com"])

    def test_a_detail_that_is_left_off(self) -> None:
        path = self.write("aliases", "sales: ann\nsales+eu: bob@example.org\n")
        self.assertEqual(self.explained("sales+eu")[0], [f"0 sales+eu: {path}", "1 bob@example.org: users"])
        self.assertEqual(
            self.explained("sales+us")[0],
            ["0 sales+us: sales, with the detail us", f"0 sales+us: {path}", "1 ann: users"],
        )
        self.assertEqual(self.explained("ann+")[0], ["0 ann+: ann, with no detail", "0 ann+: users"])

    def test_by_a_relay_host(self) -> None:
        for host, place in (
            ("127.0.0.1:2526", "[127.0.0.1]:2526"),
            ("out.example.net", "out.example.net"),
        ):
            self.make(f"relay-host={host}")
            self.assertEqual(self.explained("x@example.com")[1], [f"x@example.com: smtp {place}"])

    def test_by_a_domain_that_the_dns_makes_ours(self) -> None:
        path = self.write("aliases", "all: ann@dns.test\n")
        self.resolver = StaticResolver(addresses={"dns.test": ["192.0.2.7"]})
        self.make()
        self.assertEqual(
            self.explained("all"),
            (
                [f"0 all: {path}", "1 ann@dns.test: elsewhere", "1 ann@dns.test: users"],
                ["ann@dns.test: mbox /var/mail/ann"],
            ),
        )

    def test_nobody(self) -> None:
        self.write("aliases", "loop: loop\n")
        self.assertEqual(self.explained("nobody")[1], ["550 5.1.1 No such user here"])
        self.assertEqual(self.explained("loop")[1], ["554 5.4.6 The address leads back to itself"])


class OwnerTests(DirectoryTestCase):
    """Whose address a log-in may send from."""

    def owns(self, login: str, local: str, domain: str) -> bool:
        return self.successResultOf(self.directory.owns(login, Address(local, domain)))  # type: ignore[no-any-return]

    def test_C5_own_address(self) -> None:
        self.assertTrue(self.owns("ann", "ANN", "localhost"))
        self.assertTrue(self.owns("bob@example.org", "bob+x", "example.org"))
        self.assertFalse(self.owns("bob@example.org", "ann", "localhost"))
        self.assertFalse(self.owns("ann", "ann", "example.com"))
        self.assertFalse(self.owns("ann", "nobody", "localhost"))

    def test_aliases_count(self) -> None:
        self.write("aliases", "sales: bob@example.org, ann\n")
        for login in ("ann", "bob@example.org"):
            self.assertTrue(self.owns(login, "sales", "localhost"))

    def test_who_forwards_mail_does_not_lend_a_name(self) -> None:
        self.write("home/.forward", "bob@example.org\n")
        self.assertEqual(self.copies("ann"), ["/vmail/example.org/bob"])
        self.assertFalse(self.owns("bob@example.org", "ann", "localhost"))
        self.assertTrue(self.owns("ann", "ann", "localhost"))

    def test_not_known_now(self) -> None:
        self.write("aliases", "nonsense\n")
        self.make()
        refused = self.failureResultOf(self.directory.owns("ann", Address("ann", "")), Refusal)
        self.assertEqual(refused.value.reply.code, 451)


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
