from __future__ import annotations

from dns.rdatatype import RdataType
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from postoffice.services.dns.cache import Cache
from postoffice.services.dns.message import Found, Known, Nonexistent, Question, Unanswered


def question(name: str) -> Question:
    return Question(name, RdataType.A)


class CacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.cache = Cache(self.clock.seconds, room=10)

    def lifetime(self, known: Known) -> float:
        self.cache.put(question("x"), known)
        begun = self.clock.seconds()
        while self.cache.get(question("x")) is not None:
            self.clock.advance(1)
        return self.clock.seconds() - begun

    def test_lifetimes(self) -> None:
        self.assertEqual(self.lifetime(Found(("192.0.2.1",), 60)), 60)
        self.assertEqual(self.lifetime(Found(("192.0.2.1",), 0)), 1)
        self.assertEqual(self.lifetime(Found(("192.0.2.1",), 1e9)), 86400)
        self.assertEqual(self.lifetime(Found((), 1e9, "alias", 1)), 86400)
        self.assertEqual(self.lifetime(Found((), 1e9)), 3600)
        self.assertEqual(self.lifetime(Nonexistent(1e9)), 3600)
        self.assertEqual(self.lifetime(Nonexistent(30)), 30)
        self.assertEqual(self.lifetime(Unanswered("why")), 5)

    def test_what_was_not_used_for_longest_goes_first(self) -> None:
        for name in "abcde":
            self.cache.put(question(name), Found(("192.0.2.1",), 60))
        self.cache.get(question("a"))
        self.cache.put(question("f"), Found(("192.0.2.1",), 60))
        self.assertIsNone(self.cache.get(question("b")))
        self.assertIsNotNone(self.cache.get(question("a")))
        self.assertEqual(len(self.cache), 5)

    def test_records_count(self) -> None:
        for name in "abcde":
            self.cache.put(question(name), Nonexistent(60))
        self.cache.put(question("f"), Found(("192.0.2.1",) * 8, 60))
        self.assertEqual(len(self.cache), 2)
        self.cache.put(question("f"), Nonexistent(60))
        for name in "ghijklmn":
            self.cache.put(question(name), Nonexistent(60))
        self.assertEqual(len(self.cache), 10)
        self.cache.put(question("z"), Found(("192.0.2.1",) * 100, 60))
        self.assertEqual(len(self.cache), 0)
