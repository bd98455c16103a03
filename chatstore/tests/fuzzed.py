"""Schemathesis against this API: requests drawn from the OpenAPI document, every answer held to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from random import Random
from typing import Any, NamedTuple

import schemathesis
from django.db.models import F
from schemathesis import Case, HookContext, Response
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.engine import Status, events, from_schema
from schemathesis.generation.meta import TestPhase
from schemathesis.openapi.checks import RejectedPositiveData

from accounts.models import ApiToken, Membership, Workspace
from conftest import Caller, caller, member, new_message, new_session
from conversations import services
from conversations.models import Message

SILENCE_SECONDS = 0.2
CALLERS = ("owner", "admin", "stranger")
# What no schema says: a 422 that tells one of these is right, however well-formed the request was.
BEYOND_A_SCHEMA = {
    "Is not a cursor of this list with these filters.": "a cursor is made by the server",
    "Goes with a first page, not with a cursor.": "one parameter excludes another",
    "A workspace's public id must go with owner.": "one parameter needs another",
    "One of session_id, trace_id and span_id is required.": "one parameter of three",
    "Needs a session_id.": "one parameter needs another",
    "Must be an integer id or a UUID.": "an id of 19 digits may be beyond 2^63",
    "Must not be after to.": "one day is compared with another",
    "Must be within 366 days of to.": "one day is compared with another",
    "Must be in the future.": "a time is compared with the clock",
    "At most 10 words.": "words are counted",
    "Is taken.": "a name is unique",
    "Cannot change.": "a value is compared with the one stored",
    "Cannot change after creation.": "a value is compared with the one stored",
    "You are not a member of such a workspace.": "a workspace is looked up",
    "This key was used before, for another request.": "a key is looked up",
    "Must be an integer.": "JSON Schema takes 1.0 for one, this API does not",
    "Numbers must be finite and below 2^63 in size.": "a bound at any depth of metadata",
    "A key is longer than 255 characters.": "a bound at any depth of metadata",
    "Nested deeper than 32 levels.": "a bound on the depth of metadata",
}


class World(NamedTuple):
    """`callers` by what they are to the things that `known` names, by the word for the thing."""

    callers: dict[str, Caller]
    known: dict[str, list[str]]


class Failed(NamedTuple):
    """A check that failed, and what was sent and answered."""

    who: str
    route: str
    check: str
    said: str


class Run(NamedTuple):
    """How many requests were sent, by caller and route, and what failed. `unheard`: of streams, those that did not
    begin in the time that silence may take; a busy machine is no failure."""

    cases: Counter[tuple[str, str]]
    statuses: Counter[int]
    failures: list[Failed]
    unheard: Counter[str]

    def add(self, more: Run) -> None:
        self.cases.update(more.cases)
        self.statuses.update(more.statuses)
        self.failures.extend(more.failures)
        self.unheard.update(more.unheard)


def furnished() -> World:
    """Alice owns sessions in a workspace that carol administers, and mallory has her own; enough of each, since
    they are deleted, too. The tokens that call have ids that nobody guesses, or they would revoke themselves."""
    alice, mallory = caller("alice"), caller("mallory")
    shared = Workspace.objects.create(name="Shared")
    Membership.objects.create(user=alice.user, workspace=shared)
    carol = member(shared, "carol", Membership.Role.ADMIN)
    ApiToken.objects.update(id=F("id") + 2**40)
    owners = ((alice, shared), (alice, None), (carol, shared), (mallory, None)) * 5
    sessions = [new_session(*each, pocket="pocket", group="group", agent="agent") for each in owners]
    for each in sessions:
        new_message(each, trace_id="run-1", span_id="step-1", tool_name="search")
    for each in sessions[:4]:
        services.trash_session(each)
    people = [alice.user, carol.user, mallory.user]
    tokens = [ApiToken.objects.issue(user)[0] for user in people * 5]
    known = {
        "session": [name for each in sessions for name in (str(each.pk), str(each.session_id))],
        "message": [str(pk) for pk in Message.objects.values_list("pk", flat=True)],
        "user": [str(user.pk) for user in people],
        "owner": ["all", *(str(user.public_id) for user in people)],
        "token": [str(token.pk) for token in tokens],
        "workspace": [str(shared.public_id), str(mallory.user.personal_workspace().public_id)],
        "trace": ["run-1"],
        "span": ["step-1"],
        "tool": ["search"],
    }
    return World(dict(zip(CALLERS, (alice, carol, mallory), strict=True)), known)


# The word in `World.known` for a parameter or field; `ref` is named by the folder before it.
WORDS = {
    "session_ref": "session",
    "session_id": "session",
    "conversation_id": "session",
    "conversations": "session",
    "sessions": "session",
    "messages": "message",
    "tokens": "token",
    "users": "user",
    "workspace": "workspace",
    "workspace_id": "workspace",
    "owner": "owner",
    "trace_id": "trace",
    "span_id": "span",
    "tool_name": "tool",
}


def folder_of(path: str) -> str:
    """The folder that `{ref}` names something in."""
    return path.partition("/{ref}")[0].rpartition("/")[2]


def config(port: int, token: str, examples: int, seed: int, *, edges: bool) -> SchemathesisConfig:
    return SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "base-url": f"http://127.0.0.1:{port}",
            "headers": {"Authorization": f"Bearer {token}"},
            "request-timeout": 10,
            "continue-on-failure": True,
            "phases": {"coverage": {"enabled": edges}},
            "generation": {
                "max-examples": examples,
                "no-shrink": True,
                "database": "none",
                # A NUL is 422 in every text, which JSON Schema says by a pattern on each alone: see hostile.py.
                "allow-x00": False,
            },
            # A stream is read up to its first events, or for as long as one of a quiet session may stay silent.
            "max-stream-events": 3,
            "operations": [{"include-operation-id": "sessions_events", "request-timeout": SILENCE_SECONDS}],
        }
    )


def fuzzed(
    world: World, port: int, document: Any, examples: int, seed: int, edges_by: Collection[str] = CALLERS
) -> Run:
    """Ask as each caller what the document tells: examples, the edges of each value (`edges_by` these callers),
    `examples` random requests to each operation, and walks from one operation to the next. All checks of
    Schemathesis are on."""
    run = Run(Counter(), Counter(), [], Counter())
    for who, person in world.callers.items():
        how = config(port, person.token, examples, seed, edges=who in edges_by)
        schema = schemathesis.openapi.from_dict(document, config=how)
        hooked(schema, world.known, Random(seed))
        for event in from_schema(schema).execute():
            if isinstance(event, events.FatalError):
                raise event.exception
            if isinstance(event, events.NonFatalError) and f"read timeout={SILENCE_SECONDS}" in str(event.value):
                run.unheard[event.label] += 1
            elif isinstance(event, events.NonFatalError):
                run.failures.append(Failed(who, event.label, "error", str(event.value)))
            elif isinstance(event, events.ScenarioFinished):
                note(run, who, event.recorder)
    return run


def hooked(schema: Any, known: Mapping[str, list[str]], random: Random) -> None:
    """Half of the requests name what is there; what no schema says is no failure."""

    @schema.hook
    def map_case(context: HookContext, case: Case) -> Case:
        meta = case.meta
        if meta is None or meta.phase.name == TestPhase.STATEFUL or random.random() < 0.5:
            return case
        case.query.pop("cursor", None)
        for where in (ParameterLocation.PATH, ParameterLocation.QUERY, ParameterLocation.BODY):
            values = case.get_container(where)
            if isinstance(values, dict) and not meta.is_negative_at(where):
                for name in values.keys() & {"ref", *WORDS} - {"messages", "tokens"}:
                    word = WORDS[folder_of(case.path) if name == "ref" else name]
                    values[name] = random.choice(known[word])
        return case

    @schema.hook
    def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
        if not isinstance(failure, RejectedPositiveData) or response.status_code != 422:
            return True
        return not {fault["msg"] for fault in response.json()["errors"]} <= BEYOND_A_SCHEMA.keys()


def note(run: Run, who: str, recorder: Any) -> None:
    for key, exchange in recorder.interactions.items():
        run.cases[who, recorder.cases[key].value.operation.label] += 1
        if exchange.response is not None:
            run.statuses[exchange.response.status_code] += 1
    for key, checks in recorder.checks.items():
        route, exchange = recorder.cases[key].value.operation.label, recorder.interactions.get(key)
        for check in checks:
            if check.status == Status.FAILURE:
                run.failures.append(Failed(who, route, check.name, told(check.failure_info.failure, exchange)))


def told(failure: Failure, exchange: Any) -> str:
    sent = f"{exchange.request.method} {exchange.request.uri} {exchange.request.body!r}" if exchange else ""
    answer = exchange.response.content if exchange and exchange.response is not None else b""
    return f"{failure.title}: {failure.message}\n{sent[:1000]}\n{answer[:1000]!r}"


UNDOCUMENTED = ("status_code_conformance", "content_type_conformance", "response_headers_conformance")


def table(run: Run) -> str:
    """What was found, by caller and route."""
    lines = [f"{'':10}{'':50}{'cases':>7}{'5xx':>7}{'undocumented':>14}{'schema':>8}{'other':>7}"]
    found = Counter((each.who, each.route, column_of(each.check)) for each in run.failures)
    for who, route in sorted(run.cases):
        counts = [found[who, route, column] for column in COLUMNS]
        lines.append("{:10}{:50}{:7}{:7}{:14}{:8}{:7}".format(who, route, run.cases[who, route], *counts))
    sums = [sum(n for key, n in found.items() if key[2] == column) for column in COLUMNS]
    lines.append("{:10}{:50}{:7}{:7}{:14}{:8}{:7}".format("all", "", run.cases.total(), *sums))
    return "\n".join(lines)


COLUMNS = ("server error", "undocumented", "schema", "other")


def column_of(check: str) -> str:
    if check in UNDOCUMENTED:
        return "undocumented"
    return {"not_a_server_error": "server error", "response_schema_conformance": "schema"}.get(check, "other")
