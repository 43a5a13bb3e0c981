"""The configuration file is read only if it may be believed."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.settings import ConfigError, RootOnly, Settings
from postoffice.config_file import Untrusted, load, unfit


class FileCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder, 0o755)
        self.path = os.path.join(self.folder, "x.cf")

    def write(self, data: bytes, mode: int = 0o644) -> str:
        with open(self.path, "wb") as file:
            file.write(data)
        os.chmod(self.path, mode)
        return self.path

    def problem(self) -> str:
        with self.assertRaises(ConfigError) as caught:
            load(self.path)
        return str(caught.exception)


class Load(FileCase):
    def test_reads_and_overrides(self) -> None:
        settings = load(self.write(b"size=1\nhops=2\n"), ["hops=3", "relay-host=a.example"])
        self.assertEqual((settings.size, settings.hops), (1, 3))
        self.assertEqual(settings.origin("size"), f"{self.path}:1")

    def test_root_only_options_of_somebody_else(self) -> None:
        self.write(b"relay-host=a.example\n")
        # Where the tests do not run as root, the file itself is not to be believed by another account.
        with self.assertRaises((RootOnly, Untrusted)):
            load(self.path, ["relay-host=b.example"], runner=4242)

    def test_missing(self) -> None:
        with self.assertRaises(FileNotFoundError):
            load(self.path)

    def test_writable_by_everybody(self) -> None:
        with self.assertRaisesRegex(Untrusted, "writable by everybody; chmod o-w"):
            load(self.write(b"", 0o666))

    def test_in_a_folder_of_everybody(self) -> None:
        self.write(b"")
        os.chmod(self.folder, 0o777)
        with self.assertRaisesRegex(Untrusted, "cannot be trusted"):
            load(self.path)
        os.chmod(self.folder, 0o1777)
        load(self.path)

    def test_through_a_link_in_a_folder_of_everybody(self) -> None:
        self.write(b"")
        open_folder = os.path.join(self.folder, "open")
        os.mkdir(open_folder)
        os.chmod(open_folder, 0o777)
        link = os.path.join(open_folder, "link.cf")
        os.symlink(self.path, link)
        with self.assertRaises(Untrusted):
            load(link)

    def test_not_a_regular_file(self) -> None:
        os.mkfifo(self.path, 0o644)
        with self.assertRaisesRegex(Untrusted, "regular"):
            load(self.path)
        with self.assertRaisesRegex(Untrusted, "regular"):
            load(self.folder)

    def test_not_utf8(self) -> None:
        self.write(b"size=1\nlocaldomain=\xff\n")
        self.assertIn(f"{self.path}:2: is not UTF-8", self.problem())

    def test_too_large(self) -> None:
        self.write(b"#" * ((1 << 20) + 1))
        self.assertIn("larger than", self.problem())


class Paths(FileCase):
    """What a path must lead to, told with file, line, option and what to do."""

    def refused(self, line: str, *what: str) -> None:
        self.write(f"size=1\n{line}\n".encode())
        option = line.partition("=")[0]
        with self.assertRaises(ConfigError) as caught:
            load(self.path)
        told = str(caught.exception).splitlines()
        self.assertEqual(told, [f"{self.path}:2: {option}: {text}" for text in what])

    def taken(self, line: str) -> None:
        self.write(f"{line}\n".encode())
        load(self.path)

    def test_files(self) -> None:
        none, file = f"{self.folder}/none", f"{self.folder}/file"
        missing = "does not exist; make it, or leave the option out"
        os.mkfifo(f"{self.folder}/fifo")
        with open(file, "w"):
            for option in ("aliases", "banner"):
                self.refused(f"{option}={none}", f"{none} {missing}")
                self.refused(f"{option}={file}/x", f"{file}/x {missing}")
                self.refused(f"{option}={self.folder}", f"{self.folder} is a directory; name a file")
                self.refused(f"{option}=/dev/null", "/dev/null is no regular file; name a file")
                self.refused(f"{option}={file}/../fifo", f"{file}/../fifo {missing}")
                self.refused(
                    f"{option}={self.folder}/fifo", f"{self.folder}/fifo is no regular file; name a file"
                )
                self.taken(f"{option}={file}")
            self.refused(
                f"access={self.folder},{none}",
                f"{self.folder} is a directory; name a file",
                f"{none} {missing}",
            )
            self.refused(f"access={file},{none}", f"{none} {missing}")
            self.taken(f"access={file},{file}")

    def test_directories(self) -> None:
        none = f"{self.folder}/none"
        self.refused(f"virtual={none}", f"{none} does not exist; make it, or leave the option out")
        self.refused(f"virtual={self.path}", f"{self.path} is no directory; name one")
        self.taken(f"virtual={self.folder}")

    def test_standard_files_may_be_missing(self) -> None:
        missing = [name for name in ("/etc/issue.smtp", "/etc/virtual") if not os.path.exists(name)]
        for name in missing:
            self.taken(f"{'banner' if name.endswith('smtp') else 'virtual'}={name}")

    def test_what_is_made(self) -> None:
        file = f"{self.folder}/file"
        with open(file, "w"):
            for line in (f"spool={file}", f"spool={file}/a/b", f"control={file}/control"):
                self.refused(line, f"{file} is no directory; name another place")
        self.taken(f"spool={self.folder}/a/b")
        self.taken(f"control={self.folder}/a/control")

    def test_what_cannot_be_made(self) -> None:
        self.patch(os, "access", lambda path, mode: False)
        for line in (f"spool={self.folder}/a/b", f"control={self.folder}/a/b/control"):
            settings = Settings.from_text(line, "x.cf")
            (told,) = map(str, unfit(settings, unprivileged=True))
            made = f"uid {os.getuid()} cannot make it in {self.folder}; make it"
            what = f"{self.folder}/a/b does not exist, and {made}"
            self.assertEqual(told, f"x.cf:1: {line.partition('=')[0]}: {what}")
            self.assertEqual(list(unfit(settings, unprivileged=False)), [])

    def test_the_directory_of_a_log(self) -> None:
        none = f"{self.folder}/none"
        self.refused(f"log=json:{none}/log", f"the directory {none} does not exist; make it")
        self.taken(f"log={self.folder}/log")
        self.taken("log=syslog")

    def test_unreadable(self) -> None:
        self.patch(os, "access", lambda path, mode: False)
        for line in (f"aliases={__file__}", f"virtual={self.folder}"):
            option, _, path = line.partition("=")
            (told,) = map(str, unfit(Settings.from_text(line, "x.cf"), unprivileged=False))
            what = f"{path} cannot be read by uid {os.getuid()}; change its mode or its owner"
            self.assertEqual(told, f"x.cf:1: {option}: {what}")
