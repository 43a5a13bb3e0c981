"""Filters written in Python: one that does all a filter can do, pyquarantine, and pyspf-milter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tests.live.filters import OURS, FilterCase, crlf, field, letter, names
from tests.live.names import NameServer
from tests.live.office import run, stored
from tests.live.raw import Elsewhere
from tests.peers import HOST, Postoffice, free_port
from tests.peers.filters import PyQuarantine, PyspfMilter, Scripted
from tests.peers.filters.quarantine import keep

EVERYTHING: Sequence[Sequence[Any]] = (
    ["progress"],
    ["addheader", "X-Added", "one\n\ttwo"],
    ["addheader", "X-Below", "below", 1],
    ["addheader", "X-Top", "top", 0],
    ["chgheader", "Subject", 1, "changed"],
    ["chgheader", "X-Twice", 2, ""],
    ["chgheader", "X-New", 1, "new"],
    ["addrcpt", "<bob@here.test>"],
    ["addrcpt", "<carl@here.test>", "NOTIFY=NEVER"],
    ["delrcpt", "<alice@here.test>"],
    ["chgfrom", "<other@far.test>"],
    ["replacebody", "new\r\n.\r\n"],
    ["replacebody", "body\r\n"],
    ["quarantine", "set aside"],
)
USERS = {"here.test": ("alice", "bob", "carl")}
TWICE = b"X-Twice: 1\nX-Twice: 2\nX-Twice: 3\n"


def action(kind: str, field: str, value: str) -> Mapping[str, Any]:
    """A change of the header as pyquarantine reads it."""
    return {"name": kind, "type": kind, "options": {"field": field, "value": value}}


class Everything(FilterCase):
    def test_every_change_arrives(self) -> None:
        puppet = self.kept(Scripted(self.place("puppet"), EVERYTHING))
        office = self.office(f"filter={puppet.address}", "delay=0", users=USERS)
        self.assertEqual(self.sent(office, letter(header=TWICE))[:3], b"250")
        self.release(office, "on hold: set aside (filter /", "other@far.test")
        for user in ("bob", "carl"):
            content = self.arrived(office, set(), user)
            self.assertTrue(content.endswith(b"\n\nnew\n.\nbody\n"), content)
            self.assertEqual(field(content, b"X-Added"), [b"one\n\ttwo\n"])
            self.assertEqual(field(content, b"Subject"), [b"changed\n"])
            self.assertEqual(field(content, b"X-Twice"), [b"1\n", b"3\n"])
            self.assertEqual(field(content, b"X-New"), [b"new\n"])
            at = names(content).index(b"Received")
            self.assertEqual(names(content)[at - 1 : at + 2], [b"X-Top", b"Received", b"X-Below"])
            self.assertEqual(names(content)[-2:], [b"X-Added", b"X-New"])
            self.assertEqual(field(content, b"Return-Path"), [b"<other@far.test>\n"])
        self.assertEqual(stored(office), [])
        self.check_told(puppet)
        took = r"continue \(\d+ ms, \d+ ms at most\)"
        which, before = rf"filter {puppet.address} on", "behind MAIL, RCPT, DATA"
        for line in (
            rf" {which} connection, HELO of \S+ .*: {took}",
            rf": {which} content of .*: accept \(\d+ ms\), {before}: {took}",
        ):
            self.eventually(line, partial(self.is_logged, office, line), office)

    def is_logged(self, office: Postoffice, line: str) -> bool:
        return re.search(line, office.log()) is not None

    def check_told(self, puppet: Scripted) -> None:
        """What it was told, in order, and its macros."""
        told = [each for each in puppet.seen() if each[0] not in ("close", "header")]
        self.assertEqual(
            [each[0] for each in told],
            ["connect", "hello", "envfrom", "envrcpt", "data", "eoh", "body", "end"],
        )
        self.assertEqual(told[2][1:], ["<ann@far.test>"])
        self.assertEqual(told[3][1:], ["<alice@here.test>"])
        (macros,) = told[-1][1:]
        self.assertEqual((macros["j"], macros["{daemon_name}"]), (OURS.decode(), OURS.decode()))
        self.assertEqual((macros["{client_addr}"], macros["{mail_addr}"]), (HOST, "ann@far.test"))
        self.assertEqual(macros["{msg_id}"], "<hello@far.test>")
        self.assertNotIn("{auth_authen}", macros)
        shown = [each[1:] for each in puppet.seen() if each[0] == "header"]
        self.assertNotIn("Received", [name for name, _ in shown])
        self.assertIn(["X-Twice", "2"], shown)

    def test_twice_in_the_chain(self) -> None:
        first, second = (
            self.kept(
                Scripted(self.place(name), [["addheader", "X-By", name, 1], ["addheader", "X-End", name]])
            )
            for name in ("first", "second")
        )
        office = self.filtered(first, second, first)
        content = self.passes(office, letter())
        self.assertEqual(field(content, b"X-By"), [b"first\n", b"second\n", b"first\n"])
        self.assertEqual(field(content, b"X-End"), [b"first\n", b"second\n", b"first\n"])
        shown = [each[1:] for each in second.seen() if each[0] == "header"]
        self.assertEqual([value for name, value in shown if name.startswith("X-")], ["first", "first"])

    def test_one_that_dies_in_the_middle_changes_nothing(self) -> None:
        untouched = letter(header=TWICE)
        puppet = self.kept(Scripted(self.place("puppet"), EVERYTHING, last="DIE"))
        answers = {"accept": b"250", "tempfail": b"451", "reject": b"550", "quarantine": b"250"}
        for on_error, answer in answers.items():
            name, line = f"office-{on_error}", f"filter={puppet.address},on-error={on_error}"
            office = self.office(line, "delay=0", users=USERS, name=name)
            self.assertEqual(self.sent(office, untouched)[:3], answer, on_error)
            if on_error == "accept":
                content = self.arrived(office, set())
                self.assertTrue(content.endswith(untouched), content)
                self.assertEqual(field(content, b"Return-Path"), [b"<ann@far.test>\n"])
            elif on_error == "quarantine":
                self.assertIn(b" on hold: filter failure: ", run(office, command="mailq").stdout)
            for user in ("bob", "carl"):
                self.assertEqual(stored(office, user), [])
            office.stop()
            puppet.restart()

    def test_one_recipient_of_two(self) -> None:
        """As a filter with a greylist does it."""
        wait = ["451", "4.7.1", "later"]
        puppet = self.kept(Scripted(self.place("puppet"), **{"envrcpt <bob@here.test>": wait}))
        office = self.filtered(puppet)
        with self.calling(office) as caller:
            caller.wire.ask(b"MAIL FROM:<ann@far.test>")
            replies = [caller.wire.ask(b"RCPT TO:<%b@here.test>" % user) for user in (b"bob", b"alice")]
            self.assertEqual([replies[0], replies[1][:3]], [b"451 4.7.1 later\r\n", b"250"])
            caller.wire.ask(b"DATA")
            self.assertEqual(caller.wire.ask(crlf(letter()) + b".")[:3], b"250")
            self.arrived(office, set())
            self.assertEqual(stored(office, "bob"), [])
            puppet.does()
        self.assertEqual(self.sent(office, letter(), recipients=[b"bob@here.test"])[:3], b"250")
        self.arrived(office, set(), "bob")

    def test_refusals_at_every_event(self) -> None:
        puppet = self.kept(Scripted(self.place("puppet")))
        office = self.filtered(puppet)
        said = ["450", "4.7.9", "not 100%% now", "or later"]
        lines = b"MAIL FROM:<ann@far.test>", b"RCPT TO:<alice@here.test>", b"DATA", crlf(letter()) + b"."
        for event, at in (("envfrom", 0), ("envrcpt", 1), ("data", 2), ("header", 3), ("eoh", 3), ("end", 3)):
            puppet.does(**{event: said})
            with self.calling(office) as caller:
                replies = [caller.wire.ask(line) for line in lines[: at + 1]]
            self.assertEqual(replies[at], b"450-4.7.9 not 100% now\r\n450 4.7.9 or later\r\n", event)
        puppet.does(connect="REJECT")
        with self.calling(office) as caller:
            self.assertEqual(caller.banner[:3], b"554")
        puppet.does(hello="REJECT")
        with self.calling(office) as caller:
            self.assertEqual((caller.banner[:3], caller.greeted[:3]), (b"220", b"550"))


class Quarantine(FilterCase):
    def test_rules(self) -> None:
        held = keep(free_port(), milter_action="REJECT", reject_reason="held")
        rules = [
            {
                "name": "marks",
                "conditions": {"headers": ["^Subject: MARKME$"]},
                "actions": [
                    action("add_header", "X-Kept", "no"),
                    action("mod_header", "^Subject$", "marked"),
                    action("del_header", "^X-Twice$", "^2$"),
                ],
            },
            {"name": "keeps", "conditions": {"headers": ["^Subject: KEEPME$"]}, "actions": [held]},
            {
                "name": "takes",
                "conditions": {"headers": ["^Subject: TAKEME$"]},
                "actions": [keep(free_port(), milter_action="ACCEPT")],
            },
        ]
        filter_ = self.kept(PyQuarantine(self.place("filter"), rules))
        office = self.filtered(filter_)
        marked = self.passes(office, letter(b"MARKME", TWICE))
        self.assertEqual(field(marked, b"Subject"), [b"marked\n"])
        self.assertEqual(field(marked, b"X-Kept"), [b"no\n"])
        self.assertEqual(field(marked, b"X-Twice"), [b"1\n", b"3\n"])
        self.assertEqual(self.sent(office, letter(b"KEEPME")), b"554 5.7.0 held\r\n")
        (kept,) = [path for path in filter_.kept.iterdir() if path.suffix != ".metadata"]
        self.assertIn(b"Subject: KEEPME", kept.read_bytes())
        # It names recipients without brackets. Of two it takes away only one, by a mistake of its own.
        both = b"alice@here.test", b"bob@here.test"
        self.assertEqual(self.sent(office, letter(b"TAKEME"), recipients=both)[:3], b"250")
        self.eventually("delivered", lambda: b"empty" in run(office, command="mailq").stdout, office)
        self.assertEqual(len(stored(office)) + len(stored(office, "bob")), 2)


class Spf(FilterCase):
    def test_who_may_not_send_for_a_domain_is_refused_at_mail(self) -> None:
        elsewhere = Elsewhere()
        self.addCleanup(elsewhere.stop)
        server = NameServer({("far.test", "TXT"): "v=spf1 ip4:192.0.2.7 -all"})
        self.addCleanup(server.stop)
        office = self.filtered(self.kept(PyspfMilter(self.place("filter"), nameserver=HOST)))
        passed = self.passes(office, letter(), source="192.0.2.7")
        self.assertIn(b"spf=pass", field(passed, b"Authentication-Results")[0])
        with self.calling(office, "192.0.2.8") as caller:
            reply = caller.wire.ask(b"MAIL FROM:<ann@far.test>")
            self.assertRegex(reply, rb"^550[ -]5\.7\.\d+ .*SPF")
            self.assertEqual(caller.letter(letter(), sender=b"ann@other.test")[:3], b"250")
