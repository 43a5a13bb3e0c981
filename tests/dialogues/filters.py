"""Filters for dialogues, which name them as `filter=python:tests.dialogues.filters:CLASS`."""

from __future__ import annotations

from postoffice.filters.python import Answer, Filter, put_off, reject
from postoffice.milter.facts import Facts


class NotFromThere(Filter):
    """Does not want one client, wants another one later, and does not want one name."""

    def client(self, facts: Facts) -> Answer:
        if facts.client.ip == "192.0.2.66":
            return reject("We know you")
        return put_off("Not today") if facts.client.ip == "192.0.2.67" else None

    def helo(self, facts: Facts) -> Answer:
        return reject("Nobody is called that") if facts.client.helo == "liar.test" else None


class Names(Filter):
    """Lets in whose name is certain, and tells others what it was told of them."""

    def client(self, facts: Facts) -> Answer:
        found = facts.value("client_resolve")
        return None if found == "OK" else reject(f"{found} {facts.value('_')} {facts.value('client_ptr')}")
