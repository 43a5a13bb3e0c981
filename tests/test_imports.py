"""The direction of imports: language <- interfaces <- stages <- service <- tap, and what else is allowed.

The rules stand in the tables below. They are checked on the syntax tree, so an import inside a function or
under TYPE_CHECKING counts like any other.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.support import CHECKOUT

LANGUAGE = {"mail": set[str](), "smtp": {"mail"}, "milter": {"mail"}, "config": {"mail", "quoting"}}
STAGES = {"server", "policy", "filters", "directory", "spool", "queue", "delivery", "services"}
BELOW_STAGES = {*LANGUAGE, "crypt", "home_file", "interfaces", "quoting", "watched", "wire"}

ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "crypt": set(),
    "home_file": set(),
    "quoting": set(),
    "watched": set(),
    "wire": {"quoting"},
    "commands": {"wire"},
    **LANGUAGE,
    "config_file": {"config"},
    "interfaces": {*LANGUAGE},
    **dict.fromkeys(STAGES, BELOW_STAGES),
    "assembly": BELOW_STAGES | STAGES,
    "service": BELOW_STAGES | STAGES | {"assembly", "config_file"},
    "offline": BELOW_STAGES | STAGES | {"assembly"},
    "tap": BELOW_STAGES | STAGES | {"config_file", "assembly", "service", "offline"},
}
"""What each part of postoffice may import of the others; every part may import itself."""

STANDARD_LIBRARY_ONLY = (
    "postoffice.wire",
    "postoffice.commands",
    "postoffice.crypt",
    "postoffice.home_file",
    "postoffice.quoting",
    "postoffice.delivery.dotlock",
    "postoffice.delivery.files",
    "postoffice.delivery.helper",
    "postoffice.delivery.lines",
    "postoffice.delivery.maildir",
    "postoffice.delivery.mbox",
    "postoffice.delivery.quota",
)
"""Modules and packages that start in milliseconds or hold root: the standard library and what is shared."""

SHARED = {"crypt", "home_file", "quoting", "wire"}
"""What they may use of other parts."""

PURE_LIBRARIES = {"attr", "attrs", "idna", "zope"}
IMPURE = {
    *(
        "asyncio",
        "concurrent",
        "fcntl",
        "ftplib",
        "getpass",
        "glob",
        "grp",
        "http",
        "imaplib",
        "importlib",
        "linecache",
    ),
    *(
        "logging",
        "mailbox",
        "mmap",
        "multiprocessing",
        "os",
        "pathlib",
        "poplib",
        "pwd",
        "random",
        "resource",
        "secrets",
    ),
    *(
        "select",
        "selectors",
        "shelve",
        "shutil",
        "signal",
        "smtplib",
        "socket",
        "socketserver",
        "sqlite3",
        "ssl",
    ),
    *("subprocess", "sys", "syslog", "tempfile", "termios", "threading", "time", "urllib", "uuid"),
}
"""Of the standard library, what an engine must not know: network, clock, disk, chance, processes."""
PURE_ENOUGH = {"pathlib.PurePath", "pathlib.PurePosixPath", "urllib.parse", "os.PathLike"}


@frozen
class Import:
    """`module` imports `name` (dotted, as far down as the statement says) in this line."""

    module: str
    line: int
    name: str


@frozen
class Breach:
    """A forbidden edge and the rule it breaks."""

    edge: Import
    rule: str

    def __str__(self) -> str:
        return f"{self.edge.module}, line {self.edge.line}: imports {self.edge.name}, but {self.rule}"


def imports(path: Path, module: str) -> Iterator[Import]:
    """Every import in the file of this module; relative ones are resolved."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parts = package.split(".")
                source = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [source])])
            for alias in node.names:
                yield Import(module, node.lineno, f"{source}.{alias.name}")


def within(name: str, *parents: str) -> bool:
    """Whether a dotted name is one of the parents or below one."""
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def part(name: str, parts: set[str]) -> str:
    """The part of postoffice a name belongs to: `server` of postoffice.server.link, else `__init__`."""
    second = name.split(".")[1] if "." in name else "__init__"
    return second if second in parts or second in ALLOWED else "__init__"


def parts_of(tree: Path) -> set[str]:
    """The names directly below postoffice/."""
    return {path.stem for path in tree.iterdir() if path.suffix == ".py" or any(path.rglob("*.py"))}


def outside(edge: Import, owner: str) -> str | None:
    """The rule an import of something that is not ours breaks."""
    top = edge.name.split(".")[0]
    lean = within(edge.module, *STANDARD_LIBRARY_ONLY) or owner == "__init__"
    if lean and top not in sys.stdlib_module_names:
        return "it may use only the standard library"
    if within(edge.name, "twisted.internet.reactor") and owner != "tap":
        return "only postoffice.tap uses the global reactor"
    if owner in LANGUAGE and not within(edge.name, *PURE_ENOUGH):
        if top in IMPURE:
            return "the language knows no network, clock, disk, chance or process"
        if top not in sys.stdlib_module_names and top not in PURE_LIBRARIES:
            return f"the language uses only the standard library, {', '.join(sorted(PURE_LIBRARIES))}"
    return None


def inside(edge: Import, owner: str, target: str) -> str | None:
    """The rule an import of another of our modules breaks."""
    if target == "__init__" and edge.name != "postoffice" and not edge.name.startswith("postoffice.__"):
        return "there is no such part"
    if within(edge.module, *STANDARD_LIBRARY_ONLY) and target != "__init__":
        if not within(edge.name, *STANDARD_LIBRARY_ONLY) or (owner != target and target not in SHARED):
            return (
                f"it may use only the standard library and postoffice.{', postoffice.'.join(sorted(SHARED))}"
            )
        return None
    if target in ("__init__", owner) or target in ALLOWED[owner]:
        return None
    if owner in STAGES and target in STAGES:
        return "stages never import each other; service hands each its neighbours"
    return f"{owner} may import only {', '.join(sorted(ALLOWED[owner])) or 'itself'}"


def lean_parents() -> set[str]:
    """Packages whose `__init__` runs before a module that may use only the standard library."""
    return {name.rpartition(".")[0] for name in STANDARD_LIBRARY_ONLY}


def breaches(tree: Path) -> list[Breach]:
    """All forbidden edges of the package in this directory, which counts as `postoffice`."""
    parts, found = parts_of(tree), []
    for path in sorted(tree.rglob("*.py")):
        relative = path.relative_to(tree).with_suffix("")
        module = ".".join(["postoffice", *(name for name in relative.parts if name != "__init__")])
        owner = part(module, parts)
        for edge in imports(path, module):
            if owner not in ALLOWED:
                rule = f"tests/test_imports.py does not say what {owner} may import"
            elif (
                path.name == "__init__.py"
                and module in lean_parents()
                and edge.name.split(".")[0] != "__future__"
            ):
                rule = "it runs before modules that may use only the standard library: it imports nothing"
            elif within(edge.name, "postoffice"):
                rule = inside(edge, owner, part(edge.name, parts)) or ""
            else:
                rule = outside(edge, owner) or ""
            if rule:
                found.append(Breach(edge, rule))
    return found


class Tree(SynchronousTestCase):
    """The program itself."""

    def test_no_forbidden_edge(self) -> None:
        found = breaches(CHECKOUT / "postoffice")
        if found:
            self.fail("\n" + "\n".join(map(str, found)))


class Synthetic(SynchronousTestCase):
    """Small trees, each with one edge, show what is allowed and what is not."""

    def check(self, module: str, source: str) -> list[Breach]:
        """The breaches of a tree with every part, in which one module holds this source."""
        tree = Path(self.mktemp()) / "postoffice"
        names = [f"{name}/__init__.py" for name in [*LANGUAGE, *STAGES, "commands"]]
        for name in ["__init__.py", "wire.py", "interfaces.py", "service.py", "tap.py", *names, module]:
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("from __future__ import annotations\n", encoding="utf-8")
        (tree / module).write_text(source, encoding="utf-8")
        return breaches(tree)

    def forbidden(self, module: str, source: str, rule: str) -> None:
        """The tree has exactly one breach, and its rule contains these words."""
        found = self.check(module, source)
        self.assertEqual(len(found), 1, found)
        self.assertIn(rule, found[0].rule)

    def allowed(self, module: str, source: str) -> None:
        """The tree has no breach."""
        self.assertEqual(self.check(module, source), [])

    def test_allowed_edges(self) -> None:
        for module, source in [
            (
                "smtp/server.py",
                "import re, attrs\nfrom postoffice.mail.address import Address\nfrom . import framing",
            ),
            ("config/parser.py", "from pathlib import PurePosixPath\nfrom ..mail import address"),
            ("interfaces.py", "from twisted.internet.defer import Deferred\nimport postoffice.smtp.server"),
            (
                "queue/scheduler.py",
                "import random\nfrom postoffice.queue.backoff import delays\nimport postoffice.wire",
            ),
            ("service.py", "from postoffice.server import link\nfrom postoffice.queue import scheduler"),
            ("tap.py", "from twisted.internet import reactor\nfrom postoffice.service import assemble"),
            (
                "commands/mailq.py",
                "import os, socket\nfrom postoffice import __version__, wire\nfrom . import runq",
            ),
            ("commands/runq.py", "import postoffice"),
            ("delivery/helper.py", "import os\nfrom postoffice.wire import frame"),
            ("delivery/helper/child.py", "from postoffice.delivery.helper import packets"),
            ("delivery/helper/child.py", "from postoffice.home_file import read_as_owner"),
            ("delivery/remote.py", "from twisted.internet import interfaces"),
        ]:
            self.allowed(module, source)

    def test_inside_the_language(self) -> None:
        self.forbidden("mail/address.py", "import postoffice.smtp.grammar", "mail may import only itself")
        self.forbidden("smtp/server.py", "from postoffice import config", "smtp may import only mail")
        self.forbidden("milter/engine.py", "from ..interfaces import ISpool", "milter may import only mail")

    def test_language_is_pure(self) -> None:
        for source in ["import twisted.internet.defer", "import apsw", "from dns import message"]:
            self.forbidden("smtp/client.py", source, "uses only the standard library")
        for source in [
            "import socket",
            "import os.path",
            "from time import time",
            "from pathlib import Path",
        ]:
            self.forbidden("config/parser.py", source, "no network, clock, disk")

    def test_stages_do_not_know_each_other(self) -> None:
        self.forbidden(
            "queue/attempt.py", "from postoffice.delivery import remote", "stages never import each other"
        )
        self.forbidden(
            "server/intake.py", "from ..spool.sqlite import Spool", "stages never import each other"
        )

    def test_nobody_looks_up(self) -> None:
        self.forbidden("interfaces.py", "from postoffice.spool import sqlite", "interfaces may import only")
        self.forbidden("spool/sqlite.py", "from postoffice.service import assemble", "spool may import only")
        self.forbidden("service.py", "import postoffice.tap", "service may import only")
        self.forbidden("tap.py", "import postoffice.commands.mailq", "tap may import only")

    def test_reactor_belongs_to_tap(self) -> None:
        for source in ["from twisted.internet import reactor", "import twisted.internet.reactor"]:
            self.forbidden("service.py", source, "global reactor")

    def test_standard_library_only(self) -> None:
        for module in ["wire.py", "commands/mailq.py", "delivery/helper.py", "delivery/mbox.py"]:
            self.forbidden(module, "import attrs", "only the standard library")
            self.forbidden(module, "from postoffice.mail import address", "only the standard library")
        self.forbidden(
            "delivery/helper.py", "from postoffice.delivery import mailbox", "only the standard library"
        )
        self.forbidden(
            "commands/mailq.py", "from postoffice.delivery import helper", "only the standard library"
        )
        self.forbidden("delivery/__init__.py", "import re", "it imports nothing")

    def test_hidden_imports_count(self) -> None:
        for source in [
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from postoffice.queue import attempt\n",
            "def late() -> None:\n    from postoffice.queue import attempt\n",
        ]:
            self.forbidden("spool/memory.py", source, "stages never import each other")

    def test_unknown_parts(self) -> None:
        self.forbidden("gadgets.py", "import re", "does not say what gadgets may import")
        self.forbidden("tap.py", "from postoffice import gadgets", "there is no such part")

    def test_message(self) -> None:
        (breach,) = self.check("queue/attempt.py", "import re\n\nfrom postoffice.delivery import remote\n")
        self.assertEqual(
            str(breach),
            "postoffice.queue.attempt, line 3: imports postoffice.delivery.remote, "
            "but stages never import each other; service hands each its neighbours",
        )
