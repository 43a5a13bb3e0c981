"""The shadow password database: when a password counts, and the one of this machine."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from postoffice.crypt import SHADOW, ShadowEntry, load_shadow, shadow_hashes
from tests.support import need_root


class Entries(SynchronousTestCase):
    def test_C2_what_has_expired(self) -> None:
        for valid, entry in (
            (True, ShadowEntry("hash")),
            (True, ShadowEntry("hash", changed=100, most=99_999)),
            (True, ShadowEntry("hash", changed=100, most=10, expires=111)),
            (False, ShadowEntry("hash", changed=99, most=10)),
            (False, ShadowEntry("hash", expires=110)),
            (False, ShadowEntry("hash", expires=1)),
            # One that has to be changed at the next log-in.
            (False, ShadowEntry("hash", changed=0, most=99_999)),
        ):
            self.assertEqual(entry.is_valid(110), valid, entry)

    def test_the_real_ones(self) -> None:
        need_root()
        find = load_shadow()
        entry = find("root")
        assert entry is not None
        with open(SHADOW) as file:
            lines = {line.split(":")[0]: line.split(":") for line in file}
        number = lines["root"][2]
        self.assertEqual((entry.hash, entry.changed), (lines["root"][1], int(number) if number else -1))
        self.assertIsNone(find("no-such-user"))
        self.assertEqual(list(shadow_hashes()), [fields[1] for fields in lines.values()])
