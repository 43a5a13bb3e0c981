"""What is done to the tables within one transaction. Called by the writer thread only.

`apply` takes everything that was handed in together. What most letters need (to be inserted, to be
forgotten when their one recipient was served) is done for many letters with one statement
(`postoffice.spool.shortcuts`). Statement texts are constant, so that they are prepared once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apsw
from attrs import frozen

from postoffice.interfaces import IContent, SpoolFailed, StaleClaim
from postoffice.mail.envelope import Claim, Recipient, ReportRequest, Settlement
from postoffice.mail.outcome import Postponed
from postoffice.spool import names, shortcuts
from postoffice.spool import statements as sql
from postoffice.spool.content import FileContent, HeldContent, checksum
from postoffice.spool.schema import ATTEMPTS, PLACES, RECORD, span
from postoffice.spool.statements import Row
from postoffice.spool.work import Call, Insert, Settle, Work

_NO_REQUEST = ReportRequest()

ClaimedLetter = tuple[Claim, IContent]


@frozen
class Place:
    """What transactions need to know of the node they are for; `file` makes the content in a file."""

    lease: float
    random: names.Random
    seconds: Callable[[], float]
    file: Callable[[str, int], FileContent]


class Store:
    """The tables, seen from inside a transaction on `connection`.

    `unused` collects the content files that no row names any more once the transaction is committed.
    """

    def __init__(self, connection: apsw.Connection, place: Place, node: int) -> None:
        self.execute = connection.execute
        self.changes = connection.changes
        self.seconds = place.seconds
        self.node = node
        self.lease = place.lease
        self.unused: list[str] = []
        self._place = place
        self._last_key = 0
        # Whether other nodes may insert letters, too: a group failed, which they can be the reason of.
        self._shared = False
        shortcuts.prepare(connection, self._unused)

    def _unused(self, file: str) -> None:
        self.unused.append(file)

    def apply(self, group: Iterable[Work]) -> None:
        """Do everything in a group; whatever is raised, the caller undoes all of it."""
        inserts: list[Insert] = []
        served: list[Settle] = []
        others: list[Work] = []
        for work in group:
            if isinstance(work, Insert):
                inserts.append(work)
            elif isinstance(work, Settle) and work.plain():
                served.append(work)
            else:
                others.append(work)
        if inserts:
            self.insert(inserts)
        if served:
            self.rows(sql.SERVED, [(work.claim.recipients[0].key, work.claim.token) for work in served])
        for other in others:
            other.value = self._do(other)

    @staticmethod
    def is_one_statement(group: Sequence[Work]) -> bool:
        """Whether a group is done by one statement, which is a transaction by itself."""
        kind = type(group[0])
        return len(group) in sql.STORED and all(type(work) is kind and work.plain() for work in group)

    def apply_apart(self, group: Iterable[Work]) -> None:
        """Do everything in a group, each for itself: what fails is undone alone and keeps its error."""
        self._shared = True
        for work in group:
            self.execute("SAVEPOINT work")
            unused = len(self.unused)
            try:
                work.value = self._do(work)
            except (StaleClaim, SpoolFailed) as error:
                work.error = error
            except apsw.ConstraintError as error:
                work.error = SpoolFailed(f"refused by the database: {error}")
            except apsw.Error:
                raise
            except Exception as error:
                work.error = SpoolFailed(f"{type(error).__name__}: {error}")
            if work.error is not None:
                work.value = None
                del self.unused[unused:]
                self.execute("ROLLBACK TO work")
            self.execute("RELEASE work")

    def _do(self, work: Work) -> Any:
        """Do one thing alone; what it is answered with."""
        match work:
            case Insert():
                self.insert((work,))
                return work.value
            case Settle():
                return self.settle(work)
            case Call():
                return work.function(self)

    def rows(self, texts: dict[int, str], rows: Sequence[Row]) -> None:
        """Carry out a statement for many rows."""
        for count, portion in sql.portions(rows, texts):
            self.execute(texts[count], [value for row in portion for value in row])

    def insert(self, works: Sequence[Insert]) -> None:
        """Store letters, claimed where that was asked; sets what the works are answered with."""
        now = self.seconds()
        first = self._next_key()
        letters: list[Row] = []
        contents: list[Row] = []
        recipients: list[Row] = []
        stored: list[Row] = []
        for key, work in enumerate(works, first):
            letter, content, places = self._rows(work, key, now)
            if work.plain():
                stored.append((key, *letter, *content, *places[0]))
            else:
                letters.append((key, *letter))
                if work.data is not None:
                    contents.append((key, *content))
                recipients += places
        self._last_key = first + len(works) - 1
        self.rows(sql.STORED, stored)
        self.rows(sql.LETTER, letters)
        self.rows(sql.CONTENT, contents)
        self.rows(sql.RECIPIENT, recipients)

    def _next_key(self) -> int:
        """A key for a letter, and any above it.

        None that was given since the start is given again, lest somebody confuse two letters of this run.
        """
        if self._shared or not self._last_key:
            ((highest,),) = self.execute("SELECT max(key) FROM letter")
            self._last_key = max(self._last_key, highest or 0)
        return self._last_key + 1

    def _rows(self, work: Insert, key: int, now: float) -> tuple[Row, Row, list[Row]]:
        """The rows of a letter (without its key), its content (likewise) and its recipients.

        Sets what the work is answered with. Errors: `SpoolFailed`.
        """
        new, held = work.new, bool(work.new.held_for)
        if not 0 < len(new.recipients) < 1 << PLACES:
            raise SpoolFailed(f"a letter cannot have {len(new.recipients)} recipients")
        letter_id = new.id or names.queue_id(self._place.random)
        local, domain = (None, None) if new.sender is None else (new.sender.local, new.sender.domain)
        work.stored = key, letter_id
        letter = (
            letter_id,
            local,
            domain,
            new.body,
            work.size,
            new.received,
            new.client,
            held,
            work.file,
            new.smtputf8,
            new.ret,
            new.envid,
            new.folder,
            new.held_for,
        )
        content = () if work.data is None else (checksum(work.data), work.data)
        token = names.token(self._place.random) if work.claim and not held else None
        rows: list[Row] = []
        taken = []
        until = now + self.lease
        requests = new.requests
        for place, (address, due) in enumerate(new.recipients, key << PLACES):
            request = (requests and requests.get(address)) or _NO_REQUEST
            begin = place, address.local, address.domain, due
            asked = request.notify, request.orcpt
            if token is not None and due <= now:
                rows.append((*begin, False, until, self.node, token, *asked))
                taken.append(Recipient(place, address, due, 0, "", *asked))
            else:
                rows.append((*begin, held, due, None, None, *asked))
        work.value = None
        if token is not None and taken:
            claim = Claim(new.stored(letter_id, work.size), tuple(taken), token)
            work.value = (claim, self._content(work.file, work.size, work.data))
        return letter, content, rows

    def _content(self, file: str | None, size: int, data: bytes | None) -> IContent:
        if file is not None:
            return self._place.file(file, size)
        return HeldContent(data or b"")

    def drop_empty(self, letter: int) -> None:
        """Delete a letter (by key) if it has no recipient left."""
        self.execute(sql.EMPTY, (letter,))

    def settle(self, work: Settle) -> None:
        """Record outcomes, and store the bounce. Errors: `StaleClaim`."""
        claim = work.claim
        mine = {recipient.key for recipient in claim.recipients}
        for settlement in work.settlements:
            if settlement.key not in mine or not self._settled(claim, settlement):
                raise StaleClaim(f"{claim.letter.id}: the claim is not current any more")
        if work.bounce is not None:
            new, data = work.bounce
            self.insert((Insert(work.deferred, new, False, data),))
        if claim.recipients:
            self.drop_empty(claim.recipients[0].key >> PLACES)

    def _settled(self, claim: Claim, settlement: Settlement) -> bool:
        key = settlement.key
        if not isinstance(settlement.outcome, Postponed):
            self.execute(sql.SETTLED, (key, claim.token))
            return self.changes() == 1
        reply = str(settlement.outcome.reply) if settlement.attempted else None
        found = self.execute(
            sql.POSTPONE, (settlement.due, settlement.attempted, reply, key, claim.token)
        ).fetchall()
        if found and reply is not None:
            letter = key >> PLACES
            ((last,),) = self.execute("SELECT max(number) FROM attempt WHERE letter = ?", (letter,))
            number = (last or 0) + 1
            self.execute(
                f"INSERT INTO attempt VALUES (?, ?, {RECORD}, ?, ?, ?, ?)",
                (letter, number, self.seconds(), *found[0], reply),
            )
            self.execute("DELETE FROM attempt WHERE letter = ? AND number <= ?", (letter, number - ATTEMPTS))
        return bool(found)

    def claim(self, limit: int) -> list[ClaimedLetter]:
        """Claim what is due of at most `limit` letters."""
        now = self.seconds()
        letters: dict[int, None] = {}
        for (key,) in self.execute(sql.DUE, (now,)):
            if key >> PLACES not in letters:
                if len(letters) == limit:
                    break
                letters[key >> PLACES] = None
        return [self._take(letter, now) for letter in letters]

    def _take(self, key: int, now: float) -> ClaimedLetter:
        token = names.token(self._place.random)
        rows: list[Row] = self.execute(
            sql.TAKE, (now + self.lease, self.node, token, *span(key), now)
        ).fetchall()
        recipients = tuple(map(sql.recipient_of, sorted(rows)))
        ((*fields, file, data),) = self.execute(sql.READ, (key,))
        letter = sql.letter_of(tuple(fields))
        return Claim(letter, recipients, token), self._content(file, letter.size, data)

    def renew(self, claims: Sequence[Claim]) -> None:
        """Lengthen the lease of claims that are current."""
        until = self.seconds() + self.lease
        for claim in claims:
            # One statement for each letter, however many recipients it has: commits wait meanwhile.
            keys = span(claim.recipients[0].key >> PLACES)
            self.execute(
                "UPDATE recipient SET ready = ? WHERE key BETWEEN ? AND ? AND token = ?",
                (until, *keys, claim.token),
            )

    def next_due(self) -> float | None:
        """The earliest moment at which there is something for this node to claim."""
        now = self.seconds()
        for (ready,) in self.execute(
            "SELECT ready FROM recipient WHERE held = 0 AND (node IS NOT ?1 OR ready <= ?2)"
            " ORDER BY ready LIMIT 1",
            (self.node, now),
        ):
            return float(ready)
        return None

    def requeue(self, letter_id: str | None) -> int:
        """Make waiting recipients due now; how many there were."""
        if letter_id is None:
            return self._requeue("")
        key = self.key_of(letter_id)
        return 0 if key is None else self._requeue(" AND key BETWEEN ?2 AND ?3", *span(key))

    def requeue_domain(self, domain: str, below: bool) -> int:
        """Make waiting recipients at a domain due now; how many there were."""
        name = domain.lower().rstrip(".")
        if not below:
            return self._requeue(" AND lower(rtrim(domain, '.')) = ?2", name)
        end = f" AND substr('.' || lower(rtrim(domain, '.')), -{len(name) + 1}) = ?2"
        return self._requeue(end, f".{name}")

    def _requeue(self, which: str, *arguments: Any) -> int:
        self.execute(
            "UPDATE recipient SET due = min(due, ?1), ready = min(due, ?1), node = NULL, token = NULL"
            f" WHERE (token IS NULL OR ready <= ?1){which}",
            (self.seconds(), *arguments),
        )
        return self.changes()

    def set_held(self, letter_id: str, held: bool) -> bool:
        """Set a letter aside, or end that. False if there is no such letter."""
        key = self.key_of(letter_id)
        if key is None:
            return False
        self.execute(
            "UPDATE letter SET held = ?1, held_for = iif(?1, held_for, '') WHERE key = ?2", (held, key)
        )
        self.execute("UPDATE recipient SET held = ? WHERE key BETWEEN ? AND ?", (held, *span(key)))
        return True

    def delete(self, letter_id: str) -> bool:
        """Remove a letter. False if there is no such letter."""
        key = self.key_of(letter_id)
        if key is None:
            return False
        self.execute("DELETE FROM recipient WHERE key BETWEEN ? AND ?", span(key))
        self.drop_empty(key)
        return True

    def take_back(self, letters: Iterable[tuple[int, str]]) -> None:
        """Remove letters, by key and id, that must not be there: their commit was reported as failed."""
        for key, letter_id in letters:
            if self.key_of(letter_id) == key:
                self.delete(letter_id)

    def key_of(self, letter_id: str) -> int | None:
        """The key of a letter."""
        for (key,) in self.execute("SELECT key FROM letter WHERE id = ?", (letter_id,)):
            return int(key)
        return None
