"""The API beside a FastAPI service on the same store: processor time for a request, requests a second, latency.

    make bench
    make bench BENCH="--messages 10000000"
    make bench BENCH="--database-url postgresql://... --operations list,get --rounds 3"
    make bench BENCH=--growth

Starts a PostgreSQL of its own and fills it, unless a store is named (it adds ten long sessions there, appends
and creates, and deletes its tokens at the end). Then the product as users run it and the peer (benchmarks/peer.py)
twice: with its ORM, and with the product's own SQL. Checks that all answer the same, and measures in rounds in
which they take turns. With --growth: how much longer the product's SQL takes with ten times the messages.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from benchmarks import report, statements
from benchmarks.operations import (
    Run,
    Target,
    differences,
    effects,
    measure,
    requests_of,
    write_requests,
)
from benchmarks.processes import children_of, free_port, keep_on_processors, postmaster_of, running
from chatstore.environment import BASE_DIR
from chatstore.testdatabase import OwnPostgres, find_binaries

PEER = BASE_DIR / ".development" / "peer" / "bin" / "uvicorn"
WORKERS = 2
FEW, MANY = 16, 128
LATENCY_ROUNDS = 3
GROWTH_SAMPLES = 200
# Of how many rows the last statement must be, so that both stores return the same.
GROWTH_ROWS = {"list": 51, "get": 1, "append": 1, "page": 101, "last page": 100, "trace": 4, "create": 1}


# What runs


def settings(url: str, **more: str) -> dict[str, str]:
    """The environment of a process of the product: nothing of a .env counts."""
    fixed = {"DATABASE_URL": url, "ENV_FILE": os.devnull, "DJANGO_SETTINGS_MODULE": "chatstore.settings"}
    return {**os.environ, **fixed, **more}


def prepare(url: str, folder: Path, name: str, options: argparse.Namespace, messages: int) -> dict[str, Any]:
    plan = folder / f"{name}.json"
    words = ["--there"] if name.startswith("there") else [
        "--users", str(options.users), "--sessions", str(options.sessions), "--messages", str(messages)
    ]  # fmt: skip
    environment = settings(url, DB_STATEMENT_TIMEOUT="0", LOG_LEVEL="WARNING")
    command = [sys.executable, "-m", "benchmarks.data", str(plan), "--long", str(options.long), *words]
    subprocess.run(command, cwd=BASE_DIR, env=environment, check=True)
    found: dict[str, Any] = json.loads(plan.read_text())
    return found


def forget(url: str, folder: Path, name: str) -> None:
    command = [sys.executable, "-m", "benchmarks.data", str(folder / f"{name}.json"), "--forget"]
    subprocess.run(command, cwd=BASE_DIR, env=settings(url), check=False)


@contextmanager
def product(url: str, folder: Path, options: argparse.Namespace) -> Iterator[Target]:
    port = free_port()
    environment = settings(
        url, ENV="production", SECRET_KEY=secrets.token_hex(32), PORT=str(port), WEB_WORKERS=str(WORKERS),
        WEB_CPU_AFFINITY=str(options.affinity),
    )  # fmt: skip
    command = [sys.executable, "-m", "gunicorn", "-c", "python:chatstore.gunicorn", "chatstore.wsgi"]
    with server("product", command, port, folder, environment) as found:
        yield found


@contextmanager
def peer(
    name: str, url: str, folder: Path, options: argparse.Namespace, sql: Path | None = None
) -> Iterator[Target]:
    port = free_port()
    pool, _, overflow = options.peer_pool.partition("+")
    environment = settings(
        url, PEER_POOL=pool, PEER_OVERFLOW=overflow or "0", PEER_SQL=str(sql or ""),
        PEER_PRE_PING=str(int(options.pre_ping)),
    )  # fmt: skip
    command = [str(PEER), "benchmarks.peer:app", "--port", str(port), "--workers", str(WORKERS)]
    with server(name, command, port, folder, environment) as found:
        if options.affinity:
            keep_on_processors(children_of(found.pid))
        yield found


@contextmanager
def server(
    name: str, command: list[str], port: int, folder: Path, environment: dict[str, str]
) -> Iterator[Target]:
    url = f"http://127.0.0.1:{port}"
    log = folder / f"{name.replace(' ', '-')}.log"
    with running(command, log, f"{url}/health", cwd=BASE_DIR, env=environment) as pid:
        yield Target(name, url, pid)


@contextmanager
def store(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Path]]:
    """The URL of the store, and where PostgreSQL's programs are."""
    if options.database_url:
        binaries, _ = find_binaries(folder)
        yield options.database_url, binaries
        return
    own = OwnPostgres(durable=True)
    try:
        yield own.start(), own.binaries
    finally:
        own.stop()


def postmaster_at(url: str) -> int | None:
    with psycopg.connect(url) as link:
        return postmaster_of(link.info.backend_pid) if is_here(link) else None


def is_here(link: psycopg.Connection[Any]) -> bool:
    host = link.info.host
    return not host or host.startswith("/") or host in ("localhost", "127.0.0.1", "::1")


# What is measured


def compare(options: argparse.Namespace, folder: Path) -> None:
    with store(options, folder) as (url, binaries), ExitStack() as stack:
        name = "there" if options.database_url else "own"
        plan = prepare(url, folder, name, options, options.messages)
        stack.callback(forget, url, folder, name)
        postmaster = postmaster_at(url)
        sql = folder / "sql.json"
        sql.write_text(json.dumps(plan["sql"]))
        targets = [
            stack.enter_context(product(url, folder, options)),
            stack.enter_context(peer("peer", url, folder, options)),
            stack.enter_context(peer("peer, our SQL", url, folder, options, sql)),
        ]
        asked = {
            operation: [requests_of(target, operation, requests) for target in targets[:2]]
            for operation, requests in plan["requests"].items()
        }
        for requests in asked.values():
            requests.append(requests[1])  # The peer's cursors are the same with our SQL.
        check(asked, targets)
        chosen = [name for name in plan["requests"] if not options.operations or name in options.operations]
        files = {
            (operation, target.name): write_requests(folder / f"{operation}-{number}.requests", requests)
            for operation in chosen
            for number, (target, requests) in enumerate(zip(targets, asked[operation], strict=True))
        }
        found = rounds(options.rounds, chosen, targets, files, FEW, options.seconds, postmaster)
        unchanged = conditional(options, targets[0], asked["page"][0], folder, postmaster)
        late = rounds(LATENCY_ROUNDS, chosen, targets, files, MANY, options.seconds, postmaster)
        limits = {}
        if program := statements.pgbench(binaries):
            for operation in chosen:
                of_operation = plan["sql"][operation], asked[operation][0]
                limits[operation] = statements.limit(
                    program, url, folder, *of_operation, options.seconds, postmaster
                )
        say(options, found, late, unchanged, limits)


def check(asked: dict[str, list[list[dict[str, Any]]]], targets: list[Target]) -> None:
    bad = [line for operation, requests in asked.items() for line in differences(operation, requests, targets)]
    bad += [line for target in targets for line in effects(target, asked["append"][0])]
    if bad:
        raise SystemExit("The answers differ:\n" + "\n".join(bad[:20]))


def rounds(
    count: int,
    operations: list[str],
    targets: list[Target],
    files: dict[tuple[str, str], Path],
    connections: int,
    seconds: int,
    postmaster: int | None,
) -> report.Runs:
    """Each operation for itself; the targets take turns, each round begins with another one."""
    found: report.Runs = {}
    for operation in operations:
        by_target: dict[str, list[Run]] = {target.name: [] for target in targets}
        for number in range(-1, count):
            turn = number % len(targets)
            for target in [*targets[turn:], *targets[:turn]]:
                long = 1 if number < 0 else seconds  # The first one warms up.
                run = measure(target, files[operation, target.name], connections, long, postmaster)
                if number >= 0:
                    by_target[target.name].append(run)
        found[operation] = by_target
        tell(operation, connections, by_target)
    return found


def tell(operation: str, connections: int, by_target: dict[str, list[Run]]) -> None:
    said = ", ".join(f"{name} {median(run.total for run in runs):.2f} ms" for name, runs in by_target.items())
    sys.stderr.write(f"{operation}, {connections} connections: {said}\n")


def conditional(
    options: argparse.Namespace,
    target: Target,
    requests: list[dict[str, Any]],
    folder: Path,
    postmaster: int | None,
) -> report.Runs:
    """The 304 of a page of messages beside its 200."""
    tagged = [asked | {"tag": target.ask(asked)[2]["ETag"]} for asked in requests]
    files = {
        ("page", "200"): write_requests(folder / "200.requests", requests),
        ("page", "304"): write_requests(folder / "304.requests", tagged),
    }
    both = [Target(name, target.url, target.pid) for name in ("200", "304")]
    return rounds(options.rounds, ["page"], both, files, FEW, options.seconds, postmaster)


def say(
    options: argparse.Namespace,
    found: report.Runs,
    late: report.Runs,
    unchanged: report.Runs,
    limits: dict[str, tuple[float, float | None]],
) -> None:
    ok, same = unchanged["page"]["200"], unchanged["page"]["304"]
    shares = [after.total / before.total for before, after in zip(ok, same, strict=True)]
    errors = sum(
        run.errors for runs in (found, late) for by in runs.values() for each in by.values() for run in each
    )
    text = (
        f"{report.machine()}, {datetime.now(UTC):%Y-%m-%d}; {options.rounds} rounds of {options.seconds} s,"
        f" {WORKERS} processes each{', each kept on a processor' if options.affinity else ''}, {FEW} connections;"
        f" medians; the peer's pool {options.peer_pool}{'' if options.pre_ping else ', without pre-ping'}.\n\n"
        f"{report.costs(found, limits)}\n"
        f"A 304 for a page of 100 messages takes {median(shares):.2f} ({min(shares):.2f}-{max(shares):.2f}) of its"
        f" 200: {report.middle(same, 'total'):.2f} ms and {report.middle(ok, 'total'):.2f} ms.\n\n"
        f"{MANY} connections:\n\n{report.latencies(late)}\nErrors in all: {errors}.\n"
    )
    results = {"few": report.plain(found), "many": report.plain(late), "unchanged": report.plain(unchanged)}
    keep(options, text, {**results, "pgbench": limits})


def keep(options: argparse.Namespace, text: str, results: Any) -> None:
    options.output.mkdir(parents=True, exist_ok=True)
    name = "growth" if options.growth else "api"
    (options.output / f"{name}.json").write_text(json.dumps(results, indent=1))
    (options.output / f"{name}.md").write_text(text)
    sys.stdout.write(text)
    sys.stderr.write(f"Kept in {options.output}.\n")


# Growth


def grow(options: argparse.Namespace, folder: Path) -> None:
    with ExitStack() as stack:
        urls = stack.enter_context(two_stores(options))
        plans = []
        for number, (url, is_there, messages) in enumerate(urls):
            name = f"{'there' if is_there else 'own'}{number}"
            plans.append(prepare(url, folder, name, options, messages))
            stack.callback(forget, url, folder, name)
        links = [statements.Prepared(url) for url, _, _ in urls]
        for link in links:
            stack.callback(link.close)
        times = {operation: growth_of(operation, plans, links) for operation in GROWTH_ROWS}
    said = " and ".join(f"{messages:,}" for _, _, messages in urls)
    text = (
        f"{report.machine()}, {datetime.now(UTC):%Y-%m-%d}; {said} messages; medians of {GROWTH_SAMPLES} requests'"
        f" statements, each the second time it is sent, the stores in turns.\n\n{report.growth(times)}"
    )
    keep(options, text, times)


@contextmanager
def two_stores(options: argparse.Namespace) -> Iterator[list[tuple[str, bool, int]]]:
    """The URL of each, whether it is there already, and its messages."""
    sizes = options.messages, options.messages * 10
    if options.database_url and options.larger_database_url:
        yield [(url, True, size) for url, size in zip(
            (options.database_url, options.larger_database_url), sizes, strict=True)]  # fmt: skip
        return
    own = OwnPostgres(durable=True)
    try:
        url = own.start()
        with psycopg.connect(url, autocommit=True) as link:
            link.execute("CREATE DATABASE larger")
        yield [(url, False, sizes[0]), (url.replace("/postgres?", "/larger?"), False, sizes[1])]
    finally:
        own.stop()


def growth_of(
    operation: str, plans: list[dict[str, Any]], links: list[statements.Prepared]
) -> tuple[int, float, float]:
    """Rows, and the median milliseconds in each store."""
    times: list[list[float]] = [[], []]
    samples = [iter(plan["requests"][operation] * GROWTH_SAMPLES) for plan in plans]
    for _ in range(GROWTH_SAMPLES):
        for place in (0, 1):
            seen = plans[place]["sql"][operation]
            for asked in samples[place]:
                _, rows = links[place].timed(seen, asked["given"])
                if rows == GROWTH_ROWS[operation]:
                    times[place].append(links[place].timed(seen, asked["given"])[0])
                    break
    return GROWTH_ROWS[operation], median(times[0]), median(times[1])


def options_of(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--database-url", help="Measure this store, and leave it running.")
    parser.add_argument("--larger-database-url", help="With --growth: the store with ten times the messages.")
    parser.add_argument("--growth", action="store_true", help="The product's SQL with ten times the messages.")
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--sessions", type=int, default=200_000)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--long", type=int, default=50_000, help="Messages in each of the ten long sessions.")
    parser.add_argument("--operations", type=lambda said: said.split(","), help="list,get,page ...: only these.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="Of one run in a round.")
    parser.add_argument(
        "--peer-pool", default="5+10", help="Connections of each process of the peer, and overflow."
    )
    parser.add_argument(
        "--affinity",
        action=argparse.BooleanOptionalAction,
        default=hasattr(os, "sched_setaffinity"),
        help="Keep each process of all servers on one processor: WEB_CPU_AFFINITY, as for a machine of its own.",
    )
    parser.add_argument(
        "--pre-ping", action=argparse.BooleanOptionalAction, default=True,
        help="Whether the peer asks each connection if it is alive; the product looks at it.",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=BASE_DIR / ".development" / "bench")
    return parser.parse_args(words)


def main() -> None:
    options = options_of()
    if not options.growth:
        if not shutil.which("wrk"):
            raise SystemExit("wrk is needed: apt-get install wrk, or brew install wrk.")
        if not PEER.exists():
            raise SystemExit("The peer is not installed: make bench installs it.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="chatstore-bench-") as folder:
        (grow if options.growth else compare)(options, Path(folder))


if __name__ == "__main__":
    main()
