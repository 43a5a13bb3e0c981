"""Filters that sign letters and verify signatures: OpenDKIM and dkimpy-milter, and keys for them."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from attrs import frozen
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.peers.filters.milter import Milter
from tests.peers.peer import HOST
from tests.support import SYSTEM_PYTHON, need_module, program


@frozen
class Key:
    """A domain's key: what signs, and what the domain publishes about it."""

    domain: str
    selector: str
    private: str
    record: str

    @classmethod
    def make(cls, domain: str, selector: str = "s1") -> Self:
        """A new key of 2048 bits."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        record = f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"
        return cls(domain, selector, private.decode(), record)

    @property
    def name(self) -> str:
        """Where the record is published."""
        return f"{self.selector}._domainkey.{self.domain}"


def verified(letter: bytes, *keys: Key) -> list[bool]:
    """Of each signature of a letter, the uppermost first, whether dkimpy finds it good; of CRLF line ends."""
    need_module("dkim", "python3-dkim")
    records = json.dumps({f"{key.name}.": key.record for key in keys})
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", _VERIFY, records], input=letter, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    results: list[bool] = json.loads(done.stdout)
    return results


_VERIFY = """
import dkim, json, sys
records = json.loads(sys.argv[1])
letter = sys.stdin.buffer.read()
look_up = lambda name, timeout=5: records.get(name.decode(), "").encode()
count = sum(name.lower() == b"dkim-signature" for name, _ in dkim.DKIM(letter).headers)
print(json.dumps([bool(dkim.DKIM(letter).verify(at, dnsfunc=look_up)) for at in range(count)]))
"""


class OpenDkim(Milter):
    """OpenDKIM: signs for the domain of `key` what comes from `internal`, and verifies by the `known` keys.

    `lines` are added to its configuration. Without a `key` it only verifies.
    """

    def __init__(
        self,
        directory: Path,
        key: Key | None = None,
        *,
        known: Sequence[Key] = (),
        internal: str = HOST,
        lines: Iterable[str] = (),
    ) -> None:
        self._program = program("opendkim")
        super().__init__(directory)
        records = [f"{each.name} {each.record}" for each in (*known, *([key] if key else []))]
        config = [
            f"Socket local:{self.socket}",
            f"Mode {'sv' if key else 'v'}",
            "UMask 000",
            "RequireSafeKeys false",
            "OversignHeaders From",
            f"InternalHosts {internal}",
            f"TestDNSData {self.write('records', records)}",
            "Syslog no",
            *lines,
        ]
        if key:
            private = self.write("private", key.private.splitlines())
            private.chmod(0o600)
            config += [f"Domain {key.domain}", f"Selector {key.selector}", f"KeyFile {private}"]
        self.write("opendkim.conf", config)
        self.start()

    def command(self) -> Sequence[str | Path]:
        """In the foreground."""
        return [self._program, "-f", "-x", self.directory / "opendkim.conf"]


class DkimpyMilter(Milter):
    """dkimpy-milter, which signs for the domain of `key` what comes from 127.0.0.1."""

    def __init__(self, directory: Path, key: Key) -> None:
        self._program = program("dkimpy-milter")
        super().__init__(directory)
        private = self.write("private", key.private.splitlines())
        private.chmod(0o600)
        config = [
            f"Socket local:{self.socket}",
            "Syslog no",
            "UMask 000",
            "Mode s",
            "Canonicalization simple/simple",
            f"Domain {key.domain}",
            f"Selector {key.selector}",
            f"KeyFile {private}",
            f"InternalHosts {HOST}",
        ]
        self.write("dkimpy-milter.conf", config)
        self.start()

    def command(self) -> Sequence[str | Path]:
        """By Debian's Python, with sockets that everybody may use."""
        return self.opened(SYSTEM_PYTHON, self._program, self.directory / "dkimpy-milter.conf")
