"""The portal: checkers in turn, and what an account owns."""

from __future__ import annotations

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from postoffice.mail.address import Address
from postoffice.mail.client import Client
from postoffice.mail.destination import Mailbox
from postoffice.mail.reply import Refusal, Reply
from postoffice.server.portal import AnyOf, IMailUser, MailRealm, MailUser, make_authenticator
from postoffice.server.throttle import FREE, Throttle
from postoffice.smtp.sasl import Credentials
from tests.doubles import StaticDirectory
from tests.server.support import Accounts, in_lower_case

CLIENT = Client("192.0.2.1")


class Users(SynchronousTestCase):
    def owns(self, login: str, address: Address) -> bool:
        mailbox = Mailbox("maildir", "/mail/alice", "alice@example.org")
        system = Mailbox("maildir", "/mail/root", "root")
        users = {"alice": mailbox, "info": mailbox, "root": system}
        directory = StaticDirectory(["example.org", "example.com"], users)
        user = MailUser(login, directory)
        self.assertTrue(verifyObject(IMailUser, user))
        owned: bool = self.successResultOf(Deferred.fromCoroutine(user.owns(address)))
        return owned

    def test_C5_what_ends_in_the_own_mailbox(self) -> None:
        for local, domain in (("alice", "example.org"), ("ALICE", "EXAMPLE.ORG"), ("info", "example.org")):
            self.assertTrue(self.owns("alice@example.org", Address(local, domain)), (local, domain))
        self.assertTrue(self.owns("root", Address("root", "example.org")))
        for local, domain in (
            ("root", "example.org"),
            ("nobody", "example.org"),
            ("alice", "example.net"),
            ("alice", "example.org.example.net"),
        ):
            self.assertFalse(self.owns("alice@example.org", Address(local, domain)), (local, domain))
        self.assertFalse(self.owns("root", Address("alice", "example.org")))
        self.assertFalse(self.owns("alice", Address("alice", "example.org")))


class Realms(SynchronousTestCase):
    def test_provides_the_interface(self) -> None:
        self.assertTrue(verifyObject(IRealm, MailRealm(StaticDirectory())))

    def test_users_of_mail_only(self) -> None:
        with self.assertRaises(NotImplementedError):
            MailRealm(StaticDirectory()).requestAvatar(b"alice", None, IRealm)


class Checkers(SynchronousTestCase):
    def setUp(self) -> None:
        self.first, self.second = Accounts(), Accounts()
        self.first.passwords[b"alice"] = b"one"
        self.second.passwords[b"bob"] = b"two"

    def test_in_turn(self) -> None:
        checker = AnyOf([self.first, self.second])
        asked = checker.requestAvatarId
        self.assertEqual(self.successResultOf(asked(UsernamePassword(b"alice", b"one"))), b"alice")
        self.assertEqual(self.second.asked, [])
        self.assertEqual(self.successResultOf(asked(UsernamePassword(b"bob", b"two"))), b"bob")
        self.failureResultOf(asked(UsernamePassword(b"alice", b"two")), UnauthorizedLogin)

    def test_nobody_asked(self) -> None:
        self.failureResultOf(AnyOf([]).requestAvatarId(UsernamePassword(b"a", b"b")), UnauthorizedLogin)

    def test_C2_guesses_count_whatever_the_spelling(self) -> None:
        async def spelling(name: str) -> str:
            return name.rstrip(".")

        throttle = Throttle(lambda: 0.0)
        authenticator = make_authenticator(StaticDirectory(), [self.first], throttle, lambda: True, spelling)
        for number in range(FREE + 1):
            # Each from another network.
            client = Client(f"192.0.2.{number}")
            tried = authenticator.log_in(client, Credentials("alice" + "." * number, b"wrong"))
            refusal = self.failureResultOf(Deferred.fromCoroutine(tried), Refusal).value
            self.assertEqual(refusal.reply.code, 535 if number < FREE else 454)

    def test_neither_answer_nor_reason_holds_the_password(self) -> None:
        authenticator = make_authenticator(
            StaticDirectory(), [self.first, self.second], Throttle(lambda: 0.0), lambda: True, in_lower_case
        )
        tried = authenticator.log_in(CLIENT, Credentials("alice", b"hunter2"))
        refusal = self.failureResultOf(Deferred.fromCoroutine(tried), Refusal).value
        self.assertEqual(refusal.reply, Reply(535, (7, 8), "Authentication credentials invalid"))
        self.assertNotIn("hunter2", f"{refusal!r} {refusal.why}")
        right = authenticator.log_in(CLIENT, Credentials("alice", b"one"))
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(right)).login, "alice")
