"""Ten thousand deliveries to places that somebody swaps for links all the time (D3).

The links lead to something precious that the account may write to, so that nothing but care keeps a letter
out of it. How many letters are refused is up to the scheduler; what is precious stays as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from postoffice.delivery.helper import packets
from tests.delivery.test_helper import ACCOUNT, HelperCase
from tests.delivery.test_local import CONTENT

# As long as the file is one, a Maildir would count its letters in it.
PRECIOUS = "100000000S\nprecious\n"

SWAP = """
import os, sys
path, victim, uid = sys.argv[1], sys.argv[2], int(sys.argv[3])

def tried(call, *words):
    try:
        call(*words)
    except OSError:
        pass

def own(place):
    os.chown(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY), uid, -1)

def swap(place):
    for make in (lambda: os.symlink(victim, place), lambda: os.link(victim, place), lambda: own(place)):
        tried(os.unlink, place)
        tried(make)
    os.closerange(3, 20)
"""

ONE_FILE = f"{SWAP}\nwhile True:\n    swap(path)\n"

# Also letters on their way, and those that come next, whose names can be told from theirs.
MAILDIR = f"""{SWAP}
import itertools, re
sizes = path + "/maildirsize"
makes = itertools.cycle((
    lambda: os.symlink(victim, sizes), lambda: os.link(victim, sizes), lambda: own(sizes)
))
while True:
    tried(os.unlink, sizes)
    tried(next(makes))
    os.closerange(3, 20)
    for name in os.listdir(path + "/tmp"):
        later = re.sub("Q([0-9]+)R", lambda found: f"Q{{int(found[1]) + 20}}R", name)
        for place in (f"{{path}}/tmp/{{name}}", f"{{path}}/tmp/{{later}}", f"{{path}}/new/{{later}}"):
            tried(os.unlink, place)
            tried(os.symlink if name[-1] in "02468ace" else os.link, victim, place)
"""


class AttackTests(HelperCase):
    async def attacked(self, program: str, path: str, deliver: Callable[[int], Any]) -> int:
        """How many of a third of the deliveries succeeded while `program` swapped what is at `path`."""
        vault = Path(self.top) / "vault"
        vault.mkdir()
        victim = vault / "victim"
        victim.write_text(PRECIOUS)
        for place in (vault, victim):
            os.chown(place, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        words = [path, str(victim), str(ACCOUNT.pw_uid)]
        attacker = subprocess.Popen([sys.executable, "-I", "-c", program, *words])
        letter = packets.memory_file()
        try:
            os.write(letter, CONTENT)
            packets.seal(letter)
            stored = 0
            for _ in range(34):
                jobs = [Deferred.fromCoroutine(deliver(letter)) for _ in range(100)]
                for done, _ in await DeferredList(jobs, consumeErrors=True):  # type: ignore[misc]
                    stored += done
        finally:
            attacker.kill()
            attacker.wait()
            os.close(letter)
        self.assertEqual(victim.read_text(), PRECIOUS)
        self.assertEqual(os.listdir(vault), ["victim"])
        return stored

    async def test_D3_an_mbox(self) -> None:
        path = f"{self.top}/joe"
        job = {"do": "mbox", "path": path, "sender": "evil", "now": 1e9, "tree": "", "quote": True}
        stored = await self.attacked(
            ONE_FILE, path, lambda letter: self.helped.identities.store(ACCOUNT.pw_name, job, letter)
        )
        self.assertGreater(stored, 0)
        self.assertLess(stored, 3400)

    async def test_D3_a_file(self) -> None:
        """Several letters at a time, as they are appended to what aliases name."""
        path = f"{self.top}/log"
        letters = [("evil", 1e9, len(CONTENT) // 2)] * 2
        job = {"do": "append", "path": path, "tree": "", "quote": True, "letters": letters}

        async def deliver(letter: int) -> None:
            for error in await self.helped.identities.append(ACCOUNT.pw_name, job, letter):
                if error is not None:
                    raise error

        stored = await self.attacked(ONE_FILE, path, deliver)
        self.assertGreater(stored, 0)
        self.assertLess(stored, 3400)

    async def test_D3_a_maildir(self) -> None:
        path = f"{self.top}/Maildir"
        for part in ("", "/tmp", "/new", "/cur"):
            os.mkdir(path + part)
            os.chown(path + part, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        job = {"do": "maildir", "path": path, "now": 1e9, "host": "mx", "tree": ""}
        stored = await self.attacked(
            MAILDIR, path, lambda letter: self.helped.identities.store(ACCOUNT.pw_name, job, letter)
        )
        self.assertGreater(stored, 0)
