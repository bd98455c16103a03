"""Any order of appends, edits, deletions, trashing and restoring leaves what a small model in memory says."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from conftest import Caller

KEYS = [None, "k1", "k2"]
CONTENT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=5)
TOKENS = st.integers(0, 9)
ROLES = st.sampled_from(["user", "assistant", "tool_call"])


@dataclass
class Entry:
    """A message as the model knows it."""

    id: int
    position: int
    role: str
    content: str
    tokens: int
    version: int
    deleted: bool = False

    @property
    def tombstone(self) -> dict[str, Any]:
        return {"id": self.id, "position": self.position, "version": self.version, "deleted": True}


@dataclass
class Model:
    """A session as the model knows it."""

    entries: list[Entry] = field(default_factory=list)
    version: int = 1
    title: str = "New Chat"
    deleted: bool = False
    made_by: dict[str, tuple[tuple[Any, ...], list[Entry]]] = field(default_factory=dict)

    @property
    def live(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.deleted]


class Conversation(RuleBasedStateMachine):
    """One session over HTTP, beside the model of it."""

    def __init__(self, alice: Caller) -> None:
        super().__init__()
        self.alice = alice
        made = alice.post("/api/sessions/", {}).json()
        self.place, self.trash = f"/api/sessions/{made['id']}/", "/api/sessions/?deleted=true&limit=200"
        self.id, self.model = made["id"], Model()

    # What happens

    @rule(messages=st.lists(st.tuples(ROLES, CONTENT, TOKENS), min_size=1, max_size=3), key=st.sampled_from(KEYS))
    def append_batch(self, messages: list[tuple[str, str, int]], key: str | None) -> None:
        body = {"messages": [dict(zip(("role", "content", "tokens"), each, strict=True)) for each in messages]}
        self.append(f"{self.place}messages/batch/", body, ("batch", *messages), messages, key)

    @rule(message=st.tuples(ROLES, CONTENT, TOKENS), key=st.sampled_from(KEYS), in_query=st.booleans())
    def append_one(self, message: tuple[str, str, int], key: str | None, in_query: bool) -> None:
        place = f"/api/messages/?session_id={self.id}" if in_query else f"{self.place}messages/"
        body = dict(zip(("role", "content", "tokens"), message, strict=True))
        self.append(place, body, ("one", message), [message], key)

    def append(self, place: str, body: Any, content: tuple[Any, ...], messages: Any, key: str | None) -> None:
        answer = self.alice.post(place, body, **({"Idempotency_Key": key} if key else {}))
        known, rows = self.model.made_by.get(key or "", (None, []))
        if self.model.deleted:
            assert answer.status_code == 404
        elif known is None:
            assert answer.status_code == 201
            self.appended(answer.json(), content, messages, key)
        elif known != content:
            assert answer.status_code == 422
        elif any(row.deleted for row in rows):
            assert answer.status_code == 404
        else:
            assert answer["Idempotency-Replayed"] == "true"
            shown = answer.json() if isinstance(answer.json(), list) else [answer.json()]
            assert [row["content"] for row in shown] == [row.content for row in rows]

    def appended(self, answer: Any, content: tuple[Any, ...], messages: Any, key: str | None) -> None:
        shown = answer if isinstance(answer, list) else [answer]
        self.model.version += 1
        first = len(self.model.entries) + 1
        rows = [
            Entry(row["id"], first + index, role, text, tokens, self.model.version)
            for index, (row, (role, text, tokens)) in enumerate(zip(shown, messages, strict=True))
        ]
        self.model.entries += rows
        assert [row["position"] for row in shown] == [row.position for row in rows]
        if key:
            self.model.made_by[key] = (content, rows)

    @precondition(lambda self: self.model.entries)
    @rule(data=st.data(), content=CONTENT, tokens=TOKENS)
    def edit(self, data: st.DataObject, content: str, tokens: int) -> None:
        entry = data.draw(st.sampled_from(self.model.entries))
        answer = self.alice.patch(f"/api/messages/{entry.id}/", {"content": content, "tokens": tokens})
        if self.model.deleted or entry.deleted:
            assert answer.status_code == 404
            return
        if (entry.content, entry.tokens) != (content, tokens):
            self.model.version += 1
            entry.content, entry.tokens, entry.version = content, tokens, self.model.version
        assert (answer.status_code, answer.json()["version"]) == (200, entry.version)

    @precondition(lambda self: self.model.entries)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.model.entries))
        answer = self.alice.delete(f"/api/messages/{entry.id}/")
        if self.model.deleted or entry.deleted:
            assert answer.status_code == 404
            return
        assert answer.status_code == 204
        self.model.version += 1
        entry.deleted, entry.version = True, self.model.version

    @rule(title=st.sampled_from(["Hello", "Trip", "Hello "]))
    def rename(self, title: str) -> None:
        before, answer = self.model.title, self.alice.patch(self.place, {"title": title})
        assert answer.status_code == (404 if self.model.deleted else 200)
        if not self.model.deleted and before != title.strip():
            self.model.title = title.strip()
            self.model.version += 1

    @rule()
    def move_to_trash(self) -> None:
        answer = self.alice.delete(self.place)
        assert answer.status_code == (404 if self.model.deleted else 204)
        self.model.version += not self.model.deleted
        self.model.deleted = True
        self.look_for_it_in_the_lists()

    @rule()
    def restore(self) -> None:
        answer = self.alice.post(f"{self.place}restore/")
        self.model.version += self.model.deleted
        self.model.deleted = False
        assert (answer.status_code, answer.json()["version"]) == (200, self.model.version)

    # What is seen

    @precondition(lambda self: not self.model.deleted)
    @rule(version=st.integers(0, 12), limit=st.integers(1, 5))
    def resume(self, version: int, limit: int) -> None:
        """Everything after a version, page by page, the deleted as tombstones."""
        rows: list[dict[str, Any]] = []
        place = f"{self.place}messages/?since_version={version}&limit={limit}"
        while place:
            page = self.alice.get(place)
            assert len(page.json()) <= limit
            rows += page.json()
            place = page.headers.get("Link", "").partition(">")[0].removeprefix("<http://testserver")
        expected = [entry for entry in self.model.entries if entry.version > version]
        assert [row["id"] for row in rows] == [entry.id for entry in expected]
        deleted = [entry.tombstone for entry in expected if entry.deleted]
        assert [row for row in rows if row.get("deleted")] == deleted

    @precondition(lambda self: not self.model.deleted)
    @rule(after=st.integers(0, 12), before=st.integers(0, 12))
    def part(self, after: int, before: int) -> None:
        rows = self.alice.get(f"{self.place}messages/?after={after}&before={before}&order=desc").json()
        expected = [entry.position for entry in self.model.live if after < entry.position < before]
        assert [row["position"] for row in rows] == expected[::-1]

    @rule()
    def look_for_it_in_the_lists(self) -> None:
        live = [row["id"] for row in self.alice.get("/api/sessions/?limit=200").json()]
        trash = [row["id"] for row in self.alice.get(self.trash).json()]
        assert (self.id in live, self.id in trash) == (not self.model.deleted, self.model.deleted)

    @invariant()
    def the_session_is_as_the_model_says(self) -> None:
        answer, model = self.alice.get(self.place), self.model
        if model.deleted:
            assert answer.status_code == 404
            return
        shown = answer.json()
        assert (shown["title"], shown["version"]) == (model.title, model.version)
        assert shown["message_count"] == len(model.live)
        assert shown["tokens"] == sum(entry.tokens for entry in model.live)

    @invariant()
    def the_messages_are_as_the_model_says(self) -> None:
        answer, model = self.alice.get(f"{self.place}messages/"), self.model
        if model.deleted:
            assert answer.status_code == 404
            return
        columns = ("id", "position", "role", "content", "tokens", "version")
        shown = [tuple(row[name] for name in columns) for row in answer.json()]
        assert shown == [tuple(getattr(entry, name) for name in columns) for entry in model.live]

    def teardown(self) -> None:
        """The next run begins with empty lists."""
        if not self.model.deleted:
            self.alice.delete(self.place)


BOUNDED = settings(
    max_examples=25,
    stateful_step_count=25,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # Shrinking a failure takes minutes; the steps up to it are few.
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.django_db
def test_a_session_is_always_what_was_done_to_it(alice: Caller) -> None:
    machine: Any = partial(Conversation, alice)
    run_state_machine_as_test(machine, settings=BOUNDED)
