from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from chatstore.environment import Environment, databases, parse_database_url

POSTGRES = {"ENGINE": "django.db.backends.postgresql", "NAME": "chat", "USER": "u", "PASSWORD": "p", "HOST": "h"}


def environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> Environment:
    for name in Environment.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return Environment()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h/chat",
        "postgres://u:p@h/chat",
        "postgresql+asyncpg://u:p@h/chat",
        "postgresql+psycopg2://u:p@h/chat",
        "POSTGRESQL+psycopg://u:p@h/chat",
        "postgresql+asyncpg://u:p@h/chat?prepared_statement_cache_size=0",
    ],
)
def test_every_spelling_of_a_postgresql_url_is_understood(url: str) -> None:
    parsed = parse_database_url(url)
    assert {name: parsed[name] for name in POSTGRES} == POSTGRES


@pytest.mark.parametrize(
    ("query", "sslmode"),
    [
        ("?ssl=require", "require"),
        ("?ssl=true", "require"),
        ("?ssl=false", "disable"),
        ("?sslmode=verify-full", "verify-full"),
        ("?sslmode=verify-full&ssl=require", "verify-full"),
    ],
)
def test_the_ssl_of_async_drivers_becomes_libpqs(query: str, sslmode: str) -> None:
    assert parse_database_url(f"postgresql+asyncpg://u:p@h/chat{query}")["OPTIONS"] == {"sslmode": sslmode}


def test_other_options_of_the_url_stay() -> None:
    parsed = parse_database_url("postgresql://u:p%40@h:6432/chat?channel_binding=require&ssl=require")
    assert parsed["OPTIONS"] == {"channel_binding": "require", "sslmode": "require"}
    assert (parsed["PASSWORD"], parsed["PORT"]) == ("p@", 6432)


@pytest.mark.parametrize(
    ("url", "name"),
    [("sqlite:///chat.db", "chat.db"), ("sqlite+aiosqlite:////srv/chat.db", "/srv/chat.db")],
)
def test_sqlite_urls_name_a_file(url: str, name: str) -> None:
    assert parse_database_url(url)["NAME"] == name


@pytest.mark.parametrize("url", ["mysql://u:secret@h/chat", "chat", "postgresql://u:secret@h", ""])
def test_another_url_is_refused_without_repeating_it(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(ValueError, match=r"must begin with|names no database") as refused:
        parse_database_url(url)
    assert "secret" not in str(refused.value)


def test_without_a_url_it_is_an_sqlite_file_with_safe_options(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = databases(environment(monkeypatch))["default"]
    assert entry["ENGINE"].endswith("sqlite3")
    assert entry["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert entry["OPTIONS"]["timeout"] == 20
    assert "journal_mode=WAL" in entry["OPTIONS"]["init_command"]


def test_postgresql_gets_a_checked_pool_and_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = databases(environment(monkeypatch, DATABASE_URL="postgresql://u:p@h/chat?sslmode=require"))["default"]
    options = entry["OPTIONS"]
    assert options["pool"] == {
        "min_size": 2, "max_size": 15, "timeout": 1.5, "max_lifetime": 3600, "reconnect_timeout": 1,
    }  # fmt: skip
    assert options["options"] == "-c statement_timeout=10000 -c lock_timeout=1500 -c jit=off"
    assert options["sslmode"] == "require"
    assert entry["ENGINE"] == "chatstore.postgresql"  # It looks at connections before they are used.


def test_a_lost_connection_is_noticed_and_a_url_may_say_when(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://u:p@h/chat?tcp_user_timeout=9000"
    options = databases(environment(monkeypatch, DATABASE_URL=url))["default"]["OPTIONS"]
    assert (options["connect_timeout"], options["keepalives_idle"]) == (2, 10)
    assert int(options["tcp_user_timeout"]) == 9000


def test_behind_a_transaction_pooler_no_options_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = databases(environment(monkeypatch, DATABASE_URL="postgresql://u:p@h/chat", DB_POOLER="transaction"))[
        "default"
    ]
    assert "options" not in entry["OPTIONS"]
    assert entry["OPTIONS"]["prepare_threshold"] is None
    assert entry["DISABLE_SERVER_SIDE_CURSORS"]


@pytest.mark.parametrize(
    "text",
    ["http://a.example,http://b.example", '["http://a.example", "http://b.example"]'],
    ids=["commas", "json"],
)
def test_lists_are_read_from_commas_and_from_json(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    found = environment(monkeypatch, CORS_ORIGINS=text).cors_origins
    assert found == ("http://a.example", "http://b.example")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "http"), ("PORT", "0"), ("DEBUG", "perhaps"), ("ENV", "prod"), ("CORS_ORIGINS", "[nonsense")],
)
def test_a_value_of_the_wrong_type_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(ValidationError) as refused:
        environment(monkeypatch, **{name: value})
    assert refused.value.errors()[0]["loc"] == (name.lower(),)


def test_a_refused_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError) as refused:
        environment(monkeypatch, DATABASE_URL="mysql://u:hunter2@h/chat")
    assert "hunter2" not in str(refused.value)


def test_an_empty_value_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment(monkeypatch, PORT="").port == 8000


CONTRACT_7: dict[str, Any] = {
    "env": "development",
    "debug": False,
    "log_level": "INFO",
    "log_sql": False,
    "database_url": None,
    "db_pool_min": 2,
    "db_pool_max": 15,
    "db_pool_timeout": 1.5,
    "db_pool_max_lifetime": 3600,
    "db_pooler": "none",
    "port": 8000,
    "service_name": "chatstore",
}


@pytest.mark.parametrize("name", CONTRACT_7)
def test_the_defaults_are_the_contracts(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert getattr(environment(monkeypatch), name) == CONTRACT_7[name]


@pytest.mark.parametrize("name", Environment.model_fields)
def test_every_setting_is_described(name: str) -> None:
    assert Environment.model_fields[name].description
