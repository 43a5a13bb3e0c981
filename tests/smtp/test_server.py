"""The server engine: dialogues told three ways, and the items of the security checklist it answers for."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from postoffice.mail.address import Address
from postoffice.mail.reply import Reply
from postoffice.smtp import commands, grammar, phases, server
from postoffice.smtp.content import BARE_NEWLINE, LINE_TOO_LONG, TOO_BIG, BareNewline
from postoffice.smtp.events import (
    Auth,
    AuthResponse,
    Chunk,
    Content,
    Data,
    Debug,
    EndOfChunk,
    EndOfContent,
    Etrn,
    Event,
    Expand,
    Helo,
    Help,
    Mail,
    Noop,
    Other,
    Quit,
    Rcpt,
    Refused,
    Reset,
    StartTls,
    Verify,
    Xclient,
)
from postoffice.smtp.server import ServerEngine
from tests.smtp.dialogue import (
    BANNER,
    BYE,
    GO_AHEAD,
    NO_SUCH_USER,
    OK,
    READY_FOR_TLS,
    UNANSWERED,
    Policy,
    Transcript,
    challenging,
    each_byte,
    obliging,
    split_at,
    talk,
    whole,
)
from tests.smtp.test_content import reference

ALICE = Address("alice", "example.org")
BOB = Address("bob", "example.com")
MAIL = b"MAIL FROM:<alice@example.org>\r\n"
RCPT = b"RCPT TO:<bob@example.com>\r\n"
NOBODY = b"RCPT TO:<nobody@example.com>\r\n"
ENVELOPE = MAIL + RCPT + b"DATA\r\n"
INNER = b"MAIL FROM:<ceo@example.net>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\nSmuggled\r\n.\r\n"
LAST = (b"HELO", b"EHLO", b"DATA", b"QUIT", b"STARTTLS", b"AUTH", b"XCLIENT")
OFFERED = commands.OPTIONAL

UNPRINTABLE = server.UNPRINTABLE
IMPROPER = server.IMPROPER_PIPELINING
MAIL_FIRST = Reply(503, (5, 1), "Send MAIL first")
RCPT_FIRST = Reply(503, (5, 1), "Send RCPT first")
HELO_FIRST = Reply(503, (5, 1), "Send HELO or EHLO first")
NO_RECIPIENTS = Reply(554, (5, 1), "No valid recipients")
IN_TRANSACTION = Reply(503, (5, 1), "Not while a mail transaction is under way")
CHUNKS_ONLY = Reply(503, (5, 1), "Send the message's other chunks first, or RSET")
NOT_NOW = Reply(454, (7, 0), "Not now")
ORDINARY = [Mail(ALICE), Rcpt(BOB), Data()]


def engine(
    bare_newline: BareNewline = "normalize",
    max_size: int = 0,
    require_helo: bool = False,
    offered: frozenset[bytes] = frozenset(),
    lenient_order: bool = False,
) -> ServerEngine:
    return ServerEngine(bare_newline, max_size, require_helo, offered, lenient_order)


class Told(SynchronousTestCase):
    """Every dialogue is told whole, byte by byte, and with trailing data."""

    def tell(
        self,
        groups: Sequence[bytes],
        events: Sequence[Event],
        sent: Sequence[Reply] | None = None,
        **options: object,
    ) -> None:
        replies = (
            [obliging(event) for event in events if not isinstance(event, UNANSWERED)]
            if sent is None
            else sent
        )
        output = b"".join(reply.encode() for reply in [BANNER, *replies])
        for cut in (whole, each_byte):
            told = talk(groups, cut, engine=engine(**options))
            self.assertEqual(told.events, list(events), cut)
            self.assertEqual(told.sent, output, cut)
            self.assertEqual(told.engine.buffered, 0)
        self.tell_with_trailing_data(groups, events, **options)

    def tell_with_trailing_data(
        self, groups: Sequence[bytes], events: Sequence[Event], **options: object
    ) -> None:
        closing = talk(groups, engine=engine(**options)).engine.closing
        told = talk([*groups[:-1], groups[-1] + b"NOO"], engine=engine(**options))
        if groups[-1].split(b"\r\n")[-2].upper().startswith(LAST):
            self.assertEqual(told.events[:-1], list(events[:-1]))
            last = told.events[-1]
            assert isinstance(last, Refused)
            self.assertEqual(last.reply, IMPROPER)
            self.assertTrue(told.engine.closing)
        else:
            self.assertEqual(told.events, list(events))
        # What is behind the end stays unread, unless nothing is read any more.
        self.assertEqual(told.engine.buffered, 0 if told.engine.closing else 3)
        if not told.engine.closing:
            told.engine.receive(b"P\r\n")
            self.assertEqual(told.engine.next_event(), Noop())
        elif closing:
            told.engine.receive(b"P\r\n")
            self.assertIsNone(told.engine.next_event())


class Dialogues(Told):
    def test_one_letter(self) -> None:
        self.tell(
            [
                b"EHLO client.example.net\r\n",
                MAIL,
                RCPT,
                b"DATA\r\n",
                b"Subject: hi\r\n\r\n..\r\n.\r\n",
                b"QUIT\r\n",
            ],
            [
                Helo("client.example.net", True),
                *ORDINARY,
                Content(b"Subject: hi\r\n\r\n.\r\n"),
                EndOfContent(19),
                Quit(),
            ],
        )

    def test_pipelined(self) -> None:
        self.tell(
            [b"EHLO x\r\n", ENVELOPE, b"a\r\n.\r\n" + ENVELOPE, b".\r\nQUIT\r\n"],
            [
                Helo("x", True),
                *ORDINARY,
                Content(b"a\r\n"),
                EndOfContent(3),
                *ORDINARY,
                EndOfContent(0),
                Quit(),
            ],
        )

    def test_helo_is_optional(self) -> None:
        self.tell([ENVELOPE, b".\r\n"], [*ORDINARY, EndOfContent(0)])
        self.tell([b"HELO x\r\n", MAIL], [Helo("x", False), Mail(ALICE)])

    def test_helo_may_be_insisted_on(self) -> None:
        self.tell(
            [b"RSET\r\nNOOP\r\nVRFY x\r\n" + MAIL + RCPT + b"HELO x\r\n", MAIL],
            [
                Reset(),
                Noop(),
                Verify("x"),
                Refused("MAIL", HELO_FIRST),
                Refused("RCPT", MAIL_FIRST),
                Helo("x", False),
                Mail(ALICE),
            ],
            require_helo=True,
        )

    def test_every_command(self) -> None:
        self.tell(
            [b"NOOP\r\nnoop x y\r\nVRFY bob\r\nEXPN list\r\nHELP\r\nHELP mail\r\nRSET\r\nRSET  \r\nquit\r\n"],
            [Noop(), Noop(), Verify("bob"), Expand("list"), Help(""), Help("mail"), Reset(), Reset(), Quit()],
        )

    def test_unknown_commands(self) -> None:
        self.tell(
            [b"\r\n \r\n NOOP\r\nfoo bar\r\nMAILFROM:<a@b>\r\n" + b"x" * 99 + b"\r\n"],
            [
                Other(""),
                Other(""),
                Other(""),
                Other("FOO"),
                Other("MAILFROM:<A@B>"),
                Other("X" * 20),
            ],
        )

    def test_missing_and_unwanted_arguments(self) -> None:
        lines = [
            (b"HELO", "HELO", commands.HELO_ARGUMENT),
            (b"EHLO  ", "EHLO", commands.HELO_ARGUMENT),
            (b"EHLO a b", "EHLO", commands.HELO_ARGUMENT),
            (b"HELO " + b"x" * 256, "HELO", commands.HELO_ARGUMENT),
            (b"MAIL", "MAIL", commands.MAIL_ARGUMENT),
            (b"MAIL <a@b>", "MAIL", commands.MAIL_ARGUMENT),
            (b"VRFY", "VRFY", commands.TEXT_ARGUMENT),
            (b"EXPN", "EXPN", commands.TEXT_ARGUMENT),
            (b"RSET x", "RSET", commands.NO_ARGUMENT),
            (b"QUIT x", "QUIT", commands.NO_ARGUMENT),
            (b"MAIL FROM:", "MAIL", grammar.BAD_SENDER),
        ]
        for line, verb, reply in lines:
            told = talk([line + b"\r\n", b"NOOP\r\n"])
            self.assertEqual(told.events, [Refused(verb, reply), Noop()], line)
        self.tell(
            [MAIL + b"RCPT\r\nRCPT FROM:<a@b>\r\nRCPT TO:\r\n" + RCPT + b"DATA x\r\n"],
            [
                Mail(ALICE),
                Refused("RCPT", commands.RCPT_ARGUMENT),
                Refused("RCPT", commands.RCPT_ARGUMENT),
                Refused("RCPT", grammar.BAD_RECIPIENT),
                Rcpt(BOB),
                Refused("DATA", commands.NO_ARGUMENT),
            ],
        )

    def test_paths_and_parameters(self) -> None:
        self.tell(
            [
                b"MAIL FROM:<> SIZE=12 BODY=8BITMIME\r\nmail from: alice@example.org size=3\r\n"
                b"MAIL FROM:<alice@example.org \r\nMAIL FROM:<alice@example.org> FOO=bar\r\n"
                b"MAIL FROM:<alice@example.org> SIZE=x\r\nMAIL FROM:Alice <alice@example.org>\r\n"
                + MAIL
                + b"rcpt to:bob@example.com\r\nRCPT TO:<Postmaster>\r\nRCPT TO:<>\r\n"
                b"RCPT TO:<bob@example.com> BY=1\r\nRCPT TO:<bob@example.com> NOTIFY=DELAY ORCPT=rfc822;b\r\n"
                b"MAIL FROM:<> ENVID=x RET=HDRS AUTH=<>\r\n"
            ],
            [
                Mail(None, 12, "8BITMIME"),
                Mail(ALICE, 3),
                Refused("MAIL", grammar.BAD_SENDER),
                Refused("MAIL", grammar.UNKNOWN_PARAMETER),
                Refused("MAIL", grammar.BAD_SIZE),
                Refused("MAIL", grammar.BAD_PARAMETER),
                Mail(ALICE),
                Rcpt(BOB),
                Rcpt(Address("Postmaster", "")),
                Refused("RCPT", grammar.BAD_RECIPIENT),
                Refused("RCPT", grammar.UNKNOWN_PARAMETER),
                Rcpt(BOB, "DELAY", "rfc822;b"),
                Mail(None, ret="HDRS", envid="x"),
            ],
        )

    def test_addresses_of_any_script(self) -> None:
        """RFC 6531: where the client has said that it knows what it does."""
        rcpt = "RCPT TO:<bøb@example.com>\r\n".encode()
        self.tell(
            [
                "MAIL FROM:<alicé@bücher.example> SMTPUTF8\r\n".encode() + rcpt + RCPT,
                "MAIL FROM:<alicé@example.org>\r\n".encode() + rcpt + RCPT,
                MAIL + rcpt + "RCPT TO:<bob@bücher.example>\r\n".encode() + RCPT,
                b"MAIL FROM:<alic\xe9@example.org> SMTPUTF8\r\nMAIL FROM:<> SMTPUTF8\r\n" + rcpt,
                "VRFY bøb\r\nRCPT TO:<b\u2028b@x>\r\n".encode(),
            ],
            [
                Mail(Address("alicé", "xn--bcher-kva.example"), smtputf8=True),
                *(Rcpt(Address("bøb", "example.com")), Rcpt(BOB)),
                Refused("MAIL", server.NOT_UTF8),
                *(Refused("RCPT", MAIL_FIRST, error=False), Refused("RCPT", MAIL_FIRST, error=False)),
                *(Mail(ALICE), Refused("RCPT", server.NOT_UTF8), Refused("RCPT", server.NOT_UTF8), Rcpt(BOB)),
                Refused("MAIL", UNPRINTABLE),
                *(Mail(None, smtputf8=True), Rcpt(Address("bøb", "example.com"))),
                *(Refused("VRFY", UNPRINTABLE), Refused("RCPT", UNPRINTABLE)),
            ],
        )

    def test_declared_size(self) -> None:
        self.tell(
            [
                b"MAIL FROM:<alice@example.org> SIZE=101\r\nRCPT TO:<a@b>\r\n",
                b"MAIL FROM:<alice@example.org> SIZE=100\r\n",
            ],
            [
                Refused("MAIL", server.DECLARED_TOO_BIG, error=False),
                Refused("RCPT", MAIL_FIRST, error=False),
                Mail(ALICE, 100),
            ],
            max_size=100,
        )

    def test_size(self) -> None:
        self.tell(
            [ENVELOPE, b"x" * 98 + b"\r\n.\r\n"],
            [*ORDINARY, Content(b"x" * 98 + b"\r\n"), EndOfContent(100)],
            max_size=100,
        )
        for cut in (whole, each_byte):
            told = talk([ENVELOPE, b"x" * 99 + b"\r\n" + MAIL + b".\r\n"], cut, engine=engine(max_size=100))
            self.assertEqual(told.events[-1], EndOfContent(101 + len(MAIL), TOO_BIG))
            self.assertLess(sum(map(len, told.content())), 101)

    def test_order(self) -> None:
        self.tell(
            [
                RCPT + b"DATA\r\n",
                MAIL + b"DATA\r\n",
                NOBODY + NOBODY + b"DATA\r\n",
                RCPT + NOBODY + b"DATA\r\n",
                b".\r\n",
                RCPT + b"DATA\r\n",
            ],
            [
                Refused("RCPT", MAIL_FIRST),
                Refused("DATA", MAIL_FIRST),
                Mail(ALICE),
                Refused("DATA", RCPT_FIRST),
                Rcpt(Address("nobody", "example.com")),
                Rcpt(Address("nobody", "example.com")),
                Refused("DATA", NO_RECIPIENTS, error=False),
                Rcpt(BOB),
                Rcpt(Address("nobody", "example.com")),
                Data(),
                EndOfContent(0),
                Refused("RCPT", MAIL_FIRST),
                Refused("DATA", MAIL_FIRST),
            ],
        )

    def test_a_recipient_before_the_sender_may_be_dropped(self) -> None:
        """It is acknowledged, so that no letter may follow that does not go to it."""
        self.tell(
            [
                RCPT + b"DATA\r\n",
                b"RCPT TO:<>\r\nBDAT 1 LAST\r\nx" + RCPT + b"RSET\r\n",
                RCPT + MAIL + b"DATA\r\n",
                RCPT + b"DATA\r\n",
                b".\r\nMAIL FROM:x y\r\n" + RCPT,
            ],
            [
                Noop(),
                Refused("DATA", MAIL_FIRST),
                *(Refused("RCPT", grammar.BAD_RECIPIENT), Refused("BDAT", MAIL_FIRST), Noop(), Reset()),
                *(Noop(), Mail(ALICE), Refused("DATA", RCPT_FIRST)),
                *(Rcpt(BOB), Data(), EndOfContent(0)),
                Refused("MAIL", grammar.UNKNOWN_PARAMETER),
                Refused("RCPT", MAIL_FIRST, error=False),
            ],
            lenient_order=True,
        )

    def test_what_ends_a_transaction(self) -> None:
        for line, event in [(b"RSET", Reset()), (b"EHLO x", Helo("x", True)), (b"HELO x", Helo("x", False))]:
            self.tell(
                [MAIL + RCPT + line + b"\r\n", b"DATA\r\n", RCPT],
                [Mail(ALICE), Rcpt(BOB), event, Refused("DATA", MAIL_FIRST), Refused("RCPT", MAIL_FIRST)],
            )

    def test_a_second_mail_starts_over(self) -> None:
        self.tell(
            [MAIL + RCPT + MAIL + b"DATA\r\n"],
            [Mail(ALICE), Rcpt(BOB), Mail(ALICE), Refused("DATA", RCPT_FIRST)],
        )

    def test_a_refused_second_mail_leaves_nothing(self) -> None:
        """Else the recipients pipelined behind it would be added to the letter before."""
        for line, reply in [
            (b"MAIL FROM:<alice@>", grammar.BAD_SENDER),
            (b"MAIL FROM:<al\xefce@example.org>", UNPRINTABLE),
            (b"MAIL FROM:<alice@example.org> " + b"x" * 2048, server.LINE_TOO_LONG),
        ]:
            self.tell(
                [MAIL + RCPT + line + b"\r\n" + RCPT + b"DATA\r\n"],
                [
                    Mail(ALICE),
                    Rcpt(BOB),
                    Refused("MAIL", reply),
                    Refused("RCPT", MAIL_FIRST, error=False),
                    Refused("DATA", MAIL_FIRST, error=False),
                ],
            )

    def test_refused_answers_keep_the_phase(self) -> None:
        def refusing(event: Event) -> Reply:
            return event.reply if isinstance(event, Refused) else Reply(451, (3, 0), "Not now")

        told = talk([b"EHLO x\r\n", MAIL + RCPT, b"DATA\r\n"], policy=refusing)
        self.assertEqual(
            told.events,
            [
                Helo("x", True),
                Mail(ALICE),
                Refused("RCPT", MAIL_FIRST, error=False),
                Refused("DATA", MAIL_FIRST, error=False),
            ],
        )
        told = talk([b"EHLO x\r\n" + MAIL], policy=refusing, engine=engine(require_helo=True))
        self.assertTrue(told.engine.closing)
        told = talk([b"EHLO x\r\n", MAIL], policy=refusing, engine=engine(require_helo=True))
        self.assertEqual(told.events, [Helo("x", True), Refused("MAIL", HELO_FIRST)])

    def test_a_refused_ehlo_keeps_the_transaction(self) -> None:
        def policy(event: Event) -> Reply:
            return Reply(550, (7, 1), "No") if isinstance(event, Helo) else obliging(event)

        told = talk([MAIL + RCPT + b"EHLO x\r\n", b"DATA\r\n"], policy=policy)
        self.assertEqual(told.events, [Mail(ALICE), Rcpt(BOB), Helo("x", True), Data()])

    def test_a_refused_data_ends_the_transaction(self) -> None:
        def policy(event: Event) -> Reply:
            return Reply(451, (7, 1), "Greylisted") if isinstance(event, Data) else obliging(event)

        told = talk([ENVELOPE, b"DATA\r\n"], policy=policy)
        self.assertEqual(told.events, [*ORDINARY, Refused("DATA", MAIL_FIRST)])
        self.assertFalse(told.engine.closing)


class Extensions(Told):
    """Commands that are known only where they are offered."""

    def told(self, *groups: bytes, policy: Policy = obliging, **options: object) -> Transcript:
        """What comes of it whole, which is what comes of it byte by byte and with trailing data.

        Behind what has to be answered before anything may follow, trailing data end the session.
        """
        options.setdefault("offered", OFFERED)
        one = talk(groups, policy=policy, engine=engine(**options))
        many = talk(groups, each_byte, policy=policy, engine=engine(**options))
        self.assertEqual((one.events, one.sent), (many.events, many.sent))
        more = talk([*groups[:-1], groups[-1] + b"NOO"], policy=policy, engine=engine(**options))
        if more.engine.closing and not one.engine.closing:
            self.assertEqual(more.events[:-1], one.events[:-1])
            last = more.events[-1]
            assert isinstance(last, Refused)
            self.assertEqual(last.reply, IMPROPER)
        else:
            self.assertEqual((one.events, one.sent), (more.events, more.sent))
            self.assertEqual(more.engine.buffered, 0 if more.engine.closing else 3)
        return one

    def test_not_offered(self) -> None:
        lines = [
            b"STARTTLS",
            b"AUTH PLAIN AA==",
            b"ETRN example.org",
            b"XCLIENT NAME=x",
            b"DEBUG",
            b"AUTH",
            b"ETRN",
        ]
        for line in lines:
            for before in (b"NOOP\r\n", MAIL, MAIL + RCPT):
                told = self.told(before, line + b"\r\n", b"NOOP\r\n", offered=frozenset())
                name = line.split()[0].decode()
                self.assertEqual(told.events[-2:], [Refused(name, server.NOT_OFFERED), Noop()])

    def test_etrn_and_debug(self) -> None:
        self.tell(
            [b"ETRN\r\nETRN @example.org\r\nDEBUG x\r\ndebug\r\n" + MAIL + b"DEBUG\r\nETRN example.org\r\n"],
            [
                Refused("ETRN", commands.TEXT_ARGUMENT),
                Etrn("@example.org"),
                Refused("DEBUG", commands.NO_ARGUMENT),
                Debug(),
                Mail(ALICE),
                Debug(),
                Refused("ETRN", IN_TRANSACTION),
            ],
            offered=OFFERED,
        )

    def test_starttls(self) -> None:
        """RFC 3207 section 4.2; checklist B1: what was said before does not count."""
        for before in ([], [MAIL], [MAIL, RCPT], [b"MAIL FROM:<>x\r\n"]):
            told = self.told(*before, b"STARTTLS\r\n")
            subject = told.engine
            self.assertEqual(
                told.events[-1], Refused("STARTTLS", IN_TRANSACTION) if MAIL in before else StartTls()
            )
            if MAIL in before:
                continue
            self.assertRaises(RuntimeError, subject.receive, b"NOOP\r\n")
            self.assertIsNone(subject.next_event())
            self.assertFalse(subject.closing)
            subject.secured()
            self.assertRaises(RuntimeError, subject.secured)
            subject.receive(RCPT + b"STARTTLS\r\n")
            told.run(obliging)
            self.assertEqual(
                told.events[-2:], [Refused("RCPT", MAIL_FIRST), Refused("STARTTLS", server.SECURED)]
            )

    def test_starttls_asks_for_helo_again(self) -> None:
        told = self.told(b"STARTTLS\r\n", b"EHLO x\r\n", b"STARTTLS\r\n", require_helo=True, policy=obliging)
        self.assertEqual(told.events, [Refused("STARTTLS", HELO_FIRST), Helo("x", True), StartTls()])
        told.engine.secured()
        told.engine.receive(MAIL)
        told.run(obliging)
        self.assertEqual(told.events[-1], Refused("MAIL", HELO_FIRST))

    def test_starttls_refused_goes_on(self) -> None:
        told = self.told(
            b"STARTTLS x\r\n",
            b"STARTTLS\r\n",
            MAIL,
            policy=lambda event: NOT_NOW if event == StartTls() else obliging(event),
        )
        self.assertEqual(told.events, [Refused("STARTTLS", commands.NO_ARGUMENT), StartTls(), Mail(ALICE)])

    def test_B1_bytes_before_the_220(self) -> None:
        """They came while STARTTLS was being answered: nothing of them is read, inside TLS or outside."""
        subject = engine(offered=OFFERED)
        told = talk([b"STARTTLS\r\n"], engine=subject, policy=lambda event: NOT_NOW)
        subject.receive(b"STARTTLS\r\n")
        self.assertEqual(subject.next_event(), StartTls())
        subject.receive(b"M")
        self.assertEqual(subject.answer(READY_FOR_TLS), b"")
        told.run(obliging)
        self.assertEqual(told.events[-1], Refused("STARTTLS", IMPROPER))
        self.assertTrue(subject.closing)

    def test_tls_from_the_start(self) -> None:
        subject = engine(offered=OFFERED)
        subject.secured()
        told = talk([b"STARTTLS\r\n"], engine=subject)
        self.assertEqual(told.events, [Refused("STARTTLS", server.SECURED)])

    def test_auth(self) -> None:
        told = self.told(
            b"AUTH login\r\n", b"\r\n", b"Zm9v\r\n", b"AUTH PLAIN =\r\n", MAIL, policy=challenging(b"Zm9v")
        )
        self.assertEqual(
            told.events,
            [
                Auth("LOGIN", None),
                AuthResponse(b""),
                AuthResponse(b"Zm9v"),
                Refused("AUTH", server.AUTHENTICATED),
                Mail(ALICE),
            ],
        )

    def test_auth_that_fails_may_be_tried_again(self) -> None:
        told = self.told(
            b"AUTH PLAIN AGEAYg==\r\n",
            b"*\r\n",
            b"AUTH LOGIN\r\n",
            b"Zm9v\r\n",
            b"NOOP\r\n",
            policy=challenging(b"Zm9v", refused=b"*"),
        )
        self.assertEqual(
            told.events,
            [
                Auth("PLAIN", "AGEAYg=="),
                AuthResponse(b"*"),
                Auth("LOGIN", None),
                AuthResponse(b"Zm9v"),
                Noop(),
            ],
        )

    def test_auth_out_of_order(self) -> None:
        self.tell(
            [MAIL, b"AUTH PLAIN\r\n", RCPT, b"AUTH PLAIN\r\n"],
            [Mail(ALICE), Refused("AUTH", IN_TRANSACTION), Rcpt(BOB), Refused("AUTH", IN_TRANSACTION)],
            offered=OFFERED,
        )
        self.tell([b"AUTH PLAIN\r\n"], [Refused("AUTH", HELO_FIRST)], offered=OFFERED, require_helo=True)

    def test_auth_arguments(self) -> None:
        for line in (
            b"AUTH",
            b"AUTH  ",
            b"AUTH PL(IN",
            b"AUTH PLAIN x y",
            b"AUTH PLAIN a!b",
            b"AUTH " + b"x" * 21,
        ):
            told = self.told(line + b"\r\n", b"NOOP\r\n")
            self.assertEqual(told.events, [Refused("AUTH", commands.AUTH_ARGUMENT), Noop()], line)

    def test_auth_lines_of_any_length(self) -> None:
        """RFC 4954 section 4: up to 12,288 octets."""
        for size in (510, 511, 2047, 12_288):
            told = self.told(
                b"AUTH PLAIN ".ljust(size, b"A") + b"\r\n", b"A" * size + b"\r\n", policy=challenging()
            )
            self.assertEqual([type(event) for event in told.events], [Auth, AuthResponse])
        for size in (12_289, 20_000):
            told = self.told(b"AUTH PLAIN ".ljust(size, b"A") + b"\r\n", b"NOOP\r\n")
            self.assertEqual(told.events, [Refused("AUTH", server.LINE_TOO_LONG), Noop()])
            told = self.told(b"AUTH PLAIN\r\n", b"A" * size + b"\r\n", b"NOOP\r\n", policy=challenging())
            self.assertEqual(
                told.events, [Auth("PLAIN", None), Refused("AUTH", server.AUTH_LINE_TOO_LONG), Noop()]
            )

    def test_A7_every_octet_in_an_auth_response(self) -> None:
        for octet in range(256):
            told = self.told(
                b"AUTH PLAIN\r\n", b"Zm" + bytes([octet]) + b"9\r\n", b"*\r\n", policy=challenging()
            )
            if 0x20 <= octet < 0x7F:
                self.assertEqual(told.events[1], AuthResponse(b"Zm" + bytes([octet]) + b"9"))
                self.assertEqual(told.events[2], AuthResponse(b"*"))
            else:
                self.assertEqual(told.events[1], Refused("AUTH", server.NOT_BASE64))
                self.assertEqual(told.events[2], Other("*"))

    def test_A5_nothing_behind_an_auth_response(self) -> None:
        told = talk(
            [b"AUTH LOGIN\r\n", b"Zm9v\r\nYmFy\r\n", b"NOOP\r\n"],
            policy=challenging(),
            engine=engine(offered=OFFERED),
        )
        self.assertEqual(told.events, [Auth("LOGIN", None), Refused("AUTH", IMPROPER)])
        self.assertTrue(told.engine.closing)

    def test_xclient_starts_over(self) -> None:
        told = self.told(
            b"EHLO x\r\n",
            b"XCLIENT NAME=a ADDR=192.0.2.1\r\n",
            MAIL,
            b"EHLO y\r\n",
            MAIL,
            b"XCLIENT NAME=b\r\n",
            policy=lambda event: BANNER if isinstance(event, Xclient) else obliging(event),
            require_helo=True,
        )
        self.assertEqual(
            told.events,
            [
                Helo("x", True),
                Xclient("NAME=a ADDR=192.0.2.1"),
                Refused("MAIL", HELO_FIRST),
                Helo("y", True),
                Mail(ALICE),
                Refused("XCLIENT", IN_TRANSACTION),
            ],
        )

    def test_xclient_refused_changes_nothing(self) -> None:
        told = self.told(
            b"EHLO x\r\n",
            b"XCLIENT A=b\r\n",
            MAIL,
            require_helo=True,
            policy=lambda event: NOT_NOW if isinstance(event, Xclient) else obliging(event),
        )
        self.assertEqual(told.events, [Helo("x", True), Xclient("A=b"), Mail(ALICE)])


class Protocol(SynchronousTestCase):
    """The promises to the caller."""

    def test_banner(self) -> None:
        subject = ServerEngine()
        self.assertIsNone(subject.next_event())
        self.assertEqual(subject.greet(BANNER), b"220 mx.example.org ESMTP\r\n")
        self.assertFalse(subject.closing)
        self.assertRaises(RuntimeError, subject.greet, BANNER)

    def test_a_negative_banner_closes(self) -> None:
        for code in (421, 521, 554):
            subject = ServerEngine()
            self.assertEqual(subject.greet(Reply(code, None, "Go away")), b"%d Go away\r\n" % code)
            self.assertTrue(subject.closing)
            subject.receive(b"NOOP\r\n")
            self.assertIsNone(subject.next_event())

    def test_one_event_at_a_time(self) -> None:
        subject = ServerEngine()
        subject.greet(BANNER)
        self.assertRaises(RuntimeError, subject.answer, OK)
        subject.receive(b"NOOP\r\nRSET\r\n")
        self.assertEqual(subject.next_event(), Noop())
        self.assertRaises(RuntimeError, subject.next_event)
        self.assertEqual(subject.answer(OK), b"250 2.0.0 OK\r\n")
        self.assertRaises(RuntimeError, subject.answer, OK)
        self.assertEqual(subject.buffered, 6)
        self.assertEqual(subject.next_event(), Reset())

    def test_closing_codes(self) -> None:
        for code in (221, 421, 521):
            told = talk([b"NOOP\r\nNOOP\r\n"], policy=lambda _, code=code: Reply(code, None, "Bye"))
            self.assertEqual(told.events, [Noop()])
            self.assertTrue(told.engine.closing)
            self.assertEqual(told.engine.buffered, 0)

    def test_a_malformed_quit_is_no_quit(self) -> None:
        for line in (b"QUIT now", b"QUIT \n", b"QUIT " + b"x" * 600):
            told = talk([line + b"\r\n", b"QUIT\r\n"])
            self.assertEqual([type(event) for event in told.events], [Refused, Quit], line)
            self.assertTrue(told.engine.closing)

    def test_no_event_before_enough_bytes(self) -> None:
        subject = ServerEngine()
        subject.greet(BANNER)
        for data in (b"", b"NOOP", b"\r"):
            subject.receive(data)
            self.assertIsNone(subject.next_event())
        self.assertEqual(subject.buffered, 5)
        subject.receive(b"\n")
        self.assertEqual(subject.next_event(), Noop())

    def test_an_idle_session_keeps_no_segment(self) -> None:
        for segment in (b"".join([b"NOOP\r\n"] * 1000), b"".join([ENVELOPE, b""])):
            before = sys.getrefcount(segment)
            told = talk([segment])
            self.assertFalse(told.engine.closing)
            self.assertEqual(sys.getrefcount(segment), before)
        told.engine.receive(segment := b"".join([b"x" * 70, b"\r\n"]))
        self.assertIsInstance(told.engine.next_event(), Content)
        self.assertEqual(sys.getrefcount(segment), 2)

    def test_the_order_of_commands_is_whole(self) -> None:
        """Every phase in which commands are read has its row, and a row names known commands only."""
        others = ("CONNECTED", "CONTENT", "CHUNK", "AUTH", "TLS", "CLOSED")
        self.assertEqual(set(phases.ORDER), set(phases.Phase) - {phases.Phase[name] for name in others})
        for row in phases.ORDER.values():
            self.assertLessEqual(set(row), {*commands.COMMANDS, b"BDAT"})
            self.assertIn(b"BDAT", row)


class Smuggling(SynchronousTestCase):
    """A1: only CRLF.CRLF ends the content."""

    ENDS = [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\n",
        b"\n.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\r\n\0.\r\n",
        b"\r\n. \r\n",
        b"\r\n.\t\r\n",
    ]

    def check(self, told: Transcript, stream: bytes, defect: bool) -> None:
        self.assertEqual(
            [type(e) for e in told.events if type(e) is not Content], [Mail, Rcpt, Data, EndOfContent]
        )
        end = told.events[-1]
        assert isinstance(end, EndOfContent)
        self.assertEqual(end.defect, BARE_NEWLINE if defect else None)
        if not defect:
            self.assertEqual(b"".join(told.content()), reference(stream)[0])
        self.assertEqual(told.sent.count(b"\r\n"), 5)
        self.assertFalse(told.engine.closing)

    def smuggle(self, body: bytes, cuts: Sequence[object]) -> None:
        for end in self.ENDS:
            stream = body + end + INNER
            for bare_newline in ("normalize", "reject"):
                bare = stream.replace(b"\r\n", b"")
                defect = bare_newline == "reject" and (b"\r" in bare or b"\n" in bare)
                for cut in cuts:
                    told = talk([ENVELOPE, stream], cut, engine=ServerEngine(bare_newline))
                    self.check(told, stream, defect)

    def test_A1_in_one_segment_and_byte_by_byte(self) -> None:
        self.smuggle(b"Subject: x\r\n\r\nbody", [whole, each_byte])
        self.smuggle(b"", [whole, each_byte])

    def test_A1_split_at_every_index(self) -> None:
        for length in range(len(b"body") + 5 + len(INNER)):
            self.smuggle(b"body", [split_at(length)])

    def test_A1_behind_a_mebibyte(self) -> None:
        def late(data: bytes) -> list[bytes]:
            """Large segments, then each byte of its own."""
            return [*(data[at : at + 65536] for at in range(0, 1 << 20, 65536)), *each_byte(data[1 << 20 :])]

        body = (b"0123456789" * 7 + b"\r\n") * ((1 << 20) // 72 + 1)
        self.smuggle(body[: 1 << 20], [whole, late])

    def test_A1_bare_newlines_in_commands(self) -> None:
        for verb in commands.COMMANDS:
            for bare in (b"\n", b"\r", b"\0", b"\n\n", b"\r\r"):
                for line in (verb + bare, verb + b" x" + bare + b"NOOP", verb + b" x" + bare, bare + verb):
                    for cut in (whole, each_byte):
                        told = talk([line + b"\r\n", b"NOOP\r\n"], cut)
                        event, after = told.events
                        known = not line.startswith(bare) and b" " in line
                        self.assertEqual(event, Refused(verb.decode() if known else "", UNPRINTABLE), line)
                        self.assertEqual(after, Noop(), line)

    def test_A1_a_command_line_ends_at_crlf_only(self) -> None:
        told = talk([b"NOOP\nMAIL FROM:<a@b>\nRSET\r\n"])
        self.assertEqual(told.events, [Refused("", UNPRINTABLE)])


class Chunks(Told):
    """CHUNKING, RFC 3030, and A4 of the checklist."""

    READY = [Mail(ALICE), Rcpt(BOB)]

    def test_one_chunk(self) -> None:
        self.tell(
            [MAIL + RCPT + b"BDAT 14 LAST\r\nSubject: x\r\n\r\n" + MAIL],
            [*self.READY, Chunk(14, True), Content(b"Subject: x\r\n\r\n"), EndOfContent(14), Mail(ALICE)],
        )

    def test_several_chunks(self) -> None:
        for groups in (
            [MAIL + RCPT, b"BDAT 4\r\na\r\nb", b"bdat 0\r\n", b"BDAT 3\r\n\r\n.", b"BDAT 2 last\r\n\r\n"],
            [MAIL + RCPT + b"BDAT 4\r\na\r\nbBDAT  0 \r\nBDAT 3\r\n\r\n.BDAT 2  LAST \r\n\r\n"],
        ):
            self.tell(
                groups,
                [
                    *self.READY,
                    *(Chunk(4, False), Content(b"a\r\nb"), EndOfChunk(4)),
                    *(Chunk(0, False), EndOfChunk(4)),
                    *(Chunk(3, False), Content(b"\r\n."), EndOfChunk(7)),
                    *(Chunk(2, True), Content(b"\r\n"), EndOfContent(9)),
                ],
            )

    def test_an_empty_last_chunk(self) -> None:
        self.tell(
            [MAIL + RCPT + b"BDAT 3\r\na\r\nBDAT 0 LAST\r\n" + MAIL + RCPT + b"BDAT 0 LAST\r\n"],
            [
                *self.READY,
                *(Chunk(3, False), Content(b"a\r\n"), EndOfChunk(3), Chunk(0, True), EndOfContent(3)),
                *(*self.READY, Chunk(0, True), EndOfContent(0)),
            ],
        )

    def test_a_last_line_without_its_end(self) -> None:
        self.tell(
            [MAIL + RCPT + b"BDAT 1\r\naBDAT 1 LAST\r\nb"],
            [
                *self.READY,
                *(Chunk(1, False), Content(b"a"), EndOfChunk(1)),
                *(Chunk(1, True), Content(b"b\r\n"), EndOfContent(2)),
            ],
        )

    def test_A4_commands_inside_a_chunk_are_content(self) -> None:
        for inside in (b"STARTTLS\r\n", b"QUIT\r\n", b"\r\n.\r\n" + INNER, b"BDAT 5\r\n", b"RSET\r\n"):
            self.tell(
                [MAIL + RCPT + b"BDAT %d LAST\r\n%bNOOP\r\n" % (len(inside), inside)],
                [*self.READY, Chunk(len(inside), True), Content(inside), EndOfContent(len(inside)), Noop()],
                offered=OFFERED,
            )

    def test_A4_out_of_order_it_is_read_and_refused(self) -> None:
        for before, events, reply, error in [
            (b"", [], MAIL_FIRST, True),
            (MAIL, [Mail(ALICE)], RCPT_FIRST, True),
            (MAIL + NOBODY, [Mail(ALICE), Rcpt(Address("nobody", "example.com"))], NO_RECIPIENTS, False),
            (b"MAIL FROM:x y\r\n", [Refused("MAIL", grammar.UNKNOWN_PARAMETER)], MAIL_FIRST, False),
        ]:
            for octets in (b"", b"QUIT\r\n", INNER, b"x" * 70_000):
                for last in (b"", b" LAST"):
                    self.tell(
                        [before + b"BDAT %d%b\r\n%bNOOP\r\n" % (len(octets), last, octets)],
                        [*events, Refused("BDAT", reply, error), Noop()],
                    )
        self.tell([b"BDAT 6\r\nQUIT\r\nNOOP\r\n"], [Refused("BDAT", MAIL_FIRST), Noop()], require_helo=True)

    def test_A4_data_and_bdat_do_not_mix(self) -> None:
        self.tell(
            [MAIL + RCPT + b"BDAT 2\r\n\r\n", b"DATA\r\n", RCPT + b"BDAT 1 LAST\r\nx"],
            [
                *self.READY,
                *(Chunk(2, False), Content(b"\r\n"), EndOfChunk(2)),
                *(Refused("DATA", CHUNKS_ONLY), Refused("RCPT", CHUNKS_ONLY)),
                *(Chunk(1, True), Content(b"x\r\n"), EndOfContent(3)),
            ],
        )
        self.tell(
            [ENVELOPE, b"BDAT 2 LAST\r\n\r\n.\r\n"],
            [*ORDINARY, Content(b"BDAT 2 LAST\r\n\r\n"), EndOfContent(15)],
        )

    def test_what_ends_it(self) -> None:
        begun = [*self.READY, Chunk(1, False), Content(b"a"), EndOfChunk(1)]
        for line, event in [
            (b"RSET", Reset()),
            (b"EHLO x", Helo("x", True)),
            (b"MAIL FROM:<a@>", Refused("MAIL", grammar.BAD_SENDER)),
        ]:
            self.tell(
                [MAIL + RCPT + b"BDAT 1\r\na" + line + b"\r\n", b"BDAT 1 LAST\r\nb" + MAIL],
                [*begun, event, Refused("BDAT", MAIL_FIRST, isinstance(event, Reset | Helo)), Mail(ALICE)],
            )
        self.tell([MAIL + RCPT + b"BDAT 1\r\na" + MAIL + RCPT], [*begun, *self.READY])

    def test_A4_a_refused_chunk_ends_the_transaction(self) -> None:
        """What was sent behind it is read; its client could not know, so these are no errors."""

        def policy(event: Event) -> Reply:
            return Reply(452, (3, 1), "Full") if isinstance(event, EndOfChunk) else obliging(event)

        for cut in (whole, each_byte):
            told = talk([MAIL + RCPT + b"BDAT 1\r\naBDAT 6\r\nQUIT\r\nBDAT 1 LAST\r\nb" + MAIL], cut, policy)
            self.assertEqual(
                told.events,
                [
                    *(*self.READY, Chunk(1, False), Content(b"a"), EndOfChunk(1)),
                    *([Refused("BDAT", MAIL_FIRST, error=False)] * 2),
                    Mail(ALICE),
                ],
            )

    def test_A4_sizes_that_are_none(self) -> None:
        """Where the chunk ends is not known, so nothing behind it is read."""
        for size in (
            *(b"", b"x", b"-1", b"+5", b"0x5", b"5 ", b"5 LASTX", b"LAST", b"1" * 21, b"5 LAST LAST", b"5\t"),
            *(b"5\r", b"5\nx", b"\xb2", b"5" + b" " * 5000 + b"x", b"1,5", b"5.0", b"1_000"),
        ):
            for before in (b"", MAIL + RCPT):
                for cut in (whole, each_byte):
                    told = talk([before, b"BDAT %b\r\n" % size, b"abcdeNOOP\r\n"], cut)
                    good = size == b"5 "
                    expected = server.BAD_CHUNK if not good else MAIL_FIRST
                    self.assertEqual(told.engine.closing, not good, size)
                    if not good or not before:
                        self.assertIn(Refused("BDAT", expected), told.events, size)

    def test_A4_sizes_over_the_limit(self) -> None:
        """Known before the first octet: nothing is yielded, all of it is read."""
        for size in (101, 2**31, 2**32 + 1, 2**64 + 1, 10**20 - 1):
            told = talk([MAIL + RCPT + b"BDAT %d\r\n" % size], engine=engine(max_size=100))
            self.assertEqual(told.events, [*self.READY, Chunk(size, False)])
            told.engine.receive(b"x" * 100)
            self.assertIsNone(told.engine.next_event())
            self.assertEqual(told.engine.buffered, 0)
        self.tell(
            [MAIL + RCPT + b"BDAT 60\r\n" + b"x" * 60 + b"BDAT 41 LAST\r\n" + b"x" * 41 + b"NOOP\r\n"],
            [
                *(*self.READY, Chunk(60, False), Content(b"x" * 60), EndOfChunk(60)),
                *(Chunk(41, True), EndOfContent(101, TOO_BIG), Noop()),
            ],
            max_size=100,
        )
        self.tell(
            [MAIL + RCPT + b"BDAT 60\r\n" + b"x" * 60 + b"BDAT 40 LAST\r\n" + b"x" * 38 + b"\r\n"],
            [
                *(*self.READY, Chunk(60, False), Content(b"x" * 60), EndOfChunk(60)),
                *(Chunk(40, True), Content(b"x" * 38 + b"\r\n"), EndOfContent(100)),
            ],
            max_size=100,
        )

    def test_A4_split_at_every_index(self) -> None:
        stream = MAIL + RCPT + b"BDAT 9\r\n\r\n.\r\na\r\r\nBDAT 3 LAST\r\nb\r\n" + MAIL
        for at in range(len(stream)):
            told = talk([stream], split_at(at))
            self.assertEqual(b"".join(told.content()), b"\r\n.\r\na\r\nb\r\n")
            self.assertEqual(told.events[-2:], [EndOfContent(12), Mail(ALICE)])

    def test_A4_bare_newlines(self) -> None:
        """As behind DATA; a line end that two chunks share is one."""
        shared = b"BDAT 2\r\na\rBDAT 2 LAST\r\n\nb"
        for stream, mode, defect, text in [
            (b"BDAT 3 LAST\r\na\nb", "normalize", None, b"a\r\nb\r\n"),
            (b"BDAT 3 LAST\r\na\rb", "normalize", None, b"ab\r\n"),
            (b"BDAT 3 LAST\r\na\nb", "reject", BARE_NEWLINE, b""),
            (b"BDAT 2 LAST\r\na\r", "reject", BARE_NEWLINE, b""),
            (b"BDAT 2 LAST\r\na\r", "normalize", None, b"a\r\n"),
            (shared, "normalize", None, b"a\r\nb\r\n"),
            (shared, "reject", None, b"a\r\nb\r\n"),
        ]:
            for cut in (whole, each_byte):
                told = talk([MAIL + RCPT + stream], cut, engine=engine(mode))
                end = told.events[-1]
                assert isinstance(end, EndOfContent)
                self.assertEqual(end.defect, defect, stream)
                if defect is None:
                    self.assertEqual(b"".join(told.content()), text, stream)

    def test_A4_long_lines(self) -> None:
        stream = b"x" * 20_000 + b"\r\n"
        told = talk([MAIL + RCPT + b"BDAT %d\r\n%bBDAT 0 LAST\r\n" % (len(stream), stream)])
        self.assertEqual(
            told.events[-2:],
            [EndOfChunk(len(stream), LINE_TOO_LONG), Refused("BDAT", MAIL_FIRST, error=False)],
        )

    def test_A9_a_chunk_takes_no_memory(self) -> None:
        told = talk([MAIL + RCPT + b"BDAT 6553600\r\n"])
        for _ in range(100):
            told.engine.receive((b"x" * 510 + b"\r\n") * 128)
            told.run(obliging)
            self.assertEqual(told.engine.buffered, 0)
        self.assertEqual(told.events[-1], EndOfChunk(6553600))


class LongLines(SynchronousTestCase):
    """A3: a line that is too long never changes what the bytes behind it mean."""

    def test_A3_content(self) -> None:
        for size in (20_000, 100_000):
            stream = b"x" * size + b"\r\n" + INNER
            for cut in (whole, split_at(size), split_at(size + 1), split_at(16_384)):
                told = talk([ENVELOPE, stream], cut)
                events = [event for event in told.events if type(event) is not Content]
                self.assertEqual(events, [*ORDINARY, EndOfContent(len(stream) - 3, LINE_TOO_LONG)])
                self.assertEqual(told.sent.count(b"\r\n"), 5)
                self.assertTrue(told.sent.endswith(LINE_TOO_LONG.encode()))

    def test_A3_content_of_legal_lines(self) -> None:
        stream = (b"x" * 998 + b"\r\n") * 20 + b".\r\n"
        for cut in (whole, each_byte):
            told = talk([ENVELOPE, stream], cut)
            self.assertEqual(told.content(), [stream[:-3]])
            self.assertEqual(told.events[-1], EndOfContent(len(stream) - 3))

    def test_A3_commands(self) -> None:
        hidden = b"MAIL FROM:<ceo@example.net>"
        for verb, limit in [(b"NOOP", 512), (b"FOO", 512), (b"HELP", 512), (b"MAIL", 2048), (b"RCPT", 2048)]:
            for size in (limit + 1, 2048, 2049, 2050, 2051, 5000, 70_000):
                if size <= limit:
                    continue
                line = (verb + b" " + b"x" * size)[: size - 2 - len(hidden)] + hidden + b"\r\n"
                self.assertEqual(len(line), size)
                for cut in (whole, each_byte, split_at(size - 1), split_at(2047), split_at(2048)):
                    told = talk([line + b"NOOP\r\n"], cut)
                    name = verb.decode() if verb != b"FOO" else ""
                    self.assertEqual(told.events, [Refused(name, server.LINE_TOO_LONG), Noop()], size)

    def test_A3_commands_of_legal_length(self) -> None:
        for cut in (whole, each_byte):
            told = talk([b"NOOP " + b"x" * 505 + b"\r\n"], cut)
            self.assertEqual(told.events, [Noop()])
            line = (MAIL[:-2] + b" SIZE=1 X=").ljust(2046, b"x") + b"\r\n"
            self.assertEqual(talk([line], cut).events, [Refused("MAIL", grammar.UNKNOWN_PARAMETER)])

    def test_A3_the_end_of_a_long_line_is_no_beginning(self) -> None:
        for cut in (whole, each_byte):
            told = talk([b"x" * 20_000, b"\x16\x03\r\nNOOP\r\n"], cut)
            self.assertEqual(told.events, [Refused("", server.LINE_TOO_LONG), Noop()])

    def test_A3_bare_newlines_end_no_long_line(self) -> None:
        line = b"x" * 3000 + b"\nNOOP\n\rNOOP\r\rRSET\r\n"
        for cut in (whole, each_byte, split_at(3000), split_at(3001)):
            self.assertEqual(talk([line], cut).events, [Refused("", server.LINE_TOO_LONG)])

    def test_A9_an_endless_line_takes_no_memory(self) -> None:
        subject = ServerEngine()
        subject.greet(BANNER)
        for _ in range(100):
            subject.receive(b"x" * 65536)
            self.assertIsNone(subject.next_event())
            self.assertLess(subject.buffered, 2)


class Pipelining(SynchronousTestCase):
    """A5: replies in order, and nothing behind a command that must be the last of its group."""

    def test_A5_nothing_behind_the_last_of_a_group(self) -> None:
        before = MAIL + RCPT
        for line in (
            *(b"HELO x", b"EHLO x", b"DATA", b"QUIT", b"data", b"DATA ", b"EHLO"),
            *(b"STARTTLS", b"AUTH PLAIN", b"AUTH", b"XCLIENT NAME=x", b"starttls x"),
        ):
            for behind in (b"N", b"\r\n", b"NOOP\r\n", INNER):
                told = talk([before + line + b"\r\n" + behind, b"NOOP\r\n"])
                verb = line.split()[0].decode().upper()
                self.assertEqual(told.events, [Mail(ALICE), Rcpt(BOB), Refused(verb, IMPROPER)], line)
                self.assertTrue(told.engine.closing)
                self.assertTrue(told.sent.endswith(IMPROPER.encode()))
                self.assertEqual(told.engine.buffered, 0)

    def test_A5_out_of_order_data_too(self) -> None:
        told = talk([b"DATA\r\nSubject: x\r\n\r\n.\r\n"])
        self.assertEqual(told.events, [Refused("DATA", IMPROPER)])

    def test_A5_content_before_the_354(self) -> None:
        subject = ServerEngine()
        told = talk([MAIL + RCPT], engine=subject)
        subject.receive(b"DATA\r\n")
        self.assertEqual(subject.next_event(), Data())
        subject.receive(b"S")
        self.assertEqual(subject.answer(GO_AHEAD), b"")
        subject.receive(b"ubject: x\r\n\r\n.\r\n")
        told.run(obliging)
        self.assertEqual(told.events[-1], Refused("DATA", IMPROPER))
        self.assertTrue(told.sent.endswith(IMPROPER.encode()))
        self.assertTrue(subject.closing)
        self.assertIsNone(subject.next_event())

    def test_A5_commands_behind_a_refused_data_that_had_to_wait(self) -> None:
        """Bytes that came while DATA was being refused are commands, as the client could not know."""
        subject = ServerEngine()
        told = talk([MAIL + RCPT], engine=subject)
        subject.receive(b"DATA\r\n")
        subject.next_event()
        subject.receive(b"NOOP\r\n")
        self.assertEqual(subject.answer(Reply(451, (3, 0), "No")), b"451 4.3.0 No\r\n")
        told.run(obliging)
        self.assertEqual(told.events[-1], Noop())

    def test_A5_bytes_before_the_banner(self) -> None:
        for early in (b"E", b"EHLO x\r\n", b"\x16\x03\x01", b"\r\n"):
            subject = ServerEngine()
            subject.receive(early)
            self.assertIsNone(subject.next_event())
            self.assertEqual(subject.greet(BANNER), b"")
            told = Transcript(subject)
            told.run(obliging)
            self.assertEqual(told.events, [Refused("", server.EARLY_TALK)])
            self.assertEqual(told.sent, server.EARLY_TALK.encode())
            self.assertTrue(subject.closing)

    def test_A5_commands_behind_the_content_are_in_order(self) -> None:
        told = talk([ENVELOPE, b"x\r\n.\r\nRSET\r\nNOOP\r\n" + NOBODY + MAIL + NOBODY + b"QUIT\r\n"])
        self.assertEqual(
            told.sent,
            b"".join(
                r.encode() for r in [BANNER, OK, OK, GO_AHEAD, OK, OK, OK, MAIL_FIRST, OK, NO_SUCH_USER, BYE]
            ),
        )

    def test_B4_other_protocols(self) -> None:
        for request in (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /" + b"x" * 4000 + b" HTTP/1.1\r\n\r\n",
            b"HEAD /\xff HTTP/1.0\r\n",
            b"PUT / HTTP/1.1\r\n",
            b"OPTIONS * HTTP/1.1\r\n",
            b"CONNECT x:25 HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\r\nEHLO x\r\n",
            b"\x16\x03",
        ):
            for cut in (whole, each_byte):
                told = talk([request + b"MAIL FROM:<a@b>\r\n"], cut)
                self.assertEqual(told.events, [Refused("", server.NOT_SMTP)], request)
                self.assertTrue(told.engine.closing)
                self.assertEqual(told.sent, BANNER.encode() + server.NOT_SMTP.encode())


class Injection(SynchronousTestCase):
    """A6: nothing in an event could begin another line, and replies echo nothing."""

    NASTY = [
        b"a\r@b",
        b"a\n@b",
        b"a\0@b",
        b"a\tb@c",
        b"\xe9@b",
        b"a@b\nX-Spam: no",
        b"a@b(comment)",
        b"a@@b",
        b"a@b@c",
        b"=?utf-8?q?a=0d=0a?=@b",
        b'"a\rb"@c',
        b'"a\\\nb"@c',
        b"%0d%0a@b",
        b'"a@b"@c',
        b"@a,@b:c@d",
        b"a@[b\n]",
    ]

    def test_A6_envelopes(self) -> None:
        for value in self.NASTY:
            for line in (
                b"HELO %b",
                b"EHLO %b",
                b"MAIL FROM:<%b>",
                b"RCPT TO:<%b>",
                b"VRFY %b",
                b"HELP %b",
                b"X%b",
            ):
                for cut in (whole, each_byte):
                    told = talk([MAIL, line % value + b"\r\n", b"NOOP\r\n"], cut)
                    self.assertEqual(told.events[-1], Noop())
                    self.assertEqual(len(told.events), 3)
                    for text in self.texts(told.events[1]):
                        self.assertTrue(text.isascii() and text.isprintable(), text)
                    self.assertEqual(told.sent.count(b"\r\n"), 4)

    def test_A6_extensions(self) -> None:
        for value in [*self.NASTY, "ü\u2028@b".encode(), "ü\u202e@b".encode(), "ü\x85@b".encode()]:
            for line in (
                *(b"XCLIENT NAME=%b", b"ETRN %b", b"AUTH PLAIN %b", b"AUTH %b", b"MAIL FROM:<%b> SMTPUTF8"),
                *(b"MAIL FROM:<> ENVID=%b", b"MAIL FROM:<> AUTH=%b", b"BDAT %b"),
            ):
                for cut in (whole, each_byte):
                    told = talk([line % value + b"\r\n", b"NOOP\r\n"], cut, engine=engine(offered=OFFERED))
                    for text in self.texts(told.events[0]):
                        self.assertTrue(text.isprintable(), text)
                    self.assertEqual(told.sent.count(b"\r\n"), 1 + len(told.events))
                    if line.startswith(b"BDAT"):
                        self.assertEqual(told.events, [Refused("BDAT", server.BAD_CHUNK)])
                    else:
                        self.assertEqual(told.events[-1], Noop())

    def texts(self, event: Event) -> list[str]:
        match event:
            case Helo(name) | Verify(name) | Expand(name) | Help(name) | Other(name):
                return [name]
            case Etrn(text) | Xclient(text):
                return [text]
            case Auth(mechanism, initial):
                return [mechanism, initial or ""]
            case Mail(Address() as address) | Rcpt(address):
                return [str(address), address.local, address.domain]
            case Mail(None, envid=envid):
                return [envid]
            case Refused(verb, reply):
                return [verb, reply.text]
        return []

    def test_A6_source_routes_are_forgotten(self) -> None:
        told = talk(
            [
                b"MAIL FROM:<@a.example,@b.example:user@c.example>\r\n",
                b"RCPT TO:<@relay.example:user@c.example>\r\n",
            ]
        )
        user = Address("user", "c.example")
        self.assertEqual(told.events, [Mail(user), Rcpt(user)])

    def test_A6_nothing_is_echoed(self) -> None:
        for line in (
            b"EHLO b(ad",
            b"MAIL FROM:<b(ad",
            MAIL[:-2] + b" b(ad=1",
            b"b(ad",
            b"b(ad\n",
            b"GET b(ad",
        ):
            self.assertNotIn(b"b(ad", talk([line + b"\r\n"]).sent)


class EveryOctet(SynchronousTestCase):
    """A7: whatever a line holds, there is one reply, and the session lives."""

    LINES = [
        b"HELO x",
        b"EHLO x",
        MAIL[:-2],
        RCPT[:-2],
        b"DATA",
        b"RSET",
        b"NOOP",
        b"VRFY x",
        b"EXPN x",
        b"HELP",
        b"QUIT",
        b"MAIL FROM:<> SIZE=1 BODY=7BIT",
        b'RCPT TO:<"q"@[127.0.0.1]>',
    ]

    def test_A7_every_octet_in_every_position(self) -> None:
        for line in self.LINES:
            for at in range(len(line) + 1):
                for octet in range(256):
                    for end in (at, at + 1):
                        self.check(line[:at] + bytes([octet]) + line[end:])

    def test_A7_every_octet_in_extensions(self) -> None:
        for line in (
            *(b"STARTTLS", b"AUTH PLAIN AA==", b"ETRN @x.y", b"XCLIENT NAME=x", b"DEBUG", b"BDAT 0 LAST"),
            *("MAIL FROM:<é@b> SMTPUTF8 RET=FULL ENVID=x".encode(), b"MAIL FROM:<> AUTH=<>"),
        ):
            for at in range(len(line) + 1):
                for octet in range(256):
                    mutated = line[:at] + bytes([octet]) + line[at + 1 :]
                    told = talk(
                        [mutated + b"\r\n", b"NOOP\r\n"],
                        policy=lambda event: NOT_NOW if event == StartTls() else obliging(event),
                        engine=engine(offered=OFFERED),
                    )
                    if not told.events:
                        self.assertTrue(mutated.startswith(b"BDAT"), mutated)
                        continue
                    event = told.events[0]
                    if min(mutated) < 0x20 or b"\x7f" in mutated:
                        assert isinstance(event, Refused), mutated
                    if isinstance(event, Refused):
                        self.assertEqual(event.reply.code // 100, 5, mutated)

    def check(self, line: bytes) -> None:
        told = talk([MAIL + RCPT, line + b"\r\n", b".\r\nNOOP\r\n"])
        event = told.events[2]
        good = min(line) >= 0x20 and max(line) < 0x7F
        if not good:
            assert isinstance(event, Refused), line
            self.assertEqual(event.reply.code // 100, 5, line)
        if isinstance(event, Quit):
            self.assertTrue(told.engine.closing)
            return
        self.assertEqual(told.events[-1], Noop(), line)
        self.assertFalse(told.engine.closing, line)
        self.assertEqual(len(told.events), 5, line)
