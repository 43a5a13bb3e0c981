"""Dovecot: mailboxes over IMAP, and letters for them by LMTP."""

from __future__ import annotations

import imaplib
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.peers.peer import HOST, Peer, passable
from tests.support import need, need_root, program

PASSWORD = "secret"

_CONFIGURATION = """
base_dir = {place}/run
state_dir = {place}/state
log_path = {place}/dovecot.log
protocols = imap lmtp
ssl = no
listen = {host}
disable_plaintext_auth = no
auth_mechanisms = plain
first_valid_uid = 1
first_valid_gid = 1
default_vsz_limit = 0
mail_location = {location}
lda_mailbox_autocreate = yes
recipient_delimiter = +
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={place}/homes/%d/%n allow_all_users=yes
}}
service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service lmtp {{
  unix_listener {place}/lmtp {{
    mode = 0666
  }}
}}
"""


class Dovecot(Peer):
    """Dovecot in `directory`: IMAP on `port`, LMTP on the socket `lmtp` there.

    `location` is its `mail_location`, whose files belong to `uid` and `gid`. Everybody's password is
    `PASSWORD`.
    """

    def __init__(self, directory: Path, port: int, location: str, uid: int, gid: int) -> None:
        need_root()
        need("dovecot")
        super().__init__(passable(directory), port)
        self.lmtp = self.directory / "lmtp"
        self._config = self.directory / "dovecot.conf"
        self._config.write_text(
            _CONFIGURATION.format(
                place=self.directory,
                host=HOST,
                port=port,
                location=location,
                uid=uid,
                gid=gid,
                password=PASSWORD,
            )
        )
        self.start()

    def command(self) -> Sequence[str | Path]:
        return [program("dovecot"), "-F", "-c", self._config]

    def ready(self) -> bool:
        """Greets on its port, and the socket is there."""
        try:
            with socket.create_connection((HOST, self.port), timeout=5) as connection:
                return connection.recv(100).startswith(b"* OK") and self.lmtp.exists()
        except OSError:
            return False

    def log(self) -> str:
        path = self.directory / "dovecot.log"
        return super().log() + (path.read_text(errors="replace") if path.exists() else "")

    def letters(self, user: str, folder: str = "INBOX") -> list[bytes]:
        """The letters in a folder, as an IMAP client gets them."""
        with imaplib.IMAP4(HOST, self.port, timeout=30) as client:
            client.login(user, PASSWORD)
            status, _ = client.select(folder, readonly=True)
            if status != "OK":
                return []
            _, found = client.search(None, "ALL")
            letters: list[bytes] = []
            for number in found[0].split():
                _, parts = client.fetch(number.decode(), "(BODY.PEEK[])")
                assert isinstance(parts[0], tuple)
                letters.append(parts[0][1])
            return letters
