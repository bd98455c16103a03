"""The store that the benchmark runs on, what is asked of it, and the SQL that the product answers with.

    python -m benchmarks.data PLAN.json [--messages 1000000]
    python -m benchmarks.data PLAN.json --forget

Runs in the product's own environment on DATABASE_URL, adds what is missing and writes a plan: for each operation
the requests and the statements, their parameters by name. `--forget` deletes the plan's tokens.
"""

from __future__ import annotations

import argparse
import json
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.utils import timezone  # noqa: E402

from accounts.models import ApiToken, User, digest_of  # noqa: E402
from conversations.models import Message, Session  # noqa: E402
from conversations.seeding import people, volume  # noqa: E402
from conversations.seeding.loading import load  # noqa: E402
from conversations.seeding.plans import PlannedPerson, PlannedSession  # noqa: E402

ISSUER = "benchmark"
OWNERS = 240
REQUESTS = 2_000
LONG_SESSIONS, LONG = 10, 50_000
PAGE, LIST = 100, 50
START = datetime(2025, 7, 1, tzinfo=UTC)
TOKEN_NAME = "benchmark"
WORDS = volume.Words(1)


class Sizes(NamedTuple):
    users: int
    sessions: int
    messages: int


# The store


def fill(sizes: Sizes) -> None:
    call_command("migrate", verbosity=0)
    wanted = {"--users": sizes.users, "--sessions": sizes.sessions, "--messages": sizes.messages}
    call_command("seed", "--force", *(str(word) for pair in wanted.items() for word in pair))


def plant_long_sessions(size: int) -> bool:
    """Ten sessions of one length, each of a person of its own. Whether any was missing."""
    names = [f"long-{number}" for number in range(LONG_SESSIONS)]
    people.ensure(PlannedPerson(ISSUER, name, START, name=name, email=f"{name}@example.com") for name in names)
    return bool(load(long_sessions(names, size), lambda count: None))


def vacuum() -> None:
    """As autovacuum leaves it some minutes after a load."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def long_sessions(names: list[str], size: int) -> Iterator[PlannedSession]:
    for name in names:
        dice = random.Random(name)
        messages = volume.planned_messages(dice, WORDS, START, size)
        yield PlannedSession(ISSUER, name, f"{name}:{size}", START, size, messages, title=name)


# What is asked


class Owner(NamedTuple):
    id: int
    token: str


def owners_of(ids: list[int]) -> dict[int, Owner]:
    """A token for each, used just now: the first request need not note it."""
    fields = {"name": TOKEN_NAME, "last_used_at": timezone.now(), "expires_at": timezone.now() + timedelta(days=1)}
    found = {}
    for user_id, user in User.objects.in_bulk(ids).items():
        _, token = ApiToken.objects.issue(user, **fields)
        found[user_id] = Owner(user_id, token)
    return found


def planned(dice: random.Random, long: int) -> dict[str, list[dict[str, Any]]]:
    """For each operation its requests: method, path, token and body; and `given`, what its SQL may be told."""
    owners = owners_of(busy_owners())
    busy = list(owners.values())
    sessions = [row for row in sample_of_sessions(list(owners)) if row["last_position"] < LONG // 10]
    long_rows = named(Session.objects.live().filter(last_position=long, owner__identities__issuer=ISSUER))
    full = named(Session.objects.live().filter(message_count__gt=PAGE).exclude(last_position=long))[:400]
    full = full or long_rows
    owners |= owners_of(sorted({row["owner_id"] for row in [*full, *long_rows]} - set(owners)))
    traces = sample_of_traces(sessions)

    def get(owner_id: int, path: str, **given: Any) -> dict[str, Any]:
        return request(owners[owner_id], "GET", path, None, given)

    def page(row: dict[str, Any], query: str = "") -> dict[str, Any]:
        return get(row["owner_id"], f"/api/sessions/{row['id']}/messages/{query}", session=row["id"])

    return {
        "list": [get(owner.id, "/api/sessions/") for owner in busy],
        "get": [get(row["owner_id"], f"/api/sessions/{row['id']}/", session=row["id"]) for row in sessions],
        "page": [page(row) for row in full],
        # The page before it, with whose link the benchmark begins.
        "last page": [page(row, f"?skip={long - 2 * PAGE}&limit={PAGE}") for row in long_rows],
        "trace": [get(owner, f"/api/messages/?trace_id={trace}", trace=trace) for owner, trace in traces],
        "append": [append_to(owners[row["owner_id"]], row, dice) for row in sessions],
        "create": [creation_by(owner, number) for number in range(4) for owner in busy],
    }


def busy_owners() -> list[int]:
    """People with more sessions than a list shows, spread over all who have."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT owner_id FROM conversations_session WHERE deleted_at IS NULL"
            " GROUP BY owner_id HAVING COUNT(*) > %s ORDER BY owner_id",
            [LIST],
        )
        found = [row[0] for row in cursor.fetchall()]
    return found[:: max(1, len(found) // OWNERS)][:OWNERS]


def named(sessions: Any) -> list[dict[str, Any]]:
    return list(sessions.order_by("id").values("id", "owner_id", "last_position"))


def sample_of_sessions(owner_ids: list[int]) -> list[dict[str, Any]]:
    rows = named(Session.objects.live().filter(owner__in=owner_ids, message_count__gt=0))
    return random.Random(1).sample(rows, min(REQUESTS, len(rows)))


def sample_of_traces(sessions: list[dict[str, Any]]) -> list[tuple[int, str]]:
    owner_of = {row["id"]: row["owner_id"] for row in sessions}
    first = Message.objects.filter(session__in=list(owner_of), position=1, trace_id__isnull=False)
    return [(owner_of[session], str(trace)) for session, trace in first.values_list("session_id", "trace_id")]


def append_to(owner: Owner, row: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    content = WORDS.some(dice, 200)
    body = {"role": "user", "content": content, "trace_id": f"{dice.getrandbits(128):032x}", "tokens": 50}
    # The length is there to choose two that differ in it.
    given = {"session": row["id"], "content": content, "trace": body["trace_id"], "length": row["last_position"]}
    return request(owner, "POST", f"/api/sessions/{row['id']}/messages/", body, given)


def creation_by(owner: Owner, number: int) -> dict[str, Any]:
    title = f"Benchmark {owner.id}-{number}"
    body = {"title": title, "agent_id": "support", "metadata": {"channel": "web"}}
    return request(owner, "POST", "/api/sessions/", body, {"title": title})


def request(owner: Owner, method: str, path: str, body: Any, given: dict[str, Any]) -> dict[str, Any]:
    digest = digest_of(owner.token)
    return {
        "method": method,
        "path": path,
        "token": owner.token,
        "body": body,
        "given": {"digest": digest, "user": owner.id, **given},
    }


# The SQL of an operation, by watching it twice


class Seen(NamedTuple):
    sql: str
    parameters: list[Any]
    columns: list[str]
    row: dict[str, Any]


def watched(asked: dict[str, Any], path: str) -> list[Seen]:
    """The statements that answer this request."""
    statements: list[Seen] = []

    def watch(execute: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
        result = execute(sql, parameters, many, context)
        cursor = context["cursor"].cursor
        columns = unique([column.name for column in cursor.description or ()])
        first = cursor.fetchone() if columns else None
        if first is not None:
            cursor.scroll(0, mode="absolute")
        row = dict(zip(columns, first or (), strict=False))
        statements.append(Seen(sql, list(parameters or ()), columns, row))
        return result

    with connection.execute_wrapper(watch):
        answer = Client().generic(
            asked["method"],
            path,
            json.dumps(asked["body"]) if asked["body"] else "",
            content_type="application/json",
            headers={"Authorization": f"Bearer {asked['token']}", "Host": "localhost"},
        )
    if answer.status_code not in (200, 201):
        raise SystemExit(f"{asked['method']} {path} is answered {answer.status_code}.")
    asked["link"] = answer.headers.get("Link", "")
    return statements


def unique(columns: list[str]) -> list[str]:
    """A column's second name where two tables have it: the joined session's UUID as the ORM spells it."""
    found: list[str] = []
    for column in columns:
        found.append(
            column if column not in found else f"session__{column}" if column == "session_id" else f"{column}2"
        )
    return found


def statements_of(first: dict[str, Any], second: dict[str, Any]) -> list[dict[str, Any]]:
    """The statements of an operation. A parameter that differs between two requests is named by what was given,
    or by an earlier statement's column, that has its value in both."""
    seen = [watched(asked, asked.get("followed") or asked["path"]) for asked in (first, second)]
    if len(seen[0]) != len(seen[1]):
        raise SystemExit(f"{first['path']} and {second['path']} take different statements.")
    known = [
        {name: value for name, value in asked["given"].items() if name != "length"} for asked in (first, second)
    ]
    found = []
    for number, pair in enumerate(zip(*seen, strict=True)):
        if pair[0].sql != pair[1].sql:
            raise SystemExit(f"{first['path']} and {second['path']} differ in statement {number}.")
        parameters = [
            parameter_of(values, known) for values in zip(pair[0].parameters, pair[1].parameters, strict=True)
        ]
        sql = numbered(pair[0].sql, parameters)
        told = [parameter for parameter in parameters if not is_null(parameter)]
        found.append({"sql": sql, "parameters": told, "columns": pair[0].columns})
        for place in (0, 1):  # What was given comes first, then what was found last.
            row = {f"{number}.{name}": value for name, value in pair[place].row.items()}
            given = {name: value for name, value in known[place].items() if "." not in name}
            known[place] = given | row | known[place]
    return found


def parameter_of(values: tuple[Any, Any], known: list[dict[str, Any]]) -> dict[str, Any]:
    values = (plain(values[0]), plain(values[1]))
    kind = kind_of(values[0])
    if values[0] != values[1]:
        names = [name for name in known[0] if (known[0][name], known[1].get(name)) == values]
        if names:
            return {"type": kind, "name": names[0]}
        if kind == "time":
            return {"type": kind, "name": "now"}
        if kind == "uuid":
            return {"type": kind, "name": "new_uuid"}
        raise SystemExit("The SQL has a parameter that neither the request nor a statement before has given.")
    return {"type": kind, "value": str(values[0]) if kind in ("uuid", "time") else values[0]}


def plain(value: Any) -> Any:
    """Without psycopg's wrapper of JSON."""
    return getattr(value, "obj", value)


KINDS = {bool: "bool", int: "int", str: "str", uuid.UUID: "uuid", datetime: "time", dict: "json"}


def kind_of(value: Any) -> str:
    return next((name for kind, name in KINDS.items() if isinstance(value, kind)), "str")


def is_null(parameter: dict[str, Any]) -> bool:
    return "name" not in parameter and parameter["value"] is None


def numbered(sql: str, parameters: list[dict[str, Any]]) -> str:
    """`%s` as `:p0`, `:p1` ..., and NULL, which has no type to tell a driver, as itself."""
    numbers = count()
    names = ["NULL" if is_null(parameter) else f":p{next(numbers)}" for parameter in parameters]
    parts = sql.split("%s")
    return "".join(part + name for part, name in zip(parts, [*names, ""], strict=True)).replace("%%", "%")


def two_of(requests: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two requests of different people that differ in all that they give."""
    first = requests[0]
    others = (
        other for other in requests if all(other["given"][name] != first["given"][name] for name in first["given"])
    )
    return first, next(others)


def sql_of(requests: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    for last in requests["last page"]:
        last["followed"] = link_after(last, last["path"])
        last["given"]["after"] = Session.objects.get(pk=last["given"]["session"]).last_position - PAGE
    found = {}
    for operation, asked in requests.items():
        first, second = two_of_last(asked) if operation == "last page" else two_of(asked)
        found[operation] = statements_of(first, second)
    return found


def link_after(asked: dict[str, Any], path: str) -> str:
    """The path and query of the page that follows."""
    watched(asked, path)
    url = urlsplit(asked["link"].partition("<")[2].partition(">")[0])
    return f"{url.path}?{url.query}"


def two_of_last(requests: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The long sessions are of one length: the second is asked for a page that begins one later."""
    first, second = requests[0], dict(requests[1])
    link = link_after(second, second["path"].replace(f"limit={PAGE}", f"limit={PAGE - 1}"))
    second["followed"] = link.replace(f"limit={PAGE - 1}", f"limit={PAGE}")
    second["given"] = second["given"] | {"after": second["given"]["after"] - 1}
    return first, second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--sessions", type=int, default=200_000)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--long", type=int, default=LONG, help="Messages in each of the ten long sessions.")
    parser.add_argument("--there", action="store_true", help="Add no more than the long sessions.")
    parser.add_argument("--forget", action="store_true", help="Delete the tokens of this plan.")
    options = parser.parse_args()
    if options.forget:
        forget(json.loads(options.plan.read_text()))
        return
    if not options.there:
        fill(Sizes(options.users, options.sessions, options.messages))
    if plant_long_sessions(options.long) or not options.there:
        vacuum()
    options.plan.write_text(json.dumps(plan(options.long)))


def forget(plan: dict[str, Any]) -> None:
    """Delete the plan's own tokens, and no others of that name."""
    digests = {asked["given"]["digest"] for requests in plan["requests"].values() for asked in requests}
    ApiToken.objects.filter(digest__in=digests).delete()


def plan(long: int) -> dict[str, Any]:
    requests = planned(random.Random(1), long)
    sql = sql_of(requests)
    return {"requests": requests, "sql": sql}


if __name__ == "__main__":
    main()
