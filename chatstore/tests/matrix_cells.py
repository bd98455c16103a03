"""Each cell of the matrix is one request; what is found is where its answer is not what the table says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any, NamedTuple

from django.db import transaction

from chatstore.tests.matrix_principals import PRINCIPALS, Principal, expected, readable
from chatstore.tests.matrix_table import MATRIX, METHODS, Route
from chatstore.tests.matrix_things import SECRET
from chatstore.tests.matrix_world import World, changed

READABLE = {name: readable(principal) for name, principal in PRINCIPALS.items()}


class Cell(NamedTuple):
    route: Route
    method: str
    kind: str
    who: str

    def __str__(self) -> str:
        return f"{self.who}: {self.method} {self.route.label} {self.kind}"

    @property
    def principal(self) -> Principal:
        return PRINCIPALS[self.who]

    @property
    def status(self) -> int:
        return expected(self.route, self.method, self.route.things[self.kind], self.principal)

    @property
    def is_quiet(self) -> bool:
        """Whether it leaves every row as it was."""
        return self.status >= 400 or self.method == "GET"


class Disagreement(NamedTuple):
    """`opens`: somebody gets what is not for them."""

    cell: str
    said: str
    opens: bool


def cells_of(route: Route, method: str, who: str) -> list[Cell]:
    """One for each thing. Who is refused is refused whatever is named: one thing of each state. A method that the
    route lacks is 405 as well for what is not there."""
    refused, lacking = bool(PRINCIPALS[who].refused), method not in route.methods
    kinds = list(route.things)
    if refused:
        kinds = list({thing.state: kind for kind, thing in reversed(route.things.items())}.values())
    if lacking:
        kinds = [kind for kind in (next(iter(route.things)), "absent") if kind in kinds][: 1 if refused else 2]
    return [] if lacking and route.about else [Cell(route, method, kind, who) for kind in kinds]


def grouped() -> dict[str, list[Cell]]:
    """The cells of each route x method x principal. Pages that everybody sees, and what a route has no method for,
    have few: all methods are one group."""
    groups: dict[str, list[Cell]] = defaultdict(list)
    for route, method, who in product(MATRIX, METHODS, PRINCIPALS):
        together = route.public or method not in route.methods
        groups[f"{'other' if together else method}-{route.label}-{who}"] += cells_of(route, method, who)
    return {name: cells for name, cells in groups.items() if cells}


GROUPS = grouped()
CELLS = [cell for cells in GROUPS.values() for cell in cells]


def disagreements(world: World, cells: Iterable[Cell]) -> list[Disagreement]:
    """Ask for all cells: first what may change nothing, then the writes that are allowed, each undone."""
    ordered = sorted(cells, key=lambda cell: not cell.is_quiet)
    quiet = [cell for cell in ordered if cell.is_quiet]
    found = [disagreement for cell in quiet for disagreement in asked(world, cell)]
    found += [Disagreement(f"{quiet[0]} ...", f"changed {table}", True) for table in changed(world)]
    for cell in ordered[len(quiet) :]:
        with transaction.atomic():
            found += asked(world, cell)
            transaction.set_rollback(True)
    return found


def asked(world: World, cell: Cell) -> Iterator[Disagreement]:
    answer = answer_to(world, cell)
    if answer.status_code != cell.status:
        said = f"{answer.status_code} instead of {cell.status}"
        yield Disagreement(str(cell), said, answer.status_code < 300 <= cell.status)
    elif cell.status >= 400 and not cell.route.public and not is_problem(answer):
        yield Disagreement(str(cell), "is no problem document", False)
    if not cell.route.public and (told := leaked(answer, cell)):
        yield Disagreement(str(cell), f"tells {sorted(told)}", True)


def answer_to(world: World, cell: Cell) -> Any:
    ref = cell.route.things[cell.kind].ref.format(**world.names)
    path = cell.route.path.replace("{ref}", ref).format(**world.names)
    caller = world.callers[cell.who]
    answer = caller.send(cell.method, path, cell.route.body(cell.method, ref))
    caller.client.cookies.clear()
    if answer.streaming:
        answer.slot.give_back()  # And not close(), which Django takes for the end of the database's connection.
    return answer


def is_problem(answer: Any) -> bool:
    named = answer["Content-Type"] == "application/problem+json"
    return named and bool(answer.json()["status"] == answer.status_code)


def leaked(answer: Any, cell: Cell) -> set[str]:
    """The secrets that this answer may not tell; an error tells none."""
    told = set() if answer.streaming else set(SECRET.findall(answer.content.decode()))
    return told - READABLE[cell.who] if answer.status_code < 400 else told
