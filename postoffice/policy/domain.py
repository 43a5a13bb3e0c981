"""Whether mail can go to a domain: what the DNS says of one that a sender or a recipient is in.

Used by `postoffice.policy.sender` and `postoffice.policy.policy`. An address literal needs no DNS. RFC 5321
section 5.1, RFC 7505 for the null MX.

Errors: `Refusal` with 451 4.4.3 when the DNS gives no answer: nothing is known then.
"""

from __future__ import annotations

from typing import Literal

from postoffice.interfaces import IResolver, NoSuchDomain, ResolverFailure
from postoffice.mail.reply import Refusal, Reply, printable

Standing = Literal["reachable", "none", "null"]


async def standing(resolver: IResolver, domain: str) -> Standing:
    """`none` has neither MX nor address, `null` says that it takes no mail. Errors: `Refusal`."""
    if domain.startswith("["):
        return "reachable"
    try:
        exchangers = await resolver.exchangers(domain)
        if exchangers:
            return "reachable" if exchangers[0].host else "null"
        return "reachable" if await resolver.addresses(domain) else "none"
    except NoSuchDomain:
        return "none"
    except ResolverFailure as error:
        text = f"The domain {printable(domain, 255)} cannot be looked up now, try again later"
        raise Refusal(Reply(451, (4, 3), text), str(error)) from error
