"""postoffice explain: what it asks, what it prints."""

from __future__ import annotations

import json
import os

from tests.commands.support import CommandCase

STEPS = [
    {"depth": 0, "address": "all", "what": "/etc/aliases"},
    {"depth": 1, "address": "ann", "what": "users"},
    {"depth": 1, "address": "x@far.test", "what": "elsewhere"},
]
COPIES = [
    {"copy": "ann", "path": ["all"], "destination": "mbox /var/mail/ann", "refusal": None},
    {"copy": "x@far.test", "path": ["all"], "destination": None, "refusal": "451 4.4.3 No answer"},
]


class Explaining(CommandCase):
    module = "postoffice.commands.postoffice"

    def test_for_people(self) -> None:
        service = self.service(*STEPS, *COPIES, {"done": True, "refusal": None})
        code, out, err = self.run_command("-C", self.file, "explain", "all")
        service.stop()
        self.assertEqual(service.heard, [{"verb": "explain", "address": "all"}])
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(
            out,
            "all: /etc/aliases\n"
            "  ann: users\n"
            "  x@far.test: elsewhere\n"
            "=> ann: mbox /var/mail/ann\n"
            "=> x@far.test: 451 4.4.3 No answer\n",
        )

    def test_for_programs(self) -> None:
        self.service(*STEPS, *COPIES, {"done": True, "refusal": None})
        code, out, _ = self.run_command("-C", self.file, "explain", "--json", "all")
        self.assertEqual(code, 0)
        self.assertEqual(
            json.loads(out), {"address": "all", "steps": STEPS, "copies": COPIES, "refusal": None}
        )

    def test_exit_codes(self) -> None:
        for refusal, expected in (("550 5.1.1 No", os.EX_NOUSER), ("451 4.3.0 Later", os.EX_TEMPFAIL)):
            service = self.service({"done": True, "refusal": refusal})
            code, out, _ = self.run_command("-C", self.file, "explain", "all")
            service.stop()
            os.unlink(self.control)
            self.assertEqual((code, out), (expected, f"=> {refusal}\n"))

    def test_without_a_service(self) -> None:
        code, _, err = self.run_command("-C", self.file, "explain", "all")
        self.assertEqual(code, os.EX_TEMPFAIL)
        self.assertIn("not running", err)

    def test_usage(self) -> None:
        for words in ((), ("a", "b"), ("--jason", "a")):
            self.assertEqual(self.run_command("-C", self.file, "explain", *words)[0], os.EX_USAGE, words)
        self.assertIn("explain [--json] ADDRESS", self.run_command("explain", "--help")[1])

    def test_nothing_reaches_the_terminal_as_it_came(self) -> None:
        self.service({"depth": 0, "address": "a\x1b[2J", "what": "b"}, {"done": True, "refusal": None})
        self.assertEqual(self.run_command("-C", self.file, "explain", "a")[1], "a?[2J: b\n")
