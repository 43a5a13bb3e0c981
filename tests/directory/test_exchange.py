"""Which domains the DNS makes ours. The machine is mx.example.net, with 192.0.2.7 and 2001:db8::7."""

from __future__ import annotations

from postoffice.mail.destination import Mailbox, Remote
from postoffice.mail.reply import Refusal
from tests.directory.support import DirectoryTestCase
from tests.doubles import StaticResolver

ANN = Mailbox("mbox", "/var/mail/ann", "ann")
OURS, OTHER = "192.0.2.7", "192.0.2.99"

RECORDS: dict[str, list[tuple[int, str]]] = {
    "one.test": [(10, "here.test")],
    "six.test": [(10, "six-here.test")],
    "second.test": [(10, "there.test"), (20, "here.test")],
    "equal.test": [(10, "there.test"), (10, "here.test")],
    "named.test": [(10, "MX.example.net")],
    "foreign.test": [(10, "there.test")],
    "loopback.test": [(10, "loop.test")],
    "null.test": [(0, "")],
    "gone.test": [(10, "gone-host.test")],
    "dead-better.test": [(5, "gone-host.test"), (10, "here.test")],
    "broken.test": [(10, "broken-host.test")],
    "broken-better.test": [(5, "broken-host.test"), (10, "here.test")],
    "*.star.test": [(10, "here.test")],
    "star.test": [],
}
ADDRESSES = {
    "here.test": [OURS],
    "six-here.test": ["2001:db8::7"],
    "there.test": [OTHER],
    "loop.test": ["127.0.0.1", "::1"],
    "direct.test": [OURS],
    "elsewhere.test": [OTHER],
    "star.test": [OTHER],
}


class ExchangeTests(DirectoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.resolver = StaticResolver(RECORDS, ADDRESSES, failing=["broken-host.test", "fails.test"])
        self.make()

    def is_local(self, domain: str) -> bool:
        return self.successResultOf(self.directory.is_local(domain))  # type: ignore[no-any-return]

    def test_ours_are_those_with_an_exchanger_that_has_an_address_of_this_machine(self) -> None:
        ours = {
            *("one.test", "six.test", "second.test", "equal.test", "named.test"),
            *("direct.test", "star.test", "dead-better.test", "broken-better.test"),
        }
        for domain in (*RECORDS, *ADDRESSES):
            if domain in ("broken.test", "*.star.test") or domain.endswith("here.test"):
                continue
            self.assertEqual(self.is_local(domain), domain in ours, domain)
            expected = ANN if domain in ours else Remote(domain)
            self.assertEqual(self.resolved(f"ann@{domain}"), expected)

    def test_without_case_or_final_dot(self) -> None:
        self.assertTrue(self.is_local("ONE.Test."))

    def test_nobody_makes_a_domain_ours_by_the_loopback_network(self) -> None:
        self.assertFalse(self.is_local("loopback.test"))

    def test_a_domain_that_does_not_exist_is_elsewhere(self) -> None:
        self.assertFalse(self.is_local("nowhere.test"))
        self.assertFalse(self.is_local("null.test"))

    def test_literals_are_not_looked_up(self) -> None:
        self.assertTrue(self.is_local("[192.0.2.7]"))
        self.assertTrue(self.is_local("[IPv6:2001:db8::7]"))
        self.assertFalse(self.is_local("[192.0.2.99]"))
        self.assertEqual(self.resolver.asked, [])

    def test_a_failure_is_not_an_answer(self) -> None:
        for domain in ("fails.test", "broken.test"):
            refused = self.failureResultOf(self.directory.is_local(domain), Refusal)
            self.assertEqual(str(refused.value.reply)[:9], "451 4.4.3")
            self.assertEqual(self.refusal(f"ann@{domain}").status, "4.4.3")

    def test_a_failure_that_does_not_matter(self) -> None:
        self.assertTrue(self.is_local("broken-better.test"))

    def test_a_verdict_is_kept_for_a_while(self) -> None:
        self.assertTrue(self.is_local("one.test"))
        asked = len(self.resolver.asked)
        self.clock.advance(9)
        self.assertTrue(self.is_local("one.test"))
        self.assertEqual(len(self.resolver.asked), asked)
        self.clock.advance(2)
        self.assertTrue(self.is_local("one.test"))
        self.assertGreater(len(self.resolver.asked), asked)

    def test_unknown_users_of_a_domain_of_ours_are_refused(self) -> None:
        self.assertEqual(self.checked("nobody@one.test"), "550 5.1.1 No such user here")

    def test_release_1_5_0_mxpool(self) -> None:
        """Where another exchanger is better, mail is taken for the domain and passed on to it."""
        self.make("mxpool", "relay-host=smart.example")
        for domain in ("one.test", "equal.test", "direct.test", "dead-better.test"):
            self.assertTrue(self.is_local(domain))
            self.assertEqual(self.resolved(f"ann@{domain}"), ANN, domain)
        self.assertFalse(self.is_local("second.test"))
        self.assertTrue(self.successResultOf(self.directory.accepts("second.test")))
        self.assertFalse(self.successResultOf(self.directory.accepts("foreign.test")))
        self.assertEqual(self.resolved("whoever@second.test"), Remote("second.test"))
        self.assertEqual(self.checked("whoever@second.test"), "fine")

    def test_forward_all_leaves_what_the_dns_does_not_say_to_the_relay_host(self) -> None:
        for lines, code in ((("forward-all",), 451), (("relay-host=smart.example",), 451)):
            self.make(*lines)
            self.assertEqual(self.refusal("x@fails.test").code, code)
        self.make("forward-all", "relay-host=smart.example")
        for domain in ("fails.test", "nowhere.test", "null.test", "foreign.test"):
            self.assertEqual(self.resolved(f"x@{domain}"), Remote("smart.example"))
        self.assertEqual(self.checked("nobody@one.test"), "550 5.1.1 No such user here")

    def test_mxpool_waits_for_the_better_one_to_be_known(self) -> None:
        self.make("mxpool")
        self.assertEqual(self.refusal("ann@broken-better.test").status, "4.4.3")

    def test_many_hosts_are_not_all_looked_up(self) -> None:
        many = [(n, f"h{n}.test") for n in range(1000)]
        self.resolver = StaticResolver({"many.test": many}, {host: [OTHER] for _, host in many})
        self.make()
        self.assertFalse(self.is_local("many.test"))
        self.assertLess(len(self.resolver.asked), 20)
