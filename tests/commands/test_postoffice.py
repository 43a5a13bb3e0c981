"""The postoffice command: letters from standard input, queue runs, and how it becomes the service."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from postoffice import __version__, wire
from postoffice.commands import common
from postoffice.commands.postoffice import _period
from postoffice.config.options import BY_NAME
from tests.commands.support import CommandCase
from tests.support import CHECKOUT, need_root

DONE: dict[str, Any] = {"done": True, "id": "Q7", "refused": []}


class Delivering(CommandCase):
    module = "postoffice.commands.postoffice"

    def submit(
        self, *arguments: str, given: bytes, answer: dict[str, Any] = DONE
    ) -> tuple[Any, tuple[int, str, str]]:
        if os.path.exists(self.control):
            os.unlink(self.control)
        service = self.service(answer)
        ran = self.run_command("-C", self.file, *arguments, given=given)
        service.stop()
        content = b"".join(frame for frame in service.heard if isinstance(frame, bytes))
        self.assertIs(service.heard[-1], wire.END)
        return (service.heard[0], content), ran

    def test_a_letter(self) -> None:
        (request, content), ran = self.submit("-bm", "a@x.example", "b", given=b"Subject: x\n\nbody\n")
        self.assertEqual(ran, (0, "", ""))
        self.assertEqual(request, {"verb": "submit", "recipients": ["a@x.example", "b"]})
        self.assertEqual(content, b"Subject: x\n\nbody\n")

    def test_senders(self) -> None:
        for arguments, sender in (
            (("-f", "z@y.example"), "z@y.example"), (("-rz",), "z"), (("-f", ""), None), (("-f<>",), None),
        ):  # fmt: skip
            (request, _), _ = self.submit(*arguments, "a", given=b"x")
            self.assertEqual(request["sender"], sender)

    def test_lone_dot(self) -> None:
        for arguments, given, content in (
            ((), b"a\n.\nb\n", b"a\n"), ((), b".\n", b""), ((), b"a\n.\r\nb", b"a\n"), ((), b"a\n.", b"a\n"),
            ((), b"a.\n..\n. \n", b"a.\n..\n. \n"), (("-i",), b"a\n.\nb\n", b"a\n.\nb\n"),
            (("-oi",), b".\nb\n", b".\nb\n"), (("-vi",), b".\n", b".\n"),
        ):  # fmt: skip
            (_, got), (code, _, err) = self.submit(*arguments, "a", given=given)
            self.assertEqual((got, code, err), (content, 0, ""), given)

    def test_dot_is_not_looked_for_inside_of_lines(self) -> None:
        given = b"x" * (1 << 16) + b".\nend\n"
        (_, content), _ = self.submit("a", given=given)
        self.assertEqual(content, given)

    def test_large_letter(self) -> None:
        given = (b"y" * 77 + b"\n") * 40_000
        (_, content), ran = self.submit("-v", "a", given=given)
        self.assertEqual(ran, (0, "Q7\n", ""))
        self.assertTrue(content == given)

    def test_some_recipients_are_bad(self) -> None:
        answer = DONE | {"refused": [["b@x.example", "550 5.1.1 No\x1b such user"]]}
        _, ran = self.submit("a", "b@x.example", given=b"x", answer=answer)
        self.assertEqual(ran, (0, "", "postoffice: warning: b@x.example: 550 5.1.1 No? such user\n"))

    def test_none_is_good(self) -> None:
        _, ran = self.submit("a", given=b"x", answer={"error": "550 no", "exit": os.EX_NOUSER})
        self.assertEqual(ran, (os.EX_NOUSER, "", "postoffice: 550 no\n"))

    def test_no_recipients(self) -> None:
        self.assertEqual(self.run_command("-C", self.file)[0], os.EX_USAGE)

    def test_service_is_down(self) -> None:
        code, _, err = self.run_command("-C", self.file, "a", given=b"x")
        self.assertEqual(code, os.EX_TEMPFAIL)
        self.assertIn(self.control, err)

    def test_service_dies(self) -> None:
        service = self.service()
        code, _, err = self.run_command("-C", self.file, "a", given=b"x")
        service.stop()
        self.assertEqual(code, os.EX_TEMPFAIL)
        self.assertIn("broke off", err)

    def test_flags_end(self) -> None:
        (request, _), _ = self.submit("--", "-f", given=b"x")
        self.assertEqual(request["recipients"], ["-f"])


class Queue(CommandCase):
    module = "postoffice.commands.postoffice"

    def test_run(self) -> None:
        for arguments in (("-bq",), ("-q",), ("-bq", "-q")):
            service = self.service({"done": True, "letters": 3})
            self.assertEqual(self.run_command("-C", self.file, *arguments), (0, "", ""))
            self.assertEqual(service.heard, [{"verb": "run", "pattern": None}])
            os.unlink(self.control)

    def test_letters_are_held_and_released(self) -> None:
        for verb in ("hold", "release", "delete"):
            service = self.service({"done": True})
            self.assertEqual(self.run_command("-C", self.file, verb, "A1", "B1"), (0, "", ""))
            self.assertEqual(service.heard, [{"verb": verb, "ids": ["A1", "B1"]}])
            os.unlink(self.control)
        self.service({"error": "there is no letter B", "exit": os.EX_DATAERR})
        code, _, err = self.run_command("-C", self.file, "release", "B")
        self.assertEqual((code, err), (os.EX_DATAERR, "postoffice: there is no letter B\n"))
        self.assertEqual(self.run_command("-C", self.file, "hold")[0], os.EX_USAGE)

    def test_a_letter_is_shown(self) -> None:
        service = self.service(b"Subject: s\r\n\r\n\x1b[1m", b"text\r\n", {"done": True})
        shown = self.run_command("-C", self.file, "show", "A1")
        self.assertEqual(shown, (0, "Subject: s\n\n\x1b[1mtext\n", ""))
        self.assertEqual(service.heard, [{"verb": "show", "id": "A1"}])
        self.assertEqual(self.run_command("-C", self.file, "show", "A1", "B1")[0], os.EX_USAGE)

    def test_no_terminal_obeys_a_letter(self) -> None:
        self.service(b"\x1b]0;x\x07\xc2\x9b\xc3", b"\xa4\tb\r\n", {"done": True})
        master, terminal = pty.openpty()
        self.addCleanup(os.close, master)
        try:
            process = self.start("-C", self.file, "show", "A1", stdout=terminal)
            self.assertEqual(process.communicate(timeout=60)[1], b"")
        finally:
            os.close(terminal)
        shown = os.read(master, 1000)
        self.assertEqual(shown.replace(b"\r", b""), b"?]0;x??\xc3\xa4\tb\n")

    def test_run_some(self) -> None:
        service = self.service({"done": True, "letters": 3})
        self.assertEqual(self.run_command("-C", self.file, "-v", "-qRx"), (0, "3 letters are due now\n", ""))
        self.assertEqual(service.heard, [{"verb": "run", "pattern": {"field": "recipient", "text": "x"}}])

    def test_a_run_that_waits_for_the_service(self) -> None:
        self.service({"done": True, "letters": 3, "down": True})
        code, out, err = self.run_command("-C", self.file, "-bq")
        self.assertEqual((code, out), (0, ""))
        self.assertEqual(
            err,
            "postoffice: warning: the service is not running; it tries these letters as soon as it starts\n",
        )

    def test_run_one(self) -> None:
        self.service({"done": True, "letters": 1})
        self.assertEqual(self.run_command("-C", self.file, "-v", "-q"), (0, "1 letter is due now\n", ""))

    def test_list(self) -> None:
        for last, warning in (
            ({"done": True}, ""),
            ({"done": True, "down": True}, "postoffice: warning: the service is not running\n"),
        ):
            self.service(last)
            self.assertEqual(self.run_command("-C", self.file, "-bp"), (0, "Mail queue is empty.\n", warning))
            os.unlink(self.control)

    def test_refused(self) -> None:
        self.service({"error": "too many", "exit": os.EX_TEMPFAIL})
        self.assertEqual(
            self.run_command("-C", self.file, "-bq"), (os.EX_TEMPFAIL, "", "postoffice: too many\n")
        )

    def test_a_time_alone_is_no_mode(self) -> None:
        self.assertEqual(self.run_command("-C", self.file, "-q15")[0], os.EX_USAGE)


class Usage(CommandCase):
    module = "postoffice.commands.postoffice"

    def test_version(self) -> None:
        self.assertEqual(self.run_command("-V"), (0, f"postoffice {__version__}\n", ""))

    def test_help(self) -> None:
        code, said, complaint = self.run_command("--help")
        self.assertEqual((code, complaint), (0, ""))
        self.assertIn("-bD, -bd", said)

    def test_standard_files_that_are_closed(self) -> None:
        """As from a careless cron job: they are /dev/null then, for the service too."""
        where = "python=$0; $python -m postoffice.commands.postoffice "
        for command, code in (
            (where + "-V >&-", 0),
            (where + "-V <&- >&- 2>&-", 0),
            (where + "-Z 2>&-", os.EX_USAGE),
            (where + f"-C {self.file} a <&-", os.EX_TEMPFAIL),
            (where + f"-C {self.folder}/none -bt <&- >&- 2>&-", os.EX_NOINPUT),
        ):
            ran = subprocess.run(["sh", "-c", command, sys.executable], cwd=CHECKOUT, capture_output=True)
            self.assertEqual((ran.returncode, b"Traceback" in ran.stderr), (code, False), command)

    def test_standard_files_are_inherited(self) -> None:
        program = (
            "import os, sys; from postoffice.commands.common import run\n"
            "show = 'import os; print([os.readlink(f\"/proc/self/fd/{i}\") for i in (0, 2)])'\n"
            "run('x', lambda _: os.execv(sys.executable, [sys.executable, '-c', show]), [])"
        )
        command = 'exec "$0" -c "$1" <&- 2>&-'
        ran = subprocess.run(
            ["sh", "-c", command, sys.executable, program], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
        )
        self.assertEqual(ran.stdout, "['/dev/null', '/dev/null']\n")

    def test_mistakes(self) -> None:
        for arguments, word in (
            (("-Z",), "unknown flag -Z"), (("-bx",), "unknown mode -bx"), (("-f",), "-f needs a value"),
            (("-bp", "x"), "takes no arguments"),
            (("-bD", "-qx"), "is no time"), (("-b",), "-b needs a value"),
        ):  # fmt: skip
            code, out, err = self.run_command(*arguments)
            self.assertEqual((code, out), (os.EX_USAGE, ""), arguments)
            self.assertIn(word, err)

    def test_times(self) -> None:
        self.assertEqual([_period(text) for text in ("15", "90m", "2H", "1d")], ["15m", "90m", "2h", "1d"])
        for text in ("", "m", "5s", "-5", "1.5h", "٣"):
            self.assertRaises(common.Failed, _period, text)

    def test_default_socket_is_that_of_the_table(self) -> None:
        self.assertEqual(BY_NAME["control"].default, common.CONTROL)


class Becoming(CommandCase):
    module = "postoffice.commands.postoffice"

    def test_check(self) -> None:
        code, out, err = self.run_command("-C", self.file, "-o", "size=20m", "-bt")
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out, r"(?m)^size=20m +# -o$")
        self.assertRegex(out, rf"(?m)^control={self.control} +# {self.file}:1$")

    def test_check_tells_what_a_start_would(self) -> None:
        for line, what in (
            ("user=no-such-user", "user: there is no account 'no-such-user' to run as"),
            ("user=root", "user: root is root, and the service never runs as root"),
            ("control-group=no-such-group", "control-group: there is no group 'no-such-group'"),
            ("virtual=/etc/passwd", "virtual: /etc/passwd is no directory"),
        ):
            with open(self.file, "w") as file:
                file.write(f"{line}\n")
            code, out, err = self.run_command("-C", self.file, "-bt")
            self.assertEqual((code, out), (os.EX_CONFIG, ""), err)
            self.assertIn(f"postoffice: {self.file}:1: {what}", err)

    def test_check_of_what_the_service_cannot_read(self) -> None:
        need_root()
        with open(self.file, "a") as file:
            file.write("user=nobody\naliases=/etc/shadow\n")
        code, out, err = self.run_command("-C", self.file, "-bt")
        self.assertEqual((code, err), (os.EX_OK, ""))
        self.assertIn(f"# warning: {self.file}:3: aliases: /etc/shadow cannot be read by uid 65534;", out)

    def test_release_1_5_4_a_file_that_is_named_replaces_the_standard_one(self) -> None:
        code, out, _ = self.run_command("-C", self.file, "-bt")
        self.assertEqual(code, 0)
        origins = {line.rpartition("# ")[2].partition(":")[0] for line in out.splitlines() if "# /" in line}
        self.assertEqual(origins, {self.file})

    def test_check_of_a_bad_file(self) -> None:
        with open(self.file, "a") as file:
            file.write("sise=1\n")
        code, out, err = self.run_command("-C", self.file, "-bt")
        self.assertEqual((code, out), (os.EX_CONFIG, ""))
        self.assertIn(f"{self.file}:2: sise: unknown option; the nearest known one is size", err)

    def test_check_of_no_file(self) -> None:
        self.assertEqual(self.run_command("-C", self.file + "x", "-bt")[0], os.EX_NOINPUT)


class Imports(SynchronousTestCase):
    def test_only_what_is_needed(self) -> None:
        code = (
            "import sys; from postoffice.commands import common, mailq, postoffice;"
            "postoffice.main(['-C', '/dev/null', '-o', 'control=/nowhere/at/all', 'x']);"
            "mailq.main(['-C', '/dev/null', '-o', 'control=/nowhere/at/all']);"
            "print(*sorted(sys.modules))"
        )
        ran = subprocess.run(
            [sys.executable, "-S", "-c", code],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        self.assertIn("not running", ran.stderr)
        modules = ran.stdout.split()
        ours = {name for name in modules if name.startswith("postoffice")}
        foreign = (
            {name.partition(".")[0] for name in modules}
            - set(sys.stdlib_module_names)
            - {"postoffice", "__main__"}
        )
        self.assertEqual(foreign, set())
        self.assertEqual(ours, {
            "postoffice", "postoffice.quoting", "postoffice.wire", "postoffice.commands",
            "postoffice.commands.common", "postoffice.commands.mailq", "postoffice.commands.postoffice",
        })  # fmt: skip
        self.assertFalse(
            {"typing", "dataclasses", "argparse", "inspect", "asyncio", "logging"} & set(modules)
        )
