"""squawk reads the SQL of every migration: `python -m torture.migration_lint`, a part of `make check`.

What it refuses locks a table while it reads or writes it, or breaks the release that is still running.
.squawk.toml says which rules are left out, and why.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import django
from django.db import connection
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

from chatstore.environment import BASE_DIR
from chatstore.testdatabase import OwnPostgres

APPS = ("accounts", "conversations")


def main() -> int:
    server = OwnPostgres()
    try:
        os.environ |= {"DATABASE_URL": server.start(), "ENV_FILE": os.devnull}
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chatstore.settings")
        django.setup()
        problems = lint(all_sql())
    finally:
        server.stop()
    print(problems or "squawk: no migration keeps anybody waiting.")
    return 1 if problems else 0


def all_sql() -> dict[str, str]:
    """The SQL of each migration of ours by its name. PostgreSQL is needed, but nothing is executed."""
    loader = MigrationLoader(None)
    ours = [key for key in sorted(loader.disk_migrations) if key[0] in APPS]
    return {
        ".".join(key): sql_of(loader.disk_migrations[key], loader.project_state(key, at_end=False)) for key in ours
    }


def sql_of(migration: Migration, before: ProjectState) -> str:
    """As `sqlmigrate` prints it."""
    with connection.schema_editor(collect_sql=True, atomic=migration.atomic) as editor:
        migration.apply(before.clone(), editor, collect_sql=True)
    lines = editor.collected_sql
    return "\n".join(["BEGIN;", *lines, "COMMIT;"] if migration.atomic else lines)


def lint(sql_by_name: dict[str, str]) -> str:
    """What squawk says; nothing where all is well."""
    with tempfile.TemporaryDirectory() as folder:
        for name, sql in sql_by_name.items():
            (Path(folder) / f"{name}.sql").write_text(sql)
        config = BASE_DIR / ".squawk.toml"
        squawk = Path(sysconfig.get_path("scripts")) / "squawk"
        done = subprocess.run(
            [squawk, "--config", config, "--reporter", "gcc", *sorted(Path(folder).glob("*.sql"))],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    return f"{done.stdout}{done.stderr}".replace(f"{folder}/", "").strip() if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())
