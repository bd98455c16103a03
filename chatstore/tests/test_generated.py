from __future__ import annotations

import json

import pytest
from django.core.management import CommandError, call_command

from chatstore.environment import BASE_DIR
from chatstore.management.commands import generated

DOCUMENT = json.loads((BASE_DIR / "docs/openapi.json").read_text())
OPERATIONS = [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]


def test_what_is_generated_is_current() -> None:
    call_command("generated", "--check")


def test_an_old_file_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(generated.FILES, ".env.example", lambda text: f"{text}# more\n")
    with pytest.raises(CommandError, match=r"\.env\.example"):
        call_command("generated", "--check")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation["operationId"])
def test_every_operation_is_told_of(operation: dict[str, object]) -> None:
    assert operation["summary"]
    assert operation["security"] in ([{"bearer": []}], [{"bearer": []}, {"event_cookie": []}])
    assert {"401", "422", "503"} <= set(operation["responses"])  # type: ignore[call-overload]


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS]
    assert len(ids) == len(set(ids))
