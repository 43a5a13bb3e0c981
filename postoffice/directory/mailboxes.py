"""Where a user's mailbox lies: the `mailbox` and `vmailbox` settings applied to a user.

Used by `postoffice.directory.lookup`; the names that go into a path were checked before
(`postoffice.directory.accounts.is_fit`, the domains of the configuration).
"""

from __future__ import annotations

import re

from postoffice.config.places import MailboxRule
from postoffice.mail.destination import Lmtp, Mailbox

_SIGN = re.compile(r"%([ud%])")


def mailbox_of(rule: MailboxRule, user: str, domain: str, home: str, owner: str) -> Mailbox | Lmtp:
    """The mailbox of `user`, whose home is `home` (empty for a virtual user)."""
    if rule.kind == "lmtp":
        return Lmtp(rule.template, owner)
    values = {"u": user, "d": domain, "%": "%"}
    place = _SIGN.sub(lambda sign: values[sign[1]], rule.template)
    if place.startswith("~/"):
        place = f"{home}{place[1:]}"
    return Mailbox(rule.kind, place if rule.kind == "maildir" else f"{place}/{user}", owner, home)


def tree_of(rule: MailboxRule) -> str:
    """The directory that holds all mailboxes of the rule: its path up to the first part that varies."""
    if rule.kind == "lmtp":
        return ""
    fixed, sign, _ = rule.template.partition("%")
    return fixed.rpartition("/")[0] if sign else fixed
