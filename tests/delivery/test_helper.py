"""The helper with real processes, as whoever runs the tests: jobs, commands, and what becomes of a crash."""

from __future__ import annotations

import mailbox
import os
import pwd
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from postoffice.delivery.as_user import LARGE_AT_ONCE
from postoffice.delivery.helper import identity, packets
from postoffice.delivery.helper_process import HelperSettings
from postoffice.delivery.identities import Lost, NotAllowed
from postoffice.delivery.local import LocalDelivery, LocalDeliverySettings
from postoffice.mail.address import Address
from postoffice.mail.destination import Command, Destination, File, Mailbox
from postoffice.mail.envelope import Letter, Recipient
from postoffice.mail.outcome import Delivered, Failed, Outcome, Postponed
from tests.delivery.children import ME, Helped
from tests.delivery.test_local import CONTENT, Held, Streamed

# Tests that root runs have things done as this account, others as the one they are.
ACCOUNT = pwd.getpwuid(os.geteuid() or pwd.getpwnam("nobody").pw_uid)
CHILD = """
import os, pwd, socket, sys
from postoffice.delivery.helper.child import Child
connection = socket.socket(fileno=int(sys.argv[1]))
Child(connection, pwd.getpwuid(os.geteuid()), "command", "", None).serve()
"""
JOE = Recipient(1, Address("joe", "example.org"), 0.0)


class HelperCase(TestCase):
    """A directory of the account's own, and deliveries as this account."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.top = directory.name
        os.chown(self.top, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        self.helped = Helped(reactor, HelperSettings(1, frozenset(), "", ME, privileged=False))
        self.addCleanup(lambda: Deferred.fromCoroutine(self.helped.identities.stop()))
        self.timeout_of_commands = 20.0

    def run_coroutine(self, work: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(work)

    async def deliver(
        self, destination: Destination, content: Any = None, sender: Address | None = None
    ) -> Outcome:
        settings = LocalDeliverySettings(
            "mx", own="the service", vuser=ACCOUNT.pw_name, command_timeout=self.timeout_of_commands
        )

        delivery = LocalDelivery(_in_no_thread, reactor, settings, self.helped.as_user)  # type: ignore[arg-type]
        letter = Letter("Q1", sender, "7BIT", 1, 0.0, "")
        outcomes = await delivery.deliver(letter, content or Held(CONTENT), destination, [JOE])
        return outcomes[1]

    async def said(self, text: str, **fields: Any) -> str:
        """What a command that succeeds leaves in the file `said` of its place."""
        command = Command(f"cd {self.top} && {{ {text}; }} > said", ACCOUNT.pw_name, **fields)
        outcome = await self.deliver(command, sender=Address("a", "example.org"))
        self.assertIsInstance(outcome, Delivered, str(outcome))
        with open(f"{self.top}/said", encoding="utf-8") as file:
            return file.read()

    def mailbox(self, kind: Any, name: str = "joe") -> Mailbox:
        return Mailbox(kind, f"{self.top}/{name}", ACCOUNT.pw_name, self.top)


def _in_no_thread(function: Any, *args: Any) -> Any:
    raise AssertionError("nothing is done as the service")


class MailboxTests(HelperCase):
    async def test_release_1_5_2_a_child_that_became_the_user_writes(self) -> None:
        for content in (Held(CONTENT), Streamed([CONTENT, b"x" * 300_000 + b"\r\n"])):
            outcome = await self.deliver(self.mailbox("mbox"), content)
            self.assertIsInstance(outcome, Delivered, str(outcome))
        box = mailbox.mbox(f"{self.top}/joe")
        self.addCleanup(box.close)
        self.assertEqual([message["delivered-to"] for message in box], ["joe@example.org"] * 2)
        self.assertEqual(os.stat(f"{self.top}/joe").st_uid, ACCOUNT.pw_uid)
        self.assertEqual(os.stat(f"{self.top}/joe").st_mode & 0o777, 0o600)
        self.assertEqual(sorted(os.listdir(self.top)), ["joe"])

    async def test_many_letters_for_a_maildir(self) -> None:
        outcomes = await gatherResults(
            [Deferred.fromCoroutine(self.deliver(self.mailbox("maildir"))) for _ in range(100)]
        )
        self.assertEqual({type(outcome) for outcome in outcomes}, {Delivered})
        self.assertEqual(len(mailbox.Maildir(f"{self.top}/joe", create=False)), 100)
        self.assertEqual(os.listdir(f"{self.top}/joe/tmp"), [])
        self.assertLessEqual(len(self.helped.identities._children[ACCOUNT.pw_name, "files"]), 2)

    async def test_many_letters_for_an_mbox(self) -> None:
        settings = LocalDeliverySettings("mx", own="the service", vuser=ACCOUNT.pw_name)
        asked: list[int] = []
        append = self.helped.identities.append

        async def counted(account: str, message: dict[str, Any], file: int) -> list[Exception | None]:
            asked.append(len(message["letters"]))
            return await append(account, message, file)

        self.patch(self.helped.identities, "append", counted)
        delivery = LocalDelivery(_in_no_thread, reactor, settings, self.helped.as_user)  # type: ignore[arg-type]
        letter = Letter("Q1", Address("a", "example.org"), "7BIT", 1, 0.0, "")
        outcomes = await gatherResults(
            [
                delivery.deliver(letter, Held(b"Subject: %d\r\n\r\nx\r\n" % at), self.mailbox("mbox"), [JOE])
                for at in range(50)
            ]
        )
        self.assertEqual({type(outcome[1]) for outcome in outcomes}, {Delivered})
        self.assertEqual(asked, [1, 32, 17])
        box = mailbox.mbox(f"{self.top}/joe")
        self.addCleanup(box.close)
        self.assertEqual([int(message["subject"]) for message in box], list(range(50)))

    async def test_few_large_letters_are_copied_at_once(self) -> None:
        gates: list[Deferred[None]] = []

        def gate() -> Deferred[None]:
            gates.append(Deferred())
            return gates[-1]

        done = [
            self.run_coroutine(self.deliver(self.mailbox("maildir"), Streamed([CONTENT, b"x\r\n"], gate)))
            for _ in range(LARGE_AT_ONCE + 2)
        ]
        self.assertEqual(len(gates), LARGE_AT_ONCE)
        for at in range(len(done)):
            while at >= len(gates):
                await deferLater(reactor, 0.01)  # type: ignore[arg-type]
            gates[at].callback(None)
        outcomes = await gatherResults(done)
        self.assertEqual({type(outcome) for outcome in outcomes}, {Delivered})

    async def test_what_fails_is_an_outcome(self) -> None:
        os.mkdir(f"{self.top}/directory")
        self.assertEqual(
            str((await self.deliver(self.mailbox("mbox", "directory"))).reply),
            f"451 4.2.0 mailbox of {ACCOUNT.pw_name}: Is a directory",
        )
        os.symlink(f"{self.top}/elsewhere", f"{self.top}/link")
        self.assertIn("symbolic links", str((await self.deliver(self.mailbox("mbox", "link"))).reply))
        with open(f"{self.top}/two", "x"):
            os.link(f"{self.top}/two", f"{self.top}/names")
        os.chown(f"{self.top}/two", ACCOUNT.pw_uid, -1)
        outcome = await self.deliver(self.mailbox("mbox", "two"))
        self.assertIn("the file has several names", str(outcome.reply))
        self.assertEqual(os.path.getsize(f"{self.top}/two"), 0)

    async def test_a_file(self) -> None:
        outcome = await self.deliver(File(f"{self.top}/log", ACCOUNT.pw_name))
        self.assertEqual(str(outcome.reply), f"250 2.0.0 delivered to the file {self.top}/log")
        with open(f"{self.top}/log", "rb") as file:
            data = file.read()
        self.assertTrue(data.startswith(b"From <> "), data)
        self.assertTrue(data.endswith(b"\n\nbody\n>From x\n\n"), data)

    async def test_the_file_that_holds_nothing(self) -> None:
        outcome = await self.deliver(File("/dev/null", "whoever"))
        self.assertIsInstance(outcome, Delivered)
        self.assertFalse(self.helped.helper._process)


class AccountTests(HelperCase):
    async def test_an_account_that_is_not_there(self) -> None:
        outcome = await self.deliver(File(f"{self.top}/log", "no-such-account"))
        self.assertIsInstance(outcome, Postponed)
        self.assertIn("no-such-account", str(outcome.reply))

    async def test_D2_nothing_is_done_as_root(self) -> None:
        for destination in (File(f"{self.top}/log", "root"), Command("true", "root")):
            outcome = await self.deliver(destination)
            self.assertNotIsInstance(outcome, Delivered)
            self.assertIn("root", str(outcome.reply))
        self.assertEqual(os.listdir(self.top), [])

    async def test_a_home_is_read(self) -> None:
        found = await self.helped.identities.read(ACCOUNT.pw_name, "no-such-file-is-there")
        self.assertIsNone(found)


class CommandTests(HelperCase):
    async def test_what_a_command_is_told(self) -> None:
        said = await self.said("env; cat", extension="lists")
        environment, _, letter = said.partition("From a@example.org ")
        names = dict(line.split("=", 1) for line in environment.splitlines())
        wanted = {
            "SENDER": "a@example.org",
            "RECIPIENT": "joe@example.org",
            "EXTENSION": "lists",
            "HOME": ACCOUNT.pw_dir,
            "USER": ACCOUNT.pw_name,
            "LOGNAME": ACCOUNT.pw_name,
            "SHELL": "/bin/sh",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
        }
        self.assertEqual({name: names.get(name) for name in wanted}, wanted)
        self.assertLessEqual(names.keys() - wanted.keys(), {"PWD", "OLDPWD", "SHLVL", "_"})
        self.assertIn("Delivered-To: joe@example.org\nReceived:", letter)
        self.assertTrue(letter.endswith("\n\nbody\nFrom x\n"), letter)

    async def test_D2_what_a_command_has(self) -> None:
        said = await self.said("id -u; umask; nice; cat /proc/self/status; ls -l /proc/self/fd | wc -l")
        uid, umask, niceness, *status, files = said.splitlines()
        self.assertEqual((uid, umask, niceness), (str(ACCOUNT.pw_uid), "0077", str(min(os.nice(0) + 10, 19))))
        self.assertIn("NoNewPrivs:\t1", status)
        self.assertIn("CapEff:\t0000000000000000", status)
        # Signals 32 and 33 are the C library's own: nobody can undo that a parent (make) ignored them.
        kinds = dict(line.split(":\t", 1) for line in status if line.startswith(("SigIgn", "SigCgt")))
        self.assertEqual(
            {kind: int(mask, 16) & ~(3 << 31) for kind, mask in kinds.items()}, {"SigIgn": 0, "SigCgt": 0}
        )
        # A line of its own, the three standard ones, and that which `ls` opened.
        self.assertEqual(int(files), 5)

    async def test_D2_what_a_command_may_use(self) -> None:
        """Less than the service, whatever that may."""
        for kind in identity.LIMITS:
            before = resource.getrlimit(kind)
            self.addCleanup(resource.setrlimit, kind, before)
            resource.setrlimit(kind, (before[1], before[1]))
        lines = (await self.said("cat /proc/self/limits")).splitlines()
        limits = {line[:26].rstrip(): line[26:].split()[:2] for line in lines}
        self.assertEqual(limits["Max core file size"], ["0", "0"])
        self.assertEqual(limits["Max open files"], ["1024", "4096"])
        self.assertEqual(limits["Max file size"], ["unlimited", "unlimited"])

    async def test_D1_nothing_of_the_letter_reaches_the_shell(self) -> None:
        command = Command(f'echo "$SENDER" > {self.top}/said', ACCOUNT.pw_name)
        for local in (";touch x", "`touch x`", "$(touch x)", "|touch x", "-n", "a'b", 'a"; touch x; "'):
            outcome = await self.deliver(command, sender=Address(local, "example.org"))
            self.assertIsInstance(outcome, Delivered, str(outcome))
            self.assertEqual(os.listdir(self.top), ["said"])

    async def test_D1_control_characters_are_refused(self) -> None:
        command = Command(f"touch {self.top}/x", ACCOUNT.pw_name, "a\nPATH=/evil")
        outcome = await self.deliver(command)
        self.assertEqual(
            str(outcome.reply),
            f"550 5.7.0 command of {ACCOUNT.pw_name}: EXTENSION is not fit for the environment of a command",
        )
        self.assertEqual(os.listdir(self.top), [])

    async def ends(self, text: str) -> tuple[type, str]:
        outcome = await self.deliver(Command(text, ACCOUNT.pw_name))
        return type(outcome), str(outcome.reply)

    async def test_exit_codes(self) -> None:
        wanted: Sequence[tuple[str, type, str]] = (
            ("exit 0", Delivered, "250 2.0.0 delivered to the command"),
            (
                "echo nobody here >&2; echo; echo really; exit 67",
                Failed,
                "550 5.1.1 the command failed, there is no such user: nobody here / really",
            ),
            ("exit 75", Postponed, "451 4.3.0 the command failed, it is to be tried again later"),
            ("exit 77", Failed, "550 5.7.0 the command failed, it is not allowed"),
            ("exit 3", Failed, "554 5.3.0 the command failed, exit status 3"),
            ("kill -9 $$", Postponed, "451 4.3.0 the command was ended by signal 9"),
        )
        for text, kind, reply in wanted:
            self.assertEqual(await self.ends(text), (kind, reply))
        kind, text = await self.ends("/no/such/command")
        self.assertEqual(kind, Postponed)
        self.assertTrue(text.startswith("451 4.3.5 the command failed, there is no such command: "), text)

    async def test_output_is_bounded(self) -> None:
        kind, text = await self.ends("head -c 3000000 /dev/zero | tr '\\0' x; exit 1")
        self.assertEqual(kind, Failed)
        self.assertEqual(text.count("x" * 100), 4)

    async def test_a_command_that_takes_too_long_is_killed_with_all_it_started(self) -> None:
        self.timeout_of_commands = 0.5
        kind, text = await self.ends(f"sleep 100 & echo $! > {self.top}/pid; echo waiting; wait")
        self.assertEqual(
            (kind, text), (Postponed, "451 4.3.0 the command took too long and was stopped: waiting")
        )
        await self.no_process()

    async def no_process(self) -> None:
        with open(f"{self.top}/pid", encoding="ascii") as file:
            number = int(file.read())
        for _ in range(500):
            try:
                with open(f"/proc/{number}/stat", encoding="ascii") as file:
                    if file.read().rpartition(")")[2].split()[0] == "Z":
                        return
            except (FileNotFoundError, ProcessLookupError):
                return
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]
        self.fail("the process goes on")

    async def test_a_command_ends_with_the_service(self) -> None:
        text = f"echo $$ > {self.top}/new; mv {self.top}/new {self.top}/pid; exec sleep 100"
        work = Deferred.fromCoroutine(self.deliver(Command(text, ACCOUNT.pw_name)))
        for _ in range(500):
            if os.path.exists(f"{self.top}/pid"):
                break
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]
        self.helped.identities._abandon()
        self.assertIsInstance(await work, Postponed)
        await self.no_process()


class CrashTests(HelperCase):
    async def test_a_helper_that_dies_is_started_again(self) -> None:
        await self.deliver(File(f"{self.top}/log", ACCOUNT.pw_name))
        supervisor = self.helped.helper._process
        assert supervisor is not None
        with open(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children", encoding="ascii") as file:
            (helper,) = map(int, file.read().split())
        os.kill(helper, signal.SIGKILL)
        while os.path.exists(f"/proc/{helper}"):
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        # Those it made live on; this needs a new one.
        outcome = await self.deliver(Command("true", ACCOUNT.pw_name))
        self.assertIsInstance(outcome, Delivered, str(outcome))
        self.assertEqual(self.helped.told, ["the helper ended (signal 9) and was started again"])

    async def test_a_child_that_dies_is_a_temporary_failure(self) -> None:
        outcome = await self.deliver(Command("kill -9 $PPID; sleep 10", ACCOUNT.pw_name))
        self.assertEqual(
            str(outcome.reply),
            f"451 4.3.0 command of {ACCOUNT.pw_name}: the process that was {ACCOUNT.pw_name} ended",
        )
        self.assertIsInstance(outcome, Postponed)

    async def test_a_child_that_is_asked_to_end_does_its_job_first(self) -> None:
        ours, theirs = packets.pair()
        self.addCleanup(ours.close)
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        self.addCleanup(child.kill)
        letter = packets.memory_file()
        packets.seal(letter)
        job = {"do": "command", "text": "kill -TERM $PPID; echo still here", "environment": {}}
        packets.send(ours, {**job, "id": 1, "sender": "", "now": 0.0, "timeout": 20}, [letter])
        os.close(letter)
        answer, _ = packets.receive(ours) or ({}, -1)
        self.assertEqual(answer, {"id": 1, "status": 0, "output": "still here\n"})
        self.assertIsNone(packets.receive(ours))
        self.assertEqual(child.wait(20), -signal.SIGTERM)

    async def test_what_is_asked_behind_a_stop_waits(self) -> None:
        await self.helped.identities.stop()
        with self.assertRaises(Lost):
            await self.helped.identities.read(ACCOUNT.pw_name, "x")

    async def test_refused_accounts_are_told(self) -> None:
        with self.assertRaises(NotAllowed):
            await self.helped.identities.read("no-such-account", "x")
