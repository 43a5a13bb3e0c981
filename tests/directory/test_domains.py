from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.directory.domains import Domains, LocalNames, OurDomain
from postoffice.watched import Unreadable, Watch
from tests.directory.support import no_exchange
from tests.support import counted

SYSTEM = OurDomain("mx.example.org", virtual=False)


class DomainsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.warnings: list[str] = []
        self.virtual = os.path.abspath(self.mktemp())
        os.mkdir(self.virtual)
        self.file = f"{self.virtual}/domains.cf"
        self.mailname = f"{self.virtual}/mailname"
        names = LocalNames("mx.example.org", ("Local.Example",), self.mailname)
        self.domains = Domains(
            names,
            self.virtual,
            lambda: frozenset({"192.0.2.7", "2001:db8::7"}),
            Watch(self.clock.seconds, self.warnings.append),
            no_exchange(),
        )

    def find(self, name: str) -> OurDomain | None:
        return self.successResultOf(self.domains.find(name))  # type: ignore[no-any-return]

    def write(self, text: str | bytes, path: str = "") -> None:
        with open(path or self.file, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        self.clock.advance(1)

    def test_always_ours(self) -> None:
        for name in ("", "localhost", "LocalHost.", "mx.example.org", "MX.EXAMPLE.ORG", "local.example"):
            self.assertEqual(self.find(name), SYSTEM, name)

    def test_not_ours(self) -> None:
        for name in (
            "example.org",
            "example.com",
            "x.localhost",
            "localhos",
            "..",
            "a/b",
            "\x00",
            "mailname",
        ):
            self.assertIsNone(self.find(name), name)

    def test_mailname(self) -> None:
        self.write("# a comment\nMail.Example.Net.\nsecond.example\n", self.mailname)
        self.assertEqual(self.find("mail.example.net"), SYSTEM)
        self.assertIsNone(self.find("second.example"))

    def test_bad_mailname(self) -> None:
        self.write("not a name\n", self.mailname)
        self.assertIsNone(self.find("example.net"))
        self.assertIn(f"{self.mailname}:1: 'not a name' is not a domain", self.warnings[0])

    def test_empty_mailname_is_not_every_name(self) -> None:
        self.write("\n", self.mailname)
        self.assertIsNone(self.find("example.net"))

    def test_own_literals(self) -> None:
        for literal in (
            "[192.0.2.7]",
            "[IPv6:2001:db8::7]",
            "[ipv6:2001:DB8:0::7]",
            "[IPv6:::ffff:192.0.2.7]",
            "[127.0.0.1]",
            "[127.3.2.1]",
            "[IPv6:::1]",
            "[IPv6:::ffff:127.0.0.1]",
            "[0.0.0.0]",
        ):
            self.assertEqual(self.find(literal), SYSTEM, literal)

    def test_other_literals(self) -> None:
        for literal in ("[192.0.2.8]", "[IPv6:2001:db8::8]", "[x]", "[", "[]", "[192.0.2.7", "[x:192.0.2.7]"):
            self.assertIsNone(self.find(literal), literal)

    def test_virtual(self) -> None:
        self.write("joe:Example.Org:1:with a comment: and a colon\njoe:example.com:1\n")
        self.assertEqual(self.find("example.org."), OurDomain("Example.Org", virtual=True))
        self.assertEqual(self.find("EXAMPLE.COM"), OurDomain("example.com", virtual=True))
        self.assertIsNone(self.find("sub.example.com"))

    def test_active_is_read_as_a_value(self) -> None:
        for active, is_active in (
            ("0", 0),
            ("00", 0),
            ("+0", 0),
            ("-0", 0),
            ("1", 1),
            ("01", 1),
            ("-1", 1),
            ("9", 1),
        ):
            self.write(f"joe:example.org:{active}:\n")
            self.assertEqual(self.find("example.org") is not None, bool(is_active), active)
            self.write(f"joe:example.org:{active}:\n\n\n")
        self.assertEqual(self.warnings, [])

    def test_virtual_goes_before_local(self) -> None:
        self.write("joe:local.example:1:\n")
        self.assertEqual(self.find("local.example"), OurDomain("local.example", virtual=True))
        self.write("joe:local.example:0:   \n")
        self.assertEqual(self.find("local.example"), SYSTEM)

    def test_mistakes_name_file_and_line(self) -> None:
        self.write("joe:example.org:1:\n")
        self.assertIsNotNone(self.find("example.org"))
        for line, problem in (
            ("joe:example.com:yes:", "'yes' in the place of active is not a number"),
            ("joe:example.com::", "'' in the place of active is not a number"),
            ("joe:example.com", "not of the form owner:domain:active:comment"),
            ("joe:../etc:1:", "'../etc' is not a domain"),
            ("joe:a/b:1:", "'a/b' is not a domain"),
            ("joe:.:1:", "'.' is not a domain"),
            ("joe:-x.org:1:", "'-x.org' is not a domain"),
            ("joe::1:", "'' is not a domain"),
            ("joe:a\x00b:1:", "'a\\x00b' is not a domain"),
            (f"joe:{'a' * 254}:1:", f"{'a' * 80!r} is not a domain"),
            ("joe:EXAMPLE.org:0:", "the domain EXAMPLE.org is given twice"),
        ):
            self.write(f"joe:example.org:1:\n# {line}\n{line}\n")
            self.assertIsNotNone(self.find("example.org"), line)
            self.assertIsNone(self.find("example.com"), line)
            expected = f"{self.file}:3: {problem}; the last good version stays in use"
            self.assertEqual(self.warnings[-1:], [expected])

    def test_not_utf8(self) -> None:
        self.write(b"joe:example.org:1:\xff\n")
        self.failureResultOf(self.domains.find("example.com"), Unreadable)
        self.assertIn(":1: not UTF-8", self.warnings[0])

    def test_unreadable_from_the_beginning(self) -> None:
        self.write("nonsense\n")
        self.failureResultOf(self.domains.find("example.org"), Unreadable)
        self.assertEqual(self.find("[127.0.0.1]"), SYSTEM)

    def test_many_domains_do_not_stall(self) -> None:
        self.write("".join(f"joe:d{number}.example:1:comment\n" for number in range(10_000)))
        found, calls = counted(lambda: self.find("d9999.example"))
        self.assertIsNotNone(found)
        # A few calls for each line, and no more for the last than for the first.
        self.assertLess(calls, 30 * 10_000)
