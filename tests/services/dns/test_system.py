from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from postoffice.services.dns.system import parse_hosts, parse_resolv_conf


class SystemTests(SynchronousTestCase):
    def test_resolv_conf(self) -> None:
        text = (
            "# local\nsearch example.org\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # two\nnameserver x"
        )
        self.assertEqual(parse_resolv_conf(text), (("192.0.2.1", 53), ("2001:db8::1", 53)))

    def test_at_most_three(self) -> None:
        text = "".join(f"nameserver 192.0.2.{i}\n" for i in range(9))
        self.assertEqual(len(parse_resolv_conf(text)), 3)

    def test_none(self) -> None:
        self.assertEqual(parse_resolv_conf("nameserver\noptions edns0\n"), (("127.0.0.1", 53),))

    def test_hosts(self) -> None:
        text = "127.0.0.1 localhost\n::1\tLocalhost ip6\n10.0.0.1 a.lan a#b\nno ip\n\n127.0.0.1 localhost"
        self.assertEqual(
            parse_hosts(text),
            {
                "localhost": ("127.0.0.1", "::1"),
                "ip6": ("::1",),
                "a.lan": ("10.0.0.1",),
                "a": ("10.0.0.1",),
            },
        )
