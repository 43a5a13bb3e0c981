"""A client for the benchmark of TLS: sessions with STARTTLS, and letters inside them.

Run as `python bench/tls_source.py PORT --count N [--sessions S] [--letters L] [--resume]`, since smtp-source
has learned TLS only in Postfix 3.10. Each of S threads holds one session after another until N
were begun: EHLO, STARTTLS, EHLO, then L letters, QUIT. With --resume a session shows the ticket of the one
before it in the same thread. Prints one JSON object: `seconds`, `sessions`, `resumed` (by the word of the TLS
library), `letters`, `failed`. Nobody's certificate is verified.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator

HOST = "127.0.0.1"
PATIENCE = 30.0


class Refused(Exception):
    """The server said something else than it should."""


class Client:
    """The sessions of one thread."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._ticket: ssl.SSLSession | None = None
        line = b"0123456789" * 7 + b"\r\n"
        body = line * (options.size // len(line) + 1)
        self._letter = b"Subject: a letter\r\n\r\n" + body[: options.size - 22] + b"\r\n.\r\n"
        self.resumed = self.letters = self.sessions = 0

    def session(self) -> None:
        """Hold one. Errors: OSError, `Refused`."""
        with socket.create_connection((HOST, self._options.port), PATIENCE) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._expect(plain, b"220")
            self._ask(plain, b"EHLO bench.test\r\n", b"250")
            self._ask(plain, b"STARTTLS\r\n", b"220")
            ticket = self._ticket if self._options.resume else None
            with self._context.wrap_socket(plain, server_hostname="bench.test", session=ticket) as secure:
                self._ask(secure, b"EHLO bench.test\r\n", b"250")
                self.resumed += bool(secure.session_reused)
                for _ in range(self._options.letters):
                    self._ask(secure, b"MAIL FROM:<from@bench.test>\r\n", b"250")
                    self._ask(secure, b"RCPT TO:<rcpt@sink.localhost>\r\n", b"250")
                    self._ask(secure, b"DATA\r\n", b"354")
                    self._ask(secure, self._letter, b"250")
                    self.letters += 1
                # With TLS 1.3 it came behind the handshake.
                self._ticket = secure.session
                self._ask(secure, b"QUIT\r\n", b"221")
        self.sessions += 1

    def _ask(self, connection: socket.socket, data: bytes, code: bytes) -> None:
        connection.sendall(data)
        self._expect(connection, code)

    def _expect(self, connection: socket.socket, code: bytes) -> None:
        reply = b""
        while not reply.endswith(b"\n") or reply[reply.rfind(b"\n", 0, -1) + 1 :][3:4] == b"-":
            data = connection.recv(4096)
            if not data:
                raise Refused("the server closed")
            reply += data
        if not reply.startswith(code):
            raise Refused(reply.decode("latin-1"))


def main() -> int:
    """Hold the sessions and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--count", type=int, required=True, help="sessions in all")
    parser.add_argument("--sessions", type=int, default=10, help="sessions at once")
    parser.add_argument("--letters", type=int, default=0, help="letters a session")
    parser.add_argument("--size", type=int, default=4096, help="octets of a letter")
    parser.add_argument("--resume", action="store_true", help="show tickets")
    options = parser.parse_args()
    clients = [Client(options) for _ in range(options.sessions)]
    turns: Iterator[int] = iter(range(options.count))
    lock = threading.Lock()
    failed: list[str] = []

    def work(client: Client) -> None:
        while True:
            with lock:
                if next(turns, None) is None or failed:
                    return
            try:
                client.session()
            except (OSError, Refused) as error:
                failed.append(str(error))

    threads = [threading.Thread(target=work, args=[client]) for client in clients]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result = {
        "seconds": time.monotonic() - began,
        "sessions": sum(client.sessions for client in clients),
        "resumed": sum(client.resumed for client in clients),
        "letters": sum(client.letters for client in clients),
        "failed": failed[:1],
    }
    print(json.dumps(result))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
