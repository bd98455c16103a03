"""What `make check` refuses in a migration."""

from __future__ import annotations

import re

import pytest
from django.contrib.postgres.functions import RandomUUID
from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.models import Q

from chatstore.migration_operations import AddIndexOnline
from torture.migration_lint import all_sql, lint, sql_of

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

INDEX = models.Index(fields=["status"], name="message_status_index")
POSITIVE = models.CheckConstraint(condition=Q(tokens__gte=1), name="message_positive")
BAD: dict[str, tuple[Operation, str]] = {
    "an index that writers wait for": (
        migrations.AddIndex("message", INDEX),
        "require-concurrent-index-creation",
    ),
    "a column that rewrites the table": (
        migrations.AddField("message", "token", models.UUIDField(db_default=RandomUUID())),
        "adding-field-with-default",
    ),
    "a column that the release before does not fill": (
        migrations.AddField("message", "kind", models.CharField(max_length=9, default="x")),
        "ban-drop-default",
    ),
    "another type": (
        migrations.AlterField("message", "tokens", models.BigIntegerField(default=0)),
        "changing-column-type",
    ),
    "a constraint that reads the table": (
        migrations.AddConstraint("message", POSITIVE),
        "constraint-missing-not-valid",
    ),
    "a name that the release before does not know": (
        migrations.RenameField("message", "tokens", "cost"),
        "renaming-column",
    ),
    "a column that the release before reads": (migrations.RemoveField("message", "tokens"), "ban-drop-column"),
}


def sql_after_the_newest(operation: Operation, *, atomic: bool = True) -> str:
    kind = type("Migration", (migrations.Migration,), {"operations": [operation], "atomic": atomic})
    return sql_of(kind("after_the_newest", "conversations"), MigrationLoader(None).project_state())


def test_the_migrations_pass() -> None:
    found = all_sql()
    assert {"conversations.0001_initial", "accounts.0001_initial"} <= found.keys()
    assert "CREATE TABLE" in found["conversations.0001_initial"]
    assert not lint(found)


@pytest.mark.parametrize("name", BAD)
def test_refused_is(name: str) -> None:
    operation, rule = BAD[name]
    said = lint({"bad": sql_after_the_newest(operation)})
    assert rule in re.findall(r"warning: ([a-z-]+)", said), said
    assert said.startswith("bad.sql:")


def test_what_is_made_beside_writers_passes() -> None:
    assert not lint({"index": sql_after_the_newest(AddIndexOnline("message", INDEX), atomic=False)})
    assert not lint({"constraint": sql_after_the_newest(AddConstraintNotValid("message", POSITIVE))})


def test_a_migration_without_its_lock_timeout_is_refused() -> None:
    sql = sql_after_the_newest(AddConstraintNotValid("message", POSITIVE))
    assert "require-lock-timeout" in lint({"bad": re.sub(r"SET LOCAL lock_timeout.*\n", "", sql)})
