"""The requests about virtual domains: who may ask, what is believed, what is answered and noted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from postoffice import wire
from postoffice.mail.virtual import VirtualDomain
from postoffice.server.office import NotDone
from postoffice.server.virtual import Asker, answer
from tests.doubles import MemoryVirtualFiles

SECRET = "correct horse"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.files = MemoryVirtualFiles(
            VirtualDomain("here.example", "tim", active=True),
            VirtualDomain("xn--bcher-kva.example", "ann", active=True),
            VirtualDomain("nobodys.example", "", active=True),
        )
        self.files.passwords["here.example"] = {"bob": b"x", "eve": b"*"}
        self.noted: list[str] = []
        self.frames: list[Any] = []
        self.who("tim")

    def who(self, account: str | None, administrator: bool = False) -> None:
        self.asker = Asker(account, administrator, self.noted.append)

    async def write(self, frames: Iterator[bytes]) -> None:
        self.frames.extend(wire.Decoder().feed(b"".join(frames)))

    def begin(self, request: dict[str, Any]) -> Deferred[Any]:
        self.frames.clear()
        return Deferred.fromCoroutine(answer(request, self.files, self.asker, self.write))

    def ask(self, do: str, domain: str = "here.example", **more: Any) -> list[Any]:
        """What comes before the end of the answer."""
        last = self.successResultOf(self.begin({"verb": "virtual", "do": do, "domain": domain} | more))
        self.assertEqual(last, {"done": True})
        return list(self.frames)

    def refused(self, code: int, do: str, domain: str = "here.example", **more: Any) -> str:
        request = {"verb": "virtual", "do": do, "domain": domain} | more
        error = self.failureResultOf(self.begin(request), NotDone).value
        self.assertEqual(error.exit_code, code, error)
        return str(error)


class Rights(Case):
    def test_D5_only_the_owner_and_administrators(self) -> None:
        for account, administrator, may in (
            ("tim", False, True),
            ("root", True, True),
            (None, True, True),
            ("ann", False, False),
            ("Tim", False, False),
            ("", False, False),
            (None, False, False),
        ):
            self.who(account, administrator)
            requests: list[tuple[str, dict[str, Any]]] = [
                ("users", {}),
                ("set-password", {"user": "bob", "password": "x"}),
                ("set-password", {"user": "new", "password": "x", "new": True}),
                ("remove-user", {"user": "new"}),
                ("aliases", {}),
                ("set-alias", {"alias": "info", "targets": ["bob"]}),
                ("remove-alias", {"alias": "info"}),
            ]
            for do, more in requests:
                if may:
                    self.ask(do, **more)
                else:
                    self.refused(os.EX_NOPERM, do, **more)

    def test_D5_a_domain_without_owner_is_nobodys(self) -> None:
        for account in ("", None):
            self.who(account)
            self.refused(os.EX_NOPERM, "users", "nobodys.example")

    def test_D5_strangers_do_not_learn_which_domains_there_are(self) -> None:
        texts = {
            self.refused(os.EX_NOPERM, "users", name) for name in ("no.example", "nobodys.example", "a b")
        }
        self.assertEqual(len(texts), 1)
        self.who("root", administrator=True)
        self.assertIn("no.example: no virtual domain", self.refused(os.EX_NOHOST, "users", "no.example"))
        self.refused(os.EX_NOHOST, "users", "../../etc")
        self.refused(os.EX_NOHOST, "users", "\ud800")

    def test_domains_in_any_script(self) -> None:
        self.who("ann")
        self.ask("set-alias", "bücher.example", alias="x", targets=["y"])
        self.assertEqual(self.files.names["xn--bcher-kva.example"], {"x": "y"})


class Doing(Case):
    def test_users(self) -> None:
        self.assertEqual(self.ask("users"), [{"user": "bob", "login": True}, {"user": "eve", "login": False}])
        self.ask("set-password", user="bob", password="é")
        self.ask("set-password", user="new", password="x", new=True)
        self.ask("remove-user", user="eve")
        self.assertEqual(self.files.passwords["here.example"], {"bob": "é".encode(), "new": b"x"})
        self.assertEqual(
            self.noted,
            ["set the password of bob@here.example", "added new@here.example", "removed eve@here.example"],
        )

    def test_aliases(self) -> None:
        self.ask("set-alias", alias="info", targets=["a", "b"])
        self.assertEqual(self.ask("aliases"), [{"alias": "info", "targets": "a, b"}])
        self.ask("remove-alias", alias="info")
        self.assertEqual(self.ask("aliases"), [])
        self.assertEqual(
            self.noted, ["set the alias info@here.example", "removed the alias info@here.example"]
        )

    def test_what_is_declined(self) -> None:
        self.assertEqual(
            self.refused(os.EX_NOUSER, "set-password", user="no", password="x"), "no user, or one already"
        )
        self.assertEqual(self.noted, [])

    def test_passwords_that_nobody_could_log_in_with(self) -> None:
        for password in ("", "x" * 256, "é" * 128, "a\nb", "a\rb", "a\0b", "\ud800"):
            self.refused(os.EX_DATAERR, "set-password", user="bob", password=password)
        self.ask("set-password", user="bob", password="x" * 255)

    def test_D6_no_password_is_shown(self) -> None:
        self.ask("set-password", user="bob", password=SECRET)
        told = [
            *self.noted,
            self.refused(os.EX_NOUSER, "set-password", user="no", password=SECRET),
            self.refused(os.EX_DATAERR, "set-password", user="no", password=SECRET + "\n"),
            self.refused(os.EX_DATAERR, "set-password", user="no", password=SECRET * 30),
        ]
        self.assertNotIn(SECRET, " ".join(told))

    def test_summaries(self) -> None:
        request = {"verb": "newaliases", "domains": ["here.example", "nobodys.example", None]}
        self.assertEqual(self.successResultOf(self.begin(request)), {"done": True})
        first, *others = self.frames
        self.assertEqual(
            first,
            {
                "file": "aliases of here.example",
                "aliases": 0,
                "longest": 0,
                "total": 0,
                "twice": [[3, "x"]],
                "mistakes": [],
                "warnings": [],
            },
        )
        self.assertEqual([other["exit"] for other in others], [os.EX_NOPERM] * 2)
        self.who("root", administrator=True)
        self.successResultOf(self.begin(request | {"domains": [None, "no.example"]}))
        self.assertEqual([frame["exit"] for frame in self.frames], [os.EX_NOINPUT, os.EX_NOHOST])

    def test_D5_what_is_not_understood(self) -> None:
        good: dict[str, Any] = {"verb": "virtual", "domain": "here.example"}
        for request in (
            {"verb": "virtual"},
            {"verb": "virtual", "domain": 5, "do": "users"},
            good,
            good | {"do": "burn"},
            good | {"do": "set-password", "user": "bob"},
            good | {"do": "set-password", "user": ["bob"], "password": "x"},
            good | {"do": "set-password", "user": "bob", "password": 5},
            good | {"do": "set-alias", "alias": "x", "targets": "y"},
            good | {"do": "set-alias", "alias": "x", "targets": [None]},
            {"verb": "newaliases"},
            {"verb": "newaliases", "domains": [5]},
        ):
            self.failureResultOf(self.begin(request), wire.WireError)
        self.assertEqual(self.noted, [])
