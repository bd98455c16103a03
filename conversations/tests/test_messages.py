"""One message: append, read, change, delete (contract 3)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import DataError, transaction
from pytest_django import Settings

from conftest import Caller, new_message, new_session, row
from conversations import services
from conversations.models import Message, Session

MIB = 1024 * 1024
SAID = {"role": "user", "content": "Hello!"}


def url(message: Message) -> str:
    return f"/api/messages/{message.pk}/"


def say(caller: Caller, session: Session, **fields: Any) -> Any:
    return caller.post(f"/api/messages/?session_id={session.pk}", SAID | fields)


def test_it_works(alice: Caller, session: Session) -> None:
    made = say(alice, session)
    assert made.status_code == 201
    assert alice.get(f"/api/messages/{made.json()['id']}/").json() == made.json()


def test_what_was_left_out_is_null_or_nought(alice: Caller, session: Session) -> None:
    made = say(alice, session).json()
    assert made["created_at"] == made["updated_at"]
    assert made == {
        "id": made["id"],
        "session_id": session.pk,
        "session": str(session.session_id),
        "position": 1,
        "role": "user",
        "content": "Hello!",
        "tool_name": None,
        "trace_id": None,
        "span_id": None,
        "tokens": 0,
        "metadata": None,
        "status": "complete",
        "version": 2,
        "created_at": made["created_at"],
        "updated_at": made["updated_at"],
    }


def test_what_was_sent_comes_back(alice: Caller, session: Session) -> None:
    sent = {"tool_name": "t", "trace_id": "0xABC", "span_id": " s ", "tokens": 7, "metadata": {"a": [{}]}}
    assert (SAID | sent).items() <= say(alice, session, **sent).json().items()


@pytest.mark.parametrize("role", ["user", "assistant", "system", "tool_call", "tool"])
def test_there_are_five_roles(alice: Caller, session: Session, role: str) -> None:
    assert say(alice, session, role=role).json()["role"] == role


@pytest.mark.parametrize("role", ["User", "", "function", None, 1, ["user"], {"a": 1}])
def test_there_is_no_other_role(alice: Caller, session: Session, role: Any) -> None:
    refused = say(alice, session, role=role)
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", "role"])


@pytest.mark.parametrize("path", ["/api/messages/?session_id={}", "/api/sessions/{}/messages/"])
@pytest.mark.parametrize("spelling", ["integer", "uuid", "upper"])
def test_a_message_goes_to_the_session_named(alice: Caller, session: Session, path: str, spelling: str) -> None:
    ref = {"integer": session.pk, "uuid": session.session_id, "upper": str(session.session_id).upper()}[spelling]
    assert alice.post(path.format(ref), SAID).json()["session_id"] == session.pk


@pytest.mark.parametrize("ref", ["", "0", "007", "-1", "x", "9223372036854775808", "0" * 32])
@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_a_malformed_session_in_the_query_is_422(alice: Caller, session: Session, ref: str, verb: str) -> None:
    refused = alice.send(verb, f"/api/messages/?session_id={ref}", SAID)
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["query", "session_id"])


@pytest.mark.parametrize("ref", ["9223372036854775807", "00000000-0000-7000-8000-000000000000"])
@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_an_absent_session_in_the_query_is_404(alice: Caller, ref: str, verb: str) -> None:
    assert alice.send(verb, f"/api/messages/?session_id={ref}", SAID).status_code == 404


@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_the_session_must_be_named(alice: Caller, verb: str) -> None:
    refused = alice.send(verb, "/api/messages/", SAID)
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["query", "session_id"])


@pytest.mark.parametrize("ref", ["0", "007", "x", "9223372036854775808", "9223372036854775807", "%00"])
@pytest.mark.parametrize("verb", ["GET", "PATCH", "DELETE"])
def test_a_message_that_is_not_there_is_404(alice: Caller, ref: str, verb: str) -> None:
    assert alice.send(verb, f"/api/messages/{ref}/").status_code == 404


# Limits of one field; what every field refuses is in chatstore/tests/test_validation.py.


CONTENTS = {
    "one character": "x",
    "white space": " \r\n\t ",
    "every plane": "\x01\x7f\N{BOM}\N{GRINNING FACE}\ufffe\uffff\U0010ffff\u2028e\u0301",
    "exactly 1 MiB": "\N{LATIN SMALL LETTER E WITH ACUTE}" * (MIB // 2),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_content_comes_back_exactly(alice: Caller, session: Session, name: str) -> None:
    made = say(alice, session, content=CONTENTS[name])
    assert made.status_code == 201
    assert alice.get(f"/api/messages/{made.json()['id']}/").json()["content"] == CONTENTS[name]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("x" * (MIB + 1), id="one byte too many"),
        pytest.param("\N{LATIN SMALL LETTER E WITH ACUTE}" * (MIB // 2) + "x", id="too many bytes"),
        pytest.param(None, id="null"),
        pytest.param(5, id="number"),
        pytest.param(["x"], id="array"),
    ],
)
@pytest.mark.parametrize("verb", ["POST", "PATCH"])
def test_content_that_is_none_is_refused(alice: Caller, session: Session, content: Any, verb: str) -> None:
    path = url(new_message(session)) if verb == "PATCH" else f"/api/messages/?session_id={session.pk}"
    refused = alice.send(verb, path, (SAID if verb == "POST" else {}) | {"content": content})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", "content"])


@pytest.mark.parametrize("name", ["tool_name", "trace_id", "span_id"])
@pytest.mark.parametrize("size", [1, 255])
def test_a_name_has_up_to_255_characters(alice: Caller, session: Session, name: str, size: int) -> None:
    text = "\N{GRINNING FACE}" * size
    assert say(alice, session, **{name: text}).json()[name] == text


@pytest.mark.parametrize("name", ["tool_name", "trace_id", "span_id"])
@pytest.mark.parametrize("value", ["x" * 256, "", 5, True, ["x"]], ids=["256", "empty", "number", "true", "array"])
def test_a_name_is_nothing_else(alice: Caller, session: Session, name: str, value: Any) -> None:
    refused = say(alice, session, **{name: value})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", name])


@pytest.mark.parametrize("tokens", [0, 2**31 - 1])
def test_tokens_are_counted(alice: Caller, session: Session, tokens: int) -> None:
    assert say(alice, session, tokens=tokens).json()["tokens"] == tokens


@pytest.mark.parametrize("tokens", [-1, 2**31, 2**63, 10**40, 1.5, 5.0, "5", True, None, [1]])
def test_tokens_are_integers_in_range(alice: Caller, session: Session, tokens: Any) -> None:
    refused = say(alice, session, tokens=tokens)
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", "tokens"])


@pytest.mark.parametrize("name", ["tool_name", "trace_id", "span_id", "metadata"])
def test_null_is_as_good_as_absent(alice: Caller, session: Session, name: str) -> None:
    made = say(alice, session, **{name: None})
    assert (made.status_code, made.json()[name]) == (201, None)


@pytest.mark.parametrize("missing", ["role", "content"])
def test_role_and_content_are_required(alice: Caller, session: Session, missing: str) -> None:
    body = {name: value for name, value in SAID.items() if name != missing}
    refused = alice.post(f"/api/messages/?session_id={session.pk}", body)
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", missing])


def test_what_only_the_answer_has_is_ignored(alice: Caller, session: Session) -> None:
    made = say(alice, session, id=99, position=99, session_id=99, status="failed", version=99, created_at="x")
    assert made.status_code == 201
    assert (made.json()["position"], made.json()["status"], made.json()["version"]) == (1, "complete", 2)


def test_a_refused_message_takes_no_position(alice: Caller, session: Session) -> None:
    assert say(alice, session, tokens=-1).status_code == 422
    assert say(alice, session).json()["position"] == 1


# Change


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content", "Other"),
        ("metadata", {"b": 2}),
        ("tokens", 9),
        ("tool_name", "other"),
        ("trace_id", "other"),
        ("span_id", "other"),
    ],
)
def test_a_change_changes_one_thing(alice: Caller, session: Session, name: str, value: Any) -> None:
    message = new_message(session, metadata={"a": 1}, tokens=3, tool_name="t", trace_id="t", span_id="s")
    before = alice.get(url(message)).json()
    after = alice.patch(url(message), {name: value}).json()
    assert {key for key in before if before[key] != after[key]} == {name, "version", "updated_at"}
    assert (after[name], after["version"]) == (value, before["version"] + 1)
    assert after == alice.get(url(message)).json()


@pytest.mark.parametrize(
    "body",
    [{}, {"content": "Hello!"}, {"metadata": None, "tool_name": None}, {"role": "user"}, {"position": 9, "id": 9}],
)
def test_a_change_of_nothing_changes_nothing(alice: Caller, session: Session, body: dict[str, Any]) -> None:
    message = new_message(session, tool_name="t", metadata={"a": 1})
    before = row(Message, message.pk)
    assert alice.patch(url(message), body).status_code == 200
    assert row(Message, message.pk) == before


def test_the_role_cannot_change(alice: Caller, session: Session) -> None:
    refused = alice.patch(url(new_message(session)), {"role": "tool"})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", "role"])


def test_the_versions_of_session_and_message_meet(alice: Caller, session: Session) -> None:
    message = new_message(session)
    alice.patch(f"/api/sessions/{session.pk}/", {"title": "Other"})
    changed = alice.patch(url(message), {"content": "Other"}).json()
    assert changed["version"] == alice.get(f"/api/sessions/{session.pk}/").json()["version"] == 4


@pytest.mark.parametrize("verb", ["PATCH", "DELETE"])
def test_a_message_still_being_written_stays(alice: Caller, session: Session, verb: str) -> None:
    message = new_message(session, role="assistant")
    Message.objects.filter(pk=message.pk).update(status="streaming")
    refused = alice.send(verb, url(message), {"content": "x"} if verb == "PATCH" else None)
    assert (refused.status_code, refused.json()["code"]) == (409, "message_streaming")
    assert row(Message, message.pk)["content"] == "Hello!"


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_a_message_that_ended_badly_can_change(alice: Caller, session: Session, status: str) -> None:
    message = new_message(session, role="assistant")
    Message.objects.filter(pk=message.pk).update(status=status)
    changed = alice.patch(url(message), {"content": "Other"})
    assert (changed.status_code, changed.json()["status"]) == (200, status)


# Delete


@pytest.mark.parametrize("verb", ["GET", "PATCH", "DELETE"])
def test_a_deleted_message_is_404(alice: Caller, session: Session, verb: str) -> None:
    path = url(new_message(session))
    assert alice.delete(path).status_code == 204
    assert alice.send(verb, path, {}).status_code == 404


def test_deleting_is_final(alice: Caller, session: Session) -> None:
    message = new_message(session, "secret", tool_name="t", metadata={"secret": 1}, trace_id="t")
    alice.delete(url(message))
    kept = row(Message, message.pk)
    assert (kept["content"], kept["metadata"], kept["tool_name"]) == ("", None, None)
    assert (kept["position"], kept["trace_id"], kept["version"]) == (1, "t", 3)
    assert "secret" not in json.dumps(kept, default=str)


def test_key_and_digest_stay(alice: Caller, session: Session) -> None:
    made = alice.post(f"/api/messages/?session_id={session.pk}", SAID, Idempotency_Key="k").json()
    before = row(Message, made["id"])
    alice.delete(f"/api/messages/{made['id']}/")
    after = row(Message, made["id"])
    assert before["idempotency_digest"]
    assert all(before[name] == after[name] for name in before if name.startswith("idempotency"))


def test_a_deleted_message_leaves_its_gap(alice: Caller, session: Session) -> None:
    middle = [new_message(session) for _ in range(3)][1]
    last = new_message(session)
    alice.delete(url(middle))
    alice.delete(url(last))
    assert say(alice, session).json()["position"] == 5
    shown = alice.get(f"/api/sessions/{session.pk}/messages/").json()
    assert [message["position"] for message in shown] == [1, 3, 5]


def test_positions_are_counted_in_each_session(alice: Caller, session: Session) -> None:
    new_message(session)
    assert say(alice, new_session(alice)).json()["position"] == 1
    assert say(alice, session).json()["position"] == 2


# AUTO_TITLE


def session_url(session: Session) -> str:
    return f"/api/sessions/{session.pk}/"


@pytest.fixture
def auto_title(settings: Settings) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"auto_title": True})


@pytest.mark.parametrize(
    ("said", "title"),
    [
        pytest.param(" How do I\n reset it? ", "How do I reset it?", id="short"),
        pytest.param("word " * 20, "word " * 11 + "word…", id="cut at a word"),
        pytest.param("x" * 99, "x" * 60 + "…", id="one long word"),
        pytest.param(" \n", "New Chat", id="blank"),
    ],
)
def test_the_first_user_message_names_a_session(alice: Caller, auto_title: None, said: str, title: str) -> None:
    session = new_session(alice)
    new_message(session, "You are a bot", role="system")
    assert alice.post(f"{session_url(session)}messages/", {"role": "user", "content": said}).json()["version"] == 3
    assert alice.get(session_url(session)).json()["title"] == title


@pytest.mark.parametrize("given", ["at creation", "later", "the default itself"])
def test_a_title_that_somebody_gave_stays(alice: Caller, auto_title: None, given: str) -> None:
    title = "New Chat" if given == "the default itself" else "Mine"
    named: dict[str, Any] = {"title": title}
    session = new_session(alice, **(named if given == "at creation" else {}))
    alice.patch(session_url(session), named if given != "at creation" else {})
    new_message(session)
    assert alice.get(session_url(session)).json()["title"] == title


def test_the_second_user_message_names_nothing(alice: Caller, auto_title: None, session: Session) -> None:
    new_message(session, "First")
    new_message(session, "Second")
    assert alice.get(session_url(session)).json()["title"] == "First"


def test_titles_are_left_alone_by_default(alice: Caller, session: Session) -> None:
    new_message(session)
    assert alice.get(session_url(session)).json()["title"] == "New Chat"


def test_giving_the_title_that_it_has_changes_nothing_but_keeps_it(alice: Caller, auto_title: None) -> None:
    session = alice.post("/api/sessions/").json()
    path = f"/api/sessions/{session['id']}/"
    assert alice.patch(path, {"title": session["title"]}).json() == session
    alice.post(f"{path}messages/", {"role": "user", "content": "When is the Pantheon open?"})
    assert alice.get(path).json()["title"] == session["title"]


@pytest.mark.postgres
@pytest.mark.parametrize("count", [1, 2])
def test_nothing_is_cut(session: Session, count: int) -> None:
    """The serializers refuse it before; what comes past them is refused by the column."""
    with pytest.raises(DataError), transaction.atomic():
        services.append(session, [{"role": "user", "content": "x", "trace_id": "t" * 256}] * count)
