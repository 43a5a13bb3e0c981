"""Text becomes settings, or a list of everything that is wrong with it."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.filters import FilterRule
from postoffice.config.options import BY_NAME, OPTIONS
from postoffice.config.places import Endpoint, LogTarget, MailboxRule, NameServer, Tcp
from postoffice.config.report import report
from postoffice.config.settings import ConfigError, RootOnly, Settings
from postoffice.config.values import Disposition, Rate
from postoffice.mail.destination import Remote


def read(text: str, *overrides: str, privileged: bool = True) -> Settings:
    return Settings.from_text(text, "f.cf", overrides, privileged=privileged)


def one(line: str) -> Any:
    settings = read(line)
    return getattr(settings, BY_NAME[line.partition("=")[0]].attribute)


class Defaults(SynchronousTestCase):
    def test_of_the_specification(self) -> None:
        got = read("")
        self.assertEqual(got.listen, (Tcp("0.0.0.0", 25), Tcp("::", 25)))
        self.assertEqual((got.msp, got.smtps, got.metrics, got.web), ((), (), (), ()))
        self.assertEqual((got.user, got.load, got.relay_host, got.log), (None, None, None, ()))
        self.assertEqual((got.clients, got.per_client, got.recipients, got.errors), (100, 20, 1000, 20))
        self.assertEqual((got.size, got.minfree, got.hops), (0, 10 * 1024 * 1024, 100))
        self.assertEqual((got.timeout, got.delay, got.qreturn), (300, 3600, 3 * 86400))
        self.assertEqual(got.retry, (300, 900, 1800, 3600, 7200, 14400, 21600))
        self.assertEqual((got.immediate, got.escape_from, got.verify_from), (True, True, True))
        self.assertEqual(got.mailbox, MailboxRule("mbox", "/var/mail"))
        self.assertEqual(got.vmailbox, MailboxRule("mbox", "/var/spool/virtual/%d"))
        self.assertEqual(got.forbidden, Disposition("bounce"))
        self.assertEqual((got.trusted, got.proxy, got.filter, got.av), ((), (), (), None))
        self.assertEqual((got.tls, got.auth, got.greylist_net), ((("*", "may"),), ("virtual",), (32, 128)))
        self.assertEqual(got.access, ("/etc/hosts.allow", "/etc/hosts.deny"))

    def test_virtual_mailboxes_follow_vspool(self) -> None:
        self.assertEqual(one("vspool=/a%b"), "/a%b")
        self.assertEqual(read("vspool=/a%b").vmailbox, MailboxRule("mbox", "/a%%b/%d"))

    def test_origin(self) -> None:
        got = read("size=1\nlisten=26\nlisten=27\nsize=2\n", "relay")
        self.assertEqual(
            [got.origin(name) for name in ("size", "listen", "relay", "per_client")],
            ["f.cf:4", "f.cf:2 f.cf:3", "-o", "default"],
        )


class Order(SynchronousTestCase):
    def test_later_lines_override(self) -> None:
        self.assertEqual(read("size=1\nsize=2").size, 2)

    def test_lists_accumulate(self) -> None:
        got = read("trusted=a.example\nlisten=127.0.0.1:1\ntrusted=[192.0.2.1]\nlisten=2")
        self.assertEqual(got.trusted, ("a.example", "192.0.2.1"))
        self.assertEqual(got.listen, (Tcp("127.0.0.1", 1), Tcp("0.0.0.0", 2), Tcp("::", 2)))

    def test_overrides_win(self) -> None:
        got = read("size=1\nlisten=1", "size=3", "listen=127.0.0.1:4", "listen=127.0.0.1:5")
        self.assertEqual((got.size, got.listen), (3, (Tcp("127.0.0.1", 4), Tcp("127.0.0.1", 5))))

    def test_older_spellings_are_the_same_option(self) -> None:
        got = read("forbidden=accept\nblacklist=bounce:go away\nself=mx.example")
        self.assertEqual((got.forbidden, got.hostname), (Disposition("bounce", "go away"), "mx.example"))
        self.assertEqual(got.origin("self"), "f.cf:3")

    def test_root_only(self) -> None:
        text = "relay-host=a.example"
        self.assertEqual(read(text, privileged=False).relay_host, Remote("a.example"))
        for name in ("relay-host=b.example", "blacklist=accept", "trusted=b", "spam=accept", "forward-all"):
            with self.assertRaises(RootOnly):
                read(text, name, privileged=False)
        self.assertEqual(read("", "relay-host=b.example").relay_host, Remote("b.example"))


class Values(SynchronousTestCase):
    def assert_values(self, table: dict[str, Any]) -> None:
        for line, value in table.items():
            self.assertEqual(one(line), value, line)

    def test_numbers(self) -> None:
        self.assert_values(
            {
                "clients=0": 0,
                "clients": 1,
                "clients=007": 7,
                "load=8": 8,
                "remote-port=2525": 2525,
                "size=10": 10,
                "size=2k": 2000,
                "size=3M": 3_000_000,
                "size=1g": 10**9,
                "minfree=5": 5120,
                "minfree=5k": 5120,
                "minfree=2m": 2 << 20,
                "minfree=1G": 1 << 30,
                "minfree=0": 0,
                "timeout=90": 90,
                "timeout=2m": 120,
                "delay=1H": 3600,
                "qreturn=2d": 172800,
                "history=1w": 604800,
                "retry=10, 1m": (10, 60),
                "greylist-net=24/64": (24, 64),
            }
        )

    def test_flags(self) -> None:
        self.assert_values(
            {"relay": True, "relay=1": True, "relay=0": False, "relay=No": False, "relay=on": True}
        )

    def test_listen(self) -> None:
        both = (Tcp("0.0.0.0", 26), Tcp("::", 26))
        self.assert_values(
            {
                "listen=26": both,
                "listen=*:26": both,
                "listen=127.0.0.1:0": (Tcp("127.0.0.1", 0),),
                "listen=[::1]:25": (Tcp("::1", 25),),
                "listen=localhost:25": (Tcp("localhost", 25),),
                "listen=tcp:25:interface=127.0.0.1": (Endpoint("tcp:25:interface=127.0.0.1"),),
                "listen=unix:/run/x": (Endpoint("unix:/run/x"),),
                "msp": (Tcp("0.0.0.0", 587), Tcp("::", 587)),
                "msp=0": (),
                "msp=127.0.0.1:26": (Tcp("127.0.0.1", 26),),
                "web=[::1]:80": (Tcp("::1", 80),),
            }
        )

    def test_hosts(self) -> None:
        self.assert_values(
            {
                "relay-host=Mx.Example.": Remote("mx.example"),
                "relay-host=mx.example:26": Remote("mx.example", 26, direct=True),
                "relay-host=[mx.example]": Remote("mx.example", direct=True),
                "relay-host=[mx.example]:26": Remote("mx.example", 26, direct=True),
                "relay-host=[192.0.2.1]:26": Remote("[192.0.2.1]", 26, direct=True),
                "relay-host=192.0.2.1": Remote("[192.0.2.1]", direct=True),
                "relay-host=192.0.2.1:26": Remote("[192.0.2.1]", 26, direct=True),
                "relay-host=[2001:db8::1]:26": Remote("[IPv6:2001:db8::1]", 26, direct=True),
                "nameserver=192.0.2.1": (NameServer("192.0.2.1"),),
                "nameserver=127.0.0.1:5353": (NameServer("127.0.0.1", 5353),),
                "nameserver=2001:db8::1": (NameServer("2001:db8::1"),),
                "nameserver=[2001:db8::1]:54": (NameServer("2001:db8::1", 54),),
                "trusted=[IPv6:2001:DB8::1]": ("2001:db8::1",),
                "trusted=192.0.2.1": ("192.0.2.1",),
                "localdomain=Example.ORG.": ("example.org",),
                "hostname=literal": "literal",
                "hostname=A.b": "a.b",
                "proxy=192.0.2.0/24, 2001:db8::/32": (
                    ip_network("192.0.2.0/24"),
                    ip_network("2001:db8::/32"),
                ),
            }
        )

    def test_mailboxes_and_logs(self) -> None:
        self.assert_values(
            {
                "mailbox=maildir:~/Maildir/": MailboxRule("maildir", "~/Maildir"),
                "mailbox=maildir:/m/%u": MailboxRule("maildir", "/m/%u"),
                "mailbox=mbox:/m": MailboxRule("mbox", "/m"),
                "mailbox=lmtp:/run/lmtp": MailboxRule("lmtp", "/run/lmtp"),
                "mailbox=lmtp:[::1]:24": MailboxRule("lmtp", "::1:24"),
                "vmailbox=lmtp:imap.example:24": MailboxRule("lmtp", "imap.example:24"),
                "vmailbox=maildir:/m/%d/%u": MailboxRule("maildir", "/m/%d/%u"),
                "log=stderr": (LogTarget("stderr"),),
                "log=json:/var/log/x": (LogTarget("file", "/var/log/x", True),),
                "log=json:journal": (LogTarget("journal", json=True),),
                "log=/x": (LogTarget("file", "/x"),),
                "spool=/x/": "/x",
                "access=/a, /b": ("/a", "/b"),
            }
        )

    def test_policy(self) -> None:
        self.assert_values(
            {
                "spam=bounce": Disposition("bounce"),
                "spam=accept": Disposition("accept"),
                "spam=bounce:No: never": Disposition("bounce", "No: never"),
                "spam=folder:~/mail/junk": Disposition("folder", "~/mail/junk"),
                "spam=folder:junk": Disposition("folder", "junk"),
                "spam=folder:~/junk/": Disposition("folder", "~/junk/"),
                "rate=100/1h": (Rate("", 100, 3600),),
                "rate=net:5/60": (Rate("net", 5, 60),),
                "pace=example.org:5/1m": (Rate("example.org", 5, 60),),
                "pace=*:1/2": (Rate("*", 1, 2),),
                "tls=example.org:verify": (("example.org", "verify"),),
                "dnsbl=a.b=127.0.0.2": (("a.b", "127.0.0.2"),),
                "auth=passwd, virtual": ("passwd", "virtual"),
                "av=|/bin/scan -x": "/bin/scan -x",
                "usermap=*-~:~/.alias,bounce": ("*-~:~/.alias,bounce",),
                "subaddress=": "",
                "subaddress=+-": "+-",
                "filter=/run/x": (FilterRule("/run/x"),),
                "filter=/run/a,b,timeout=3,lazy": (FilterRule("/run/a,b", timeout=3, lazy=True),),
                "filter=localhost:99": (FilterRule(host="localhost", port=99),),
                "filter=[::1]:99,on-error=accept,version=4,when=submit,max-data=1M,connect-timeout=1m": (
                    FilterRule(
                        host="::1",
                        port=99,
                        on_error="accept",
                        version=4,
                        when="submit",
                        max_data=1048575,
                        connect_timeout=60,
                    ),
                ),
                "filter=python:a.b:C,when=smtp": (FilterRule(python="a.b:C", when="smtp"),),
                "filter=/x,oversize-header=skip,ignore-denied-actions=1": (
                    FilterRule("/x", oversize_header="skip", ignore_denied_actions=True),
                ),
                "filter=/x,deny=change-body+quarantine": (
                    FilterRule("/x", deny=frozenset({"change-body", "quarantine"})),
                ),
                "filter=/x,when=submit,daemon-name=ORIGINATING": (
                    FilterRule("/x", when="submit", daemon_name={0: "ORIGINATING"}),
                ),
                "filter=/x,daemon-name=MTA+587:ORIGINATING+465:a:b": (
                    FilterRule("/x", daemon_name={0: "MTA", 587: "ORIGINATING", 465: "a:b"}),
                ),
                "filter=/x,skip=login+192.0.2.0/24+2001:db8::/32": (
                    FilterRule("/x", skip=("login", ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))),
                ),
                "filter=python:a.b:C,skip=login,timeout=9,lazy,on-error=accept": (
                    FilterRule(python="a.b:C", skip=("login",), timeout=9, lazy=True, on_error="accept"),
                ),
                "route=example.org:mx.example:26": ("example.org:mx.example:26",),
                "bare-newline=reject": "reject",
            }
        )


class Errors(SynchronousTestCase):
    def problem(self, line: str) -> str:
        with self.assertRaises(ConfigError) as caught:
            read(line)
        (found,) = caught.exception.problems
        self.assertTrue(str(found).startswith("f.cf:1: "), found)
        return found.what

    def test_what_a_python_filter_has_no_use_for(self) -> None:
        for setting in (
            "version=4", "max-data=1M", "connect-timeout=9", "ignore-denied-actions", "oversize-header=skip",
            "deny=quarantine", "daemon-name=MTA",
        ):  # fmt: skip
            what = self.problem(f"filter=python:a.b:C,timeout=9,{setting}")
            self.assertIn(f"{setting.partition('=')[0]}: for milters only", what)

    def test_bad_values(self) -> None:
        for line in (
            "clients=x",
            "clients=-1",
            "clients=1m",
            "clients=",
            "clients=1.5",
            "clients=" + "9" * 5000,
            "clients=٣",
            "size=1d",
            "timeout=1g",
            "timeout=1 h",
            "minfree=1d",
            "relay=2",
            "relay=maybe",
            "workers=0",
            "filter=/x,deny=everything",
            "filter=/x,daemon-name=",
            "filter=/x,daemon-name=a b",
            "filter=/x,daemon-name=x:MTA",
            "filter=/x,daemon-name=0:MTA",
            "filter=/x,daemon-name=587:",
            "filter=/x,skip=",
            "filter=/x,skip=everybody",
            "filter=/x,skip=192.0.2.1/24",
            "filter=/x,deny=add-headers+change-headers+change-body+add-recipients+remove-recipients+quarantine",
            "listen=0",
            "listen=65536",
            "listen=x",
            "listen=::1:25",
            "listen=[::1",
            "listen=a:b",
            "listen=tcp:",
            "listen=:25",
            "listen=[127.0.0.1]:25",
            "listen",
            "msp=x",
            "web",
            "remote-port=0",
            "relay-host=",
            "relay-host=a:b",
            "relay-host=[a",
            "relay-host=[a]b",
            "relay-host=a b",
            "relay-host=a:",
            "nameserver=x",
            "nameserver=1.2.3.4:0",
            "nameserver=1.2.3",
            "trusted=[x]",
            "trusted=a/b",
            "localdomain=bücher.example",
            "localdomain=a..b",
            "localdomain=-a",
            "localdomain=" + "a." * 200 + "b",
            "spool=here",
            "spool",
            "access=/a",
            "user=a b",
            "user=../x",
            "hostname=a_b c",
            "mailbox=lmtp:x",
            "mailbox=lmtp:",
            "mailbox=lmtp:host:99999",
            "mailbox=/x",
            "mailbox=mbox:",
            "mailbox=mbox:~/x",
            "mailbox=maildir:~",
            "mailbox=maildir:~/",
            "mailbox=maildir:/x",
            "mailbox=maildir:/x/%%u",
            "mailbox=maildir:~/%x",
            "mailbox=mbox:/a%",
            "vmailbox=maildir:~/Maildir",
            "mailbox=maildir:x/%u",
            "log=x",
            "log=json:",
            "retry=",
            "retry=5m,,6m",
            "retry=0",
            "retry=x",
            "forbidden=no",
            "forbidden=accept:x",
            "forbidden=folder:",
            "forbidden=folder:a/b",
            "spam=folder:/etc/x",
            "spam=folder:~/",
            "spam=folder:~/../x",
            "spam=folder:~",
            "spam=folder:.x",
            "spam=folder:~/a//b",
            "bare-newline=x",
            "rate=5",
            "rate=x:5/1",
            "rate=0/1",
            "rate=5/0",
            "pace=5/1",
            "tls=may",
            "tls=a:x",
            "greylist-net=24",
            "greylist-net=33/64",
            "proxy=x",
            "proxy=192.0.2.1/24",
            "av=/bin/x",
            "av=|",
            "usermap=x",
            "usermap=~~:x",
            "usermap=x:~",
            "usermap=~:~/../x",
            "usermap=~:~x",
            "usermap=~:~/x\\",
            "usermap=x:a b",
            "usermap=x::include:/x",
            "subaddress=a",
            "subaddress=@",
            "auth=x",
            "route=x",
            "filter=x",
            "filter=a:0",
            "filter=/x,version=5",
            "filter=/x,version=4,nonsense",
            "filter=/x,what=1",
            "filter=python:x.Y",
            "filter=/x,when=",
            "filter=/x,timeout=0",
            "dnsbl=",
            "root-mail=",
        ):
            self.assertTrue(self.problem(line), line)

    def test_say_what_to_do(self) -> None:
        self.assertEqual(
            self.problem("size=3z"), "'3z' has an unknown unit 'z'; use bytes, or a number with k, m or g"
        )
        self.assertEqual(self.problem("relayhost=x"), "unknown option; the nearest known one is relay-host")
        self.assertEqual(self.problem("BLACKLST=x"), "unknown option; the nearest known one is blacklist")
        self.assertEqual(self.problem("zzz"), "unknown option; -bt lists those there are")
        self.assertIn("use lmtp:/socket or lmtp:host:port", self.problem("vmailbox=lmtp:x"))
        self.assertIn("malformed folder path", self.problem("spam=folder:a/b"))

    def test_all_at_once_in_order(self) -> None:
        with self.assertRaises(ConfigError) as caught:
            read('a="\nsize=x\nsize=1\nzz=1\nspool', "hops=x", "=")
        self.assertEqual(
            [(str(one.origin), one.option) for one in caught.exception.problems],
            [
                ("f.cf:1", ""),
                ("f.cf:2", "size"),
                ("f.cf:4", "zz"),
                ("f.cf:5", "spool"),
                ("-o", ""),
                ("-o", "hops"),
            ],
        )

    def test_certificates_have_keys(self) -> None:
        self.assertEqual(read("tls-cert=/c\ntls-key=/k").tls_key, ("/k",))
        self.assertIn("give each certificate its key", self.problem("tls-cert=/c"))
        for text, where in (
            ("tls-cert=/a\ntls-key=/b\ntls-cert=/c", "f.cf:3: tls-cert: there are 2 tls-cert and 1 tls-key;"),
            ("tls-key=/a\ntls-key=/b\ntls-cert=/c", "f.cf:2: tls-key: there are 1 tls-cert and 2 tls-key;"),
        ):
            with self.assertRaises(ConfigError) as caught:
                Settings.from_text(text, "f.cf")
            self.assertIn(where, str(caught.exception))

    def test_implicit_tls_needs_a_certificate(self) -> None:
        settings = read("smtps\ntls-cert=/c\ntls-key=/k")
        self.assertEqual(settings.smtps, (Tcp("0.0.0.0", 465), Tcp("::", 465)))
        self.assertEqual(self.problem("smtps=1"), "needs a certificate; name one with tls-cert and tls-key")


class Properties(SynchronousTestCase):
    lines = st.builds(
        lambda name, value: f"{name}={value}",
        st.sampled_from(sorted(BY_NAME)),
        st.text(max_size=30) | st.from_regex(r"[0-9a-z:/\[\]%~,.*|\" -]{0,20}", fullmatch=True),
    )

    @given(st.lists(lines | st.text(), max_size=6).map("\n".join), st.lists(lines | st.text(), max_size=2))
    def test_any_text_gives_settings_or_problems(self, text: str, overrides: list[str]) -> None:
        try:
            settings = Settings.from_text(text, "f", overrides)
        except ConfigError as error:
            self.assertTrue(error.problems)
            self.assertTrue(all(problem.what for problem in error.problems))
        else:
            self.assertEqual(Settings.from_text(report(settings), "again"), settings)

    @given(st.sampled_from(OPTIONS), st.integers(0, 10**20) | st.text())
    def test_any_single_value(self, option: Any, value: Any) -> None:
        try:
            Settings.from_text("", "f", [f"{option.name}={value}"])
        except ConfigError as error:
            self.assertEqual({problem.origin.file for problem in error.problems}, {"-o"})
