"""Random requests drawn from the OpenAPI document: no 5xx, no answer that it does not tell, none of another shape.

`make torture TORTURE=fuzz` runs this with more requests and another seed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from chatstore.tests.fuzzed import CALLERS, Run, World, furnished, fuzzed, table
from chatstore.tests.serving import fetch, own_database_url, serving

pytestmark = [pytest.mark.waits, pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

CASES = int(os.environ.get("FUZZ_CASES", "1000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
EXAMPLES = 3
EVENTS = "GET /api/sessions/{ref}/events/"
# The edges of each value are most of the requests: in `make test` the owner's will do.
EDGES_BY = CALLERS if "FUZZ_CASES" in os.environ else CALLERS[:1]


class Served(NamedTuple):
    world: World
    port: int
    document: Any

    def fuzzed(self, examples: int, seed: int = SEED) -> Run:
        return fuzzed(self.world, self.port, self.document, examples, seed, EDGES_BY)


@pytest.fixture
def served(transactional_db: None) -> Iterator[Served]:
    world = furnished()
    with serving(own_database_url(), LOG_LEVEL="WARNING", LOG_SQL="false") as port:
        yield Served(world, port, json.loads(fetch(port, "GET", "/openapi.json")[1]))


def only(document: Any, path: str, method: str) -> Any:
    """The document with one operation alone."""
    return {**document, "paths": {path: {method: document["paths"][path][method]}}}


def test_every_answer_is_as_the_document_tells(served: Served) -> None:
    run, seed = served.fuzzed(EXAMPLES), SEED
    while run.cases.total() < CASES:
        seed += 1
        run.add(served.fuzzed(EXAMPLES * 20, seed))
    sys.stdout.write(f"seed {SEED}\n{table(run)}\n")
    assert "\n\n".join(map(str, run.failures[:5])) == ""
    asked = {route for _, route in run.cases}
    assert asked == {f"{m.upper()} {path}" for path, of in served.document["paths"].items() for m in of}
    streams = sum(count for (_, route), count in run.cases.items() if route == EVENTS)
    assert run.unheard.total() == run.unheard[EVENTS] <= streams / 4
    # The premise: things are found, made, changed and deleted, and not only looked for.
    assert min(run.statuses[status] for status in (200, 201, 204, 401, 403, 404, 422)) >= 10


def test_a_wrong_document_would_be_noticed(served: Served) -> None:
    session = only(served.document, "/api/sessions/{ref}/", "get")
    del session["paths"]["/api/sessions/{ref}/"]["get"]["responses"]["404"]
    me = only(served.document, "/api/me/", "get")
    me["components"]["schemas"]["Me"]["required"].append("nickname")
    found = {each.check for each in served._replace(document=session).fuzzed(1).failures}
    assert "status_code_conformance" in found
    assert {each.check for each in served._replace(document=me).fuzzed(1).failures} == {
        "response_schema_conformance"
    }
