"""A child: a process that is a user, and does that user's jobs in the order they come.

Forked by the helper. It ends when its connection does, and by SIGTERM, but not before it has answered the
jobs it took. Letters for Maildirs that wait together are stored together, so that they share the disk's
work; those for an mbox come together already. A lock that somebody else holds is not waited for: the
service asks again. Whatever goes wrong with a job is its answer; an error in this program ends the child,
and the jobs that were not answered are tried again later.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
from collections.abc import Callable
from functools import partial

from postoffice.delivery.files import Deposit, MailboxBusy, UnsafeMailbox, write_all
from postoffice.delivery.helper import command, packets, passwords
from postoffice.delivery.helper.identity import Rules
from postoffice.delivery.maildir import MaildirFile, put_together
from postoffice.delivery.mbox import MboxFile, append_together
from postoffice.home_file import Unsafe, read_as_owner
from postoffice.wire import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Job = tuple[dict[str, Any], int]

ENDING = {signal.SIGTERM}
"""What ends a child between two jobs."""

TOGETHER = 32
"""The most jobs that are taken at once."""

_SMALL = 1 << 20

_ALLOWED = {
    "files": {"mbox", "append", "maildir", "read"},
    "places": {"mbox", "append", "maildir"},
    "command": {"command"},
    "shadow": {"password"},
    "pam": {"password"},
}


class Child:
    """`shared` is the group that mboxes in the mail folder are written by, None where there is none."""

    def __init__(
        self,
        connection: socket.socket,
        entry: pwd.struct_passwd,
        purpose: str,
        rules: Rules,
        shared: int | None,
    ) -> None:
        self._connection = connection
        self._entry = entry
        self._purpose = purpose
        self._allowed = _ALLOWED[purpose]
        self._rules = rules
        self._shared = shared

    def serve(self) -> None:
        """Do jobs until the connection ends."""
        while jobs := self._take_whole():
            together = [job for job in jobs if _is_small_letter(job)]
            if len(together) > 1:
                self._store_together(together)
            for job in jobs if len(together) < 2 else [job for job in jobs if job not in together]:
                self._do(job)

    def _take_whole(self) -> list[Job]:
        """As `_take`, and from there on SIGTERM waits until the jobs are done."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        jobs = self._take()
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        return jobs

    def _take(self) -> list[Job]:
        """The jobs that wait, at least one; none at the end."""
        jobs: list[Job] = []
        try:
            while len(jobs) < TOGETHER:
                received = packets.receive(self._connection, socket.MSG_DONTWAIT if jobs else 0)
                if received is None:
                    break
                self._check(*received)
                jobs.append(received)
        except (BlockingIOError, ConnectionError):
            pass
        return jobs

    def _check(self, job: dict[str, Any], letter: int) -> None:
        if job.get("do") not in self._allowed:
            raise WireError(f"a job that is not one for this child: {job.get('do')!r}")
        if job["do"] != "read" and not packets.is_sealed(letter):
            raise WireError("a letter that could change")

    def _do(self, job: Job) -> None:
        message, file = job
        answer: dict[str, Any] = {}
        found = -1
        try:
            match message["do"]:
                case "command":
                    answer = command.run(message, file, self._entry, self._connection)
                case "password":
                    answer = passwords.answer(self._purpose, message["name"], file, self._rules)
                case "append":
                    answer = {"letters": self._append(message, file)}
                case "read":
                    found = self._read(message["name"])
                    answer = {"found": found >= 0}
                case _:
                    self._store(self._opened(message), file)
        except (MailboxBusy, UnsafeMailbox, Unsafe, OSError, ValueError) as error:
            answer = told(error)
        packets.close([file])
        self._answer(message, answer, found)

    def _store(self, opened: Callable[[], Deposit], letter: int) -> None:
        deposit = opened()
        try:
            for piece in packets.pieces(letter):
                deposit.write(piece)
            deposit.commit()
        except BaseException:
            deposit.abort()
            raise

    def _store_together(self, jobs: list[Job]) -> None:
        letters = [(partial(_maildir, message), b"".join(packets.pieces(letter))) for message, letter in jobs]
        for (message, letter), error in zip(jobs, put_together(letters), strict=True):
            packets.close([letter])
            if error is not None and not isinstance(error, OSError):
                raise error
            self._answer(message, {} if error is None else told(error))

    def _opened(self, job: dict[str, Any]) -> Callable[[], Deposit]:
        if job["do"] == "maildir":
            return partial(_maildir, job)
        path, shared = job["path"], self._group(job["path"])
        return partial(
            MboxFile, path, job["sender"], job["now"], job["tree"], quote=job["quote"], shared=shared
        )

    def _append(self, job: dict[str, Any], file: int) -> list[dict[str, Any]]:
        letters: list[tuple[str, float, bytes]] = []
        at = 0
        for sender, now, size in job["letters"]:
            letters.append((sender, now, os.pread(file, size, at)))
            at += size
        path, shared = job["path"], self._group(job["path"])
        answers: list[dict[str, Any]] = []
        for error in append_together(path, letters, job["tree"], quote=job["quote"], shared=shared):
            if not (error is None or isinstance(error, MailboxBusy | UnsafeMailbox | OSError)):
                raise error
            answers.append({} if error is None else told(error))
        return answers

    def _group(self, path: str) -> int | None:
        """The group a new mbox at `path` is for, too."""
        return self._shared if os.path.dirname(path) == self._rules.mail_folder else None

    def _read(self, name: str) -> int:
        """A file that holds what a file of the user's holds; -1 where there is none."""
        content = read_as_owner(self._entry.pw_dir, self._entry.pw_uid, name)
        if content is None:
            return -1
        file = packets.memory_file()
        write_all(file, content)
        packets.seal(file)
        return file

    def _answer(self, job: dict[str, Any], answer: dict[str, Any], file: int = -1) -> None:
        try:
            packets.send(self._connection, {**answer, "id": job["id"]}, [file] if file >= 0 else [])
        except ConnectionError:
            # Nobody waits for it any more.
            os._exit(os.EX_OK)
        packets.close([file])


def told(error: BaseException) -> dict[str, Any]:
    """What went wrong, as it is answered."""
    match error:
        case MailboxBusy():
            return {"busy": True}
        case OSError(errno=int(number)):
            return {"errno": number}
    return {"unsafe": str(error)}


def _maildir(job: dict[str, Any]) -> MaildirFile:
    return MaildirFile(job["path"], job["now"], job["host"], job["tree"])


def _is_small_letter(job: Job) -> bool:
    message, file = job
    return message["do"] == "maildir" and os.fstat(file).st_size <= _SMALL
