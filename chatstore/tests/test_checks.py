"""Misconfiguration stops the start, as people see it: a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chatstore.environment import BASE_DIR, DEVELOPMENT_SECRET_KEY

pytestmark = pytest.mark.once

OPERATIONS = (BASE_DIR / "docs/operations.md").read_text()
SECRET_KEY = "x0-Q7wq3nJ5r8Tz1vB6mK9pL2sD4fG7hYcXeWuIoPaZ-uN3tR5yE8qA1"


def production() -> dict[str, str]:
    """The block of docs/operations.md, with a secret in the place of how to make one."""
    (block,) = re.findall(r"```\n(ENV=production\n.*?)```", OPERATIONS, re.DOTALL)
    settings = dict(line.split("=", 1) for line in block.splitlines())
    assert settings["SECRET_KEY"].startswith("<")
    return settings | {"SECRET_KEY": SECRET_KEY}


PRODUCTION = production()


def start(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python with the settings of `environment`, as a supervisor would start it."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "ENV_FILE") if name in os.environ}
    return subprocess.run(
        [sys.executable, *code.split()],
        cwd=BASE_DIR,
        env={**kept, "DJANGO_SETTINGS_MODULE": "chatstore.settings", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_production_settings_of_the_docs_pass_every_check() -> None:
    done = start("manage.py check --deploy --fail-level INFO", **PRODUCTION)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"SECRET_KEY": ""}, "chatstore.E001"),
        ({"SECRET_KEY": "x"}, "chatstore.E001"),
        ({"DEBUG": "true"}, "chatstore.E002"),
        ({"CORS_ORIGINS": "*", "CORS_ALLOW_CREDENTIALS": "true"}, "chatstore.E003"),
        ({"ALLOWED_HOSTS": "*"}, "chatstore.E004"),
        ({"DB_POOL_MIN": "20"}, "chatstore.E005"),
        ({"SERVICE_AUTH_TOKEN": "correct-horse"}, "chatstore.E007"),
        ({"SERVICE_AUTH_TOKEN": "abcabcabc" * 8}, "chatstore.E007"),
        ({"BETTER_AUTH": "true", "BETTER_AUTH_REQUIRE_SIGNATURE": "true"}, "chatstore.E008"),
        ({"BETTER_AUTH": "true", "BETTER_AUTH_ISSUER": "local"}, "chatstore.E009"),
        ({"ASSISTANT": "conversations.chat.assistants.Nobody"}, "chatstore.E010"),
    ],
)
def test_an_unsafe_start_is_refused(changes: dict[str, str], problem: str) -> None:
    done = start("-m chatstore.wsgi", **{**PRODUCTION, **changes})
    assert done.returncode != 0
    assert problem in done.stderr


def test_the_check_refuses_all_at_once() -> None:
    done = start("manage.py check", **{**PRODUCTION, "DEBUG": "true", "ALLOWED_HOSTS": "*", "DB_POOL_MIN": "20"})
    assert done.returncode != 0
    assert all(problem in done.stderr for problem in ("chatstore.E002", "chatstore.E004", "chatstore.E005"))


def test_the_safe_start_is_not_refused() -> None:
    assert start("-m chatstore.wsgi", **PRODUCTION).returncode == 0


OVER_HTTP = '[{"issuer": "http://auth.internal:3000", "audience": "chat"}]'


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"OIDC_ISSUERS": OVER_HTTP}, "chatstore.W002", id="keys-over-plain-http"),
        pytest.param({"BETTER_AUTH": "true"}, "chatstore.W001", id="no-tables-of-better-auth"),
    ],
)
@pytest.mark.parametrize("code", ["manage.py check", "-m chatstore.wsgi"], ids=["check", "serve"])
def test_what_is_merely_doubtful_is_said_and_not_refused(
    tmp_path: Path, code: str, changes: dict[str, str], problem: str
) -> None:
    done = start(code, **{**PRODUCTION, "DATABASE_URL": f"sqlite:///{tmp_path}/none.sqlite3", **changes})
    assert (done.returncode, problem in done.stderr) == (0, True)


ONE_ISSUER = '{"issuer": "https://s3cr3t.example", "audience": "chat"}'
STRONG = "r8Tz1vB6mK9pL2sD4fG7hYcXeWuIoPaZ"


@pytest.mark.parametrize(
    "settings", [{**PRODUCTION, "SERVICE_AUTH_TOKEN": STRONG}, {"SERVICE_AUTH_TOKEN": "weak"}]
)
def test_a_strong_service_token_is_taken_and_in_development_any(settings: dict[str, str]) -> None:
    assert start("manage.py check", **settings).returncode == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVICE_AUTH_TOKEN", "two s3cr3t words"),
        ("SERVICE_AUTH_TOKEN", "one,s3cr3t"),
        ("CACHE_URL", "memcached://u:s3cr3t@h"),
        ("CACHE_URL", "redis://u:s3cr3t@h:port/0"),
        ("BETTER_AUTH_ISSUER", "s3cr3t|x"),
        ("BETTER_AUTH_DATABASE_URL", "mysql://u:s3cr3t@h/auth"),
        ("BETTER_AUTH_SESSION_FIELDS", "userID=s3cr3t"),
        ("BETTER_AUTH_SESSION_FIELDS", "userId"),
        ("BETTER_AUTH_USER_FIELDS", '{"email": s3cr3t'),
        ("OIDC_ISSUERS", "s3cr3t"),
        ("OIDC_ISSUERS", f"[{ONE_ISSUER}, {ONE_ISSUER}]"),
    ],
)
def test_a_setting_of_logins_that_cannot_be_used_is_named_and_not_repeated(name: str, value: str) -> None:
    done = start("manage.py check", **{name: value})
    assert done.returncode != 0
    assert name in done.stderr
    assert "s3cr3t" not in done.stderr


def test_the_development_secret_is_refused_when_it_is_set_by_hand() -> None:
    done = start("manage.py check", **{**PRODUCTION, "SECRET_KEY": DEVELOPMENT_SECRET_KEY})
    assert "chatstore.E001" in done.stderr


def test_a_value_that_cannot_be_read_is_named_and_not_repeated() -> None:
    done = start("manage.py check", PORT="s3cr3t", DATABASE_URL="mysql://u:s3cr3t@h/chat")
    assert "PORT" in done.stderr
    assert "DATABASE_URL" in done.stderr
    assert "s3cr3t" not in done.stderr
