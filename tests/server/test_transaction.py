"""What a client asks for is what its letter is stored with."""

from __future__ import annotations

from postoffice.mail.address import Address
from postoffice.mail.envelope import ReportRequest
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
        (new,) = taken
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
