"""What happens to most letters, as one row each of a view whose triggers change all tables.

A letter for one recipient is stored by a row of `stored`, and is gone with a row of `served`. Every step of a
statement lets go of the interpreter lock, and getting it back while the reactor works costs more than the
row; so a group of such letters is one step, and where it is one statement also its own transaction.

Views and triggers belong to the connection of the writer; there is none of them in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apsw

from postoffice.spool.schema import PLACES, RECORD

NOBODY_LEFT = (
    "NOT EXISTS (SELECT 1 FROM recipient WHERE recipient.key"
    f" BETWEEN letter.key << {PLACES} AND ((letter.key + 1) << {PLACES}) - 1)"
)
"""Of a letter: all its recipients are settled."""

_LETTER = (
    *("key", "id", "sender_local", "sender_domain", "body", "size", "received", "client", "held", "file"),
    *("smtputf8", "ret", "envid", "folder", "held_for"),
)
_CONTENT = ("checksum", "data")
_RECIPIENT = (
    *("place", "local", "domain", "due", "waits_held", "ready", "node", "token", "notify", "orcpt"),
)

STORED = [*_LETTER, *_CONTENT, *_RECIPIENT]
"""What a row of `stored` has; `place` is the key of the recipient."""


def _new(columns: Sequence[str]) -> str:
    return ", ".join(f"NEW.{column}" for column in columns)


_SHORTCUTS = f"""
CREATE TEMP TRIGGER with_letter AFTER DELETE ON main.letter BEGIN
    DELETE FROM content WHERE key = OLD.key;
    DELETE FROM attempt WHERE letter = OLD.key;
    DELETE FROM copy WHERE letter = OLD.key;
    SELECT unused(OLD.file) WHERE OLD.file IS NOT NULL;
END;

CREATE TEMP VIEW stored AS SELECT {", ".join(f"NULL AS {column}" for column in STORED)};
CREATE TEMP TRIGGER store INSTEAD OF INSERT ON stored BEGIN
    INSERT INTO letter VALUES (NEW.key, {RECORD}, {_new(_LETTER[1:])});
    INSERT INTO content VALUES (NEW.key, {RECORD}, {_new(_CONTENT)});
    INSERT INTO recipient VALUES (
        NEW.place, {RECORD}, NEW.local, NEW.domain, NEW.due, 0, '', {_new(_RECIPIENT[4:])}, '', ''
    );
END;

CREATE TEMP VIEW served AS SELECT NULL AS key, NULL AS token;
CREATE TEMP TRIGGER serve INSTEAD OF INSERT ON served BEGIN
    DELETE FROM recipient WHERE key = NEW.key AND token = NEW.token;
    SELECT RAISE(ABORT, 'the claim is not current any more') WHERE changes() <> 1;
    DELETE FROM letter WHERE key = NEW.key >> {PLACES} AND {NOBODY_LEFT};
END;
"""


def prepare(connection: apsw.Connection, unused: Callable[..., None]) -> None:
    """Make them on a connection. `unused` is called with the content file of each letter that goes.

    A letter takes its content, attempts and copies with it from then on. A claim that is not current fails
    the statement with `apsw.ConstraintError`.
    """
    connection.create_scalar_function("unused", unused, 1)
    connection.execute(_SHORTCUTS).close()
