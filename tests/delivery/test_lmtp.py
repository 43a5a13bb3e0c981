from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from postoffice.delivery.lmtp import LmtpDelivery
from postoffice.mail.address import Address
from postoffice.mail.destination import Lmtp
from postoffice.mail.envelope import Letter, Recipient
from tests.delivery.far import CLOSE, EHLO, OK, Content, Host, Network

PLACE = Lmtp("192.0.2.1:24", "ann")


class LmtpTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.delivery = LmtpDelivery(self.network, "me.test")
        self.addCleanup(self.leave_nothing)

    def leave_nothing(self) -> None:
        stopped = self.delivery.stop()
        self.network.turn()
        self.network.advance(5)
        self.network.turn()
        self.successResultOf(stopped)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def hosted(self, replies: Mapping[str, bytes]) -> Host:
        """A program that answers LMTP at `PLACE`."""
        return self.network.add("192.0.2.1", 24, {"LHLO": EHLO, **replies})

    def send(self, *recipients: str) -> list[str]:
        content = Content(b"Hi\r\n", held=True)
        letter = Letter("L1", Address("joe", ""), "7BIT", content.size, 0.0, "test")
        found = [Recipient(at, Address(*text.split("@")), 0.0) for at, text in enumerate(recipients)]
        result = self.delivery.deliver(letter, content, PLACE, found)
        self.network.turn()
        outcomes = self.successResultOf(result)
        return [f"{type(outcomes[key]).__name__} {outcomes[key].reply.code}" for key in sorted(outcomes)]

    def test_an_answer_for_each(self) -> None:
        host = self.hosted({".": OK + b"552 5.2.2 full\r\n"})
        self.assertEqual(self.send("ann@here.test", "bob@here.test"), ["Delivered 250", "Failed 552"])
        self.assertEqual(host.letters, [b"Hi\r\n"])
        self.assertEqual(host.commands[:2], ["LHLO me.test", "MAIL FROM:<joe@me.test> SIZE=4"])

    def test_a_connection_is_used_again(self) -> None:
        host = self.hosted({".": OK})
        self.assertEqual([self.send("ann@here.test") for _ in range(3)], [["Delivered 250"]] * 3)
        self.assertEqual(host.commands.count("LHLO me.test"), 1)

    def test_one_that_went_meanwhile(self) -> None:
        host = self.hosted({".": OK})
        self.send("ann@here.test")
        host.once["MAIL"] = CLOSE
        self.assertEqual(self.send("ann@here.test"), ["Delivered 250"])
        self.assertEqual(host.commands.count("LHLO me.test"), 2)

    def test_nobody_is_there(self) -> None:
        self.assertEqual(self.send("ann@here.test"), ["Postponed 441"])


class SocketTests(SynchronousTestCase):
    def test_a_socket_in_the_file_system(self) -> None:
        reactor = MemoryReactorClock()
        delivery = LmtpDelivery(reactor, "me.test")
        content = Content(b"Hi\r\n", held=True)
        letter = Letter("L1", None, "7BIT", content.size, 0.0, "test")
        recipients = [Recipient(1, Address("ann", ""), 0.0)]
        result = delivery.deliver(letter, content, Lmtp("/run/lmtp", "ann"), recipients)
        ((path, factory, timeout, *_),) = reactor.unixClients
        self.assertEqual((path, timeout), ("/run/lmtp", 30.0))
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError(111, "refused")))
        self.assertEqual(self.successResultOf(result)[1].where, "/run/lmtp")
        self.successResultOf(delivery.stop())
