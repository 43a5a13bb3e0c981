"""`twistd postoffice`, and what `postoffice -bD` and `-bt` become.

The only module that uses the global reactor. `python -m postoffice.tap serve` runs the service,
`check` prints every setting and where it came from, `ask` does what a command asks while no service
runs (`postoffice.offline`). Exit codes are those of sysexits(3): a bad
configuration is EX_CONFIG, a missing file EX_NOINPUT, one that cannot be believed EX_OSFILE.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import Any, ClassVar, NoReturn, cast

from attrs import evolve
from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.usage import Options as UsageOptions
from zope.interface import provider

from postoffice import config_file, wire
from postoffice.assembly.parts import read_certificates
from postoffice.config.report import report
from postoffice.config.settings import ConfigError, Settings
from postoffice.interfaces import IJournal
from postoffice.offline import answer
from postoffice.server.office import NotDone
from postoffice.service import NOT_TAKEN_OVER, Office, make_office
from postoffice.services.journal import Journal
from postoffice.services.privileges import Account, give_up_root, named_account, service_account
from postoffice.services.tls import Certificates
from postoffice.watched import Watch


class Options(UsageOptions):
    """Options of `twistd postoffice`."""

    optParameters: ClassVar[list[list[str]]] = [
        ["config", "C", config_file.STANDARD, "The configuration file"]
    ]

    def __init__(self) -> None:
        super().__init__()
        self["overrides"] = []

    def opt_set(self, assignment: str) -> None:
        """Set an option, as name=value; it wins over the file"""
        self["overrides"].append(assignment)

    opt_o = opt_set

    def postOptions(self) -> None:
        """Read the configuration before anything else; exit when it is wrong."""
        self["settings"] = load(self["config"], self["overrides"])


def makeService(options: Options) -> IService:
    """The service, from parsed options; only builds objects."""
    from twisted.internet import reactor

    settings: Settings = options["settings"]
    parent = options.parent
    try:
        with settings.blaming("user"):
            account = service_account(settings.user)
        office = make_office(settings, account, reactor, foreground=bool(parent and parent["nodaemon"]))
    except (LookupError, OSError) as error:
        fail(os.EX_CONFIG, str(error))
    office.fatal = partial(_fatal, reactor, office.parts.journal)
    # Who started us may override what is root's alone, and may still after root was given up.
    reload = partial(_reload, office, options["config"], options["overrides"], os.geteuid())
    _log_what_breaks(office.parts.journal)
    _raise_limits()
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # The reactor puts its own handlers in place when it starts, so ours come after that.
    cast(Any, reactor).callWhenRunning(_handle_signals, reactor, reload, office.toggle_audit)
    _collect_seldom()
    return cast(IService, office)


def _fatal(reactor: Any, journal: Journal, text: str) -> None:
    """Say why the service cannot go on, stop in good order, and exit with EX_OSERR."""
    journal.fatal(text)
    # twistd has no way to pass an exit code; what runs last sets it.
    reactor.addSystemEventTrigger("after", "shutdown", os._exit, os.EX_OSERR)
    # It may not run yet: some errors come before anything was waited for.
    reactor.callWhenRunning(reactor.stop)


def _raise_limits() -> None:
    """Sessions and attempts take a descriptor each; the soft limit is made for programs that select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _collect_seldom() -> None:
    """Keep full garbage collections short and rare: each looks at everything there is while clients wait.

    What was loaded so far stays, and need not be looked at. Little of ours is ever garbage in cycles, and
    nearly all of that is found young; with Python's own threshold, two thousand new sessions were looked at
    four times over, for 50 ms each. Now 700,000 new objects call for a full collection: 100 MB at worst.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 100)


def _log_what_breaks(journal: IJournal) -> None:
    """What Twisted has to say goes to the journal when it is about something broken."""

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            failure = event.get("log_failure")
            journal.error(formatEvent(event) or "unhandled error", failure.value if failure else None)

    globalLogPublisher.addObserver(observe)


def _reload(office: Office, path: str, overrides: Sequence[str], runner: int) -> None:
    """Read the configuration again; a bad one is told in the log, and the one before stays in force."""
    try:
        settings = config_file.load(path, overrides, runner)
    except ConfigError as error:
        for problem in error.problems:
            office.parts.journal.error(f"{NOT_TAKEN_OVER}: {problem}")
    except config_file.Untrusted as error:
        office.parts.journal.error(f"{NOT_TAKEN_OVER}: {error}")
    except OSError as error:
        why = f"{path}: {error.strerror}" if error.strerror else str(error)
        office.parts.journal.error(f"{NOT_TAKEN_OVER}: {why}")
    else:
        office.reload(settings)


def _handle_signals(reactor: Any, reload: Callable[[], None], toggle_audit: Callable[[], None]) -> None:
    """SIGHUP reads the configuration again, SIGUSR1 begins or ends audit records, SIGTERM and SIGINT stop in
    good order, however often they come, and the exit code is 0 then.

    Twisted's own handlers would end the process by the same signal once more.
    """

    def stop() -> None:
        with contextlib.suppress(ReactorNotRunning):
            reactor.stop()

    for number, action in (
        (signal.SIGTERM, stop),
        (signal.SIGINT, stop),
        (signal.SIGHUP, reload),
        (signal.SIGUSR1, toggle_audit),
    ):
        signal.signal(number, partial(_in_reactor, reactor, action))


def _in_reactor(reactor: Any, action: Callable[[], None], _number: int, _frame: FrameType | None) -> None:
    reactor.callFromThread(action)


def load(path: str, overrides: Sequence[str]) -> Settings:
    """Read the configuration, or say what is wrong with it and exit."""
    try:
        return config_file.load(path, overrides)
    except ConfigError as error:
        fail(os.EX_CONFIG, *(str(problem) for problem in error.problems))
    except config_file.Untrusted as error:
        fail(os.EX_OSFILE, str(error))
    except FileNotFoundError:
        fail(os.EX_NOINPUT, f"{path}: there is no such configuration file; name one with -C FILE")
    except PermissionError as error:
        fail(os.EX_NOPERM, str(error))
    except OSError as error:
        fail(os.EX_OSFILE, f"{path}: {error.strerror}")


def fail(code: int, *problems: str) -> NoReturn:
    """Print what is wrong on standard error and exit."""
    for problem in problems:
        print(f"postoffice: {problem}", file=sys.stderr)
    sys.exit(code)


@provider(ILogObserver)
def no_log(event: LogEvent) -> None:
    """Stands in for twistd's own log when the journal says everything worth saying."""


def serve(arguments: Sequence[str]) -> None:
    """Run the service under twistd: in the foreground, or with --daemon in the background."""
    from twisted.scripts.twistd import run

    words = list(arguments)
    daemon = "--daemon" in words
    if daemon:
        words.remove("--daemon")
    head = ["twistd", "--pidfile=", "--logger=postoffice.tap.logger", *([] if daemon else ["--nodaemon"])]
    sys.argv = [*head, "postoffice", *words]
    run()


def logger() -> Callable[[LogEvent], None]:
    """What twistd is told to log to."""
    return cast(Callable[[LogEvent], None], no_log)


def check(arguments: Sequence[str]) -> None:
    """Print every setting and where it came from; exit with EX_CONFIG when something is wrong."""
    from twisted.internet import reactor

    options = Options()
    options.parseOptions(list(arguments))
    settings: Settings = options["settings"]
    remarks: list[str] = []
    certificates = Certificates(Watch(time.time, remarks.append))
    try:
        account = _account_to_check(settings, remarks)
        # What can be wrong is told when it is made. Our name may take the system half a minute.
        stand_in = account or named_account("nobody")
        make_office(evolve(settings, hostname="literal"), stand_in, reactor, foreground=True)
        certificates.take(read_certificates(certificates, settings))
    except (LookupError, OSError) as error:
        fail(os.EX_CONFIG, str(error))
    if account is not None and os.geteuid() == 0:
        give_up_root(account)
        remarks.extend(map(str, config_file.unfit(settings, unprivileged=False)))
    print(report(settings), *(f"# warning: {remark}\n" for remark in remarks), sep="")


def _account_to_check(settings: Settings, remarks: list[str]) -> Account | None:
    """Whom the service would run as; whoever asks may check what only root can start.

    None where the usual account is not there: nothing in the file is wrong, so that is a remark.
    """
    if settings.user is not None:
        with settings.blaming("user"):
            return named_account(settings.user)
    try:
        return service_account(None)
    except LookupError as error:
        remarks.append(str(error))
        return None


def ask(arguments: Sequence[str]) -> None:
    """Do the request that is a frame of `postoffice.wire` on standard input; write the answer's frames."""
    from twisted.internet.task import react

    options = Options()
    options.parseOptions(list(arguments))
    (request,) = wire.Decoder().feed(sys.stdin.buffer.read())
    out = sys.stdout.buffer

    async def write(frames: Iterator[bytes]) -> None:
        out.writelines(frames)

    async def work(reactor: Any) -> None:
        try:
            try:
                last = await answer(request, options["settings"], write, reactor)
            except NotDone as error:
                last = {"error": str(error), "exit": error.exit_code}
            out.write(wire.encode_json(last))
            out.flush()
        except BrokenPipeError:
            # Whoever asked has read enough; nothing may be flushed into it at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())

    react(lambda reactor: Deferred.fromCoroutine(work(reactor)))


if __name__ == "__main__":
    {"serve": serve, "check": check, "ask": ask}[sys.argv[1]](sys.argv[2:])
