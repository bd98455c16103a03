from __future__ import annotations

import gzip
import sys
import zlib
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, BinaryIO, cast

from django.core.management.base import BaseCommand, CommandError

from conversations import bulk
from conversations.management.bar import bar
from conversations.transfer import reading
from conversations.transfer.report import Report, Stopped


class Command(BaseCommand):
    help = "Bring in what exportjsonl has written. The same again adds nothing; stopped halfway, it goes on."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="- for standard input; compressed where it ends in .gz.")
        parser.add_argument("--strict", action="store_true", help="Stop at the first line that cannot go in.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Ends with an error where a line could not go in; each is told of on standard error."""
        report = Report(self.stderr.write, options["strict"])
        started = perf_counter()
        try:
            with bulk.many_objects(), opened(options["file"]) as stream:
                file = reading.File(stream, report)
                with bar("Lines", file.open(), options["verbosity"]) as advance:
                    reading.load(file, advance)
        except reading.NotAStore as error:
            raise CommandError(str(error)) from None
        except Stopped:
            raise CommandError("Stopped at this line, and what goes with it was left out.") from None
        except (EOFError, zlib.error):
            raise CommandError("The file is cut off: it cannot be unpacked to its end.") from None
        except OSError as error:
            raise CommandError(f"The file cannot be read: {error.strerror or 'it is not gzip'}.") from None
        self.stdout.write(said(report, perf_counter() - started))
        if report.refused:
            raise CommandError(f"{report.refused:,} lines could not go in.")


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
    else:
        with gzip.open(name) if name.endswith(".gz") else open(name, "rb") as stream:  # noqa: PTH123
            yield cast(BinaryIO, stream)


def said(report: Report, seconds: float) -> str:
    rate = f"{report.added['message'] / seconds:,.0f} messages/s"
    left = f" {report.left_out:,} lines were left out with their sessions." if report.left_out else ""
    return (
        f"Added {reading.summary(report.added)} in {seconds:.1f} s ({rate})."
        f" Here already: {reading.summary(report.there)}.{left}"
    )
