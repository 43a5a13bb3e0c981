"""What a child does that checks a password: what it reads, compares and leaves behind, and who it is."""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from postoffice.crypt import SHADOW, Secret, ShadowEntry, load_crypt
from postoffice.delivery.helper import packets, passwords
from postoffice.delivery.helper.identity import Rules
from postoffice.delivery.helper.passwords import LONGEST, NOBODYS, Shadow, fits, secret
from tests.support import CHECKOUT, need_root

IDS = {"alice": 1000, "bob": 1001, "carol": 1002, "dave": 1003, "erin": 1004, "root": 0, "daemon": 1}
RULES = Rules(100, frozenset(), "", "postie")
ONE, TWO = ("$1$saltsalt$" + sign * 22 for sign in "ab")


def entry(name: str) -> pwd.struct_passwd:
    """What passwd(5) says of an account."""
    return pwd.struct_passwd((name, "x", IDS[name], IDS[name], "", "/", "/bin/sh"))


def in_file(password: bytes) -> int:
    """A file with a password, sealed."""
    file = packets.memory_file()
    os.write(file, password)
    packets.seal(file)
    return file


class ShadowTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.entries = {
            "alice": ShadowEntry(ONE),
            "bob": ShadowEntry("!" + ONE),
            "carol": ShadowEntry(ONE, expires=1),
            "dave": ShadowEntry(""),
            "erin": ShadowEntry(ONE, changed=0),
            "root": ShadowEntry(TWO),
            "daemon": ShadowEntry(ONE),
        }
        self.found: list[str] = []
        self.stored = ["*", "!", TWO]

    def hashes(self, name: str) -> tuple[str, str]:
        shadow = Shadow(RULES.may_be, self.find, lambda: iter(self.stored), entry)
        return shadow.hashes(name)

    def find(self, name: str) -> ShadowEntry | None:
        self.found.append(name)
        return self.entries.get(name)

    def test_who_may_log_in(self) -> None:
        self.assertEqual(self.hashes("alice"), (ONE, TWO))

    def test_C2_who_may_not(self) -> None:
        """Locked, expired, without a password, one to be changed, root, below min-uid, unknown."""
        for name in ("bob", "carol", "dave", "erin", "root", "daemon", "nobody-known"):
            self.assertEqual(self.hashes(name), ("", TWO), name)
        self.assertEqual(len(self.found), 7)

    def test_C2_the_work_is_of_all_kinds_there_are(self) -> None:
        self.stored = ["*", ONE, TWO]
        names = [f"user{number}" for number in range(50)]
        first, second = ([self.hashes(name)[1] for name in names] for _ in range(2))
        self.assertEqual(first, second)
        self.assertEqual(set(first), {ONE, TWO})

    def test_C2_where_nobody_has_a_password(self) -> None:
        self.stored = ["*", "!"]
        self.assertEqual(self.hashes("nobody-known"), ("", NOBODYS))


class FitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.crypt = load_crypt()
        self.own = self.crypt(b"one", "$6$rounds=1000$salt$")
        self.anothers = self.crypt(b"two", "$6$rounds=1000$salt$")
        self.settings: list[str] = []

    def counted(self, password: Secret, setting: str) -> str:
        self.settings.append(setting)
        return self.crypt(password, setting)

    def fits(self, own: str, password: bytes) -> bool:
        file = in_file(password)
        self.addCleanup(os.close, file)
        with secret(file) as there:
            return fits(self.counted, own, self.anothers, there)

    def test_right_and_wrong(self) -> None:
        self.assertTrue(self.fits(self.own, b"one"))
        self.assertFalse(self.fits(self.own, b"two"))
        self.assertFalse(self.fits(self.own, b"one\0"))

    def test_C2_who_cannot_log_in_costs_the_same(self) -> None:
        self.assertFalse(self.fits("", b"two"))
        self.assertFalse(self.fits("", b""))
        self.assertEqual(self.settings, [self.anothers] * 2)

    def test_C2_an_empty_password_is_nobodys(self) -> None:
        self.own = self.crypt(b"", "$6$rounds=1000$salt$")
        self.assertFalse(self.fits(self.own, b""))
        self.assertFalse(self.fits(self.own, b"\0"))
        self.assertFalse(self.fits(self.own, b"x" * (LONGEST + 1)))
        self.assertTrue(self.fits(self.crypt(b"x" * 500, "$6$rounds=1000$salt$"), b"x" * 500))


class SecretTests(SynchronousTestCase):
    def test_D6_it_is_overwritten(self) -> None:
        file = in_file(b"battery")
        self.addCleanup(os.close, file)
        with secret(file) as password:
            self.assertEqual(password.value, b"battery")
        self.assertEqual(bytes(password), bytes(LONGEST + 1))

    def test_D6_whatever_goes_wrong(self) -> None:
        file = in_file(b"battery")
        self.addCleanup(os.close, file)
        kept: list[Secret] = []
        with self.assertRaises(OSError), secret(file) as password:
            kept.append(password)
            raise OSError(5, "told to fail")
        self.assertEqual(bytes(kept[0]), bytes(LONGEST + 1))


class AnswerTests(SynchronousTestCase):
    def answer(self, password: bytes, ask: Callable[[str, Secret], bool]) -> object:
        self.patch(passwords, "load_pam", lambda: ask)
        file = in_file(password)
        self.addCleanup(os.close, file)
        return passwords.answer("pam", "alice", file, RULES)

    def test_what_pam_says(self) -> None:
        def ask(name: str, password: Secret) -> bool:
            return (name, password.value) == ("alice", b"one")

        self.assertEqual(self.answer(b"one", ask), {"right": True})
        self.assertEqual(self.answer(b"two", ask), {"right": False})

    def test_C2_pam_is_not_asked_about_an_empty_password(self) -> None:
        self.assertEqual(self.answer(b"", lambda name, password: True), {"right": False})

    def test_trouble(self) -> None:
        def ask(name: str, password: Secret) -> bool:
            raise OSError(5, "PAM: told to fail")

        self.assertEqual(self.answer(b"one", ask), {"trouble": "[Errno 5] PAM: told to fail"})


# What a child for the shadow database is at first, and behind `leave_group`; then it waits.
PROGRAM = f"""
import ctypes, os, pwd, sys
from postoffice.delivery.helper.identity import Rules, become, leave_group

def tell():
    dumpable, privileges = (ctypes.CDLL(None).prctl(option, 0, 0, 0, 0) for option in (3, 39))
    print(os.getresuid(), os.getresgid(), os.getgroups(), dumpable, privileges, os.access("{SHADOW}", 4,
          effective_ids=True))

purpose, name, user = sys.argv[1:]
if user:
    # Not before: Python itself may lie where only root can read.
    os.setuid(int(user))
    # As in whatever a user starts.
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
rules = Rules(1, frozenset(), "", "nobody")
become(rules.account(name, purpose), purpose, rules.shared_group(purpose))
tell()
leave_group()
tell()
print("waiting", flush=True)
sys.stdin.read()
"""


class IdentityTests(SynchronousTestCase):
    """Real processes, of root's."""

    def started(self, purpose: str) -> subprocess.Popen[str]:
        need_root()
        return self.ran(purpose, "nobody")

    def ran(self, purpose: str, name: str, user: int | str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, purpose, name, str(user)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(CHECKOUT)},
        )
        self.addCleanup(process.communicate)
        return process

    def told(self, process: subprocess.Popen[str]) -> list[str]:
        assert process.stdout is not None
        return [process.stdout.readline().rstrip() for _ in range(3)]

    def test_D2_the_group_of_the_shadow_database_is_left_for_good(self) -> None:
        process = self.started("shadow")
        nobody, readers = pwd.getpwnam("nobody"), grp.getgrnam("shadow").gr_gid
        uids, gid = str((nobody.pw_uid,) * 3), nobody.pw_gid
        # Groups, whether others may look into it, whether it may gain privileges, whether it may read hashes.
        self.assertEqual(
            self.told(process),
            [
                f"{uids} {(gid, readers, gid)} [] 0 1 True",
                f"{uids} {(gid,) * 3} [] 0 1 False",
                "waiting",
            ],
        )

    def test_D2_nobody_else_of_its_account_looks_into_it(self) -> None:
        for purpose in ("shadow", "pam"):
            process = self.started(purpose)
            self.assertEqual(self.told(process)[2], "waiting")
            # As the same account, and in the same group.
            nobody = pwd.getpwnam("nobody")
            become = f"import os; os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})"
            done = subprocess.run(
                [sys.executable, "-c", f"{become}; open('/proc/{process.pid}/mem')"],
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertIn(
                f"PermissionError: [Errno 13] Permission denied: '/proc/{process.pid}/mem'", done.stderr
            )

    def test_D2_without_root_either(self) -> None:
        own = pwd.getpwuid(os.geteuid() or pwd.getpwnam("nobody").pw_uid)
        for purpose in ("shadow", "pam"):
            first, *_ = self.told(self.ran(purpose, own.pw_name, own.pw_uid))
            self.assertRegex(first, r" 0 [01] (True|False)$")

    def test_pam_may_gain_privileges(self) -> None:
        nobody = pwd.getpwnam("nobody")
        uids, gids = str((nobody.pw_uid,) * 3), str((nobody.pw_gid,) * 3)
        first, *_ = self.told(self.started("pam"))
        self.assertEqual(first, f"{uids} {gids} {os.getgrouplist('nobody', nobody.pw_gid)} 0 0 False")


# A helper, for whose child PAM runs something. Both are stopped, as a user may do with what is his.
STUCK = """
import os, signal, socket, sys
from postoffice.delivery.helper import passwords, server
from postoffice.delivery.helper.identity import Rules

def stop(*_):
    os.fork()
    print(os.getpid(), flush=True)
    # The end of one has the kernel let the other go on.
    while True:
        os.kill(os.getpid(), signal.SIGSTOP)

# As the supervisor does.
signal.signal(signal.SIGHUP, signal.SIG_IGN)
passwords.LIMIT = 1
passwords.by_pam = stop
server.serve(socket.socket(fileno=int(sys.argv[1])), Rules(1, frozenset(), "", "nobody"), "")
"""


class EndTests(SynchronousTestCase):
    def test_A9_a_check_does_not_last(self) -> None:
        """Nor does what it runs."""
        helper, control = packets.pair()
        ours, theirs = packets.pair()
        with helper, ours:
            with control, theirs:
                process = subprocess.Popen(
                    [sys.executable, "-c", STUCK, str(control.fileno())],
                    pass_fds=[control.fileno()],
                    stdout=subprocess.PIPE,
                    env={"PYTHONPATH": str(CHECKOUT)},
                )
                self.addCleanup(process.wait)
                account = pwd.getpwuid(os.geteuid() or pwd.getpwnam("nobody").pw_uid).pw_name
                packets.send(helper, {"account": account, "purpose": "pam"}, [theirs.fileno()])
            file = in_file(b"one")
            packets.send(ours, {"id": 1, "do": "password", "name": account}, [file])
            os.close(file)
            assert process.stdout is not None
            stopped = [int(process.stdout.readline()) for _ in range(2)]
            helper.close()
            try:
                # The end of what they say is the end of all who could say something.
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                for number in stopped:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(number, signal.SIGKILL)
                process.communicate()
                self.fail("the stopped processes are still there")


class NothingLeft(SynchronousTestCase):
    def test_a_secret_is_a_c_string(self) -> None:
        """What crypt(3) and PAM are given is the memory that is overwritten, and no copy."""
        file = in_file(b"one")
        self.addCleanup(os.close, file)
        with secret(file) as password:
            self.assertEqual(ctypes.string_at(ctypes.addressof(password)), b"one")
