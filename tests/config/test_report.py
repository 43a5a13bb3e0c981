"""The report of a check and the sample file are made from the table."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.options import OPTIONS
from postoffice.config.report import in_force, report, sample, warnings
from postoffice.config.settings import Settings


class Report(SynchronousTestCase):
    def test_every_option_with_value_and_origin(self) -> None:
        settings = Settings.from_text('size=20m\nspam="bounce:a # b"\n', "f.cf", ["listen=26", "listen=27"])
        lines = report(settings).splitlines()
        fields = [tuple(part.strip() for part in line.rsplit(" # ", 1)) for line in lines]
        for found in (
            ("size=20m", "f.cf:1"),
            ("listen=26", "-o"),
            ("listen=27", "-o"),
            ("clients=100", "default"),
            ('spam="bounce:a # b"', "f.cf:2"),
            ("history=7d", "default; not yet available"),
            ("#localdomain=", "default: none"),
        ):
            self.assertIn(found, fields)
        named = {line.lstrip("#").partition("=")[0] for line in lines}
        self.assertEqual({option.name for option in OPTIONS} - named, set())

    def test_warnings(self) -> None:
        settings = Settings.from_text("size=1\nhistory=1\nrelay\nauth-plaintext\n", "f.cf")
        self.assertEqual(
            warnings(settings),
            [
                "f.cf:2: history: not yet available; it has no effect",
                "f.cf:3: relay: anybody may send mail through this server",
                "f.cf:4: auth-plaintext: whoever is between clients and us may read their passwords",
            ],
        )
        self.assertIn("# warning: f.cf:2: history", report(settings))
        self.assertEqual(warnings(Settings.from_text("", "f.cf")), [])


class InForce(SynchronousTestCase):
    def test_every_setting_has_a_line(self) -> None:
        text = "size=5000\ntrusted=192.0.2.1\ntrusted=192.0.2.2\nhostname=mx.example.org # comment"
        lines = in_force(Settings.from_text(text, "x.cf"))
        self.assertLessEqual(
            {
                "size=5000",
                "trusted=192.0.2.1",
                "trusted=192.0.2.2",
                "hostname=mx.example.org",
                "errors=20",
                "relay-host: the MX of the recipient's domain",
            },
            set(lines),
        )
        self.assertLessEqual(len(OPTIONS), len(lines))


class Sample(SynchronousTestCase):
    def test_is_current(self) -> None:
        kept = Path(__file__).parents[2] / "contrib" / "postoffice.cf"
        self.assertEqual(kept.read_text("utf-8"), sample())

    def test_uncommented_it_says_the_defaults(self) -> None:
        lines = [
            line[1:]
            for line in sample().splitlines()
            if line.startswith("#") and not line.startswith(("# ", "##"))
        ]
        said = "\n".join(line for line in lines if not line.partition("=")[2].startswith(" "))
        self.assertGreater(said.count("\n"), 15)
        self.assertEqual(Settings.from_text(said, "f"), Settings.from_text("", "f"))
