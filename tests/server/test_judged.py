"""What the session asks policy, when, and what comes of the answers."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred

from postoffice.interfaces import Turned
from postoffice.mail.client import Client
from postoffice.mail.reply import Refusal, Reply
from tests.doubles import ScriptedPolicy
from tests.server.support import OUTSIDE
from tests.server.test_session import BEGIN, LETTER, Conversation

NO = Refusal(Reply(550, (7, 1), "No"))
FRIEND = Client(OUTSIDE, name="friend.example", may_relay=True)


class Asked(Conversation):
    def judge(self, policy: ScriptedPolicy) -> ScriptedPolicy:
        self.door.factory.policy = policy
        return policy

    def test_order(self) -> None:
        policy = self.judge(ScriptedPolicy(FRIEND))
        self.visit().play(BEGIN + LETTER)
        self.assertEqual(
            policy.told,
            [
                f"client {OUTSIDE}",
                "helo me.example",
                "sender sender@example.org",
                "content a@example.org",
                "accepted a@example.org",
            ],
        )

    def test_a_client_that_is_turned_away(self) -> None:
        policy = self.judge(ScriptedPolicy())
        policy.refusals["client"] = Turned(Reply(521, (7, 1), "Go away"), "it is on a list")
        visit = self.visit()
        self.assertEqual(visit.heard(), b"521 5.7.1 Go away\r\n")
        self.assertTrue(visit.closed)
        self.assertEqual(self.facts("refused"), ["session: 521 5.7.1 Go away (it is on a list)"])

    def test_each_command_can_be_refused(self) -> None:
        self.judge(ScriptedPolicy(FRIEND, helo=NO))
        self.visit().play("S: 220 *\nC: EHLO x\nS: 550 5.7.1 No")
        self.judge(ScriptedPolicy(FRIEND, sender=NO))
        self.visit().play(BEGIN + "C: MAIL FROM:<>\nS: 550 5.7.1 No\nC: RCPT TO:<a@example.org>\nS: 503 *")
        self.judge(ScriptedPolicy(FRIEND, recipient=NO))
        self.visit().play(BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@far.example>\nS: 550 5.7.1 No")
        self.judge(ScriptedPolicy(FRIEND, content=NO))
        self.visit().play(
            BEGIN
            + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@example.org>\nS: 250 *\nC: DATA\nS: 550 5.7.1 No"
        )
        self.assertEqual(self.door.contents(), [])

    def test_a_letter_that_is_put_off_is_refused_at_DATA(self) -> None:
        policy = self.judge(ScriptedPolicy(put_off=Refusal(Reply(451, (7, 1), "Later"))))
        self.visit().play(
            BEGIN
            + """
            C: MAIL FROM:<>
            S: 250 *
            C: RCPT TO:<nobody@example.org>
            S: 550 5.1.1 *
            C: RCPT TO:<a@example.org>
            S: 250 *
            C: DATA
            S: 451 4.7.1 Later
            C: DATA
            S: 503 *
            """
        )
        self.assertIn("wrong_number None", policy.told)
        self.assertNotIn("content a@example.org", policy.told)

    def test_a_look_up_that_failed_is_no_wrong_number(self) -> None:
        policy = self.judge(ScriptedPolicy())
        self.visit().play(BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<unknown@example.org>\nS: 451 *")
        self.assertNotIn("wrong_number None", policy.told)

    def test_what_policy_finds_out_of_a_client_counts(self) -> None:
        self.judge(ScriptedPolicy(FRIEND))
        self.visit().play(
            BEGIN.replace("greets *", "greets friend.example")
            + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@far.example>\nS: 250 *"
        )
        self.judge(ScriptedPolicy(evolve(FRIEND, may_relay=False)))
        self.visit().play(BEGIN + "C: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:<a@far.example>\nS: 550 5.7.1 *")

    def test_a_bug_in_policy_ends_the_session(self) -> None:
        waiting: Deferred[Client] = Deferred()
        policy = self.judge(ScriptedPolicy())
        policy.client = lambda client: _wait(waiting)  # type: ignore[method-assign,assignment]
        visit = self.visit()
        waiting.errback(ZeroDivisionError())
        self.assertTrue(visit.closed)
        self.assertIn("ZeroDivisionError", self.facts("error")[0])


async def _wait(waiting: Deferred[Client]) -> Client:
    return await waiting
