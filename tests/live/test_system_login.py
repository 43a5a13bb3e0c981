"""Real users of the system log in, to a service whose account may not read the shadow database."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.live.privileged import POSTIE, PrivilegedCase, UnitOffice
from tests.live.raw import Wire
from tests.live.test_login import plain
from tests.live.test_privileged import children_of, status_of
from tests.peers import Postoffice
from tests.support import need

PASSWORD = "correct horse"
RULES = """
auth required pam_unix.so nullok
account required pam_unix.so
"""
HOLD = """#!/bin/sh
[ -e {place}/hold ] && echo $PPID > {place}/asked.new && mv {place}/asked.new {place}/asked
for _ in $(seq 200); do [ -e {place}/hold ] || exit 0; sleep 0.1; done
"""


def has_ended(process: int) -> bool:
    """Whether it does nothing any more."""
    return not Path(f"/proc/{process}").exists() or status_of(process)["State"].startswith("Z")


class Case(PrivilegedCase):
    """`ann` and `bob` have a password, and so have `root` and the accounts of which each lacks something."""

    def setUp(self) -> None:
        super().setUp()
        need("useradd")
        for name in ("locked", "expired", "stale", "empty"):
            self.run_inside("useradd", "--no-log-init", "--no-create-home", name)
        names = ("root", "ann", "bob", "daemon", "locked", "expired", "stale", "empty")
        self.run_inside("chpasswd", text="".join(f"{name}:{PASSWORD}\n" for name in names))
        self.run_inside("usermod", "--lock", "locked")
        self.run_inside("usermod", "--expiredate", "2020-01-01", "expired")
        self.run_inside("chage", "--lastday", "0", "stale")
        self.run_inside("passwd", "--delete", "empty")
        self.write("etc/pam.d/postoffice", RULES)

    def answer(self, office: Postoffice, name: str, password: str = PASSWORD) -> bytes:
        """What AUTH is answered."""
        (answer,) = self.answers(office, [(name, password)])
        return answer

    def answers(self, office: Postoffice, attempts: Sequence[tuple[str, str]]) -> list[bytes]:
        """What each AUTH of several clients at the same time is answered."""
        with ExitStack() as stack:
            wires = [stack.enter_context(Wire(office.port)) for _ in attempts]
            for wire, (name, password) in zip(wires, attempts, strict=True):
                wire.reply()
                wire.send(plain(name, password))
            return [wire.reply()[:9] for wire in wires]


class SystemLogIns(Case):
    def check(self, office: Postoffice) -> None:
        right = [(name, PASSWORD) for name in ("ann", "bob", "ANN")]
        others = ("root", "daemon", "locked", "expired", "stale", "empty", "no-such-user")
        wrong = [
            *((name, PASSWORD) for name in others),
            *((name, "battery staple") for name in ("ann", "no-such-user", "root")),
            *((name, "") for name in ("ann", "empty")),
        ]
        answers = dict(zip([*right, *wrong], self.answers(office, [*right, *wrong]), strict=True))
        wanted = dict.fromkeys(right, b"235 2.7.0") | dict.fromkeys(wrong, b"535 5.7.8")
        self.assertEqual(answers, wanted, office.log()[-4000:])
        self.assertNotIn(PASSWORD, office.log())
        self.assertNotIn("Traceback", office.log())

    def test_C2_by_the_shadow_database(self) -> None:
        office = self.started("auth=passwd")
        self.check(office)
        assert office.process is not None
        self.assertEqual(status_of(office.process.pid)["Groups"].split(), [str(POSTIE)])

    def test_C2_by_pam(self) -> None:
        office = self.started("auth=pam")
        self.check(office)
        assert office.process is not None
        self.assertEqual(status_of(office.process.pid)["Groups"].split(), [str(POSTIE)])

    def test_by_a_unit(self) -> None:
        office = self.started("auth=passwd,pam", office=UnitOffice)
        attempts = [("ann", PASSWORD), ("no-such-user", PASSWORD), ("ann", "battery staple")]
        self.assertEqual(self.answers(office, attempts), [b"235 2.7.0", b"535 5.7.8", b"535 5.7.8"])


class Crashes(Case):
    def helpers(self, office: Postoffice) -> tuple[int, int]:
        """The supervisor and the helper."""
        assert office.process is not None
        (supervisor,) = children_of(office.process.pid)
        self.eventually("there is a helper", lambda: children_of(supervisor), office)
        (helper,) = children_of(supervisor)
        return supervisor, helper

    def test_a_helper_that_was_killed_is_back(self) -> None:
        office = self.started("auth=passwd")
        supervisor, helper = self.helpers(office)
        os.kill(helper, signal.SIGKILL)
        # Or it takes a request with it.
        self.eventually("it is gone", partial(has_ended, helper), office)
        self.assertEqual(self.answer(office, "ann"), b"235 2.7.0")
        self.assertNotEqual(children_of(supervisor), [helper])

    def test_C2_without_a_helper_nothing_is_known(self) -> None:
        office = self.started("auth=passwd,pam")
        for process in self.helpers(office):
            os.kill(process, signal.SIGKILL)
            self.eventually("it is gone", partial(has_ended, process), office)
        for password in (PASSWORD, "battery staple"):
            self.assertEqual(self.answer(office, "ann", password), b"454 4.7.0")
        office.restart()
        self.assertEqual(self.answer(office, "ann"), b"235 2.7.0")

    def test_C2_a_check_that_ends_without_an_answer(self) -> None:
        place = self.place / "open"
        place.mkdir()
        place.chmod(0o777)
        self.write("open/hold", "")
        self.write("open/wait", HOLD.format(place=place), mode=0o755)
        self.write("etc/pam.d/postoffice", f"auth required pam_exec.so quiet {place}/wait{RULES}")
        office = self.started("auth=pam")
        with Wire(office.port) as wire:
            wire.reply()
            wire.send(plain("ann", PASSWORD))
            self.eventually("it is asked", (place / "asked").exists, office)
            # What PAM runs was started by the process that checks.
            os.kill(int((place / "asked").read_text()), signal.SIGKILL)
            self.assertEqual(wire.reply()[:9], b"454 4.7.0")
            (place / "hold").unlink()
            self.assertEqual(wire.ask(plain("ann", PASSWORD).rstrip())[:9], b"235 2.7.0")
