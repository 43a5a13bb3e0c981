from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.doubles import StaticResolver
from tests.resolver_contract import ADDRESSES, FAILING, LISTED, MX, REVERSE, TEXTS, ResolverContract


class StaticResolverTests(ResolverContract, TestCase):
    def setUp(self) -> None:
        self.resolver = StaticResolver(MX, ADDRESSES, REVERSE, [FAILING], LISTED, TEXTS)
