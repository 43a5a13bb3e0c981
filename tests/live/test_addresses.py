"""Addresses that stand for others, on a running service: aliases, lists, catch-alls, details, bounces."""

from __future__ import annotations

import smtplib
from collections.abc import Mapping

from tests.live.office import DOMAIN, NAME, OfficeCase, run, stored
from tests.peers import HOST, Postoffice, passable

SENDER = f"bob@{DOMAIN}"
LETTER = b"Subject: to many\r\n\r\nHello\r\n"


class Addresses(OfficeCase):
    """Letters for aliases reach mailboxes, once each, and fail for whom they fail alone."""

    def furnished(self, *lines: str, **aliases: str) -> Postoffice:
        """An office with aliases of the system, and of the domain those that are written there."""
        home = passable(self.directory / "office")
        (home / "aliases").write_text("".join(f"{name}: {targets}\n" for name, targets in aliases.items()))
        return self.office(*lines)

    def send(self, office: Postoffice, *recipients: str) -> Mapping[str, tuple[int, bytes]]:
        """Hand a letter in; the recipients that were refused."""
        with smtplib.SMTP(HOST, office.port, timeout=30) as client:
            try:
                return client.sendmail(SENDER, recipients, LETTER)
            except smtplib.SMTPRecipientsRefused as refused:
                return refused.recipients

    def test_everybody_gets_one_copy(self) -> None:
        home = passable(self.directory / "office")
        (home / "list").write_text(f"# a list\nbob@{DOMAIN}\nalice@{DOMAIN}\n")
        office = self.furnished(all=f"alice@{DOMAIN}, team", team=f":include:{home}/list")
        self.assertEqual(self.send(office, f"all@{NAME}", f"alice+detail@{DOMAIN}", "team"), {})
        self.eventually("nothing is left in the queue", lambda: self.queue(office) == "", office)
        self.assertEqual([len(stored(office, user)) for user in ("alice", "bob")], [1, 1])
        told = f"<all@{NAME}> stands for <alice@{DOMAIN}>, <bob@{DOMAIN}>"
        self.eventually("the log says so", lambda: told in office.log(), office)

    def test_the_domain_has_aliases_of_its_own(self) -> None:
        office = self.furnished(sales=f"bob@{DOMAIN}")
        (office.directory / "virtual" / DOMAIN / "aliases").write_text("sales: alice\n*: bob\n")
        self.assertEqual(self.send(office, f"sales@{DOMAIN}"), {})
        self.assertEqual(self.send(office, f"whoever@{DOMAIN}"), {})
        self.eventually(
            "both have a letter", lambda: all(stored(office, user) for user in ("alice", "bob")), office
        )
        (letter,) = stored(office, "bob")
        self.assertIn(f"Delivered-To: bob@{DOMAIN}\n".encode(), letter)

    def test_who_does_not_exist_bounces_alone(self) -> None:
        office = self.furnished(all=f"alice@{DOMAIN}, nobody@{DOMAIN}", none=f"nobody@{DOMAIN}", loop="loop")
        for address, code in ((f"none@{NAME}", b"5.1.1"), (f"loop@{NAME}", b"5.4.6")):
            self.assertTrue(self.send(office, address)[address][1].startswith(code))
        self.assertEqual(self.send(office, f"all@{NAME}"), {})
        self.eventually("a bounce and a letter", lambda: stored(office, "bob") and stored(office), office)
        (bounce,) = stored(office, "bob")
        self.assertIn(f"<nobody@{DOMAIN}> (for all@{NAME}):".encode(), bounce)
        self.assertIn(f"Original-Recipient: rfc822; all@{NAME}\n".encode(), bounce)

    def test_C4_too_many_are_refused_at_rcpt(self) -> None:
        """Also where the first of them is good; what is a little shorter goes out whole."""
        many = ", ".join(f"u{number}@far.test" for number in range(9))
        office = self.furnished(
            "expansion=10",
            "immediate=0",
            "queue-run=0",
            long=f"alice@{DOMAIN}, {many}, bob@{DOMAIN}",
            short=f"alice@{DOMAIN}, {many}",
        )
        refused = self.send(office, f"long@{NAME}", f"short@{NAME}")
        self.assertEqual(
            refused, {f"long@{NAME}": (550, b"5.2.4 The address stands for too many recipients")}
        )
        self.eventually("alice has it", lambda: stored(office), office)
        self.assertEqual(self.queue(office).count("@far.test"), 9)

    def test_what_is_explained(self) -> None:
        office = self.furnished("relay-host=127.0.0.1:2526", out="x@far.test")
        told = run(office, "explain", f"alice+shop@{DOMAIN}").stdout.decode()
        mailbox = f"maildir {office.directory}/mail/{DOMAIN}/alice"
        address = f"alice+shop@{DOMAIN}"
        self.assertEqual(
            told,
            f"{address}: alice, with the detail shop\n{address}: users\n=> {address}: {mailbox}\n",
        )
        told = run(office, "explain", "out").stdout.decode()
        self.assertTrue(told.endswith("=> x@far.test: smtp [127.0.0.1]:2526\n"), told)

    def test_a_kill_in_the_middle_of_a_list_loses_nobody(self) -> None:
        """The copies are rows of their own: those that were not delivered are, after the next start."""
        office = self.furnished(
            "immediate=0", "queue-run=0", all=f"far@far.test, alice@{DOMAIN}, near@far.test"
        )
        self.assertEqual(self.send(office, f"all@{NAME}"), {})
        self.eventually("a letter here", lambda: stored(office), office)
        office.kill()
        office.start()
        listed = self.queue(office)
        self.assertIn("far@far.test", listed)
        self.assertIn("near@far.test", listed)
        self.assertNotIn("alice", listed)

    def queue(self, office: Postoffice) -> str:
        """What `mailq` lists, empty where that is nothing."""
        listed = run(office, command="mailq").stdout.decode()
        return "" if listed == "Mail queue is empty.\n" else listed
