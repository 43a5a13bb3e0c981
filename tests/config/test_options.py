"""The table of options is complete, and agrees with the settings."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from postoffice.config.options import BY_NAME, OPTIONS
from postoffice.config.settings import Settings

# fmt: off
# The names of both tables of the specification.
EVERY = {
    "audit", "checkhelo", "clients", "debug", "delay", "dnscheck", "escape-from", "filter", "forbidden",
    "forward-all", "greylist-from", "hops", "hostname", "immediate", "load", "localmx", "minfree", "msp",
    "mxpool", "nodaemon", "paranoid", "qreturn", "relay", "relay-host", "safe", "size", "spam", "timeout",
    "trusted", "usermap", "verify-from", "listen", "smtps", "user", "spool", "control", "control-group",
    "aliases", "banner", "access", "virtual", "vspool", "vuser", "mailbox", "vmailbox", "localdomain",
    "nameserver", "remote-port", "log", "tls-cert", "tls-key", "auth", "auth-plaintext", "auth-any-sender",
    "msp-auth", "require-helo", "lenient-order", "bare-newline", "per-client", "recipients", "errors",
    "min-rate", "rate", "dnsbl", "dnswl", "greylist", "greylist-net", "greylist-keep", "greylist-null",
    "greylist-max", "proxy", "xclient", "av", "av-timeout", "subaddress", "min-uid", "root-mail",
    "command-timeout", "expansion", "queue-run", "retry", "delay-warning", "history", "pace", "route",
    "relay-auth", "tls", "workers", "metrics", "web", "mailq-all",
}
# fmt: on


class Table(SynchronousTestCase):
    def test_every_option_once(self) -> None:
        self.assertEqual(sorted(option.name for option in OPTIONS), sorted(EVERY))

    def test_older_spellings(self) -> None:
        self.assertEqual((BY_NAME["blacklist"].name, BY_NAME["self"].name), ("forbidden", "hostname"))

    def test_settings_have_one_attribute_each(self) -> None:
        fields = [one.name for one in attrs.fields(Settings)]
        self.assertEqual(fields, [option.attribute for option in OPTIONS] + ["assigned"])

    def test_root_only(self) -> None:
        self.assertEqual(
            {option.name for option in OPTIONS if option.root_only},
            {"spam", "forbidden", "trusted", "relay-host", "forward-all"},
        )

    def test_defaults_say_something(self) -> None:
        for option in OPTIONS:
            self.assertEqual(option.default is None, bool(option.otherwise), option.name)
            self.assertTrue(option.meaning, option.name)
