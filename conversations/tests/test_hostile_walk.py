"""Hostile values in every field of every route: each is taken and read back equal, or refused in its place.

No 5xx: Django's test client raises what a view raises. No poisoned row: after each route all is read, by the API,
by the exports and by the admin.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote_plus

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client
from django_filters.filterset import FilterSet

from accounts.models import ApiToken
from chatstore.http.fields import StrictCharField, StrictSerializer, shared_fields
from chatstore.http.parameters import TextFilter
from conftest import Caller, new_message
from conversations.api.filters import SessionFilter
from conversations.api.serializers import MessageSerializer
from conversations.models import Message, Session
from conversations.tests import hostile
from conversations.tests.colleagues import MESSAGES, SESSIONS, body
from conversations.tests.hostile_walk import (
    BIG,
    BROKEN,
    TEXTS,
    Field,
    Operation,
    Value,
    is_refused,
    is_refused_as_key,
    is_refused_as_metadata,
    is_refused_in_metadata,
    is_refused_in_query,
    json_values,
    routes,
    url_values,
    walked,
)
from conversations.tests.test_hostile import same
from conversations.transfer import writing

FIELDS = walked()
CHAT = "/api/chat"
LENIENT = (CHAT, "/api/conversations")  # Unknown parameters are ignored there (contract 1).
EVENTS = "/api/sessions/{ref}/events/"
# With HOSTILE=all (`make torture`) every field gets every value; else a third, and each value goes to some field.
EVERY = 1 if os.environ.get("HOSTILE") == "all" else 3
Each = TypeVar("Each")


def operations(where: str) -> list[Any]:
    found = dict.fromkeys(field.operation for field in FIELDS if field.where == where)
    return [pytest.param(operation, id=str(operation)) for operation in found]


def some(values: Sequence[Each], operation: Operation) -> Sequence[Each]:
    """Of the values those that are this operation's to try."""
    place = list(dict.fromkeys(field.operation for field in FIELDS)).index(operation)
    return values[place % EVERY :: EVERY]


def of(operation: Operation, where: str) -> list[Field]:
    return [field for field in FIELDS if field.operation == operation and field.where == where]


class Place(NamedTuple):
    """Who asks, and for what: sam is staff, who may do everything with users; alice has all the rest."""

    alice: Caller
    sam: Caller
    session: Session
    message: Message
    token: ApiToken

    def caller(self, operation: Operation) -> Caller:
        return self.sam if operation.path.startswith("/api/users/") else self.alice

    def path(self, operation: Operation, ref: str | None = None) -> str:
        folder = operation.path.partition("/{")[0].rpartition("/")[2]
        own = {"users": self.sam.user.pk, "messages": self.message.pk, "tokens": self.token.pk}
        named = str(own.get(folder, self.session.pk)) if ref is None else ref
        return operation.path.replace("{ref}", named).replace("{session_ref}", named)

    def send(self, operation: Operation, path: str, content: Any = None, **headers: str) -> Any:
        answer = self.caller(operation).send(operation.method, path, content, **headers)
        if answer.streaming:
            answer.slot.give_back()
        return answer


@pytest.fixture
def place(alice: Caller, sam: Caller, session: Session) -> Place:
    message = new_message(session, trace_id="run-1", span_id="step-1", tool_name="search")
    return Place(alice, sam, session, message, ApiToken.objects.issue(alice.user)[0])


# The walk itself


def test_the_walk_knows_every_route() -> None:
    assert {Operation(*each.operation) for each in FIELDS} <= routes()
    without_fields = {str(each) for each in routes() - {each.operation for each in FIELDS}}
    assert without_fields == {"GET /api/me/", "POST /auth/session/", "DELETE /auth/session/"}


def all_of(kind: type[Any]) -> Iterator[type[Any]]:
    for each in kind.__subclasses__():
        yield each
        yield from all_of(each)


def test_the_walk_knows_every_field_and_filter() -> None:
    bodies, queries = (
        {str(each.name[-1]) for each in FIELDS if each.where == where} for where in ("body", "query")
    )
    written = [
        name for kind in all_of(StrictSerializer) for name, field in kind().fields.items() if not field.read_only
    ]
    filters = [
        name for kind in all_of(FilterSet) for name in kind.base_filters if kind.__module__.endswith("api.filters")
    ]
    assert set(written) - {"messages"} <= bodies
    assert filters
    assert set(filters) <= queries


@pytest.fixture
def fields_read_again() -> Iterator[None]:
    shared_fields.cache_clear()
    yield
    shared_fields.cache_clear()


def test_a_new_field_would_be_walked(fields_read_again: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MessageSerializer._declared_fields, "mood", StrictCharField(required=False))
    monkeypatch.setitem(SessionFilter.base_filters, "mood", TextFilter())
    found = {(str(each.operation), each.where, each.name) for each in walked() if "mood" in each.name}
    assert found >= {
        ("POST /api/messages/", "body", ("mood",)),
        ("POST /api/sessions/{session_ref}/messages/batch/", "body", ("messages", 0, "mood")),
        ("GET /api/sessions/", "query", ("mood",)),
    }


def test_there_are_enough_values() -> None:
    assert len(json_values()) >= 150
    assert len(url_values()) >= 150


# Bodies


LEAST: dict[str, Any] = {
    "/api/messages/": {"role": "user", "content": "x"},
    "/api/sessions/{session_ref}/messages/": {"role": "user", "content": "x"},
    "/api/sessions/{session_ref}/messages/batch/": {"messages": [{"role": "user", "content": "x"}]},
    "/api/chat/": {"message": "x"},
    "/api/chat/stream/": {"message": "x"},
}
# Valid, and yet not for these: what an object is made with stays.
FINAL = {
    Operation("PATCH", "/api/sessions/{ref}/"): {"group_id", "agent_id", "workspace_id"},
    Operation("PATCH", "/api/messages/{ref}/"): {"role"},
    Operation("PATCH", "/api/users/{ref}/"): {"username"},
}
SHOWN_AS = {"pocket_id": "pocket", "group_id": "group", "agent_id": "agent"}
RAW = "\U000f1234"  # Stands in a body for the value that is then written in its place.


def filled(operation: Operation, fields: list[Field], raw: str) -> bytes:
    """The least body that is valid, with the value in these fields."""
    least = json.loads(json.dumps(LEAST.get(operation.path, {}) if operation.method == "POST" else {}))
    for field in fields:
        inner = least
        for step in field.name[:-1]:
            inner = inner[step]
        inner[field.name[-1]] = RAW
    text = json.dumps(least, ensure_ascii=False).replace(f'"{RAW}"', raw)
    return text.encode(errors="surrogatepass")


def query_of(operation: Operation, place: Place) -> str:
    return f"?session_id={place.session.pk}" if operation == Operation("POST", "/api/messages/") else ""


def faults(answer: Any) -> set[tuple[str | int, ...]]:
    return {tuple(fault["loc"][1:]) for fault in answer.json()["errors"]}


def sent_to(place: Place, operation: Operation, fields: list[Field], raw: str) -> Any:
    path = place.path(operation) + query_of(operation, place)
    return place.send(operation, path, filled(operation, fields, raw))


def shape_of(operation: Operation, answer: Any) -> Mapping[str, Any]:
    said = answer.json()
    shown: Mapping[str, Any] = said[0] if isinstance(said, list) else said
    return shown


def stored_path(operation: Operation, shown: Mapping[str, Any]) -> str:
    folder = "messages" if "position" in shown else "sessions" if "session_id" in shown else "users"
    return f"/api/{folder}/{shown['id']}/"


def try_in_body(place: Place, operation: Operation, fields: list[Field], value: Value) -> None:
    """All fields at once: 422, which names those that must refuse it. Then those that must not: stored."""
    refusing = [field for field in fields if value.read is BROKEN or refuses(field, value)]
    if refusing:
        answer = sent_to(place, operation, fields, value.raw)
        assert answer.status_code == 422, (value, refusing)
        if value.read is BROKEN:
            return
        assert faults(answer) == {field.name for field in refusing}, value
    final = FINAL.get(operation, set())
    taking = [field for field in fields if field not in refusing and field.name[-1] not in final]
    if taking:
        answer = sent_to(place, operation, taking, value.raw)
        assert answer.status_code in (200, 201), (value, taking, answer.json())
        shown = shape_of(operation, answer)
        for field in taking:
            read_back(field, value, shown)
        if "last_used_at" not in shown:
            assert same(place.caller(operation).get(stored_path(operation, shown)).json(), shown)


def refuses(field: Field, value: Value) -> bool:
    return is_refused_in_metadata(value) if field.name[-1] == "metadata" else is_refused(field, value.read)


def read_back(field: Field, value: Value, shown: Mapping[str, Any]) -> None:
    name = str(field.name[-1])
    if name in ("workspace_id", "expires_at", "username") or value.read is None:
        return
    found, sent = shown[SHOWN_AS.get(name, name)], value.read.strip() if name == "title" else value.read
    assert same(found, {"value": sent} if name == "metadata" else sent), (field, value)


SMALLEST_BIG = {name: BIG[name] for name in ("501", "501-astral", "a-quarter-mebibyte")}
STORING = [each for each in operations("body") if not each.values[0].path.startswith(CHAT)]


@pytest.mark.parametrize("operation", STORING)
def test_every_field_of_a_body(place: Place, operation: Operation) -> None:
    fields = of(operation, "body")
    plain = [field for field in fields if field.name[-1] != "metadata"]
    for value in some(json_values(), operation):
        try_in_body(place, operation, plain, value)
    for field in plain:
        for name, text in (SMALLEST_BIG if "maxLength" in field.schema else BIG).items():
            try_in_body(place, operation, [field], Value(name, json.dumps(text, ensure_ascii=False), text))
    for field in fields:
        if field.name[-1] == "metadata":
            try_in_metadata(place, operation, field)
    everything_is_read(place)


def try_in_metadata(place: Place, operation: Operation, field: Field) -> None:
    """As what it holds; a text as a key of it, and anything else as the whole."""
    big = [Value(name, json.dumps(text, ensure_ascii=False), text) for name, text in SMALLEST_BIG.items()]
    for value in (*some(json_values(), operation), *big):
        answer = sent_to(place, operation, [field], f'{{"value": {value.raw}}}')
        if value.read is BROKEN or is_refused_in_metadata(value):
            assert answer.status_code == 422, value
        else:
            assert same(shape_of(operation, answer)["metadata"], {"value": value.read}), value
        if isinstance(value.read, str):
            status = sent_to(place, operation, [field], f"{{{value.raw}: 1}}").status_code
            assert (status == 422) == is_refused_as_key(value), value
        elif value.read is not BROKEN:
            status = sent_to(place, operation, [field], value.raw).status_code
            assert (status == 422) == is_refused_as_metadata(value), value


# A few of them where the reply is waited for; the stream takes all, and does not wait.
QUICK = list(TEXTS)[::8]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("operation", [each for each in operations("body") if each not in STORING])
def test_every_field_of_a_chat(place: Place, operation: Operation, tmp_path: Path) -> None:
    """What is taken is said to the assistant, and so stored by another thread."""
    message, session = of(operation, "body")
    for value in some(json_values(), operation):
        wrong = {each.name for each in (message, session) if value.read is BROKEN or refuses(each, value)}
        if wrong:
            answer = sent_to(place, operation, [message, session], value.raw)
            assert answer.status_code == 422
            assert value.read is BROKEN or faults(answer) == wrong
        if message.name not in wrong and (value.name in QUICK or operation.path.endswith("stream/")):
            answer = sent_to(place, operation, [message], value.raw)
            assert answer.status_code == 200
            assert Message.objects.filter(role="user").latest("pk").content == value.read
    everything_is_read(place)
    call_command("exportjsonl", str(tmp_path / "store.jsonl"), verbosity=0)


# Queries, paths and headers. Names of parameters, names in paths and most headers come to no database.


@pytest.mark.parametrize("operation", operations("query"))
def test_every_parameter_of_a_query(place: Place, operation: Operation) -> None:
    """Those that must refuse it one by one, and all others at once."""
    fields = {str(field.name[0]): field for field in of(operation, "query")}
    for raw in some(url_values(), operation):
        text = unquote_plus(raw)
        if text == str(place.session.pk):
            continue  # No hostile one.
        refusing = [name for name, field in fields.items() if is_refused_in_query(field, text)]
        alone = {"session_id": 404, "owner": 422}  # No such session; no owner without a workspace.
        for name in (*refusing, *(alone.keys() & fields.keys() - set(refusing))):
            answer = asked(place, operation, [name], raw)
            assert answer.status_code == (422 if name in refusing else alone[name]), (name, raw)
        if taking := [name for name in fields if name not in refusing and name not in alone]:
            answer = asked(place, operation, taking, raw)
            assert answer.status_code == 200, (taking, raw, answer.content[:300])


def asked(place: Place, operation: Operation, names: list[str], raw: str) -> Any:
    """The value in these parameters, beside those that the route needs."""
    needed: dict[str, dict[str, Any]] = {
        "/api/messages/": {"session_id": place.session.pk},
        "/api/search/": {"q": "x"},
    }
    rest = {name: value for name, value in needed.get(operation.path, {}).items() if name not in names}
    query = "&".join([*(f"{name}={raw}" for name in names), *(f"{name}={value}" for name, value in rest.items())])
    content = filled(operation, [], "") if operation.method == "POST" else None
    return place.send(operation, f"{place.path(operation)}?{query}", content)


@pytest.mark.once
@pytest.mark.parametrize("operation", operations("query"))
def test_a_parameter_that_nobody_knows(place: Place, operation: Operation) -> None:
    expected = 200 if operation.path.startswith(LENIENT) else 422
    for text in TEXTS.values():
        name = quote(text.encode(errors="surrogatepass"), safe="")
        assert asked(place, operation, [name], "x").status_code == expected, text


@pytest.mark.once
@pytest.mark.parametrize("operation", operations("path"))
def test_every_name_in_a_path(place: Place, operation: Operation) -> None:
    texts = [quote(text.encode(errors="surrogatepass"), safe="") for text in TEXTS.values()]
    for ref in (*hostile.REFS.values(), *texts):
        answer = place.send(operation, place.path(operation, ref))
        assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json"), ref


def authorized(text: str) -> int:
    return 401


def keyed(text: str) -> int:
    return 201 if re.fullmatch("[ -~]{1,255}", text) else 422


def on_behalf(text: str) -> int:
    return 403


def resumed(text: str) -> int:
    return 422 if text else 200


def typed(text: str) -> int:
    return 415


def hosted(text: str) -> int:
    return 400


GET, POST = "/api/sessions/{}/", "/api/sessions/"
# What a header makes of the answer; None where it makes nothing of it.
HEADERS: list[Any] = [
    ("Authorization", "GET", GET, authorized),
    ("Authorization", "POST", POST, authorized),
    *(
        ("Idempotency-Key", "POST", path, keyed)
        for path in (POST, "/api/me/tokens/", "/api/sessions/{}/messages/")
    ),
    ("X-On-Behalf-Of", "GET", GET, on_behalf),
    ("X-On-Behalf-Of", "POST", POST, on_behalf),
    ("Last-Event-ID", "GET", EVENTS.replace("{ref}", "{}"), resumed),
    ("Content-Type", "POST", POST, typed),
    ("Host", "GET", GET, hosted),
    ("Host", "POST", POST, hosted),
    *(
        (name, method, path, None)
        for name in ("X-Request-ID", "X-Timezone", "Last-Event-ID", "If-None-Match", "Accept", "Cookie", "Origin")
        for method, path in (("GET", GET), ("POST", POST))
    ),
]


@pytest.mark.once
@pytest.mark.parametrize(("name", "method", "path", "verdict"), HEADERS, ids=str)
def test_every_header(
    place: Place, name: str, method: str, path: str, verdict: Callable[[str], int] | None
) -> None:
    content = {"role": "user", "content": "x"} if path.endswith("messages/") else {}
    for text in (*TEXTS.values(), "x" * 256, "x" * 10_000):
        # What is tried as a token must not be what other tests store: the last of all searches for it.
        sent = text[::-1] if name == "Authorization" else text
        said = sent.encode(errors="surrogatepass").decode("latin-1")  # As a server hands over what was sent.
        if {"\r", "\n", "\x00"} & set(said) or said != said.strip(" \t"):
            continue  # No server hands these over.
        answer = place.alice.send(method, path.format(place.session.pk), content, **{name: said})
        if answer.streaming:
            answer.slot.give_back()
        status = verdict(said) if verdict else 200 if method == "GET" else 201
        assert answer.status_code == status, (text, answer.content)


def test_every_header_that_means_something_is_tried() -> None:
    """Those that a browser may send (the settings say which), and those that every client sends."""
    tried = {name.lower() for name, *_ in HEADERS}
    assert tried >= {name.lower() for name in settings.CORS_ALLOW_HEADERS}
    assert tried >= {"accept", "cookie", "host", "origin"}
    assert tried >= {str(each.name[0]).lower() for each in FIELDS if each.where == "header"}


# What everything says that is stored


def everything_is_read(place: Place) -> None:
    """By the API, by the exports, and by the admin."""
    alice, staff = place.alice, Client()
    staff.force_login(place.sam.user)
    sessions = pages(alice, "/api/sessions/?limit=200")
    assert len(sessions) == Session.objects.filter(owner=alice.user).count()
    long = [row["id"] for row in sessions if row["message_count"]]
    messages = [row for key in long for row in pages(alice, f"/api/sessions/{key}/messages/?limit=500")]
    assert len(messages) == Message.objects.count()
    assert len(pages(alice, "/api/conversations")) == len(sessions)
    for key in long:
        assert len(alice.get(f"/api/conversations/{key}").json()["messages"]) <= 1000
    for path in ("/api/search/?q=hello", "/api/search/?q=a", "/api/usage/", "/api/me/tokens/?limit=200"):
        assert alice.get(path).status_code == 200
    pages(place.sam, "/api/users/?limit=200")
    lines = [json.loads(line) for line in writing.exported()]
    assert len(lines) > len(sessions) + len(messages)
    for path in admin_pages(long):
        answer = staff.get(path)
        assert answer.status_code == 200, path
        body(answer)


def pages(caller: Caller, path: str) -> list[Any]:
    answer = caller.get(path)
    found = answer.json()
    while link := answer.headers.get("Link"):
        answer = caller.get(link[1:].partition(">")[0].partition("testserver")[2])
        found += answer.json()
    assert answer.status_code == 200
    return list(found)


def admin_pages(long: list[int]) -> Iterator[str]:
    yield from ("/admin/", "/admin/accounts/user/", "/admin/accounts/apitoken/", "/admin/accounts/workspace/")
    yield from (SESSIONS, f"{SESSIONS}?deleted=yes", MESSAGES, "/admin/conversations/accessrecord/")
    for key in long[:20]:
        yield f"{SESSIONS}{key}/transcript/?from=1"
        yield f"{MESSAGES}?session={key}"
        yield from (f"{SESSIONS}{key}/export/{form}/" for form in ("jsonl", "md", "csv"))
    for model, prefix in ((Session, SESSIONS), (Message, MESSAGES)):
        yield from (
            f"{prefix}{key}/change/" for key in model.objects.values_list("pk", flat=True).order_by("-pk")[:20]
        )
