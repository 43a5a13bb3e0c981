from __future__ import annotations

from collections.abc import Sequence
from random import Random

import dns.flags
import dns.message
import dns.rcode
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from postoffice.interfaces import MailExchanger, NoSuchDomain, ResolverFailure
from postoffice.services.dns.resolver import Resolver
from tests.services.dns.network import SOA, Network, Serve, reply, zone

ONE = ("192.0.2.1", 53)
TWO = ("2001:db8::2", 5353)
MX = ["example 300 MX 20 b.example.", "example 300 MX 10 A.example."]
EXCHANGERS = (MailExchanger(10, "a.example"), MailExchanger(20, "b.example"))


def code(which: dns.rcode.Rcode) -> Serve:
    return lambda query: [reply(query, code=which)]


class Tests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.resolver = self.make()

    def tearDown(self) -> None:
        self.successResultOf(self.resolver.close())
        self.assertEqual(self.network.getDelayedCalls(), [])
        self.assertEqual(self.network.ports, [])

    def make(self, hosts: dict[str, tuple[str, ...]] | None = None) -> Resolver:
        return Resolver(self.network, [ONE, TWO], hosts, Random(1))

    def serve(self, records: dict[str, Sequence[str]]) -> None:
        self.network.servers[ONE] = zone(records)

    def exchangers(self, domain: str = "example") -> tuple[MailExchanger, ...]:
        asked = self.resolver.exchangers(domain)
        self.network.settle()
        return self.successResultOf(asked)

    def addresses(self, host: str) -> tuple[str, ...]:
        asked = self.resolver.addresses(host)
        self.network.settle()
        return self.successResultOf(asked)

    def failure(self, domain: str = "example") -> str:
        asked = self.resolver.exchangers(domain)
        self.network.settle()
        return str(self.failureResultOf(asked, ResolverFailure).value)


class Answers(Tests):
    def test_exchangers_by_preference(self) -> None:
        self.serve({"example MX": MX})
        self.assertEqual(self.exchangers("EXAMPLE."), EXCHANGERS)

    def test_null_mx(self) -> None:
        self.serve({"example MX": ["example 300 MX 0 ."]})
        self.assertEqual(self.exchangers(), (MailExchanger(0, ""),))

    def test_no_mx(self) -> None:
        self.serve({"example A": ["example 300 A 192.0.2.7"]})
        self.assertEqual(self.exchangers(), ())

    def test_no_such_domain(self) -> None:
        self.serve({})
        for asked in (self.resolver.exchangers("gone.example"), self.resolver.addresses("gone.example")):
            self.network.settle()
            self.failureResultOf(asked, NoSuchDomain)

    def test_impossible_names_are_not_asked(self) -> None:
        for name in (
            "",
            ".",
            "a..b",
            "a\nb",
            "a b",
            "x" * 64,
            ".".join(["abcdefg"] * 40),
            "caf\xe9",
            "a\\.b",
            "\0",
        ):
            self.failureResultOf(self.resolver.exchangers(name), NoSuchDomain)
            self.failureResultOf(self.resolver.addresses(name), NoSuchDomain)
        self.assertEqual(self.network.queries, [])

    def test_both_kinds_of_addresses(self) -> None:
        self.serve(
            {"a.example A": ["a.example 9 A 192.0.2.7"], "a.example AAAA": ["a.example 9 AAAA 2001:db8:0::7"]}
        )
        self.assertEqual(self.addresses("a.example"), ("192.0.2.7", "2001:db8::7"))

    def test_mapped_addresses_are_told_as_what_they_are(self) -> None:
        self.serve({"a.example AAAA": ["a.example 9 AAAA ::ffff:127.0.0.1"]})
        self.assertEqual(self.addresses("a.example"), ("127.0.0.1",))

    def test_one_kind_failing(self) -> None:
        def serve(query: bytes) -> Sequence[bytes]:
            if dns.message.from_wire(query).question[0].rdtype.name == "AAAA":
                return [reply(query, code=dns.rcode.SERVFAIL)]
            return [reply(query, ["a.example 9 A 192.0.2.7"] if b"\1a" in query else (), [SOA])]

        self.network.servers[ONE] = self.network.servers[TWO] = serve
        self.assertEqual(self.addresses("a.example"), ("192.0.2.7",))
        # "None" is not known as long as one kind is not.
        asked = self.resolver.addresses("b.example")
        self.network.settle()
        self.failureResultOf(asked, ResolverFailure)

    def test_both_kinds_failing(self) -> None:
        self.network.servers[ONE] = self.network.servers[TWO] = code(dns.rcode.REFUSED)
        asked = self.resolver.addresses("a.example")
        self.network.settle()
        self.assertIn("REFUSED", str(self.failureResultOf(asked, ResolverFailure).value))

    def test_literals_and_localhost_are_not_asked(self) -> None:
        self.assertEqual(self.successResultOf(self.resolver.addresses("192.0.2.9")), ("192.0.2.9",))
        self.assertEqual(self.successResultOf(self.resolver.addresses("2001:DB8::0:9")), ("2001:db8::9",))
        self.assertEqual(self.successResultOf(self.resolver.addresses("LocalHost.")), ("127.0.0.1", "::1"))
        self.assertEqual(self.successResultOf(self.resolver.exchangers("localhost")), ())
        self.assertEqual(self.successResultOf(self.resolver.exchangers("192.0.2.9")), ())
        self.assertEqual(self.network.queries, [])

    def test_hosts_come_first(self) -> None:
        self.resolver = self.make({"mail.lan": ("10.0.0.1", "fd00::1")})
        self.assertEqual(self.successResultOf(self.resolver.addresses("Mail.LAN")), ("10.0.0.1", "fd00::1"))
        self.assertEqual(self.successResultOf(self.resolver.reverse("10.0.0.1")), "mail.lan")
        self.serve({})
        self.assertEqual(self.exchangers("mail.lan"), ())

    def test_A10_wildcard_private_addresses_are_bounded(self) -> None:
        self.serve({"w.example A": [f"w.example 9 A 10.0.{i}.1" for i in range(250)]})
        self.assertEqual(len(self.addresses("w.example")), 64)


class Aliases(Tests):
    def test_chain_within_the_reply(self) -> None:
        self.serve({"www.example MX": ["www.example 9 CNAME Example.", *MX]})
        self.assertEqual(self.exchangers("www.example"), EXCHANGERS)
        self.assertEqual(len(self.network.queries), 1)

    def test_chain_is_asked_on(self) -> None:
        self.serve(
            {
                "x.example CNAME": ["x.example 9 CNAME y.example."],
                "y.example CNAME": ["y.example 9 CNAME example."],
                "example MX": MX,
            }
        )
        self.assertEqual(self.exchangers("x.example"), EXCHANGERS)
        self.assertEqual(
            [name for _, name in self.network.queries], ["x.example. MX", "y.example. MX", "example. MX"]
        )

    def test_alias_of_nothing(self) -> None:
        self.serve({"x.example CNAME": ["x.example 9 CNAME gone.example."]})
        asked = self.resolver.exchangers("x.example")
        self.network.settle()
        self.failureResultOf(asked, NoSuchDomain)

    def test_A10_loops_end(self) -> None:
        loop = ["x.example 9 CNAME y.example.", "y.example 9 CNAME x.example."]
        self.serve({"x.example CNAME": loop, "y.example CNAME": loop})
        self.assertIn("CNAME", self.failure("x.example"))
        self.serve(
            {
                "p.example CNAME": ["p.example 9 CNAME q.example."],
                "q.example CNAME": ["q.example 9 CNAME p.example."],
            }
        )
        one, other = self.resolver.exchangers("p.example"), self.resolver.exchangers("q.example")
        self.network.settle()
        self.failureResultOf(one, ResolverFailure)
        self.failureResultOf(other, ResolverFailure)

    def test_eight_are_followed_and_not_nine(self) -> None:
        chain: dict[str, Sequence[str]] = {
            f"n{i}.example CNAME": [f"n{i}.example 9 CNAME n{i + 1}.example."] for i in range(9)
        }
        chain["n9.example MX"] = ["n9.example 9 MX 1 example."]
        self.serve(chain)
        self.assertEqual(self.exchangers("n1.example"), (MailExchanger(1, "example"),))
        self.assertIn("more than 8", self.failure("n0.example"))


class Reverse(Tests):
    def reverse(self, ip: str) -> str | None:
        asked = self.resolver.reverse(ip)
        self.network.settle()
        return self.successResultOf(asked)

    def test_confirmed(self) -> None:
        self.serve(
            {
                "7.2.0.192.in-addr.arpa PTR": ["7.2.0.192.in-addr.arpa 9 PTR Mx.example."],
                "mx.example A": ["mx.example 9 A 192.0.2.7"],
            }
        )
        self.assertEqual(self.reverse("192.0.2.7"), "mx.example")
        self.assertEqual(self.reverse("::ffff:192.0.2.7"), "mx.example")

    def test_not_confirmed(self) -> None:
        self.serve(
            {
                "7.2.0.192.in-addr.arpa PTR": ["7.2.0.192.in-addr.arpa 9 PTR bank.example."],
                "bank.example A": ["bank.example 9 A 192.0.2.8"],
            }
        )
        self.assertIsNone(self.reverse("192.0.2.7"))
        self.assertIsNone(self.reverse("192.0.2.6"))
        self.assertIsNone(self.reverse("no address"))

    def test_A10_hostile_names_are_passed_over(self) -> None:
        pointer = "7.2.0.192.in-addr.arpa"
        names = ["a\\013\\010Subject:.example", "\\036\\040id\\041.example", "a|b.example", "<i>.example"]
        records: dict[str, Sequence[str]] = {f"{name} A": [f"{name} 9 A 192.0.2.7"] for name in names}
        self.serve({f"{pointer} PTR": [f"{pointer} 9 PTR {name}." for name in names], **records})
        self.assertIsNone(self.reverse("192.0.2.7"))
        self.assertEqual(len(self.network.queries), 1)

    def test_A10_many_names_are_not_all_asked(self) -> None:
        pointer = "7.2.0.192.in-addr.arpa"
        self.serve({f"{pointer} PTR": [f"{pointer} 9 PTR n{i}.example." for i in range(90)]})
        self.assertIsNone(self.reverse("192.0.2.7"))
        self.assertEqual(len(self.network.queries), 1 + 2 * 4)

    def test_failure_is_not_absence(self) -> None:
        self.network.servers[ONE] = self.network.servers[TWO] = code(dns.rcode.SERVFAIL)
        asked = self.resolver.reverse("192.0.2.7")
        self.network.settle()
        self.failureResultOf(asked, ResolverFailure)


class Lists(Tests):
    NAME = "7.2.0.192.list.example"

    def values(self, asked: Deferred[tuple[str, ...]]) -> tuple[str, ...]:
        self.network.settle()
        return self.successResultOf(asked)

    def test_one_question_for_each(self) -> None:
        name = self.NAME
        self.serve({f"{name} A": [f"{name} 9 A 127.0.0.2"], f"{name} TXT": [f'{name} 9 TXT "see" "there"']})
        self.assertEqual(self.values(self.resolver.listing(name)), ("127.0.0.2",))
        self.assertEqual(self.values(self.resolver.texts(name)), ("seethere",))
        self.assertEqual(self.values(self.resolver.listing("8.2.0.192.list.example")), ())
        self.assertEqual(self.values(self.resolver.listing("not a name.." * 40)), ())
        self.assertEqual(len(self.network.queries), 3)

    def test_A10_texts_are_bounded(self) -> None:
        name = self.NAME
        long = " ".join(['"' + "x" * 250 + '"'] * 100)
        self.serve({f"{name} TXT": [f"{name} 9 TXT {long}"] + [f'{name} 9 TXT "{n}"' for n in range(90)]})
        texts = self.values(self.resolver.texts(name))
        self.assertEqual(len(texts), 16)
        self.assertLessEqual(max(map(len, texts)), 4096)

    def test_pointers_that_are_not_confirmed(self) -> None:
        pointer = "7.2.0.192.in-addr.arpa"
        self.serve({f"{pointer} PTR": [f"{pointer} 9 PTR a|b.example.", f"{pointer} 9 PTR bank.example."]})
        asked = self.resolver.pointer("192.0.2.7")
        self.network.settle()
        self.assertEqual(self.successResultOf(asked), "bank.example")
        asked = self.resolver.pointer("no address")
        self.assertIsNone(self.successResultOf(asked))


class Caching(Tests):
    def test_until_the_shortest_ttl_of_the_chain(self) -> None:
        self.serve({"x.example MX": ["x.example 30 CNAME example.", *MX]})
        self.exchangers("x.example")
        self.network.advance(29)
        self.assertEqual(self.successResultOf(self.resolver.exchangers("X.example")), EXCHANGERS)
        self.network.advance(1)
        self.exchangers("x.example")
        self.assertEqual(len(self.network.queries), 2)

    def test_negative_answers_by_the_soa(self) -> None:
        self.serve({})
        for wait in (0, 299):
            self.network.advance(wait)
            asked = self.resolver.exchangers("gone.example")
            self.network.settle()
            self.failureResultOf(asked, NoSuchDomain)
        self.assertEqual(len(self.network.queries), 1)
        self.network.advance(1)
        self.failureAfterAsking()
        self.assertEqual(len(self.network.queries), 2)

    def failureAfterAsking(self) -> None:
        asked = self.resolver.exchangers("gone.example")
        self.network.settle()
        self.failureResultOf(asked, NoSuchDomain)

    def test_failures_briefly(self) -> None:
        self.network.servers[ONE] = self.network.servers[TWO] = code(dns.rcode.SERVFAIL)
        self.failure()
        self.failureResultOf(self.resolver.exchangers("example"), ResolverFailure)
        self.serve({"example MX": MX})
        self.network.advance(5)
        self.assertEqual(self.exchangers(), EXCHANGERS)

    def test_identical_questions_are_asked_once(self) -> None:
        self.serve({"example MX": MX})
        asked = [self.resolver.exchangers("example") for _ in range(50)]
        asked[7].cancel()
        self.failureResultOf(asked.pop(7))
        self.network.settle()
        for each in asked:
            self.assertEqual(self.successResultOf(each), EXCHANGERS)
        self.assertEqual(len(self.network.queries), 1)

    def test_cancelled_by_all_and_asked_again(self) -> None:
        self.serve({"example MX": MX})
        for _ in range(2):
            asked = self.resolver.exchangers("example")
            asked.cancel()
            self.failureResultOf(asked)
        self.assertEqual(self.exchangers(), EXCHANGERS)
        self.assertEqual(len(self.network.queries), 1)


class Servers(Tests):
    def test_the_next_one_after_each_kind_of_trouble(self) -> None:
        self.network.servers[TWO] = zone({"example MX": MX})
        for trouble in (
            code(dns.rcode.SERVFAIL),
            code(dns.rcode.REFUSED),
            code(dns.rcode.FORMERR),
            lambda query: [reply(query)[:2] + b"\xa8\x80" + reply(query)[4:]],
            lambda query: [reply(query)[:6] + b"\0\5\0\0\0\0" + query[12:]],
        ):
            with self.subTest(trouble=trouble):
                self.network.servers[ONE] = trouble
                self.resolver = self.make()
                self.assertEqual(self.exchangers(), EXCHANGERS)

    def test_silence_is_waited_for_longer_each_time(self) -> None:
        asked = self.resolver.exchangers("example")
        for at in (0, 2, 4, 8, 12):
            self.network.advance(at - self.network.seconds())
            self.network.settle()
        self.assertEqual([server for server, _ in self.network.queries], [ONE, TWO, ONE, TWO, ONE])
        self.network.advance(2.9)
        self.assertNoResult(asked)
        self.network.advance(0.1)
        self.network.settle()
        self.failureResultOf(asked, ResolverFailure)

    def test_a_late_server_still_answers(self) -> None:
        asked = self.resolver.exchangers("example")
        self.network.servers[ONE] = zone({"example MX": MX})
        self.network.advance(2)
        self.network.advance(2)
        self.network.settle()
        self.assertEqual(self.successResultOf(asked), EXCHANGERS)

    def test_A10_a_chain_of_slow_answers_is_bounded(self) -> None:
        def slowly(query: bytes) -> Sequence[bytes]:
            name = dns.message.from_wire(query).question[0].name.to_text(omit_final_dot=True)
            port = self.network.ports[-1]
            answer = reply(query, [f"{name} 9 CNAME x{name}."])
            self.network.callLater(1.9, port.receive, answer)
            return ()

        self.network.servers[ONE] = slowly
        asked = self.resolver.exchangers("example")
        self.network.pump([0.1] * 149)
        self.assertNoResult(asked)
        self.network.pump([0.1] * 2)
        self.failureResultOf(asked, ResolverFailure)
        self.network.pump([0.1] * 20)

    def test_unreachable_and_no_sockets(self) -> None:
        self.resolver = Resolver(self.network, [("192.0.2.99", 53)])
        self.assertIn("unreachable", self.failure())
        self.network.exhausted = True
        self.assertIn("Too many open files", self.failure("other.example"))
        self.network.exhausted = False

    def test_nothing_listens(self) -> None:
        asked = self.resolver.exchangers("example")
        self.network.ports[0].protocol.connectionRefused()
        self.assertEqual([server for server, _ in self.network.queries], [ONE, TWO])
        self.network.ports[0].protocol.stopProtocol()
        self.assertIn("nothing listens", str(self.failureResultOf(asked, ResolverFailure).value))

    def test_a_referral_is_no_answer(self) -> None:
        def refer(query: bytes) -> Sequence[bytes]:
            wire = bytearray(reply(query, (), ["example 9 NS ns.example."]))
            wire[3] &= 0x7F
            return [bytes(wire)]

        self.network.servers[ONE] = self.network.servers[TWO] = refer
        self.assertIn("referral", self.failure())

    def test_500_are_under_way_and_more_wait(self) -> None:
        asked = [self.resolver.exchangers(f"n{i}.example") for i in range(510)]
        self.assertEqual(len(self.network.ports), 500)
        self.network.servers[ONE] = self.network.servers[TWO] = zone({})
        self.network.advance(2)
        self.network.settle()
        for each in asked:
            self.failureResultOf(each, NoSuchDomain)

    def test_close_ends_what_is_under_way(self) -> None:
        asked = [
            self.resolver.exchangers("example"),
            self.resolver.addresses("a.example"),
            self.resolver.reverse("192.0.2.3"),
        ]
        self.successResultOf(self.resolver.close())
        for each in asked:
            self.failureResultOf(each, ResolverFailure)
        self.failureResultOf(self.resolver.exchangers("later.example"), ResolverFailure)


class Forgery(Tests):
    """A10: what does not belong to the query is not taken."""

    def test_A10_strangers_datagrams_are_ignored(self) -> None:
        def serve(query: bytes) -> Sequence[bytes]:
            good = reply(query, MX)
            evil = reply(query, ["example 9 MX 1 evil.example."])
            other = dns.message.make_query("other.", "MX", id=dns.message.from_wire(query).id).to_wire()
            wrong_id = bytes([evil[0] ^ 1]) + evil[1:]
            return [b"", b"\0" * 11, wrong_id, reply(other, ["other 9 MX 1 evil."]), query, good]

        self.network.servers[ONE] = serve
        self.assertEqual(self.exchangers(), EXCHANGERS)

    def test_A10_other_addresses_are_ignored(self) -> None:
        evil: list[bytes] = []
        self.network.servers[ONE] = lambda query: evil.append(reply(query, ["example 9 MX 1 evil."])) or ()
        asked = self.resolver.exchangers("example")
        self.network.ports[0].receive(evil[0], ("192.0.2.66", 53))
        self.assertNoResult(asked)
        asked.addErrback(lambda _: None)

    def test_A10_ids_are_random_and_each_query_has_its_socket(self) -> None:
        for i in range(50):
            self.resolver.exchangers(f"n{i}.example").addErrback(lambda _: None)
        self.assertEqual(len(set(self.network.ids)), 50)
        self.assertEqual(len(self.network.ports), 50)
        self.assertNotEqual(self.network.ids, sorted(self.network.ids))

    def test_A10_guessing_leads_to_tcp(self) -> None:
        self.network.servers[ONE] = lambda query: [b"\0" * 40] * 20
        self.resolver.exchangers("example").addErrback(lambda _: None)
        self.network.settle()
        host, port, factory, _, _ = self.network.tcpClients[0]
        self.assertEqual((host, port), ONE)
        factory.clientConnectionFailed(None, None)


class Stream(Tests):
    def setUp(self) -> None:
        super().setUp()
        self.query = b""

        def truncated(query: bytes) -> Sequence[bytes]:
            self.query = query
            wire = bytearray(reply(query))
            wire[2] |= 2
            return [bytes(wire)]

        self.network.servers[ONE] = truncated
        self.asked = self.resolver.exchangers("example")
        self.network.settle()
        self.factory = self.network.tcpClients[0][2]
        self.protocol = self.factory.buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)

    def over(self) -> None:
        self.factory.clientConnectionLost(None, None)

    def test_truncated_replies_are_fetched_byte_by_byte(self) -> None:
        self.assertEqual(self.transport.value(), len(self.query).to_bytes(2, "big") + self.query)
        wire = reply(self.query, MX)
        for octet in len(wire).to_bytes(2, "big") + wire + b"trailing":
            self.protocol.dataReceived(bytes([octet]))
        self.assertEqual(self.successResultOf(self.asked), EXCHANGERS)
        self.over()

    def test_something_else(self) -> None:
        self.network.servers[TWO] = zone({"example MX": MX})
        self.protocol.dataReceived(b"\0\0")
        self.network.settle()
        self.over()
        self.assertEqual(self.successResultOf(self.asked), EXCHANGERS)

    def test_closed_and_truncated_again(self) -> None:
        self.over()
        self.assertEqual([server for server, _ in self.network.queries], [ONE, TWO])
        # The one that was silent is asked again, the one that hung up is not.
        self.network.advance(2)
        self.assertEqual([server for server, _ in self.network.queries], [ONE, TWO, TWO])
        self.asked.addErrback(lambda _: None)

    def test_silence_is_bounded_by_the_same_patience(self) -> None:
        self.network.advance(1.9)
        self.assertEqual(len(self.network.queries), 1)
        self.network.advance(0.2)
        self.assertEqual(len(self.network.queries), 2)
        self.over()
        self.asked.addErrback(lambda _: None)
