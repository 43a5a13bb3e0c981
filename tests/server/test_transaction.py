"""What a client asks for is what its letter is stored with."""

from __future__ import annotations

from postoffice.mail.address import Address
from postoffice.mail.envelope import ReportRequest
from postoffice.mail.outcome import Failed, Postponed
from postoffice.mail.reply import Reply
from postoffice.server.transaction import without_success
from tests.server.test_session import BEGIN, Conversation

ASKING = """
    C: MAIL FROM:<s@example.org> RET=HDRS ENVID=a+2Bb
    S: 250 *
    C: RCPT TO:<a@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;old@example.org
    S: 250 *
    C: RCPT TO:<a@EXAMPLE.org> NOTIFY=NEVER
    S: 250 *
    C: RCPT TO:<b@example.org>
    S: 250 *
    C: RCPT TO:<c@example.org> NOTIFY=SUCCESS
    S: 250 *
    C: RCPT TO:<nobody@example.org> NOTIFY=NEVER
    S: 550 *
    C: DATA
    S: 354 *
    C: .
    S: 250 *
"""


class Reports(Conversation):
    def stored(self, ip: str) -> dict[Address, ReportRequest]:
        taken = []
        store = self.door.office.spool.store

        def keep(new: object, *others: object) -> object:
            taken.append(new)
            return store(new, *others)

        self.patch(self.door.office.spool, "store", keep)
        self.visit(ip).play(BEGIN + ASKING)
        new = taken[0]
        self.assertEqual((new.ret, new.envid), ("HDRS", "a+2Bb"))
        return dict(new.requests)

    def test_they_are_stored(self) -> None:
        self.assertEqual(
            self.stored("127.0.0.1"),
            {
                Address("a", "example.org"): ReportRequest("SUCCESS,DELAY", "rfc822;old@example.org"),
                Address("c", "example.org"): ReportRequest("SUCCESS"),
            },
        )

    def test_C3_strangers_are_not_told_that_a_letter_arrived(self) -> None:
        self.assertEqual(
            self.stored("192.0.2.9"),
            {
                Address("a", "example.org"): ReportRequest("DELAY", "rfc822;old@example.org"),
                Address("c", "example.org"): ReportRequest("NEVER"),
            },
        )

    def test_C3_without_success(self) -> None:
        for asked, left in [
            *(("", ""), ("NEVER", "NEVER"), ("SUCCESS", "NEVER"), ("SUCCESS,FAILURE", "FAILURE")),
            ("FAILURE,DELAY", "FAILURE,DELAY"),
        ]:
            self.assertEqual(without_success(asked), left)


class Heeded(Conversation):
    """What was asked for about reports is what happens."""

    def told(self, parameters: str, recipient: str, ip: str = "127.0.0.1", mail: str = "") -> list[bytes]:
        """What was delivered to the sender."""
        self.door.office.remote.answer = lambda recipient: Failed(Reply(550, (1, 1), "gone"), "far")
        visit = self.visit(ip)
        visit.heard()
        visit.send(f"MAIL FROM:<s@example.org>{mail}\r\n".encode())
        self.assertEqual(visit.send(f"RCPT TO:<{recipient}>{parameters}\r\n".encode())[:3], b"250")
        visit.send(b"DATA\r\n")
        before = len(self.door.office.local.contents)
        self.assertEqual(visit.send(b"Subject: x\r\n\r\nbody\r\n.\r\n")[:3], b"250")
        contents = self.door.office.local.contents[before:]
        return [content for content in contents if content is not None and b"Reporting-MTA" in content]

    def test_C3_never(self) -> None:
        self.assertEqual(self.told(" NOTIFY=NEVER", "x@far.example"), [])
        self.assertEqual(self.told(" NOTIFY=SUCCESS", "x@far.example"), [])
        self.assertEqual(len(self.told(" NOTIFY=FAILURE", "x@far.example")), 1)
        self.assertEqual(len(self.told("", "x@far.example")), 1)

    def test_success(self) -> None:
        (report,) = self.told(
            " NOTIFY=SUCCESS ORCPT=rfc822;old@x", "a@example.org", mail=" ENVID=abc RET=FULL"
        )
        for line in (
            *(b"Action: delivered", b"Original-Recipient: rfc822; old@x", b"Original-Envelope-Id: abc"),
            b"Subject: Your mail was delivered",
        ):
            self.assertIn(b"\r\n" + line + b"\r\n", report)
        self.assertNotIn(b"body", report)
        self.assertEqual(self.facts("reported"), ["a@example.org"])
        self.assertEqual(self.told(" NOTIFY=SUCCESS", "a@example.org", ip="192.0.2.9"), [])
        self.assertEqual(self.told("", "a@example.org"), [])

    def test_how_much_comes_back(self) -> None:
        for ret, there in (("", False), (" RET=HDRS", False), (" RET=FULL", True)):
            (report,) = self.told("", "x@far.example", mail=ret)
            self.assertEqual(b"body" in report, there)


class Order(Conversation):
    def test_recipients_before_the_sender(self) -> None:
        self.door.change(lenient_order=True)
        self.visit().play(
            BEGIN
            + """
            C: RCPT TO:<a@example.org>
            S: 250 2.0.0 OK
            C: DATA
            S: 503 5.5.1 Send MAIL first
            """
        )

    def test_limits_are_announced(self) -> None:
        visit = self.visit()
        visit.heard()
        self.assertIn(b"250-LIMITS RCPTMAX=5\r\n", visit.send(b"EHLO x\r\n"))
        self.door.change(recipients=0)
        self.assertNotIn(b"LIMITS", self.visit().send(b"EHLO x\r\n"))


class QueueRuns(Conversation):
    """ETRN, RFC 1985."""

    def test_what_waits_for_a_domain_goes_out(self) -> None:
        self.door.office.remote.answer = lambda recipient: Postponed(Reply(450, (2, 0), "busy"))
        for ip, codes in (("192.0.2.9", ["459"] * 3), ("127.0.0.1", ["253", "251", "253"])):
            visit = self.visit("127.0.0.1")
            visit.play(
                BEGIN
                + """
                C: MAIL FROM:<s@example.org>
                S: 250 *
                C: RCPT TO:<x@far.example>
                S: 250 *
                C: RCPT TO:<y@sub.far.example>
                S: 250 *
                C: DATA
                S: 354 *
                C: .
                S: 250 *
                """
            )
            attempts = self.door.office.remote.attempts
            attempts.clear()
            visit = self.visit(ip)
            visit.heard()
            for domain, code in zip(("sub.far.example", "other.example", "@far.example"), codes, strict=True):
                self.assertEqual(visit.send(f"ETRN {domain}\r\n".encode())[:3].decode(), code, domain)
        tried = [recipient for _, _, recipients in attempts for recipient in recipients]
        self.assertEqual(tried.count("y@sub.far.example") // 2, 2)
        self.assertEqual(tried.count("x@far.example"), 2)

    def test_malformed(self) -> None:
        self.door.change(errors=0)
        visit = self.visit("127.0.0.1")
        visit.heard()
        for argument in (b"", b" @", b" #queue", b" a b", b" -x", b" [192.0.2.1]", b" " + b"x." * 130):
            self.assertEqual(visit.send(b"ETRN" + argument + b"\r\n")[:3], b"501", argument)

    def test_it_is_announced(self) -> None:
        visit = self.visit()
        visit.heard()
        self.assertIn(b"250-ETRN\r\n", visit.send(b"EHLO x\r\n"))
