"""What the pages tell people to type, run as it stands."""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest

from accounts.models import ApiToken, User
from chatstore.environment import BASE_DIR
from chatstore.tests.serving import own_database_url

pytestmark = pytest.mark.once

WALK_THROUGHS = ["README.md", "docs/auth.md", "docs/api.md"]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (BASE_DIR / page).read_text(), re.DOTALL)


def steps(page: str) -> list[tuple[str, str]]:
    """Each command of the `console` blocks, with the output that the page shows for it."""
    found: list[tuple[str, str]] = []
    for line in "".join(blocks(page, "console")).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line.startswith("> "):
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", "")
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


def outputs(commands: list[str]) -> list[str]:
    script = "\n".join(f"{command}\necho ---8\\<---" for command in commands)
    here = {**os.environ, "DATABASE_URL": own_database_url()}
    done = subprocess.run(
        ["bash", "-c", script], cwd=BASE_DIR, env=here, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.split("---8<---\n")


def differs(wanted: str, printed: str) -> bool:
    """`...` in the page stands for anything."""
    same = doctest.OutputChecker().check_output
    return not same(f"{wanted.strip()}\n", f"{printed.strip()}\n", doctest.ELLIPSIS)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("page", WALK_THROUGHS)
@pytest.mark.django_db(transaction=True)
def test_a_walk_through_prints_what_the_page_shows(page: str, live_server: Any) -> None:
    _, token = ApiToken.objects.issue(User.objects.create_user("reader"))
    commands = [command for command, _ in steps(page)]
    for said, meant in {
        "http://127.0.0.1:8000": live_server.url,
        "TOKEN=cst_...": f"TOKEN={token}",
        ".venv/bin/python": sys.executable,
    }.items():
        commands = [command.replace(said, meant) for command in commands]
    got = outputs(commands)
    differing = [
        f"$ {command}\n{printed}instead of\n{wanted}"
        for (command, wanted), printed in zip(steps(page), got, strict=False)
        if differs(wanted, printed)
    ]
    assert commands
    assert len(got) == len(commands) + 1
    assert not differing, "\n".join(differing)


@pytest.mark.parametrize("block", [*blocks("docs/auth.md", "ini"), *blocks("docs/admin.md", "ini")])
def test_the_settings_of_the_pages_can_be_used(block: str) -> None:
    chosen = dict(line.split("=", 1) for line in block.splitlines())
    done = subprocess.run(
        [sys.executable, "manage.py", "check"], cwd=BASE_DIR, env={**os.environ, **chosen}, check=False
    )
    assert chosen
    assert done.returncode == 0


def test_the_readme_is_short() -> None:
    assert len((BASE_DIR / "README.md").read_text().splitlines()) < 120


def test_the_tests_that_the_promises_name_are_there() -> None:
    named = re.findall(r"`(\w+/tests/test_\w+\.py)::(test_\w+)`", (BASE_DIR / "docs/reliability.md").read_text())
    assert len(named) >= 15
    for file, test in named:
        assert f"\ndef {test}(" in (BASE_DIR / file).read_text(), test
