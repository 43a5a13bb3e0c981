"""A mail filter that wants to know everything and has nothing against it: `idle_filter.py SOCKET`.

Standard library only. It suppresses no event and answers each, as a filter on libmilter does that says
nothing of what it needs: a letter costs its server a round trip for every command, field and piece of body.
"""

from __future__ import annotations

import asyncio
import struct
import sys

SILENT = b"DAQ"
CONTINUE = struct.pack(">Ic", 1, b"c")
AGREED = struct.pack(">IcIII", 13, b"O", 6, 0, 0)


class Idle(asyncio.Protocol):
    """Goes on, whatever it is told."""

    def __init__(self) -> None:
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        held, at, answers = self.held + data, 0, b""
        while len(held) - at >= 5:
            (size,) = struct.unpack_from(">I", held, at)
            if len(held) - at < 4 + size:
                break
            command = held[at + 4 : at + 5]
            at += 4 + size
            if command == b"O":
                answers += AGREED
            elif command == b"Q":
                self.transport.close()
            elif command not in SILENT:
                answers += CONTINUE
        self.held = held[at:]
        if answers:
            self.transport.write(answers)


async def main() -> None:
    """Listen until the process is ended."""
    server = await asyncio.get_running_loop().create_unix_server(Idle, sys.argv[1], backlog=1000)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
