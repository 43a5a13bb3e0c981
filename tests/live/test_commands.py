"""Files and commands that addresses stand for, on a running service that was not started by root."""

from __future__ import annotations

import smtplib

from tests.live.office import DOMAIN, NAME, OfficeCase, run, stored
from tests.peers import HOST, Postoffice, passable

LETTER = b"Subject: for programs\r\n\r\nFrom here on\r\n"


class Commands(OfficeCase):
    """What is asked for by an alias is done, or comes back with what the command said."""

    def furnished(self, aliases: str) -> Postoffice:
        """An office with these aliases, in which `PLACE` is a directory of its own."""
        place = passable(self.directory / "office")
        (place / "aliases").write_text(aliases.replace("PLACE", str(place)))
        return self.office()

    def send(self, office: Postoffice, *names: str) -> None:
        """Hand a letter in for these names."""
        with smtplib.SMTP(HOST, office.port, timeout=30) as client:
            refused = client.sendmail(f"bob@{DOMAIN}", [f"{name}@{NAME}" for name in names], LETTER)
        self.assertEqual(refused, {})

    def nothing_waits(self, office: Postoffice) -> None:
        self.eventually(
            "the queue is empty",
            lambda: run(office, command="mailq").stdout == b"Mail queue is empty.\n",
            office,
        )

    def test_a_file_and_a_command(self) -> None:
        office = self.furnished('both: PLACE/log, "|cat > PLACE/said; env >> PLACE/said"\n')
        self.send(office, "both+detail")
        self.nothing_waits(office)
        log = (office.directory / "log").read_text()
        self.assertTrue(log.startswith(f"From bob@{DOMAIN} "), log)
        self.assertTrue(log.endswith("\n\n>From here on\n\n"), log)
        said = (office.directory / "said").read_text()
        self.assertIn(f"\nDelivered-To: both+detail@{NAME}\n", said)
        self.assertIn("\n\nFrom here on\n", said)
        self.assertIn(f"\nSENDER=bob@{DOMAIN}\n", said)
        self.assertIn("\nEXTENSION=detail\n", said)

    def test_what_a_command_says_is_in_the_bounce(self) -> None:
        office = self.furnished('broken: "|echo it is all wrong; exit 65"\n')
        self.send(office, "broken")
        self.eventually("a bounce", lambda: stored(office, "bob"), office)
        (bounce,) = stored(office, "bob")
        self.assertIn(b"the letter is not as it should be: it is all wrong", bounce)
        self.assertIn(b"Status: 5.6.0\n", bounce)

    def test_a_command_that_wants_to_be_tried_again_waits(self) -> None:
        office = self.furnished('later: "|test -e PLACE/now || exit 75"\n')
        self.send(office, "later")
        self.eventually(
            "the queue says why",
            lambda: b"to be tried again" in run(office, command="mailq").stdout,
            office,
        )
        (office.directory / "now").touch()
        self.assertEqual(run(office, "-bq").returncode, 0)
        self.nothing_waits(office)
