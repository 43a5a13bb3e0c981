"""Whether an open file is what its name still stands for."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery.files import kept_its_name, still_named


class NameTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        with open(self.path, "w", encoding="ascii"):
            pass

    def opened(self) -> int:
        descriptor = os.open(self.path, os.O_RDWR)
        self.addCleanup(os.close, descriptor)
        return descriptor

    def test_a_file_that_stays(self) -> None:
        descriptor = self.opened()
        status = os.fstat(descriptor)
        there = still_named(self.path, status)
        assert there is not None
        self.assertTrue(os.path.samestat(there, status))
        self.assertTrue(kept_its_name(self.path, descriptor, status))

    def test_D3_a_name_that_came_back_is_another(self) -> None:
        """Count of names and time of the last change may look as if nothing had been."""
        descriptor = self.opened()
        os.link(self.path, f"{self.path}.other")
        os.unlink(self.path)
        os.rename(f"{self.path}.other", self.path)
        status = os.fstat(descriptor)
        self.assertIsNotNone(still_named(self.path, status))
        self.assertFalse(kept_its_name(self.path, descriptor, status))

    def test_another_file_under_the_name(self) -> None:
        descriptor = self.opened()
        status = os.fstat(descriptor)
        os.unlink(self.path)
        self.assertIsNone(still_named(self.path, status))
        with open(self.path, "w", encoding="ascii"):
            self.assertIsNone(still_named(self.path, status))
        self.assertFalse(kept_its_name(self.path, descriptor, status))
