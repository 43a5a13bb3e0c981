"""mailq prints the queue as the specification draws it."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from postoffice.commands.mailq import table
from tests.commands.support import CommandCase


def entry(letter_id: str, received: float = 0.0, **more: Any) -> dict[str, Any]:
    usual = {
        "id": letter_id,
        "size": 4096,
        "received": received,
        "sender": "alice@example.org",
        "held": False,
        "held_for": "",
        "busy": False,
        "recipients": [{"address": "carol@example.net", "last": ""}],
    }
    return usual | more


class Table(SynchronousTestCase):
    def test_release_1_5_4_a_long_reason_is_cut_and_ends_with_one_newline(self) -> None:
        lines = list(table([entry("A", recipients=[{"address": "x", "last": "y" * 61 + "\ny" + "z" * 99}])]))
        self.assertEqual(lines[3], " " * 18 + "y" * 61 + "?")
        self.assertNotIn("\n", "".join(lines), "each is ended once, by whoever prints it")

    def test_letters_on_hold_say_so(self) -> None:
        tried = [{"address": "x", "last": "450 later"}]
        lines = list(
            table(
                [
                    entry("A", held=True),
                    entry("B", held=True, recipients=tried),
                    entry("C", held=True, held_for="spam (filter /run/f)", recipients=tried),
                    entry("D", held=True, held_for="x" * 99),
                ]
            )
        )
        self.assertEqual(
            [line.strip() for line in lines[3::3]],
            ["on hold", "on hold: 450 later", "on hold: spam (filter /run/f)", "on hold: " + "x" * 53],
        )

    def test_nothing_foreign_reaches_the_terminal(self) -> None:
        strange = entry("\x1b[1m", sender="a\nb", recipients=[{"address": "\x9b", "last": "\x07\ud800"}])
        for line in table([strange, strange | {"held": True, "held_for": "\x1b]0;x\x07\n"}]):
            self.assertTrue(line.isprintable(), line)


class Mailq(CommandCase):
    module = "postoffice.commands.mailq"

    def test_the_table(self) -> None:
        to = [
            {"address": "dave@example.net", "last": ""},
            {"address": "eve@example.net", "last": "450 4.2.1 later"},
        ]
        service = self.service(
            entry("B2", 86400.0, sender=None, busy=True, recipients=to), entry("A1", size=7), {"done": True}
        )
        code, out, err = self.run_command("-C", self.file)
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(
            out,
            "   Mail Queue (2 requests)\n"
            " --ID--  --Size-- -----Queued------ ------Sender/Recipient------\n"
            "      A1        7  Thu Jan 01 00:00 alice@example.org\n"
            "                                    carol@example.net\n"
            "    *B2*     4096  Fri Jan 02 00:00 <>\n"
            "                  450 4.2.1 later\n"
            "                                    dave@example.net\n"
            "                                    eve@example.net\n",
        )
        self.assertEqual(service.heard, [{"verb": "list", "pattern": None}])

    def test_empty(self) -> None:
        self.service({"done": True})
        self.assertEqual(self.run_command("-C", self.file), (0, "Mail queue is empty.\n", ""))

    def test_one(self) -> None:
        self.service(entry("A1"), {"done": True})
        self.assertIn("(1 request)\n", self.run_command(f"-C{self.file}")[1])

    def test_release_1_5_1_letters_are_chosen_by_a_pattern(self) -> None:
        for given, pattern in (
            ("-qIab", {"field": "id", "text": "ab"}),
            ("-qSx@y", {"field": "sender", "text": "x@y"}),
            ("-qRz", {"field": "recipient", "text": "z"}),
            ("-qfoo", {"field": "any", "text": "foo"}),
            ("-qR", {"field": "any", "text": "R"}),
            ("-q", None),
        ):
            self.control = os.path.join(self.folder, f"control{given.replace('/', '')}")
            service = self.service({"done": True})
            self.run_command("-C", self.file, "-o", f"control={self.control}", given)
            self.assertEqual(service.heard, [{"verb": "list", "pattern": pattern}])

    def test_what_the_spool_says_of_a_service_that_is_down(self) -> None:
        self.service(entry("A1"), {"done": True, "down": True})
        code, out, err = self.run_command("-C", self.file)
        self.assertEqual((code, err), (0, "mailq: warning: the service is not running\n"))
        self.assertIn("(1 request)\n", out)

    def test_service_is_down_and_no_account(self) -> None:
        """Root's configuration names an account there is not; anybody else's one that is not theirs."""
        with open(self.file, "a") as file:
            file.write(f"user=no-such-user\nspool={self.folder}\n")
        code, out, err = self.run_command("-C", self.file)
        self.assertEqual((code, out), (os.EX_TEMPFAIL if os.geteuid() else os.EX_CONFIG, ""))
        self.assertTrue(err.startswith("mailq: the service is not running"), err)
        self.assertEqual(err.count("\n"), 1)

    def test_refused(self) -> None:
        self.service({"error": "not for you", "exit": os.EX_NOPERM})
        self.assertEqual(self.run_command("-C", self.file), (os.EX_NOPERM, "", "mailq: not for you\n"))

    def test_no_such_file(self) -> None:
        code, _, err = self.run_command("-C", self.file + "x")
        self.assertEqual(code, os.EX_NOINPUT)
        self.assertIn(self.file + "x", err)

    def test_help(self) -> None:
        code, out, err = self.run_command("--help")
        self.assertEqual((code, err), (0, ""))
        self.assertIn("mailq [-C FILE] [-q{PATTERN}]", out)
        code, _, err = self.run_command("-C", self.file, "--help")
        self.assertEqual((code, err.partition(":")[2][:20]), (os.EX_USAGE, " --help comes first:"))

    def test_unknown_flag(self) -> None:
        code, _, err = self.run_command("-vZ")
        self.assertEqual((code, err), (os.EX_USAGE, "mailq: unknown flag -Z in -vZ\n"))

    def test_nobody_reads(self) -> None:
        self.service(*[entry(f"L{n}") for n in range(5000)], {"done": True})
        process = self.start("-C", self.file)
        assert process.stdout is not None and process.stderr is not None and process.stdin is not None
        process.stdout.close()
        self.assertEqual(process.stderr.read(), b"")
        self.assertEqual(process.wait(30), 0)
        process.stderr.close()
        process.stdin.close()
