"""The configuration file is read only if it may be believed."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.settings import ConfigError, RootOnly
from postoffice.config_file import Untrusted, load


class Load(SynchronousTestCase):
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

    def test_named_files_are_there(self) -> None:
        self.write(f"size=1\nvirtual={self.folder}/none\n".encode())
        self.assertEqual(self.problem(), f"{self.path}:2: virtual: {self.folder}/none does not exist")
