"""What one input of the fuzzer means to a whole session, in an office in memory.

The engine's part is looked at by `harness`; here it is what the session and all behind it make of it:

- nothing fails in a way nobody thought of, which would be answered 451 and logged as an error;
- every reply is legal, and cut into single octets the input gets the same codes as whole;
- a stranger has nothing sent elsewhere;
- whoever leaves is gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network

from tests.server.support import INSIDE, OUTSIDE, Door

VISITORS: Mapping[bytes, str] = {b"stranger": OUTSIDE, b"believed": OUTSIDE, b"neighbour": INSIDE}
"""Words that an input may begin with, and the address it then comes from.

Whoever is believed may say with XCLIENT who he is, and have the settings told; a neighbour may log in.
"""

Cut = Callable[[bytes], Iterable[bytes]]

# The double of the directory has this one on purpose.
_MEANT = "ZeroDivisionError"
_REPLY = re.compile(rb"(?:([2-5]\d\d)-[ -~]*\r\n)*([2-5]\d\d) [ -~]*\r\n")


def codes(said: bytes) -> list[bytes]:
    """The codes of replies, each legal."""
    found, at = [], 0
    while at < len(said):
        reply = _REPLY.match(said, at)
        assert reply, said[at:]
        assert {line[:3] for line in reply[0].split(b"\r\n")[:-1]} == {reply[2]}, reply[0]
        found.append(reply[2])
        at = reply.end()
    return found


def visit(visitor: bytes, groups: list[bytes], cut: Cut) -> tuple[list[bytes], bool]:
    """One visit: the codes, and whether the client may have been turned away for not waiting."""
    door = Door()
    if visitor == b"neighbour":
        door.accounts.passwords = {b"a": b"foo"}
    elif visitor == b"believed":
        door.change(xclient=(ip_network(OUTSIDE),), disclosure=("size=1",))
    client = door.visit(VISITORS[visitor])
    said = client.heard()
    for piece in (piece for group in groups for piece in cut(group)):
        if client.closed:
            break
        said += client.send(piece)
    client.leave()
    errors = [error for error in door.office.journal.named("error") if _MEANT not in error]
    assert not errors, errors
    assert not door.doorkeeper.sessions, "a session is left"
    assert not door.doorkeeper._from, "an address is counted that nobody comes from"
    if visitor == b"stranger":
        assert not door.office.remote.attempts, door.office.remote.attempts
    found = codes(said)
    # Too many errors are told instead of the last of them.
    return found, client.closed and found[-1] in (b"554", b"421")


def check(visitor: bytes, groups: list[bytes], cut: Cut) -> None:
    """One input; raises where it shows a defect."""
    one, impatient = visit(visitor, groups, lambda group: [group])
    many, _ = visit(visitor, groups, cut)
    if impatient:
        assert many[: len(one) - 1] == one[:-1], (one, many)
    else:
        assert one == many, (one, many)
