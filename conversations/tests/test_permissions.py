"""Who may: 404 for what is not there, 403 for what is there and not yours, workspaces (contract 1 and 2)."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import Membership, Workspace
from conftest import Caller, new_message, new_session, row
from conversations import services
from conversations.models import Message, Session

SECRET = "The secret of alice"
SAID = {"role": "user", "content": "x"}


@pytest.fixture
def secret(session: Session) -> Message:
    services.change_session(session, {"title": SECRET})
    return new_message(session, SECRET, trace_id="t")


@pytest.fixture
def who(request: pytest.FixtureRequest) -> Caller:
    found: Caller = request.getfixturevalue(request.param)
    return found


def each(*names: str) -> Any:
    return pytest.mark.parametrize("who", names, indirect=True)


def paths(message: Message) -> dict[str, str]:
    return {
        "session": f"/api/sessions/{message.session.pk}/",
        "session by uuid": f"/api/sessions/{message.session.session_id}/",
        "messages": f"/api/sessions/{message.session.pk}/messages/",
        "messages by query": f"/api/messages/?session_id={message.session.session_id}",
        "message": f"/api/messages/{message.pk}/",
    }


PATHS = ["session", "session by uuid", "messages", "messages by query", "message"]


@each("alice", "carol")
@pytest.mark.parametrize("path", PATHS)
def test_the_owner_and_the_workspaces_admin_read(who: Caller, secret: Message, path: str) -> None:
    answer = who.get(paths(secret)[path])
    assert answer.status_code == 200
    assert SECRET in answer.content.decode()


@each("bob", "mallory", "sam")
@pytest.mark.parametrize("path", PATHS)
def test_nobody_else_reads_staff_included(who: Caller, secret: Message, path: str) -> None:
    answer = who.get(paths(secret)[path])
    assert answer.status_code == 403
    assert answer.json()["code"] == "permission_denied"
    assert SECRET not in answer.content.decode()


@each("bob", "mallory", "sam")
@pytest.mark.parametrize("path", ["/api/sessions/", "/api/messages/?trace_id=t", "/api/sessions/?title=secret"])
def test_nobody_else_finds_it_in_a_list(who: Caller, secret: Message, path: str) -> None:
    answer = who.get(path)
    assert (answer.status_code, answer.json()) == (200, [])


@each("alice", "carol")
def test_a_trace_is_found_by_those_who_may_read(who: Caller, secret: Message) -> None:
    new_message(new_session(who), trace_id="t")
    assert len(who.get("/api/messages/?trace_id=t").json()) == 2


CHANGES: list[Any] = [
    pytest.param("PATCH", "session", {"title": "x"}, id="rename"),
    pytest.param("PATCH", "session", {}, id="change nothing"),
    pytest.param("PATCH", "session", {"pocket_id": "x"}, id="link"),
    pytest.param("DELETE", "session", None, id="delete"),
    pytest.param("POST", "messages", SAID, id="append"),
    pytest.param("POST", "messages by query", SAID, id="append by query"),
    pytest.param("PATCH", "message", {"content": "x"}, id="edit a message"),
    pytest.param("DELETE", "message", None, id="delete a message"),
]


@each("bob", "mallory", "sam")
@pytest.mark.parametrize(("verb", "path", "body"), CHANGES)
def test_nobody_else_changes(who: Caller, secret: Message, verb: str, path: str, body: Any) -> None:
    before = row(Session, secret.session.pk), row(Message, secret.pk)
    assert who.send(verb, paths(secret)[path], body).status_code == 403
    assert (row(Session, secret.session.pk), row(Message, secret.pk)) == before


@each("bob", "mallory", "sam")
@pytest.mark.parametrize("deleted", [False, True], ids=["live", "deleted"])
def test_nobody_else_restores(who: Caller, secret: Message, deleted: bool) -> None:
    if deleted:
        services.trash_session(secret.session)
    assert who.post(f"{paths(secret)['session']}restore/").status_code == 403


def test_a_batch_needs_the_owner(bob: Caller, carol: Caller, secret: Message) -> None:
    path = f"{paths(secret)['messages']}batch/"
    statuses = [caller.post(path, {"messages": [SAID]}).status_code for caller in (bob, carol)]
    assert statuses == [403, 403]


@pytest.mark.parametrize("path", PATHS)
def test_what_is_deleted_is_404_for_strangers_too(mallory: Caller, secret: Message, path: str) -> None:
    services.trash_session(secret.session)
    assert mallory.get(paths(secret)[path]).status_code == 404


def test_what_one_may_not_is_refused_before_the_body_is_read(mallory: Caller, secret: Message) -> None:
    assert mallory.patch(paths(secret)["session"], {"title": 123}).status_code == 403
    assert mallory.post(paths(secret)["messages"], {"nonsense": 1}).status_code == 403


# The admin of a workspace


def test_an_admin_renames_deletes_and_restores(carol: Caller, secret: Message) -> None:
    path = paths(secret)["session"]
    assert carol.patch(path, {"title": "Renamed"}).json()["title"] == "Renamed"
    assert carol.delete(path).status_code == 204
    restored = carol.post(f"{path}restore/")
    assert (restored.status_code, restored.json()["user_id"]) == (200, secret.session.owner_id)


@pytest.mark.parametrize(
    "body", [{"pocket_id": "x"}, {"pocket_id": None}, {"metadata": {}}, {"title": "x", "pocket_id": "x"}]
)
def test_an_admin_changes_nothing_but_the_title(carol: Caller, alice: Caller, body: dict[str, Any]) -> None:
    session = new_session(alice, carol.user.memberships.get(workspace__personal_of=None).workspace, pocket="p")
    before = row(Session, session.pk)
    assert carol.patch(f"/api/sessions/{session.pk}/", body).status_code == 403
    assert row(Session, session.pk) == before


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        pytest.param("POST", "messages", SAID, id="append"),
        pytest.param("POST", "messages by query", SAID, id="append by query"),
        pytest.param("PATCH", "message", {"content": "x"}, id="edit"),
        pytest.param("DELETE", "message", None, id="delete"),
    ],
)
def test_an_admin_puts_no_words_into_others_mouths(
    carol: Caller, secret: Message, verb: str, path: str, body: Any
) -> None:
    assert carol.send(verb, paths(secret)[path], body).status_code == 403
    assert row(Message, secret.pk)["content"] == SECRET


def test_an_admin_of_another_workspace_is_a_stranger(mallory: Caller, secret: Message) -> None:
    elsewhere = Workspace.objects.create(name="Elsewhere")
    Membership.objects.create(user=mallory.user, workspace=elsewhere, role=Membership.Role.ADMIN)
    assert mallory.get(paths(secret)["session"]).status_code == 403


def test_an_admin_does_not_see_members_personal_sessions(alice: Caller, carol: Caller) -> None:
    assert carol.get(f"/api/sessions/{new_session(alice).pk}/").status_code == 403


# From the next request


def removed(caller: Caller, workspace: Workspace) -> None:
    assert Membership.objects.filter(user=caller.user, workspace=workspace).delete()[0] == 1


@pytest.mark.parametrize("path", PATHS)
def test_an_owner_who_was_removed_is_a_stranger(alice: Caller, secret: Message, path: str) -> None:
    assert alice.get(paths(secret)[path]).status_code == 200
    removed(alice, secret.session.workspace)
    assert alice.get(paths(secret)[path]).status_code == 403


@pytest.mark.parametrize("path", ["/api/sessions/", "/api/messages/?trace_id=t", "/api/sessions/?deleted=true"])
def test_an_owner_who_was_removed_lists_nothing(alice: Caller, secret: Message, path: str) -> None:
    if "deleted" in path:
        services.trash_session(secret.session)
    assert len(alice.get(path).json()) == 1
    removed(alice, secret.session.workspace)
    assert alice.get(path).json() == []


@pytest.mark.parametrize(("verb", "path", "body"), CHANGES)
def test_an_owner_who_was_removed_changes_nothing(
    alice: Caller, secret: Message, verb: str, path: str, body: Any
) -> None:
    removed(alice, secret.session.workspace)
    assert alice.send(verb, paths(secret)[path], body).status_code == 403


def test_an_owner_who_is_back_sees_everything_again(alice: Caller, secret: Message) -> None:
    removed(alice, secret.session.workspace)
    Membership.objects.create(user=alice.user, workspace=secret.session.workspace)
    assert alice.get(paths(secret)["session"]).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_lowered_role_counts_at_once(carol: Caller, secret: Message, path: str) -> None:
    assert carol.get(paths(secret)[path]).status_code == 200
    Membership.objects.filter(user=carol.user).update(role=Membership.Role.MEMBER)
    assert carol.get(paths(secret)[path]).status_code == 403


def test_a_lowered_role_ends_the_admins_list(carol: Caller, secret: Message) -> None:
    path = f"/api/sessions/?workspace={secret.session.workspace_id}&owner=all"
    assert len(carol.get(path).json()) == 1
    Membership.objects.filter(user=carol.user).update(role=Membership.Role.MEMBER)
    assert carol.get(path).status_code == 403


def test_a_raised_role_counts_at_once(bob: Caller, secret: Message) -> None:
    Membership.objects.filter(user=bob.user).update(role=Membership.Role.ADMIN)
    assert bob.get(paths(secret)["session"]).status_code == 200
