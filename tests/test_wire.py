"""Frames of the local socket, the client's side of it, and the options commands read."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice import wire
from postoffice.config.parser import parse, quote
from postoffice.wire import END, Connection, Decoder, Folder, Refused, WireError
from tests.support import CHECKOUT

objects = st.dictionaries(
    st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())
)


def encoded(frame: Any) -> bytes:
    match frame:
        case dict():
            return wire.encode_json(frame)
        case bytes():
            return wire.encode_content(frame)
    return wire.encode_end()


def decoded(pieces: list[bytes]) -> tuple[list[Any], str]:
    """All frames, and the complaint that ended them."""
    decoder, frames = Decoder(), []
    for piece in pieces:
        try:
            frames.extend(decoder.feed(piece))
        except WireError as error:
            return frames, str(error)
    return frames, ""


class Frames(SynchronousTestCase):
    def bad(self, data: bytes) -> str:
        with self.assertRaises(WireError) as caught:
            Decoder().feed(data)
        return str(caught.exception)

    def test_as_documented(self) -> None:
        self.assertEqual(wire.encode_json({"a": 1}), b'\0\0\0\x08J{"a":1}')
        self.assertEqual(wire.encode_content(b"xyz"), b"\0\0\0\x04Bxyz")
        self.assertEqual(wire.encode_content(b""), b"")
        self.assertEqual(wire.encode_end(), b"\0\0\0\x01E")

    def test_bounds(self) -> None:
        self.assertIn("frame of 0 octets", self.bad(b"\0\0\0\0"))
        self.assertIn("frame of 1048577 octets", self.bad(b"\0\x10\0\1"))
        self.assertIn("frame of 4294967295 octets", self.bad(b"\xff" * 4))
        largest = b"\0\x10\0\0B" + b"x" * (wire.LARGEST - 1)
        self.assertEqual(Decoder().feed(largest), [b"x" * (wire.LARGEST - 1)])
        with self.assertRaises(WireError):
            wire.encode_json({"x": "y" * wire.LARGEST})

    def test_malformed(self) -> None:
        for kind, payload in (
            (b"X", b""), (b"E", b"x"), (b"J", b""), (b"J", b"{"), (b"J", b"[1]"), (b"J", b"1"),
            (b"J", b"\xff"),
            (b"J", b"[" * 100_000), (b"J", b'{"a":' + b"9" * 5000 + b"}"), (b"j", b"{}"),
        ):  # fmt: skip
            self.assertTrue(self.bad((len(payload) + 1).to_bytes(4, "big") + kind + payload))

    @given(
        st.lists(objects | st.binary(min_size=1, max_size=50) | st.just(END), max_size=5),
        st.binary(max_size=9),
    )
    def test_whole_equals_bytewise(self, frames: list[Any], trailing: bytes) -> None:
        data = b"".join(map(encoded, frames))
        self.assertEqual(decoded([data]), (frames, ""))
        self.assertEqual(decoded([bytes([octet]) for octet in data]), (frames, ""))
        whole, complaint = decoded([data + trailing])
        by_octet, same = decoded([bytes([octet]) for octet in data + trailing])
        self.assertEqual(complaint, same)
        self.assertEqual(by_octet[: len(frames)], frames)
        if not complaint:
            self.assertEqual(whole, by_octet)

    @given(st.lists(st.binary(max_size=40)))
    def test_any_octets_give_frames_or_an_error(self, pieces: list[bytes]) -> None:
        frames, _ = decoded(pieces)
        for frame in frames:
            self.assertIsInstance(frame, (dict, bytes, type(None)))

    @given(st.binary(max_size=40))
    def test_any_json_frame(self, payload: bytes) -> None:
        frames, complaint = decoded([(len(payload) + 1).to_bytes(4, "big") + b"J" + payload])
        self.assertEqual(len(frames), 0 if complaint else 1)

    def test_large_content_is_cut(self) -> None:
        content = os.urandom(3 * wire.LARGEST + 5)
        self.assertEqual(b"".join(Decoder().feed(wire.encode_content(content))), content)


class Sockets(SynchronousTestCase):
    """A connection to a listening socket whose answer is written before it is asked for."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(self.listener.close)

    def open(self, path: str) -> tuple[Connection, socket.socket]:
        with Folder(os.path.dirname(path)) as folder:
            self.listener.bind(folder.address(os.path.basename(path)))
        self.listener.listen()
        connection = Connection(path)
        self.addCleanup(connection.__exit__)
        there, _ = self.listener.accept()
        self.addCleanup(there.close)
        return connection, there

    def test_long_path(self) -> None:
        deep = os.path.join(self.folder, *["d" * 60] * 4)
        os.makedirs(deep)
        connection, there = self.open(os.path.join(deep, "control"))
        there.sendall(wire.encode_json({"done": True, "n": 1}))
        self.assertEqual(list(connection.request({"verb": "status"})), [{"done": True, "n": 1}])
        self.assertEqual(Decoder().feed(there.recv(100)), [{"verb": "status"}])

    def test_nothing_there(self) -> None:
        with self.assertRaises(FileNotFoundError):
            Connection(os.path.join(self.folder, "none"))
        with self.assertRaises(FileNotFoundError):
            Connection(os.path.join(self.folder, "x" * 120, "none"))

    def test_entries_then_done(self) -> None:
        connection, there = self.open(os.path.join(self.folder, "c"))
        there.sendall(b"".join(wire.encode_json(one) for one in ({"id": "a"}, {"id": "b"}, {"done": True})))
        self.assertEqual([one.get("id") for one in connection.request({"verb": "list"})], ["a", "b", None])

    def test_submission(self) -> None:
        connection, there = self.open(os.path.join(self.folder, "c"))
        there.sendall(wire.encode_json({"done": True, "id": "x"}))
        self.assertEqual(connection.submit({"verb": "submit"}, [b"a", b"", b"bc"]), {"done": True, "id": "x"})
        self.assertEqual(Decoder().feed(there.recv(1000)), [{"verb": "submit"}, b"a", b"bc", END])

    def test_refused_before_the_end(self) -> None:
        connection, there = self.open(os.path.join(self.folder, "c"))
        there.sendall(wire.encode_json({"error": "no such user", "exit": os.EX_NOUSER}))
        there.close()
        with self.assertRaisesRegex(Refused, "no such user") as caught:
            connection.submit({"verb": "submit"}, [b"x" * 100_000] * 50)
        self.assertEqual(caught.exception.exit_code, os.EX_NOUSER)

    def test_no_answer(self) -> None:
        connection, there = self.open(os.path.join(self.folder, "c"))
        there.shutdown(socket.SHUT_WR)
        with self.assertRaisesRegex(WireError, "without an answer"):
            list(connection.request({"verb": "status"}))

    def test_answer_that_is_none(self) -> None:
        connection, there = self.open(os.path.join(self.folder, "c"))
        there.sendall(wire.encode_end())
        with self.assertRaises(WireError):
            list(connection.request({"verb": "status"}))


class Options(SynchronousTestCase):
    names = ("control", "spool")

    def test_reads_the_last(self) -> None:
        text = 'control=/a\nspool = "/b # c" # d\n#control=/x\nsize=1\ncontrol=/e#f\r\ncontrol="\n'
        self.assertEqual(wire.read_options(text, self.names), {"control": "/e", "spool": "/b # c"})

    lines = st.builds(
        lambda name, value, tail: f"{name}={value}{tail}",
        st.sampled_from(["control", " spool ", "spool#", '"spool"', "other"]),
        st.text(max_size=10).map(quote) | st.text('a/"\\# \t\r=', max_size=12),
        st.sampled_from(["", " # c", '"', "\r"]),
    )

    @given(st.lists(lines | st.text(max_size=15)).map("\n".join))
    def test_agrees_with_the_parser(self, text: str) -> None:
        expected = {
            one.name: one.value
            for one in parse(text, "f").assignments
            if one.name in self.names and not one.bare
        }
        self.assertEqual(wire.read_options(text, self.names), expected)


class Imports(SynchronousTestCase):
    def test_standard_library_only(self) -> None:
        code = (
            "import sys; before = set(sys.modules); import postoffice.wire;"
            "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
        )
        ran = subprocess.run(
            [sys.executable, "-S", "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
        )
        self.assertEqual(set(ran.stdout.split()) - set(sys.stdlib_module_names), {"postoffice"})
