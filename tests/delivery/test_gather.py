from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery.gather import MOST, THREADS, Gathering
from postoffice.delivery.maildir import MaildirFile, put_together

T = TypeVar("T")
LETTER = b"Subject: x\r\n\r\nbody\r\n"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp())
        os.mkdir(self.top)

    def opened(self, user: str) -> Callable[[], MaildirFile]:
        return partial(MaildirFile, f"{self.top}/{user}", 1e9, "mx", "")

    def count(self, user: str, part: str = "new") -> int:
        return len(os.listdir(f"{self.top}/{user}/{part}"))


class PutTogetherTests(Case):
    def test_all(self) -> None:
        letters = [(self.opened(user), LETTER) for user in ("joe", "sally", "joe")]
        self.assertEqual(put_together(letters), [None, None, None])
        self.assertEqual((self.count("joe"), self.count("sally")), (2, 1))
        self.assertEqual((self.count("joe", "tmp"), self.count("sally", "tmp")), (0, 0))

    def test_none(self) -> None:
        self.assertEqual(put_together([]), [])

    def test_a_failure_ends_only_the_letter_it_is_for(self) -> None:
        self.opened("full")().abort()
        os.rmdir(f"{self.top}/full/new")
        with open(f"{self.top}/file", "w"):
            letters = [(self.opened(user), LETTER) for user in ("joe", "file", "full", "no/parent", "joe")]
        errors = put_together(letters)
        numbers = [error.errno if isinstance(error, OSError) else error for error in errors]
        self.assertEqual(numbers, [None, errno.ENOTDIR, errno.ENOENT, errno.ENOENT, None])
        self.assertEqual((self.count("joe"), self.count("full", "tmp")), (2, 0))

    def test_a_bug_ends_only_the_letter_it_is_in(self) -> None:
        bug = ValueError("bug")

        def broken() -> MaildirFile:
            raise bug

        self.assertEqual(put_together([(broken, LETTER), (self.opened("joe"), LETTER)]), [bug, None])
        self.assertEqual(self.count("joe"), 1)

    def test_unsynced_directory(self) -> None:
        """A directory that cannot be opened cannot be synced: the letter is taken back."""

        class Lost(MaildirFile):
            def move(self) -> str:
                return f"{super().move()}/missing"

        lost = partial(Lost, f"{self.top}/lost", 1e9, "mx", "")
        errors = put_together([(lost, LETTER), (self.opened("joe"), LETTER)])
        self.assertIsInstance(errors[0], FileNotFoundError)
        self.assertEqual((errors[1], self.count("lost"), self.count("joe")), (None, 0, 1))

    def test_what_cannot_be_removed_ends_only_its_own_letter(self) -> None:
        class Stuck(MaildirFile):
            def move(self) -> str:
                raise OSError(errno.EIO, "move")

            def abort(self) -> None:
                raise OSError(errno.EROFS, "abort")

        stuck = partial(Stuck, f"{self.top}/stuck", 1e9, "mx", "")
        errors = put_together([(stuck, LETTER), (self.opened("joe"), LETTER)])
        self.assertEqual((str(errors[0]), errors[1]), (f"[Errno {errno.EIO}] move", None))
        self.assertEqual(self.count("joe"), 1)


class GatheringTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.running: list[Callable[[], None]] = []
        self.sizes: list[int] = []
        self.gathering = Gathering(self.in_thread)

    def in_thread(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        done: Deferred[T] = Deferred()
        (letters,) = args
        self.sizes.append(len(letters))  # type: ignore[arg-type]
        self.running.append(lambda: done.callback(function(*args)))
        return done

    def put(self, is_wanted: Callable[[], bool] = lambda: True) -> Deferred[None]:
        return self.gathering.put(self.opened("joe"), LETTER, is_wanted)

    def test_what_gathers_goes_together(self) -> None:
        done = [self.put() for _ in range(THREADS + MOST + 5)]
        self.assertEqual(self.sizes, [1] * THREADS)
        self.running.pop(0)()
        self.successResultOf(done[0])
        self.assertEqual(self.sizes, [1] * THREADS + [MOST])
        while self.running:
            self.running.pop(0)()
        self.assertEqual(self.sizes, [1] * THREADS + [MOST, 5])
        for letter in done:
            self.assertIsNone(self.successResultOf(letter))
        self.assertEqual(self.count("joe"), len(done))

    def test_what_is_not_wanted_any_more(self) -> None:
        wanted = [self.put() for _ in range(THREADS)]
        dropped = self.put(lambda: False)
        wanted.append(self.put())
        while self.running:
            self.running.pop(0)()
        self.failureResultOf(dropped, CancelledError)
        self.assertEqual([self.successResultOf(letter) for letter in wanted], [None] * 3)
        self.assertEqual(self.count("joe"), 3)

    def test_errors(self) -> None:
        done = self.gathering.put(self.opened("no/parent"), LETTER, lambda: True)
        self.running.pop()()
        self.failureResultOf(done, FileNotFoundError)

    def test_a_thread_that_fails_frees_its_place(self) -> None:
        failing: list[Deferred[list[Exception | None]]] = []
        gathering = Gathering(lambda *_: failing.append(Deferred()) or failing[-1])  # type: ignore[arg-type, func-returns-value]
        done = [gathering.put(self.opened("joe"), LETTER, lambda: True) for _ in range(THREADS + 1)]
        failing[0].errback(ValueError("no threads"))
        self.failureResultOf(done[0], ValueError)
        self.assertEqual(len(failing), THREADS + 1)
