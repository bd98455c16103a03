"""The README's walk-through, run as it stands."""

from __future__ import annotations

import doctest
import re
import shutil
import subprocess
from typing import Any

import pytest

from accounts.models import ApiToken, User
from chatstore.environment import BASE_DIR

README = (BASE_DIR / "README.md").read_text()


def steps() -> list[tuple[str, str]]:
    """Each command of the `console` blocks, with the output that the README shows for it."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            elif line.startswith("> "):
                found[-1] = (f"{found[-1][0]}\n{line[2:]}", "")
            else:
                found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.django_db(transaction=True)
def test_the_walk_through_prints_what_the_readme_shows(live_server: Any) -> None:
    _, token = ApiToken.objects.issue(User.objects.create_user("reader"))
    commands = [command for command, _ in steps()]
    commands[0] = f"API={live_server.url}/api TOKEN={token}"
    script = "\n".join(f"{command}\necho ---8\\<---" for command in commands)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    outputs = done.stdout.split("---8<---\n")
    differing = [
        f"$ {command}\n{got}instead of\n{wanted}"
        for (command, wanted), got in zip(steps(), outputs, strict=False)
        if not doctest.OutputChecker().check_output(f"{wanted.strip()}\n", f"{got.strip()}\n", doctest.ELLIPSIS)
    ]
    assert len(outputs) == len(commands) + 1
    assert not differing, "\n".join(differing)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 120
