"""The access files, by the rules of hosts_access(5) and hosts_options(5)."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.policy.access import AccessFiles, Denied, parse
from postoffice.policy.hosts import Subject, hosts_of
from postoffice.watched import Mistake, Unreadable, Watch
from tests.support import counted

FRIEND = Subject("192.0.2.9", "mail.friend.example")
NAMELESS = Subject("203.0.113.7", None)
LIAR = Subject("203.0.113.8", None, "bank.example")
SIX = Subject("2001:db8::25", "six.example")
HOME = Subject("127.0.0.1", "localhost")
PLAIN = Denied("", False)
WORDS = (
    "smtp ALL EXCEPT LOCAL UNKNOWN .example 10. 10.0.0.0/8 [2001:db8::]/32 * ? @x /f deny allow setenv DENY"
)
SIGNS = (
    " ",
    ":",
    ",",
    "\\",
    "\\:",
    "#",
    "%",
    "[",
    "]",
    "\n",
    "\r",
    "\t",
    "\0",
    "spawn",
    "twist",
    "é",
    ": ALL",
)
PIECES = (*WORDS.split(), *SIGNS)
EXPANDED = "192.0.2.9 mail.friend.example mail.friend.example mail.friend.example smtp 100%"


class Files(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.clock = Clock()
        self.warnings: list[str] = []
        watch = Watch(self.clock.seconds, self.warnings.append)
        self.files = AccessFiles(str(self.directory / "allow"), str(self.directory / "deny"), watch)

    def write(self, allow: str = "", deny: str = "") -> None:
        for name, text in (("allow", allow), ("deny", deny)):
            (self.directory / name).write_text(text)
        self.clock.advance(2)

    def denied(self, subject: Subject, allow: str = "", deny: str = "") -> Denied | None:
        self.write(allow, deny)
        return self.files.decide(subject)


class Deciding(Files):
    def test_without_files_everybody_may_come_in(self) -> None:
        self.assertIsNone(self.files.decide(FRIEND))
        self.assertFalse(self.files.by_name())

    def test_the_allowing_file_comes_first(self) -> None:
        self.assertIsNone(self.denied(FRIEND, "smtp: .friend.example", "ALL: ALL"))
        self.assertEqual(self.denied(NAMELESS, "smtp: .friend.example", "ALL: ALL"), PLAIN)
        self.assertIsNone(self.denied(NAMELESS, "smtp: .friend.example", "sshd: ALL"))

    def test_the_first_rule_that_fits_decides(self) -> None:
        deny = "smtp: 192.0.2.: setenv WHY one\nsmtp: 192.0.2.9: setenv DENY two\n"
        self.assertEqual(self.denied(FRIEND, "", deny), Denied("one", False))

    def test_daemons(self) -> None:
        for daemons in ("smtp", "SMTP", "ALL", "sshd, smtp", "sshd smtp", "ALL EXCEPT sshd"):
            self.assertEqual(self.denied(FRIEND, "", f"{daemons}: ALL"), PLAIN, daemons)
        for daemons in ("sshd", "ALL EXCEPT smtp", "smtpd", "ALL EXCEPT ALL", "sshd@10.0.0.1"):
            self.assertIsNone(self.denied(FRIEND, "", f"{daemons}: ALL"), daemons)
        self.assertEqual(self.denied(FRIEND, "", "ALL EXCEPT sshd smtp EXCEPT smtp: ALL"), PLAIN)

    def test_options_decide_in_either_file(self) -> None:
        self.assertEqual(self.denied(FRIEND, "smtp: ALL: deny"), PLAIN)
        self.assertEqual(self.denied(FRIEND, "smtp: ALL: DENY"), PLAIN)
        self.assertIsNone(self.denied(FRIEND, "", "smtp: ALL: allow"))
        self.assertIsNone(self.denied(FRIEND, "smtp: ALL: setenv DENY never: ALLOW", "ALL: ALL"))

    def test_reasons(self) -> None:
        for option, expected in (
            ("setenv DENY You are a spammer", Denied("You are a spammer", True)),
            ("setenv WHY see http\\://example.org/", Denied("see http://example.org/", False)),
            ("setenv WHY %a %n %h %c %d 100%%%x", Denied(EXPANDED, False)),
            ("setenv OTHER thing", PLAIN),
            ("setenv WHY no : deny", Denied("no", False)),
        ):
            self.assertEqual(self.denied(FRIEND, "", f"smtp: ALL: {option}"), expected, option)
        self.assertEqual(
            self.denied(LIAR, "", "smtp: ALL: setenv WHY %n %h"), Denied("paranoid 203.0.113.8", False)
        )

    def test_comments_and_continuations(self) -> None:
        deny = "# all of it\n\n  # indented\nsmtp: 10.0.0.0/8,\\\n  192.0.2.9: \\\n  setenv WHY no\n"
        self.assertEqual(self.denied(FRIEND, "", deny), Denied("no", False))
        self.assertIsNone(self.denied(NAMELESS, "", deny))

    def test_commands_are_never_run(self) -> None:
        ran = self.directory / "ran"
        for option, verdict in (
            (f"spawn (touch {ran}) &", PLAIN),
            (f"twist /usr/bin/touch {ran}", PLAIN),
            (f"(/usr/bin/touch {ran}) &", PLAIN),
        ):
            self.warnings.clear()
            self.assertEqual(self.denied(FRIEND, "", f"\nsmtp: ALL: {option}"), verdict)
            (warning,) = self.warnings
            self.assertIn(f"{self.directory}/deny:2: ", warning)
            self.assertIn("the command is not run", warning)
        self.assertEqual(self.denied(FRIEND, "smtp: ALL: twist /bin/echo no"), PLAIN)
        self.assertIsNone(self.denied(FRIEND, "smtp: ALL: spawn (true) &", "ALL: ALL"))
        self.assertFalse(ran.exists())


class Mistakes(Files):
    def test_the_last_good_version_stays(self) -> None:
        for line in (
            "smtp",
            "smtp:",
            "smtp: : deny",
            "smtp: 192.0.2.300",
            "smtp: 192.0.2.1/24",
            "smtp: 10.0.0.0/255.0.255.0",
            "smtp: [2001:db8::/200",
            "smtp: EXCEPT ALL",
            "smtp: ALL EXCEPT",
            "smtp: @hosts",
            "smtp: root@192.0.2.1",
            "smtp: /etc/hosts.bad",
            "smtp: a|b",
            "smtp@192.0.2.1: ALL",
            "smtp: ALL \\",
        ):
            self.assertEqual(self.denied(FRIEND, "", "smtp: 192.0.2.9"), PLAIN)
            self.warnings.clear()
            self.assertEqual(self.denied(FRIEND, "", f"# one\n{line}"), PLAIN, line)
            self.assertEqual(len(self.warnings), 1, line)
            warning = self.warnings[0]
            self.assertIn(f"{self.directory}/deny:2: ", warning)
            self.assertIn("the last good version stays in use", warning)
        self.assertIsNone(self.denied(FRIEND, "", "smtp: 192.0.2.8"))

    def test_settings_that_are_read_again_change_nothing(self) -> None:
        paths = str(self.directory / "allow"), str(self.directory / "deny")
        self.assertEqual(self.denied(FRIEND, "", "smtp: 192.0.2.9"), PLAIN)
        self.write("", "smtp")
        self.files.adapt(*paths)
        self.assertEqual(self.files.decide(FRIEND), PLAIN)
        self.files.adapt(paths[0], "/nonexistent")
        self.assertIsNone(self.files.decide(FRIEND))

    def test_there_never_was_a_good_version(self) -> None:
        self.write("", "smtp")
        self.assertRaises(Unreadable, self.files.decide, FRIEND)

    def test_others_mistakes_are_theirs(self) -> None:
        self.assertEqual(self.denied(FRIEND, "", "sshd: @admins /etc/bad\nsmtp: ALL"), PLAIN)
        self.assertEqual(self.warnings, [])


class Properties(SynchronousTestCase):
    @given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=100))
    def test_whatever_a_file_says_it_is_read_or_a_mistake(self, text: str) -> None:
        try:
            rules = parse(text.encode("utf-8", "surrogatepass"), "hosts.deny", False, lambda warning: None)
        except Mistake as mistake:
            self.assertGreaterEqual(mistake.line, 1)
            return
        for rule in rules:
            for subject in (FRIEND, NAMELESS, LIAR, SIX, HOME):
                if rule.hosts.has(subject):
                    rule.verdict(subject)

    def test_exceptions_without_end(self) -> None:
        line = b"smtp: " + b" EXCEPT ".join([b"ALL"] * 5000)
        self.assertRaises(Mistake, parse, line, "hosts.deny", False, self.fail)
        self.assertRaises(Mistake, parse, line[6:] + b": ALL", "hosts.deny", False, self.fail)


class Clients(SynchronousTestCase):
    def check(self, text: str, *named: Subject) -> None:
        """Of all clients exactly these are named."""
        hosts = hosts_of(text.split())
        found = [each for each in (FRIEND, NAMELESS, LIAR, SIX, HOME) if hosts.has(each)]
        self.assertEqual(found, list(named), text)

    def test_words(self) -> None:
        self.check("ALL", FRIEND, NAMELESS, LIAR, SIX, HOME)
        self.check("KNOWN", FRIEND, SIX, HOME)
        self.check("UNKNOWN", NAMELESS)
        self.check("PARANOID", LIAR)
        self.check("LOCAL", HOME)

    def test_names(self) -> None:
        self.check("mail.friend.example", FRIEND)
        self.check("MAIL.Friend.Example.", FRIEND)
        self.check("friend.example")
        self.check(".friend.example", FRIEND)
        self.check(".example", FRIEND, SIX)
        self.check(".riend.example")
        self.check("*.example", FRIEND, SIX)
        self.check("mail.?riend.*", FRIEND)
        self.check("bank.example")

    def test_addresses(self) -> None:
        self.check("192.0.2.9", FRIEND)
        self.check("192.0.2.", FRIEND)
        self.check("192.", FRIEND)
        self.check("192.0.2.0/24 203.0.113.8/31", FRIEND, LIAR)
        self.check("203.0.113.0/255.255.255.248", NAMELESS)
        self.check("203.0.113.*", NAMELESS, LIAR)
        self.check("0.0.0.0/0", FRIEND, NAMELESS, LIAR, HOME)
        self.check("[2001:db8::]/32", SIX)
        self.check("[2001:db8::25]", SIX)
        self.check("[2001:db8::/32]", SIX)
        self.check("2001:db8::26")

    def test_except(self) -> None:
        self.check("ALL EXCEPT .example", NAMELESS, LIAR, HOME)
        self.check("ALL EXCEPT .example EXCEPT six.example", NAMELESS, LIAR, SIX, HOME)

    def test_whether_names_matter(self) -> None:
        for text in ("KNOWN", ".example", "host", "*.example", "ALL EXCEPT LOCAL"):
            self.assertTrue(hosts_of(text.split()).by_name, text)
        for text in ("ALL", "192.0.2.1 10.", "[::1]", "192.0.2.0/24", "ALL EXCEPT 10."):
            self.assertFalse(hosts_of(text.split()).by_name, text)

    def test_a_long_list_costs_no_more(self) -> None:
        words = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(5000)] + [f".d{n}.test" for n in range(5000)]
        short, long = hosts_of(["10.0.0.0/24", ".d.test"]), hosts_of(words)
        self.assertEqual(counted(lambda: long.has(FRIEND))[1], counted(lambda: short.has(FRIEND))[1])
