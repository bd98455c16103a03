"""With 200,000 messages GET /api/usage/ reads the caller's own, since the first day to count (PostgreSQL)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

import pytest
from django.db import connection, transaction
from django.db.models import Count
from django.test import Client

from accounts.models import ApiToken, User
from conversations import usage
from conversations.models import Message, Session, Usage, UsageMark
from conversations.seeding import volume
from conversations.tests import plans

pytestmark = [pytest.mark.postgres, pytest.mark.django_db]

MESSAGES = 200_000
FIRST, LAST = date(2025, 1, 1), date(2025, 6, 30)
THERE = "?from=2025-01-01&to=2025-06-30"


class Person(NamedTuple):
    user: User
    client: Client


@pytest.fixture(scope="module")
def store(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE conversations_session CASCADE")
        volume.plant(volume.Volume(seed=7, users=50, sessions=10_000, messages=MESSAGES), lambda _: None)
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # Else no constraint can be dropped.
            cursor.execute("SELECT brin_summarize_new_values('message_time')")
            cursor.execute("ANALYZE")
        yield
        transaction.set_rollback(True)


@pytest.fixture(params=["the busiest", "somebody"])
def person(store: None, request: pytest.FixtureRequest) -> Person:
    by_messages = Session.objects.values("owner").annotate(said=Count("messages")).order_by("-said")
    user = User.objects.get(pk=by_messages[0 if request.param == "the busiest" else 25]["owner"])
    return Person(user, client_of(user))


def client_of(user: User) -> Client:
    return Client(headers={"Authorization": f"Bearer {ApiToken.objects.issue(user)[1]}"})


def rolled_up(through: date) -> None:
    usage.count_days(FIRST, through)
    UsageMark.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE conversations_usage, conversations_usagestate")


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def plan_of(client: Client, query: str = THERE) -> dict[str, Any]:
    (statement,) = plans.asked(client, f"/api/usage/{query}").big
    return plans.plan_of(statement)


def own_messages(user: User, since: date) -> int:
    """Those of the sessions that changed since."""
    sessions = Session.objects.filter(owner=user, updated_at__gte=midnight(since))
    return Message.objects.filter(session__in=sessions).count()


def test_without_a_roll_up_it_reads_the_callers_own(person: Person) -> None:
    plan = plan_of(person.client)
    assert plans.scanned(plan) == set()
    # A few of the next session stand on the last page that an index points to.
    assert plans.rows_read(plan, "conversations_message") <= own_messages(person.user, FIRST) * 1.1


def test_after_a_roll_up_it_reads_the_callers_own_since(person: Person) -> None:
    rolled_up(LAST - timedelta(days=2))
    plan = plan_of(person.client)
    since = LAST - timedelta(days=1)
    assert plans.scanned(plan) == set()
    assert plans.rows_read(plan, "conversations_message") <= own_messages(person.user, since) * 1.1
    assert plans.rows_read(plan, "conversations_session") <= MESSAGES / 1000


def test_where_all_is_counted_it_reads_no_message(person: Person) -> None:
    rolled_up(LAST)
    plan = plan_of(person.client)
    assert plans.most_read(plan) == 0
    read = [node for node in plans.nodes(plan) if node.get("Relation Name") == Usage._meta.db_table]
    assert {node["Node Type"] for node in read} & {"Seq Scan"} == set()
    assert read


def test_an_admin_reads_their_workspace(store: None) -> None:
    somebody = User.objects.exclude(personal=None).order_by("pk")[10]
    place = somebody.personal_workspace()
    query = f"{THERE}&workspace={place.public_id}&owner=all"
    plan = plan_of(client_of(somebody), query)
    assert plans.scanned(plan) == set()
    there = Message.objects.filter(session__workspace=place).count()
    assert plans.rows_read(plan, "conversations_message") <= there * 1.1
