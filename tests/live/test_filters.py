"""Filters and a running service: a milter on its socket, a Python filter, the AV command, letters on hold."""

from __future__ import annotations

import smtplib
import struct
from collections.abc import Callable
from pathlib import Path

from postoffice.milter.packets import packet
from tests.live.milter import SocketMilter
from tests.live.office import OfficeCase, run, stored
from tests.peers import HOST, Postoffice

LETTER = b"From: <a@far.test>\r\nSubject: s\r\n\r\ntext\r\n"
LARGE = LETTER + (b"y" * 70 + b"\r\n") * 20_000


class FiltersCase(OfficeCase):
    def milter(self, answers: dict[bytes, bytes | Callable[[bytes], bytes] | None]) -> SocketMilter:
        milter = SocketMilter(str(self.directory / "filter"), answers)
        self.addCleanup(self._stop, milter)
        return milter

    def _stop(self, milter: SocketMilter) -> None:
        if Path(milter.path).exists():
            milter.stop()

    def send(self, office: Postoffice, letter: bytes = LETTER) -> tuple[int, bytes]:
        """What is said at last to a letter for alice."""
        with smtplib.SMTP(HOST, office.port, timeout=60) as client:
            client.ehlo("client.far.test")
            for verb, words in (("MAIL", "FROM:<a@far.test>"), ("RCPT", "TO:<alice@here.test>")):
                code, text = client.docmd(verb, words)
                if code >= 400:
                    return code, text
            try:
                return client.data(letter)
            except smtplib.SMTPDataError as refused:
                return refused.smtp_code, bytes(refused.smtp_error)

    def letters(self, office: Postoffice, count: int) -> list[bytes]:
        self.eventually(f"{count} letters", lambda: len(stored(office)) == count, office)
        return stored(office)


class Milters(FiltersCase):
    def test_letters_are_changed(self) -> None:
        edits = packet(b"i", struct.pack(">I", 0) + b"X-Top\0one\n\ttwo\0") + packet(b"h", b"X-End\0v\0")
        milter = self.milter(
            {b"E": edits + packet(b"m", struct.pack(">I", 1) + b"Subject\0t\0") + packet(b"a")}
        )
        office = self.office(f"filter={milter.path}")
        for letter in (LETTER, LARGE):
            self.assertEqual(self.send(office, letter)[0], 250)
        for content in self.letters(office, 2):
            head, _, body = content.replace(b"\r\n", b"\n").partition(b"\n\n")
            self.assertIn(b"\nX-Top: one\n\ttwo\nReceived: from client.far.test", head)
            self.assertTrue(head.endswith(b"\nSubject: t\nX-End: v"), head)
            self.assertIn(body, (LETTER.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n"),
                                 LARGE.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")))  # fmt: skip
        # The first was asked about a client that only looked whether the service is there.
        for one in milter.connections[1:]:
            self.assertTrue(one.commands.startswith("OCHMRTLL"))
            self.assertEqual(one.macros[b"C"]["j"], "mail.here.test")

    def test_it_listens_on_a_port(self) -> None:
        milter = SocketMilter("", {})
        self.addCleanup(milter.stop)
        for host in (HOST, "localhost"):
            office = self.office(f"filter={host}:{milter.port}", name=f"office-{host}")
            self.assertEqual(self.send(office)[0], 250)
            self.assertIn("NBE", milter.connections[-1].commands)
            office.stop()

    def test_it_goes_down_and_comes_back_in_one_session(self) -> None:
        milter = self.milter({})
        office = self.office(f"filter={milter.path}")
        with smtplib.SMTP(HOST, office.port, timeout=60) as client:
            client.sendmail("a@far.test", "alice@here.test", LETTER)
            milter.stop()
            code, _ = client.docmd("MAIL", "FROM:<a@far.test>")
            self.assertEqual(code, 451)
            again = SocketMilter(milter.path, {})
            self.addCleanup(self._stop, again)
            client.sendmail("a@far.test", "alice@here.test", LETTER)
            self.assertEqual(len(again.connections), 1)
            # Where it is back by then, the next letter does not notice.
            again.stop()
            more = SocketMilter(milter.path, {})
            self.addCleanup(self._stop, more)
            client.noop()
            client.sendmail("a@far.test", "alice@here.test", LETTER)
            self.assertEqual(len(more.connections), 1)
        self.letters(office, 3)

    def test_E4_it_ends_at_every_event(self) -> None:
        for on_error, code in (("tempfail", 451), ("accept", 250)):
            milter = self.milter({})
            office = self.office(f"filter={milter.path},on-error={on_error}", name=f"office-{on_error}")
            for event in (b"O", b"C", b"H", b"M", b"R", b"T", b"L", b"N", b"B", b"E"):

                def die(data: bytes, milter: SocketMilter = milter) -> bytes:
                    milter.hang_up()
                    return b""

                milter.answers = {event: die}
                self.assertEqual(self.send(office)[0], code, event)
            milter.answers = {}
            self.assertEqual(self.send(office)[0], 250)
            self.letters(office, 11 if code == 250 else 1)
            milter.stop()

    def test_letters_of_commands_and_letters_on_hold(self) -> None:
        milter = self.milter({b"E": packet(b"q", b"looks odd\0") + packet(b"c")})
        office = self.office(f"filter={milter.path}")
        handed = run(office, "-v", "alice@here.test", data=b"Subject: s\n\ntext\n")
        self.assertEqual(handed.returncode, 0, handed.stderr)
        letter_id = handed.stdout.decode().strip()
        self.assertEqual(milter.connections[-1].data(b"C"), [b"localhost\x004\0\x00127.0.0.1\0"])
        self.assertIn(b" on hold: looks odd (filter /", run(office, command="mailq").stdout)
        said = f"{letter_id}: on hold: looks odd (filter {milter.path})"
        self.eventually("the log says why", lambda: said in office.log(), office)
        self.assertEqual(stored(office), [])
        released = run(office, "release", letter_id)
        self.assertEqual(released.returncode, 0, released.stderr)
        self.letters(office, 1)
        self.assertNotEqual(run(office, "release", letter_id).returncode, 0)

    def test_letters_on_hold_are_read_and_removed(self) -> None:
        milter = self.milter({b"E": packet(b"q", b"looks odd\0") + packet(b"c")})
        office = self.office(f"filter={milter.path}")
        large = b"Subject: large\n\n" + b"text\n" * 100_000
        ids = [
            run(office, "-v", "alice@here.test", data=content).stdout.decode().strip()
            for content in (b"Subject: small\n\ntext\n", large)
        ]
        for letter_id, end in zip(ids, (b"Subject: small\n\ntext\n", large), strict=True):
            shown = run(office, "show", letter_id)
            self.assertTrue(shown.stdout.startswith(b"Received: "), shown)
            self.assertTrue(shown.stdout.endswith(end.partition(b"\n\n")[2]))
        self.assertEqual(run(office, "delete", *ids).returncode, 0)
        self.assertEqual(run(office, command="mailq").stdout, b"Mail queue is empty.\n")
        self.assertNotEqual(run(office, "show", ids[0]).returncode, 0)
        self.eventually("the log says who", lambda: f": delete letter {ids[1]}" in office.log(), office)
        self.assertEqual(stored(office), [])


class Others(FiltersCase):
    def test_a_python_filter(self) -> None:
        (self.directory / "office").mkdir()
        place = self.directory / "lib"
        place.mkdir()
        place.chmod(0o755)
        (place / "looks.py").write_text(
            "from postoffice.filters.python import Filter, reject\n"
            "class Looks(Filter):\n"
            "    async def letter(self, facts, letter):\n"
            "        if b'evil' in await letter.body():\n"
            "            return reject('That is evil')\n"
            "        letter.add_header('X-Looked', 'yes')\n"
        )
        self.patch(Postoffice, "environment", _with_path(str(place)))
        office = self.office("filter=python:looks:Looks")
        self.assertEqual(self.send(office)[0], 250)
        self.assertEqual(self.send(office, LETTER + b"evil\r\n"), (550, b"5.7.1 That is evil"))
        self.assertIn(b"X-Looked: yes", self.letters(office, 1)[0])

    def test_the_av_command(self) -> None:
        office = self.office('av="|if grep -q VIRUS; then echo found it; exit 1; fi; test \\"$SENDER\\""')
        self.assertEqual(self.send(office)[0], 250)
        self.assertEqual(self.send(office, LARGE)[0], 250)
        self.assertEqual(self.send(office, LARGE + b"VIRUS\r\n"), (550, b"5.7.1 found it"))
        self.letters(office, 2)

    def test_an_av_command_that_fails(self) -> None:
        for name, command in (("gone", "/nowhere/av"), ("slow", "sleep 60"), ("dead", "kill -9 $$")):
            office = self.office(f'av="|{command}"', "av-timeout=1", name=name)
            self.assertEqual(self.send(office)[0], 451)
            self.assertEqual(stored(office), [])
            office.stop()


def _with_path(place: str) -> Callable[[Postoffice], dict[str, str]]:
    usual = Postoffice.environment

    def environment(office: Postoffice) -> dict[str, str]:
        found = dict(usual(office))
        return {**found, "PYTHONPATH": f"{found['PYTHONPATH']}:{place}"}

    return environment
