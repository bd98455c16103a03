from __future__ import annotations

import json
import re
import stat
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

from accounts.models import LOCAL_ISSUER, ApiToken, User
from conftest import Caller, caller
from conversations.models import Session

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    """The folder of the secrets, not this checkout's. Passwords are hashed fast."""
    settings.BASE_DIR = tmp_path
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return tmp_path / ".development"


def configure(settings: Settings, **values: Any) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update=values)


def welcomed() -> str:
    out = StringIO()
    call_command("welcome", stdout=out)
    return out.getvalue()


def kept(folder: Path) -> Any:
    return json.loads((folder / "credentials.json").read_text())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def listed_by(curl: str) -> Any:
    """What the API answers to the printed curl."""
    token, path = re.fullmatch(r'curl -H "Authorization: Bearer (\S+)" http://127.0.0.1:8000(\S+)', curl).groups()  # type: ignore[union-attr]
    return Client().get(path, headers={"Authorization": f"Bearer {token}"})


def staff_can_log_in(password: str) -> bool:
    return Client().login(username="admin", password=password)


def test_it_works(folder: Path) -> None:
    front, admin, docs, curl = welcomed().splitlines()
    assert front == "http://127.0.0.1:8000/"
    assert admin == f"http://127.0.0.1:8000/admin/  login: admin, password: {kept(folder)['password']}"
    assert docs == "http://127.0.0.1:8000/docs"
    assert [session["title"] for session in listed_by(curl).json()] == ["Orders of last week", "Welcome Chat"]
    assert staff_can_log_in(kept(folder)["password"])


def test_the_second_time_it_says_the_same_and_makes_nothing(folder: Path) -> None:
    first, secrets = welcomed(), kept(folder)
    users, tokens = User.objects.count(), ApiToken.objects.count()
    assert welcomed() == first
    assert kept(folder) == secrets
    assert (User.objects.count(), ApiToken.objects.count()) == (users, tokens) == (4, 1)


def test_the_staff_user_is_a_superuser() -> None:
    welcomed()
    admin = User.objects.get(username="admin")
    assert admin.is_staff
    assert admin.is_superuser
    assert admin.memberships.count() == 1


def test_only_its_owner_can_read_the_secrets(folder: Path) -> None:
    welcomed()
    assert mode(folder) == 0o700
    assert mode(folder / "credentials.json") == 0o600
    assert [path.name for path in folder.iterdir()] == ["credentials.json"]


def test_secrets_that_were_opened_to_others_are_closed(folder: Path) -> None:
    welcomed()
    (folder / "credentials.json").chmod(0o644)
    welcomed()
    assert mode(folder / "credentials.json") == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"password": 5, "token": null}', "\xff"], ids=repr)
def test_nonsense_in_the_file_is_no_secret(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "credentials.json").write_text(text, encoding="latin-1")
    assert "password: " in welcomed()
    assert staff_can_log_in(kept(folder)["password"])


def test_a_folder_that_cannot_be_made_is_no_obstacle(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write_text("a file is in the way")
    assert listed_by(welcomed().splitlines()[-1]).status_code == 200
    assert "could not be kept" in capsys.readouterr().err


# Where there is something already


def test_nothing_is_seeded_where_there_are_users(alice: Caller) -> None:
    assert listed_by(welcomed().splitlines()[-1]).json() == []
    assert not Session.objects.exists()
    assert set(User.objects.values_list("username", flat=True)) == {"alice", "admin"}


def test_a_password_that_was_changed_stays(folder: Path) -> None:
    welcomed()
    admin = User.objects.get(username="admin")
    admin.set_password("chosen by a person")
    admin.save()
    said = welcomed()
    assert "admin, whose password was changed" in said
    assert kept(folder)["password"] not in said
    assert staff_can_log_in("chosen by a person")


def test_an_admin_who_was_there_before_keeps_the_password() -> None:
    User.objects.create_superuser("admin", password="chosen by a person")
    assert "admin, whose password is not known here" in welcomed()
    assert staff_can_log_in("chosen by a person")


def test_an_admin_who_is_no_superuser_is_not_made_one() -> None:
    User.objects.create_user("admin")
    assert "no active staff superuser" in welcomed()
    assert not User.objects.get(username="admin").is_superuser


def test_another_database_gets_the_same_password_and_a_token_of_its_own(folder: Path) -> None:
    welcomed()
    before = kept(folder)
    Session.objects.all().delete()
    ApiToken.objects.all().delete()
    User.objects.filter(username="admin").delete()
    curl = welcomed().splitlines()[-1]
    assert kept(folder)["password"] == before["password"]
    assert kept(folder)["token"] != before["token"]
    assert staff_can_log_in(before["password"])
    assert listed_by(curl).status_code == 200


@pytest.fixture(params=["revoked", "unknown", "expired"])
def spoilt(request: pytest.FixtureRequest) -> None:
    """The token that was given out opens nothing any more."""
    welcomed()
    if request.param == "revoked":
        ApiToken.objects.get().revoke()
    elif request.param == "unknown":
        ApiToken.objects.all().delete()
    else:
        ApiToken.objects.update(expires_at="2020-01-01T00:00:00Z")


def test_a_token_that_opens_nothing_is_replaced(spoilt: None) -> None:
    assert listed_by(welcomed().splitlines()[-1]).status_code == 200
    assert ApiToken.objects.valid().get().user.identities.get().issuer == LOCAL_ISSUER


def test_without_the_seeded_person_the_token_is_the_admins() -> None:
    caller("somebody")
    ApiToken.objects.all().delete()
    welcomed()
    assert ApiToken.objects.get().user.username == "admin"


def test_where_nobody_can_have_a_token_none_is_shown() -> None:
    User.objects.create_superuser("admin", password="chosen by a person", is_active=False)
    assert "curl" not in welcomed()


# Where it runs


def test_outside_development_only_the_address_is_said(folder: Path, settings: Settings) -> None:
    configure(settings, env="production", port=80)
    assert welcomed() == "http://127.0.0.1:80/\n"
    assert not User.objects.exists()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("0.0.0.0", "http://127.0.0.1:8000/"),
        ("127.0.0.1", "http://127.0.0.1:8000/"),
        ("::", "http://[::1]:8000/"),
        ("10.1.2.3", "http://10.1.2.3:8000/"),
        ("chat.test", "http://chat.test:8000/"),
    ],
)
def test_the_address_is_one_a_browser_can_go_to(settings: Settings, host: str, address: str) -> None:
    configure(settings, env="staging", host=host)
    assert welcomed() == f"{address}\n"
