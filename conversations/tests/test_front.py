"""The front page hands out a token in development, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from conversations.management.credentials import Credentials

TOKEN = "cst_of-the-development-installation-of-the-tests-1"


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, settings: Settings) -> None:
    settings.BASE_DIR = tmp_path
    Credentials(tmp_path / ".development").put("token", TOKEN)


def page(settings: Settings, env: str) -> Any:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"env": env})
    return Client().get("/")


def test_it_works(settings: Settings) -> None:
    answer = page(settings, "development")
    assert TOKEN in answer.content.decode()
    assert answer["Cache-Control"] == "no-store"


@pytest.mark.parametrize("env", ["staging", "production"])
def test_elsewhere_people_bring_their_own(settings: Settings, env: str) -> None:
    answer = page(settings, env)
    assert answer.status_code == 200
    assert "cst_of" not in answer.content.decode()
