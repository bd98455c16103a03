"""The table of the matrix: what each route answers for each method and thing (contract 1, 2, 3 and 6)."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from chatstore.tests.matrix_things import MESSAGES, ONE, SESSIONS, TOKENS, USERS, WORKSPACES, Thing

METHODS = ("GET", "POST", "PATCH", "DELETE", "PUT")
HELLO = {"role": "user", "content": "Hello!"}

Rights = dict[str, int]


class Route(NamedTuple):
    """`name` as the resolver has it. `methods`: for each that the route has, the status by what the thing is to
    the caller; a thing's state comes first, where it is there. What it has not is 405. `path` and `bodies` name
    the thing as {ref}. Further entries of the same route say in `about` what differs."""

    name: str
    path: str
    things: dict[str, Thing]
    methods: dict[str, Rights]
    bodies: dict[str, Any] = {}
    about: str = ""
    public: bool = False
    in_person: bool = False  # Nothing for services: what is made there would outlive their tokens.

    @property
    def label(self) -> str:
        return f"/{self.name} {self.about}".strip()

    def body(self, method: str, ref: str) -> Any:
        body = self.bodies.get(method)
        return body and json.loads(json.dumps(body).replace("{ref}", ref))


def always(status: int) -> Rights:
    words = ("owner", "self", "member", "admin", "help", "super", "other", "absent", "malformed")
    return dict.fromkeys(words, status)


def page(name: str) -> Route:
    return Route(name, f"/{name}", ONE, {"GET": always(200)}, public=True)


def nothing(name: str, path: str) -> Route:
    return Route(name, path, ONE, dict.fromkeys(METHODS, always(404)), public=True)


# Fetch, then authorise: 404 for what is not, 403 for what is not yours.
MISSING = {"deleted": 404, "absent": 404, "malformed": 404}
# The owner and an admin of the workspace read, rename, delete and restore a session ...
READ = {"owner": 200, "admin": 200, "other": 403, **MISSING}
RENAME = READ
DELETE = {"owner": 204, "admin": 204, "other": 403, **MISSING}
# ... also one that is deleted: without `deleted` it counts as if it were live.
RESTORE = {"owner": 200, "admin": 200, "other": 403, "absent": 404, "malformed": 404}
# Only the owner changes the rest of it, and adds, changes and deletes messages.
ADD = {"owner": 201, "admin": 403, "other": 403, **MISSING}
CHANGE = {"owner": 200, "admin": 403, "other": 403, **MISSING}
ERASE = {"owner": 204, "admin": 403, "other": 403, **MISSING}
IN_QUERY = {"malformed": 422}
# An admin of the workspace lists what is everybody's there; a member makes sessions there.
LIST = {"admin": 200, "member": 403, "other": 403, "absent": 404, "malformed": 422}
PLACE = {"admin": 201, "member": 201, "other": 422, "absent": 422, "malformed": 422}
# Everybody has themselves; others are for whoever holds Django's permission, and powers only for superusers.
NOBODY = {"absent": 404, "malformed": 404}
SEE_USER = {"self": 200, "other": 403, "view": 200, "help": 200, "super": 200, **NOBODY}
CHANGE_USER = {"self": 200, "other": 403, "view": 403, "help": 200, "super": 200, **NOBODY}
SWITCH_USER = {"self": 403, "other": 403, "view": 403, "help": 200, "super": 200, **NOBODY}
DEACTIVATE = {"self": 403, "other": 403, "view": 403, "help": 204, "super": 204, **NOBODY}

PAGES = [
    *map(page, ("", "health", "health/live", "openapi.json", "docs", "redoc", "redoc.js")),
    nothing("api", "/api"),
    nothing("api/", "/api/nothing/here"),
    # For the admin's login alone: a bearer token opens nothing there.
    Route("admin/", "/admin/", ONE, dict.fromkeys(METHODS, always(302)), public=True),
    Route("admin/find/", "/admin/find/?q=run-1", ONE, dict.fromkeys(METHODS, always(302)), public=True),
    Route(
        "admin/autocomplete/", "/admin/autocomplete/?term=a", ONE, dict.fromkeys(METHODS, always(302)), public=True
    ),
]
ACCOUNTS = [
    Route(
        "auth/session",
        "/auth/session",
        ONE,
        {"POST": always(204), "DELETE": always(204)},
        in_person=True,
    ),
    Route("api/me", "/api/me/", ONE, {"GET": always(200)}),
    Route(
        "api/me/tokens",
        "/api/me/tokens/",
        ONE,
        {"GET": always(200), "POST": always(201)},
        {"POST": {"name": "laptop"}},
        in_person=True,
    ),
    Route(
        "api/me/tokens/{ref}",
        "/api/me/tokens/{ref}/",
        TOKENS,
        {"DELETE": {"owner": 204, "other": 404, **NOBODY}},
        in_person=True,
    ),
    Route(
        "api/users",
        "/api/users/",
        ONE,
        {"GET": {"self": 403, "help": 200, "super": 200}, "POST": {"self": 403, "help": 201, "super": 201}},
        {"POST": {"name": "Dave"}},
    ),
    Route(
        "api/users/{ref}",
        "/api/users/{ref}/",
        USERS,
        {"GET": SEE_USER, "PATCH": CHANGE_USER, "DELETE": DEACTIVATE},
        {"PATCH": {"name": "Somebody", "email": "somebody@example.com"}},
    ),
    Route(
        "api/users/{ref}",
        "/api/users/{ref}/",
        USERS,
        {"PATCH": SWITCH_USER},
        {"PATCH": {"is_active": False}},
        about="switched off",
    ),
]
CONVERSATIONS = [
    Route(
        "api/sessions",
        "/api/sessions/",
        ONE,
        {"GET": always(200), "POST": always(201)},
        {"POST": {"title": "Mine"}},
    ),
    Route("api/sessions", "/api/sessions/?deleted=true", ONE, {"GET": always(200)}, about="in the trash"),
    Route("api/sessions", "/api/sessions/?owner=all", ONE, {"GET": always(422)}, about="of all, nowhere"),
    Route(
        "api/sessions",
        "/api/sessions/?workspace={ref}&owner=all",
        WORKSPACES,
        {"GET": LIST, "POST": always(422)},
        {"POST": {"title": "Mine"}},
        about="of all in a workspace",
    ),
    Route(
        "api/sessions",
        "/api/sessions/?workspace={ref}&owner={public_id_alice}",
        WORKSPACES,
        {"GET": LIST},
        about="of alice in a workspace",
    ),
    Route(
        "api/sessions",
        "/api/sessions/?workspace={ref}",
        WORKSPACES,
        {"GET": {**always(200), "malformed": 422}},
        about="of mine in a workspace",
    ),
    Route(
        "api/sessions",
        "/api/sessions/",
        WORKSPACES,
        {"POST": PLACE},
        {"POST": {"workspace_id": "{ref}"}},
        about="made in a workspace",
    ),
    Route(
        "api/sessions/{ref}",
        "/api/sessions/{ref}/",
        SESSIONS,
        {"GET": READ, "PATCH": RENAME, "DELETE": DELETE},
        {"PATCH": {"title": "Renamed"}},
    ),
    Route(
        "api/sessions/{ref}",
        "/api/sessions/{ref}/",
        SESSIONS,
        {"PATCH": CHANGE},
        {"PATCH": {"title": "Renamed", "metadata": {"a": 1}}},
        about="beyond its title",
    ),
    Route("api/sessions/{ref}/restore", "/api/sessions/{ref}/restore/", SESSIONS, {"POST": RESTORE}),
    Route(
        "api/sessions/{session_ref}/messages",
        "/api/sessions/{ref}/messages/",
        SESSIONS,
        {"GET": READ, "POST": ADD},
        {"POST": HELLO},
    ),
    Route(
        "api/sessions/{session_ref}/messages/batch",
        "/api/sessions/{ref}/messages/batch/",
        SESSIONS,
        {"POST": ADD},
        {"POST": {"messages": [HELLO]}},
    ),
    Route(
        "api/messages",
        "/api/messages/?session_id={ref}",
        SESSIONS,
        {"GET": READ | IN_QUERY, "POST": ADD | IN_QUERY},
        {"POST": HELLO},
    ),
    Route(
        "api/messages",
        "/api/messages/",
        ONE,
        {"GET": always(422), "POST": always(422)},
        {"POST": HELLO},
        about="of no session",
    ),
    Route("api/messages", "/api/messages/?trace_id=run-1", ONE, {"GET": always(200)}, about="of a trace"),
    Route("api/messages", "/api/messages/?span_id=step-1", ONE, {"GET": always(200)}, about="of a span"),
    Route(
        "api/messages",
        "/api/messages/?session_id={ref}&trace_id=run-1",
        SESSIONS,
        {"GET": READ | IN_QUERY},
        about="of a trace in a session",
    ),
    Route(
        "api/messages/{ref}",
        "/api/messages/{ref}/",
        MESSAGES,
        {"GET": READ, "PATCH": CHANGE, "DELETE": ERASE},
        {"PATCH": {"content": "Changed"}},
    ),
    Route("api/search", "/api/search/?q=secret", ONE, {"GET": always(200)}),
    Route(
        "api/search",
        "/api/search/?q=secret&session_id={ref}",
        SESSIONS,
        {"GET": READ | IN_QUERY},
        about="in a session",
    ),
    Route(
        "api/search",
        "/api/search/?q=secret&workspace={ref}",
        WORKSPACES,
        {"GET": {**always(200), "malformed": 422}},
        about="in a workspace",
    ),
]
USAGE = [
    Route("api/usage", "/api/usage/", ONE, {"GET": always(200)}),
    Route("api/usage", "/api/usage/?owner=all", ONE, {"GET": always(422)}, about="of all, nowhere"),
    Route("api/usage", "/api/usage/?workspace={ref}&owner=all", WORKSPACES, {"GET": LIST}, about="of all there"),
    Route(
        "api/usage",
        "/api/usage/?workspace={ref}&owner={public_id_alice}",
        WORKSPACES,
        {"GET": LIST},
        about="of alice there",
    ),
    Route(
        "api/usage",
        "/api/usage/?workspace={ref}",
        WORKSPACES,
        {"GET": {**always(200), "malformed": 422}},
        about="of mine in a workspace",
    ),
]
# Who may say something in a session is told that a reply is being written there; nobody else learns of it.
SAY = {"owner": 409, "admin": 404, "other": 404, "deleted": 404, "absent": 404, "malformed": 422}
READ_CHAT = {"owner": 200, "admin": 200, "other": 404, **MISSING}
STOP = {"owner": 202, "admin": 403, "other": 403, **MISSING}
SAID = {"POST": {"message": "Hello!", "conversation_id": "{ref}"}}
CHAT = [
    Route("api/chat", "/api/chat", SESSIONS, {"POST": SAY}, SAID),
    Route("api/chat/stream", "/api/chat/stream", SESSIONS, {"POST": SAY}, SAID),
    Route("api/conversations", "/api/conversations", ONE, {"GET": always(200)}),
    Route("api/conversations/{ref}", "/api/conversations/{ref}", SESSIONS, {"GET": READ_CHAT}),
    Route("api/sessions/{ref}/stop", "/api/sessions/{ref}/stop/", SESSIONS, {"POST": STOP}),
    Route("api/sessions/{ref}/events", "/api/sessions/{ref}/events/", SESSIONS, {"GET": READ}),
]
MATRIX = [*PAGES, *ACCOUNTS, *CONVERSATIONS, *USAGE, *CHAT]
