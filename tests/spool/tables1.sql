-- A spool with tables of version 1 and a small letter, as the first program to have one left it.
PRAGMA page_size = 4096;
BEGIN;
CREATE TABLE letter (
    key INTEGER PRIMARY KEY, version INTEGER NOT NULL, id TEXT NOT NULL UNIQUE,
    sender_local TEXT, sender_domain TEXT, body TEXT NOT NULL, size INTEGER NOT NULL,
    received REAL NOT NULL, client TEXT NOT NULL, held INTEGER NOT NULL, file TEXT
) STRICT;
CREATE TABLE content (
    key INTEGER PRIMARY KEY, version INTEGER NOT NULL, checksum INTEGER NOT NULL, data BLOB NOT NULL
) STRICT;
CREATE TABLE recipient (
    key INTEGER PRIMARY KEY, version INTEGER NOT NULL, local TEXT NOT NULL, domain TEXT NOT NULL,
    due REAL NOT NULL, attempts INTEGER NOT NULL, last TEXT NOT NULL, held INTEGER NOT NULL,
    ready REAL NOT NULL, node INTEGER, token INTEGER
) STRICT;
CREATE INDEX ready ON recipient (ready) WHERE held = 0;
CREATE TABLE attempt (
    letter INTEGER NOT NULL, number INTEGER NOT NULL, version INTEGER NOT NULL, at REAL NOT NULL,
    local TEXT NOT NULL, domain TEXT NOT NULL, reply TEXT NOT NULL, PRIMARY KEY (letter, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE node (
    key INTEGER PRIMARY KEY, version INTEGER NOT NULL, name TEXT NOT NULL UNIQUE, incarnation INTEGER NOT NULL
) STRICT;
INSERT INTO node VALUES (1, 1, 'here', 3);
INSERT INTO letter VALUES
    (7, 1, 'EARLY23456', 'ann', 'example.net', '8BITMIME', 22, 1600000000.0, '[192.0.2.1]', 0, NULL);
INSERT INTO content VALUES (7, 1, 1348497814, x'5375626A6563743A206F6E650D0A0D0A4C696E650D0A');
INSERT INTO recipient VALUES
    (7340032, 1, 'bob', 'example.net', 1600000900.0, 2, '450 4.2.0 later', 0, 1600000900.0, 1, 99);
INSERT INTO letter VALUES
    (8, 1, 'HELD234567', 'ann', 'example.net', '7BIT', 4, 1600000001.0, '[192.0.2.1]', 1, NULL);
INSERT INTO content VALUES (8, 1, 3632233996, x'74657374');
INSERT INTO recipient VALUES (8388608, 1, 'bob', 'example.net', 1600000001.0, 0, '', 1, 1600000001.0, NULL, NULL);
INSERT INTO attempt VALUES (7, 1, 1, 1600000000.0, 'bob', 'example.net', '450 4.2.0 later');
PRAGMA application_id = 1349481332;
PRAGMA user_version = 1;
COMMIT;
PRAGMA journal_mode = WAL;
