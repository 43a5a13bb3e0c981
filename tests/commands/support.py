"""A service that answers one request with what it is told, and commands run against it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from postoffice import wire
from tests.support import CHECKOUT


class Service:
    """Listens in a thread; `heard` are the frames of the request."""

    def __init__(self, path: str, answers: list[dict[str, Any] | bytes]) -> None:
        self.answers = answers
        self.heard: list[Any] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with wire.Folder(os.path.dirname(path)) as folder:
            self._socket.bind(folder.address(os.path.basename(path)))
        self._socket.listen()
        self._socket.settimeout(30)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        connection.settimeout(30)
        decoder = wire.Decoder()
        with connection:
            while not self._complete():
                data = connection.recv(65536)
                if not data:
                    return
                self.heard.extend(decoder.feed(data))
            for answer in self.answers:
                encode = wire.encode_content if isinstance(answer, bytes) else wire.encode_json
                connection.sendall(encode(answer))

    def _complete(self) -> bool:
        return bool(self.heard) and (self.heard[0]["verb"] != "submit" or self.heard[-1] is wire.END)

    def stop(self) -> None:
        self._thread.join()
        self._socket.close()


class CommandCase(SynchronousTestCase):
    module: str

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.file = os.path.join(self.folder, "x.cf")
        self.control = os.path.join(self.folder, "control")
        with open(self.file, "w") as file:
            file.write(f"control={self.control}\n")

    def service(self, *answers: dict[str, Any] | bytes) -> Service:
        service = Service(self.control, list(answers))
        self.addCleanup(service.stop)
        return service

    def start(self, *arguments: str, **how: Any) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", self.module, *arguments]
        how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
        environment = dict(os.environ) | {"TZ": "UTC0", "LC_ALL": "C.UTF-8"}
        return subprocess.Popen(words, cwd=CHECKOUT, env=environment, **how)

    def run_command(self, *arguments: str, given: bytes = b"") -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        process = self.start(*arguments)
        out, err = process.communicate(given, timeout=60)
        return process.returncode, out.decode(), err.decode()
