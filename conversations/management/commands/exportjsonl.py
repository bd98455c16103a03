from __future__ import annotations

import gzip
import os
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError

from conversations.bulk import pieces
from conversations.management.bar import bar
from conversations.transfer import writing

LINES = 200


class Command(BaseCommand):
    help = "Write the whole store as JSON lines, which importjsonl reads. No password, token or power is in them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="- for standard output; compressed where it ends in .gz.")

    def handle(self, *args: Any, **options: Any) -> None:
        """The file is of one moment, and stands there when it is whole. The service goes on meanwhile."""
        try:
            with (
                writing.snapshot(),
                bar("Lines", None, options["verbosity"]) as advance,
                opened(options["file"]) as out,
            ):
                lines = 0
                for piece in pieces(writing.exported(advance.expect), LINES):
                    out.write(b"".join(piece))
                    advance(len(piece))
                    lines += len(piece)
        except OSError as error:
            raise CommandError(f"The file cannot be written: {error.strerror}.") from None
        self.stderr.write(f"Wrote {lines:,} lines.")


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """What to write to. A file is put in its place at the end; it is for its owner's eyes only."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    place = Path(name)
    with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name}.", delete=False) as file:
        try:
            if place.suffix == ".gz":
                with gzip.GzipFile("", "wb", 6, cast(Any, file), mtime=0) as packed:
                    yield cast(IO[bytes], packed)
            else:
                yield cast(IO[bytes], file)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(place)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
