from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.address import Address
from postoffice.mail.envelope import Envelope
from postoffice.mail.reply import Reply
from postoffice.smtp import events as server
from postoffice.smtp.client import ClientEngine
from postoffice.smtp.client_events import Broken, Event, Finished, Proceed, Ready
from postoffice.smtp.encoding import Encoder
from postoffice.smtp.server import ServerEngine

ODD = st.text(alphabet="\r\n.ab", max_size=60).map(str.encode) | st.binary(max_size=60)
CONTENT = st.lists(ODD, max_size=6)
LINES = st.sampled_from(
    [b"220 x\r\n", b"250 ok\r\n", b"250-PIPELINING\r\n", b"250-SIZE 9\r\n", b"354 go\r\n",
     b"421 4.3.2 bye\r\n",
     b"550 5.1.1 no\r\n", b"451-a\r\n", b"451 later\r\n", b"552 5.5.3 many\r\n", b"junk\r\n", b"250 x\n"]
)  # fmt: skip
ATOM = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
ADDRESS = st.builds(Address, ATOM, st.sampled_from(["far.test", "[192.0.2.1]"]))
ENVELOPE = st.builds(
    Envelope,
    st.none() | ADDRESS,
    st.lists(ADDRESS, min_size=1, max_size=5).map(tuple),
    st.sampled_from(["7BIT", "8BITMIME"]),
)

LETTER = Envelope(None, (Address("a", "b"), Address("c", "d")))


def normalise(content: bytes) -> bytes:
    """What a letter is once NULs and bare CRs are dropped and bare LFs are CRLF; its last line is ended."""
    content = content.replace(b"\0", b"")
    text = re.sub(rb"\r(?!\n)", b"", re.sub(rb"\r+\n", b"\n", content)).replace(b"\n", b"\r\n")
    return text if text.endswith(b"\r\n") or not text else text + b"\r\n"


def decode(wire: bytes) -> bytes:
    """The content in what was sent, read line by line as RFC 5321 section 4.5.2 says."""
    lines = wire.split(b"\r\n")
    assert lines[-2:] == [b".", b""], wire
    assert b"." not in lines[:-2], wire
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:-2])


class EncoderProperties(SynchronousTestCase):
    @given(CONTENT)
    def test_A2_wire(self, pieces: list[bytes]) -> None:
        encoder = Encoder()
        wire = b"".join([*map(encoder.encode, pieces), encoder.end()])
        stray = wire.replace(b"\r\n", b"")
        self.assertFalse(b"\r" in stray or b"\n" in stray)
        self.assertEqual(decode(wire), normalise(b"".join(pieces)))
        self.assertEqual(wire.find(b"\r\n.\r\n") in (-1, len(wire) - 5), True)


class Host:
    """A server engine that accepts everything but what `refuse` draws; what it read is in `letters`."""

    def __init__(self, extensions: str, refuse: list[int]) -> None:
        self.engine = ServerEngine()
        self.letters: list[tuple[Address | None, list[Address], bytes]] = []
        self._extensions = extensions
        self._refuse = refuse
        self._sender: Address | None = None
        self._recipients: list[Address] = []
        self._content = b""

    def greet(self) -> bytes:
        return self.engine.greet(Reply(220, None, "host.test"))

    def hear(self, data: bytes) -> bytes:
        self.engine.receive(data)
        out = b""
        while (event := self.engine.next_event()) is not None:
            if isinstance(event, server.Content):
                self._content += event.data
            else:
                out += self.engine.answer(self._answer(event))
        return out

    def _answer(self, event: server.Event) -> Reply:
        match event:
            case server.Helo():
                return Reply(250, None, f"host.test\n{self._extensions}".rstrip())
            case server.Mail(sender):
                self._sender, self._recipients, self._content = sender, [], b""
            case server.Rcpt(recipient):
                if self._refuse and self._refuse.pop():
                    return Reply(550, (1, 1), "no")
                self._recipients.append(recipient)
            case server.Data():
                return Reply(354, None, "go")
            case server.EndOfContent(_, defect):
                self.letters.append((self._sender, self._recipients, self._content))
                return defect or Reply(250, (0, 0), "ok")
            case server.Refused(_, reply):
                return reply
        return Reply(250, (0, 0), "ok")


class SessionProperties(SynchronousTestCase):
    @given(
        st.lists(st.tuples(ENVELOPE, CONTENT), min_size=1, max_size=4),
        st.sampled_from(["", "PIPELINING\nSIZE\n8BITMIME"]),
        st.lists(st.sampled_from([0, 0, 0, 1]), max_size=12),
    )
    def test_A2_the_server_engine_reads_what_was_sent(
        self, letters: list[tuple[Envelope, list[bytes]]], extensions: str, refuse: list[int]
    ) -> None:
        host = Host(extensions, refuse)
        client = ClientEngine("me.test")
        client.receive(host.greet())
        expected: list[tuple[Address | None, list[Address], bytes]] = []
        queue = list(letters)
        envelope, pieces = queue.pop(0)
        finished = 0
        for _ in range(200):
            out = b""
            while (event := client.next_event()) is not None:
                match event:
                    case Ready():
                        out += client.begin(envelope, 100)
                    case Proceed():
                        out += b"".join([*map(client.content, pieces), client.end()])
                    case Finished(outcomes):
                        finished += 1
                        taken = [
                            recipient
                            for recipient, outcome in zip(envelope.recipients, outcomes, strict=True)
                            if outcome.reply.code == 250
                        ]
                        if taken:
                            expected.append((envelope.sender, taken, normalise(b"".join(pieces))))
                        if queue:
                            envelope, pieces = queue.pop(0)
                            out += client.begin(envelope, 100)
                    case Broken(reply):
                        self.fail(f"broken: {reply}")
            out += client.outgoing()
            if not out:
                break
            client.receive(host.hear(out))
        self.assertEqual(finished, len(letters))
        self.assertEqual(host.letters, expected)

    def talk(self, client: ClientEngine, pieces: list[bytes], more: int) -> list[Event | bytes]:
        """What an engine tells and sends, given these bytes and one letter after the other, `more` in all."""
        story: list[Event | bytes] = []
        for piece in pieces:
            client.receive(piece)
            while (event := client.next_event()) is not None or (out := client.outgoing()):
                if event is None:
                    story.append(out)
                    continue
                story.append(event)
                match event:
                    case Proceed():
                        story.append(client.content(b"x\r\n") + client.end())
                    case Ready() | Finished() if more and client.reusable:
                        more -= 1
                        story.append(client.begin(LETTER, 5))
        return story

    @given(st.lists(LINES | ODD, max_size=25).map(b"".join))
    def test_A6_any_bytes_give_printable_events(self, data: bytes) -> None:
        for prefix in (b"", b"220 x\r\n250-x\r\n250 PIPELINING\r\n", b"220 x\r\n250 x\r\n"):
            replies = []
            for event in self.talk(ClientEngine("me.test"), [prefix, data], 9):
                match event:
                    case Broken(reply):
                        replies.append(reply)
                    case Finished(outcomes):
                        self.assertEqual(len(outcomes), 2)
                        replies += [outcome.reply for outcome in outcomes]
            for reply in replies:
                self.assertTrue(str(reply).isascii() and str(reply).isprintable())

    @given(st.lists(LINES, max_size=25).map(b"".join), st.data())
    def test_cuts_do_not_matter(self, data: bytes, draw: st.DataObject) -> None:
        cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        self.assertEqual(self.story(pieces), self.story([bytes([octet]) for octet in data]))

    def story(self, pieces: list[bytes]) -> list[Event | bytes]:
        """What becomes of one letter in a session that was greeted.

        Whether a second could follow at once depends on what came with the last reply, so none does.
        """
        client = ClientEngine("me.test")
        self.talk(client, [b"220 x\r\n", b"250-x\r\n250 PIPELINING\r\n"], 1)
        return self.talk(client, pieces, 0)
