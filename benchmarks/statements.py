"""The SQL of an operation as `benchmarks.data` has seen it, sent by others: pgbench, and psycopg."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from benchmarks.processes import cpu_of_postgres

PLACE = re.compile(r":p(\d+)\b")
SCRIPTS = 60  # pgbench takes 128 at most.
CLIENTS = 8

Statements = list[dict[str, Any]]


# pgbench: what PostgreSQL can do with these statements where nothing is in front of it


def pgbench(binaries: Path) -> str | None:
    beside = binaries / "pgbench"
    return str(beside) if beside.exists() else shutil.which("pgbench")


def script(statements: Statements, given: dict[str, Any]) -> str:
    """One request's statements for pgbench. What a statement finds for another is kept with `\\gset`."""
    asked = {parameter["name"] for seen in statements for parameter in seen["parameters"] if "name" in parameter}
    lines, is_writing = [], False
    for number, seen in enumerate(statements):
        if not is_writing and seen["sql"].startswith(("UPDATE", "INSERT", "WITH")):
            lines.append("BEGIN;")
            is_writing = True
        values = [literal(number_of, given) for number_of in seen["parameters"]]
        sql = PLACE.sub(lambda found, values=values: values[int(found[1])], seen["sql"])  # type: ignore[misc]
        is_asked = any(name.startswith(f"{number}.") for name in asked if name not in given)
        lines.append(f"{sql} \\gset s{number}_" if is_asked else f"{sql};")
    return "\n".join([*lines, "COMMIT;"] if is_writing else lines) + "\n"


def literal(parameter: dict[str, Any], given: dict[str, Any]) -> str:
    name = parameter.get("name")
    if name == "now":
        return "now()"
    if name == "new_uuid":
        return "gen_random_uuid()"
    if name is not None and name not in given:
        number, _, column = name.partition(".")
        return f":s{number}_{column}"
    value = given[name] if name is not None else parameter["value"]
    if isinstance(value, dict):
        value = psycopg.types.json.json.dumps(value)  # type: ignore[attr-defined]
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "''").replace(":", "\\x3a").replace("\n", "\\n")
        return f"E'{escaped}'"
    return str(value).upper() if isinstance(value, bool) else str(value)


def limit(
    program: str, url: str, folder: Path, statements: Statements, requests: list[dict[str, Any]], seconds: int,
    postmaster: int | None,
) -> tuple[float, float | None]:  # fmt: skip
    """Requests a second, and PostgreSQL's milliseconds for each."""
    files = []
    for number, asked in enumerate(requests[:SCRIPTS]):
        file = folder / f"{number}.sql"
        file.write_text(script(statements, asked["given"]))
        files += ["-f", str(file)]
    before = cpu_of_postgres(postmaster) if postmaster else 0.0
    command = [program, "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "1", "-T", str(seconds), *files, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"pgbench failed: {done.stderr[-2000:]}")
    spent = cpu_of_postgres(postmaster) - before if postmaster else 0.0
    count = int(re.findall(r"actually processed: (\d+)", done.stdout)[0])
    rate = float(re.findall(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)[0])
    return rate, spent / count * 1000 if postmaster else None


# psycopg: how long they take one after the other


class Prepared:
    """A connection on which each statement is planned before it is timed."""

    def __init__(self, url: str) -> None:
        self.link = psycopg.connect(url, prepare_threshold=0, options="-c jit=off")

    def close(self) -> None:
        self.link.close()

    def timed(self, statements: Statements, given: dict[str, Any]) -> tuple[float, int]:
        """Milliseconds, and rows of the last statement. What is written is rolled back."""
        known = given | {"now": datetime.now(UTC), "new_uuid": uuid.uuid4()}
        total, rows = 0.0, []
        for number, seen in enumerate(statements):
            values = [value_of(parameter, known) for parameter in seen["parameters"]]
            sql = PLACE.sub("%s", seen["sql"].replace("%", "%%"))
            started = time.perf_counter()
            found = self.link.execute(sql, values, prepare=True)
            rows = found.fetchall() if found.description else []
            total += time.perf_counter() - started
            if rows:
                known |= {f"{number}.{name}": value for name, value in zip(seen["columns"], rows[0], strict=True)}
        self.link.rollback()
        return total * 1000, len(rows)


def value_of(parameter: dict[str, Any], known: dict[str, Any]) -> Any:
    if "name" in parameter:
        return known[parameter["name"]]
    return Jsonb(parameter["value"]) if parameter["type"] == "json" else parameter["value"]
