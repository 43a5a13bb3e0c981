"""DNS lists: who is on one, and what a broken one does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.reply import Refusal
from postoffice.policy.lists import FAILURES, REST, List, Lists, reversed_name
from tests.doubles import StaticResolver

IP = "192.0.2.9"
NAME = "9.2.0.192.list.example"
PROBE = "1.0.0.127.list.example"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.warnings: list[str] = []
        self.clock = Clock()

    def make(
        self,
        listed: Mapping[str, Sequence[str]],
        *blocks: List,
        welcomes: Sequence[List] = (),
        texts: Mapping[str, Sequence[str]] | None = None,
        failing: Sequence[str] = (),
    ) -> Lists:
        self.resolver = self.answering(listed=listed, texts=texts, failing=failing)
        return self.lists_of(blocks or [("list.example", "")], welcomes)

    def answering(self, **known: Any) -> StaticResolver:
        return StaticResolver(**known)

    def lists_of(self, blocks: Sequence[List], welcomes: Sequence[List]) -> Lists:
        return Lists(blocks, welcomes, self.resolver, self.warnings.append, self.clock.seconds)

    def checked(self, lists: Lists, ip: str = IP) -> str:
        """Empty, or the refusal."""
        done = Deferred.fromCoroutine(lists.check(ip))
        results: list[object] = []
        done.addBoth(results.append)
        while not results:
            self.clock.advance(1)
        if results == [None]:
            return ""
        error = results[0].value  # type: ignore[attr-defined]
        assert isinstance(error, Refusal)
        return str(error.reply)


class Blocked(Case):
    def test_the_reply_names_the_list_and_says_what_it_says(self) -> None:
        lists = self.make({NAME: ["127.0.0.2"]}, texts={NAME: ["see\r\nhttps://list.example/" + "x" * 500]})
        said = self.checked(lists)
        self.assertTrue(
            said.startswith(
                "554 5.7.1 We take no mail from you: [192.0.2.9] is listed at list.example: see?https"
            )
        )
        self.assertLess(len(said), 400)
        self.assertEqual(self.checked(lists, "192.0.2.8"), "")

    def test_without_words(self) -> None:
        expected = "554 5.7.1 We take no mail from you: [192.0.2.9] is listed at list.example"
        self.assertEqual(self.checked(self.make({NAME: ["127.0.0.2"]})), expected)
        lists = self.make({NAME: ["127.0.0.2"], "9.2.0.192.other.example": []}, ("list.example", ""))
        self.assertEqual(self.checked(lists), expected)

    def test_a_code_is_compared(self) -> None:
        for code, found, blocked in (
            ("127.0.0.4", ["127.0.0.2"], False),
            ("127.0.0.4", ["127.0.0.2", "127.0.0.4"], True),
            ("127.0.1.4", ["127.0.0.4"], False),
        ):
            said = self.checked(self.make({NAME: found}, ("list.example", code)))
            self.assertEqual(bool(said), blocked, (code, found))

    def test_ipv6(self) -> None:
        name = f"{reversed_name('2001:db8::9')}.list.example"
        self.assertTrue(name.startswith("9.0.0.0.0.0.0.0.") and "8.b.d.0.1.0.0.2.list" in name)
        self.assertIn("[2001:db8::9]", self.checked(self.make({name: ["127.0.0.2"]}), "2001:db8::9"))

    def test_welcome(self) -> None:
        lists = self.make({NAME: ["127.0.5.1"]}, ("other.example", ""), welcomes=[("list.example", "")])
        self.assertTrue(self.successResultOf(Deferred.fromCoroutine(lists.welcome(IP))))
        self.assertFalse(self.successResultOf(Deferred.fromCoroutine(lists.welcome("192.0.2.8"))))
        self.assertEqual(self.checked(lists), "")


class Broken(Case):
    def test_A10_answers_that_are_none(self) -> None:
        for answer in ("192.0.2.1", "127.255.255.254", "10.0.0.1", "128.0.0.1"):
            self.assertEqual(self.checked(self.make({NAME: [answer]})), "", answer)

    def test_no_answer(self) -> None:
        self.assertEqual(self.checked(self.make({NAME: ["127.0.0.2"]}, failing=[NAME])), "")
        self.assertEqual(self.checked(self.make({NAME: ["127.0.0.2"]}, failing=[PROBE])), "")
        self.assertEqual(self.warnings, [])

    def test_one_that_lists_everybody(self) -> None:
        lists = self.make({NAME: ["127.0.0.2"], PROBE: ["127.0.0.2"]})
        for _ in range(2):
            self.assertEqual(self.checked(lists), "")
        self.assertEqual(
            self.warnings,
            ["the DNS list list.example lists even 127.0.0.1; it does not count until it is mended"],
        )

    def test_others_still_count(self) -> None:
        lists = self.make(
            {"9.2.0.192.two.example": ["127.0.0.2"]},
            ("list.example", ""),
            ("two.example", ""),
            failing=[NAME],
        )
        self.assertIn("two.example", self.checked(lists))


class SlowResolver(StaticResolver):
    """Answers after a second, but at once what it was `told` before."""

    def __init__(self, clock: Clock, told: Sequence[str], **known: Any) -> None:
        super().__init__(**known)
        self.clock = clock
        self.told = told

    def listing(self, name: str) -> Deferred[tuple[str, ...]]:
        answer = super().listing(name)
        if name in self.told:
            return answer
        later: Deferred[tuple[str, ...]] = Deferred()
        self.clock.callLater(1, answer.chainDeferred, later)
        return later


class Dead(Case):
    """A list that does not answer any more, for clients who come one after the other."""

    told: Sequence[str] = ()

    def answering(self, **known: Any) -> StaticResolver:
        return SlowResolver(self.clock, self.told, **known)

    def setUp(self) -> None:
        super().setUp()
        self.clients = [f"198.51.100.{number}" for number in range(1, FAILURES + 4)]
        self.names = [f"{reversed_name(ip)}.list.example" for ip in self.clients]

    def come(self, lists: Lists, *clients: str) -> list[str]:
        """What is asked about each of them."""
        before = len(self.resolver.asked)
        for ip in clients:
            self.assertEqual(self.checked(lists, ip), "")
        return [name for _, name in self.resolver.asked[before:]]

    def test_it_is_asked_for_one_client_a_minute(self) -> None:
        lists = self.make({}, failing=self.names)
        self.assertEqual(self.come(lists, *self.clients), self.names[:FAILURES])
        self.assertEqual(
            self.warnings, ["the DNS list list.example does not answer; it lists nobody until it does"]
        )
        lists.begin(IP)
        self.clock.advance(REST - 0.1)
        self.assertEqual(self.come(lists, *self.clients), [])
        self.clock.advance(0.1)
        self.assertEqual(self.come(lists, *self.clients), self.names[:1])
        self.clock.advance(REST)
        self.assertEqual(self.come(lists, *self.clients), self.names[:1])
        self.assertEqual(len(self.warnings), 1)

    def test_what_is_remembered_does_not_count(self) -> None:
        self.clients.insert(3, "203.0.113.1")
        told = [PROBE, self.names[2], f"{reversed_name('203.0.113.1')}.list.example"]
        self.told = told
        lists = self.make({}, failing=self.names)
        for ip in self.clients:
            lists.begin(ip)
            self.checked(lists, ip)
        self.assertEqual(len(self.warnings), 1)

    def test_it_counts_again_with_its_first_answer(self) -> None:
        lists = self.make({NAME: ["127.0.0.2"]}, failing=self.names)
        self.come(lists, *self.clients)
        self.assertEqual(self.checked(lists), "")
        self.clock.advance(REST)
        self.assertIn("is listed at list.example", self.checked(lists))
        self.assertIn("is listed at list.example", self.checked(lists))
        self.assertEqual(self.warnings[1:], ["the DNS list list.example answers again"])

    def test_failures_between_answers_are_none(self) -> None:
        lists = self.make({}, failing=self.names)
        for _ in range(3):
            self.come(lists, *self.clients[: FAILURES - 1])
            self.come(lists, IP)
        self.assertEqual(self.warnings, [])

    def test_other_lists_are_asked(self) -> None:
        listed = {"9.2.0.192.two.example": ["127.0.0.2"]}
        lists = self.make(listed, ("list.example", ""), ("two.example", ""), failing=self.names)
        self.come(lists, *self.clients)
        self.assertIn("two.example", self.checked(lists))


class Asking(Case):
    def test_in_advance(self) -> None:
        lists = self.make({}, ("list.example", ""), welcomes=[("good.example", "")], failing=[NAME])
        lists.begin(IP)
        self.assertEqual(
            {name for _, name in self.resolver.asked},
            {NAME, PROBE, "9.2.0.192.good.example", "1.0.0.127.good.example"},
        )

    def test_nothing_without_lists(self) -> None:
        self.resolver = StaticResolver()
        lists = self.lists_of((), ())
        lists.begin(IP)
        self.assertEqual(self.checked(lists), "")
        self.assertEqual(self.resolver.asked, [])
