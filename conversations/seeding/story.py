"""The small default set: a first chat, an answer that took a tool, and a team that shares a workspace."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from accounts.models import LOCAL_ISSUER, Membership, User, Workspace
from conversations.seeding import people
from conversations.seeding.loading import Added, Advance, load
from conversations.seeding.plans import PlannedMessage, PlannedPerson, PlannedSession, digest_of, uuid_at

SEED_EMAIL = "seed@example.com"
ADA, BEN = "ada@example.com", "ben@example.com"
START = datetime(2025, 6, 2, 9, 0, tzinfo=UTC)
TEAM = uuid_at(START, "workspace", "story")
ROLES = {SEED_EMAIL: Membership.Role.ADMIN, ADA: Membership.Role.MEMBER, BEN: Membership.Role.MEMBER}
PEOPLE = [
    PlannedPerson(LOCAL_ISSUER, SEED_EMAIL, START, name="Sam Seed", email=SEED_EMAIL),
    PlannedPerson(LOCAL_ISSUER, ADA, START, name="Ada", email=ADA),
    PlannedPerson(LOCAL_ISSUER, BEN, START, name="Ben", email=BEN),
]


def plant(seed: int, advance: Advance) -> Added:
    """Load the story, where it is missing. `seed` chooses the trace and span ids, the rest is always the same."""
    added = Added(users=people.ensure(PEOPLE))
    gather_team()
    added += load(planned_sessions(seed), advance)
    return added


def gather_team() -> None:
    """The shared workspace and its members; a role that somebody has changed stays."""
    team, _ = Workspace.objects.get_or_create(
        public_id=TEAM, defaults={"name": "Support team", "created_at": START}
    )
    for email, role in ROLES.items():
        user = User.objects.get(identities__issuer=LOCAL_ISSUER, identities__subject=email)
        Membership.objects.get_or_create(user=user, workspace=team, defaults={"role": role, "created_at": START})


def planned_sessions(seed: int) -> list[PlannedSession]:
    return [welcome_chat(), question_with_a_tool(seed), refund(seed), delivery_times()]


def welcome_chat() -> PlannedSession:
    said = [("user", "Hello!"), ("assistant", "Hey there 👋")]
    return session(SEED_EMAIL, "welcome", "Welcome Chat", START, said)


def question_with_a_tool(seed: int) -> PlannedSession:
    said = [
        ("user", "How many orders did we ship last week?"),
        ("tool_call", "Called search_database"),
        ("assistant", "We shipped 1,284 orders last week, 6 % more than the week before."),
    ]
    start = START + timedelta(hours=1)
    return session(SEED_EMAIL, "orders", "Orders of last week", start, said, seed=seed, agent="analyst")


def refund(seed: int) -> PlannedSession:
    said = [
        ("user", "A parcel arrived damaged. Can the customer have a refund?"),
        ("tool_call", "Called search_database"),
        ("assistant", "Yes: the order is 12 days old, and refunds are open for 30."),
        ("user", "Thanks, please draft the email."),
        ("assistant", "Of course. Shall I offer a voucher for the next order as well?"),
    ]
    start = START + timedelta(hours=3)
    return session(
        ADA, "refund", "Refund for a damaged parcel", start, said, seed=seed, shared=True, agent="support"
    )


def delivery_times() -> PlannedSession:
    said = [("user", "How long does delivery to Norway take?"), ("assistant", "Four to six working days.")]
    start = START + timedelta(hours=5)
    return session(BEN, "delivery", "Delivery times", start, said, shared=True, agent="support")


def session(
    email: str,
    key: str,
    title: str,
    start: datetime,
    said: list[tuple[str, str]],
    *,
    seed: int = 0,
    shared: bool = False,
    agent: str | None = None,
) -> PlannedSession:
    """A session of `email` in which something is said every four seconds.

    The messages up to the answer after a tool call are one run of the agent and share its trace id.
    """
    messages = [
        message(role, content, start + timedelta(seconds=4 * place), trace_of(said, place, seed, key))
        for place, (role, content) in enumerate(said)
    ]
    return PlannedSession(
        LOCAL_ISSUER, email, f"story:{key}", start, len(messages), messages,
        title=title, workspace=TEAM if shared else None, agent=agent,
    )  # fmt: skip


def trace_of(said: list[tuple[str, str]], place: int, seed: int, key: str) -> str | None:
    tools = [index for index, (role, _) in enumerate(said) if role == "tool_call"]
    in_run = any(index - 1 <= place <= index + 1 for index in tools)
    return digest_of("trace", str(seed), key)[:32] if in_run else None


def message(role: str, content: str, at: datetime, trace_id: str | None) -> PlannedMessage:
    if role == "tool_call":
        tool_name = content.removeprefix("Called ")
        span_id = digest_of("span", str(trace_id), content)[:16]
        return PlannedMessage(role, content, at, tool_name=tool_name, trace_id=trace_id, span_id=span_id)
    tokens = len(content.split()) * 4 // 3 + 1 if role == "assistant" else 0
    return PlannedMessage(role, content, at, tokens=tokens, trace_id=trace_id)
