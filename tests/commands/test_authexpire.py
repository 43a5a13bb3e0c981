"""authexpire and postoffice greylist: what they ask, what they print."""

from __future__ import annotations

import os
import pty
from typing import Any

from postoffice.commands.greylist import table
from tests.commands.support import CommandCase

RECORDS: tuple[dict[str, Any], ...] = (
    {"record": "alice@[192.0.2.1]", "accepted": 1_700_000_000, "seen": 1_700_003_600},
    {"record": "waiting@[192.0.2.1]", "accepted": 1_700_003_600, "seen": 1_700_000_000},
    {"record": "a-very-long-name-indeed@[2001:db8::1]", "accepted": None, "seen": 1_700_000_000},
)
LISTING = """\
alice@[192.0.2.1]\t<22:13 14 Nov 2023> #<23:13 14 Nov 2023>
waiting@[192.0.2.1]\t<23:13 14 Nov 2023>  <22:13 14 Nov 2023>
a-very-long-name-indeed@[2001:db8::1]\t**** forbidden ****  <22:13 14 Nov 2023>
"""
DONE = {"done": True}
EXPIRE = {"verb": "greylist", "do": "expire", "age": 14 * 86400, "forbidden": False, "null": False}
EXPIRE |= {"unused": False, "dry": False}


class Both(CommandCase):
    """What the old command and the new one share; `words` are those of the new one."""

    def asked(self, *arguments: str, answers: tuple[dict[str, Any], ...] = (DONE,)) -> tuple[Any, str]:
        """The request, and what is printed."""
        service = self.service(*answers)
        code, out, err = self.run_command("-C", self.file, *arguments)
        self.assertEqual((code, err), (0, ""))
        (request,) = service.heard
        return request, out

    def refused(self, *arguments: str, code: int = os.EX_USAGE) -> str:
        """What is said on standard error."""
        status, out, err = self.run_command("-C", self.file, *arguments)
        self.assertEqual((status, out), (code, ""), err)
        return err


class Old(Both):
    module = "postoffice.commands.authexpire"

    def test_expire(self) -> None:
        for arguments, wanted in [
            ([], {}),
            (["-E", "60"], {"forbidden": True, "age": 60}),
            (["-uz", "2w"], {"unused": True, "null": True, "age": 14 * 86400}),
            (["-Eznuw", "3H"], {"forbidden": True, "null": True, "dry": True, "unused": True, "age": 10800}),
            (["1m"], {"age": 60}),
        ]:
            with self.subTest(arguments):
                answer = {"done": True, "records": 7, "expired": 3}
                request, out = self.asked(*arguments, answers=(answer,))
                self.assertEqual((request, out), (EXPIRE | wanted, ""))
                os.unlink(self.control)

    def test_what_goes_is_told_when_asked_for(self) -> None:
        answers = ({"record": "a@b.example"}, {"done": True, "records": 7, "expired": 1})
        for flags, text in [
            ("-v", "delete [a@b.example]\n6 records; expired 1.\n"),
            ("-n", "delete [a@b.example]\n"),
            ("-nv", "delete [a@b.example]\n7 records; expired 1.\n"),
            ("-E", ""),
        ]:
            self.assertEqual(self.asked(flags, answers=answers)[1], text)
            os.unlink(self.control)
        answers = ({"done": True, "records": 2, "expired": 1},)
        self.assertEqual(self.asked("-v", answers=answers)[1], "1 record; expired 1.\n")

    def test_bad_ages(self) -> None:
        for age in ("0", "x", "5y", "d", "-1", "1.5d", "\u0663d", ""):
            self.assertIn("bad expire interval" if age != "-1" else "unknown flag", self.refused(age))
        self.assertIn("at least 60 seconds", self.refused("59"))
        self.assertIn("one age is enough", self.refused("60", "61"))
        self.assertIn("unknown flag -q", self.refused("-q"))

    def test_approve_and_forbid(self) -> None:
        for flag, verb in (("-a", "approve"), ("-b", "forbid"), ("-d", "forbid")):
            request, out = self.asked(flag, "<>@[192.0.2.1]")
            self.assertEqual(request, {"verb": "greylist", "do": verb, "record": "<>@[192.0.2.1]"})
            self.assertEqual(out, "")
            os.unlink(self.control)
        self.assertIn("go alone", self.refused("-a", "x@y.example", "14d"))
        self.assertIn("go alone", self.refused("-a", "x@y.example", "-d", "z@y.example"))

    def test_list(self) -> None:
        for arguments in (["-l"], ["-lw"], ["-l", "14d"]):
            request, out = self.asked(*arguments, answers=(*RECORDS, DONE))
            self.assertEqual(request, {"verb": "greylist", "do": "list"})
            self.assertEqual(out, LISTING)
            os.unlink(self.control)

    def test_a_terminal_gets_80_columns_unless_it_wants_all(self) -> None:
        lines = list(table(RECORDS, cut=True))
        self.assertEqual({len(line.expandtabs()) for line in lines}, {72})
        self.assertTrue(lines[2].startswith("a-very-long-name-indeed@[2001:d\t"))
        for flags, wide in (("-l", False), ("-lw", True)):
            ours, theirs = pty.openpty()
            service = self.service(*RECORDS, DONE)
            process = self.start("-C", self.file, flags, stdout=theirs)
            process.communicate(timeout=60)
            os.close(theirs)
            shown = os.read(ours, 10_000).decode()
            os.close(ours)
            self.assertEqual("[2001:db8::1]" in shown, wide)
            service.stop()
            os.unlink(self.control)

    def test_refused(self) -> None:
        self.service({"error": "only root may", "exit": os.EX_NOPERM})
        self.assertEqual(self.refused("-l", code=os.EX_NOPERM), "authexpire: only root may\n")

    def test_help(self) -> None:
        code, out, _ = self.run_command("--help")
        self.assertEqual(code, 0)
        self.assertIn("authexpire [-C FILE] -l [-w]", out)

    def test_nobody_to_ask_and_no_spool(self) -> None:
        with open(self.file, "a") as file:
            file.write(f"spool={self.folder}/nowhere\n" + ("user=nobody\n" if os.geteuid() == 0 else ""))
        err = self.refused("-l", code=os.EX_NOPERM)
        # The account that root becomes may not come so far.
        self.assertRegex(err, "the service is not running, and .*/nowhere (does not exist|cannot be reached)")


class New(Both):
    module = "postoffice.commands.postoffice"

    def test_the_same_requests(self) -> None:
        for words, wanted in [
            (["list"], {"verb": "greylist", "do": "list"}),
            (["list", "-w"], {"verb": "greylist", "do": "list"}),
            (["approve", "a@b"], {"verb": "greylist", "do": "approve", "record": "a@b"}),
            (["forbid", "a@b"], {"verb": "greylist", "do": "forbid", "record": "a@b"}),
        ]:
            self.assertEqual(self.asked("greylist", *words), (wanted, ""))
            os.unlink(self.control)
        answer = {"done": True, "records": 7, "expired": 0}
        request, out = self.asked("greylist", "expire", "-Ev", "2d", answers=(answer,))
        self.assertEqual(request, EXPIRE | {"forbidden": True, "age": 2 * 86400})
        self.assertEqual(out, "7 records; expired 0.\n")

    def test_what_is_no_verb(self) -> None:
        for words in ([], ["burn"], ["approve"], ["forbid", "a", "b"]):
            self.assertIn("say list, approve RECORD", self.refused("greylist", *words))
        self.assertIn("no arguments", self.refused("greylist", "list", "x"))
        self.assertIn("one age", self.refused("greylist", "expire", "1d", "2d"))

    def test_help(self) -> None:
        code, out, _ = self.run_command("greylist", "--help")
        self.assertEqual(code, 0)
        self.assertIn("greylist expire [-Enuvz] [AGE]", out)

    def test_letters_to_somebody_of_that_name(self) -> None:
        service = self.service({"done": True, "id": "Q1", "refused": []})
        code, _, _ = self.run_command("-C", self.file, "-bm", "greylist", given=b"x\n")
        self.assertEqual((code, service.heard[0]["recipients"]), (0, ["greylist"]))
