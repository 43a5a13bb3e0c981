"""What every `IResolver` keeps, as a mixin: a subclass gives a `resolver` that answers by the tables here."""

from __future__ import annotations

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from postoffice.interfaces import IResolver, MailExchanger, NoSuchDomain, ResolverFailure

MX = {
    "example.test": [(20, "mx2.example.test"), (10, "mx1.example.test"), (10, "mx0.example.test")],
    "null.test": [(0, "")],
}
ADDRESSES = {
    "mx1.example.test": ["127.0.0.21"],
    "mx2.example.test": ["127.0.0.22", "2001:db8::22"],
    "empty.test": [],
}
REVERSE = {"127.0.0.21": "mx1.example.test", "127.0.0.23": "mx1.example.test"}
LISTED = {"7.2.0.192.list.test": ["127.0.0.2", "127.0.0.4"]}
TEXTS = {"7.2.0.192.list.test": ["Listed, see https://list.test/7"]}
FAILING = "broken.invalid"
"""A name about which nothing can be found out."""


class ResolverContract:
    resolver: IResolver

    def test_interface(self: TestCase) -> None:
        verifyObject(IResolver, self.resolver)

    async def test_exchangers(self: TestCase) -> None:
        every = await self.resolver.exchangers("example.test")
        self.assertEqual([each.preference for each in every], [10, 10, 20])
        self.assertEqual({each.host for each in every[:2]}, {"mx0.example.test", "mx1.example.test"})
        self.assertEqual(every[2], MailExchanger(20, "mx2.example.test"))

    async def test_names_are_compared_without_case_and_final_dot(self: TestCase) -> None:
        one = await self.resolver.exchangers("Example.TEST.")
        self.assertEqual(set(one), set(await self.resolver.exchangers("example.test")))
        self.assertEqual(await self.resolver.addresses("MX1.example.test."), ("127.0.0.21",))

    async def test_null_mx(self: TestCase) -> None:
        self.assertEqual(await self.resolver.exchangers("null.test"), (MailExchanger(0, ""),))

    async def test_no_records(self: TestCase) -> None:
        self.assertEqual(await self.resolver.exchangers("mx1.example.test"), ())
        self.assertEqual(await self.resolver.addresses("empty.test"), ())

    async def test_addresses(self: TestCase) -> None:
        self.assertEqual(await self.resolver.addresses("mx2.example.test"), ("127.0.0.22", "2001:db8::22"))

    async def test_literals_and_localhost(self: TestCase) -> None:
        self.assertEqual(await self.resolver.addresses("192.0.2.1"), ("192.0.2.1",))
        self.assertEqual(await self.resolver.addresses("::1"), ("::1",))
        self.assertEqual(await self.resolver.addresses("localhost"), ("127.0.0.1", "::1"))
        self.assertEqual(await self.resolver.exchangers("192.0.2.1"), ())

    async def test_no_such_domain(self: TestCase) -> None:
        for name in ("gone.test", "gone.example.test"):
            await self.assertFailure(self.resolver.exchangers(name), NoSuchDomain)
            await self.assertFailure(self.resolver.addresses(name), NoSuchDomain)

    async def test_failure(self: TestCase) -> None:
        await self.assertFailure(self.resolver.exchangers(FAILING), ResolverFailure)
        await self.assertFailure(self.resolver.addresses(FAILING), ResolverFailure)

    async def test_reverse(self: TestCase) -> None:
        self.assertEqual(await self.resolver.reverse("127.0.0.21"), "mx1.example.test")

    async def test_reverse_that_does_not_resolve_back(self: TestCase) -> None:
        self.assertIsNone(await self.resolver.reverse("127.0.0.23"))
        self.assertIsNone(await self.resolver.reverse("127.0.0.99"))

    async def test_pointers_need_no_confirmation(self: TestCase) -> None:
        self.assertEqual(await self.resolver.pointer("127.0.0.21"), "mx1.example.test")
        self.assertEqual(await self.resolver.pointer("127.0.0.23"), "mx1.example.test")
        self.assertIsNone(await self.resolver.pointer("127.0.0.99"))

    async def test_listings(self: TestCase) -> None:
        name = "7.2.0.192.list.test"
        self.assertEqual(set(await self.resolver.listing(name)), {"127.0.0.2", "127.0.0.4"})
        self.assertEqual(await self.resolver.texts(name), ("Listed, see https://list.test/7",))
        self.assertEqual(await self.resolver.listing("8.2.0.192.list.test"), ())
        self.assertEqual(await self.resolver.texts("8.2.0.192.list.test"), ())
        await self.assertFailure(self.resolver.listing(FAILING), ResolverFailure)
        await self.assertFailure(self.resolver.texts(FAILING), ResolverFailure)
