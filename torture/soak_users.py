"""Who uses the product while it soaks: a file for locust, which torture/soak.py starts in a process of its own.

What a request reads stays as much while the store grows: pages have limits, and who searches and asks for usage
appends nothing. Each request is a line in a file: when it ended, its name, milliseconds, what was unexpected.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import deque
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from locust import HttpUser, constant_throughput, events, task
from requests import RequestException

# As torture/soak.py gives it: log, seed, rate, hurry (seconds), tokens, reader, password, mark.
PLAN: dict[str, Any] = json.loads(os.environ["SOAK_PLAN"])
LOG = Path(PLAN["log"]).open("a")  # noqa: SIM115 - closed when locust ends
NUMBERS = count()
EVENT_SECONDS = 2
CALM = constant_throughput(PLAN["rate"])
KEPT = 50


@events.request.add_listener
def note(name: str, response_time: float, exception: Any = None, **_: Any) -> None:
    said = str(exception or "").replace("\n", " ")[:200]
    LOG.write(json.dumps([time.monotonic(), name, response_time, said]) + "\n")


@events.quitting.add_listener
def close(**_: Any) -> None:
    LOG.close()


class Person(HttpUser):
    """Sends what an agent's back end, a browser and a member of staff send.

    At first without a pause: then as many threads and connections have been needed at once as ever will be.
    """

    session: str
    messages: deque[int]

    def on_start(self) -> None:
        number = next(NUMBERS)
        self.random = random.Random(f"{PLAN['seed']}-{number}")
        self.token = PLAN["tokens"][number % len(PLAN["tokens"])]
        self.calm_at, self.is_staff = time.monotonic() + PLAN["hurry"], False
        self.begin()

    def wait_time(self) -> float:
        return 0 if time.monotonic() < self.calm_at else CALM(self)

    def ask(self, verb: str, path: str, name: str, body: Any = None, status: int = 200, **more: Any) -> Any:
        """The JSON of an answer, which must have this status."""
        headers = {"Authorization": f"Bearer {more.pop('token', self.token)}"}
        chosen: dict[str, Any] = {"json": body, "headers": headers, "timeout": 10, **more}
        with self.client.request(verb, path, name=name, catch_response=True, **chosen) as answer:
            if answer.status_code != status:
                answer.failure(f"{answer.status_code} for {name}")
                return None
            answer.success()
            is_json = answer.headers.get("Content-Type", "").startswith("application/json")
            return answer.json() if is_json else answer.text

    @task(3)
    def begin(self) -> None:
        made = self.ask("POST", "/api/sessions/", "create", {"title": "Soak"}, status=201)
        if made:
            self.session, self.messages = made["session_id"], deque(maxlen=KEPT)

    @task(20)
    def append(self) -> None:
        content = f"{PLAN['mark']} {'word ' * self.random.randint(1, 200)}"
        body = {"role": "user", "content": content, "tokens": 7, "metadata": {"model": "soak", "steps": [1, 2]}}
        made = self.ask("POST", f"/api/sessions/{self.session}/messages/", "append", body, status=201)
        if made:
            self.messages.append(made["id"])

    @task(10)
    def sessions(self) -> None:
        self.ask("GET", "/api/sessions/?limit=20", "list")

    @task(10)
    def one(self) -> None:
        self.ask("GET", f"/api/sessions/{self.session}/", "get")

    @task(15)
    def page(self) -> None:
        self.ask("GET", f"/api/sessions/{self.session}/messages/?limit=20", "page")

    @task(10)
    def last_page(self) -> None:
        self.ask("GET", f"/api/sessions/{self.session}/messages/?limit=20&order=desc", "last page")

    @task(3)
    def rename(self) -> None:
        body = {"title": f"Soak {self.random.random()}"}
        self.ask("PATCH", f"/api/sessions/{self.session}/", "rename", body)

    @task(3)
    def edit(self) -> None:
        if self.messages:
            body = {"content": f"{PLAN['mark']} {self.random.random()}"}
            self.ask("PATCH", f"/api/messages/{self.messages[-1]}/", "edit", body)

    @task(2)
    def delete_message(self) -> None:
        if self.messages:
            self.ask("DELETE", f"/api/messages/{self.messages.pop()}/", "delete message", status=204)

    @task(1)
    def delete_session(self) -> None:
        self.ask("DELETE", f"/api/sessions/{self.session}/", "delete session", status=204)
        self.begin()

    @task(2)
    def chat(self) -> None:
        self.ask("POST", "/api/chat", "chat", {"message": f"{PLAN['mark']} Hello!"})

    @task(2)
    def chat_stream(self) -> None:
        said = self.ask("POST", "/api/chat/stream", "chat stream", {"message": f"{PLAN['mark']} Hello!"})
        if said is not None and '"done"' not in said:
            note("chat stream", 0, "a stream without an end")

    @task(1)
    def events(self) -> None:
        """Opens the session's events, and leaves."""
        until = time.monotonic() + EVENT_SECONDS
        headers = {"Authorization": f"Bearer {self.token}"}
        path = f"/api/sessions/{self.session}/events/"
        chosen: dict[str, Any] = {"headers": headers, "stream": True, "timeout": (10, EVENT_SECONDS)}
        with self.client.get(path, name="events", catch_response=True, **chosen) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code} for events")
            try:
                for _ in answer.iter_content(64):
                    if time.monotonic() > until:
                        break
            except RequestException:
                pass  # Nothing happened in so many seconds.
            answer.close()

    @task(3)
    def search(self) -> None:
        self.ask("GET", "/api/search/?q=word", "search", token=PLAN["reader"])

    @task(3)
    def usage(self) -> None:
        self.ask("GET", "/api/usage/", "usage", token=PLAN["reader"])

    @task(2)
    def stranger(self) -> None:
        self.ask("GET", "/api/sessions/", "401", status=401, token="cst_nobody")

    @task(2)
    def missing(self) -> None:
        self.ask("GET", "/api/sessions/999999999/", "404", status=404)

    @task(2)
    def invalid(self) -> None:
        path = f"/api/sessions/{self.session}/messages/"
        self.ask("POST", path, "422", {"role": "nobody", "content": 1}, status=422)

    @task(3)
    def admin(self) -> None:
        """Often enough that the 99th percentile is one of these pages, always: they take ten times as long as the
        rest, and a percentile between the two is once of this kind, once of that."""
        if not self.is_staff:
            self.log_in()
        self.ask("GET", f"/admin/conversations/{self.random.choice(self.PAGES)}/", "admin")

    PAGES: ClassVar = ["session", "message"]

    def log_in(self) -> None:
        self.ask("GET", "/admin/login/", "admin log in")
        given = {"username": "admin", "password": PLAN["password"], "next": "/health/live"}
        given["csrfmiddlewaretoken"] = self.client.cookies["csrftoken"]
        self.ask("POST", "/admin/login/", "admin log in", data=given)
        self.is_staff = True
