"""What the end of a `|command` means for its letter.

The exit status is one of sysexits(3): EX_TEMPFAIL and what the machine did wrong wait, what is wrong with the
letter or its recipient fails. Whatever else a command ends with fails, but for the shell not finding or not
being allowed to run it, a signal, and the time limit: these an operator or the owner can mend. What the
command said goes with the outcome, and so into a bounce.
"""

from __future__ import annotations

import os
from typing import Any

from postoffice.mail.outcome import Delivered, Failed, Outcome, Postponed
from postoffice.mail.reply import Reply, printable

# By exit status: the code of the reply, the subject and detail of its enhanced code, and what it means.
_MEANINGS: dict[int, tuple[int, tuple[int, int], str]] = {
    os.EX_USAGE: (554, (3, 0), "it was called in a wrong way"),
    os.EX_DATAERR: (554, (6, 0), "the letter is not as it should be"),
    os.EX_NOINPUT: (554, (3, 0), "what it reads is not there"),
    os.EX_NOUSER: (550, (1, 1), "there is no such user"),
    os.EX_NOHOST: (550, (1, 2), "there is no such host"),
    os.EX_UNAVAILABLE: (554, (3, 0), "it cannot be done"),
    os.EX_SOFTWARE: (554, (3, 0), "the program has a defect"),
    os.EX_OSERR: (451, (3, 0), "the system could not do it"),
    os.EX_OSFILE: (554, (3, 5), "a file of the system is not as it should be"),
    os.EX_CANTCREAT: (550, (2, 0), "a file cannot be made"),
    os.EX_IOERR: (451, (3, 0), "reading or writing failed"),
    os.EX_TEMPFAIL: (451, (3, 0), "it is to be tried again later"),
    os.EX_PROTOCOL: (554, (5, 0), "the other side speaks nonsense"),
    os.EX_NOPERM: (550, (7, 0), "it is not allowed"),
    os.EX_CONFIG: (554, (3, 5), "its configuration is wrong"),
    126: (451, (3, 5), "it may not be run"),
    127: (451, (3, 5), "there is no such command"),
}
_SAID = 400


def outcome_of_end(end: dict[str, Any], text: str) -> Outcome:
    """The outcome for the recipients of a command; `end` is what the child answered, `text` the command."""
    said = " / ".join(line.strip() for line in str(end["output"]).splitlines() if line.strip())
    more = f": {printable(said, _SAID)}" if said else ""
    if end.get("timeout"):
        return Postponed(Reply(451, (3, 0), f"the command took too long and was stopped{more}"))
    if "signal" in end:
        return Postponed(Reply(451, (3, 0), f"the command was ended by signal {end['signal']}{more}"))
    status = int(end["status"])
    if status == 0:
        return Delivered(Reply(250, (0, 0), "delivered to the command"), printable(f"|{text}", 100))
    code, enhanced, meaning = _MEANINGS.get(status, (554, (3, 0), f"exit status {status}"))
    reply = Reply(code, enhanced, f"the command failed, {meaning}{more}")
    return Failed(reply) if reply.permanent else Postponed(reply)
