"""Who could have written the configuration file decides whether it is believed."""

from __future__ import annotations

import stat

from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.trust import Standing, trust_problem

ROOT = Standing("/", stat.S_IFDIR | 0o755, 0, 0)


def file(mode: int = 0o644, uid: int = 0, gid: int = 0, kind: int = stat.S_IFREG) -> Standing:
    return Standing("/etc/x.cf", kind | mode, uid, gid)


def folder(mode: int = 0o755, uid: int = 0, gid: int = 0) -> Standing:
    return Standing("/etc", stat.S_IFDIR | mode, uid, gid)


class Trust(SynchronousTestCase):
    def assert_bad(self, word: str, found: str | None) -> None:
        self.assertIn(word, found or "believed")

    def test_roots_file(self) -> None:
        for runner in (0, 1000):
            self.assertIsNone(trust_problem(file(), [folder(), ROOT], runner))
            self.assertIsNone(trust_problem(file(0o664), [folder(0o775), ROOT], runner))

    def test_not_a_regular_file(self) -> None:
        for kind in (stat.S_IFIFO, stat.S_IFDIR, stat.S_IFCHR, stat.S_IFSOCK):
            self.assert_bad("regular", trust_problem(file(kind=kind), [], 0))

    def test_owner(self) -> None:
        self.assert_bad("uid 1000", trust_problem(file(uid=1000), [ROOT], 0))
        self.assert_bad("uid 1001", trust_problem(file(uid=1001), [ROOT], 1000))
        self.assertIsNone(trust_problem(file(uid=1000), [folder(uid=1000), ROOT], 1000))

    def test_writable(self) -> None:
        self.assert_bad("everybody", trust_problem(file(0o646), [], 0))
        self.assert_bad("group 8", trust_problem(file(0o664, gid=8), [], 0))
        self.assert_bad("group 100", trust_problem(file(0o664, uid=1000, gid=100), [], 1000))
        self.assertIsNone(trust_problem(file(0o664, uid=1000, gid=1000), [], 1000))
        self.assert_bad("group 1000", trust_problem(file(0o664, gid=1000), [], 0))

    def test_folders(self) -> None:
        self.assert_bad("cannot be trusted: /etc", trust_problem(file(), [folder(0o777), ROOT], 0))
        self.assert_bad("group 8", trust_problem(file(), [folder(0o775, gid=8), ROOT], 0))
        self.assert_bad("uid 1000", trust_problem(file(), [folder(uid=1000), ROOT], 0))
        self.assertIsNone(trust_problem(file(), [folder(0o1777), ROOT], 0))
        self.assert_bad("uid 1000", trust_problem(file(), [folder(0o1777, uid=1000), ROOT], 0))
        self.assert_bad("everybody", trust_problem(file(0o1666), [ROOT], 0))
