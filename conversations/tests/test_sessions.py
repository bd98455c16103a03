"""Sessions by themselves: make, read, change, delete, restore (contract 2)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from conftest import Caller, new_message, new_session, row
from conversations.models import Message, Session

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
INTERNAL = {"last_position", "titled"}


def url(session: Session) -> str:
    return f"/api/sessions/{session.pk}/"


def test_it_works(alice: Caller) -> None:
    made = alice.post("/api/sessions/", {"title": "Welcome Chat"})
    assert made.status_code == 201
    assert alice.get(f"/api/sessions/{made.json()['id']}/").json() == made.json()


def test_the_walk_through(alice: Caller, mallory: Caller) -> None:
    older, newer = (alice.post("/api/sessions/", {"title": name}).json()["id"] for name in ("Older", "Newer"))
    assert [s["id"] for s in alice.get("/api/sessions/").json()] == [newer, older]
    said = alice.post(f"/api/messages/?session_id={older}", {"role": "user", "content": "Hello!"})
    assert said.status_code == 201
    assert [s["id"] for s in alice.get("/api/sessions/").json()] == [older, newer]

    path = f"/api/sessions/{older}/"
    assert alice.patch(path, {"title": "Renamed"}).json()["title"] == "Renamed"
    refused = alice.patch(path, {"title": 123})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", "title"])
    assert alice.patch(path, {"pocket_id": "p1"}).json()["pocket"] == "p1"
    assert alice.patch(path, {"title": "Again"}).json()["pocket"] == "p1"
    assert alice.patch(path, {"pocket_id": None}).json()["pocket"] is None
    assert alice.patch(path, {"agent_id": "another"}).status_code == 422
    assert mallory.get(path).status_code == 403

    assert alice.delete(path).status_code == 204
    assert alice.get(path).status_code == 404
    assert alice.delete(path).status_code == 404


def test_an_empty_object_is_enough(alice: Caller) -> None:
    made = alice.post("/api/sessions/", {}).json()
    me = alice.get("/api/me/").json()
    changing = {"id", "session_id", "created_at", "updated_at", "last_activity"}
    assert {name: value for name, value in made.items() if name not in changing} == {
        "user_id": me["id"],
        "owner": me["public_id"],
        "workspace": me["workspaces"][0]["id"],
        "title": "New Chat",
        "pocket": None,
        "group": None,
        "agent": None,
        "metadata": None,
        "message_count": 0,
        "tokens": 0,
        "version": 1,
        "deleted_at": None,
    }


def test_an_absent_body_is_an_empty_object(alice: Caller) -> None:
    assert alice.post("/api/sessions/").json()["title"] == "New Chat"


def test_what_was_sent_comes_back(alice: Caller) -> None:
    sent = {"title": "T", "pocket_id": "p", "group_id": "g", "agent_id": "a", "metadata": {"k": [1, None]}}
    made = alice.post("/api/sessions/", sent).json()
    shown = {"title": "T", "pocket": "p", "group": "g", "agent": "a", "metadata": {"k": [1, None]}}
    assert shown.items() <= made.items()


@pytest.mark.parametrize("name", ["pocket_id", "group_id", "agent_id", "workspace_id", "metadata"])
def test_null_is_as_good_as_absent(alice: Caller, name: str) -> None:
    made = alice.post("/api/sessions/", {name: None})
    assert made.status_code == 201
    assert made.json()[name.removesuffix("_id")] == alice.post("/api/sessions/").json()[name.removesuffix("_id")]


def test_a_null_title_is_refused_at_creation(alice: Caller) -> None:
    assert alice.post("/api/sessions/", {"title": None}).status_code == 422


@pytest.mark.parametrize("name", ["session_id", "owner", "workspace"])
def test_stable_ids_are_lower_case_uuids_of_version_7(alice: Caller, name: str) -> None:
    text = alice.post("/api/sessions/").json()[name]
    assert uuid.UUID(text).version == 7
    assert text == str(uuid.UUID(text))


def test_ids_are_integers(alice: Caller) -> None:
    made = alice.post("/api/sessions/").json()
    assert [type(made[name]) for name in ("id", "user_id", "version")] == [int, int, int]


@pytest.mark.parametrize("name", ["created_at", "updated_at", "last_activity", "deleted_at"])
def test_times_are_utc_with_six_digits(alice: Caller, session: Session, name: str) -> None:
    moment = timezone.now().replace(microsecond=0)
    Session.objects.filter(pk=session.pk).update(**{name: moment, "deleted_at": moment})
    listed = alice.get("/api/sessions/?deleted=true").json()[0]
    assert TIME.fullmatch(listed[name])


def test_last_activity_is_the_creation_until_the_first_message(alice: Caller) -> None:
    made = alice.post("/api/sessions/").json()
    assert made["last_activity"] == made["created_at"] == made["updated_at"]


def test_a_new_session_may_be_put_into_a_shared_workspace(alice: Caller, session: Session) -> None:
    place = str(session.workspace_id).upper()
    assert alice.post("/api/sessions/", {"workspace_id": place}).json()["workspace"] == place.lower()


@pytest.mark.parametrize("place", ["somebody's", "absent", "malformed"])
def test_a_session_goes_nowhere_but_where_one_is_a_member(mallory: Caller, session: Session, place: str) -> None:
    places = {"somebody's": str(session.workspace_id), "absent": str(uuid.uuid4()), "malformed": "home"}
    refused = mallory.post("/api/sessions/", {"workspace_id": places[place]})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", "workspace_id"])


# Either id names it


@pytest.mark.parametrize("spelling", ["integer", "uuid", "upper"])
@pytest.mark.parametrize("rest", ["", "messages/", "restore/", "messages/batch/"])
def test_either_id_names_a_session_in_a_path(alice: Caller, session: Session, spelling: str, rest: str) -> None:
    ref = {"integer": str(session.pk), "uuid": str(session.session_id), "upper": str(session.session_id).upper()}
    path = f"/api/sessions/{ref[spelling]}/{rest}"
    body = {"messages": [{"role": "user", "content": "x"}]}
    answer = alice.post(path, body if "batch" in rest else None) if rest.endswith(("restore/", "h/")) else None
    assert (answer or alice.get(path)).status_code in (200, 201)


MALFORMED = [
    "0",
    "007",
    "-1",
    "+1",
    "1.0",
    "x",
    "9223372036854775808",
    "1" * 40,
    "\N{ARABIC-INDIC DIGIT ONE}",
    "%00",
]
MALFORMED_UUIDS = ["0" * 32, "{00000000-0000-7000-8000-000000000000}", "00000000-0000-7000-8000-00000000000g"]
ABSENT = ["9223372036854775807", "00000000-0000-7000-8000-000000000000"]


@pytest.mark.parametrize("ref", [*MALFORMED, *MALFORMED_UUIDS, *ABSENT])
@pytest.mark.parametrize("rest", ["", "messages/"])
def test_a_ref_that_names_nothing_is_404_in_a_path(alice: Caller, ref: str, rest: str) -> None:
    assert alice.get(f"/api/sessions/{ref}/{rest}").status_code == 404


# Change


@pytest.mark.parametrize("title", ["x", "x" * 500, " " * 9 + "\N{GRINNING FACE}" * 500 + "\n"])
def test_a_title_has_up_to_500_characters_after_trimming(alice: Caller, session: Session, title: str) -> None:
    assert alice.patch(url(session), {"title": title}).json()["title"] == title.strip()


@pytest.mark.parametrize("title", ["", " \t\n", "\N{NO-BREAK SPACE}", "x" * 501, 123, True, ["x"], {}])
@pytest.mark.parametrize("verb", ["post", "patch"])
def test_a_title_that_is_none_is_refused(alice: Caller, session: Session, title: Any, verb: str) -> None:
    path = url(session) if verb == "patch" else "/api/sessions/"
    refused = alice.send(verb.upper(), path, {"title": title})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", "title"])


@pytest.mark.parametrize("body", [{}, {"title": None}, {"metadata": None}, {"agent_id": None}, {"title": "Same"}])
def test_a_change_of_nothing_changes_nothing(alice: Caller, body: dict[str, Any]) -> None:
    session = new_session(alice, title="Same", metadata={"a": 1}, agent="one")
    before = alice.get(url(session)).json()
    answer = alice.patch(url(session), body)
    assert answer.status_code == 200
    assert answer.json() == before == alice.get(url(session)).json()


def test_metadata_is_replaced_whole(alice: Caller) -> None:
    session = new_session(alice, metadata={"a": 1, "b": 2})
    assert alice.patch(url(session), {"metadata": {"c": 3}}).json()["metadata"] == {"c": 3}


@pytest.mark.parametrize(("old", "new"), [(1, True), (0, False), (1, 1.5)], ids=["true", "false", "fraction"])
def test_metadata_changes_where_only_python_sees_no_difference(alice: Caller, old: Any, new: Any) -> None:
    session = new_session(alice, metadata={"a": old})
    assert alice.patch(url(session), {"metadata": {"a": new}}).json()["metadata"] == {"a": new}


@pytest.mark.parametrize("name", ["group", "agent"])
def test_group_and_agent_cannot_change(alice: Caller, name: str) -> None:
    links: dict[str, Any] = {name: "one"}
    session = new_session(alice, **links)
    refused = alice.patch(url(session), {f"{name}_id": "another"})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", f"{name}_id"])
    assert "cannot change" in refused.json()["detail"].lower()


@pytest.mark.parametrize("name", ["group", "agent"])
def test_the_same_group_or_agent_is_no_change(alice: Caller, name: str) -> None:
    links: dict[str, Any] = {name: "one"}
    session = new_session(alice, **links)
    assert alice.patch(url(session), {f"{name}_id": "one"}).json()["version"] == 1


def test_a_session_does_not_move_to_another_workspace_in_silence(alice: Caller, session: Session) -> None:
    home = str(alice.user.personal_workspace().public_id)
    assert home != str(session.workspace_id)
    assert alice.patch(url(session), {"workspace_id": home}).status_code == 422


def test_an_answer_can_be_sent_back(alice: Caller, session: Session) -> None:
    read = alice.get(url(session)).json()
    answer = alice.patch(url(session), read | {"version": 99, "user_id": 1, "title": "Back"})
    assert answer.json() | {"title": ""} == read | {"title": "", "version": 2} | {
        "updated_at": answer.json()["updated_at"]
    }


# What each verb moves


def nothing(alice: Caller, path: str, message: Message) -> Any:
    return alice.patch(path, {"title": "Given"})


def rename(alice: Caller, path: str, message: Message) -> Any:
    return alice.patch(path, {"title": "Other"})


def say(alice: Caller, path: str, message: Message) -> Any:
    return alice.post(f"{path}messages/", {"role": "user", "content": "x", "tokens": 5})


def say_twice(alice: Caller, path: str, message: Message) -> Any:
    one = {"role": "user", "content": "x", "tokens": 5}
    return alice.post(f"{path}messages/batch/", {"messages": [one, one]})


def edit(alice: Caller, path: str, message: Message) -> Any:
    return alice.patch(f"/api/messages/{message.pk}/", {"content": "Other"})


def recount(alice: Caller, path: str, message: Message) -> Any:
    return alice.patch(f"/api/messages/{message.pk}/", {"tokens": 9})


def unsay(alice: Caller, path: str, message: Message) -> Any:
    return alice.delete(f"/api/messages/{message.pk}/")


def trash(alice: Caller, path: str, message: Message) -> Any:
    return alice.delete(path)


MOVES = [
    pytest.param(nothing, set(), id="no change"),
    pytest.param(rename, {"title", "version", "updated_at"}, id="rename"),
    pytest.param(say, {"message_count", "tokens", "version", "updated_at", "last_activity"}, id="append"),
    pytest.param(say_twice, {"message_count", "tokens", "version", "updated_at", "last_activity"}, id="batch"),
    pytest.param(edit, {"version"}, id="edit a message"),
    pytest.param(recount, {"version", "tokens"}, id="change tokens"),
    pytest.param(unsay, {"version", "tokens", "message_count"}, id="delete a message"),
    pytest.param(trash, {"version", "deleted_at"}, id="delete"),
]


@pytest.mark.parametrize(("verb", "moved"), MOVES)
def test_each_verb_moves_what_it_should(
    alice: Caller, verb: Callable[[Caller, str, Message], Any], moved: set[str]
) -> None:
    session = new_session(alice, title="Given")
    message = new_message(session, tokens=3)
    before = row(Session, session.pk)
    assert verb(alice, url(session), message).status_code < 300
    after = row(Session, session.pk)
    assert {name for name in before if before[name] != after[name]} - INTERNAL == moved
    assert after["version"] == before["version"] + bool(moved)


@pytest.mark.parametrize("verb", [rename, say, say_twice])
def test_updated_at_never_goes_backwards(alice: Caller, verb: Callable[[Caller, str, Message], Any]) -> None:
    session = new_session(alice)
    ahead = timezone.now() + timedelta(hours=1)
    Session.objects.filter(pk=session.pk).update(updated_at=ahead, last_activity=ahead)
    assert verb(alice, url(session), Message()).status_code < 300
    after = row(Session, session.pk)
    assert (after["updated_at"], after["last_activity"]) == (ahead, ahead)


@pytest.mark.parametrize("tokens", [2**31 - 1, 0])
def test_counters_are_exact(alice: Caller, session: Session, tokens: int) -> None:
    first = new_message(session, tokens=2**31 - 1)
    new_message(session, tokens=tokens)
    assert alice.delete(f"/api/messages/{first.pk}/").status_code == 204
    now = alice.get(url(session)).json()
    assert (now["message_count"], now["tokens"]) == (1, tokens)


# Delete and restore


def readings(session: Session, message: Message) -> dict[str, str]:
    return {
        "session": f"/api/sessions/{session.session_id}/",
        "messages": f"/api/sessions/{session.pk}/messages/",
        "messages by query": f"/api/messages/?session_id={session.pk}",
        "message": f"/api/messages/{message.pk}/",
    }


@pytest.mark.parametrize("name", ["session", "messages", "messages by query", "message"])
def test_a_deleted_session_is_404(alice: Caller, session: Session, name: str) -> None:
    path = readings(session, new_message(session))[name]
    assert alice.get(path).status_code == 200
    assert alice.delete(url(session)).status_code == 204
    assert alice.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/api/sessions/", "/api/messages/?trace_id=t", "/api/sessions/?title=new"])
def test_a_deleted_session_is_in_no_list(alice: Caller, session: Session, path: str) -> None:
    new_message(session, trace_id="t")
    assert len(alice.get(path).json()) == 1
    alice.delete(url(session))
    assert alice.get(path).json() == []


@pytest.mark.parametrize("verb", [rename, say, say_twice, edit, unsay, trash])
def test_a_deleted_session_takes_no_change(
    alice: Caller, session: Session, verb: Callable[[Caller, str, Message], Any]
) -> None:
    message = new_message(session)
    alice.delete(url(session))
    assert verb(alice, url(session), message).status_code == 404


def test_restore_loses_nothing(alice: Caller, session: Session) -> None:
    new_message(session, tokens=3)
    before, said = alice.get(url(session)).json(), alice.get(f"{url(session)}messages/").json()
    alice.delete(url(session))
    restored = alice.post(f"{url(session)}restore/")
    assert restored.status_code == 200
    assert restored.json()["updated_at"] > before["updated_at"]
    assert restored.json() == before | {"version": 4, "updated_at": restored.json()["updated_at"]}
    assert alice.get(f"{url(session)}messages/").json() == said


def test_restoring_what_is_there_changes_nothing(alice: Caller, session: Session) -> None:
    before = alice.get(url(session)).json()
    restored = alice.post(f"{url(session)}restore/", {})
    assert (restored.status_code, restored.json()) == (200, before)


def test_what_is_not_there_cannot_be_restored(alice: Caller, session: Session) -> None:
    Session.objects.filter(pk=session.pk).delete()
    assert alice.post(f"{url(session)}restore/").status_code == 404


# Quota


@pytest.fixture
def quota_of_one(settings: Settings) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"max_sessions_per_user": 1})


def test_one_session_too_many_is_400(alice: Caller, quota_of_one: None) -> None:
    assert alice.post("/api/sessions/").status_code == 201
    refused = alice.post("/api/sessions/")
    assert (refused.status_code, refused.json()["code"]) == (400, "session_quota_reached")


def test_a_deleted_session_makes_room_and_then_cannot_come_back(alice: Caller, quota_of_one: None) -> None:
    path = f"/api/sessions/{alice.post('/api/sessions/').json()['id']}/"
    alice.delete(path)
    assert alice.post("/api/sessions/").status_code == 201
    assert alice.post(f"{path}restore/").status_code == 400


def test_everybody_has_a_quota_of_their_own(alice: Caller, mallory: Caller, quota_of_one: None) -> None:
    assert alice.post("/api/sessions/").status_code == 201
    assert mallory.post("/api/sessions/").status_code == 201
