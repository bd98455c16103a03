"""Messages of a session in order of position, and of a trace across sessions (contract 3)."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import Caller, new_message, new_session
from conversations import services
from conversations.models import Message, Session


def listed(caller: Caller, path: str) -> list[dict[str, Any]]:
    answer = caller.get(path)
    assert answer.status_code == 200, answer.json()
    return list(answer.json())


def positions(caller: Caller, session: Session, query: str = "") -> list[int]:
    return [m["position"] for m in listed(caller, f"/api/sessions/{session.pk}/messages/{query}")]


@pytest.fixture
def five(session: Session) -> list[Message]:
    """Five messages, the third one deleted."""
    made = [new_message(session, f"Message {number}") for number in range(1, 6)]
    services.delete_message(made[2])
    return made


@pytest.mark.parametrize("path", ["/api/messages/?session_id={}", "/api/sessions/{}/messages/"])
def test_it_works(alice: Caller, session: Session, path: str) -> None:
    message = new_message(session, tokens=3, metadata={"a": 1}, tool_name="t", trace_id="t", span_id="s")
    assert listed(alice, path.format(session.pk)) == [alice.get(f"/api/messages/{message.pk}/").json()]


def test_a_session_without_messages_has_an_empty_list(alice: Caller, session: Session) -> None:
    new_message(new_session(alice))
    assert positions(alice, session) == []


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", [1, 2, 4, 5]),
        ("?order=asc", [1, 2, 4, 5]),
        ("?order=desc", [5, 4, 2, 1]),
        ("?limit=2", [1, 2]),
        ("?order=desc&limit=1", [5]),
        ("?skip=1&limit=2", [2, 4]),
        ("?skip=9", []),
        ("?after=2", [4, 5]),
        ("?after=0", [1, 2, 4, 5]),
        ("?after=3", [4, 5]),
        ("?before=4", [1, 2]),
        ("?after=1&before=5", [2, 4]),
        ("?after=9223372036854775807", []),
        ("?order=desc&before=5&limit=2", [4, 2]),
    ],
)
def test_a_page_is_a_stretch_of_positions(
    alice: Caller, session: Session, five: list[Message], query: str, shown: list[int]
) -> None:
    assert positions(alice, session, query) == shown


def test_order_is_the_position_and_no_time(alice: Caller, session: Session, five: list[Message]) -> None:
    Message.objects.filter(pk=five[4].pk).update(
        created_at="2001-01-01T00:00:00Z", updated_at="2001-01-01T00:00:00Z"
    )
    assert positions(alice, session) == [1, 2, 4, 5]


@pytest.mark.parametrize(("query", "count"), [("", 100), ("?limit=500", 500)])
def test_a_page_has_100_by_default_and_500_at_most(
    alice: Caller, session: Session, query: str, count: int
) -> None:
    services.append(session, [{"role": "user", "content": "x"}] * 501)
    assert len(positions(alice, session, query)) == count


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=501", "limit=x", "limit=", "skip=-1", "skip=2147483648", "skip=1&skip=2"),
        *("after=-1", "after=1.0", "after=x", "after=9223372036854775808", "before=", "before=01"),
        *("since_version=-1", "since_version=x", "order=up", "order=DESC", "role=human", "role="),
        *(f"trace_id={'x' * 256}", "span_id=%00", "tool_name=", "after=1&after=2"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(alice: Caller, session: Session, query: str) -> None:
    refused = alice.get(f"/api/sessions/{session.pk}/messages/?{query}")
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["query", query.partition("=")[0]])


@pytest.mark.parametrize("query", ["session_id=1", "offset=1", "content=x", "status=complete", "position=1"])
def test_an_unknown_parameter_is_refused(alice: Caller, session: Session, query: str) -> None:
    assert alice.get(f"/api/sessions/{session.pk}/messages/?{query}").status_code == 422


@pytest.mark.parametrize("name", ["role", "trace_id", "span_id", "tool_name"])
def test_filters_are_exact(alice: Caller, session: Session, name: str) -> None:
    value = "tool" if name == "role" else "aBc"
    services.append(
        session, [{"role": "user", "content": "x", name: given} for given in ("user", value, value * 2)][:2]
    )
    assert positions(alice, session, f"?{name}={value}") == [2]
    assert positions(alice, session, f"?{name}={'system' if name == 'role' else 'abc'}") == []


# Since a version


def test_since_version_shows_what_changed(alice: Caller, session: Session, five: list[Message]) -> None:
    seen = alice.get(f"/api/sessions/{session.pk}/").json()["version"]
    alice.patch(f"/api/messages/{five[1].pk}/", {"content": "Other"})
    new_message(session)
    path = f"/api/sessions/{session.pk}/messages/?since_version={seen}"
    assert [(m["position"], m["version"]) for m in listed(alice, path)] == [(2, seen + 1), (6, seen + 2)]


def test_a_deleted_row_is_a_tombstone(alice: Caller, session: Session, five: list[Message]) -> None:
    tombstone = {"id": five[2].pk, "position": 3, "version": 7, "deleted": True}
    assert listed(alice, f"/api/messages/?session_id={session.pk}&since_version=6") == [tombstone]


def test_since_the_beginning_everything_is_shown(alice: Caller, session: Session, five: list[Message]) -> None:
    assert positions(alice, session, "?since_version=0") == [1, 2, 3, 4, 5]


def test_since_now_nothing_is_shown(alice: Caller, session: Session, five: list[Message]) -> None:
    assert positions(alice, session, "?since_version=7") == []


def test_a_change_of_the_session_alone_shows_no_message(
    alice: Caller, session: Session, five: list[Message]
) -> None:
    alice.patch(f"/api/sessions/{session.pk}/", {"title": "Other"})
    assert positions(alice, session, "?since_version=7") == []


# Across sessions


@pytest.mark.parametrize("name", ["trace_id", "span_id"])
def test_a_trace_is_found_in_every_session(alice: Caller, session: Session, name: str) -> None:
    first = new_message(session, **{name: "T/1"})
    second = new_message(new_session(alice), **{name: "T/1"})
    third = new_message(session, **{name: "T/1"})
    new_message(session, **{name: "t/1"})
    path = f"/api/messages/?{name}=T%2F1"
    assert [m["id"] for m in listed(alice, path)] == [first.pk, second.pk, third.pk]
    assert [m["id"] for m in listed(alice, f"{path}&order=desc")] == [third.pk, second.pk, first.pk]


def test_a_trace_is_rendered_as_everywhere(alice: Caller, session: Session) -> None:
    message = new_message(session, trace_id="t")
    assert listed(alice, "/api/messages/?trace_id=t") == [alice.get(f"/api/messages/{message.pk}/").json()]


def test_a_trace_narrows_with_the_other_filters(alice: Caller, session: Session) -> None:
    found = new_message(session, trace_id="t", span_id="s", role="tool_call", tool_name="search")
    new_message(session, trace_id="t", span_id="s", role="assistant")
    path = "/api/messages/?trace_id=t&span_id=s&role=tool_call&tool_name=search"
    assert [m["id"] for m in listed(alice, path)] == [found.pk]


@pytest.mark.parametrize("name", ["trace_id", "span_id"])
def test_deleted_messages_are_found_by_no_trace(alice: Caller, session: Session, name: str) -> None:
    message = new_message(session, **{name: "t"})
    assert len(listed(alice, f"/api/messages/?{name}=t")) == 1
    services.delete_message(message)
    assert listed(alice, f"/api/messages/?{name}=t") == []


@pytest.mark.parametrize("query", ["after=1", "before=1", "since_version=1"])
def test_positions_and_versions_need_a_session(alice: Caller, query: str) -> None:
    refused = alice.get(f"/api/messages/?trace_id=t&{query}")
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["query", query.partition("=")[0]])


@pytest.mark.parametrize("query", ["", "?role=user", "?tool_name=x", "?limit=1", "?since_version=0"])
def test_something_must_narrow_the_search(alice: Caller, query: str) -> None:
    assert alice.get(f"/api/messages/{query}").status_code == 422


@pytest.mark.parametrize("value", ["", "%00", "x" * 256], ids=["empty", "NUL", "256"])
def test_a_malformed_trace_is_refused(alice: Caller, value: str) -> None:
    refused = alice.get(f"/api/messages/?trace_id={value}")
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["query", "trace_id"])
