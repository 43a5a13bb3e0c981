"""The requests of local commands about virtual domains and alias files; the frames are in `postoffice.wire`.

Called by the desk of the running service, and by `postoffice.offline` for a command that finds the service
down. A domain is looked after by its owner in domains.cf and by administrators, the system's alias file by
administrators alone; to anybody else all domains are as good as unknown.

Errors: `NotDone` for what cannot be done, `WireError` for what is not understood. No error and no log has a
password in it.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from attrs import frozen

from postoffice import wire
from postoffice.interfaces import Declined, IVirtualFiles
from postoffice.mail.reply import Refusal, printable
from postoffice.mail.virtual import AliasSummary, VirtualDomain
from postoffice.server.office import NotDone
from postoffice.smtp.grammar import parse_address
from postoffice.smtp.sasl import LIMIT

Write = Callable[[Iterator[bytes]], Awaitable[None]]

NOT_YOURS = "only the domain's owner, root, the service's account and members of control-group may do this"
_LINE_ENDS = frozenset("\0\r\n")


@frozen
class Asker:
    """Who asks: the account's name, None where it has none; `note` tells the log what was done."""

    account: str | None
    administrator: bool
    note: Callable[[str], None]

    def check(self, domain: VirtualDomain | None) -> None:
        """Whether they may look after a domain, None being one that is not known. Errors: `NotDone`."""
        if self.administrator:
            return
        if domain is None or not self.account or self.account != domain.owner:
            raise NotDone(NOT_YOURS, os.EX_NOPERM)


async def answer(request: dict[str, Any], files: IVirtualFiles, asker: Asker, write: Write) -> dict[str, Any]:
    """Do what is asked: frames of the answer go to `write`, the last is returned."""
    try:
        match request:
            case {"verb": "newaliases", "domains": list(domains)}:
                for one in domains:
                    await write(iter([wire.encode_json(await _summary(one, files, asker))]))
            case {"domain": str(name)}:
                domain = await _domain(name, files, asker)
                await _virtual(request, domain, files, asker, write)
            case _:
                raise wire.WireError("no request that is known")
    except Declined as error:
        raise NotDone(str(error), error.exit_code) from error
    return {"done": True}


async def _virtual(
    request: dict[str, Any], domain: VirtualDomain, files: IVirtualFiles, asker: Asker, write: Write
) -> None:
    match request:
        case {"do": "users"}:
            users = await files.users(domain)
            await write(wire.encode_json({"user": name, "login": usable}) for name, usable in users)
        case {"do": "set-password", "user": str(user), "password": str(password)}:
            new = request.get("new") is True
            await files.set_password(domain, user, _checked(password), new)
            asker.note(f"{'added' if new else 'set the password of'} {user}@{domain.name}")
        case {"do": "remove-user", "user": str(user)}:
            await files.remove_user(domain, user)
            asker.note(f"removed {user}@{domain.name}")
        case {"do": "aliases"}:
            aliases = await files.aliases(domain)
            await write(wire.encode_json({"alias": name, "targets": text}) for name, text in aliases)
        case {"do": "set-alias", "alias": str(name), "targets": list(targets)}:
            await files.set_alias(domain, name, [_text(target) for target in targets])
            asker.note(f"set the alias {name}@{domain.name}")
        case {"do": "remove-alias", "alias": str(name)}:
            await files.remove_alias(domain, name)
            asker.note(f"removed the alias {name}@{domain.name}")
        case _:
            raise wire.WireError("no request that is known")


async def _domain(name: str, files: IVirtualFiles, asker: Asker) -> VirtualDomain:
    """The domain that is meant, if the caller may look after it. It may be written in any script."""
    try:
        known = await files.find(parse_address(f"postmaster@{name}").domain)
    except Refusal:
        known = None
    asker.check(known)
    if known is None:
        raise NotDone(f"{printable(name, 80)}: no virtual domain", os.EX_NOHOST)
    return known


async def _summary(name: Any, files: IVirtualFiles, asker: Asker) -> dict[str, Any]:
    """What is told of one alias file; what is wrong with it does not keep others from being looked at."""
    try:
        if name is None:
            asker.check(None)
            summary = await files.summary(None)
        else:
            summary = await files.summary(await _domain(_text(name), files, asker))
    except (Declined, NotDone) as error:
        return {"problem": str(error), "exit": error.exit_code}
    return _told(summary)


def _told(summary: AliasSummary) -> dict[str, Any]:
    return {
        "file": summary.file,
        "aliases": summary.count,
        "longest": summary.longest,
        "total": summary.total,
        "twice": [list(one) for one in summary.twice],
        "mistakes": list(summary.mistakes),
        "warnings": list(summary.warnings),
    }


def _checked(password: str) -> bytes:
    """A password that somebody can log in with. How good it is, is the owner's affair."""
    try:
        data = password.encode()
    except UnicodeEncodeError:
        raise NotDone("the password is not UTF-8", os.EX_DATAERR) from None
    if not data:
        raise NotDone("the password is empty", os.EX_DATAERR)
    if len(data) > LIMIT:
        why = f"the password is longer than {LIMIT} octets, and clients can send no more"
        raise NotDone(why, os.EX_DATAERR)
    if _LINE_ENDS.intersection(password):
        raise NotDone("the password has a line end or a NUL in it", os.EX_DATAERR)
    return data


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise wire.WireError("something that is not text")
    return value
