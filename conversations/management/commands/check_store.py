from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from itertools import chain
from time import perf_counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from chatstore.ids import row_id_of
from conversations.doctor import contents, people, rollups, schema, sessions
from conversations.doctor.findings import KINDS, Finding
from conversations.management.bar import Advance, bar
from conversations.models import Session


class Command(BaseCommand):
    help = (
        "Look for what should not be in the store: wrong counters, lost rows, a schema in pieces. --fix mends it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--fix", action="store_true", help="Mend what can be mended; the rest is explained.")
        parser.add_argument(
            "--only", action="append", choices=KINDS, metavar="KIND", help=f"One of {', '.join(KINDS)}."
        )
        parser.add_argument(
            "--from", dest="first", metavar="SESSION_ID", help="Begin with this session: an id or a UUID."
        )
        parser.add_argument("--json", action="store_true", help="A JSON object for each finding.")

    def handle(self, *args: Any, **options: Any) -> None:
        """A line for each finding on standard output, by ids. Ends with an error where one is left."""
        if unapplied := schema.unapplied():
            raise CommandError(f"{unapplied} migrations are not applied: run `manage.py migrate` first.")
        kinds = tuple(options["only"] or KINDS)
        walk = sessions.Walk(last=before(options["first"]))
        started = perf_counter()
        found = left = 0
        try:
            with bar("Sessions", total_of(walk), options["verbosity"]) as advance:
                for finding in findings(walk, kinds, fix=options["fix"], advance=advance):
                    found, left = found + 1, left + (not finding.is_mended)
                    self.stdout.write(json.dumps(finding.shape) if options["json"] else str(finding))
        except KeyboardInterrupt:
            raise CommandError(f"Stopped. This goes on: manage.py check_store{again(options, walk)}") from None
        seconds = perf_counter() - started
        self.stderr.write(
            f"Looked at {walk.sessions:,} sessions with {walk.messages:,} messages in {seconds:.1f} s:"
            f" {found:,} findings, {found - left:,} mended."
        )
        if left:
            raise CommandError(f"{left:,} findings are left.")


def findings(walk: sessions.Walk, kinds: tuple[str, ...], *, fix: bool, advance: Advance) -> Iterator[Finding]:
    contents.prepare()
    if "schema" in kinds:
        yield from schema.check_indexes(fix=fix)
    if "orphans" in kinds:
        yield from people.check(fix=fix)
    if set(kinds) - {"schema"}:
        yield from sessions.check(walk, kinds, fix=fix, advance=advance)
    if "usage" in kinds:
        yield from rollups.check(walk.first_day, fix=fix)
    if "schema" in kinds:
        yield from schema.check_constraints(fix=fix)


def before(ref: str | None) -> int:
    """The id before that of the session to begin with; one that is only an id need not be there any more."""
    if ref is None:
        return 0
    if found := Session.objects.named(ref).values_list("pk", flat=True).first():
        return found - 1
    if row_id := row_id_of(ref):
        return row_id - 1
    raise CommandError("There is no such session; the id of any will do.")


def total_of(walk: sessions.Walk) -> int:
    return Session.objects.filter(pk__gt=walk.last).count()


def again(options: dict[str, Any], walk: sessions.Walk) -> str:
    """The options that go on where the walk has come to."""
    words = [[f"--{name}"] for name in ("fix", "json") if options[name]]
    words += [["--only", kind] for kind in options["only"] or []]
    return "".join(f" {word}" for word in chain(*words, ["--from", str(walk.last + 1)]))
