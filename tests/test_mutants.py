"""Every seeded defect of `tests.mutants.MUTANTS` is seen by the test that guards against it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.mutants import MUTANTS, BadMutant, Mutant, run
from tests.support import CHECKOUT


class Mutants(SynchronousTestCase):
    """One test a row; named after the checklist."""

    def check(self, mutant: Mutant) -> None:
        """The guarding test passes without the defect and fails with it."""
        scratch = Path(self.mktemp()).absolute()
        # The account a service under test runs as has to get in.
        scratch.parent.chmod(0o755)
        self.addCleanup(shutil.rmtree, scratch, True)
        self.assertTrue(
            run(mutant, CHECKOUT, scratch),
            f"{mutant.test} passes although {mutant.file} says {mutant.new!r} instead of {mutant.old!r}",
        )

    def test_snippets_are_there(self) -> None:
        """At a glance, before any of them is run."""
        stale = [row.checklist_id for row in MUTANTS if (CHECKOUT / row.file).read_text().count(row.old) != 1]
        self.assertEqual(stale, [])

    def test_tests_are_there(self) -> None:
        for name in sorted({row.test for row in MUTANTS}):
            module, case, method = name.rsplit(".", 2)
            self.assertTrue(callable(getattr(getattr(import_module(module), case), method, None)), name)

    def test_names_are_unique(self) -> None:
        names = [mutant.checklist_id for mutant in MUTANTS]
        self.assertEqual(sorted(set(names)), sorted(names))


def method(mutant: Mutant) -> Callable[[Mutants], None]:
    """The test of one row."""

    def test(self: Mutants) -> None:
        self.check(mutant)

    return test


for row in MUTANTS:
    setattr(Mutants, f"test_{row.checklist_id.replace('-', '_')}", method(row))


PROGRAM = "def double(number):\n    return number * 2\n"
TESTS = """
from twisted.trial.unittest import SynchronousTestCase
from program.maths import double

class Doubling(SynchronousTestCase):
    def test_sharp(self):
        self.assertEqual(double(3), 6)
    def test_blunt(self):
        self.assertEqual(double(2), 4)
    def test_always_fails(self):
        self.fail("always")
    def test_skipped(self):
        self.skipTest("nothing here")
"""


class Harness(SynchronousTestCase):
    """The harness on a program of two lines: it tells a seen defect from an unseen one and a broken run."""

    def run_on_program(self, test: str, old: str = "* 2", new: str = "** 2") -> list[str]:
        """`run` for a mutant of the small program."""
        source = Path(self.mktemp()).absolute()
        (source / "program").mkdir(parents=True)
        (source / "program/__init__.py").touch()
        (source / "program/maths.py").write_text(PROGRAM, encoding="utf-8")
        (source / "tests").mkdir()
        (source / "tests/__init__.py").touch()
        (source / "tests/test_maths.py").write_text(TESTS, encoding="utf-8")
        shutil.copy(CHECKOUT / "tests/mutants.py", source / "tests/mutants.py")
        mutant = Mutant("self", "program/maths.py", old, new, f"tests.test_maths.{test}")
        return run(mutant, source, source / "scratch", "program")

    def test_seen(self) -> None:
        (told,) = self.run_on_program("Doubling.test_sharp")
        self.assertIn("9 != 6", told)

    def test_an_exception_is_seen(self) -> None:
        (told,) = self.run_on_program("Doubling.test_sharp", new="/ 0")
        self.assertIn("ZeroDivisionError", told)

    def test_unseen(self) -> None:
        self.assertEqual(self.run_on_program("Doubling.test_blunt"), [])

    def bad(self, words: str, test: str, old: str = "* 2", new: str = "** 2") -> None:
        """The harness refuses the mutant and says so in these words."""
        error = self.assertRaises(BadMutant, self.run_on_program, test, old, new)
        self.assertIn(words, str(error))

    def test_failing_anyway(self) -> None:
        self.bad("fails without the defect", "Doubling.test_always_fails")

    def test_no_such_test(self) -> None:
        self.bad("cannot be loaded", "Doubling.test_gone")

    def test_more_than_one_test(self) -> None:
        self.bad("names 4 tests", "Doubling")

    def test_snippet_not_once(self) -> None:
        self.bad("0 times", "Doubling.test_sharp", old="* 3")
        self.bad("2 times", "Doubling.test_sharp", old="number")

    def test_broken_import(self) -> None:
        self.bad("cannot be loaded", "Doubling.test_sharp", old="def double", new="def triple")

    def test_broken_program(self) -> None:
        self.assertRaises(SyntaxError, self.run_on_program, "Doubling.test_sharp", "* 2", "* * 2")

    def test_skipped(self) -> None:
        self.assertRaises(SkipTest, self.run_on_program, "Doubling.test_skipped")
