"""Files that are replaced as a whole: owner and mode stay, no change is lost, nothing is left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from postoffice.directory.rewrite import read_file, rewrite
from tests.peers import passable
from tests.support import CHECKOUT, need, need_root

COUNT = """
import sys, time
from postoffice.directory.rewrite import rewrite
for n in range(int(sys.argv[3])):
    while True:
        try:
            rewrite(sys.argv[1], "passwd", lambda data: data + f"{sys.argv[2]}{n}\\n".encode())
        except BlockingIOError:
            time.sleep(0.001)
        else:
            break
"""


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.file = self.folder / "passwd"

    def rewrite(self, new: bytes = b"new\n") -> None:
        rewrite(str(self.folder), "passwd", lambda data: new)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


class Replacing(Case):
    def test_content_is_replaced_and_nothing_is_left(self) -> None:
        self.file.write_bytes(b"old\n")
        seen: list[bytes] = []
        rewrite(str(self.folder), "passwd", lambda data: seen.append(data) or b"new\n")  # type: ignore[func-returns-value]
        self.assertEqual(seen, [b"old\n"])
        self.assertEqual(self.file.read_bytes(), b"new\n")
        self.assertEqual(read_file(str(self.folder), "passwd"), b"new\n")
        self.assertEqual(self.names(), ["passwd"])

    def test_a_file_that_is_not_there_is_made_for_us_alone(self) -> None:
        self.assertIsNone(read_file(str(self.folder), "passwd"))
        self.rewrite()
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)

    def test_readers_see_the_old_file_or_the_new_one(self) -> None:
        self.file.write_bytes(b"old\n")
        with self.file.open("rb") as opened:
            self.rewrite()
            self.assertEqual(opened.read(), b"old\n")

    def test_the_mode_stays(self) -> None:
        for mode in (0o600, 0o640, 0o664, 0o444):
            self.file.touch()
            self.file.chmod(mode)
            self.rewrite()
            self.assertEqual(self.file.stat().st_mode & 0o7777, mode)

    def test_owner_and_group_stay(self) -> None:
        need_root()
        self.file.touch()
        os.chown(self.file, 12345, 12346)
        self.rewrite()
        status = self.file.stat()
        self.assertEqual((status.st_uid, status.st_gid), (12345, 12346))

    def test_a_group_that_may_nothing_may_change(self) -> None:
        """The account that writes is in no group but its own; `passwd` is another's."""
        need_root()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = passable(Path(directory.name))
        self.file = self.folder / "passwd"
        os.chown(self.folder, 12345, 12345)
        for mode, code, content in ((0o640, errno.EPERM, b"old\n"), (0o600, 0, b"new\n")):
            self.file.write_bytes(b"old\n")
            os.chown(self.file, 12345, 0)
            self.file.chmod(mode)
            self.assertEqual(self.as_somebody(self.rewrite), code)
            self.assertEqual(self.file.read_bytes(), content)

    def as_somebody(self, work: Callable[[], None]) -> int:
        """The number of the error that it ends with, 0 for none, in a process of account 12345."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setgroups([])
                os.setresgid(12345, 12345, 12345)
                os.setresuid(12345, 12345, 12345)
                work()
                code = 0
            except OSError as error:
                code = error.errno or 255
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def test_what_the_edit_raises_changes_nothing(self) -> None:
        self.file.write_bytes(b"old\n")
        before = self.file.stat()

        def edit(data: bytes) -> bytes:
            raise ValueError

        self.assertRaises(ValueError, rewrite, str(self.folder), "passwd", edit)
        self.assertEqual(self.file.stat(), before)
        self.assertEqual(self.names(), ["passwd"])

    def test_what_a_crash_left_is_in_nobodys_way(self) -> None:
        (self.folder / ".passwd.new").write_bytes(b"half")
        self.rewrite()
        self.assertEqual(self.file.read_bytes(), b"new\n")
        self.assertEqual(self.names(), ["passwd"])


class Refusing(Case):
    def test_D5_links_lead_nowhere(self) -> None:
        target = self.folder / "other"
        target.write_bytes(b"secret\n")
        for link in (lambda: self.file.symlink_to(target), lambda: self.file.hardlink_to(target)):
            link()
            for work in (self.rewrite, lambda: read_file(str(self.folder), "passwd")):
                error = self.assertRaises(OSError, work)
                self.assertEqual(error.filename, str(self.file))
            self.assertEqual(target.read_bytes(), b"secret\n")
            self.file.unlink()

    def test_D5_only_regular_files(self) -> None:
        os.mkfifo(self.file)
        self.assertRaises(OSError, self.rewrite)
        self.assertEqual(self.names(), ["passwd"])

    def test_where_there_is_no_directory(self) -> None:
        self.assertRaises(FileNotFoundError, rewrite, f"{self.folder}/no", "passwd", lambda data: data)

    def test_a_full_disk_leaves_the_old_file(self) -> None:
        """A file system of 64 KiB, and a new content of 100 KiB."""
        need_root()
        need("unshare")
        script = (
            f"import sys, os, subprocess\n"
            f"from postoffice.directory.rewrite import rewrite\n"
            f"folder = {str(self.folder)!r}\n"
            f"subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder], check=True)\n"
            f"open(folder + '/passwd', 'w').write('old')\n"
            f"try:\n"
            f"    rewrite(folder, 'passwd', lambda data: data + b'x' * 100_000)\n"
            f"except OSError as error:\n"
            f"    print(error.errno, error.filename == folder + '/passwd')\n"
            f"print(open(folder + '/passwd').read(), os.listdir(folder))\n"
        )
        done = subprocess.run(
            ["unshare", "-m", sys.executable, "-c", script],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        self.assertEqual(done.stdout, "28 True\nold ['passwd']\n")

    def test_a_file_limit_leaves_the_old_file(self) -> None:
        self.file.write_bytes(b"old\n")
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            self.assertRaises(OSError, self.rewrite, b"x" * 2000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        self.assertEqual(self.file.read_bytes(), b"old\n")
        self.assertEqual(self.names(), ["passwd"])


class Together(Case):
    def test_somebody_else_holds_the_lock(self) -> None:
        directory = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, directory)
        fcntl.flock(directory, fcntl.LOCK_EX)
        self.assertRaises(BlockingIOError, self.rewrite)
        self.assertEqual(self.names(), [])
        fcntl.flock(directory, fcntl.LOCK_UN)
        self.rewrite()

    def test_somebody_else_wrote_without_a_lock(self) -> None:
        self.file.write_bytes(b"old\n")

        def edit(data: bytes) -> bytes:
            self.file.write_bytes(b"by an editor\n")
            return b"ours\n"

        self.assertRaises(BlockingIOError, rewrite, str(self.folder), "passwd", edit)
        self.assertEqual(self.file.read_bytes(), b"by an editor\n")
        self.assertEqual(self.names(), ["passwd"])

    def test_no_change_is_lost_among_threads_and_processes(self) -> None:
        each = 20
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", COUNT, str(self.folder), name, str(each)],
                cwd=CHECKOUT,
                env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
            )
            for name in "ab"
        ]

        def work(name: str) -> None:
            for n in range(each):
                while True:
                    try:
                        rewrite(str(self.folder), "passwd", lambda data: data + f"{name}{n}\n".encode())  # noqa: B023
                    except BlockingIOError:
                        continue
                    break

        threads = [threading.Thread(target=work, args=(name,)) for name in "cd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for process in processes:
            self.assertEqual(process.wait(60), 0)
        lines = self.file.read_text().split()
        self.assertEqual(sorted(lines), sorted(f"{name}{n}" for name in "abcd" for n in range(each)))
        for name in "abcd":
            self.assertEqual([line for line in lines if line[0] == name], [f"{name}{n}" for n in range(each)])
