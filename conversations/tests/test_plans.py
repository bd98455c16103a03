"""How PostgreSQL answers the hot reads: from an index, in its order, whatever the size."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.models import QuerySet

from accounts.models import User
from conftest import Caller
from conversations.api import queries
from conversations.models import Message, Session

pytestmark = [pytest.mark.postgres, pytest.mark.django_db]


@pytest.fixture
def crowd(alice: Caller, mallory: Caller) -> User:
    """Alice with 3,000 sessions among 3,000 of somebody else's, one message with a trace in each."""
    for owner in (alice.user, mallory.user):
        place = {"workspace": owner.personal_workspace(), "owner_public_id": owner.public_id}
        now = owner.date_joined
        times = {"created_at": now, "updated_at": now, "last_activity": now}
        made = Session.objects.bulk_create(Session(owner=owner, **place, **times) for _ in range(3000))
        Message.objects.bulk_create(
            Message(session=s, position=1, role="user", content="x", version=1, created_at=now, updated_at=now,
                    trace_id=f"trace-{s.pk}", span_id=f"span-{s.pk}")
            for s in made
        )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return alice.user


def plan(rows: QuerySet) -> str:
    return str(rows.explain())


def test_my_sessions_come_from_their_index_without_sorting(crowd: User) -> None:
    page = queries.own_sessions(crowd).live().order_by("-updated_at", "-id")[:51]
    assert "session_of_owner" in plan(page)
    assert "Sort" not in plan(page)


def test_a_workspaces_sessions_come_from_their_index_without_sorting(crowd: User) -> None:
    page = queries.sessions_in(crowd.personal_workspace()).live().order_by("-updated_at", "-id")[:51]
    assert "session_of_workspace" in plan(page)
    assert "Sort" not in plan(page)


@pytest.mark.parametrize(("column", "index"), [("trace_id", "message_trace"), ("span_id", "message_span")])
def test_a_trace_is_found_by_its_index(crowd: User, column: str, index: str) -> None:
    found = queries.messages_visible_to(crowd).filter(**{column: f"{column.partition('_')[0]}-17"})
    assert index in plan(found.order_by("id")[:101])
    assert "Seq Scan on conversations" not in plan(found.order_by("id")[:101])


@pytest.mark.parametrize("prefix", ["trace-17", "trace-1"])
def test_a_prefix_of_a_trace_is_found_by_its_index(crowd: User, prefix: str) -> None:
    assert "message_trace" in plan(Message.objects.filter(trace_id__startswith=prefix)[:50])
