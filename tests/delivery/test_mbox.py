from __future__ import annotations

import contextlib
import errno
import mailbox
import os
import re
import resource
import stat
import struct
import threading
from fcntl import F_OFD_SETLK, F_RDLCK, fcntl

from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery.dotlock import DotLock
from postoffice.delivery.files import MailboxBusy, UnsafeMailbox
from postoffice.delivery.mbox import MboxFile, append_together, check_mailbox, from_line
from tests.delivery.deposits import put

LETTER = b"Return-Path: <a@b.example>\r\nSubject: x\r\n\r\nbody\r\n\r\nFrom x\r\n>From y\r\n\r\nend\r\n"
NOW = 1e9


class MboxCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp())
        os.mkdir(self.top)
        self.path = f"{self.top}/joe"

    def make(self, tree: str = "", *, quote: bool = True) -> MboxFile:
        return MboxFile(self.path, "a@b.example", NOW, tree, quote=quote)

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()

    def write(self, content: bytes) -> None:
        with open(self.path, "wb") as file:
            file.write(content)


class MboxTests(MboxCase):
    def messages(self) -> list[bytes]:
        """The letters as Python reads them, with the quoting undone."""
        box = mailbox.mbox(self.path, create=False)
        self.addCleanup(box.close)
        return [re.sub(rb"(?m)^>(>*From )", rb"\1", box.get_bytes(key)) for key in box.iterkeys()]

    def assert_unlocked(self) -> None:
        self.assertEqual([name for name in os.listdir(self.top) if name != "joe"], [])
        deposit = self.make()
        deposit.abort()

    def test_form(self) -> None:
        put(self.make, b"Subject: x\r\n\r\nbody\r\nFrom x\r\n")
        self.assertEqual(
            self.read(),
            b"From a@b.example Sun Sep  9 01:46:40 2001\nSubject: x\n\nbody\n>From x\n\n",
        )
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assert_unlocked()

    def test_python_reads_them_back(self) -> None:
        letters = [LETTER, LETTER.replace(b"end", b"\xff\xe9"), b"Subject: y\r\n\r\n"]
        for letter in letters:
            put(self.make, letter)
        self.assertEqual(self.messages(), [letter.replace(b"\r\n", b"\n") for letter in letters])

    def test_d7_a_line_like_a_separator_does_not_split_a_letter(self) -> None:
        put(
            self.make,
            b"Subject: x\r\n\r\nbody\r\n\r\nFrom x@y Sun Sep  9 01:46:40 2001\r\nSubject: z\r\n\r\n",
        )
        self.assertEqual(len(self.messages()), 1)

    def test_d7_content_length_is_not_believed(self) -> None:
        put(self.make, b"Content-Length: 9999\r\n\r\nbody\r\n")
        put(self.make, LETTER)
        self.assertEqual(len(self.messages()), 2)

    def test_without_quoting(self) -> None:
        put(lambda: self.make(quote=False), LETTER)
        self.assertIn(b"\n\nFrom x\n>From y\n", self.read())

    def test_no_final_line_end(self) -> None:
        put(self.make, b"Subject: x\r\n\r\nno end")
        self.assertTrue(self.read().endswith(b"\nno end\n\n"))
        put(self.make, b"Subject: x\r\n\r\nend From\r")
        self.assertTrue(self.read().endswith(b"\nend From\r\n\n"))

    def test_begins_on_a_line_of_its_own(self) -> None:
        for before, gap in ((b"", b""), (b"x", b"\n\n"), (b"x\n", b"\n"), (b"x\n\n", b""), (b"\n", b"\n")):
            self.write(before)
            put(self.make, LETTER)
            self.assertTrue(self.read().startswith(before + gap + b"From a@b.example "), before)

    def test_abort_leaves_it_as_it_was(self) -> None:
        self.write(b"before")
        deposit = self.make()
        deposit.write(LETTER)
        deposit.write(LETTER)
        deposit.abort()
        deposit.abort()
        self.assertEqual(self.read(), b"before")
        self.assert_unlocked()

    def test_abort_removes_what_it_made(self) -> None:
        deposit = self.make()
        deposit.write(LETTER)
        deposit.abort()
        self.assertEqual(os.listdir(self.top), [])

    def test_full_at_every_octet_leaves_it_as_it_was(self) -> None:
        put(self.make, LETTER)
        before = self.read()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
        for room in range(len(before)):
            # The lock file must fit, so that it is the mbox that is full.
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, limits[1]))
            error = self.assertRaises(OSError, put, self.make, LETTER)
            self.assertEqual((error.errno, self.read()), (errno.EFBIG, before))
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        self.assert_unlocked()
        put(self.make, LETTER)
        self.assertEqual(self.read(), before * 2)

    def test_no_room_for_the_lock(self) -> None:
        self.write(b"")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3, limits[1]))
        self.assertRaises(OSError, self.make)
        self.assertEqual(os.listdir(self.top), ["joe"])

    def test_missing_parents_only_in_the_tree(self) -> None:
        self.path = f"{self.top}/vmail/example.org/joe"
        self.assertRaises(FileNotFoundError, self.make)
        put(lambda: self.make(f"{self.top}/vmail"), LETTER)
        self.assertEqual(len(self.messages()), 1)


class TogetherTests(MboxCase):
    """Several letters under one lock, with one sync."""

    def append(self, *letters: bytes, path: str = "") -> list[Exception | None]:
        together = [(f"{at}@b.example", NOW, letter) for at, letter in enumerate(letters)]
        return append_together(path or self.path, together, "", quote=True)

    def limit(self, size: int) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    def test_as_if_one_by_one(self) -> None:
        letters = [LETTER, b"Subject: x\r\n\r\nno end", LETTER, b"Subject: y\r\n\r\nend From\r"]
        for before in (b"", b"x", b"x\n\n"):
            self.write(before)
            for at, letter in enumerate(letters):
                put(lambda at=at: MboxFile(self.path, f"{at}@b.example", NOW, "", quote=True), letter)  # type: ignore[misc]
            expected = self.read()
            self.write(before)
            self.assertEqual(self.append(*letters), [None] * 4)
            self.assertEqual(self.read(), expected)
        self.assertEqual(os.listdir(self.top), ["joe"])

    def test_one_sync_and_one_lock(self) -> None:
        self.write(b"")
        synced: list[int] = []
        self.patch(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
        self.append(*[LETTER] * 10)
        self.assertEqual(synced, [os.path.getsize(self.path)])

    def test_D3_a_letter_that_does_not_fit_is_cut_off_and_the_others_stay(self) -> None:
        self.append(LETTER)
        one = self.read()
        small = b"Subject: small\r\n\r\n"
        self.append(small, path=f"{self.top}/small")
        room = os.path.getsize(f"{self.top}/small")
        self.limit(len(one) + room + 20)
        errors = self.append(LETTER, small, LETTER)
        numbers = [error.errno if isinstance(error, OSError) else error for error in errors]
        self.assertEqual(numbers, [errno.EFBIG, None, errno.EFBIG])
        self.assertTrue(self.read().startswith(one + b"From 1@b.example "))
        self.assertTrue(self.read().endswith(b"\nSubject: small\n\n\n"))
        self.assertEqual(len(self.read()), len(one) + room)

    def test_nothing_fits(self) -> None:
        self.limit(100)
        self.assertEqual([type(error) for error in self.append(LETTER, LETTER)], [OSError] * 2)
        self.assertEqual(os.listdir(self.top), [])

    def test_what_cannot_be_synced_has_not_been_delivered(self) -> None:
        self.append(LETTER)
        before = self.read()

        def fail(descriptor: int) -> None:
            raise OSError(errno.EIO, "sync")

        self.patch(os, "fsync", fail)
        errors = self.append(LETTER, LETTER)
        self.assertEqual([error and str(error) for error in errors], [f"[Errno {errno.EIO}] sync"] * 2)
        self.assertEqual((self.read(), os.listdir(self.top)), (before, ["joe"]))

    def test_what_cannot_be_opened_fails_for_all(self) -> None:
        os.mkdir(self.path)
        self.assertEqual([type(error) for error in self.append(LETTER, LETTER)], [IsADirectoryError] * 2)
        self.assertEqual(os.listdir(self.top), ["joe"])
        lock = DotLock(f"{self.top}/held", NOW)
        errors = self.append(LETTER, LETTER, path=f"{self.top}/held")
        lock.release()
        self.assertEqual([type(error) for error in errors], [MailboxBusy] * 2)


class UnsafeTests(MboxCase):
    """D3: what is not a file of ours with one name is left alone."""

    def test_symbolic_link(self) -> None:
        victim = f"{self.top}/victim"
        with open(victim, "w"):
            os.symlink(victim, self.path)
        error = self.assertRaises(OSError, self.make)
        self.assertEqual(error.errno, errno.ELOOP)
        self.assertEqual((os.path.getsize(victim), sorted(os.listdir(self.top))), (0, ["joe", "victim"]))

    def test_D3_hard_link(self) -> None:
        self.write(b"")
        os.link(self.path, f"{self.top}/victim")
        self.assertRaises(UnsafeMailbox, self.make)
        self.assertEqual((self.read(), sorted(os.listdir(self.top))), (b"", ["joe", "victim"]))

    def test_D3_a_hard_link_taken_away_and_put_back(self) -> None:
        self.write(b"")
        victim = f"{self.top}/victim"
        os.rename(self.path, victim)
        os.link(victim, self.path)
        usual = os.fstat

        def fstat(descriptor: int) -> os.stat_result:
            if not os.path.samestat(usual(descriptor), os.stat(victim)):
                return usual(descriptor)
            os.unlink(self.path)
            status = usual(descriptor)
            os.link(victim, self.path)
            return status

        self.patch(os, "fstat", fstat)
        self.assertRaises(UnsafeMailbox, self.make)

    def test_D3_names_that_come_and_go_between_two_looks(self) -> None:
        """Each look finds one name, but never the same one: only the time of the change tells."""
        self.write(b"")
        victim = f"{self.top}/victim"
        usual = os.lstat

        def lstat(path: str) -> os.stat_result:
            before = os.stat(self.path).st_ctime_ns
            while os.stat(self.path).st_ctime_ns == before:
                os.link(self.path, victim)
                os.unlink(victim)
            return usual(path)

        self.patch(os, "lstat", lstat)
        self.assertRaises(MailboxBusy, self.make)
        self.assertEqual(self.read(), b"")

    def test_fifo(self) -> None:
        os.mkfifo(self.path)
        self.assertRaises(UnsafeMailbox, self.make)

    def test_directory(self) -> None:
        os.mkdir(self.path)
        self.assertRaises(IsADirectoryError, self.make)

    def test_another_owner(self) -> None:
        self.write(b"")
        status = list(os.stat(self.path))
        check_mailbox(os.stat_result(status))
        status[stat.ST_UID] += 1
        self.assertRaises(UnsafeMailbox, check_mailbox, os.stat_result(status))

    def test_swapped_while_delivering(self) -> None:
        victim = f"{self.top}/victim"
        with open(victim, "w") as file:
            file.write("precious")
        begun, ended = threading.Event(), threading.Event()

        def attack() -> None:
            while not ended.is_set():
                for make in (os.symlink, os.link):
                    try:
                        os.unlink(self.path)
                        make(victim, self.path)
                    except FileNotFoundError:
                        make(victim, self.path)
                    except FileExistsError:
                        pass
                begun.set()

        attacker = threading.Thread(target=attack)
        attacker.start()
        begun.wait()
        try:
            for _ in range(500):
                # How many are refused is up to the scheduler.
                with contextlib.suppress(OSError, UnsafeMailbox, MailboxBusy):
                    put(self.make, b"Subject: evil\r\n\r\n")
        finally:
            ended.set()
            attacker.join()
        with open(victim) as file:
            self.assertEqual(file.read(), "precious")


class LockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp())
        os.mkdir(self.top)
        self.path = f"{self.top}/joe"
        self.lock = f"{self.path}.lock"

    def make(self, now: float = NOW) -> MboxFile:
        return MboxFile(self.path, "", now, "", quote=True)

    def leave(self, content: str, age: float) -> None:
        with open(self.lock, "w") as file:
            file.write(content)
        os.utime(self.lock, (NOW - age, NOW - age))

    def own_lock(self) -> list[str]:
        """The words of a lock of ours."""
        deposit = self.make()
        with open(self.lock) as file:
            words = file.read().split()
        deposit.abort()
        return words

    def busy(self) -> None:
        before = os.lstat(self.lock)
        self.assertRaises(MailboxBusy, self.make)
        self.assertEqual(os.lstat(self.lock).st_ino, before.st_ino)

    def free(self) -> None:
        self.make().abort()
        self.assertFalse(os.path.lexists(self.lock))

    def test_held_until_the_end(self) -> None:
        deposit = self.make()
        self.busy()
        deposit.write(LETTER)
        self.busy()
        deposit.commit()
        self.free()

    def test_names_the_process(self) -> None:
        self.assertEqual(self.own_lock()[:2], [str(os.getpid()), "postoffice"])

    def test_of_another_program(self) -> None:
        dead = dead_process()
        for content, age, is_stale in (
            ("", 0, False),
            ("", 299, False),
            ("", 301, True),
            (f"{dead}\n", 0, False),
            (f"{dead}\n", 301, True),
            (f"{os.getppid()}\n", 10_000, False),
            ("1\n", 10_000, False),
            ("0\n", 301, True),
            ("-1\n", 301, True),
            ("99999999999999999999\n", 301, True),
            ("x" * 1000, 301, True),
        ):
            self.leave(content, age)
            (self.free if is_stale else self.busy)()

    def test_of_our_kind(self) -> None:
        pid, _, machine, incarnation = self.own_lock()
        dead = dead_process()
        for process, where, which, age, is_stale in (
            (pid, machine, incarnation, 10_000, False),
            (pid, machine, "another", 0, True),
            (str(dead), machine, "another", 0, True),
            (str(dead), machine, incarnation, 0, True),
            (str(os.getppid()), machine, "another", 10_000, False),
            (pid, "elsewhere", "another", 299, False),
            (pid, "elsewhere", "another", 301, True),
        ):
            self.leave(f"{process}\npostoffice {where} {which}\n", age)
            (self.free if is_stale else self.busy)()

    def test_what_is_no_lock_file_stays(self) -> None:
        os.mkdir(self.lock)
        self.assertRaises(MailboxBusy, self.make, NOW * 2)
        os.rmdir(self.lock)
        os.symlink("/nonexistent", self.lock)
        self.assertRaises(MailboxBusy, self.make, NOW * 2)

    def test_taken_away_meanwhile(self) -> None:
        deposit = self.make()
        os.unlink(self.lock)
        self.leave("1\n", 0)
        deposit.write(LETTER)
        deposit.commit()
        self.assertTrue(os.path.exists(self.lock))

    def test_lost_meanwhile(self) -> None:
        deposit = self.make()
        deposit.write(LETTER)
        os.unlink(self.lock)
        deposit.write(LETTER)
        deposit.commit()
        self.free()

    def test_kept_fresh_by_a_large_letter(self) -> None:
        deposit = self.make()
        deposit.write(LETTER)
        os.utime(self.lock, (5, 5))
        deposit.write(LETTER)
        self.assertGreater(os.stat(self.lock).st_mtime, 5)
        deposit.abort()

    def test_kernel_lock_of_another_program(self) -> None:
        with open(self.path, "a+b") as file:
            fcntl(file, F_OFD_SETLK, struct.pack("hhqqi", F_RDLCK, 0, 0, 0, 0))
            self.assertRaises(MailboxBusy, self.make)
            self.assertFalse(os.path.exists(self.lock))
        self.free()

    def test_threads_exclude_each_other(self) -> None:
        def deliver() -> None:
            for _ in range(20):
                while True:
                    try:
                        put(self.make, LETTER)
                        break
                    except MailboxBusy:
                        pass

        threads = [threading.Thread(target=deliver) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        box = mailbox.mbox(self.path, create=False)
        self.addCleanup(box.close)
        self.assertEqual(len(box), 80)


class FromLineTests(SynchronousTestCase):
    def test_senders(self) -> None:
        for sender, written in (
            ("a@b.example", b"a@b.example"),
            ("", b"<>"),
            ('"a  b"@c.example', b'"a_b"@c.example'),
            ("a\nFrom b", b"a_From_b"),
        ):
            self.assertEqual(from_line(sender, 0), b"From " + written + b" Thu Jan  1 00:00:00 1970\n")


def dead_process() -> int:
    """The number of a process that has ended."""
    process = os.fork()
    if not process:
        os._exit(0)
    os.waitpid(process, 0)
    return process
