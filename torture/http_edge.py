"""Raw sockets against gunicorn: requests as no client library sends them, and clients that are slow on purpose.

Nothing of a malformed or unfinished write is stored, nothing is answered 5xx, and who is quick is served as
before.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from torture.postgres import KillablePostgres
from torture.product import MARK, Product, migrate, serving
from torture.raw_requests import (
    BODY,
    CHUNKED,
    CHUNKS,
    SIZE,
    exchange,
    head,
    malformed,
    truncated,
    whole,
)
from torture.report import Result, check_store
from torture.slow_clients import crowding, times, ways

PATH = "/api/sessions/?limit=5"
# What is said only then may hold no words and no token, either.
TALKATIVE = {"LOG_LEVEL": "DEBUG", "GUNICORN_CMD_ARGS": "--log-level debug"}
# What a busy machine may add to every answer, in seconds.
NOISE = 0.02
# For all slow sockets to be there, and for what so many requests at once cost.
CROWD_SECONDS, FLOOD_SECONDS = 60, 5


def http_edge(seed: int, *, sockets: int = 500, seconds: float = 60, ratio: float = 2) -> Result:
    """More sockets that are slow, in every way there is, than there are threads; others may take `ratio` times as
    long as before."""
    server, began = KillablePostgres(), time.monotonic()
    try:
        url = server.start()
        tokens = migrate(url, users=1)
        with (
            tempfile.TemporaryDirectory() as folder,
            serving(url, Path(folder) / "log", tokens, **TALKATIVE) as product,
        ):
            said = [*odd_requests(product, seed), *odd_answers(product)]
            found, notes = slow_clients(product, sockets, seconds, ratio)
            said += [*found, *check_store(url), *(f"{what} in the log" for what in product.log_problems())]
            took = time.monotonic() - began
            return Result("HTTP edge", seed, took, other=len(said), said=said, notes=notes, counted=("other",))
    finally:
        server.stop()


def titles(product: Product) -> list[str]:
    """Of what is stored; away with it."""
    client = product.client()
    stored = client.send("GET", "/api/sessions/?limit=200").body
    for session in stored:
        client.send("DELETE", f"/api/sessions/{session['id']}/")
    client.close()
    return sorted(session["title"] for session in stored)


def odd_requests(product: Product, seed: int) -> list[str]:
    """What went wrong with requests that are malformed or do not end."""
    said, token = [], product.tokens[0]
    requests = [(name, sent, False) for name, sent in malformed(token).items()]
    requests += [(name, sent, True) for name, sent in truncated(token).items()]
    random.Random(seed).shuffle(requests)
    workers = {worker.pid for worker in product.workers}
    for name, sent, ends in requests:
        found, is_ended = exchange(product.port, sent, ends=ends)
        # RFC 9112, 6.1: a transfer coding that is not known is 501.
        is_refused = all(400 <= status < 500 or status == 501 for status in found)
        if not is_refused or not is_ended or len(found) > 1:
            said.append(f"{name}: {found}, {'ended' if is_ended else 'left open'}")
    if {worker.pid for worker in product.workers} != workers:
        said.append("a worker ended of what is malformed or cut off")
    if stored := titles(product):
        said.append(f"stored of what is malformed or cut off: {stored}")
    return said


def odd_answers(product: Product) -> list[str]:
    """What went wrong with requests that are unusual, and right."""
    token, port = product.tokens[0], product.port
    last, length = "Connection: close", f"Content-Length: {SIZE}"
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    trailed = CHUNKS[:-2] + b"X-One: 1\r\n\r\n"
    extended = CHUNKS.replace(b"\r\n", b';a="b;c" ; d\r\n', 1)
    absolute = "POST http://localhost/api/sessions/ HTTP/1.1"
    three = [whole(token, f"number {number}") for number in range(3)]
    cases = {
        "chunks": head(token, last, CHUNKED) + CHUNKS,
        "chunks of one byte": head(token, last, CHUNKED) + pieces,
        "chunks with a trailer": head(token, last, CHUNKED) + trailed,
        "chunks with an extension": head(token, last, CHUNKED) + extended,
        "a coding in capitals": head(token, last, "transfer-ENCODING:   Chunked ") + CHUNKS,
        "expectation": head(token, last, length, "Expect: 100-continue") + BODY,
        "HTTP/1.0": head(token, length, line="POST /api/sessions/ HTTP/1.0", host="") + BODY,
        "an absolute address": head(token, last, length, line=absolute) + BODY,
        "an empty line before": b"\r\n" + head(token, last, length) + BODY,
        "a length after spaces": head(token, last, f"Content-Length:  {SIZE}\t") + BODY,
    }
    said = []
    for name, sent in cases.items():
        found = exchange(port, sent)
        if found != ([201], True):
            said.append(f"{name}: {found}")
    if len(stored := titles(product)) != len(cases):
        said.append(f"{len(stored)} of {len(cases)} unusual requests are stored")
    # In one packet, and the last one ends the connection: each once, in order.
    found = exchange(port, b"".join(three) + whole(token, "number 3", last) + whole(token, "number 4"))
    if found != ([201] * 4, True) or (stored := titles(product)) != [f"number {n}" for n in range(4)]:
        said.append(f"pipelined: {found}, {stored}")
    # A malformed one among them ends it: what stands before is done, what stands after is not.
    found = exchange(port, three[0] + head(token, length, length) + BODY + three[1])
    if found != ([201, 400], True) or (stored := titles(product)) != ["number 0"]:
        said.append(f"pipelined with a malformed one: {found}, {stored}")
    # Not read by the server, which has said no: no part of it is a request.
    found = exchange(port, whole("nobody", "x") + whole(token, "after", last))
    if found != ([401, 201], True) or (stored := titles(product)) != ["after"]:
        said.append(f"after a refused body: {found}, {stored}")
    return said


def slow_clients(
    product: Product, sockets: int, seconds: float, ratio: float, noise: float = NOISE
) -> tuple[list[str], list[str]]:
    """What went wrong while slow clients were there, and what others saw."""
    said, notes, token = list[str](), list[str](), product.tokens[0]
    big = big_answer(product)
    times(product, PATH, 1)
    before = times(product, PATH, max(1, seconds / 10))
    longest = before.p95 * ratio + noise
    everyone = ways(token, big)
    # Each way alone, and then all together.
    crowds = [(name, [way]) for name, way in everyone.items()] + [("all at once", list(everyone.values()))]
    for name, slow in crowds:
        with crowding(product, slow, sockets) as crowd:
            until = time.monotonic() + CROWD_SECONDS
            while crowd.opened < sockets:
                if time.monotonic() > until:
                    raise TimeoutError(f"{crowd.opened} of {sockets} sockets are open: is `ulimit -n` too low?")
                time.sleep(0.05)
            passed = time.monotonic() + FLOOD_SECONDS
            time.sleep(seconds / len(crowds) / 2)
            during = times(product, PATH, seconds / len(crowds))
            while not during.failed and during.p95 > longest and time.monotonic() < passed:
                during = times(product, PATH, seconds / len(crowds))
        notes.append(f"{name}: p95 {during.p95 * 1000:.1f} ms, {crowd.opened} connections")
        if during.failed or during.p95 > longest:
            took = f"p95 {before.p95 * 1000:.1f} ms before, {during.p95 * 1000:.1f} ms during"
            said.append(f"{name}: {during.failed} of {len(during.seconds)} requests failed, {took}")
    if stored := [title for title in titles(product) if title != "big"]:
        said.append(f"stored of what was never finished: {stored}")
    return said, [f"before: p95 {before.p95 * 1000:.1f} ms", *notes]


def big_answer(product: Product) -> str:
    """The path of a page of two megabytes."""
    client = product.client()
    session = client.send("POST", "/api/sessions/", {"title": "big"}).body["id"]
    for _ in range(2):
        message = {"role": "user", "content": f"{MARK} {'a' * 1_000_000}"}
        client.send("POST", f"/api/sessions/{session}/messages/", message)
    client.close()
    return f"/api/sessions/{session}/messages/"
