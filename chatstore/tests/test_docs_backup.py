"""The commands of docs/operations.md that back a store up and restore it, run as they stand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.db import connection

from chatstore.environment import BASE_DIR
from chatstore.testdatabase import find_binaries
from chatstore.tests.serving import own_database_url
from chatstore.tests.test_docs import blocks
from conversations.models import Session

PAGE = "docs/operations.md"
THEIRS = "postgresql://chatstore:password@db.example.com:5432/restored?sslmode=require"


def commands(language: str, first: str) -> list[str]:
    """Those of the block that begins with this word."""
    (block,) = [each for each in blocks(PAGE, language) if each.startswith(f"$ {first} ")]
    return [line.removeprefix("$ ") for line in block.splitlines()]


def run(lines: list[str], folder: Path, **environment: str) -> None:
    """As a person types them, in a folder of their own."""
    script = "\n".join(["set -e", *lines]).replace(".venv/bin/python", sys.executable)
    script = script.replace("manage.py", str(BASE_DIR / "manage.py"))
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def programs() -> Iterator[Path]:
    """The folder of pg_dump."""
    folder = Path(tempfile.mkdtemp(prefix="chatstore-test-", dir="/tmp"))
    found, _ = find_binaries(folder)
    if not (found / "pg_dump").exists():
        pytest.skip("this PostgreSQL comes without pg_dump")
    yield found
    shutil.rmtree(folder)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_dump_is_taken_and_restored(session: Session, programs: Path, tmp_path: Path) -> None:
    here = own_database_url()
    there = here.replace(f"/{connection.settings_dict['NAME']}?", "/restored?")
    lines = [line.replace(THEIRS, there) for line in commands("console", "pg_dump")]
    try:
        run(lines, tmp_path, DATABASE_URL=here, PATH=f"{programs}:{os.environ['PATH']}")
        with psycopg.connect(there) as restored:
            found = restored.execute("SELECT session_id FROM conversations_session").fetchall()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP DATABASE IF EXISTS restored")
    assert found == [(session.session_id,)]


@pytest.mark.once
@pytest.mark.django_db(transaction=True)
def test_a_file_is_copied(session: Session, tmp_path: Path) -> None:
    (tmp_path / "chatstore.sqlite3").symlink_to(connection.settings_dict["NAME"])
    run(commands("console", ".venv/bin/python"), tmp_path)
    assert session.session_id.hex.encode() in (tmp_path / "backup.sqlite3").read_bytes()
