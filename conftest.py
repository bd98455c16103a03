"""The cast: alice owns, bob shares her workspace, carol is its admin, mallory is a stranger, sam is staff."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts.models import ApiToken, Membership, User, Workspace
from conversations import services
from conversations.models import Message, Session

pytest_plugins = ["chatstore.tests.credentials"]


class Caller:
    """Somebody with an API token, who sends and reads JSON."""

    def __init__(self, user: User | None, token: str) -> None:
        if user is not None:
            self.user = user
        self.token = token
        self.client = Client()

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """A request. `body` is sent as JSON, bytes as they are; header names are written with _ for -."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            named.setdefault("Authorization", f"Bearer {self.token}")
        content_type = named.pop("Content-Type", "application/json")
        return self.client.generic(method, path, content, content_type=content_type, headers=named)

    def get(self, path: str, **headers: str) -> Any:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.send("POST", path, body, **headers)

    def patch(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.send("PATCH", path, body, **headers)

    def delete(self, path: str, **headers: str) -> Any:
        return self.send("DELETE", path, **headers)


def caller(name: str, **fields: Any) -> Caller:
    user = User.objects.create_user(name, email=f"{name}@example.com", **fields)
    # Used just now, so that no test's count of queries holds the note of a first use.
    _, text = ApiToken.objects.issue(user, last_used_at=timezone.now())
    return Caller(user, text)


@pytest.fixture
def alice(db: None) -> Caller:
    return caller("alice")


@pytest.fixture
def bob(shared: Workspace) -> Caller:
    return member(shared, "bob")


@pytest.fixture
def carol(shared: Workspace) -> Caller:
    return member(shared, "carol", Membership.Role.ADMIN)


@pytest.fixture
def mallory(db: None) -> Caller:
    return caller("mallory")


@pytest.fixture
def sam(db: None) -> Caller:
    return caller("sam", is_staff=True, is_superuser=True)


@pytest.fixture
def staff(sam: Caller) -> Client:
    """Sam, logged in to the admin."""
    client = Client()
    client.force_login(sam.user)
    return client


@pytest.fixture
def nobody(db: None) -> Caller:
    return Caller(None, "")


@pytest.fixture
def shared(alice: Caller) -> Workspace:
    """The workspace that alice, bob and carol share."""
    workspace = Workspace.objects.create(name="Shared")
    Membership.objects.create(user=alice.user, workspace=workspace)
    return workspace


def member(workspace: Workspace, name: str, role: str = Membership.Role.MEMBER) -> Caller:
    joined = caller(name)
    Membership.objects.create(user=joined.user, workspace=workspace, role=role)
    return joined


@pytest.fixture
def session(alice: Caller, shared: Workspace) -> Session:
    """Alice's session in the shared workspace."""
    return new_session(alice, workspace=shared)


def new_session(owner: Caller, workspace: Workspace | None = None, **fields: Any) -> Session:
    place = workspace or owner.user.personal_workspace()
    return services.create_session(owner.user, place, fields)[0]


def new_message(session: Session, content: str = "Hello!", role: str = "user", **fields: Any) -> Message:
    return services.append(session, [{"role": role, "content": content, **fields}])[0][0]


def row(model: type[Any], pk: int) -> Mapping[str, Any]:
    """Every column of one row, as the database has it."""
    found: Mapping[str, Any] = model.objects.filter(pk=pk).values().get()
    return found


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marker = "postgres" if config.getoption("--database") == "sqlite" else "once"
    left_out = {item for item in items if item.get_closest_marker(marker)}
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """SQLite's tests use a file, as people do: in memory there is no WAL and threads share one connection."""
    if connection.vendor == "sqlite":
        connection.settings_dict["TEST"]["NAME"] = str(tmp_path_factory.mktemp("sqlite") / "test.sqlite3")


@pytest.fixture(autouse=True, scope="session")
def the_database_is_the_one_asked_for(request: pytest.FixtureRequest) -> None:
    """A run that was meant for PostgreSQL must not pass on SQLite."""
    assert connection.vendor == request.config.getoption("--database")
