"""What an address stands for: the order of the sources, expansion, loops and limits.

The machine is mx.example.net with the user ann; example.org is virtual with the user bob.
"""

from __future__ import annotations

import os
import pwd

from twisted.internet.defer import Deferred

from postoffice.directory.accounts import AllAccounts
from postoffice.mail.address import Address
from postoffice.mail.destination import Command, Copy, File, Mailbox, OwnMailbox
from postoffice.mail.reply import Refusal
from tests.directory.support import DirectoryTestCase, EveryHome, at_once
from tests.support import counted

TOO_MANY = "550 5.2.4 The address stands for too many recipients"
ANN, BOB = "/var/mail/ann", "/vmail/example.org/bob"


class OrderTests(DirectoryTestCase):
    """A local recipient is resolved in an order, and the first that answers wins."""

    def test_an_alias_comes_before_a_user(self) -> None:
        self.write("aliases", "ann: x@example.com\n")
        self.assertEqual(self.copies("ann"), ["x@example.com"])
        self.write("virtual/example.org/aliases", "bob: y@example.com\n")
        self.assertEqual(self.copies("bob@example.org"), ["y@example.com"])

    def test_the_exact_name_then_without_case(self) -> None:
        self.write("aliases", "Sales: x@example.com\n")
        for name in ("sales", "Sales", "SALES"):
            self.assertEqual(self.copies(name), ["x@example.com"])

    def test_each_domain_has_its_own_aliases(self) -> None:
        self.write("aliases", "info: ann\n")
        self.write("virtual/example.org/aliases", "info: bob\n")
        self.assertEqual(self.copies("info"), [ANN])
        self.assertEqual(self.copies("info@mx.example.net"), [ANN])
        self.assertEqual(self.copies("info@example.org"), [BOB])

    def test_a_user_comes_before_the_catch_all(self) -> None:
        self.write("virtual/example.org/aliases", "*: x@example.com\n")
        self.assertEqual(self.copies("bob@example.org"), [BOB])
        self.assertEqual(self.copies("whoever@example.org"), ["x@example.com"])

    def test_the_catch_all_keeps_the_user_part(self) -> None:
        self.write("virtual/example.org/aliases", "*: *@example.com, all\nall: bob\n")
        self.assertEqual(self.copies("Who.Ever@example.org"), ["Who.Ever@example.com", BOB])

    def test_the_catch_all_is_no_name(self) -> None:
        self.write("virtual/example.org/aliases", "*: x@example.com\n")
        self.assertEqual(self.copies("*@example.org"), ["x@example.com"])
        self.write("aliases", "*: ann\n")
        self.assertEqual(self.checked("nobody"), "550 5.1.1 No such user here")

    def test_the_catch_all_comes_before_user_maps(self) -> None:
        self.make("usermap=*:y@example.com")
        self.assertEqual(self.copies("whoever@example.org"), ["y@example.com"])
        self.write("virtual/example.org/aliases", "*: x@example.com\n")
        self.assertEqual(self.copies("whoever@example.org"), ["x@example.com"])

    def test_a_detail_counts_where_nothing_else_matched(self) -> None:
        self.assertEqual(self.copies("ann+lists"), [ANN])
        self.assertEqual(self.copies("bob+a+b@example.org"), [BOB])
        self.write("aliases", "ann+lists: x@example.com\nteam: y@example.com\n")
        self.assertEqual(self.copies("ann+lists"), ["x@example.com"])
        self.assertEqual(self.copies("team+now"), ["y@example.com"])
        self.assertEqual(self.checked("+x"), "550 5.1.1 No such user here")

    def test_what_separates_a_detail_can_be_chosen(self) -> None:
        self.make("subaddress=-_")
        self.assertEqual(self.copies("ann-x_y"), [ANN])
        self.assertEqual(self.copies("ann_x-y"), [ANN])
        self.assertEqual(self.checked("ann+x"), "550 5.1.1 No such user here")
        self.make("subaddress=")
        self.assertEqual(self.checked("ann+x"), "550 5.1.1 No such user here")

    def test_the_postmaster_comes_last(self) -> None:
        self.write("aliases", "postmaster: x@example.com\n")
        self.assertEqual(self.copies("postmaster"), ["x@example.com"])
        self.assertEqual(self.copies("postmaster@example.org"), [ANN])


class ExpansionTests(DirectoryTestCase):
    def test_aliases_expand_recursively_in_the_order_of_their_targets(self) -> None:
        self.write("aliases", "all: one, z@example.com, two\none: a@example.com, ann\ntwo: bob@example.org\n")
        self.assertEqual(self.copies("all"), ["a@example.com", ANN, "z@example.com", BOB])

    def test_nobody_gets_two_copies(self) -> None:
        self.write("aliases", "all: ann, one, x@example.com, Ann@localhost\none: ann, x@EXAMPLE.com\n")
        self.assertEqual(self.copies("all"), [ANN, "x@EXAMPLE.com"])

    def test_the_path_is_kept(self) -> None:
        self.write("aliases", "all: one\none: x@example.com, ann\n")
        all_, one, ann = Address("all", ""), Address("one", ""), Address("ann", "")
        self.assertEqual(
            self.resolved("all"),
            (
                Copy(Address("x", "example.com"), (all_, one)),
                Copy(ann, (all_, one), OwnMailbox(), Mailbox("mbox", ANN, "ann")),
            ),
        )

    def test_a_bare_name_is_one_of_the_domain_of_its_file(self) -> None:
        self.write("virtual/example.org/aliases", "info: bob\n")
        self.assertEqual(self.copies("info@example.org"), [BOB])
        (copy,) = self.resolved("info@example.org")
        self.assertEqual(copy.address, Address("bob", "example.org"))

    def test_an_alias_of_its_own_name_means_the_user(self) -> None:
        self.write("aliases", "ann: \\ann, x@example.com\n")
        self.assertEqual(self.copies("ann"), [ANN, "x@example.com"])

    def test_what_is_unknown_fails_alone(self) -> None:
        self.write("aliases", "all: nobody, ann\nbad: nobody\n")
        self.assertEqual(self.copies("all"), ["nobody", ANN])
        self.assertEqual(self.checked("all"), "fine")
        self.assertEqual(self.copies("bad"), ["nobody"])
        self.assertEqual(self.checked("bad"), "550 5.1.1 No such user here")

    def test_what_is_not_known_now_waits_alone(self) -> None:
        self.write("virtual/example.org/passwd", "nonsense\n")
        self.make()
        self.write("aliases", "all: bob@example.org, ann\n")
        self.assertEqual(self.copies("all"), ["bob@example.org", ANN])
        self.assertEqual(self.checked("all"), "fine")

    def test_other_domains_are_not_looked_up_for_a_list(self) -> None:
        self.write("aliases", "".join(["all: ann", *(f", x@d{n}.example" for n in range(50)), "\n"]))
        self.assertEqual(len(self.copies("all")), 51)
        self.assertEqual(self.resolver.asked, [])

    def test_lists_that_are_included(self) -> None:
        inner = self.write("inner", "# more\nx@example.com, ann\n")
        outer = self.write("outer", f"bob@example.org\n:include:{inner}\n")
        self.write("aliases", f'all: ":include:{outer}", y@example.com\n')
        self.assertEqual(self.copies("all"), [BOB, "x@example.com", ANN, "y@example.com"])
        self.write("inner", "z@example.com\n")
        self.assertEqual(self.copies("all"), [BOB, "z@example.com", "y@example.com"])

    def test_a_list_that_cannot_be_read_holds_up_all_of_it(self) -> None:
        self.write("aliases", f"all: ann, :include:{self.place}/nowhere\n")
        self.assertEqual(self.refusal("all").code, 451)

    def test_an_address_checked_again_leads_on_from_its_path(self) -> None:
        """A copy that came back to us, by a domain that the DNS made ours meanwhile, still ends."""
        self.write("aliases", "all: x@dns.test\nx: all\n")
        self.resolver._addresses["dns.test"] = ("192.0.2.7",)
        self.assertEqual(self.copies("all"), ["x@dns.test"])
        path = (Address("all", ""),)
        refused = self.failureResultOf(self.directory.resolve(Address("x", "dns.test"), None, path))
        self.assertEqual(refused.value.reply.status, "5.4.6")

    def test_a_copy_for_a_mailbox_is_not_expanded_again(self) -> None:
        self.write("aliases", "ann: x@example.com\n")
        self.assertEqual(self.resolved("ann+x", OwnMailbox()), Mailbox("mbox", ANN, "ann"))

    def test_a_user_who_is_gone_meanwhile(self) -> None:
        refused = self.failureResultOf(self.directory.resolve(Address("joe", ""), OwnMailbox(), ()))
        self.assertEqual(str(refused.value.reply), "550 5.1.1 No such user here")
        for fixed in (File("/x", "joe"), Command("x", "joe")):
            refused = self.failureResultOf(self.directory.resolve(Address("ann", ""), fixed, ()))
            self.assertEqual(str(refused.value.reply), "550 5.1.1 No such user here")
        for fixed in (File("/x", "nobody"), Command("x", "ann")):
            self.assertEqual(self.resolved("ann", fixed), fixed)


class KindTests(DirectoryTestCase):
    """Files and commands act as the owner of the text they stand in."""

    def fixed(self, address: str) -> list[object]:
        found = self.resolved(address)
        assert isinstance(found, tuple)
        return [copy.fixed for copy in found]

    def test_in_the_alias_file_of_the_system_they_act_as_nobody(self) -> None:
        self.write("aliases", 'all: /log, "|/bin/cmd a, b"\n')
        self.assertEqual(self.fixed("all"), [File("/log", "nobody"), Command("/bin/cmd a, b", "nobody")])

    def test_in_a_forward_file_as_its_user(self) -> None:
        self.write("home/.forward", "/home/file\n|cmd\n")
        self.assertEqual(self.fixed("ann+x"), [File("/home/file", "ann"), Command("cmd", "ann", "x")])

    def test_the_same_file_gets_one_copy(self) -> None:
        self.write("aliases", "all: /f, one\none: /f\n")
        self.assertEqual(self.fixed("all"), [File("/f", "nobody")])

    def test_in_a_user_map_as_nobody(self) -> None:
        self.make("usermap=log:/var/log/x")
        self.assertEqual(self.fixed("log"), [File("/var/log/x", "nobody")])


class ForwardTests(DirectoryTestCase):
    def test_all_lines_count(self) -> None:
        self.write("home/.forward", "x@example.com,\n# and\nbob@example.org, y@example.com\n")
        self.assertEqual(self.copies("ann"), ["x@example.com", BOB, "y@example.com"])

    def test_the_own_address_means_the_mailbox(self) -> None:
        for own in ("ann", "\\ann", "ANN@localhost", "ann+kept", "ann@mx.example.net"):
            self.write("home/.forward", f"{own}\nx@example.com\n")
            self.assertEqual(self.copies("ann"), [ANN, "x@example.com"], own)

    def test_an_empty_one_is_none(self) -> None:
        self.write("home/.forward", "# nothing yet\n\n")
        self.assertEqual(self.copies("ann"), [ANN])

    def test_no_lists(self) -> None:
        self.write("home/.forward", ":include:/etc/passwd\n")
        self.assertEqual(self.refusal("ann").code, 451)
        self.assertIn(":include: is for the alias file of the system", self.warnings[0])

    def test_by_an_alias_to_the_user(self) -> None:
        self.write("aliases", "boss: ann\nann: ann, y@example.com\n")
        self.write("home/.forward", "ann, x@example.com\n")
        self.assertEqual(self.copies("boss"), [ANN, "x@example.com", "y@example.com"])

    def test_back_to_the_user_by_a_list(self) -> None:
        self.write("aliases", "list: ann, bob@example.org\n")
        self.write("home/.forward", "list\n")
        self.assertEqual(self.copies("ann"), [ANN, BOB])

    def test_virtual_users_have_none(self) -> None:
        self.write("home/.forward", "x@example.com\n")
        self.assertEqual(self.copies("bob@example.org"), [BOB])

    def test_the_postmaster_may_forward(self) -> None:
        self.write("home/.forward", "x@example.com\n")
        self.assertEqual(self.copies("postmaster@example.org"), ["x@example.com"])


class UserMapTests(DirectoryTestCase):
    def test_a_user_and_any_run(self) -> None:
        self.make("usermap=*-~:~")
        self.assertEqual(self.copies("lego-ann"), [ANN])
        self.assertEqual(self.copies("lego-bob@example.org"), [BOB])
        self.assertEqual(self.checked("lego-joe"), "550 5.1.1 No such user here")

    def test_what_a_file_of_the_user_says(self) -> None:
        self.make("usermap=*-~:~/.alias,bounce", "usermap=*:never")
        self.write("home/.alias", "lego-ann: ann, x@example.com\n")
        self.write("aliases", "bounce: y@example.com\n")
        self.assertEqual(self.copies("lego-ann"), [ANN, "x@example.com"])
        self.assertEqual(self.copies("duplo-ann"), ["y@example.com"])

    def test_the_first_map_that_matches_decides(self) -> None:
        self.make("usermap=*-~:~/.alias", "usermap=*:x@example.com")
        self.assertEqual(self.copies("whoever"), ["x@example.com"])
        self.assertEqual(self.checked("lego-ann"), "550 5.1.1 No such user here")
        self.assertEqual(self.refusal("lego-ann").status, "5.1.1")

    def test_targets_are_tried_in_turn(self) -> None:
        self.make("usermap=*-~:~/.one,~/.two,~")
        self.assertEqual(self.copies("lego-ann"), [ANN])
        self.write("home/.two", "LEGO-ann: x@example.com\n")
        self.assertEqual(self.copies("lego-ann"), ["x@example.com"])
        self.write("home/.one", "other-ann: y@example.com\n")
        self.assertEqual(self.copies("other-ann"), ["y@example.com"])

    def test_files_act_as_their_user_and_have_his_rules(self) -> None:
        self.make("usermap=*-~:~/.alias")
        self.write("home/.alias", "lego-ann: x@example.com\n")
        os.chmod(f"{self.home}/.alias", 0o666)
        self.assertEqual(self.refusal("lego-ann").code, 451)

    def test_D4_not_for_virtual_users(self) -> None:
        """They have no homes, and nobody's who has their name is theirs."""
        homes = self.homes = EveryHome("lego-bob: y@example.com\nlego-ann: y@example.com\n")
        self.make("usermap=*-~:~/.alias,x@example.com")
        self.assertEqual(self.copies("lego-bob@example.org"), ["x@example.com"])
        self.assertEqual(homes.asked, [])
        self.assertEqual(self.copies("lego-ann"), ["y@example.com"])

    def test_longer_names_than_there_may_be_match_no_map(self) -> None:
        self.make("usermap=*:x@example.com")
        self.assertEqual(self.copies("a" * 64), ["x@example.com"])
        self.assertEqual(self.checked("a" * 65), "550 5.1.1 No such user here")

    def test_the_copy_of_a_user_found_by_a_map_can_be_checked_again(self) -> None:
        self.make("usermap=*-~:~")
        self.write("aliases", "all: lego-ann, x@example.com\n")
        found = self.resolved("all")
        assert isinstance(found, tuple)
        self.assertEqual(self.resolved(str(found[0].address), found[0].fixed), Mailbox("mbox", ANN, "ann"))


class LoopTests(DirectoryTestCase):
    """C4: what leads back to itself, or on and on."""

    def test_C4_three_aliases_in_a_circle(self) -> None:
        self.write("aliases", "one: two\ntwo: three\nthree: one\n")
        for name in ("one", "two", "three"):
            self.assertEqual(str(self.refusal(name)), "554 5.4.6 The address leads back to itself")
            self.assertEqual(self.checked(name), "554 5.4.6 The address leads back to itself")
        self.assertIn("the address one leads back to itself: one -> two -> three -> one", self.warnings)

    def test_C4_a_loop_is_cut_and_costs_nobody_a_copy(self) -> None:
        self.write("aliases", "one: ann, two\ntwo: x@example.com, one, y@example.com\n")
        self.assertEqual(self.copies("one"), [ANN, "x@example.com", "y@example.com"])
        self.assertEqual(len(self.warnings), 1)

    def test_C4_across_domains_and_by_details(self) -> None:
        self.write("aliases", "one: one+x, two@example.org\ntwo: one\n")
        self.write("virtual/example.org/aliases", "*: *@localhost\n")
        self.assertEqual(self.refusal("one").status, "5.4.6")

    def test_C4_forward_files_in_a_circle_end_at_a_mailbox(self) -> None:
        self.write("home/.forward", "bob@example.org\n")
        self.write("virtual/example.org/aliases", "bob: ann@localhost\n")
        self.assertEqual(self.copies("ann"), [ANN])
        self.assertEqual(self.copies("bob@example.org"), [BOB])

    def test_C4_a_list_that_includes_itself(self) -> None:
        path = f"{self.place}/list"
        self.write("list", f"ann\n:include:{path}\n")
        self.write("aliases", f"all: :include:{path}\nonly: :include:{path}2\n")
        self.write("list2", f":include:{path}2\n")
        self.assertEqual(self.copies("all"), [ANN])
        self.assertEqual(self.warnings, [f"the list {path} includes itself"])
        self.assertEqual(self.refusal("only").status, "5.4.6")

    def test_C4_a_fan_out_of_a_million_is_refused_early(self) -> None:
        wide = ""
        for n in range(1000):
            wide += f"w{n}: {', '.join(f'u{n}x{m}@example.com' for m in range(1000))}\n"
        self.write("aliases", f"all: {', '.join(f'w{n}' for n in range(1000))}\n{wide}")
        reply, calls = counted(lambda: self.refused_at_length("all"))
        self.assertEqual(reply, TOO_MANY)
        self.assertLess(calls, 5_000_000)
        self.assertEqual(self.checked("all"), TOO_MANY)
        # Whoever asks again and again does not have it counted each time.
        reply, calls = counted(lambda: self.checked("all"))
        self.assertEqual(reply, TOO_MANY)
        self.assertLess(calls, 500)

    def test_C4_a_long_list_is_followed_once_for_all_its_names(self) -> None:
        many = ", ".join(f"u{n}@example.com" for n in range(3000))
        self.write("aliases", f"list: {many}\nlist+own: ann\n")
        self.write("virtual/example.org/aliases", "*: all\nall: " + many + "\n")
        self.make("usermap=x*:list")
        for group in (
            ("list", "LIST", "list+1", "List+2@localhost", '"list+3"@[127.0.0.1]', '"li\\st"@LOCALHOST'),
            ("x1", "x2", "x3+1"),
            ("who@example.org", "ever@example.org", "who+ever@EXAMPLE.org"),
        ):
            first, *others = group
            _, cost = counted(lambda first=first: self.checked(first))
            for name in others:
                reply, calls = counted(lambda name=name: self.checked(name))
                self.assertEqual((name, reply), (name, "fine"))
                self.assertLess(calls, cost / 20, name)
        self.assertEqual(self.checked("list+own"), "fine")

    def refused_at_length(self, name: str) -> str:
        work = Deferred.fromCoroutine(self.directory.resolve(Address(name, "")))
        while not work.called:
            self.clock.advance(0)
        return str(self.failureResultOf(work, Refusal).value.reply)

    def test_C4_the_limit_can_be_chosen(self) -> None:
        self.write("aliases", "all: " + ", ".join(f"u{n}@example.com" for n in range(11)) + "\n")
        self.make("expansion=10")
        self.assertEqual(self.refused_at_length("all"), TOO_MANY)
        self.assertEqual(self.checked("all"), TOO_MANY)
        for chosen in ("expansion=11", "expansion=0"):
            self.make(chosen)
            self.assertEqual(len(self.copies("all")), 11)
            self.assertEqual(self.checked("all"), "fine")

    def test_C4_too_many_behind_a_good_one_are_refused_at_once(self) -> None:
        """A letter that was taken for a list must not come back for its length."""
        self.make("expansion=10")
        lists = "".join(f"w{n}: {', '.join(f'u{n}x{m}@example.com' for m in range(4))}\n" for n in range(3))
        self.write("aliases", f"all: ann, w0, w1, w2\ntwo: w0, w1\n{lists}")
        self.assertEqual(self.checked("all"), TOO_MANY)
        self.assertEqual(self.checked("two"), "fine")
        self.write("aliases", "".join(f"a{n}: ann, a{n + 1}\n" for n in range(200)) + "a200: bob\n")
        self.assertEqual(self.checked("a0"), "554 5.4.6 The address leads on and on")

    def test_what_was_too_much_is_looked_at_again(self) -> None:
        self.make("expansion=200")
        self.write("aliases", "all: " + ", ".join(f"u{n}@example.com" for n in range(300)) + "\n")
        self.assertEqual(self.checked("all"), TOO_MANY)
        self.write("aliases", "all: " + ", ".join(f"u{n}@example.com" for n in range(150)) + "\n")
        self.clock.advance(10)
        self.assertEqual(self.checked("all"), "fine")

    def test_homes_are_not_read_for_everybodys_question(self) -> None:
        look = {
            name: pwd.struct_passwd((name, "x", 1000, 1000, "", "/", "")) for name in ("ann", "joe", "may")
        }
        self.accounts = AllAccounts(at_once, self.clock.seconds, look.__getitem__)
        homes = self.homes = EveryHome("x@example.com\n")
        self.write("aliases", "all: ann, joe, may\n")
        self.make()
        self.assertEqual(self.checked("all"), "fine")
        self.assertEqual(homes.asked, ["ann"])
        self.assertEqual(self.copies("all"), ["x@example.com"])
        self.assertEqual(homes.asked, ["ann", "joe", "may"])

    def test_C4_the_same_over_and_over_ends_too(self) -> None:
        self.write("aliases", "all: " + ", ".join(["ann"] * 2000) + "\n")
        self.make("expansion=10")
        self.assertEqual(self.refused_at_length("all"), TOO_MANY)

    def test_C4_an_address_that_leads_on_and_on(self) -> None:
        self.write("aliases", "".join(f"a{n}: a{n + 1}\n" for n in range(200)) + "a200: ann\n")
        self.assertEqual(self.refusal("a0").status, "5.4.6")
        self.assertEqual(self.copies("a160"), [ANN])

    def test_others_get_their_turn_while_a_long_list_is_followed(self) -> None:
        self.write("aliases", "all: " + ", ".join(f"u{n}@example.com" for n in range(1000)) + "\n")
        turns: list[int] = []
        self.clock.callLater(0, turns.append, 1)
        self.assertEqual(len(self.copies("all")), 1000)
        self.assertEqual(turns, [1])


class ReleaseTests(DirectoryTestCase):
    """Rules of release notes; see also the parsers of alias files and user maps."""

    def test_release_1_4_0_user_maps(self) -> None:
        self.make("usermap=*-ann:ann")
        self.assertEqual(self.copies("anything-ann"), [ANN])

    def test_release_1_4_1_several_user_maps_with_users_in_them(self) -> None:
        self.make("usermap=shop-~:~", "usermap=~-*:~/.personal")
        self.write("home/.personal", "Ann-News: x@example.com\n")
        self.assertEqual(self.copies("shop-ann"), [ANN])
        # Personal aliases are found without regard to case.
        self.assertEqual(self.copies("ANN-NEWS"), ["x@example.com"])

    def test_release_1_5_2_a_short_forward_after_a_long_one_keeps_nothing_of_it(self) -> None:
        self.write("home/.forward", "".join(f"u{n}@example.com\n" for n in range(500)))
        self.assertEqual(len(self.copies("ann")), 500)
        self.write("home/.forward", "x@example.com")
        self.assertEqual(self.copies("ann"), ["x@example.com"])

    def test_release_1_5_2_the_active_flag_is_a_value(self) -> None:
        self.write("virtual/domains.cf", "ann:example.org:00:\n")
        self.assertFalse(self.successResultOf(self.directory.is_local("example.org")))
        self.write("virtual/domains.cf", "ann:example.org:2:\n")
        self.assertTrue(self.successResultOf(self.directory.is_local("example.org")))


class AliasFileTests(DirectoryTestCase):
    def test_a_mistake_keeps_the_last_good_version(self) -> None:
        path = self.write("aliases", "sales: ann\n")
        self.assertEqual(self.copies("sales"), [ANN])
        self.write("aliases", "sales: x@example.com\nno alias\n")
        self.assertEqual(self.copies("sales"), [ANN])
        self.assertEqual(
            self.warnings,
            [f"{path}:2: not of the form name: target, target; the last good version stays in use"],
        )

    def test_other_settings_keep_what_is_known(self) -> None:
        """A file with a mistake is as good as before when the configuration is read again."""
        self.write("aliases", "sales: ann\n")
        self.write("virtual/example.org/aliases", "info: bob\n")
        self.assertEqual(self.copies("sales") + self.copies("info@example.org"), [ANN, BOB])
        for name in (
            "aliases",
            "virtual/example.org/aliases",
            "virtual/example.org/passwd",
            "virtual/domains.cf",
        ):
            self.write(name, "bad\n")
        self.make("subaddress=-", again=True)
        self.assertEqual(self.copies("sales") + self.copies("info@example.org"), [ANN, BOB])

    def test_a_name_given_twice_is_told(self) -> None:
        path = self.write("aliases", "sales: ann\nSales: x@example.com\n")
        self.assertEqual(self.copies("sales"), [ANN])
        self.copies("sales")
        self.assertEqual(self.warnings, [f"{path}:2: the alias Sales is given twice; the first one counts"])

    def test_ten_thousand_virtual_domains(self) -> None:
        self.write("virtual/domains.cf", "".join(f"ann:d{n}.example:1:\n" for n in range(10_000)))
        self.write("virtual/d9999.example/aliases", "info: x@example.com\n")
        self.assertEqual(self.copies("info@d9999.example"), ["x@example.com"])
        _, calls = counted(lambda: self.copies("info@d9999.example"))
        self.assertLess(calls, 500)
