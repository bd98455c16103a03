"""Whether the product and the peers answer the same, and how much each answer costs."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.processes import cpu_of_postgres, cpu_of_tree

SCRIPT = Path(__file__).with_name("requests.lua")
# In the answer to a write these differ from one to the next.
OWN = {"id", "session_id", "position", "version", "last_activity", "created_at", "updated_at"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
WRITES = ("append", "create")
CHECKED = 20


@dataclass
class Target:
    """A server that is measured: its address, and its first process."""

    name: str
    url: str
    pid: int

    def ask(self, asked: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        """Status, body and headers of one answer."""
        link = http.client.HTTPConnection("127.0.0.1", urlsplit(self.url).port, timeout=30)
        headers = {"Authorization": f"Bearer {asked['token']}", "Content-Type": "application/json"}
        body = json.dumps(asked["body"]) if asked["body"] else None
        try:
            link.request(asked["method"], asked["path"], body, headers)
            answer = link.getresponse()
            text = answer.read()
            is_json = answer.headers.get_content_subtype() == "json"
            return answer.status, json.loads(text) if is_json else text, dict(answer.getheaders())
        finally:
            link.close()


class Run(NamedTuple):
    """What one run of wrk has shown. Milliseconds; `postgres` is None where that server is elsewhere."""

    requests: int
    rate: float
    p50: float
    p99: float
    app: float
    postgres: float | None
    errors: int

    @property
    def total(self) -> float:
        return self.app + (self.postgres or 0.0)


# Equal answers


def requests_of(target: Target, operation: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last pages are behind the links that the server itself gives, as a client would follow them."""
    if operation != "last page":
        return requests
    return [asked | {"path": linked(target, asked)} for asked in requests]


def linked(target: Target, asked: dict[str, Any]) -> str:
    _, _, headers = target.ask(asked)
    found = re.search(r'<([^>]*)>; rel="next"', headers.get("Link", headers.get("link", "")))
    if not found:
        raise SystemExit(f"{target.name} gives no link to the page after {asked['path']}.")
    parts = urlsplit(found[1])
    return f"{parts.path}?{parts.query}"


def differences(operation: str, asked: list[list[dict[str, Any]]], targets: list[Target]) -> Iterable[str]:
    """Where the answers of the first target and of the others are not the same; `asked` for each target."""
    for each in zip(*(requests[:CHECKED] for requests in asked), strict=True):
        answers = [comparable(operation, target.ask(one)) for target, one in zip(targets, each, strict=True)]
        for target, answer in zip(targets[1:], answers[1:], strict=True):
            if answer != answers[0]:
                yield f"{operation}: {target.name} and {targets[0].name} differ at {each[0]['path']}"


def comparable(operation: str, answer: tuple[int, Any, dict[str, str]]) -> Any:
    """Status, JSON and whether a page follows. Times are compared as times; of a write what is always new is
    compared by its type."""
    status, body, headers = answer
    has_next = any(name.lower() == "link" for name in headers)
    if operation in WRITES and isinstance(body, dict):
        body = {name: type(value).__name__ if name in OWN else value for name, value in body.items()}
    return status, normal(body), has_next


def normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: normal(item) for name, item in value.items()}
    if isinstance(value, list):
        return [normal(item) for item in value]
    if isinstance(value, str) and TIME.fullmatch(value):
        return datetime.fromisoformat(value)
    return value


def effects(target: Target, requests: list[dict[str, Any]]) -> Iterable[str]:
    """What an append must have done: the next position, and counters that count it."""
    for asked in requests[:5]:
        session = asked | {"method": "GET", "path": asked["path"].replace("messages/", ""), "body": None}
        _, before, _ = target.ask(session)
        _, message, _ = target.ask(asked)
        _, after, _ = target.ask(session)
        grown = {name: after[name] - before[name] for name in ("message_count", "tokens", "version")}
        if grown != {"message_count": 1, "tokens": asked["body"]["tokens"], "version": 1}:
            yield f"append: {target.name} counts {grown}"
        if message["version"] != after["version"] or message["position"] < after["message_count"]:
            yield f"append: {target.name} gives position {message['position']}, version {message['version']}"


# Cost


def write_requests(path: Path, requests: list[dict[str, Any]]) -> Path:
    """The file that requests.lua reads."""
    lines = (
        "\t".join([
            asked["method"], asked["path"], asked["token"], asked.get("tag", ""),
            json.dumps(asked["body"]) if asked["body"] else "",
        ])
        for asked in requests
    )  # fmt: skip
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def measure(target: Target, requests: Path, connections: int, seconds: float, postmaster: int | None) -> Run:
    """One run of wrk, and what the processes of the server and PostgreSQL took meanwhile."""
    before = costs(target, postmaster)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s"]
    done = subprocess.run(
        [*command, "-s", str(SCRIPT), target.url, "--", str(requests)], capture_output=True, text=True, check=False
    )
    after = costs(target, postmaster)
    said = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not said:
        raise SystemExit(f"wrk failed: {done.stderr or done.stdout}")
    found = json.loads(said[-1])
    count = max(1, found["requests"])
    return Run(
        found["requests"],
        found["requests"] / found["seconds"],
        found["p50"],
        found["p99"],
        (after[0] - before[0]) / count * 1000,
        (after[1] - before[1]) / count * 1000 if postmaster else None,
        found["bad"] + found["lost"],
    )


def costs(target: Target, postmaster: int | None) -> tuple[float, float]:
    return cpu_of_tree(target.pid), cpu_of_postgres(postmaster) if postmaster else 0.0
