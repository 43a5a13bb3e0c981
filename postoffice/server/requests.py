"""The requests of local commands: who may ask what, and what is answered.

One `Desk` serves one request. It reads further frames from the conversation it is given, and returns
the last frame of the answer. Errors: `NotDone` for what is refused, `WireError` for what is not understood;
a submission that ends in any error leaves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from postoffice import __version__, wire
from postoffice.interfaces import IJournal
from postoffice.mail.address import Address, path
from postoffice.mail.client import Client
from postoffice.mail.destination import Explanation, where_to
from postoffice.mail.reply import Refusal, printable
from postoffice.server import greylist, letters, virtual
from postoffice.server.office import (
    Caller,
    IOffice,
    ISubmission,
    LocalSettings,
    NotDone,
    Talk,
)
from postoffice.smtp.grammar import BAD_SENDER, parse_address

# Replies about the address of a recipient (RFC 3463 section 3.2).
_OF_RECIPIENTS = frozenset({(1, 1), (1, 2), (1, 3), (1, 10)})


class Desk:
    """Serves the request of one caller; `name` is the name of its account, None where it has none."""

    def __init__(
        self,
        office: IOffice,
        journal: IJournal,
        settings: LocalSettings,
        caller: Caller,
        name: str | None,
        talk: Talk,
    ) -> None:
        self._office = office
        self._journal = journal
        self._settings = settings
        self._caller = caller
        self._talk = talk
        self._account = name
        user = name or str(caller.uid)
        self._client = Client(ip="", name="localhost", protocol="LOCAL", user=user, may_relay=True)

    async def answer(self, request: Any) -> dict[str, Any]:
        match request:
            case {"verb": "submit", "recipients": list(recipients)}:
                return await self._submit(request, recipients)
            case {"verb": "list"}:
                return await self._letters(request)
            case {"verb": "run" | "hold" | "release" | "delete" | "show"}:
                self._need_administrator()
                return await self._letters(request)
            case {"verb": "explain", "address": str(text)}:
                self._need_administrator()
                return await self._explain(text)
            case {"verb": "greylist"}:
                self._need_administrator()
                return await greylist.answer(request, self._office.greylist, self._talk.write)
            case {"verb": "virtual" | "newaliases"}:
                asker = virtual.Asker(self._account, self._administrator(), self._note)
                return await virtual.answer(request, self._office.virtual, asker, self._talk.write)
            case {"verb": "status"}:
                administrator = self._administrator()
                return {
                    "done": True, "version": __version__, "pid": os.getpid(), "administrator": administrator,
                }  # fmt: skip
        raise wire.WireError("no request that is known")

    def _administrator(self) -> bool:
        caller, settings = self._caller, self._settings
        return caller.uid in (0, settings.service_uid) or settings.admin_group in caller.groups

    def _need_administrator(self) -> None:
        if not self._administrator():
            what = "only root, the service's account and members of control-group may do this"
            raise NotDone(what, os.EX_NOPERM)

    async def _letters(self, request: dict[str, Any]) -> dict[str, Any]:
        everybodys = self._settings.everybody_lists or self._administrator()
        asker = letters.Asker(None if everybodys else str(self._client), self._note)
        return await letters.answer(request, self._office.letters, asker, self._talk.write)

    def _note(self, what: str) -> None:
        self._journal.managed(self._client, what)

    async def _explain(self, text: str) -> dict[str, Any]:
        try:
            address = parse_address(text)
        except Refusal as refusal:
            raise NotDone(f"{printable(text, 80)}: {refusal.reply.text}", os.EX_USAGE) from None
        explanation = await self._office.explain(address)
        await self._talk.write(_explained(explanation))
        reply = explanation.refusal
        return {"done": True, "refusal": None if reply is None else str(reply)}

    async def _submit(self, request: dict[str, Any], texts: list[Any]) -> dict[str, Any]:
        client = self._client
        sender, warning = self._sender(request, client)
        most = self._settings.recipients
        if most and len(texts) > most:
            raise NotDone(f"too many recipients: {len(texts)}, and the limit is {most}", os.EX_UNAVAILABLE)
        recipients, refused = _recipients(texts)
        if not recipients:
            raise NotDone(_why_nobody(refused), os.EX_NOUSER)
        try:
            submission, more = await self._office.begin(client, sender, recipients, warning)
        except Refusal as refusal:
            raise self._refused(client, refusal, os.EX_NOUSER, recipients) from refusal
        refused.extend((str(address), str(reply)) for address, reply in more)
        try:
            await self._content(submission)
            letter_id = await submission.finish()
        except Refusal as refusal:
            raise self._refused(client, refusal, os.EX_UNAVAILABLE) from refusal
        finally:
            submission.abort()
        return {"done": True, "id": letter_id, "refused": refused}

    async def _content(self, submission: ISubmission) -> None:
        """Pass content on with CRLF line ends: every CR goes, and every LF gets one."""
        last = b"\n"
        while (frame := await self._talk.next()) is not wire.END:
            if not isinstance(frame, bytes):
                raise wire.WireError("a request inside of a letter")
            data = frame.replace(b"\r", b"")
            last = data[-1:] or last
            waiting = submission.write(data.replace(b"\n", b"\r\n"))
            if waiting is not None:
                await waiting
        if last != b"\n":
            waiting = submission.write(b"\r\n")
            if waiting is not None:
                await waiting

    def _sender(self, request: dict[str, Any], client: Client) -> tuple[Address | None, str | None]:
        """The sender, and the warning to add when the caller names somebody else as such."""
        own = client.user or ""
        match request.get("sender", own):
            case None:
                sender = None
            case str(text):
                try:
                    sender = parse_address(text)
                except Refusal:
                    raise NotDone(f"{printable(text, 80)}: {BAD_SENDER.text}", os.EX_USAGE) from None
            case _:
                raise wire.WireError("a sender that is not text")
        if self._caller.uid in (0, self._settings.service_uid):
            return sender, None
        if (
            sender is not None
            and sender.local == own
            and sender.domain_key in ("", self._settings.host.lower())
        ):
            return sender, None
        return sender, printable(f"{own} set sender to {path(sender)}")

    def _refused(
        self, client: Client, refusal: Refusal, permanent: int, recipients: Sequence[Address] = ()
    ) -> NotDone:
        reply = refusal.reply
        # What is said of one recipient is said of the first: none of them was good.
        about = str(recipients[0]) if recipients and reply.enhanced in _OF_RECIPIENTS else ""
        self._journal.refused(client, f"letter for {about}" if about else "letter", reply, refusal.why)
        text = f"{about}: {reply}" if about else str(reply)
        return NotDone(text, os.EX_TEMPFAIL if reply.temporary else permanent)


def _recipients(texts: list[Any]) -> tuple[list[Address], list[tuple[str, str]]]:
    """The well-formed addresses, each once, and the others with the reply for them."""
    good: dict[Address, None] = {}
    bad: list[tuple[str, str]] = []
    for text in texts:
        if not isinstance(text, str):
            raise wire.WireError("a recipient that is not text")
        try:
            good[parse_address(text)] = None
        except Refusal as refusal:
            bad.append((printable(text, 80), str(refusal.reply)))
    return list(good), bad


def _why_nobody(refused: list[tuple[str, str]]) -> str:
    if not refused:
        return "no recipients"
    return "; ".join(f"{address}: {reply}" for address, reply in refused[:5])


def _explained(explanation: Explanation) -> Iterator[bytes]:
    for step in explanation.steps:
        yield wire.encode_json({"depth": step.depth, "address": str(step.address), "what": step.what})
    for copy, refusal in explanation.copies:
        yield wire.encode_json(
            {
                "copy": str(copy.address),
                "path": [str(address) for address in copy.path],
                "destination": None if refusal else where_to(copy.destination),
                "refusal": None if refusal is None else str(refusal),
            }
        )
