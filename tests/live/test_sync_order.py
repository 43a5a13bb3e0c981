"""No 250 after data leaves before the sync of the commit that holds the letter has returned.

The service runs under strace. For each reply that acknowledges a letter the record of its system calls must
show, before that reply: the letter's row written to the write-ahead log, then the frame that ends its
transaction, then a sync of the log begun after that and ended well. A large letter's content lies in a file
of its own: written, synced, and its directory synced, all before that frame.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import define

from postoffice.spool.schema import PAGE
from tests.live.office import DOMAIN, OfficeCase, furnish, settings
from tests.live.test_nothing_lost import Client, make_letter
from tests.peers import Postoffice, passable
from tests.support import program

CALLS = "fsync,fdatasync,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg"
BEGUN = re.compile(r"(\d+) +(\w+)\(\d+<([^>]*)>(?:, (.*))?")
ENDED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>.* = (-?\d+)")
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
ACKNOWLEDGED = re.compile(rb"250 2\.0\.0 OK, queued as (\w+)\r\n")
FRAME_HEADER = 24


@define
class Call:
    """A system call: on which file, with what data, and when in the record it began and ended."""

    name: str
    file: str
    data: bytes
    began: int
    ended: int
    result: int


def calls_in(record: Path) -> list[Call]:
    """The calls in a record of `strace -f -y`, in the order they began."""
    calls: list[Call] = []
    open_ones: dict[str, Call] = {}
    with record.open(encoding="latin-1") as lines:
        for number, line in enumerate(lines):
            if found := ENDED.match(line):
                call = open_ones.pop(found[1])
                call.ended, call.result = number, int(found[3])
            elif found := BEGUN.match(line):
                data = "".join(STRING.findall(found[4] or ""))
                octets = data.encode("latin-1").decode("unicode_escape").encode("latin-1")
                call = Call(found[2], found[3], octets, number, number, -1)
                calls.append(call)
                if line.endswith("<unfinished ...>\n"):
                    open_ones[found[1]] = call
                else:
                    call.result = int(line.rpartition(" = ")[2].split()[0])
    return calls


def is_sync(call: Call) -> bool:
    """Whether it made something durable."""
    return call.name in ("fsync", "fdatasync") and call.result == 0


def commit_after(log: Sequence[Call], at: int) -> Call | None:
    """The last write of the transaction that the page written by `log[at]` belongs to.

    A frame of the log is a header, whose second number is not zero in the last one of a transaction, and a
    page (https://www.sqlite.org/fileformat2.html#the_write_ahead_log).
    """
    for header, page in zip(log[at - 1 :], log[at:], strict=False):
        if len(header.data) == FRAME_HEADER and header.data[4:8] != bytes(4):
            return page
    return None


def faults(calls: Sequence[Call]) -> Iterator[str]:
    """What is wrong: a line for each letter that was acknowledged too early; never without any letter."""
    log = [call for call in calls if call.file.endswith("spool.db-wal") and not is_sync(call)]
    syncs = [call for call in calls if is_sync(call)]
    acknowledged = {
        letter_id: call
        for call in calls
        if call.name.startswith("send")
        for letter_id in ACKNOWLEDGED.findall(call.data)
    }
    if not acknowledged:
        yield "no letter was acknowledged"
    for letter_id, reply in acknowledged.items():
        written = next((at for at, call in enumerate(log) if letter_id in call.data), None)
        commit = None if written is None else commit_after(log, written)
        if commit is None or not any(
            sync.file == commit.file and commit.ended < sync.began and sync.ended < reply.began
            for sync in syncs
        ):
            yield f"{letter_id!r} was acknowledged before its commit was synced"
            continue
        content = [
            call.file for call in calls if "/spool/content/" in call.file and b" id " + letter_id in call.data
        ]
        for file in content[:1]:
            last = max(call.ended for call in calls if call.file == file and not is_sync(call))
            for place, since in ((file, last), (file.rpartition("/")[0], 0)):
                if not any(s.file == place and since < s.began and s.ended < commit.began for s in syncs):
                    yield f"{letter_id!r} was committed before {place} was synced"


class Traced(Postoffice):
    """The service with every write and sync recorded, by a strace that is its grandchild."""

    @property
    def record(self) -> Path:
        """The file of the record."""
        return self.directory / "trace"

    def command(self) -> Sequence[str | Path]:
        """strace hides behind the process it starts, so that our signals reach the service itself."""
        strace = [program("strace"), "-D", "-f", "-y", "-s", str(PAGE), "-e", f"trace={CALLS}"]
        return [*strace, "-e", "signal=none", "-o", self.record, *super().command()]


class SyncOrder(OfficeCase):
    """Sessions hand in small and large letters; the record is read afterwards."""

    def handed_in(self, sessions: int, letters: int) -> list[Call]:
        """The calls of a service that was given `letters` letters in each of `sessions` sessions at once."""
        program("strace")
        home = passable(self.directory / "traced")
        furnish(home)
        office = Traced(settings(home), home)
        self.addCleanup(office.stop)
        done: list[str] = []

        def session(number: int) -> None:
            source = random.Random(number)
            client = Client(office.port)
            for count in range(letters):
                text = make_letter(f"{number}-{count}", source, large=count % 8 == 3)
                done.append(client.letter(f"alice@{DOMAIN}", text))
            client.close()

        threads = [threading.Thread(target=session, args=(number,)) for number in range(sessions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        office.stop()
        self.assertEqual(len(set(done)), sessions * letters)
        calls = calls_in(office.record)
        seen = {letter_id.decode() for call in calls for letter_id in ACKNOWLEDGED.findall(call.data)}
        self.assertEqual(seen, set(done), "every reply is in the record")
        return calls

    def test_one_session(self) -> None:
        self.assertEqual(list(faults(self.handed_in(1, 24))), [])

    def test_ten_sessions(self) -> None:
        calls = self.handed_in(10, 16)
        self.assertEqual(list(faults(calls)), [])
        self.assertTrue(any("/spool/content/" in call.file for call in calls), "large letters are in files")

    def test_the_record_is_understood(self) -> None:
        """Without the syncs, or with all of them late, each letter of a good record counts as a fault."""
        calls = self.handed_in(1, 4)
        self.assertEqual(len(list(faults([call for call in calls if not is_sync(call)]))), 4)
        for call in calls:
            if is_sync(call):
                call.ended += len(calls) * 2
        self.assertEqual(len(list(faults(calls))), 4)
