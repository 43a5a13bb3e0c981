"""SMTPUTF8: letters whose addresses or header are of any script, and which of them need it."""

from __future__ import annotations

from postoffice.mail.address import Address
from tests.server.test_session import BEGIN, Conversation

BOOKS = Address("leser", "xn--bcher-kva.example")


class Letters(Conversation):
    def send(self, parameter: str, recipient: str, header: str) -> tuple[bool, bytes]:
        """Whether the letter was stored as one that needs SMTPUTF8, and its content."""
        stored = []
        store = self.door.office.spool.store

        def keep(new: object, *others: object) -> object:
            stored.append(new)
            return store(new, *others)

        self.patch(self.door.office.spool, "store", keep)
        visit = self.visit("127.0.0.1")
        visit.play(BEGIN)
        visit.send(f"MAIL FROM:<s@example.org>{parameter}\r\n".encode())
        self.assertEqual(visit.send(f"RCPT TO:<{recipient}>\r\n".encode())[:3], b"250")
        visit.send(b"DATA\r\n")
        self.assertEqual(visit.send(f"{header}\r\n\r\nbödy\r\n.\r\n".encode())[:3], b"250")
        (new,) = stored
        return new.smtputf8, self.door.contents()[-1]

    def test_what_needs_it(self) -> None:
        self.assertTrue(self.send(" SMTPUTF8", "bøb@example.org", "Subject: x")[0])
        self.assertTrue(self.send(" SMTPUTF8", "bob@example.org", "Subject: ü")[0])

    def test_what_does_not(self) -> None:
        self.assertFalse(self.send(" SMTPUTF8", "bob@example.org", "Subject: x")[0])
        self.assertFalse(self.send(" BODY=8BITMIME", "bob@example.org", "Subject: ü")[0])
        self.assertFalse(self.send(" SMTPUTF8", "leser@bücher.example", "Subject: x")[0])
        self.assertEqual(self.door.office.remote.attempts[-1][2], [str(BOOKS)])

    def test_the_trace_field(self) -> None:
        _, content = self.send(" SMTPUTF8", "bøb@example.org", "From: x")
        self.assertIn(b" with UTF8SMTP id ", content)
        self.assertIn("\r\n\tfor <bøb@example.org>;".encode(), content)

    def test_fields_that_are_missing(self) -> None:
        visit = self.visit("127.0.0.1")
        visit.play(BEGIN)
        visit.send("MAIL FROM:<änn@example.org> SMTPUTF8\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n".encode())
        visit.send(b".\r\n")
        self.assertIn("\r\nFrom: änn@example.org\r\n".encode(), self.door.contents()[-1])

    def test_it_is_announced(self) -> None:
        visit = self.visit()
        visit.heard()
        self.assertIn(b"250-SMTPUTF8\r\n", visit.send(b"EHLO x\r\n"))
