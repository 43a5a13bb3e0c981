"""Other people's mail programs hand letters in, and other people's servers relay to us."""

from __future__ import annotations

from collections.abc import Callable
from email import message_from_bytes
from email.message import Message

from tests.live.clients import CLIENTS, Send, Way
from tests.live.office import DOMAIN, OfficeCase, stored
from tests.live.test_road import HEADER, lines_of
from tests.peers import HOST, Exim, Postfix, Postoffice, smtp_source

SENDER = "sender@far.test"
ALICE = f"alice@{DOMAIN}"
LETTER = HEADER + "Grüße,\n.\n..\n.dot\nFrom here\n\nend\n".encode()


def trace(letter: Message) -> str:
    """Our own Received line, in one line."""
    return " ".join(letter.get_all("Received", [])[0].split())


class Submitting(OfficeCase):
    """Every program, every way it can go."""

    def submits(self, name: str, send: Send) -> None:
        """The letter of a program arrives as it was sent, with a trace of the way it came."""
        office = self.office()
        for count, (way, keyword) in enumerate(self.ways(office), 1):
            sent = send(way, SENDER, [ALICE], LETTER, self.directory)
            self.eventually(f"the letter by {name}", lambda count=count: len(stored(office)) >= count, office)
            found = next(
                one for one in stored(office) if f" with {keyword} id " in trace(message_from_bytes(one))
            )
            self.assertEqual(found.partition(b"\n\n")[2], sent.partition(b"\n\n")[2])
            letter = message_from_bytes(found)
            self.assertIn(f" for <{ALICE}>;", trace(letter))
            self.assertEqual(letter["Subject"], "a test")
        self.assertEqual(len(stored(office)), count)
        self.assertNotIn("Traceback", office.log())

    def ways(self, office: Postoffice) -> list[tuple[Way, str]]:
        """Where programs go, and the keyword that stands in the trace of each."""
        return [(Way(office.port), "ESMTP")]


def _method(name: str, send: Send) -> Callable[[Submitting], None]:
    def test(self: Submitting) -> None:
        self.submits(name, send)

    return test


for _name, _send in CLIENTS.items():
    setattr(Submitting, f"test_{_name.replace(' ', '_').replace('-', '_')}", _method(_name, _send))


class Relayed(OfficeCase):
    """Servers that hand on to us what they were given, as MX hosts and submitting servers do."""

    LETTERS = (LETTER, HEADER + b"x\n", HEADER + lines_of(1 << 20, 3))

    def relays(self, office: Postoffice, port: int, log: Callable[[], str]) -> list[Message]:
        """Letters that go to a server on `port` arrive whole, once, and leave nothing behind."""
        file = self.directory / "letter"
        for letter in self.LETTERS:
            file.write_bytes(letter)
            # Two sessions at once, and two recipients of each letter.
            done = smtp_source(
                port,
                sessions=2,
                messages=4,
                length=None,
                sender=SENDER,
                recipient=f"user@{DOMAIN}",
                arguments=["-r", "2", "-F", str(file)],
            )
            self.assertEqual((done.status, done.stderr), (0, ""), log())
        self.eventually("all letters", lambda: len(stored(office, "user")) >= 12, office)
        self.eventually("all copies", lambda: len(stored(office, "2user")) >= 12, office)
        letters = stored(office, "user")
        for kind in self.LETTERS:
            body = kind.partition(b"\n\n")[2]
            whole = [one for one in letters if one.rstrip(b"\n").endswith(b"\n\n" + body.rstrip(b"\n"))]
            self.assertEqual(len(whole), 4)
        self.assertEqual((len(letters), len(stored(office, "2user"))), (12, 12))
        self.assertNotIn("Traceback", office.log())
        return list(map(message_from_bytes, letters))

    def furnished(self, *lines: str) -> Postoffice:
        """An office with the users that smtp-source makes up."""
        return self.office(*lines, users={DOMAIN: ("user", "2user")})

    def test_postfix(self) -> None:
        office = self.furnished()
        postfix = Postfix(self.directory / "postfix", deliver=f"{HOST}:{office.port}")
        self.addCleanup(postfix.stop)
        for letter in self.relays(office, postfix.port, postfix.log):
            self.assertTrue(trace(letter).startswith("from postfix.test "), trace(letter))
        self.eventually("an empty queue", lambda: postfix.queued() == 0, office)
        self.assertNotIn("status=deferred", postfix.log())

    def test_exim(self) -> None:
        office = self.furnished()
        exim = Exim(self.directory / "exim", office.port)
        self.addCleanup(exim.stop)
        for letter in self.relays(office, exim.port, exim.log):
            self.assertTrue(trace(letter).startswith("from exim.test "), trace(letter))
        self.eventually("an empty queue", lambda: exim.queued() == 0, office)
        self.assertNotIn(" == ", exim.log(), "nothing was postponed")
