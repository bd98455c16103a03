"""GET /api/conversations and /{id}: the caller's sessions as C's clients know them (contract 4)."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts.models import Membership, Workspace
from conftest import Caller, new_message, new_session
from conversations import services
from conversations.models import Message, Session

NOT_FOUND = "Conversation not found or you don't have access"
DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def talk(session: Session) -> Session:
    """Alice's session with five messages, "1" to "5"."""
    for number in range(1, 6):
        new_message(session, f"{number}")
    return Session.objects.get(pk=session.pk)


def wire(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def contents(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.json()
    return [message["content"] for message in answer.json()["messages"]]


def read(caller: Caller, session: Session, query: str = "") -> Any:
    return caller.get(f"/api/conversations/{session.pk}{query}")


# The list


def test_it_works(alice: Caller, session: Session) -> None:
    row = Session.objects.get(pk=session.pk)
    assert alice.get("/api/conversations").json() == [
        {
            "id": row.pk,
            "title": "New Chat",
            "created_at": wire(row.created_at),
            "updated_at": wire(row.updated_at),
        }
    ]


def test_the_newest_stands_first(alice: Caller) -> None:
    made = [new_session(alice) for _ in range(3)]
    new_message(made[0])
    listed = [row["id"] for row in alice.get("/api/conversations/").json()]
    assert listed == [made[0].pk, made[2].pk, made[1].pk]


@pytest.mark.parametrize("who", ["mallory", "bob", "carol", "sam"])
def test_other_peoples_are_not_listed(request: pytest.FixtureRequest, session: Session, who: str) -> None:
    """Nor for the admin of their workspace."""
    assert request.getfixturevalue(who).get("/api/conversations").json() == []


def test_deleted_ones_are_not_listed(alice: Caller, session: Session) -> None:
    services.trash_session(session)
    assert alice.get("/api/conversations").json() == []


def test_those_of_a_workspace_that_one_has_left_are_not_listed(
    alice: Caller, session: Session, shared: Workspace
) -> None:
    Membership.objects.filter(user=alice.user, workspace=shared).delete()
    assert alice.get("/api/conversations").json() == []
    assert read(alice, session).status_code == 404


def many(alice: Caller, count: int) -> list[int]:
    """Sessions, the newest first."""
    first = new_session(alice)
    fields = {"owner": alice.user, "owner_public_id": first.owner_public_id, "workspace_id": first.workspace_id}
    times = [DAY + timedelta(seconds=number // 2) for number in range(count - 1)]
    made = Session.objects.bulk_create(
        Session(**fields, created_at=time, updated_at=time, last_activity=time) for time in times
    )
    return [first.pk, *(session.pk for session in reversed(made))]


def test_the_next_page_is_linked(alice: Caller) -> None:
    made, found, place = many(alice, 7), [], "/api/conversations?limit=3&ui=web"
    for _ in range(3):
        answer = alice.get(place)
        found += [row["id"] for row in answer.json()]
        place = (re.findall('<(.*)>; rel="next"', answer.headers.get("Link", "")) or [""])[0]
    assert (found, place) == (made, "")


def test_a_page_has_a_thousand_by_default_and_at_most(alice: Caller) -> None:
    made = many(alice, 1001)
    answers = [alice.get(f"/api/conversations{query}") for query in ("", "?limit=1000")]
    assert [[row["id"] for row in answer.json()] for answer in answers] == [made[:1000]] * 2
    assert all('rel="next"' in answer["Link"] for answer in answers)


OUT_OF_RANGE = ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=1.0", "limit="]


@pytest.mark.parametrize("query", OUT_OF_RANGE)
def test_a_limit_out_of_range_is_422(alice: Caller, query: str) -> None:
    answer = alice.get(f"/api/conversations?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", "limit"])


def test_unknown_parameters_are_ignored(alice: Caller, talk: Session) -> None:
    assert len(alice.get("/api/conversations?user_id=u&user_id=v&empty=").json()) == 1
    assert len(contents(read(alice, talk, "?user_id=u&user_id=v&empty="))) == 5


# One of them


def test_a_conversation_has_its_messages_in_order(alice: Caller, session: Session) -> None:
    said = new_message(session, "Hello", metadata={"a": 1})
    reply = new_message(session, "Hi", "assistant")
    row = Session.objects.get(pk=session.pk)
    shown = [
        {"id": said.pk, "role": "user", "content": "Hello", "message_metadata": {"a": 1}, **at(said)},
        {"id": reply.pk, "role": "assistant", "content": "Hi", "message_metadata": None, **at(reply)},
    ]
    assert read(alice, session).json() == {
        "id": row.pk,
        "title": "New Chat",
        "created_at": wire(row.created_at),
        "updated_at": wire(row.updated_at),
        "messages": shown,
        "has_more": False,
        "total_count": 2,
    }


def at(message: Message) -> dict[str, str]:
    return {"created_at": wire(Message.objects.get(pk=message.pk).created_at)}


@pytest.mark.parametrize(
    ("role", "shown"),
    [("tool_call", "tool"), ("tool", "tool"), ("system", "system"), ("assistant", "assistant"), ("user", "user")],
)
def test_roles_are_shown_in_the_words_of_its_clients(
    alice: Caller, session: Session, role: str, shown: str
) -> None:
    new_message(session, "Called search", role)
    assert [message["role"] for message in read(alice, session).json()["messages"]] == [shown]


PAGES: dict[str, tuple[str, list[str], bool]] = {
    "all": ("", ["1", "2", "3", "4", "5"], False),
    "exactly-all": ("?limit=5", ["1", "2", "3", "4", "5"], False),
    "the-newest": ("?limit=2", ["4", "5"], True),
    "those-before": ("?limit=2&offset=2", ["2", "3"], True),
    "the-first": ("?limit=2&offset=4", ["1"], False),
    "offset-alone": ("?offset=3", ["1", "2"], False),
    "beyond": ("?offset=5", [], False),
    "far-beyond": ("?offset=2147483647", [], False),
}


@pytest.mark.parametrize(("query", "shown", "has_more"), PAGES.values(), ids=PAGES.keys())
def test_a_page_counts_from_the_newest_and_is_in_order(
    alice: Caller, talk: Session, query: str, shown: list[str], has_more: bool
) -> None:
    answer = read(alice, talk, query)
    body = answer.json()
    assert (contents(answer), body["has_more"], body["total_count"]) == (shown, has_more, 5)


def test_deleted_messages_are_neither_shown_nor_counted(alice: Caller, talk: Session) -> None:
    for message in Message.objects.filter(content__in=["1", "4"]):
        services.delete_message(message)
    answer = read(alice, talk, "?limit=2")
    assert (contents(answer), answer.json()["has_more"], answer.json()["total_count"]) == (["3", "5"], True, 3)
    assert read(alice, talk, "?limit=3").json()["has_more"] is False


def test_a_thousand_messages_are_shown_by_default(alice: Caller, session: Session) -> None:
    services.append(session, [{"role": "user", "content": f"{number}"} for number in range(1001)])
    answer = read(alice, session)
    assert contents(answer) == [f"{number}" for number in range(1, 1001)]
    assert (answer.json()["has_more"], answer.json()["total_count"]) == (True, 1001)


@pytest.mark.parametrize("query", [*OUT_OF_RANGE, "offset=-1", "offset=x", "offset=2147483648", "offset="])
def test_a_page_out_of_range_is_422(alice: Caller, talk: Session, query: str) -> None:
    answer = read(alice, talk, f"?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", query.partition("=")[0]])


@pytest.mark.parametrize("end", ["", "/"], ids=["bare", "slash"])
def test_a_uuid_names_it_too(alice: Caller, talk: Session, end: str) -> None:
    answer = alice.get(f"/api/conversations/{str(talk.session_id).upper()}{end}")
    assert answer.json()["id"] == talk.pk


@pytest.mark.parametrize("ref", ["1000000000", str(uuid.uuid4()), "x", "0", "-1", "01", f"{2**63}", "%00", "1%20"])
def test_what_names_none_is_404(alice: Caller, session: Session, ref: str) -> None:
    answer = alice.get(f"/api/conversations/{ref}")
    assert (answer.status_code, answer.json()["detail"]) == (404, NOT_FOUND)


@pytest.mark.parametrize("who", ["mallory", "bob", "sam"])
def test_other_peoples_is_404(request: pytest.FixtureRequest, talk: Session, who: str) -> None:
    answer = read(request.getfixturevalue(who), talk)
    assert (answer.status_code, answer.json()["detail"]) == (404, NOT_FOUND)


def test_an_admin_of_the_workspace_reads_a_members(carol: Caller, talk: Session) -> None:
    assert contents(read(carol, talk)) == ["1", "2", "3", "4", "5"]


def test_a_deleted_one_is_404(alice: Caller, talk: Session) -> None:
    services.trash_session(talk)
    answer = read(alice, talk)
    assert (answer.status_code, answer.json()["detail"]) == (404, NOT_FOUND)


@pytest.mark.parametrize("place", ["/api/conversations", "/api/conversations/1"], ids=["list", "one"])
def test_nobody_reads_any(nobody: Caller, place: str) -> None:
    assert nobody.get(place).status_code == 401


@pytest.mark.parametrize("place", ["/api/conversations", "/api/conversations/1"], ids=["list", "one"])
@pytest.mark.parametrize("verb", ["POST", "PUT", "PATCH", "DELETE"])
def test_other_verbs_are_405(alice: Caller, place: str, verb: str) -> None:
    assert alice.send(verb, place).status_code == 405


@pytest.mark.parametrize("query", ["", "?limit=2"], ids=["whole", "page"])
def test_what_did_not_change_is_304(alice: Caller, talk: Session, query: str) -> None:
    etag = read(alice, talk, query)["ETag"]
    assert read_again(alice, talk, query, etag) == 304
    new_message(talk, "6")
    assert read_again(alice, talk, query, etag) == 200


def read_again(caller: Caller, session: Session, query: str, etag: str) -> int:
    return int(caller.get(f"/api/conversations/{session.pk}{query}", If_None_Match=etag).status_code)
