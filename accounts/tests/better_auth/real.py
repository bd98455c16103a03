"""The real better-auth, which runs in node (better_auth.mjs)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from django.db import connection

from accounts.tests.better_auth.tables import SECRET

FOLDER = Path(__file__).parent
IS_INSTALLED = bool(shutil.which("node")) and (FOLDER / "node_modules" / ".installed").exists()

URL = "http://127.0.0.1:3999"  # Its name only: nothing listens there.
PASSWORD = "correct horse battery staple"
SCHEMA = "logins"

Node = Callable[[dict[str, Any]], Any]


@contextmanager
def running() -> Iterator[Node]:
    """node with better_auth.mjs; gives a function that sends a command and returns its answer."""
    process = subprocess.Popen(
        ["node", "better_auth.mjs"], cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    to, answers = process.stdin, process.stdout

    def do(command: dict[str, Any]) -> Any:
        to.write(json.dumps(command) + "\n")
        to.flush()
        answer = json.loads(answers.readline())
        assert "error" not in answer, answer["error"]
        return answer

    yield do
    process.communicate(timeout=20)
    assert process.returncode == 0


class Signed(NamedTuple):
    """Somebody who signed up or in: what the body of the answer calls their token, and the header."""

    user: str
    raw: str
    signed: str

    @property
    def encoded(self) -> str:
        """As JavaScript's encodeURIComponent writes it."""
        return quote(self.signed, safe="!'()*-._~")


class BetterAuth:
    """better-auth with `options`, as its documentation has them."""

    def __init__(
        self,
        node: Node,
        schema: str = SCHEMA,
        plugins: tuple[str, ...] = ("bearer", "jwt"),
        environment: dict[str, str] | None = None,
        database: str = "",
        **options: Any,
    ) -> None:
        self.node = node
        secret = {} if environment else {"secret": SECRET}
        self.how = {
            "options": {"baseURL": URL, "emailAndPassword": {"enabled": True}, **secret, **options},
            "plugins": plugins,
            "environment": environment or {},
            "pool": pool(database, schema),
        }

    def migrated(self) -> BetterAuth:
        self.node({**self.how, "migrate": True})
        return self

    def call(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        headers = {"content-type": "application/json"} if body is not None else {}
        if token:
            headers["authorization"] = f"Bearer {token}"
        answer = self.node({**self.how, "method": method, "path": path, "headers": headers, "body": body})
        assert answer["status"] == 200, answer
        return answer

    def sign_up(self, name: str = "Ann") -> Signed:
        return self.sign("up", name)

    def sign(self, way: str, name: str = "Ann") -> Signed:
        who = {"email": f"{name.lower()}@example.com", "password": PASSWORD, "name": name}
        answer = self.call("POST", f"/sign-{way}/email", who)
        body = answer["body"]
        return Signed(str(body["user"]["id"]), body["token"], answer["headers"]["set-auth-token"])

    def takes(self, token: str) -> bool:
        """Whether this is a session to better-auth itself."""
        return self.call("GET", "/get-session", token=token)["body"] is not None


def pool(database: str, schema: str) -> dict[str, Any]:
    """How the npm package pg reaches the test's database, or another beside it."""
    place = connection.settings_dict
    found = {
        "host": place["HOST"] or place["OPTIONS"].get("host", ""),
        "port": int(place["PORT"] or 5432),
        "user": place["USER"],
        "password": place["PASSWORD"],
        "database": database or place["NAME"],
        "max": 2,
    }
    return found | {"options": f"-c search_path={schema}"} if schema else found
