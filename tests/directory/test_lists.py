"""The lists that alias files include: read as delivery does, each once, and bounded."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from postoffice.directory.aliases import MOST_LISTS
from postoffice.directory.lists import check_lists


class Lists(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.place = Path(directory.name)

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.place / name).write_text(text)

    def found(self, *names: str, octets: int = 1000) -> tuple[list[str], list[str]]:
        """Mistakes and warnings about lists that a file `aliases` includes, one a line."""
        included = [(line, f"{self.place}/{name}") for line, name in enumerate(names, 1)]
        findings = check_lists("aliases", included, octets)
        return findings.mistakes, findings.warnings

    def test_nothing_wrong(self) -> None:
        self.write(team="# the team\nann, bob@far.test\n/var/log/team\n|cmd\n", empty="")
        self.assertEqual(self.found("team", "empty"), ([], []))

    def test_a_mistake_in_a_list_of_a_list(self) -> None:
        self.write(
            outer=f"ann\n:include:{self.place}/inner\n", inner=f"bob\n\n(joe)\n:include:{self.place}/gone\n"
        )
        mistake = f"{self.place}/inner:3: '(joe)' is not an address, a /file or a |command"
        mistakes, warnings = self.found("outer")
        self.assertEqual(mistakes, [f"{mistake}; {self.place}/outer:2 includes it"])
        self.assertEqual(warnings, [])

    def test_a_list_that_cannot_be_read_is_a_warning(self) -> None:
        os.mkfifo(self.place / "pipe")
        self.write(long="ann\n" * 300)
        mistakes, warnings = self.found("gone", "pipe", "long")
        self.assertEqual(mistakes, [])
        whys = ("No such file or directory", "not a regular file", "longer than 1000 octets")
        waits = [
            f"aliases:{line}: {self.place}/{name}: {why}; mail for this list waits"
            for line, (name, why) in enumerate(zip(("gone", "pipe", "long"), whys, strict=True), 1)
        ]
        self.assertEqual(warnings, waits)

    def test_each_is_read_once(self) -> None:
        self.write(one=f":include:{self.place}/two\n(\n", two=f":include:{self.place}/one\n")
        mistakes, warnings = self.found("one", "one", "two")
        self.assertEqual((len(mistakes), warnings), (1, []))

    def test_all_together_are_bounded(self) -> None:
        self.write(one="ann\n" * 20, two="ann\n" * 20)
        mistakes, warnings = self.found("one", "two", octets=100)
        self.assertEqual((mistakes, len(warnings)), ([], 1))
        self.write(many="".join(f":include:{self.place}/one{n}\n" for n in range(MOST_LISTS * 2)))
        mistakes, warnings = self.found("many", octets=1_000_000)
        self.assertEqual(mistakes, [])
        self.assertLess(len(warnings), 50)
        self.assertIn(f"{MOST_LISTS} lists; no more are looked at", warnings[0])
