from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery.link import PIECE, TIMEOUTS
from postoffice.delivery.remote import Outcomes, RemoteDelivery, RemoteSettings
from postoffice.interfaces import IContent, IDelivery, SpoolFailed
from postoffice.mail.address import Address
from postoffice.mail.destination import Remote
from postoffice.mail.envelope import Letter, Recipient
from postoffice.mail.outcome import Delivered, Failed, Outcome, Postponed
from postoffice.mail.reply import Reply
from tests.delivery.far import CLOSE, SILENCE, Content, Network
from tests.doubles import StaticResolver

A, B, C, OWN = "192.0.2.1", "192.0.2.2", "2001:db8::3", "192.0.2.99"
FAR = Remote("far.test")
DIRECT = Remote(f"[{A}]", 2525, True)


class RemoteTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.office()

    def tearDown(self) -> None:
        """Nothing is left behind: no connection, no delayed call."""
        stopped = self.delivery.stop()
        self.network.turn()
        self.network.advance(5)
        self.network.turn()
        self.successResultOf(stopped)
        self.assertEqual([connection for connection in self.network.connections if connection.open], [])
        self.assertEqual(self.network.getDelayedCalls(), [])

    def office(
        self,
        mx: Mapping[str, Sequence[tuple[int, str]]] | None = None,
        addresses: Mapping[str, Sequence[str]] | None = None,
        failing: Sequence[str] = (),
        seed: int = 1,
    ) -> None:
        self.resolver = StaticResolver(mx, addresses, failing=failing)
        self.delivery = RemoteDelivery(
            self.network,
            self.resolver,
            RemoteSettings("me.test"),
            lambda: frozenset((OWN, "::5")),
            Random(seed),
        )

    def start(
        self,
        route: Remote = DIRECT,
        content: IContent | None = None,
        recipients: Sequence[str] = ("bob@far.test",),
        sender: Address | None = None,
    ) -> Deferred[Outcomes]:
        content = content or Content(b"Hi\r\n", held=True)
        letter = Letter("L1", sender, "7BIT", content.size, 0.0, "test")
        return self.delivery.deliver(
            letter,
            content,
            route,
            [Recipient(at + 7, Address(*text.split("@")), 0.0) for at, text in enumerate(recipients)],
        )

    def send(self, route: Remote = DIRECT, **more: Any) -> list[Outcome]:
        """Deliver and wait for the end: the outcomes in the order of the recipients."""
        result = self.start(route, **more)
        self.network.turn()
        outcomes = self.successResultOf(result)
        return [outcomes[key] for key in sorted(outcomes)]

    def send_one(self, route: Remote = DIRECT, **more: Any) -> Outcome:
        (outcome,) = self.send(route, **more)
        return outcome


class OutcomeTests(RemoteTests):
    def test_interface(self) -> None:
        self.assertTrue(IDelivery.providedBy(self.delivery))

    def test_delivered(self) -> None:
        far = self.network.add(A, 2525)
        outcomes = self.send(
            content=Content(b"a\r\n.b", held=True), recipients=("bob@far.test", "postmaster@")
        )
        delivered = Delivered(Reply(250, (0, 0), "Ok"), f"[{A}]:2525")
        self.assertEqual(outcomes, [delivered, delivered])
        self.assertEqual(
            far.commands,
            [
                "EHLO me.test",
                "MAIL FROM:<> SIZE=5",
                "RCPT TO:<bob@far.test>",
                "RCPT TO:<postmaster@me.test>",
                "DATA",
            ],
        )
        self.assertEqual(far.letters, [b"a\r\n..b\r\n"])
        self.assertTrue(self.network.connections[0].nodelay)

    def test_larger_than_the_host_takes(self) -> None:
        far = self.network.add(A, 2525, {"EHLO": b"250-far\r\n250 SIZE 3\r\n"})
        for _ in range(2):
            outcome = self.send_one()
            self.assertEqual((type(outcome), outcome.reply.status), (Failed, "5.3.4"))
        self.assertEqual((far.commands, len(self.network.connections)), (["EHLO me.test"], 1))

    def test_bare_sender(self) -> None:
        far = self.network.add(A, 2525)
        self.send(sender=Address("root", ""))
        self.assertIn("MAIL FROM:<root@me.test> SIZE=4", far.commands)

    def test_keys(self) -> None:
        self.network.add(
            A, 2525, {"RCPT TO:<a@x>": b"550 5.1.1 who\r\n", "RCPT TO:<c@x>": b"450 4.2.1 wait\r\n"}
        )
        result = self.start(recipients=("a@x", "b@x", "c@x"))
        self.network.turn()
        outcomes = self.successResultOf(result)
        self.assertEqual(
            {key: type(outcome) for key, outcome in outcomes.items()}, {7: Failed, 8: Delivered, 9: Postponed}
        )

    def test_connection_refused(self) -> None:
        outcome = self.send_one()
        assert isinstance(outcome, Postponed)
        self.assertEqual((outcome.reply.code, outcome.reply.status), (441, "4.4.1"))
        self.assertIn("refused", outcome.reply.text)
        self.assertEqual(outcome.where, f"[{A}]:2525")

    def test_connecting_takes_too_long(self) -> None:
        self.network.hosts[A, 2525] = None
        result = self.start()
        self.network.advance(29)
        self.assertNoResult(result)
        self.network.advance(1)
        outcome = self.successResultOf(result)[7]
        assert isinstance(outcome, Postponed)
        self.assertEqual(outcome.reply.status, "4.4.1")

    def test_refused_by_the_banner(self) -> None:
        for line, reply in (
            (b"554 5.7.1 no\r\n", Reply(554, (7, 1), "no")),
            (b"421 busy\r\n", Reply(421, None, "busy")),
        ):
            far = self.network.add(A, 2525, {"banner": line})
            self.assertEqual(self.send_one(), Postponed(reply, f"[{A}]:2525"))
            self.assertEqual(far.commands, ["QUIT"])

    def test_closed_at_the_door(self) -> None:
        self.network.add(A, 2525, {"banner": CLOSE})
        outcome = self.send_one()
        assert isinstance(outcome, Postponed)
        self.assertEqual(
            outcome.reply, Reply(442, (4, 2), "lost the connection waiting for the reply to greeting")
        )

    def test_lost_after_the_content(self) -> None:
        far = self.network.add(A, 2525, {".": CLOSE})
        outcome = self.send_one()
        assert isinstance(outcome, Postponed)
        self.assertEqual(outcome.reply.status, "4.4.2")
        self.assertEqual(len(self.network.tried), 1, "a second attempt at once could make a duplicate")
        self.assertEqual(len(far.letters), 1)

    def test_speaks_ahead(self) -> None:
        self.network.add(A, 2525, {"EHLO": b"250 far\r\n250 more\r\n"})
        self.assertEqual(self.send_one().reply.status, "4.5.0")

    def test_nonsense_while_connected(self) -> None:
        self.network.add(A, 2525, {"MAIL": b"HTTP/1.0 400 Bad\r\n"})
        outcome = self.send_one()
        assert isinstance(outcome, Postponed)
        self.assertEqual(outcome.reply.status, "4.5.0")

    def test_timeouts(self) -> None:
        for verb, awaited in (
            ("banner", "greeting"), ("EHLO", "EHLO"), ("MAIL", "MAIL"), ("RCPT", "RCPT"), ("DATA", "DATA"),
            (".", "end of data"),
        ):  # fmt: skip
            self.network.add(A, 2525, {verb: SILENCE, "EHLO": b"250 far\r\n"} | ({verb: SILENCE}))
            result = self.start()
            self.network.turn()
            limit = TIMEOUTS[awaited]
            for _ in range(int(limit) - 1):
                self.network.advance(1)
            self.assertNoResult(result)
            self.network.advance(1)
            self.network.turn()
            outcome = self.successResultOf(result)[7]
            assert isinstance(outcome, Postponed)
            self.assertEqual(
                outcome.reply, Reply(442, (4, 2), f"timed out waiting for the reply to {awaited}")
            )
            self.assertTrue(self.network.connections[-1].aborted)

    def test_cancelled(self) -> None:
        self.network.hosts[A, 2525] = None
        for replies in (
            None,
            {"banner": SILENCE},
            {"EHLO": SILENCE},
            {"MAIL": SILENCE, "EHLO": b"250 far\r\n"},
        ):
            if replies is not None:
                self.network.add(A, 2525, replies)
            result = self.start()
            self.network.turn()
            result.cancel()
            self.failureResultOf(result, CancelledError)
            self.network.turn()
            self.assertEqual(self.network.getDelayedCalls(), [])


class RouteTests(RemoteTests):
    def where(self, domain: str = "far.test") -> str:
        outcome = self.send_one(Remote(domain))
        self.assertIsInstance(outcome, Delivered)
        return outcome.where

    def refused(self, domain: str = "far.test") -> tuple[type[Outcome], str]:
        outcome = self.send_one(Remote(domain), recipients=[f"bob@{domain}"])
        self.assertEqual(self.network.tried, [])
        return type(outcome), outcome.reply.status

    def test_release_1_5_2_lowest_preference_first(self) -> None:
        self.office({"far.test": [(20, "b.test"), (10, "a.test")]}, {"a.test": [A], "b.test": [B]})
        self.network.add(A)
        self.assertEqual(self.where(), f"a.test[{A}]:25")
        self.assertNotIn(("addresses", "b.test"), self.resolver.asked)

    def test_release_1_5_2_equal_ones_are_shuffled(self) -> None:
        first = set()
        for seed in range(8):
            self.office(
                {"far.test": [(10, "a.test"), (10, "b.test")]}, {"a.test": [A], "b.test": [B]}, seed=seed
            )
            self.send_one(FAR)
            first.add(self.network.tried[0])
            self.network.tried.clear()
        self.assertEqual(first, {(A, 25), (B, 25)})

    def test_next_host_when_there_is_no_conversation(self) -> None:
        for replies in (
            None,
            {"banner": b"554 no\r\n"},
            {"EHLO": CLOSE},
            {"MAIL": CLOSE},
            {"MAIL": b"421 busy\r\n"},
        ):
            self.office({"far.test": [(10, "a.test"), (20, "b.test")]}, {"a.test": [A], "b.test": [B]})
            if replies is not None:
                self.network.add(A, replies=replies)
            self.network.add(B)
            self.assertEqual(self.where(), f"b.test[{B}]:25")

    def test_no_next_host_after_a_verdict(self) -> None:
        self.office({"far.test": [(10, "a.test"), (20, "b.test")]}, {"a.test": [A], "b.test": [B]})
        self.network.add(A, replies={"MAIL": b"451 4.3.0 later\r\n"})
        self.network.add(B)
        self.assertEqual(self.send_one(FAR), Postponed(Reply(451, (3, 0), "later"), f"a.test[{A}]:25"))

    def test_last_reason_when_all_fail(self) -> None:
        self.office({"far.test": [(10, "a.test"), (20, "b.test")]}, {"a.test": [A], "b.test": [C, B]})
        outcome = self.send_one(FAR)
        self.assertEqual(self.network.tried, [(A, 25), (C, 25), (B, 25)])
        self.assertEqual(
            (type(outcome), outcome.reply.status, outcome.where), (Postponed, "4.4.1", f"b.test[{B}]:25")
        )

    def test_at_most_ten_addresses(self) -> None:
        ips = [f"192.0.2.{at}" for at in range(100, 150)]
        self.office({"far.test": [(10, "a.test")]}, {"a.test": ips})
        self.send_one(FAR)
        self.assertEqual(len(self.network.tried), 10)

    def test_at_most_ten_hosts_are_looked_up(self) -> None:
        self.office({"far.test": [(at, f"h{at}.test") for at in range(1000)]})
        self.send_one(FAR)
        self.assertEqual(len([what for what, _ in self.resolver.asked if what == "addresses"]), 10)

    def test_no_exchanger(self) -> None:
        self.office({}, {"far.test": [A]})
        self.network.add(A)
        self.assertEqual(self.where(), f"far.test[{A}]:25")

    def test_address_literal(self) -> None:
        self.network.add(A)
        self.network.add(C)
        self.assertEqual(self.where(f"[{A}]"), f"[{A}]:25")
        self.assertEqual(self.where(f"[IPv6:{C}]"), f"[{C}]:25")
        self.assertEqual(self.resolver.asked, [])

    def test_literal_that_is_none(self) -> None:
        self.assertEqual(self.refused("[192.0.2]"), (Failed, "5.1.2"))

    def test_port_of_the_destination(self) -> None:
        self.office({"far.test": [(10, "a.test")]}, {"a.test": [A]})
        self.network.add(A, 26)
        self.assertEqual(self.send_one(Remote("far.test", 26)).where, f"a.test[{A}]:26")

    def test_null_exchanger(self) -> None:
        self.office({"far.test": [(0, "")]}, {"far.test": [A]})
        self.assertEqual(self.refused(), (Failed, "5.1.10"))

    def test_no_such_domain(self) -> None:
        self.assertEqual(self.refused(), (Failed, "5.1.2"))

    def test_neither_exchanger_nor_address(self) -> None:
        self.office({"far.test": []})
        self.assertEqual(self.refused(), (Failed, "5.1.2"))

    def test_exchangers_without_addresses(self) -> None:
        self.office({"far.test": [(10, "a.test"), (20, "b.test")], "b.test": []})
        self.assertEqual(self.refused(), (Failed, "5.4.4"))

    def test_no_answer_of_the_dns(self) -> None:
        self.office({"far.test": [(10, "a.test")]}, failing=["far.test"])
        self.assertEqual(self.refused(), (Postponed, "4.4.3"))
        self.office({"far.test": [(10, "a.test")]}, failing=["a.test"])
        self.assertEqual(self.refused(), (Postponed, "4.4.3"))
        self.office({"far.test": []}, failing=["far.test"])
        self.assertEqual(self.refused(), (Postponed, "4.4.3"))

    def test_other_hosts_when_the_dns_fails_for_one(self) -> None:
        self.office({"far.test": [(10, "a.test"), (20, "b.test")]}, {"b.test": [B]}, failing=["a.test"])
        self.network.add(B)
        self.assertEqual(self.where(), f"b.test[{B}]:25")

    def test_only_better_ones_than_ourselves(self) -> None:
        for ours, addresses in (("c.test", [OWN]), ("ME.test.", [B])):
            self.office(
                {"far.test": [(10, "a.test"), (20, ours), (20, "d.test"), (30, "b.test")]},
                {"a.test": [A], ours: addresses, "d.test": [B], "b.test": [B]},
            )
            self.network.tried.clear()
            self.assertEqual(self.send_one(FAR).reply.status, "4.4.1")
            self.assertEqual(self.network.tried, [(A, 25)])

    def test_we_are_the_best(self) -> None:
        self.office({"far.test": [(10, "c.test"), (20, "a.test")]}, {"a.test": [A], "c.test": [OWN]})
        self.assertEqual(self.refused(), (Failed, "5.4.6"))
        self.office({}, {"far.test": [A, OWN]})
        self.assertEqual(self.refused(), (Failed, "5.4.6"))

    def test_we_are_next_to_one_that_is_not_known(self) -> None:
        self.office({"far.test": [(10, "a.test"), (20, "c.test")]}, {"c.test": [OWN]}, failing=["a.test"])
        self.assertEqual(self.refused(), (Postponed, "4.4.3"))

    def test_loopback_is_never_used(self) -> None:
        for ip in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "224.0.0.1", "junk"):
            self.office({"far.test": [(10, "a.test")]}, {"a.test": [ip]})
            self.assertEqual(self.refused(), (Failed, "5.4.4"), ip)
        self.assertEqual(self.refused("[127.0.0.1]"), (Failed, "5.4.4"))

    def test_direct(self) -> None:
        self.office({"relay.test": [(10, "a.test")]}, {"relay.test": ["127.0.0.1"], "a.test": [A]})
        self.network.add("127.0.0.1", 2525)
        self.network.add("127.0.0.1", 25)
        self.assertEqual(self.send_one(Remote("relay.test", 2525, True)).where, "relay.test[127.0.0.1]:2525")
        self.assertEqual(self.send_one(Remote("[127.0.0.1]", 0, True)).where, "[127.0.0.1]:25")

    def test_direct_host_that_cannot_be_looked_up(self) -> None:
        self.office(failing=["relay.test"])
        outcome = self.send_one(Remote("relay.test", 0, True))
        self.assertEqual((type(outcome), outcome.reply.status), (Postponed, "4.4.3"))

    def test_direct_host_that_does_not_exist(self) -> None:
        outcome = self.send_one(Remote("relay.test", 0, True))
        self.assertEqual((type(outcome), outcome.reply.status), (Postponed, "4.4.4"))

    def test_what_the_operator_can_mend_is_not_final(self) -> None:
        for mx, addresses in (
            ({}, {}),
            ({"relay.test": [(0, "")]}, {}),
            ({"relay.test": [(10, "a.test")]}, {"a.test": [OWN]}),
            ({"relay.test": [(10, "a.test")]}, {"a.test": ["127.0.0.1"]}),
        ):
            self.office(mx, addresses)
            outcome = self.send_one(Remote("relay.test"))
            self.assertEqual((type(outcome), outcome.reply.status), (Postponed, "4.4.4"))
            self.assertIs(type(self.send_one(Remote("relay.test"), recipients=["bob@Relay.test"])), Failed)


class ReuseTests(RemoteTests):
    def test_begins_in_the_same_turn(self) -> None:
        self.network.add(A, 2525)
        self.send()
        (connection,) = self.network.connections
        before = len(connection.sent)
        result = self.start()
        self.assertTrue(connection.sent[before:].startswith(b"MAIL FROM"), connection.sent)
        self.network.turn()
        self.assertIsInstance(self.successResultOf(result)[7], Delivered)
        self.assertEqual(len(self.network.connections), 1)

    def test_free_before_the_result_is_known(self) -> None:
        far = self.network.add(A, 2525)
        results: list[Deferred[Outcomes]] = []
        self.start().addCallback(lambda _: results.append(self.start()))
        self.network.turn()
        self.assertIsInstance(self.successResultOf(results[0])[7], Delivered)
        self.assertEqual((len(self.network.connections), len(far.letters)), (1, 2))
        self.assertNotIn("RSET", far.commands)

    def test_reset_when_something_is_left(self) -> None:
        far = self.network.add(A, 2525, {"RCPT TO:<no@x>": b"550 5.1.1 no\r\n"})
        far.replies["DATA"] = b"554 nobody\r\n"
        self.send(recipients=("no@x",))
        del far.replies["DATA"]
        self.assertIsInstance(self.send_one(), Delivered)
        self.assertEqual(far.commands[4:6], ["RSET", "MAIL FROM:<> SIZE=4"])

    def test_one_at_a_time(self) -> None:
        self.network.add(A, 2525)
        results = [self.start(), self.start()]
        self.network.turn()
        self.assertEqual(len(self.network.connections), 2)
        results = [self.start(), self.start()]
        self.network.turn()
        self.assertEqual(len(self.network.connections), 2)
        for result in results:
            self.assertIsInstance(self.successResultOf(result)[7], Delivered)

    def test_closed_while_it_rested(self) -> None:
        far = self.network.add(A, 2525)
        for how in (CLOSE, b"421 4.4.2 idle too long\r\n"):
            far.letters.clear()
            self.send()
            far.once["MAIL"] = how
            self.assertIsInstance(self.send_one(), Delivered)
            self.assertEqual(far.once, {})
            self.assertEqual(len(far.letters), 2)

    def test_retried_once_only(self) -> None:
        far = self.network.add(A, 2525)
        self.send()
        far.replies["MAIL"] = CLOSE
        self.assertIsInstance(self.send_one(), Postponed)
        self.assertEqual(len(self.network.connections), 2)

    def test_not_after_the_host_took_it_up(self) -> None:
        far = self.network.add(A, 2525)
        self.send()
        far.replies["."] = CLOSE
        self.assertIsInstance(self.send_one(), Postponed)
        self.assertEqual(len(self.network.connections), 1)

    def test_seen_to_close_while_it_rests(self) -> None:
        self.network.add(A, 2525)
        self.send()
        self.network.connections[0].drop(ConnectionLost())
        self.assertIsInstance(self.send_one(), Delivered)
        self.send()
        self.network.connections[1].say(b"421 4.4.2 idle\r\n")
        self.assertIsInstance(self.send_one(), Delivered)
        self.assertEqual(len(self.network.connections), 3)

    def test_half_a_reply_while_it_rests(self) -> None:
        self.network.add(A, 2525)
        self.send()
        self.network.connections[0].say(b"42")
        self.assertIsInstance(self.send_one(), Delivered)
        self.assertEqual([connection.open for connection in self.network.connections], [False, True])

    def test_for_another_domain_with_the_same_host(self) -> None:
        self.office({"far.test": [(10, "a.test")], "other.test": [(10, "a.test")]}, {"a.test": [A]})
        self.network.add(A)
        self.send(FAR)
        self.send(Remote("other.test"))
        self.send(Remote("other.test"))
        self.assertEqual(len(self.network.connections), 1)
        self.assertEqual(self.resolver.asked.count(("exchangers", "other.test")), 1)
        self.send(Remote("other.test", 26))
        self.assertEqual(self.network.tried, [(A, 25), (A, 26)])

    def test_closed_when_idle(self) -> None:
        far = self.network.add(A, 2525)
        self.send()
        for _ in range(4):
            self.network.advance(1)
        self.assertNotIn("QUIT", far.commands)
        self.network.advance(1)
        self.network.turn()
        self.assertEqual(far.commands[-1], "QUIT")
        self.assertFalse(self.network.connections[0].open)
        self.assertIsInstance(self.send_one(), Delivered)

    def test_host_that_does_not_take_leave(self) -> None:
        self.network.add(A, 2525, {"QUIT": SILENCE})
        self.send()
        for _ in range(5):
            self.network.advance(1)
        self.network.turn()
        self.assertTrue(self.network.connections[0].open)
        for _ in range(5):
            self.network.advance(1)
        self.network.turn()
        self.assertTrue(self.network.connections[0].aborted)

    def test_four_are_kept_for_long(self) -> None:
        self.network.add(A, 2525)
        for _ in range(7):
            self.start()
        self.network.turn()
        self.assertEqual(len([connection for connection in self.network.connections if connection.open]), 7)
        self.network.advance(1)
        self.network.turn()
        self.assertEqual(
            [connection.open for connection in self.network.connections], [False] * 3 + [True] * 4
        )

    def test_not_for_ever(self) -> None:
        self.network.add(A, 2525)
        for _ in range(76):
            self.assertIsInstance(self.send_one(), Delivered)
            for _ in range(4):
                self.network.advance(1)
        self.assertEqual(len(self.network.connections), 1)
        self.send()
        self.send()
        self.assertEqual(len(self.network.connections), 2)


class StreamTests(RemoteTests):
    def test_in_pieces(self) -> None:
        far = self.network.add(A, 2525)
        self.assertIsInstance(self.send_one(content=Content(b"a\r", b"\n.", b"b\r\n")), Delivered)
        self.assertEqual(far.letters, [b"a\r\n..b\r\n"])

    def test_large_and_held(self) -> None:
        far = self.network.add(A, 2525)
        data = b"x" * (2 * PIECE + 1) + b"\r\n"
        self.assertIsInstance(self.send_one(content=Content(data, held=True)), Delivered)
        self.assertEqual(far.letters, [data])

    def test_no_faster_than_the_host_takes_it(self) -> None:
        self.network.add(A, 2525)
        self.send()
        (connection,) = self.network.connections
        connection.stuck = True
        result = self.start(content=Content(b"a\r\n", b"b\r\n"))
        self.network.turn()
        self.assertTrue(connection.sent.endswith(b"DATA\r\na\r\n"))
        connection.producer.resumeProducing()
        self.assertTrue(connection.sent.endswith(b"DATA\r\na\r\nb\r\n"))
        connection.producer.resumeProducing()
        self.network.turn()
        self.assertIsInstance(self.successResultOf(result)[7], Delivered)
        self.assertIsNone(connection.producer)

    def test_host_that_takes_nothing(self) -> None:
        self.network.add(A, 2525)
        self.send()
        (connection,) = self.network.connections
        connection.stuck = True
        result = self.start(content=Content(b"a\r\n", b"b\r\n"))
        self.network.turn()
        for _ in range(180):
            self.network.advance(1)
        self.network.turn()
        outcome = self.successResultOf(result)[7]
        self.assertEqual(outcome.reply, Reply(442, (4, 2), "timed out sending the content"))

    def test_lost_while_the_disk_is_read(self) -> None:
        self.network.add(A, 2525)
        disk: Deferred[bytes] = Deferred()
        result = self.start(content=Content(b"a\r\n", disk))
        self.network.turn()
        self.network.connections[0].drop(ConnectionLost())
        outcome = self.successResultOf(result)[7]
        self.assertEqual((type(outcome), outcome.reply.status), (Postponed, "4.4.2"))
        self.assertTrue(disk.called, "nobody waits for it any more")

    def test_refused_while_sending(self) -> None:
        self.network.add(A, 2525)
        result = self.start(content=Content(b"a\r\n", Deferred()))
        self.network.turn()
        (connection,) = self.network.connections
        connection.say(b"552 5.3.4 enough\r\n")
        outcome = self.successResultOf(result)[7]
        self.assertEqual((type(outcome), outcome.reply), (Postponed, Reply(552, (3, 4), "enough")))
        self.assertTrue(connection.sent.endswith(b"a\r\n"), "neither an end nor QUIT inside a letter")
        self.assertTrue(connection.aborted)

    def test_cannot_be_read(self) -> None:
        far = self.network.add(A, 2525)
        outcome = self.send_one(content=Content(b"a\r\n", SpoolFailed("disk on fire")))
        self.assertEqual((type(outcome), outcome.reply.status, far.letters), (Postponed, "4.3.0", []))
        self.assertIn("disk on fire", outcome.reply.text)
        self.assertEqual(outcome.where, "", "it was not the host who said so")
        self.assertTrue(self.network.connections[0].aborted)

    def test_a_bug_is_no_outcome(self) -> None:
        far = self.network.add(A, 2525)
        result = self.start(content=Content(b"a\r\n", ZeroDivisionError()))
        self.network.turn()
        self.failureResultOf(result, ZeroDivisionError)
        self.assertEqual(far.letters, [])


class StopTests(RemoteTests):
    def test_takes_leave(self) -> None:
        far = self.network.add(A, 2525)
        self.send()
        stopped = self.delivery.stop()
        self.assertNoResult(stopped)
        self.network.turn()
        self.successResultOf(stopped)
        self.assertEqual(far.commands[-1], "QUIT")

    def test_a_delivery_that_ends_later(self) -> None:
        far = self.network.add(A, 2525, {".": SILENCE})
        result = self.start()
        self.network.turn()
        stopped = self.delivery.stop()
        self.network.turn()
        self.network.connections[0].say(b"250 ok\r\n")
        self.network.turn()
        self.assertIsInstance(self.successResultOf(result)[7], Delivered)
        self.successResultOf(stopped)
        self.assertEqual(far.commands[-1], "QUIT")
