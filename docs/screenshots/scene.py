"""What the pictures show beside `manage.py seed`: some weeks of talk up to now, and staff who looked into it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import chain
from typing import Final

from django.contrib.auth.models import Group
from django.core.management import call_command
from django.utils import timezone

from accounts.models import LOCAL_ISSUER, User
from conversations import usage
from conversations.models import AccessRecord, Message, Session
from conversations.seeding.loading import load
from conversations.seeding.plans import PlannedMessage, PlannedSession, digest_of
from conversations.seeding.story import ADA, BEN, SEED_EMAIL, TEAM
from docs.screenshots.camera import OTHER_TRACE, SPAN, STAFF, TRACE

DAYS: Final = 30
BUSIEST_DAY: Final = 9
PEOPLE: Final = (ADA, BEN, SEED_EMAIL)
# Title, agent, tool, question and answer.
TOPICS: Final = (
    ("Where is order 4417?", "support", "search_orders", "Where is my parcel?", "It left Hamburg this morning."),
    (
        "Change of address",
        "support",
        "update_address",
        "I have moved to Lyon.",
        "Noted, for the next parcel.",
    ),
    (
        "Weekly numbers",
        "analyst",
        "run_query",
        "How was last week?",
        "1,284 orders, 6 % more than before.",
    ),
    ("Trip to Rome", "planner", "opening_hours", "When is the Pantheon open?", "Daily, from 9 to 19."),
    ("Returns in March", "analyst", "run_query", "How many came back?", "41 of 1,310, which is 3.1 %."),
)
QUESTION: Final = "My card was declined for order 4471, but the bank says that it is fine. What happened?"
ANSWER: Final = """The charge was **declined by the card network**, not by the bank:

| attempt | amount | answer |
|---|---|---|
| 1 | 59.90 EUR | `do_not_honor` |
| 2 | 59.90 EUR | `do_not_honor` |

Nothing was taken from the account. You can:

1. try again with 3-D Secure, which the network asks for
2. pay by bank transfer"""


def plant(password: str) -> None:
    now = timezone.now()
    call_command("seed", "--force", verbosity=0)
    load([*weeks(now), second_try(now), declined_card(now)], lambda _: None)
    marred()
    usage.roll_up(usage.waiting())
    staff(password)


def weeks(now: datetime) -> Iterator[PlannedSession]:
    """Working days are busy, weekends are not."""
    for back in range(DAYS, -1, -1):
        day = now - timedelta(days=back)
        talks = 2 if day.weekday() > 4 else 4 + int(digest_of("talks", str(back)), 16) % BUSIEST_DAY  # noqa: PLR2004
        for number in range(talks):
            yield talk(day - timedelta(minutes=20 * number + 5), f"{back}-{number}")


def talk(start: datetime, key: str) -> PlannedSession:
    chance = int(digest_of("talk", key), 16)
    title, agent, tool, question, answer = TOPICS[chance % len(TOPICS)]
    turns = (run(start, f"{key}-{turn}", turn, question, tool, answer) for turn in range(1 + chance % 4))
    rounds = list(chain.from_iterable(turns))
    return PlannedSession(
        LOCAL_ISSUER, PEOPLE[chance % 7 % len(PEOPLE)], f"screenshots:{key}", start, len(rounds), rounds,
        title=title, workspace=TEAM if chance % 3 else None, agent=agent,
    )  # fmt: skip


def run(start: datetime, key: str, turn: int, question: str, tool: str, answer: str) -> list[PlannedMessage]:
    """A question, a call of a tool and the answer, which share a trace."""
    trace, span = digest_of("trace", key)[:32], digest_of("span", key)[:16]
    at = start + timedelta(seconds=40 * turn)
    return [
        PlannedMessage("user", question, at, trace_id=trace),
        PlannedMessage("tool_call", f"Called {tool}", at + timedelta(seconds=2), 0, tool, trace, span),
        PlannedMessage("assistant", answer, at + timedelta(seconds=5), len(answer) * 7, trace_id=trace),
    ]


def declined_card(now: datetime) -> PlannedSession:
    """The session of the transcript, and of the list that the search finds."""
    start = now - timedelta(minutes=3)
    times = iter([start + timedelta(seconds=second) for second in (0, 2, 4, 11, 40, 43)])
    other = digest_of("trace", "declined card")[:32]
    said = [
        PlannedMessage("user", QUESTION, next(times), trace_id=TRACE),
        PlannedMessage("tool_call", "Called get_order", next(times), 0, "get_order", TRACE, "5d2e8f1a7c3b9046"),
        PlannedMessage("tool_call", "Called read_charges", next(times), 0, "read_charges", TRACE, SPAN),
        PlannedMessage("assistant", ANSWER, next(times), 212, trace_id=TRACE),
        PlannedMessage("user", "Then I try 3-D Secure.", next(times), trace_id=other),
        PlannedMessage("assistant", "Good. I send you a new link to", next(times), 9, trace_id=other),
    ]
    return PlannedSession(
        LOCAL_ISSUER, ADA, "screenshots:card", start, len(said), said,
        title="Card declined for order 4471", workspace=TEAM, agent="support",
    )  # fmt: skip


def second_try(now: datetime) -> PlannedSession:
    said = [
        PlannedMessage("user", "My bank transfer for order 4471 does not show up.", now - timedelta(minutes=16)),
        *run(now - timedelta(minutes=15), "transfer", 0, "I sent it on Monday.", "read_charges", "It is here."),
    ]
    said = [message._replace(trace_id=message.trace_id and OTHER_TRACE) for message in said]
    return PlannedSession(
        LOCAL_ISSUER, BEN, "screenshots:transfer", now - timedelta(minutes=16), len(said), said,
        title="Bank transfer for order 4471", workspace=TEAM, agent="support",
    )  # fmt: skip


def marred() -> None:
    """Some replies failed or were interrupted, and one session is in the trash. Before the roll-up counts them."""
    ours = Message.objects.filter(session__idempotency_key__startswith="screenshots:")
    answers = ours.filter(role=Message.Role.ASSISTANT)
    keys = list(answers.order_by("pk").values_list("pk", flat=True))
    answers.filter(pk__in=keys[7:-2:23]).update(status=Message.Status.FAILED)
    answers.filter(pk__in=[*keys[11:-2:31], keys[-1]]).update(status=Message.Status.INTERRUPTED)
    last = Session.objects.filter(idempotency_key="screenshots:1-0")
    last.update(deleted_at=timezone.now())


def staff(password: str) -> None:
    """Nora of the administrators takes the pictures; others have looked before her."""
    nora = colleague(STAFF, "Administrators")
    nora.set_password(password)
    nora.save()
    olu, sue = colleague("olu", "Operations"), colleague("sue", "Support")
    shown = list(Session.objects.order_by("-pk")[:6])
    did = [
        (sue, AccessRecord.Action.SEARCH, None, f"email {ADA}", ""),
        (sue, AccessRecord.Action.TRANSCRIPT, shown[5], "", "ticket 2226"),
        (olu, AccessRecord.Action.SEARCH, None, f"trace {TRACE}", ""),
        (olu, AccessRecord.Action.TRANSCRIPT, shown[0], "", "ticket 2231"),
        (olu, AccessRecord.Action.EXPORT, shown[0], "md", "copy for ticket 2231"),
        (sue, AccessRecord.Action.VIEW, shown[2], "message 17", "ticket 2229"),
        (olu, AccessRecord.Action.RESTORE, shown[3], "", "ticket 2230"),
    ]
    for back, (who, action, session, detail, reason) in enumerate(did):
        AccessRecord.objects.create(
            user=who,
            user_public_id=who.public_id,
            action=action,
            session_id=session.pk if session else None,
            session_uuid=session.session_id if session else None,
            detail=detail,
            reason=reason,
            address="192.0.2.17" if who == sue else "192.0.2.40",
            created_at=timezone.now() - timedelta(minutes=47 - 6 * back),
        )


def colleague(name: str, group: str) -> User:
    user = User.objects.create_user(name, name=name.title(), is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    return user
