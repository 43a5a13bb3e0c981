"""The files of virtual domains: what is read, what is changed, and what is told when that cannot be."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from postoffice.directory.virtual_files import ATTEMPTS, Means, Places, VirtualFiles
from postoffice.interfaces import Declined, IVirtualFiles
from postoffice.mail.virtual import AliasSummary, VirtualDomain
from tests.doubles import MemoryVirtualFiles, PlainHashes

T = TypeVar("T")
HERE = VirtualDomain("here.example", "tim", active=True)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.place = Path(self.mktemp()).absolute()
        self.folder = self.place / "here.example"
        self.folder.mkdir(parents=True)
        (self.place / "domains.cf").write_text("tim:here.example:1:\nann:Sleepy.example:0:not yet\n")
        self.looks = 0
        self.pauses: list[float] = []
        self.in_thread: Callable[[Callable[[], Any]], Any] = maybeDeferred
        self.files = self.make()

    def make(self) -> VirtualFiles:
        places = Places(str(self.place), str(self.place / "aliases"), "postoffice")
        means = Means(maybeDeferred, lambda work: self.in_thread(work), self.sleep, self.look)
        return VirtualFiles(places, PlainHashes(), means)

    def look(self) -> None:
        self.looks += 1

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def done(self, work: Awaitable[T]) -> T:
        result: T = self.successResultOf(Deferred.fromCoroutine(work))  # type: ignore[arg-type]
        return result

    def declined(self, code: int, work: Awaitable[object]) -> str:
        error = self.failureResultOf(Deferred.fromCoroutine(work), Declined).value  # type: ignore[arg-type]
        self.assertEqual(error.exit_code, code, error)
        return str(error)

    def test_interface(self) -> None:
        verifyObject(IVirtualFiles, self.files)
        verifyObject(IVirtualFiles, MemoryVirtualFiles())


class Reading(Case):
    def test_domains_active_or_not_as_the_file_has_them_now(self) -> None:
        self.assertEqual(self.done(self.files.find("HERE.example.")), HERE)
        self.assertEqual(
            self.done(self.files.find("sleepy.example")), VirtualDomain("Sleepy.example", "ann", active=False)
        )
        (self.place / "domains.cf").write_text("eve:here.example:1:\n")
        found = self.done(self.files.find("here.example"))
        assert found is not None
        self.assertEqual(found.owner, "eve")
        (self.place / "domains.cf").unlink()
        self.assertIsNone(self.done(self.files.find("here.example")))

    def test_a_mistake_in_the_list_of_domains_is_told(self) -> None:
        (self.place / "domains.cf").write_text("tim:here.example:1:\ntim\n")
        what = self.declined(os.EX_DATAERR, self.files.find("here.example"))
        self.assertIn(f"{self.place}/domains.cf:2: ", what)

    def test_users(self) -> None:
        (self.folder / "passwd").write_text("Bob:hash of x\nann:*\n")
        self.assertEqual(self.done(self.files.users(HERE)), [("Bob", True), ("ann", False)])
        (self.folder / "passwd").write_text("Bob:hash of x\nann\n")
        what = self.declined(os.EX_DATAERR, self.files.users(HERE))
        self.assertEqual(what, f"{self.folder}/passwd:2: not of the form user:hash")

    def test_aliases(self) -> None:
        self.assertEqual(self.done(self.files.aliases(HERE)), [])
        (self.folder / "aliases").write_text("b: x\na:\n y\n")
        self.assertEqual(self.done(self.files.aliases(HERE)), [("b", "x"), ("a", "y")])

    def test_summaries(self) -> None:
        path = self.place / "aliases"
        path.write_text("b: |cmd\na: yz\nB: x\n")
        summary = AliasSummary(str(path), 2, 4, 8, ((3, "B"),))
        self.assertEqual(self.done(self.files.summary(None)), summary)
        (self.folder / "aliases").write_text("b: x\n")
        summary = AliasSummary(f"{self.folder}/aliases", 1, 1, 2)
        self.assertEqual(self.done(self.files.summary(HERE)), summary)
        self.assertEqual(self.looks, 2)

    def test_lists_are_looked_at(self) -> None:
        path = self.place / "aliases"
        path.write_text(f"b: x,\n :include:{self.place}/gone\nc: :include:{self.place}/list\n")
        (self.place / "list").write_text("x\n(\n")
        summary = self.done(self.files.summary(None))
        (mistake,) = summary.mistakes
        self.assertTrue(mistake.startswith(f"{self.place}/list:2: "), mistake)
        self.assertTrue(mistake.endswith(f"; {path}:3 includes it"), mistake)
        (warning,) = summary.warnings
        self.assertTrue(warning.startswith(f"{path}:1: {self.place}/gone: "), warning)

    def test_what_is_wrong_with_an_alias_file(self) -> None:
        what = self.declined(os.EX_NOINPUT, self.files.summary(None))
        self.assertEqual(what, f"{self.place}/aliases: No such file or directory")
        (self.place / "aliases").write_text("b: x\n\n: y\n")
        what = self.declined(os.EX_DATAERR, self.files.summary(None))
        self.assertIn("aliases:3: ", what)
        (self.folder / "aliases").write_text("b: /file\n")
        what = self.declined(os.EX_DATAERR, self.files.summary(HERE))
        self.assertIn("aliases:1: only addresses", what)

    def test_D5_links_out_of_the_domain_are_not_followed(self) -> None:
        secret = self.place / "secret"
        secret.write_text("root:$6$hash\n")
        for name, work in (
            ("passwd", self.files.users),
            ("aliases", self.files.aliases),
            ("aliases", self.files.summary),
        ):
            (self.folder / name).unlink(missing_ok=True)
            (self.folder / name).symlink_to(secret)
            self.assertNotIn("hash", self.declined(os.EX_IOERR, work(HERE)))


class Changing(Case):
    def passwd(self) -> str:
        return (self.folder / "passwd").read_text()

    def test_users_come_change_and_go(self) -> None:
        self.done(self.files.set_password(HERE, "Bob", b"one", new=True))
        self.assertEqual(self.passwd(), "Bob:hash of one\n")
        self.done(self.files.set_password(HERE, "bob", b"two", new=False))
        self.assertEqual(self.passwd(), "Bob:hash of two\n")
        self.done(self.files.remove_user(HERE, "BOB"))
        self.assertEqual(self.passwd(), "")
        self.assertEqual(self.looks, 3)

    def test_aliases_come_change_and_go(self) -> None:
        self.done(self.files.set_alias(HERE, "info", ["ann", "bob@x.example"]))
        self.assertEqual((self.folder / "aliases").read_text(), "info: ann, bob@x.example\n")
        self.done(self.files.set_alias(HERE, "info", ["ann"]))
        self.done(self.files.remove_alias(HERE, "info"))
        self.assertEqual((self.folder / "aliases").read_text(), "")
        self.assertEqual(self.looks, 3)

    def test_a_file_with_a_mistake_is_corrected_by_hand_first(self) -> None:
        (self.folder / "passwd").write_text("bob:x\nann\n")
        what = self.declined(os.EX_DATAERR, self.files.set_password(HERE, "bob", b"secret", new=False))
        self.assertEqual(what, f"{self.folder}/passwd:2: not of the form user:hash")
        self.assertEqual(self.passwd(), "bob:x\nann\n")
        self.assertEqual(self.looks, 0)

    def test_there_is_no_directory(self) -> None:
        self.folder.rmdir()
        what = self.declined(os.EX_NOINPUT, self.files.set_alias(HERE, "info", ["ann"]))
        self.assertIn(f"{self.folder}: No such file or directory", what)

    def test_what_the_account_may_not_write_is_told_with_what_to_do(self) -> None:
        def refused(work: object) -> Deferred[Any]:
            return fail(PermissionError(1, "Operation not permitted", f"{self.folder}/passwd"))

        places = Places(str(self.place), "", "postoffice")
        means = Means(refused, maybeDeferred, self.sleep, self.look)
        files = VirtualFiles(places, PlainHashes(), means)
        what = self.declined(os.EX_NOPERM, files.remove_user(HERE, "bob"))
        self.assertIn(f"{self.folder}/passwd: Operation not permitted; {self.folder} and the files", what)
        self.assertIn("must belong to postoffice", what)

    def test_too_many_passwords_at_once(self) -> None:
        self.in_thread = lambda work: fail(BlockingIOError())
        self.declined(os.EX_TEMPFAIL, self.files.set_password(HERE, "bob", b"one", new=True))
        self.assertFalse((self.folder / "passwd").exists())

    def test_somebody_else_is_waited_for_but_not_for_ever(self) -> None:
        directory = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, directory)
        fcntl.flock(directory, fcntl.LOCK_EX)
        what = self.declined(os.EX_TEMPFAIL, self.files.set_alias(HERE, "info", ["ann"]))
        self.assertIn("somebody else is changing it", what)
        self.assertEqual(len(self.pauses), ATTEMPTS)

        async def let_go(seconds: float) -> None:
            fcntl.flock(directory, fcntl.LOCK_UN)

        self.sleep = let_go  # type: ignore[method-assign]
        self.done(self.make().set_alias(HERE, "info", ["ann"]))
