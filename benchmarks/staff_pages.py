"""The second half of `benchmarks.staff`: measures the store that DATABASE_URL names."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from statistics import median, quantiles
from typing import Any

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import setup_test_environment  # noqa: E402

from accounts.models import User  # noqa: E402
from conversations.models import Message, Session  # noqa: E402
from conversations.seeding import people, volume  # noqa: E402
from conversations.seeding.loading import load  # noqa: E402
from conversations.seeding.plans import PlannedMessage, PlannedPerson, PlannedSession  # noqa: E402
from conversations.tests import plans, tour  # noqa: E402

PASTES, ROUNDS = 50, 15
LONG, SHORT = 50_000, 100
BEGINNING = datetime(2025, 6, 1, tzinfo=UTC)
ISSUER, READER = "benchmark", "reader"


def main() -> None:
    logging.disable(logging.CRITICAL)
    setup_test_environment()
    add_long_and_short()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    started = time.perf_counter()
    call_command("rollup", verbosity=0)
    print(f"({time.perf_counter() - started:.1f} s)")
    client = Client()
    client.force_login(
        User.objects.filter(is_superuser=True).first() or User.objects.create_superuser("benchmark")
    )
    rows = Message.objects.order_by("-pk").values_list("pk", flat=True)[0]
    print(f"{rows:,} messages, {Session.objects.order_by('-pk').values_list('pk', flat=True)[0]:,} sessions\n")
    paste(client, rows)
    transcripts(client)
    pages(client)


def add_long_and_short() -> None:
    """Two sessions that repeat the same hundred messages, so that their pages are of one weight."""
    people.ensure([PlannedPerson(ISSUER, READER, BEGINNING)])
    wanted = volume.Volume(1, 1, 1, SHORT)
    said = list(next(volume.planned_sessions(wanted)).messages)
    for size in (LONG, SHORT):
        load([PlannedSession(ISSUER, READER, f"{size}", BEGINNING, size, repeated(said, size))], lambda _: None)


def repeated(said: list[PlannedMessage], size: int) -> Iterator[PlannedMessage]:
    """Each round with traces and spans of its own, as a log line names them."""
    for number in range(size):
        message = said[number % len(said)]
        trace = message.trace_id and f"{number // len(said):08x}{message.trace_id[8:]}"
        span = message.span_id and f"{number:08x}{message.span_id[8:]}"
        yield message._replace(at=BEGINNING + timedelta(seconds=number), trace_id=trace, span_id=span)


def timed(work: Callable[[], Any]) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def paste(client: Client, rows: int) -> None:
    """A line of a log with the trace of a message that nobody asked for yet, and the page that it leads to."""
    dice = random.Random(1)
    calls = Message.objects.filter(span_id__isnull=False).order_by("pk")
    lines = []
    for _ in range(PASTES + 5):
        call = calls.filter(pk__gte=dice.randrange(1, rows - 1000))[0]
        lines.append(
            (call.pk, f'ERROR agent failed {{"trace_id": "{call.trace_id}", "span_id": "{call.span_id}"}}')
        )
    finds, opens = [], []
    for pk, line in lines:
        found: list[Any] = []
        finds.append(timed(lambda line=line, found=found: found.append(client.get(tour.FIND, {"q": line}))))
        assert found[0].status_code in (302, 303)
        assert f"message={pk}" in found[0].url
        opens.append(timed(lambda found=found: client.get(found[0].url)))
    # The first ones load templates.
    finds, opens = finds[5:], opens[5:]
    both = [one + other for one, other in zip(finds, opens, strict=True)]
    print(f"paste to page, {PASTES} traces: {spread(both)}")
    print(f"    to be led there {spread(finds)}, the page {spread(opens)}")


def transcripts(client: Client) -> None:
    long, short = (Session.objects.get(idempotency_key=f"{size}") for size in (LONG, SHORT))
    opened = {
        f"of {SHORT}, the first window": f"{tour.SESSIONS}{short.pk}/transcript/?from=1",
        f"of {LONG:,}, the first window": f"{tour.SESSIONS}{long.pk}/transcript/?from=1",
        f"of {LONG:,}, a jump to {LONG // 2:,}": f"{tour.SESSIONS}{long.pk}/transcript/?from={LONG // 2 + 1}",
    }
    times = rounds(client, opened)
    first = median(times[f"of {SHORT}, the first window"])
    print()
    for name, taken in times.items():
        print(f"transcript {name}: {spread(taken)}, {median(taken) / first:.2f} times")


def pages(client: Client) -> None:
    opened = tour.pages()
    asked = {name: plans.asked(client, path) for name, path in opened.items()}
    times = rounds(client, opened)
    print(f"\n{'page':38} {'median ms':>9} {'queries':>7} {'rows read':>9}  scans")
    for name, page in asked.items():
        read = [plans.plan_of(sql) for sql in page.big]
        rows = max(map(plans.most_read, read), default=0)
        scans = sorted(set().union(*map(plans.scanned, read)))
        print(f"{name:38} {median(times[name]):9.1f} {page.queries:7} {rows:9,.0f}  {', '.join(scans) or '-'}")


def rounds(client: Client, paths: dict[str, str]) -> dict[str, list[float]]:
    """The times of each path, one round after the other."""
    times: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(ROUNDS + 1):
        for name, path in paths.items():
            taken = timed(lambda path=path: read(client, path))
            if number:
                times[name].append(taken)
    return times


def read(client: Client, path: str) -> None:
    answer = client.get(path)
    if answer.streaming:
        b"".join(answer)


def spread(times: list[float]) -> str:
    low, *_, high = quantiles(times, n=20)
    return f"{median(times):.1f} ms ({low:.1f} to {high:.1f})"


main()
