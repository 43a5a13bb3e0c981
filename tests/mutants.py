"""Seeded defects: each must make the test that guards against it fail.

MUTANTS is the table; `tests/test_mutants.py` makes a test of every row. `run` copies the program into a
temporary directory, changes one snippet of it and runs the one named test there, in a process of its own
that proves to have imported the copy. As a program (`python -m tests.mutants PACKAGE TEST`, in the copy)
this module is that process.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

from attrs import asdict, frozen
from twisted.trial import reporter
from twisted.trial.runner import ErrorHolder, TestLoader

LIMIT = 300.0
"""Seconds a test may take before its process is ended."""


@frozen
class Mutant:
    """A defect and the test that must see it."""

    checklist_id: str
    """An item of the security checklist and a word that makes it unique: `A1_bare_lf`."""

    file: str
    """The file to change, relative to the directory that holds the package."""

    old: str
    """A snippet that is in the file exactly once."""

    new: str
    """What stands there instead."""

    test: str
    """Dotted name of one test method."""


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "A1_lf_dot_lf",
        "postoffice/smtp/content.py",
        "data = self._held + data",
        'data = (self._held + data).replace(b"\\n.\\n", b"\\r\\n.\\r\\n")',
        "tests.smtp.test_server.Smuggling.test_A1_in_one_segment_and_byte_by_byte",
    ),
    Mutant(
        "A1_normalised_first",
        "postoffice/smtp/content.py",
        "data = self._held + data",
        'data = (self._held + data).replace(b"\\r", b"").replace(b"\\n", b"\\r\\n")',
        "tests.smtp.test_server.Smuggling.test_A1_in_one_segment_and_byte_by_byte",
    ),
    Mutant(
        "A1_bare_dot_line",
        "postoffice/smtp/content.py",
        'text = raw.replace(b"\\r", b"").replace(b"\\n", b"\\r\\n")',
        'text = raw.replace(b"\\r", b"").replace(b"\\n", b"\\r\\n").replace(b"\\r\\n.", b"\\r\\n")',
        "tests.smtp.test_content.Decoding.test_cases",
    ),
    Mutant(
        "A1_end_across_segments",
        "postoffice/smtp/content.py",
        '_HELD = (b"\\r\\n.\\r", b"\\r\\n.",',
        '_HELD = (b"\\r\\n.",',
        "tests.smtp.test_content.Decoding.test_split_at_every_index",
    ),
    Mutant(
        "A1_reject_accepts",
        "postoffice/smtp/content.py",
        "if self._reject and text != raw:",
        'if self._reject and b"\\n" in raw.replace(b"\\r\\n", b""):',
        "tests.smtp.test_content.Defects.test_bare_newlines_may_be_refused",
    ),
    Mutant(
        "A1_bare_newline_in_command",
        "postoffice/smtp/server.py",
        '_unprintable = re.compile(rb"[^ -~]").search',
        '_unprintable = re.compile(rb"[^ -~\\r\\n]").search',
        "tests.smtp.test_server.Smuggling.test_A1_bare_newlines_in_commands",
    ),
    Mutant(
        "A2_dots_that_end_it",
        "postoffice/smtp/encoding.py",
        'text = text.replace(b"\\r\\n.", b"\\r\\n..")',
        "pass",
        "tests.smtp.test_client.EncoderTests.test_A2_content",
    ),
    Mutant(
        "A2_a_dot_behind_a_piece",
        "postoffice/smtp/encoding.py",
        'return b"." + text if line_start and text.startswith(b".") else text',
        "return text",
        "tests.smtp.test_client.EncoderTests.test_A2_content",
    ),
    Mutant(
        "A2_bare_line_ends_go_out",
        "postoffice/smtp/encoding.py",
        'piece.replace(b"\\r", b"").replace(b"\\0", b"").replace(b"\\n", b"\\r\\n")',
        'piece.replace(b"\\0", b"")',
        "tests.smtp.test_client_properties.EncoderProperties.test_A2_wire",
    ),
    Mutant(
        "A3_content_left_early",
        "postoffice/smtp/server.py",
        "        if rest is None:\n",
        '        if self._decoder.defect:\n            rest = rest or b""\n        if rest is None:\n',
        "tests.smtp.test_server.LongLines.test_A3_content",
    ),
    Mutant(
        "A3_rest_of_command_read",
        "postoffice/smtp/framing.py",
        "        self._at = end + 2\n",
        "        self._at = min(end + 2, self._at + self._limit + 1)\n",
        "tests.smtp.test_server.LongLines.test_A3_commands",
    ),
    Mutant(
        "A3_no_line_limit",
        "postoffice/smtp/content.py",
        "                self._long = True\n",
        "",
        "tests.smtp.test_server.LongLines.test_A3_content",
    ),
    Mutant(
        "A5_nothing_checked_behind",
        "postoffice/smtp/server.py",
        "if verb in _LAST_IN_GROUP and self._lines:",
        'if verb == b"QUIT" and self._lines:',
        "tests.smtp.test_server.Pipelining.test_A5_nothing_behind_the_last_of_a_group",
    ),
    Mutant(
        "A5_content_before_354",
        "postoffice/smtp/server.py",
        '                if self._lines:\n                    self._next = self._refuse_and_close("DATA"',
        '                if False:\n                    self._next = self._refuse_and_close("DATA"',
        "tests.smtp.test_server.Pipelining.test_A5_content_before_the_354",
    ),
    Mutant(
        "A5_talk_before_banner",
        "postoffice/smtp/server.py",
        "        elif self._lines:\n            self._next",
        "        elif False:\n            self._next",
        "tests.smtp.test_server.Pipelining.test_A5_bytes_before_the_banner",
    ),
    Mutant(
        "A4_out_of_order_not_read",
        "postoffice/smtp/server.py",
        "if refusal is None else self._read_chunk()",
        'if refusal is None else (setattr(self, "_phase", self._chunk.behind) or refusal)',
        "tests.smtp.test_server.Chunks.test_A4_out_of_order_it_is_read_and_refused",
    ),
    Mutant(
        "A4_bad_size_reads_on",
        "postoffice/smtp/server.py",
        'return self._refuse_and_close("BDAT", BAD_CHUNK)',
        'return Refused("BDAT", BAD_CHUNK)',
        "tests.smtp.test_server.Chunks.test_A4_sizes_that_are_none",
    ),
    Mutant(
        "A4_size_checked_late",
        "postoffice/smtp/content.py",
        "        self._announced = self.size + octets",
        "        self._announced = self.size",
        "tests.smtp.test_server.Chunks.test_A4_sizes_over_the_limit",
    ),
    Mutant(
        "A4_data_behind_chunks",
        "postoffice/smtp/phases.py",
        'b"DATA": _CHUNKS_ONLY',
        'b"DATA": _CONTENT',
        "tests.smtp.test_server.Chunks.test_A4_data_and_bdat_do_not_mix",
    ),
    Mutant(
        "A4_one_octet_too_many",
        "postoffice/smtp/framing.py",
        "            self._at += limit\n",
        "            self._at += limit + 1\n",
        "tests.smtp.test_server.Chunks.test_A4_split_at_every_index",
    ),
    Mutant(
        "A4_goes_on_after_a_failed_chunk",
        "postoffice/smtp/phases.py",
        "_CHUNK = Move(Phase.CHUNKS, Phase.DENIED)",
        "_CHUNK = Move(Phase.CHUNKS, Phase.CHUNKS)",
        "tests.smtp.test_server.Chunks.test_A4_a_refused_chunk_ends_the_transaction",
    ),
    Mutant(
        "C3_success_for_strangers",
        "postoffice/server/transaction.py",
        "event.notify if known else without_success(event.notify)",
        "event.notify",
        "tests.server.test_transaction.Reports.test_C3_strangers_are_not_told_that_a_letter_arrived",
    ),
    Mutant(
        "C1_announced_home",
        "postoffice/policy/client.py",
        "client.announced and (home or client.anonymous)",
        "client.announced and client.anonymous",
        "tests.server.test_proxied.Announced.test_C1_nobody_is_announced_home",
    ),
    Mutant(
        "C1_proxy_not_required",
        "postoffice/smtp/proxy.py",
        '    raise BadHeader("no PROXY header")\n',
        "    return Announced(), data\n",
        "tests.server.test_proxied.Announced.test_C1_it_is_required",
    ),
    Mutant(
        "C1_xclient_for_all",
        "postoffice/server/commands.py",
        "        if self._believed:\n",
        "        if True:\n",
        "tests.server.test_proxied.Believed.test_it_is_announced_to_whom_it_is_for",
    ),
    Mutant(
        "C1_here_as_the_proxy_is",
        "postoffice/server/proxied.py",
        '{"here": False, "may_relay": False,',
        '{"may_relay": False,',
        "tests.server.test_proxied.Believed.test_C1_nobody_is_announced_home",
    ),
    Mutant(
        "C3_never_is_heeded",
        "postoffice/queue/bounce.py",
        'return not notify or "FAILURE" in notify',
        "return True",
        "tests.server.test_transaction.Heeded.test_C3_never",
    ),
    Mutant(
        "A5_behind_auth_response",
        "postoffice/smtp/server.py",
        "        self._move = EXCHANGE\n        if self._lines:\n",
        "        self._move = EXCHANGE\n        if False:\n",
        "tests.smtp.test_server.Extensions.test_A5_nothing_behind_an_auth_response",
    ),
    Mutant(
        "B1_bytes_before_the_220",
        "postoffice/smtp/server.py",
        "            elif self._phase is Phase.TLS:\n                if self._lines:\n",
        "            elif self._phase is Phase.TLS:\n                if False:\n",
        "tests.smtp.test_server.Extensions.test_B1_bytes_before_the_220",
    ),
    Mutant(
        "B1_starttls_ends_a_group",
        "postoffice/smtp/server.py",
        'b"DATA", b"QUIT", b"STARTTLS", b"AUTH"',
        'b"DATA", b"QUIT", b"AUTH"',
        "tests.smtp.test_server.Pipelining.test_A5_nothing_behind_the_last_of_a_group",
    ),
    Mutant(
        "B1_the_session_remembers",
        "postoffice/server/commands.py",
        "self.client = self._met = evolve(self._met, tls=tls)",
        "self.client = evolve(self.client, tls=tls)",
        "tests.server.test_tls.Forgetting.test_B1_the_greeting_is_forgotten",
    ),
    Mutant(
        "B1_bytes_behind_the_220",
        "postoffice/server/link.py",
        "self.transport = self._transport = plain.protocol = secure",
        "self.transport = self._transport = secure",
        "tests.server.test_tls.Forgetting.test_B1_T5_bytes_between_the_go_ahead_and_the_handshake_close",
    ),
    Mutant(
        "B1_anything_is_a_handshake",
        "postoffice/server/link.py",
        "            while self.agreeing:\n",
        "            if self.agreeing:\n",
        "tests.server.test_tls.Starting.test_B1_only_a_handshake_makes_it_encrypted",
    ),
    Mutant(
        "B4_http_is_a_command",
        "postoffice/smtp/server.py",
        "        if special and verb in _HTTP:",
        "        if not verb:",
        "tests.smtp.test_server.Pipelining.test_B4_other_protocols",
    ),
    Mutant(
        "B4_any_protocol",
        "postoffice/services/tls.py",
        "    if PROTOCOL in offered:",
        "    if offered:",
        "tests.services.test_tls.Agreeing.test_B4_a_client_that_speaks_no_smtp_is_cut_off",
    ),
    Mutant(
        "B4_plain_text_on_smtps",
        "postoffice/server/session.py",
        'if self.settings.door == "smtps":',
        "if False:",
        "tests.server.test_tls.Implicit.test_B4_plain_text_is_not_answered",
    ),
    Mutant(
        "B5_nothing_is_kept",
        "postoffice/services/tls.py",
        "            return Loaded(identities, before.credential)",
        "            raise",
        "tests.services.test_tls.Changing.test_B5_what_is_unfit_leaves_the_old_in_use",
    ),
    Mutant(
        "B5_not_told",
        "postoffice/services/tls.py",
        "identities == before.identities",
        "not all(identities) or identities == before.identities",
        "tests.services.test_tls.Changing.test_B5_what_may_not_be_read_any_more_is_told",
    ),
    Mutant(
        "B1_helo_survives_tls",
        "postoffice/smtp/server.py",
        "        if self._phase is Phase.TLS:\n            self._start()\n",
        "        if self._phase is Phase.TLS:\n            self._phase = Phase.OPEN\n",
        "tests.smtp.test_server.Extensions.test_starttls_asks_for_helo_again",
    ),
    Mutant(
        "A5_second_event_unanswered",
        "postoffice/smtp/server.py",
        "        if self._unanswered is not None:\n            raise",
        "        if False:\n            raise",
        "tests.smtp.test_server.Protocol.test_one_event_at_a_time",
    ),
    Mutant(
        "A5_unread_replies",
        "postoffice/server/link.py",
        "if self._waiting is not None and not self._choked and self._turn is None:",
        "if self._waiting is not None:",
        "tests.server.test_session.Limiting.test_a_client_that_reads_nothing_is_not_read_for_ever",
    ),
    Mutant(
        "A6_control_characters",
        "postoffice/smtp/server.py",
        '_unprintable = re.compile(rb"[^ -~]").search',
        '_unprintable = re.compile(rb"[\\r\\n\\x80-\\xff]").search',
        "tests.smtp.test_server.Injection.test_A6_envelopes",
    ),
    Mutant(
        "A6_helo_with_parentheses",
        "postoffice/smtp/grammar.py",
        '_HOST = re.compile(rb"[!#-\'*+./0-9:=?A-Z\\[\\]^_`a-z{|}~-]{1,255}\\Z").match',
        '_HOST = re.compile(rb"[!-~]{1,255}\\Z").match',
        "tests.smtp.test_grammar.Hosts.test_A6_bad",
    ),
    Mutant(
        "A6_path_with_a_tail",
        "postoffice/smtp/grammar.py",
        '_PATH = re.compile(rb"<%b%b>(?= |\\Z)"',
        '_PATH = re.compile(rb"<%b%b>"',
        "tests.smtp.test_grammar.Paths.test_bad",
    ),
    Mutant(
        "A7_header_looked_through_anew",
        "postoffice/server/intake.py",
        "self._look_at = min(2 * size, HEADER_LIMIT + 1)",
        "self._look_at = 0",
        "tests.server.test_intake.SmallPieces.test_A7_a_header_in_small_pieces",
    ),
    Mutant(
        "A7_strict_ascii",
        "postoffice/smtp/server.py",
        "        wide = _unprintable(line) is not None\n",
        '        wide = not line.decode("ascii").isprintable()\n',
        "tests.smtp.test_server.EveryOctet.test_A7_every_octet_in_every_position",
    ),
    Mutant(
        "C6_no_bound",
        "postoffice/policy/greylist_table.py",
        "for rank, excess in _excess(dict(rows), bounds.most) if bounds.most else ():",
        "for rank, excess in ():",
        "tests.policy.test_greylist.Abuse.test_C6_a_flood_of_random_pairs",
    ),
    Mutant(
        "C6_passed_go_first",
        "postoffice/policy/greylist_table.py",
        "return [(WAITING, first), (PASSED, excess - first)]",
        "return [(PASSED, first), (WAITING, excess - first)]",
        "tests.policy.test_greylist.Abuse.test_C6_a_flood_of_random_pairs",
    ),
    Mutant(
        "C6_slow_look_up",
        "postoffice/policy/greylist_table.py",
        '_GET = "SELECT key, accepted, seen, rank FROM record WHERE hash = ?"',
        '_GET = "SELECT key, accepted, seen, rank FROM record WHERE +hash = ?"',
        "tests.policy.test_greylist.Abuse.test_C6_a_look_up_reads_as_much_of_many_records_as_of_few",
    ),
    Mutant(
        "C6_no_shares",
        "postoffice/policy/greylist_table.py",
        "for network in map(_network, networks) if bounds.share else ():",
        "for network in ():",
        "tests.policy.test_greylist.Abuse.test_C6_one_network_cannot_push_out_the_others",
    ),
    Mutant(
        "C6_key_injection",
        "postoffice/policy/greylist.py",
        'return None if not domain or domain[0] == "[" else _text(sender.local, domain)',
        "return None if not domain else _text(sender.local, domain)",
        "tests.policy.test_greylist.Keys.test_C6_a_sender_cannot_look_like_another_record",
    ),
    Mutant(
        "C6_poisoned_from_elsewhere",
        "postoffice/policy/greylist.py",
        'place = f"[{_network(client.ip, self.settings.prefixes)}]"',
        'place = "[]"',
        "tests.policy.test_greylist.Keys.test_C6_others_cannot_spoil_what_a_client_earned",
    ),
    Mutant(
        "D6_passwords_in_audit_records",
        "postoffice/server/audit.py",
        'text = f"{text[:4]} {mechanism} *" if _MECHANISM(mechanism) else f"{text[:4]} *"',
        "text = str(text)",
        "tests.server.test_audit.Secrets.test_D6_passwords_are_in_no_record",
    ),
    Mutant(
        "A9_refused_clients_without_end",
        "postoffice/server/listener.py",
        "if len(self.pausing) >= MOST_PAUSING:",
        "if False:",
        "tests.server.test_forbidden.Lingering.test_A9_they_do_not_count_as_clients_and_are_few",
    ),
    Mutant(
        "A9_who_does_not_read_is_not_heard_of",
        "postoffice/services/eager.py",
        "            if self._kept_size >= SMALL:",
        "            if False:",
        "tests.services.test_eager.Writing.test_many_small_things_do_not_gather",
    ),
    Mutant(
        "A9_refused_for_ever",
        "postoffice/server/lingering.py",
        "enough = number == most or (link.heard > deadline and link.pace.idle)",
        "enough = number == most",
        "tests.filters.test_screening.Verdicts.test_A9_it_does_not_stay_for_ever",
    ),
    Mutant(
        "A9_content_that_buys_no_time",
        "postoffice/server/session.py",
        "        if self._brought >= ENOUGH:",
        "        if False:",
        "tests.server.test_session.Limiting.test_A9_the_hour_begins_anew_with_content_that_is_worth_it",
    ),
    Mutant(
        "A10_remembered_answers_wake_a_dead_list",
        "postoffice/policy/lists.py",
        "        if not asked.called:",
        "        if True:",
        "tests.policy.test_lists.Dead.test_what_is_remembered_does_not_count",
    ),
    Mutant(
        "A9_talk_without_end",
        "postoffice/server/session.py",
        "if self.link.heard > self._deadline and",
        "if False and",
        "tests.server.test_session.Limiting.test_A9_a_client_that_only_talks_is_dropped_after_an_hour",
    ),
    Mutant(
        "A9_octets_that_buy_time",
        "postoffice/server/link.py",
        "        if self._content_since:\n",
        "        if True:\n",
        "tests.server.test_session.Limiting.test_A9_a_command_in_single_octets_has_no_more_time",
    ),
    Mutant(
        "A9_one_is_served_to_the_end",
        "postoffice/server/link.py",
        "tired = self._served >= AT_ONCE",
        "tired = False",
        "tests.server.test_session.Limiting.test_A9_others_are_served_between_the_commands_of_one",
    ),
    Mutant(
        "A9_a_session_for_each_address",
        "postoffice/mail/client.py",
        'return str(IPv6Network((ip, 64), strict=False)) if ":" in ip else ip',
        "return ip",
        "tests.server.test_forbidden.Crowds.test_A9_a_host_with_a_network_of_its_own_is_one_client",
    ),
    Mutant(
        "A9_buckets_without_end",
        "postoffice/policy/rates.py",
        "if full_at > now and len(self._full_at) <= MOST_BUCKETS:",
        "if full_at > now:",
        "tests.policy.test_rates.Memory.test_A9_there_is_a_bound",
    ),
    Mutant(
        "A10_names_without_end",
        "postoffice/services/dns/message.py",
        "            if labels > _MOST_LABELS:\n",
        "            if False:\n",
        "tests.services.dns.test_message.Hostile.test_A10_names_of_many_labels",
    ),
    Mutant(
        "A10_every_exchanger_there_is",
        "postoffice/services/dns/message.py",
        "islice(every, MOST_EXCHANGERS)",
        "every",
        "tests.services.dns.test_message.Hostile.test_A10_a_thousand_exchangers",
    ),
    Mutant(
        "A10_any_reply_is_the_answer",
        "postoffice/services/dns/message.py",
        "if len(data) < _HEADER.size or data[:2] != query[:2] or",
        "if len(data) < _HEADER.size or",
        "tests.services.dns.test_resolver.Forgery.test_A10_strangers_datagrams_are_ignored",
    ),
    Mutant(
        "A10_a_name_of_any_octets",
        "postoffice/services/dns/resolver.py",
        "            if not is_host(name):\n",
        "            if False:\n",
        "tests.services.dns.test_resolver.Reverse.test_A10_hostile_names_are_passed_over",
    ),
    Mutant(
        "A10_any_answer_lists",
        "postoffice/policy/lists.py",
        "return int(IPv4Address(address)) in _ANSWERS and code",
        "return code",
        "tests.policy.test_lists.Broken.test_A10_answers_that_are_none",
    ),
    Mutant(
        "A10_a_dead_list_is_asked_for_everybody",
        "postoffice/policy/lists.py",
        "            if now < self._again[zone]:",
        "            if now < 0:",
        "tests.policy.test_lists.Dead.test_it_is_asked_for_one_client_a_minute",
    ),
    Mutant(
        "C1_claimed_names_are_trusted",
        "postoffice/policy/client.py",
        'trusted = ip in settings.trusted or (name or "").lower()',
        'trusted = ip in settings.trusted or (name or claimed or "").lower()',
        "tests.policy.test_client.Relaying.test_C1_trusted_by_address_and_by_confirmed_name",
    ),
    Mutant(
        "C1_nobody_with_the_rights_of_the_proxy",
        "postoffice/policy/client.py",
        "client.announced and (home or client.anonymous)",
        "client.announced and home",
        "tests.server.test_proxied.Announced.test_C1_a_proxy_lends_nobody_its_rights",
    ),
    Mutant(
        "C1_two_spellings_of_an_address",
        "postoffice/smtp/xclient.py",
        "return plain_ip(str(IPv6Address(value[5:])))",
        "return str(IPv6Address(value[5:]))",
        "tests.server.test_proxied.Believed.test_C1_one_address_has_one_spelling",
    ),
    Mutant(
        "A10_stopping_waits_for_the_dns",
        "postoffice/server/session.py",
        "if self.conversation is not None and not self.link.waited_for:",
        "if False:",
        "tests.server.test_session.Stopping.test_A10_nobody_waits_for_an_answer_that_does_not_come",
    ),
    Mutant(
        "C1_localmx_on_the_loopback",
        "postoffice/policy/client.py",
        "return any(each in own and not is_loopback(each) for each in addresses)",
        "return any(each in own for each in addresses)",
        "tests.policy.test_client.Relaying.test_C1_localmx_asks_for_an_explicit_MX_that_is_ours",
    ),
    Mutant(
        "C5_our_names_from_anywhere",
        "postoffice/policy/sender.py",
        "if not client.may_relay and not await self._directory",
        "if False and not await self._directory",
        "tests.policy.test_sender.Ours.test_C5_only_our_own_people_speak_for_users_of_the_system",
    ),
    Mutant(
        "C5_null_mx_takes_mail",
        "postoffice/policy/domain.py",
        'return "reachable" if exchangers[0].host else "null"',
        'return "reachable"',
        "tests.policy.test_sender.Elsewhere.test_C5_the_domain_must_take_mail",
    ),
    Mutant(
        "D6_guessable_ids",
        "postoffice/spool/names.py",
        "number = random.getrandbits(96)",
        "number = 1",
        "tests.spool.test_sqlite.Contract.test_ids_are_short_unlike_and_plain",
    ),
    Mutant(
        "D6_spool_modes_left_to_the_umask",
        "postoffice/spool/home.py",
        "    os.fchmod(descriptor, 0o600)\n",
        "",
        "tests.spool.test_sqlite.Directory.test_modes_whatever_the_umask",
    ),
    Mutant(
        "E1_answered_before_the_commit",
        "postoffice/spool/writer.py",
        "            self._commit(store, group)\n",
        "            self._reactor.callFromThread(_answer, group.copy())\n"
        "            self._commit(store, group)\n            group.clear()\n",
        "tests.spool.test_crash.Killed.test_at_random_moments",
    ),
    Mutant(
        "E1_failed_sync_acknowledged",
        "postoffice/spool/writer.py",
        "work.error = work.error or meaning",
        "pass",
        "tests.spool.test_faults.FailingCalls.test_sync_of_a_commit",
    ),
    Mutant(
        "E1_refused_letters_turn_up",
        "postoffice/spool/writer.py",
        "if self._taken_back:",
        "if False:",
        "tests.spool.test_faults.LateErrors.test_what_was_refused_does_not_turn_up",
    ),
    Mutant(
        "E1_stale_claim_serves",
        "postoffice/spool/shortcuts.py",
        "WHERE changes() <> 1",
        "WHERE 0",
        "tests.spool.test_sqlite.Contract.test_stale_among_others_harms_only_itself",
    ),
    Mutant(
        "E1_content_stays",
        "postoffice/spool/shortcuts.py",
        "    DELETE FROM content WHERE key = OLD.key;\n",
        "",
        "tests.spool.test_wal.Together.test_nothing_of_a_letter_stays",
    ),
    Mutant(
        "E1_key_of_another_node",
        "postoffice/spool/store.py",
        "self._shared = True",
        "pass",
        "tests.spool.test_wal.Together.test_nodes_take_turns",
    ),
    Mutant(
        "E1_log_overwritten_with_zeros",
        "postoffice/spool/home.py",
        "range(before, size, schema.PAGE)",
        "range(0, size, schema.PAGE)",
        "tests.spool.test_wal.Log.test_makes_its_room_behind_what_another_node_wrote",
    ),
    Mutant(
        "E1_log_not_copied_beside_commits",
        "postoffice/spool/wal.py",
        'connection.pragma("schema_version")',
        "return",
        "tests.spool.test_wal.Log.test_is_copied_beside_the_commits",
    ),
    Mutant(
        "E1_log_emptied_when_idle",
        "postoffice/spool/wal.py",
        "            _checkpoint(connection, apsw.SQLITE_CHECKPOINT_PASSIVE)\n\n    def empty",
        "            _checkpoint(connection, apsw.SQLITE_CHECKPOINT_TRUNCATE)\n\n    def empty",
        "tests.spool.test_wal.Log.test_keeps_its_length_when_there_is_nothing_to_do",
    ),
    Mutant(
        "E1_log_takes_what_is_free",
        "postoffice/spool/wal.py",
        "min(LENGTH, max(REST, share))",
        "LENGTH",
        "tests.spool.test_wal.Log.test_is_copied_when_there_is_little_left",
    ),
    Mutant(
        "E1_letters_wait_for_a_long_log",
        "postoffice/spool/wal.py",
        "self._left() > REST",
        "False",
        "tests.spool.test_wal.Log.test_much_is_copied_beside_letters_that_may_come",
    ),
    Mutant(
        "E1_writer_dies_without_threads",
        "postoffice/spool/wal.py",
        "except RuntimeError:",
        "except KeyError:",
        "tests.spool.test_wal.Log.test_is_copied_where_there_are_no_more_threads",
    ),
    Mutant(
        "E1_one_group_two_transactions",
        "postoffice/spool/store.py",
        "len(group) in sql.STORED and",
        "len(group) <= 32 and",
        "tests.spool.test_wal.Together.test_one_of_two_with_the_same_id_is_refused",
    ),
    Mutant(
        "E1_handed_in_and_forgotten",
        "postoffice/spool/sqlite.py",
        "            writer.flush()\n",
        "",
        "tests.spool.test_wal.Together.test_what_was_handed_in_before_closing_is_done",
    ),
    Mutant(
        "E1_log_grows_for_ever",
        "postoffice/spool/wal.py",
        "        self._copied = self._pages\n        _checkpoint(",
        "        self._copied = self._pages\n        (lambda *_: None)(",
        "tests.spool.test_wal.Log.test_is_begun_anew_under_a_load_that_does_not_end",
    ),
    Mutant(
        "E1_stale_claim_settles",
        "postoffice/spool/store.py",
        "return bool(found)",
        "return True",
        "tests.spool.test_sqlite.Contract.test_a_lapsed_claim_that_was_taken_again_is_stale",
    ),
    Mutant(
        "C4_delivered_to_ignored",
        "postoffice/delivery/final.py",
        "if _key(recipient.address) in seen",
        "if False",
        "tests.delivery.test_local.LoopTests.test_own_line_is_a_loop",
    ),
    Mutant(
        "C4_body_scanned",
        "postoffice/delivery/final.py",
        'headers.values(b"Delivered-To")',
        "[line[13:].strip() for line in begin.splitlines()]",
        "tests.delivery.test_local.LoopTests.test_other_lines_are_none",
    ),
    Mutant(
        "C4_counted_until_the_first",
        "postoffice/directory/lookup.py",
        "                    expansion.forwards = False\n",
        "                    return None\n",
        "tests.directory.test_expand.LoopTests.test_C4_too_many_behind_a_good_one_are_refused_at_once",
    ),
    Mutant(
        "C4_counted_for_each_detail",
        "postoffice/directory/lookup.py",
        '                return ("", answer.rule, place) if answer.rule else asked, False\n',
        '                return (local.lower(), "", place), False\n',
        "tests.directory.test_expand.LoopTests.test_C4_a_long_list_is_followed_once_for_all_its_names",
    ),
    Mutant(
        "C4_counted_for_each_question",
        "postoffice/directory/lookup.py",
        "if self._knows(asked, now):\n            refusal",
        "if False:\n            refusal",
        "tests.directory.test_expand.LoopTests.test_C4_a_fan_out_of_a_million_is_refused_early",
    ),
    Mutant(
        "D1_sender_in_the_text",
        "postoffice/delivery/helper/command.py",
        '["sh", "-c", text]',
        '["sh", "-c", text + " " + environment["SENDER"]]',
        "tests.delivery.test_helper.CommandTests.test_D1_nothing_of_the_letter_reaches_the_shell",
    ),
    Mutant(
        "D1_control_characters",
        "postoffice/delivery/helper/command.py",
        "ord(sign) < 32 or ord(sign) == 127",
        "ord(sign) == 127",
        "tests.delivery.test_helper.CommandTests.test_D1_control_characters_are_refused",
    ),
    Mutant(
        "D1_environment_handed_on",
        "postoffice/delivery/helper/command.py",
        "return {**given, **account,",
        'return {"IFS": "/", **given, **account,',
        "tests.delivery.test_helper.CommandTests.test_what_a_command_is_told",
    ),
    Mutant(
        "D2_root_is_an_account",
        "postoffice/delivery/helper/identity.py",
        "if entry.pw_uid == 0 or entry.pw_gid == 0:",
        "if entry.pw_uid == 1:",
        "tests.delivery.test_identity.RulesTests.test_D2_who_is_refused",
    ),
    Mutant(
        "D2_accounts_below_min_uid",
        "postoffice/delivery/helper/identity.py",
        "entry.pw_uid < self.min_uid and",
        "entry.pw_uid < 0 and",
        "tests.delivery.test_identity.RulesTests.test_D2_who_is_refused",
    ),
    Mutant(
        "D2_groups_kept",
        "postoffice/delivery/helper/identity.py",
        "os.setgroups(sorted(groups))",
        "pass",
        "tests.live.test_privileged.Programs.test_every_kind_of_forward",
    ),
    Mutant(
        "D2_new_privileges",
        "postoffice/delivery/helper/identity.py",
        "_prctl(_NO_NEW_PRIVS, 1)",
        "pass",
        "tests.delivery.test_helper.CommandTests.test_D2_what_a_command_has",
    ),
    Mutant(
        "D2_descriptors_inherited",
        "postoffice/delivery/helper/command.py",
        "output, standard_output = os.pipe2(os.O_CLOEXEC)",
        "output, standard_output = os.pipe2(0)",
        "tests.delivery.test_helper.CommandTests.test_D2_what_a_command_has",
    ),
    Mutant(
        "D2_way_back",
        "postoffice/delivery/helper/identity.py",
        "os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)",
        "os.setresuid(entry.pw_uid, entry.pw_uid, 0)",
        "tests.live.test_privileged.Mailboxes.test_mboxes_belong_to_the_users",
    ),
    Mutant(
        "D3_links_followed",
        "postoffice/delivery/mbox.py",
        "os.O_APPEND | os.O_NOFOLLOW",
        "os.O_APPEND",
        "tests.delivery.test_mbox.UnsafeTests.test_symbolic_link",
    ),
    Mutant(
        "D3_several_names",
        "postoffice/delivery/mbox.py",
        "status.st_nlink > 1",
        "False",
        "tests.delivery.test_mbox.UnsafeTests.test_D3_hard_link",
    ),
    Mutant(
        "D3_any_owner",
        "postoffice/delivery/mbox.py",
        "status.st_uid != os.geteuid()",
        "False",
        "tests.delivery.test_mbox.UnsafeTests.test_another_owner",
    ),
    Mutant(
        "D3_group_of_the_mail_folder",
        "postoffice/delivery/identities.py",
        'return "files" if own or not self._mail_folder else "places"',
        'return "files"',
        "tests.live.test_privileged.Programs.test_D3_no_mailbox_of_others_is_made",
    ),
    Mutant(
        "A9_no_shares_of_commands",
        "postoffice/delivery/identities.py",
        '"command": (40, 10)',
        '"command": (40, 40)',
        "tests.delivery.test_identities.SharesTests.test_A9_commands_of_one_user_do_not_hold_up_those_of_others",
    ),
    Mutant(
        "A9_checks_wait_for_commands",
        "postoffice/delivery/as_user.py",
        'message, file, begun, "check")',
        "message, file, begun)",
        "tests.delivery.test_identities.SharesTests.test_A9_letters_are_checked_whatever_users_have_run",
    ),
    Mutant(
        "D3_names_of_letters_foreseen",
        "postoffice/delivery/maildir.py",
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW",
        "os.O_WRONLY | os.O_CREAT",
        "tests.delivery.test_maildir.MaildirTests.test_D3_links_under_the_names_of_letters",
    ),
    Mutant(
        "D3_quota_of_several_names",
        "postoffice/delivery/quota.py",
        "there.st_nlink == 1 and ",
        "",
        "tests.delivery.test_quota.QuotaTests.test_D3_a_link_is_no_quota",
    ),
    Mutant(
        "D3_quota_under_another_name",
        "postoffice/delivery/quota.py",
        "    if not status.st_nlink:\n",
        "    if status.st_nlink <= 1:\n",
        "tests.delivery.test_quota.QuotaTests.test_D3_a_link_that_is_taken_away_is_no_quota",
    ),
    Mutant(
        "D3_names_that_come_back",
        "postoffice/delivery/files.py",
        "return os.path.basename(name) == os.path.basename(path)",
        "return True",
        "tests.delivery.test_files.NameTests.test_D3_a_name_that_came_back_is_another",
    ),
    Mutant(
        "D3_quota_by_a_link",
        "postoffice/delivery/quota.py",
        "_OPEN = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW",
        "_OPEN = os.O_RDWR | os.O_APPEND",
        "tests.delivery.test_quota.QuotaTests.test_D3_a_link_is_no_quota",
    ),
    Mutant(
        "D3_names_at_the_beginning",
        "postoffice/delivery/mbox.py",
        "    check_mailbox(there)\n",
        "",
        "tests.delivery.test_mbox.UnsafeTests.test_D3_a_hard_link_taken_away_and_put_back",
    ),
    Mutant(
        "D3_names_come_and_go",
        "postoffice/delivery/files.py",
        "if os.fstat(descriptor).st_ctime_ns != status.st_ctime_ns:",
        "if False:",
        "tests.delivery.test_mbox.UnsafeTests.test_D3_names_that_come_and_go_between_two_looks",
    ),
    Mutant(
        "D3_part_left",
        "postoffice/delivery/mbox.py",
        "os.ftruncate(self._descriptor, self._size)",
        "pass",
        "tests.delivery.test_mbox.MboxTests.test_full_at_every_octet_leaves_it_as_it_was",
    ),
    Mutant(
        "D3_part_left_between_letters",
        "postoffice/delivery/mbox.py",
        "os.ftruncate(self._descriptor, self._whole)",
        "pass",
        "tests.delivery.test_mbox.TogetherTests"
        ".test_D3_a_letter_that_does_not_fit_is_cut_off_and_the_others_stay",
    ),
    Mutant(
        "D3_any_name",
        "postoffice/directory/accounts.py",
        "bool(_NAME.match(name)) and",
        "",
        "tests.directory.test_accounts.VirtualUsersTests.test_names_unfit_for_a_path",
    ),
    Mutant(
        "D7_not_quoted",
        "postoffice/delivery/lines.py",
        '_LINE.sub(b">", data[first:])',
        "data[first:]",
        "tests.delivery.test_mbox.MboxTests.test_d7_a_line_like_a_separator_does_not_split_a_letter",
    ),
    Mutant(
        "D7_not_to_be_undone",
        "postoffice/delivery/lines.py",
        "(?=>*+From )",
        "(?=From )",
        "tests.delivery.test_lines.LineWriterTests.test_quoting_can_be_undone",
    ),
    Mutant(
        "E1_commits_not_synced",
        "postoffice/spool/writer.py",
        'connection.pragma("synchronous", "FULL")',
        'connection.pragma("synchronous", "NORMAL")',
        "tests.live.test_sync_order.SyncOrder.test_ten_sessions",
    ),
    Mutant(
        "E1_replies_before_the_sync",
        "postoffice/spool/writer.py",
        "            self._commit(store, group)\n",
        "            self._reactor.callFromThread(_answer, group.copy())\n"
        "            self._commit(store, group)\n            group.clear()\n",
        "tests.live.test_sync_order.SyncOrder.test_ten_sessions",
    ),
    Mutant(
        "E1_content_files_not_synced",
        "postoffice/spool/content.py",
        "            os.fsync(descriptor)\n",
        "",
        "tests.live.test_sync_order.SyncOrder.test_ten_sessions",
    ),
    Mutant(
        "E1_content_directory_not_synced",
        "postoffice/spool/writer.py",
        "                sync_directory(self._home.contents)\n",
        "                pass\n",
        "tests.live.test_sync_order.SyncOrder.test_ten_sessions",
    ),
    Mutant(
        "E1_maildir_letter_not_synced",
        "postoffice/delivery/maildir.py",
        "        os.fsync(self._descriptor)\n",
        "",
        "tests.delivery.test_durable.MaildirTests.test_E1_a_letter",
    ),
    Mutant(
        "E1_maildir_synced_before_the_end",
        "postoffice/delivery/maildir.py",
        "        rest = self._lines.finish()\n        if rest:\n"
        "            write_all(self._descriptor, rest)\n        os.fsync(self._descriptor)\n",
        "        os.fsync(self._descriptor)\n        rest = self._lines.finish()\n"
        "        if rest:\n            write_all(self._descriptor, rest)\n",
        "tests.delivery.test_durable.MaildirTests.test_E1_the_last_octets",
    ),
    Mutant(
        "E1_maildir_name_not_synced",
        "postoffice/delivery/maildir.py",
        "sync_directory(self.move())",
        "self.move()",
        "tests.delivery.test_durable.MaildirTests.test_E1_a_letter",
    ),
    Mutant(
        "E1_maildir_names_together_not_synced",
        "postoffice/delivery/maildir.py",
        "            sync_directory(directory)\n",
        "            pass\n",
        "tests.delivery.test_durable.MaildirTests.test_E1_letters_together",
    ),
    Mutant(
        "E1_made_directories_not_synced",
        "postoffice/delivery/files.py",
        "        return\n    sync_directory(os.path.dirname(path))\n",
        "        return\n",
        "tests.delivery.test_durable.MaildirTests.test_E1_a_maildir_that_is_made",
    ),
    Mutant(
        "E1_directories_of_others_not_synced",
        "postoffice/delivery/files.py",
        "        with suppress(PermissionError):\n            sync_directory(os.path.dirname(path))\n",
        "",
        "tests.delivery.test_durable.MaildirTests.test_E1_a_directory_that_another_is_making",
    ),
    Mutant(
        "E1_quota_not_synced",
        "postoffice/delivery/quota.py",
        "            os.fsync(descriptor)\n",
        "",
        "tests.delivery.test_durable.MaildirTests.test_E1_the_quota_is_there_whole_or_not_renewed",
    ),
    Mutant(
        "E1_mbox_not_synced",
        "postoffice/delivery/mbox.py",
        "        os.fsync(self._descriptor)\n",
        "",
        "tests.delivery.test_durable.MboxTests.test_E1_a_letter",
    ),
    Mutant(
        "E1_mbox_name_not_synced",
        "postoffice/delivery/mbox.py",
        "            sync_directory(os.path.dirname(self._path))\n",
        "            pass\n",
        "tests.delivery.test_durable.MboxTests.test_E1_an_mbox_that_is_made",
    ),
    Mutant(
        "E1_mbox_unlocked_before_the_sync",
        "postoffice/delivery/mbox.py",
        "        os.fsync(self._descriptor)\n",
        "        self._lock.release()\n        os.fsync(self._descriptor)\n",
        "tests.delivery.test_durable.MboxTests.test_E1_letters_together",
    ),
    Mutant(
        "E1_mbox_cut_off_unlocked",
        "postoffice/delivery/mbox.py",
        "        try:\n            os.ftruncate(self._descriptor, self._size)\n",
        "        self._lock.release()\n        try:\n"
        "            os.ftruncate(self._descriptor, self._size)\n",
        "tests.delivery.test_durable.MboxTests.test_E1_what_cannot_be_synced_is_cut_off_under_the_lock",
    ),
    Mutant(
        "D2_core_files",
        "postoffice/delivery/helper/identity.py",
        "{resource.RLIMIT_CORE: (0, 0), ",
        "{",
        "tests.delivery.test_helper.CommandTests.test_D2_what_a_command_may_use",
    ),
    Mutant(
        "D2_limits_not_set",
        "postoffice/delivery/helper/identity.py",
        "    set_limits()\n",
        "",
        "tests.delivery.test_helper.CommandTests.test_D2_what_a_command_may_use",
    ),
    Mutant(
        "D2_limits_raised",
        "postoffice/delivery/helper/identity.py",
        "min(at_most, before)",
        "at_most",
        "tests.delivery.test_identity.BecomingTests.test_D2_limits_are_never_raised",
    ),
    Mutant(
        "D2_ids_not_verified",
        "postoffice/delivery/helper/identity.py",
        "if os.getresuid() != (entry.pw_uid,) * 3 or os.getresgid() != groups:",
        "if False:",
        "tests.delivery.test_identity.BecomingTests.test_D2_every_id_is_looked_at",
    ),
    Mutant(
        "D2_change_not_verified",
        "postoffice/delivery/helper/identity.py",
        "        _check(entry, effective)\n",
        "",
        "tests.delivery.test_identity.BecomingTests.test_D2_every_way_back_is_tried",
    ),
    Mutant(
        "D2_supervisor_gone_unseen",
        "postoffice/delivery/helper/server.py",
        '                packets.send(control, {"alone": True})\n',
        "",
        "tests.live.test_privileged.Crashes.test_a_supervisor_that_was_killed",
    ),
    Mutant(
        "D2_signals_left_blocked",
        "postoffice/delivery/helper/command.py",
        "        signal.pthread_sigmask(signal.SIG_SETMASK, ())\n",
        "",
        "tests.delivery.test_child.Commands.test_D2_no_signal_is_blocked",
    ),
    Mutant(
        "D2_signals_left_ignored",
        "postoffice/delivery/helper/command.py",
        "            signal.signal(number, signal.SIG_DFL)\n",
        "            pass\n",
        "tests.delivery.test_helper.CommandTests.test_D2_what_a_command_has",
    ),
    Mutant(
        "D2_jobs_of_all_kinds",
        "postoffice/delivery/helper/child.py",
        'if job.get("do") not in self._allowed:',
        'if job.get("do") is None:',
        "tests.delivery.test_child.RefusedJobs.test_D2_a_job_of_another_kind",
    ),
    Mutant(
        "D3_letters_that_change",
        "postoffice/delivery/helper/child.py",
        "and not packets.is_sealed(letter)",
        "and False",
        "tests.delivery.test_child.RefusedJobs.test_D3_a_letter_that_could_change",
    ),
    Mutant(
        "D4_read_below_the_floor",
        "postoffice/directory/sources.py",
        "account.name if account.uid >= self._floor.min_uid else None",
        "account.name",
        "tests.directory.test_accounts.FloorTests.test_D4_nothing_is_read_as_an_account_below_the_floor",
    ),
    Mutant(
        "D4_files_for_virtual_users",
        "postoffice/directory/sources.py",
        "        if user.account is None:\n            return None\n"
        "        aliases = await self._files.aliases(user.account, file)\n",
        "        aliases = await self._files.aliases(str(user.account), file)\n",
        "tests.directory.test_expand.UserMapTests.test_D4_not_for_virtual_users",
    ),
    Mutant(
        "E1_claims_of_the_dead_kept",
        "postoffice/spool/writer.py",
        '"UPDATE recipient SET node = NULL, token = NULL, ready = due WHERE node = ?", (self._node,)',
        '"SELECT 1"',
        "tests.live.test_nothing_lost.NothingLost.test_resumes_at_once",
    ),
    Mutant(
        "A9_large_files_read_by_the_reactor",
        "postoffice/watched.py",
        "self._watch.in_thread(self._load, LIMIT_IN_THREAD).addBoth",
        '__import__("twisted.internet.defer").internet.defer.execute(self._load, LIMIT_IN_THREAD).addBoth',
        "tests.live.test_large_aliases.LargeAliases.test_in_the_service",
    ),
    Mutant(
        "A9_stall_not_told",
        "postoffice/services/stall.py",
        "            self._tell(stall, work)\n",
        "",
        "tests.services.test_stall.Meter.test_a_stall_is_shown_whole",
    ),
    Mutant(
        "C2_unknown_users_cost_nothing",
        "postoffice/directory/passwords.py",
        "stand_in = self._stand_in(name, list(users.values()))",
        "stand_in = self._stand_in(name, list(users.values())) if user else None",
        "tests.directory.test_passwords.Virtual.test_C2_everybody_costs_the_same",
    ),
    Mutant(
        "C2_the_password_of_another",
        "postoffice/directory/passwords.py",
        "if user is None or own is None:",
        "if user is None:",
        "tests.directory.test_passwords.Virtual.test_C2_the_right_password_of_another_opens_nothing",
    ),
    Mutant(
        "C2_shadow_without_work",
        "postoffice/delivery/helper/passwords.py",
        "right = hmac.compare_digest(crypt(password, own or anothers), own or anothers)",
        'right = own != "" and hmac.compare_digest(crypt(password, own), own)',
        "tests.delivery.test_helper_passwords.FitTests.test_C2_who_cannot_log_in_costs_the_same",
    ),
    Mutant(
        "C2_work_of_one_kind",
        "postoffice/delivery/helper/passwords.py",
        "usable[crc32(name.encode()) % len(usable)]",
        "usable[0]",
        "tests.delivery.test_helper_passwords.ShadowTests.test_C2_the_work_is_of_all_kinds_there_are",
    ),
    Mutant(
        "C2_anothers_password",
        "postoffice/delivery/helper/passwords.py",
        "return bool(own) and right and not is_empty(password)",
        "return right and not is_empty(password)",
        "tests.delivery.test_helper_passwords.FitTests.test_C2_who_cannot_log_in_costs_the_same",
    ),
    Mutant(
        "C2_empty_passwords",
        "postoffice/delivery/helper/passwords.py",
        "return bool(own) and right and not is_empty(password)",
        "return bool(own) and right",
        "tests.delivery.test_helper_passwords.FitTests.test_C2_an_empty_password_is_nobodys",
    ),
    Mutant(
        "C2_empty_passwords_by_pam",
        "postoffice/delivery/helper/pam.py",
        "_SILENT | _DISALLOW_NULL_AUTHTOK)",
        "_SILENT)",
        "tests.live.test_system_login.SystemLogIns.test_C2_by_pam",
    ),
    Mutant(
        "C2_expired_accounts_by_pam",
        "postoffice/delivery/helper/pam.py",
        "(library.pam_authenticate, library.pam_acct_mgmt)",
        "(library.pam_authenticate,)",
        "tests.live.test_system_login.SystemLogIns.test_C2_by_pam",
    ),
    Mutant(
        "C2_expired_passwords",
        "postoffice/crypt.py",
        "if 0 <= self.expires <= today or self.changed == 0:",
        "if 0 <= self.expires <= today:",
        "tests.test_crypt.Entries.test_C2_what_has_expired",
    ),
    Mutant(
        "C2_root_logs_in",
        "postoffice/delivery/helper/identity.py",
        "return entry.pw_uid != 0 and entry.pw_gid != 0 and",
        "return",
        "tests.delivery.test_identity.RulesTests.test_C2_who_may_log_in",
    ),
    Mutant(
        "C2_failures_by_pam_tell_names",
        "postoffice/delivery/passwords.py",
        "            await deferLater(self._reactor, STEP - (self._reactor.seconds() - began) % STEP)",
        "            pass",
        "tests.delivery.test_passwords.Pam.test_C2_a_failure_tells_nothing_by_its_time",
    ),
    Mutant(
        "C2_trouble_is_a_wrong_password",
        "postoffice/delivery/passwords.py",
        "            if not error.rule:",
        "            if False:",
        "tests.delivery.test_passwords.Pam.test_C2_trouble_is_no_answer",
    ),
    Mutant(
        "A9_checks_without_end",
        "postoffice/delivery/helper/server.py",
        "guarded(connection, passwords.LIMIT)\n",
        "signal.alarm(passwords.LIMIT)\n",
        "tests.delivery.test_helper_passwords.EndTests.test_A9_a_check_does_not_last",
    ),
    Mutant(
        "A9_checks_leave_what_they_run",
        "postoffice/delivery/helper/guard.py",
        "os.killpg(process, signal.SIGKILL)",
        "pass",
        "tests.delivery.test_helper_passwords.EndTests.test_A9_a_check_does_not_last",
    ),
    Mutant(
        "A9_checks_without_number",
        "postoffice/delivery/passwords.py",
        "if self._under_way >= MOST:",
        "if False:",
        "tests.delivery.test_passwords.Shadow.test_A9_too_many_at_once",
    ),
    Mutant(
        "A9_checks_counted_that_never_began",
        "postoffice/delivery/passwords.py",
        "        file = packets.memory_file()\n        self._under_way += 1\n",
        "        self._under_way += 1\n        file = packets.memory_file()\n",
        "tests.delivery.test_passwords.Shadow.test_A9_no_file_is_no_check_under_way",
    ),
    Mutant(
        "A9_checks_of_one_account_fill_the_room",
        "postoffice/delivery/passwords.py",
        "if taken >= SHARE:",
        "if False:",
        "tests.delivery.test_passwords.Pam.test_A9_one_account_does_not_take_all_the_room",
    ),
    Mutant(
        "C2_shares_tell_names",
        "postoffice/delivery/passwords.py",
        "if taken >= SHARE:",
        'if name != "joe" and taken >= SHARE:',
        "tests.delivery.test_passwords.Pam.test_C2_a_share_tells_no_names",
    ),
    Mutant(
        "D2_checks_looked_into",
        "postoffice/delivery/helper/identity.py",
        "    if purpose in CHECKS:\n        _prctl(_SET_DUMPABLE, 0)\n",
        "",
        "tests.delivery.test_helper_passwords.IdentityTests.test_D2_without_root_either",
    ),
    Mutant(
        "D2_hashes_stay_readable",
        "postoffice/delivery/helper/identity.py",
        "    os.setresgid(own, own, own)\n",
        "    return\n",
        "tests.delivery.test_helper_passwords.IdentityTests.test_D2_the_group_of_the_shadow_database_is_left_for_good",
    ),
    Mutant(
        "D2_anybody_reads_hashes",
        "postoffice/delivery/helper/identity.py",
        "            if name != self.service:",
        "            if False:",
        "tests.delivery.test_identity.RulesTests.test_D2_hashes_are_read_by_the_service_alone",
    ),
    Mutant(
        "D6_passwords_stay_in_memory",
        "postoffice/delivery/helper/passwords.py",
        "    finally:\n        room[:] = bytes(len(room))\n",
        "    finally:\n        pass\n",
        "tests.delivery.test_helper_passwords.SecretTests.test_D6_it_is_overwritten",
    ),
    Mutant(
        "C2_answers_that_differ",
        "postoffice/server/portal.py",
        "raise Refusal(INVALID, str(error)) from None",
        "raise Refusal(Reply(535, (7, 8), str(error))) from None",
        "tests.server.test_login.Failing.test_C2_the_same_answer_for_everybody",
    ),
    Mutant(
        "C2_passwords_in_the_clear",
        "postoffice/server/login.py",
        "return client.tls is not None or client.here or self._plaintext",
        "return True",
        "tests.server.test_login.Offers.test_C2_no_password_in_the_clear_from_other_machines",
    ),
    Mutant(
        "C2_guesses_without_end",
        "postoffice/server/throttle.py",
        "        if now < record.until:\n",
        "        if False:\n",
        "tests.server.test_login.Failing.test_C2_a_right_password_is_not_looked_at_while_it_may_be_a_guess",
    ),
    Mutant(
        "C2_each_spelling_is_an_account",
        "postoffice/server/portal.py",
        "self._throttle.begin(account, client)",
        "self._throttle.begin(credentials.user, client)",
        "tests.server.test_portal.Checkers.test_C2_guesses_count_whatever_the_spelling",
    ),
    Mutant(
        "C2_an_account_for_each_name_of_ours",
        "postoffice/directory/passwords.py",
        'return f"{name}@{domain.name}".lower() if domain.virtual else name.lower()',
        "return login.lower()",
        "tests.directory.test_passwords.Spelling.test_C2_an_account_has_one",
    ),
    Mutant(
        "C2_guesses_at_the_same_time",
        "postoffice/server/throttle.py",
        "if record.under_way >= max(1, FREE - record.failures):",
        "if False:",
        "tests.server.test_throttle.AtTheSameTime.test_C2_attempts_under_way_count",
    ),
    Mutant(
        "C2_owners_locked_out",
        "postoffice/server/throttle.py",
        "        if pair in self._known:\n",
        "        if False:\n",
        "tests.server.test_throttle.Owners.test_C2_nobody_is_locked_out_of_where_he_usually_is",
    ),
    Mutant(
        "C2_counts_without_bound",
        "postoffice/server/throttle.py",
        "if len(self._records) > MOST:",
        "if False:",
        "tests.server.test_throttle.Bounds.test_C2_memory_is_bounded",
    ),
    Mutant(
        "C2_failures_forgotten_by_tls",
        "postoffice/server/login.py",
        "        fresh._failures = self._failures\n",
        "",
        "tests.server.test_login.InsideTls.test_C2_failures_are_not_forgotten",
    ),
    Mutant(
        "C2_nul_in_a_name",
        "postoffice/smtp/sasl.py",
        ' or b"\\0" in user or b"\\0" in password',
        "",
        "tests.smtp.test_sasl.Exchanges.test_C2_what_is_no_name_and_no_password",
    ),
    Mutant(
        "C2_anything_is_a_hash",
        "postoffice/services/hashes.py",
        "        return _by_apr1 if _APR1(stored) else None",
        "        return _by_apr1 if _APR1(stored) else lambda hash, password: hash.encode() == password",
        "tests.services.test_hashes.Hashes.test_C2_what_is_no_hash_fits_nothing",
    ),
    Mutant(
        "C5_any_sender",
        "postoffice/server/commands.py",
        "if self.client.login is not None and not self._settings.auth_any_sender:",
        "if False:",
        "tests.server.test_login.Allowed.test_C5_only_their_own_senders",
    ),
    Mutant(
        "C5_any_mailbox_of_ours",
        "postoffice/directory/lookup.py",
        "case Mailbox(owner=owner) | Lmtp(owner=owner) if owner.lower() == login.lower():",
        "case Mailbox():",
        "tests.directory.test_lookup.OwnerTests.test_C5_own_address",
    ),
    Mutant(
        "D6_passwords_shown",
        "postoffice/smtp/sasl.py",
        "password: bytes = field(repr=False)",
        "password: bytes",
        "tests.smtp.test_sasl.Exchanges.test_D6_nothing_shows_the_password",
    ),
    Mutant(
        "C4_alias_circle",
        "postoffice/directory/expand.py",
        "        if step.key in self._seen:",
        "        if step.key in ():",
        "tests.directory.test_expand.LoopTests.test_C4_three_aliases_in_a_circle",
    ),
    Mutant(
        "C4_list_of_itself",
        "postoffice/directory/expand.py",
        "        if step.find(lambda one: one.include == path):",
        "        if step.find(lambda one: one.include is None and one.depth > 90):",
        "tests.directory.test_expand.LoopTests.test_C4_a_list_that_includes_itself",
    ),
    Mutant(
        "C4_no_fan_out_limit",
        "postoffice/directory/expand.py",
        "                    if len(self._copies) > limit:",
        "                    if len(self._copies) > limit * 2:",
        "tests.directory.test_expand.LoopTests.test_C4_the_limit_can_be_chosen",
    ),
    Mutant(
        "C4_no_end_of_targets",
        "postoffice/directory/expand.py",
        "            if self.followed > 2 * limit + 1000:",
        "            if self.followed > 2 * limit + 1000000:",
        "tests.directory.test_expand.LoopTests.test_C4_the_same_over_and_over_ends_too",
    ),
    Mutant(
        "C4_no_depth",
        "postoffice/directory/expand.py",
        "        if depth > _DEPTH:",
        "        if depth > 1000:",
        "tests.directory.test_expand.LoopTests.test_C4_an_address_that_leads_on_and_on",
    ),
    Mutant(
        "D4_group_writable",
        "postoffice/home_file.py",
        "stat.S_IWGRP | stat.S_IWOTH",
        "stat.S_IWOTH",
        "tests.directory.test_homes.OwnHomeTests.test_D4_others_may_write",
    ),
    Mutant(
        "D4_parents",
        "postoffice/home_file.py",
        "            _check(os.fstat(opened[-1]), uid, directory)",
        "            os.fstat(opened[-1])",
        "tests.directory.test_homes.OwnHomeTests.test_D4_others_may_write_to_a_parent",
    ),
    Mutant(
        "D4_owner",
        "postoffice/home_file.py",
        "    if status.st_uid not in (0, uid):",
        "    if status.st_uid < 0:",
        "tests.directory.test_homes.OwnHomeTests.test_D4_somebody_else_wrote_it",
    ),
    Mutant(
        "D4_link",
        "postoffice/home_file.py",
        "_FILE = os.O_RDONLY | os.O_NOFOLLOW |",
        "_FILE = os.O_RDONLY |",
        "tests.directory.test_homes.OwnHomeTests.test_D4_links_are_not_followed",
    ),
    Mutant(
        "D4_fifo",
        "postoffice/home_file.py",
        "    if not stat.S_ISREG(status.st_mode):",
        "    if stat.S_ISDIR(status.st_mode):",
        "tests.directory.test_homes.OwnHomeTests.test_D4_only_regular_files",
    ),
    Mutant(
        "D4_huge",
        "postoffice/home_file.py",
        "    if status.st_size > LIMIT:",
        "    if status.st_size > LIMIT << 20:",
        "tests.directory.test_homes.OwnHomeTests.test_D4_a_huge_file_is_not_read",
    ),
    Mutant(
        "D4_judged_by_name",
        "postoffice/home_file.py",
        '    data = b""\n',
        '    data = b""\n    name = os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")\n'
        "    descriptor = os.open(name, os.O_RDONLY)\n",
        "tests.directory.test_homes.OwnHomeTests.test_D4_what_was_opened_is_what_is_judged",
    ),
    Mutant(
        "D4_includes_of_users",
        "postoffice/directory/aliases.py",
        "PERSONAL = Rules((Include,),",
        "PERSONAL = Rules((),",
        "tests.directory.test_expand.ForwardTests.test_no_lists",
    ),
    Mutant(
        "E4_lengths",
        "postoffice/milter/packets.py",
        "if size > (self._longest_body if code == REPLACE_BODY else LONGEST):",
        "if False:",
        "tests.milter.test_packets.Framing.test_E4_lengths_are_looked_at_before_anything_is_kept",
    ),
    Mutant(
        "E4_failure_at_unknown",
        "postoffice/filters/screening.py",
        "                    self._poisoned(leg)\n\n    def close",
        "                    pass\n\n    def close",
        "tests.filters.test_screening.Failures.test_E4_a_failure_at_an_unknown_command_spoils_the_letter",
    ),
    Mutant(
        "E4_body_in_pieces",
        "postoffice/milter/engine.py",
        "if self._body > self._longest_body:",
        "if False:",
        "tests.milter.test_engine.Failures.test_E4_bodies_and_changes_are_bounded",
    ),
    Mutant(
        "E4_silence",
        "postoffice/filters/milter.py",
        "            self._watch(patience)\n        return await waiter",
        "            pass\n        return await waiter",
        "tests.filters.test_milter.Failing.test_E4_silence_at_every_stage",
    ),
    Mutant(
        "E4_second_verdict",
        "postoffice/milter/engine.py",
        '            raise Malformed(f"{code!r} where nothing was asked")',
        "            return None",
        "tests.filters.test_milter.Failing.test_E4_a_second_verdict_is_not_taken_for_that_of_the_next_letter",
    ),
    Mutant(
        "E4_edits_kept",
        "postoffice/milter/engine.py",
        "if self._awaited is not None or self.in_letter:",
        "if False:",
        "tests.filters.test_milter.Failing.test_E4_it_hangs_up_in_the_middle_of_its_edits",
    ),
    Mutant(
        "E4_hold_kept",
        "postoffice/milter/engine.py",
        "if self._awaited is not None or self.in_letter:",
        "if True:",
        "tests.filters.test_whole.Holds.test_E4_a_hold_stays_when_the_filter_has_gone",
    ),
    Mutant(
        "E4_denied_hold",
        "postoffice/milter/engine.py",
        "if not self._offer.allows(edit):",
        "if awaited not in _OF_SESSION and not self._offer.allows(edit):",
        "tests.milter.test_engine.Negotiation.test_E4_a_hold_that_is_denied_counts_nowhere",
    ),
    Mutant(
        "E4_farewell",
        "postoffice/filters/connection.py",
        "self._farewell = self._clock.callLater(FAREWELL, transport.abortConnection)",
        "pass",
        "tests.filters.test_milter.Failing.test_E4_one_that_reads_nothing_more_keeps_no_connection",
    ),
    Mutant(
        "A6_filter_values",
        "postoffice/milter/edits.py",
        'line if line[:1] in (b" ", b"\\t") else b"\\t" + line',
        "line",
        "tests.milter.test_edits.Hygiene.test_A6_no_value_begins_a_field_or_ends_the_header",
    ),
    Mutant(
        "A6_filter_marks",
        "postoffice/filters/letter.py",
        'printable(" ".join(reply.text.split()))',
        "reply.text",
        "tests.filters.test_screening.Spam.test_A6_a_mark_is_one_line",
    ),
    Mutant(
        "A6_reason_for_a_hold",
        "postoffice/filters/letter.py",
        'reason = printable(hold.reason.decode("utf-8", "replace")).strip()',
        'reason = hold.reason.decode("utf-8", "replace").strip()',
        "tests.filters.test_screening.Edits.test_A6_the_reason_for_a_hold_is_one_short_line",
    ),
    Mutant(
        "A6_filter_replies",
        "postoffice/milter/verdicts.py",
        '_odd.sub("?", text.replace("%%", "%"))',
        'text.replace("%%", "%")',
        "tests.milter.test_packets.Replies.test_A6_any_text_is_one_reply_on_the_wire",
    ),
    Mutant(
        "D5_owner",
        "postoffice/server/virtual.py",
        "if domain is None or not self.account or self.account != domain.owner:",
        "if domain is None or not self.account:",
        "tests.server.test_virtual.Rights.test_D5_only_the_owner_and_administrators",
    ),
    Mutant(
        "D5_no_owner",
        "postoffice/server/virtual.py",
        "not self.account or self.account",
        'self.account == "x" or (self.account or "")',
        "tests.server.test_virtual.Rights.test_D5_a_domain_without_owner_is_nobodys",
    ),
    Mutant(
        "D5_domains_told",
        "postoffice/server/virtual.py",
        "    asker.check(known)\n    if known is None:",
        "    if known is not None:\n        asker.check(known)\n    else:",
        "tests.server.test_virtual.Rights.test_D5_strangers_do_not_learn_which_domains_there_are",
    ),
    Mutant(
        "D5_account_of_the_caller",
        "postoffice/server/requests.py",
        "virtual.Asker(self._account, self._administrator(), self._note)",
        'virtual.Asker("alice", self._administrator(), self._note)',
        "tests.server.test_local.Rights.test_D5_domains_are_for_their_owners_and_administrators",
    ),
    Mutant(
        "D5_system_aliases",
        "postoffice/server/virtual.py",
        "            asker.check(None)\n",
        "",
        "tests.server.test_local.Rights.test_D5_alias_files_are_for_administrators",
    ),
    Mutant(
        "D5_letters_of_others",
        "postoffice/server/requests.py",
        "self._need_administrator()\n                return await self._letters(request)",
        "return await self._letters(request)",
        "tests.server.test_local.Rights.test_D5_letters_of_others_are_for_administrators",
    ),
    Mutant(
        "D5_spool_in_use",
        "postoffice/spool/home.py",
        "        fcntl.flock(descriptor, how | fcntl.LOCK_NB)\n",
        "        pass\n",
        "tests.spool.test_visitors.Visitors.test_D5_a_spool_that_a_service_has_is_left_alone",
    ),
    Mutant(
        "D5_name_of_a_user",
        "postoffice/directory/editing.py",
        "if not is_fit(name):",
        "if not name:",
        "tests.directory.test_editing.Users.test_D5_what_cannot_be_a_name",
    ),
    Mutant(
        "D5_name_of_an_alias",
        "postoffice/directory/editing.py",
        "    _check_name(name)\n    targets",
        "    targets",
        "tests.directory.test_editing.Aliases.test_D5_what_cannot_be_a_name",
    ),
    Mutant(
        "D5_target_read_otherwise",
        "postoffice/directory/editing.py",
        "if parse_aliases(new, VIRTUAL).find(name) == targets:",
        "if new:",
        "tests.directory.test_editing.Aliases.test_D5_what_cannot_be_a_target",
    ),
    Mutant(
        "D5_symbolic_link",
        "postoffice/directory/rewrite.py",
        "_READ = os.O_RDONLY | os.O_NOFOLLOW |",
        "_READ = os.O_RDONLY |",
        "tests.directory.test_virtual_files.Reading.test_D5_links_out_of_the_domain_are_not_followed",
    ),
    Mutant(
        "D5_hard_link",
        "postoffice/directory/rewrite.py",
        "or status.st_nlink > 1",
        "",
        "tests.directory.test_rewrite.Refusing.test_D5_links_lead_nowhere",
    ),
    Mutant(
        "D6_changes_in_the_log",
        "postoffice/server/virtual.py",
        "asker.note(f\"{'added' if new else 'set the password of'} {user}@{domain.name}\")",
        "asker.note(password)",
        "tests.server.test_virtual.Doing.test_D6_no_password_is_shown",
    ),
    Mutant(
        "D6_echo",
        "postoffice/commands/vpasswd.py",
        'first = getpass(f"New password of {printable(whose)}: ")',
        'first = input(f"New password of {printable(whose)}: ")',
        "tests.commands.test_virtual.Vpasswd.test_D6_a_terminal_shows_no_password",
    ),
)


@frozen
class Result:
    """What came of a test."""

    imported: str
    """The file the package was imported from."""

    broken: list[str]
    """What could not even be loaded."""

    ran: int
    failures: list[str]
    skipped: list[str]


class BadMutant(Exception):
    """The mutant, or the run of its test, shows nothing; the message says why."""


def copy(source: Path, destination: Path, package: str) -> None:
    """Copy the package, and show the tests beside it through a link, so that the copy is what they import."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / package, destination / package, ignore=ignore)
    (destination / "tests").symlink_to(source / "tests", target_is_directory=True)


def change(mutant: Mutant, directory: Path) -> None:
    """Plant the defect in the copy; it must still be Python."""
    path = directory / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise BadMutant(
            f"{mutant.file} holds the snippet {text.count(mutant.old)} times, not once: {mutant.old!r}"
        )
    changed = text.replace(mutant.old, mutant.new)
    compile(changed, str(path), "exec")
    path.write_text(changed, encoding="utf-8")


def execute(directory: Path, package: str, test: str) -> Result:
    """Run one test in the copy; BadMutant when its process ends without a word."""
    environment = os.environ | {"PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.run(
        [sys.executable, "-m", "tests.mutants", package, test],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    try:
        result = Result(**json.loads(process.stdout.rpartition("\n")[2]))
    except ValueError:
        raise BadMutant(
            f"the test's process said nothing, status {process.returncode}: {process.stderr}"
        ) from None
    if not Path(result.imported).resolve().is_relative_to(directory.resolve()):
        raise BadMutant(f"{package} was imported from {result.imported}, not from the copy {directory}")
    if result.broken:
        raise BadMutant(f"{test} cannot be loaded: {result.broken[0]}")
    if result.ran != 1:
        raise BadMutant(f"{test} names {result.ran} tests, not one")
    return result


def run(mutant: Mutant, source: Path, scratch: Path, package: str = "postoffice") -> list[str]:
    """What the test says of the defect: tracebacks, none if it did not see it; [] also if it was skipped.

    BadMutant where that would prove nothing: a snippet that is not there once, a test that cannot be loaded
    or fails without the defect as well.
    """
    for name in ("sound", "mutant"):
        (scratch / name).mkdir(parents=True)
        copy(source, scratch / name, package)
    change(mutant, scratch / "mutant")
    sound = execute(scratch / "sound", package, mutant.test)
    if sound.skipped:
        raise unittest.SkipTest(sound.skipped[0])
    if sound.failures:
        raise BadMutant(f"{mutant.test} fails without the defect as well: {sound.failures[0]}")
    return execute(scratch / "mutant", package, mutant.test).failures


class Witness(reporter.TestResult):
    """Counts the tests that ran and keeps what they reported."""

    def told(self) -> list[str]:
        """Every failure and error, as text."""
        return [self._getFailure(fault).getTraceback() for _, fault in [*self.failures, *self.errors]]


def main(package: str, name: str) -> None:
    """Run the named test in the current directory; prints a Result as the last line."""
    sys.stdout.flush()
    words = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    imported = str(importlib.import_module(package).__file__)
    found: list[Any] = []
    pending: list[Any] = [TestLoader().loadByName(name)]
    while pending:
        item = pending.pop()
        if isinstance(item, unittest.TestSuite):
            pending.extend(item)
        else:
            found.append(item)
    broken = [str(item.error[1]) for item in found if isinstance(item, ErrorHolder)]
    witness = Witness()
    if not broken:
        for test in found:
            test(witness)
    skipped = [str(reason) for _, reason in witness.skips]
    result = Result(imported, broken, witness.testsRun, witness.told(), skipped)
    words.write(json.dumps(asdict(result)))
    words.flush()
    # A test that a defect broke may leave threads behind that would keep the process from ending.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
