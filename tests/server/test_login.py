"""Logging in, in conversations: who may, how it goes wrong, and what it allows."""

from __future__ import annotations

from base64 import b64encode

from twisted.internet.defer import Deferred

from postoffice.mail.reply import Refusal, Reply
from tests.server.support import INSIDE, OUTSIDE, Visit
from tests.server.test_session import Conversation
from tests.server.test_tls import Encrypted, TlsCase

ALICE = b64encode(b"\0alice\0se cret").decode()
WRONG = b64encode(b"\0alice\0wrong").decode()


def base64(text: str) -> str:
    return b64encode(text.encode()).decode()


class LogIns(Conversation):
    """Conversations with `alice`, whose password is `se cret`, from a machine without TLS that may log in."""

    def setUp(self) -> None:
        super().setUp()
        self.door.accounts.passwords[b"alice"] = b"se cret"
        self.door.change(auth_plaintext=True)

    def greeted(self, ip: str = OUTSIDE) -> Visit:
        visit = self.visit(ip)
        visit.heard()
        visit.send(b"EHLO me.example\r\n")
        return visit

    def logged_in(self, ip: str = OUTSIDE) -> Visit:
        visit = self.greeted(ip)
        visit.play(f"C: AUTH PLAIN {ALICE}\nS: 235 2.7.0 *")
        return visit


class Offers(LogIns):
    def announced(self, ip: str = OUTSIDE) -> bool:
        visit = self.visit(ip)
        visit.heard()
        said = visit.send(b"EHLO x\r\n")
        new, old = b"250-AUTH LOGIN PLAIN\r\n" in said, b"250 AUTH=LOGIN PLAIN\r\n" in said
        self.assertEqual(new, old, said)
        return new

    def test_both_forms(self) -> None:
        self.assertTrue(self.announced())

    def test_C2_no_password_in_the_clear_from_other_machines(self) -> None:
        self.door.change(auth_plaintext=False)
        self.assertFalse(self.announced())
        self.greeted().play(f"C: AUTH PLAIN {ALICE}\nS: 538 5.7.11 *\nC: AUTH LOGIN\nS: 538 5.7.11 *")
        self.assertEqual(self.door.accounts.asked, [])
        for ip in (INSIDE, "198.51.100.1"):
            self.assertTrue(self.announced(ip))
            self.logged_in(ip)

    def test_trusted_is_not_on_this_machine(self) -> None:
        self.door.change(auth_plaintext=False)
        self.door.judge(trusted=frozenset({OUTSIDE}))
        self.greeted().play(f"C: AUTH PLAIN {ALICE}\nS: 538 5.7.11 *")

    def test_nobody_has_an_account(self) -> None:
        self.door.accounts.passwords.clear()
        self.assertFalse(self.announced(INSIDE))
        self.greeted(INSIDE).play("C: AUTH LOGIN\nS: 502 5.5.1 *")

    def test_HELO_announces_nothing(self) -> None:
        visit = self.visit()
        visit.heard()
        visit.play("C: HELO x\nS: 250 mx.example.org")


class Exchanging(LogIns):
    def test_LOGIN(self) -> None:
        """Release 1.4.9: the challenges are these, letter by letter."""
        self.greeted().play(f"""
            C: AUTH LOGIN
            S: 334 VXNlcm5hbWU6
            C: {base64("alice")}
            S: 334 UGFzc3dvcmQ6
            C: {base64("se cret")}
            S: 235 2.7.0 Authentication successful
        """)
        self.greeted().play(f"""
            C: auth login {base64("alice")}
            S: 334 UGFzc3dvcmQ6
            C: {base64("se cret")}
            S: 235 2.7.0 *
        """)
        self.assertEqual(self.facts("logged in"), ["alice LOGIN", "alice LOGIN"])

    def test_PLAIN(self) -> None:
        self.greeted().play(f"C: AUTH PLAIN\nS: 334 *\nC: {ALICE}\nS: 235 2.7.0 *")
        self.greeted().play(f"C: AUTH PLAIN {ALICE}\nS: 235 2.7.0 *")

    def test_a_second_time(self) -> None:
        self.logged_in().play(f"C: AUTH PLAIN {ALICE}\nS: 503 5.5.1 *")

    def test_other_mechanisms(self) -> None:
        self.greeted().play("C: AUTH CRAM-MD5\nS: 504 5.5.4 *\nC: AUTH NTLM =\nS: 504 *\nC: AUTH\nS: 501 *")

    def test_cancelled_and_malformed(self) -> None:
        self.door.change(errors=0)
        self.greeted().play(f"""
            C: AUTH LOGIN
            S: 334 *
            C: *
            S: 501 5.7.0 *
            C: AUTH LOGIN {base64("alice")}
            S: 334 *
            C: *
            S: 501 5.7.0 *
            C: AUTH PLAIN
            S: 334 *
            C: *
            S: 501 5.7.0 *
            C: AUTH PLAIN
            S: 334 *
            C: %%%
            S: 501 5.5.2 *
            C: AUTH LOGIN ====
            S: 501 5.5.2 *
            C: AUTH PLAIN {base64("alice")}
            S: 501 5.5.2 *
            C: NOOP
            S: 250 *
            C: AUTH PLAIN {ALICE}
            S: 235 *
        """)

    def test_nobody(self) -> None:
        """Release 1.5.4: an empty user name crashed the original."""
        self.greeted().play(f"""
            C: AUTH LOGIN =
            S: 334 *
            C: {base64("se cret")}
            S: 535 5.7.8 *
            C: AUTH LOGIN
            S: 334 *
            C:
            S: 334 *
            C:
            S: 535 5.7.8 *
            C: NOOP
            S: 250 *
        """)

    def test_not_inside_a_transaction(self) -> None:
        self.greeted().play("C: MAIL FROM:<a@example.net>\nS: 250 *\nC: AUTH LOGIN\nS: 503 5.5.1 *")

    def test_C2_hostile_names(self) -> None:
        for name in ("*)(uid=*", "' OR 1=1--", "alice\r\nbob", "../alice", "alice\0", "%s", "a" * 300):
            visit = self.greeted()
            said = visit.send(b"AUTH PLAIN " + b64encode(b"\0" + name.encode() + b"\0se cret") + b"\r\n")
            self.assertIn(said[:3], (b"501", b"535"), name)
            self.assertEqual(visit.send(b"NOOP\r\n")[:3], b"250")
        for fact in self.facts("refused"):
            self.assertNotIn("\n", fact)

    def test_C2_sixty_four_kilobytes(self) -> None:
        visit = self.greeted()
        self.assertEqual(visit.send(b"AUTH PLAIN " + b"QUJD" * 16384 + b"\r\n")[:3], b"500")
        visit.play("C: AUTH PLAIN\nS: 334 *")
        self.assertEqual(visit.send(b"QUJD" * 16384 + b"\r\n")[:3], b"500")
        visit.play("C: NOOP\nS: 250 *")

    def test_a_client_that_leaves_meanwhile(self) -> None:
        self.door.accounts.waiting = Deferred()
        visit = self.greeted()
        self.assertEqual(visit.send(f"AUTH PLAIN {ALICE}\r\n".encode()), b"")
        self.visits.remove(visit)
        visit.leave()
        self.door.accounts.waiting.callback(None)
        self.assertEqual(self.door.doorkeeper.sessions, set())


class Failing(LogIns):
    def test_C2_the_same_answer_for_everybody(self) -> None:
        visit = self.greeted()
        wrong = visit.send(f"AUTH PLAIN {WRONG}\r\n".encode())
        unknown = visit.send(b"AUTH PLAIN " + b64encode(b"\0nobody\0se cret") + b"\r\n")
        self.assertEqual(wrong, unknown)
        self.assertEqual(wrong[:10], b"535 5.7.8 ")

    def test_three_failures_end_the_session(self) -> None:
        visit = self.greeted()
        visit.play(
            f"C: AUTH PLAIN {WRONG}\nS: 535 *\nC: AUTH PLAIN {WRONG}\nS: 535 *\n"
            f"C: AUTH PLAIN {WRONG}\nS: 421 4.7.0 *"
        )
        self.assertTrue(visit.closed)

    def test_C2_a_right_password_is_not_looked_at_while_it_may_be_a_guess(self) -> None:
        self.door.change(errors=0)
        for _ in range(10):
            self.greeted().play(f"C: AUTH PLAIN {WRONG}\nS: 535 *\nC: AUTH PLAIN {WRONG}\nS: 535 *")
        asked = len(self.door.accounts.asked)
        self.greeted().play(f"C: AUTH PLAIN {ALICE}\nS: 454 4.7.0 *\nC: AUTH PLAIN {WRONG}\nS: 454 4.7.0 *")
        self.assertEqual(len(self.door.accounts.asked), asked)
        self.door.office.clock.advance(31)
        self.logged_in()

    def test_D6_no_password_is_logged(self) -> None:
        self.door.office.journal.auditing = True
        self.door.change(errors=0)
        secret = b64encode(b"se cret").decode()
        visit = self.greeted()
        visit.play(
            f"C: AUTH PLAIN {WRONG}\nS: 535 *\n"
            f"C: AUTH LOGIN {base64('alice')}\nS: 334 *\nC: {secret}\nS: 235 *"
        )
        self.greeted().play(
            f"C: AUTH LOGIN\nS: 334 *\nC: {secret}\nS: 334 *\nC: {secret[:-1]}\nS: 501 *\n"
            f"C: {secret}\nS: 500 *"
        )
        self.door.accounts.waiting = Deferred()
        visit = self.greeted()
        visit.send(f"AUTH PLAIN {ALICE}\r\n".encode())
        self.door.accounts.waiting.errback(ZeroDivisionError())
        self.assertEqual(visit.heard()[:10], b"451 4.3.0 ")
        self.assertIn("ZeroDivisionError", self.facts("error")[0])
        facts = str(self.door.office.journal.facts)
        self.assertIn("alice", facts)
        for text in ("se cret", secret, secret[:8], ALICE, ALICE[8:], WRONG, "wrong\\0"):
            self.assertNotIn(text, facts)

    def test_a_source_that_cannot_be_asked(self) -> None:
        self.door.accounts.waiting = Deferred()
        visit = self.greeted()
        visit.send(f"AUTH PLAIN {ALICE}\r\n".encode())
        self.door.accounts.waiting.errback(Refusal(Reply(454, (7, 0), "later")))
        self.assertEqual(visit.heard()[:10], b"454 4.7.0 ")


class Allowed(LogIns):
    def test_relaying(self) -> None:
        self.greeted().play(
            "C: MAIL FROM:<alice@example.org>\nS: 250 *\nC: RCPT TO:<b@far.example>\nS: 550 5.7.1 *"
        )
        visit = self.logged_in()
        visit.play("""
            C: MAIL FROM:<alice@example.org>
            S: 250 *
            C: RCPT TO:<b@far.example>
            S: 250 *
            C: DATA
            S: 354 *
            C: Subject: hello
            C:
            C: .
            S: 250 *
        """)
        (content,) = self.door.contents()
        self.assertIn(b" with ESMTPA id ", content)
        self.assertNotIn(b"alice", content.partition(b"\r\n\tby")[0])

    def test_C5_only_their_own_senders(self) -> None:
        self.door.change(errors=0)
        self.logged_in().play("""
            C: MAIL FROM:<alice@example.org>
            S: 250 *
            C: MAIL FROM:<alice@EXAMPLE.ORG>
            S: 250 *
            C: MAIL FROM:<alice>
            S: 250 *
            C: MAIL FROM:<>
            S: 250 *
            C: MAIL FROM:<bob@example.org>
            S: 553 5.7.1 *
            C: RCPT TO:<alice@example.org>
            S: 503 *
            C: MAIL FROM:<alice@example.net>
            S: 553 5.7.1 *
            C: MAIL FROM:<nobody@example.org>
            S: 553 5.7.1 *
            C: MAIL FROM:<unknown@example.org>
            S: 451 4.4.3 *
        """)

    def test_C5_the_same_on_this_machine(self) -> None:
        self.logged_in(INSIDE).play("C: MAIL FROM:<bob@example.org>\nS: 553 5.7.1 *")

    def test_any_sender(self) -> None:
        self.door.change(auth_any_sender=True)
        self.logged_in().play("C: MAIL FROM:<bob@example.net>\nS: 250 *")

    def test_a_log_in_is_asked_for(self) -> None:
        self.door.change(require_auth=True)
        self.greeted(INSIDE).play(
            "C: MAIL FROM:<alice@example.org>\nS: 530 5.7.0 *\nC: RCPT TO:<a@example.org>\nS: 503 *"
        )
        self.logged_in().play("C: MAIL FROM:<alice@example.org>\nS: 250 *")

    def test_a_new_greeting_changes_nothing(self) -> None:
        self.logged_in().play("""
            C: HELO again
            S: 250 *
            C: MAIL FROM:<alice@example.org>
            S: 250 *
            C: RCPT TO:<b@far.example>
            S: 250 *
        """)


class InsideTls(TlsCase):
    def setUp(self) -> None:
        super().setUp()
        self.door.accounts.passwords[b"alice"] = b"se cret"

    def test_it_is_announced_there(self) -> None:
        visit = self.visit()
        visit.heard()
        self.assertNotIn(b"AUTH", visit.send(b"EHLO x\r\n"))
        inside = self.encrypted()
        self.assertIn(b"AUTH LOGIN PLAIN\r\n", inside.send(b"EHLO x\r\n"))
        self.assertEqual(inside.send(f"AUTH PLAIN {ALICE}\r\n".encode())[:4], b"235 ")
        self.assertEqual(inside.send(b"MAIL FROM:<alice@example.org>\r\n")[:4], b"250 ")
        inside.send(b"RCPT TO:<b@example.org>\r\nDATA\r\n")
        self.assertEqual(inside.send(b"Subject: x\r\n\r\n.\r\n")[:4], b"250 ")
        (content,) = self.door.contents()
        self.assertIn(b" with ESMTPSA id ", content)

    def test_B1_a_log_in_is_forgotten_by_STARTTLS(self) -> None:
        self.door.change(auth_plaintext=True)
        inside = self.encrypted(before=b"EHLO x\r\nAUTH PLAIN " + ALICE.encode() + b"\r\n")
        (session,) = self.door.doorkeeper.sessions
        self.assertEqual((session.client.login, session.client.may_relay), (None, False))
        inside.send(b"EHLO x\r\n")
        inside.send(b"MAIL FROM:<bob@example.org>\r\n")
        self.assertEqual(inside.send(b"RCPT TO:<b@far.example>\r\n")[:9], b"550 5.7.1")
        inside.send(b"RSET\r\n")
        self.assertEqual(inside.send(f"AUTH PLAIN {ALICE}\r\n".encode())[:4], b"235 ")

    def test_C2_failures_are_not_forgotten(self) -> None:
        self.door.change(auth_plaintext=True)
        visit = self.visit()
        visit.heard()
        wrong = f"AUTH PLAIN {WRONG}\r\n".encode()
        for _ in range(2):
            self.assertEqual(visit.send(wrong)[:4], b"535 ")
        visit.send(b"STARTTLS\r\n")
        self.assertEqual(Encrypted(visit).send(wrong)[:4], b"421 ")
