"""newaliases, valias and vpasswd: what they ask, what they print, what they keep to themselves."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from typing import Any

import postoffice
from tests.commands.support import CommandCase

# A changed copy, when a seeded defect is tried.
PACKAGE = os.path.dirname(os.path.dirname(postoffice.__file__))
DONE: dict[str, Any] = {"done": True}
BOB = {"verb": "virtual", "domain": "here.example", "user": "bob"}
INFO = {"verb": "virtual", "domain": "here.example", "alias": "info"}
SECRET = "correct hörse"


class Case(CommandCase):
    def asked(
        self,
        *arguments: str,
        answers: tuple[dict[str, Any], ...] = (DONE,),
        given: bytes = b"",
        code: int = 0,
    ) -> tuple[Any, str, str]:
        """The request, and what is printed."""
        service = self.service(*answers)
        status, out, err = self.run_command("-C", self.file, *arguments, given=given)
        service.stop()
        os.unlink(self.control)
        self.assertEqual(status, code, err)
        (request,) = service.heard
        return request, out, err

    def refused(self, *arguments: str, code: int = os.EX_USAGE, given: bytes = b"") -> str:
        """What is said on standard error; nobody is asked."""
        status, out, err = self.run_command("-C", self.file, *arguments, given=given)
        self.assertEqual((status, out), (code, ""), err)
        return err

    def helped(self) -> None:
        code, out, _ = self.run_command("--help")
        self.assertEqual(code, 0)
        self.assertIn(f"{self.module.rpartition('.')[2]} [-C FILE]", out)

    def down(self, *arguments: str) -> None:
        """Root's configuration names an account there is not; anybody else's one that is not theirs."""
        with open(self.file, "a") as file:
            file.write("user=no-such-user\n")
        err = self.refused(*arguments, code=os.EX_CONFIG)
        self.assertIn("the service is not running; ", err)


class NewAliases(Case):
    module = "postoffice.commands.newaliases"

    def test_help(self) -> None:
        self.helped()

    def test_service_down_and_no_account(self) -> None:
        self.down()

    def summary(self, **what: Any) -> dict[str, Any]:
        lists: dict[str, Any] = {"mistakes": [], "warnings": []}
        return {"file": "/etc/aliases", "aliases": 2, "longest": 17, "total": 36, "twice": []} | lists | what

    def test_the_line_that_scripts_know(self) -> None:
        for what, line in (
            ({}, "2 aliases, longest is 17 bytes, 36 bytes total."),
            ({"longest": 1, "total": 9}, "2 aliases, longest is 1 byte, 9 bytes total."),
            ({"aliases": 1}, "1 alias, 36 bytes total."),
            ({"aliases": 1, "total": 1}, "1 alias, 1 byte total."),
            ({"aliases": 0, "total": 0}, "0 aliases, 0 bytes total."),
        ):
            request, out, err = self.asked(answers=(self.summary(**what), DONE))
            self.assertEqual(request, {"verb": "newaliases", "domains": [None]})
            self.assertEqual((out, err), ("", f"/etc/aliases: {line}\n"))

    def test_mistakes_do_not_hide_others(self) -> None:
        answers = (
            self.summary(twice=[[4, "x"]]),
            {"problem": "/v/b/aliases:3: what", "exit": os.EX_DATAERR},
            {"problem": "c: no virtual domain", "exit": os.EX_NOHOST},
            self.summary(file="/v/d/aliases"),
            DONE,
        )
        request, _, err = self.asked("a", "b", "c", "d", answers=answers, code=os.EX_DATAERR)
        self.assertEqual(request["domains"], ["a", "b", "c", "d"])
        warning, _, *problems, last = err.splitlines()
        self.assertEqual(
            warning,
            "newaliases: warning: /etc/aliases:4: the alias x is given twice; the first one counts",
        )
        self.assertEqual(problems, ["newaliases: /v/b/aliases:3: what", "newaliases: c: no virtual domain"])
        self.assertTrue(last.startswith("/v/d/aliases: 2 aliases"))

    def test_lists(self) -> None:
        answer = self.summary(mistakes=["/l:3: what"], warnings=["/etc/aliases:2: /l2: why"])
        _, _, err = self.asked(answers=(answer, DONE), code=os.EX_DATAERR)
        warning, mistake, last = err.splitlines()
        self.assertEqual(warning, "newaliases: warning: /etc/aliases:2: /l2: why")
        self.assertEqual(mistake, "newaliases: /l:3: what")
        self.assertTrue(last.startswith("/etc/aliases: 2 aliases"))
        self.asked(answers=(self.summary(warnings=["x"]), DONE), code=os.EX_OK)

    def test_refused(self) -> None:
        self.assertIn("unknown flag", self.refused("-x"))
        _, _, err = self.asked(answers=({"error": "no", "exit": 77},), code=77)
        self.assertEqual(err, "newaliases: no\n")


class OldName(Case):
    """`postoffice -bi`."""

    module = "postoffice.commands.postoffice"

    def test_service_down_and_no_account(self) -> None:
        self.down("-bi")

    def test_the_same_request(self) -> None:
        problem = {"problem": "x:1: y", "exit": os.EX_DATAERR}
        request, _, err = self.asked("-bi", "here.example", answers=(problem, DONE), code=os.EX_DATAERR)
        self.assertEqual(request, {"verb": "newaliases", "domains": ["here.example"]})
        self.assertEqual(err, "postoffice: x:1: y\n")
        self.assertEqual(self.asked("-bi")[0]["domains"], [None])


class Valias(Case):
    module = "postoffice.commands.valias"

    def test_help(self) -> None:
        self.helped()

    def test_service_down_and_no_account(self) -> None:
        self.down("here.example")

    def test_list(self) -> None:
        listing = {"verb": "virtual", "domain": "here.example", "do": "aliases"}
        answers = {"alias": "Info", "targets": "a, b"}, {"alias": "*", "targets": "*@x\x1b"}, DONE
        request, out, _ = self.asked("here.example", answers=answers)
        self.assertEqual((request, out), (listing, "Info: a, b\n*: *@x?\n"))
        request, out, _ = self.asked("info@here.example", answers=answers)
        self.assertEqual((request, out), (listing, "Info: a, b\n"))
        _, _, err = self.asked("no@here.example", answers=answers, code=os.EX_NOUSER)
        self.assertEqual(err, "valias: there is no alias no\n")

    def test_set_and_remove(self) -> None:
        for words, wanted in (
            (["info@here.example", "a", "b, c"], {"do": "set-alias", "targets": ["a", "b, c"]}),
            (["-d", "info@here.example"], {"do": "remove-alias"}),
        ):
            self.assertEqual(self.asked(*words), (INFO | wanted, "", ""))

    def test_what_is_not_understood(self) -> None:
        for words in (
            [],
            ["-d"],
            ["-d", "a@b", "c"],
            ["-d", "a"],
            ["a", "b"],
            ["@b", "c"],
            ["a@", "c"],
            ["-x"],
        ):
            self.refused(*words)


class Vpasswd(Case):
    module = "postoffice.commands.vpasswd"

    def test_help(self) -> None:
        self.helped()

    def test_service_down_and_no_account(self) -> None:
        self.down("-l", "here.example")

    def test_list(self) -> None:
        answers = {"user": "ann", "login": True}, {"user": "bob", "login": False}, DONE
        request, out, _ = self.asked("-l", "here.example", answers=answers)
        self.assertEqual(request, {"verb": "virtual", "domain": "here.example", "do": "users"})
        self.assertEqual(out, "ann\nbob\t(cannot log in)\n")

    def test_from_standard_input(self) -> None:
        wanted = BOB | {"do": "set-password", "password": SECRET}
        for given in (f"{SECRET}\n", SECRET, f"{SECRET}\r\n", f"{SECRET}\nmore\n"):
            request, out, err = self.asked("--stdin", "bob@here.example", given=given.encode())
            self.assertEqual((request, out, err), (wanted | {"new": False}, "", ""))
        request, _, _ = self.asked("-a", "bob@here.example", "--stdin", given=SECRET.encode())
        self.assertEqual(request, wanted | {"new": True})
        err = self.refused("--stdin", "bob@here.example", given=b"caf\xe9\n", code=os.EX_DATAERR)
        self.assertEqual(err, "vpasswd: the password is not UTF-8\n")

    def test_remove(self) -> None:
        self.assertEqual(self.asked("-d", "bob@here.example"), (BOB | {"do": "remove-user"}, "", ""))

    def test_what_is_not_understood(self) -> None:
        for words in ([], ["a@b", "c@d"], ["-ad", "a@b"], ["-l"], ["a"], ["-d", "@b"], ["-x", "a@b"]):
            self.refused(*words)

    def terminal(self, *typed: str) -> tuple[int, str]:
        """Exit code and what the terminal shows of a session in which this is typed, each at a question."""
        pid, terminal = pty.fork()
        if pid == 0:
            words = [sys.executable, "-m", self.module, "-C", self.file, "bob@here.example"]
            os.chdir("/")
            os.execve(sys.executable, words, dict(os.environ) | {"LC_ALL": "C.UTF-8", "PYTHONPATH": PACKAGE})
        shown = b""
        waiting = list(typed)
        bound = time.monotonic() + 60
        try:
            while time.monotonic() < bound and select.select([terminal], [], [], 60)[0]:
                try:
                    data = os.read(terminal, 4096)
                except OSError:
                    break
                shown += data
                if shown.endswith(b": ") and waiting:
                    os.write(terminal, waiting.pop(0).encode() + b"\n")
        finally:
            os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()

    def test_D6_a_terminal_shows_no_password(self) -> None:
        service = self.service(DONE)
        code, shown = self.terminal(SECRET, SECRET)
        service.stop()
        self.assertEqual(code, 0, shown)
        wanted = BOB | {"do": "set-password", "password": SECRET, "new": False}
        self.assertEqual(service.heard, [wanted])
        self.assertIn("New password of bob@here.example: ", shown)
        self.assertNotIn(SECRET, shown)

    def test_it_has_to_be_typed_twice(self) -> None:
        code, shown = self.terminal(SECRET, SECRET + "x")
        self.assertEqual(code, os.EX_DATAERR)
        self.assertIn("vpasswd: the two are not the same", shown)
        self.assertNotIn(SECRET, shown)

    def test_without_a_terminal(self) -> None:
        process = self.start("-C", self.file, "bob@here.example", start_new_session=True)
        _, err = process.communicate(SECRET.encode(), timeout=60)
        self.assertEqual(process.returncode, os.EX_USAGE)
        self.assertEqual(err, b"vpasswd: there is no terminal to ask for the password; use --stdin\n")
