"""No credential is in a log line, an error body or an admin page, of all tests.

What was used and said is collected by `credentials.py`; the last test here runs last of all, and searches it.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from django.template import Context, Template, VariableDoesNotExist
from django.test import Client
from pytest_django import Settings

from accounts.models import ServiceToken
from chatstore.http.logs import without_tokens
from chatstore.tests.credentials import Collected, needles, search
from chatstore.tests.serving import fetch, serving
from conftest import Caller

TOKEN = "cst_3vQ0mB-x7_JtZk1fWcLh8RyNsUaPdGe5oIiT2qVbX4w"
PASSWORD = 'Tr0ub4dor & "3" / ümlaut'
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhdXRoMHxhbGljZSJ9.TWpfbm90X2Ffc2lnbmF0dXJlX2J1dF9sb25n"
LOGIN = "tX5fYtq8hJr0aKcVwLzE2mGdNpSuBvQi"
SIGNED = f"{LOGIN}.7Lm0V+Q2nCkq/8Yv1yGtZ3xWbRs4oUeHfDpJ5aTiK6E="


# What is searched for


def standard(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def for_urls(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


WRITTEN: dict[str, tuple[str, str]] = {
    "itself": (TOKEN, TOKEN),
    "its secret alone": (TOKEN, TOKEN[4:]),
    "its beginning": (TOKEN, TOKEN[:30]),
    "in a header": (TOKEN, f"{{'Authorization': 'Bearer {TOKEN}'}}"),
    "in base64": (TOKEN, standard(TOKEN)),
    "in base64 without padding": (TOKEN, standard(TOKEN).rstrip("=")),
    **{f"in base64 after {n}": (TOKEN, standard("x" * n + TOKEN + "yz")) for n in range(4)},
    "in Basic authorization": (PASSWORD, f"Basic {standard(f'alice:{PASSWORD}')}"),
    "in base64 for URLs": (PASSWORD, for_urls(f"?{PASSWORD}")),
    "in base64 in a URL": (PASSWORD, quote(standard(f"?{PASSWORD}"), safe="")),
    "in a path": (PASSWORD, f"/api/{quote(PASSWORD)}/"),
    "in a query": (PASSWORD, f"?password={quote_plus(PASSWORD)}"),
    "in a query with percents": (PASSWORD, f"?password={quote(PASSWORD, safe='')}"),
    "in JSON": (PASSWORD, json.dumps({"password": PASSWORD})),
    "in a page": (PASSWORD, "Tr0ub4dor &amp; &quot;3&quot; / ümlaut"),
    "as a repr": ('it\'s \\ n0t "quiet"', repr('it\'s \\ n0t "quiet"')),
    "a JWT": (JWT, JWT),
    "the signature of a JWT": (JWT, JWT.rpartition(".")[2]),
    "the signature of a JWT in base64": (JWT, standard(JWT)),
    "a signed login": (SIGNED, SIGNED),
    "a login without its signature": (SIGNED, LOGIN),
    "a percent-encoded login": (quote(SIGNED, safe=""), SIGNED.rpartition(".")[2]),
}


@pytest.mark.parametrize(("credential", "written"), WRITTEN.values(), ids=WRITTEN)
def test_a_planted_credential_is_found(tmp_path: Path, credential: str, written: str) -> None:
    file = tmp_path / "log"
    file.write_bytes(f"a line\nb [some.logger] said={written}!\na line\n".encode() + b"\xff\x00\n")
    hits = search([file], needles({credential}))
    assert [(hit.file, hit.line) for hit in hits] == [("log", 2)]
    assert hits[0].before.startswith("b [some.logger] said=")
    assert credential not in str(hits)
    assert search([file], needles({TOKEN[::-1]})) == []


@pytest.mark.parametrize(
    ("written", "form"),
    [
        (TOKEN, "as it is"),
        (standard(TOKEN), "in base64"),
        (quote(PASSWORD), "URL-encoded"),
        (repr(PASSWORD), "as it is"),
        (json.dumps(PASSWORD), "JSON-escaped"),
    ],
)
def test_a_hit_names_the_form(tmp_path: Path, written: str, form: str) -> None:
    (tmp_path / "log").write_text(written)
    assert [hit.form for hit in search([tmp_path / "log"], needles({TOKEN, PASSWORD}))] == [form]


@pytest.mark.parametrize("text", ["", "Bearer", "short", "x" * 43, "cst_" + "xy" * 20, "a\nb" * 9], ids=repr)
def test_what_is_no_secret_is_not_searched_for(text: str) -> None:
    assert needles({text}) == {}


# What is kept


@pytest.mark.parametrize("logger", ["chatstore.request", "urllib3.connectionpool", "a.logger.of.nobody"])
def test_every_log_line_is_kept(collected: Collected, logger: str) -> None:
    word = secrets.token_urlsafe(32)
    logging.getLogger(logger).debug("said %s", word)
    assert [hit.form for hit in search([collected.run_log], needles({word}))] == ["as it is"]


@pytest.mark.parametrize(
    ("path", "is_kept"), [("/admin/?", True), ("/api/nowhere/?", True), ("/health/live?", False)]
)
def test_errors_and_pages_are_kept(collected: Collected, staff: Client, path: str, is_kept: bool) -> None:
    before = collected.answers.stat().st_size if collected.answers.exists() else 0
    staff.get(path)
    after = collected.answers.stat().st_size if collected.answers.exists() else 0
    assert (after > before) == is_kept


def test_credentials_are_noticed(collected: Collected, alice: Caller, staff: Client) -> None:
    for header in (f"Bearer {JWT}", f"Basic {standard(f'alice:{PASSWORD}')}"):
        alice.get("/api/me/", Authorization=header)
    staff.post("/admin/login/", {"username": "sam", "password": f"{PASSWORD}2"})
    _, service = ServiceToken.objects.issue(name="archive")
    used = {alice.token, service, JWT, PASSWORD, f"{PASSWORD}2", staff.cookies["sessionid"].value}
    assert used - collected.credentials == set()


# What a request leaves


@pytest.fixture
def written(collected: Collected, tmp_path: Path, settings: Settings) -> Callable[[], list[Path]]:
    """What this test has logged and been answered so far, statements included, as files to search."""
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"log_sql": True})
    sources = [collected.run_log, collected.answers]
    sizes = [file.stat().st_size if file.exists() else 0 for file in sources]

    def files() -> list[Path]:
        for file, size in zip(sources, sizes, strict=True):
            (tmp_path / file.name).write_bytes(file.read_bytes()[size:] if file.exists() else b"")
        return [tmp_path / file.name for file in sources]

    return files


Send = Callable[[Caller, str], Any]


def me(**headers: str) -> Send:
    """A request with these headers, the token in place of TOKEN."""
    return lambda alice, token: alice.get(
        "/api/me/", **{name: value.replace("TOKEN", token) for name, value in headers.items()}
    )


def basic(alice: Caller, token: str) -> None:
    alice.get("/api/me/", Authorization=f"Basic {standard(f'alice:{token}')}")


def malformed(alice: Caller, token: str) -> None:
    alice.post("/api/sessions/", f'{{"title": "{token}"'.encode())
    alice.post("/api/sessions/", token.encode(), Content_Type="text/plain")


STAYS: dict[str, Send] = {
    "where it belongs": me(Authorization="Bearer TOKEN"),
    "twice": me(Authorization="Bearer TOKEN, Bearer TOKEN"),
    "of another scheme": me(Authorization="Token TOKEN"),
    "in Basic authorization": basic,
    "in another header": me(X_Api_Key="TOKEN", Proxy_Authorization="Bearer TOKEN"),
    "in X-On-Behalf-Of": me(X_On_Behalf_Of="TOKEN"),
    "in cookies": me(Cookie="token=TOKEN; sessionid=TOKEN; csrftoken=TOKEN"),
    "in the event cookie": me(Cookie="chatstore_events=TOKEN"),
    "as a key": lambda alice, token: alice.post("/api/sessions/", {"title": 5}, Idempotency_Key=token),
    "in the query": lambda alice, token: alice.get(f"/api/sessions/?access_token={token}"),
    "in a filter": lambda alice, token: alice.get(f"/api/sessions/?created_after={token}"),
    "in a cursor": lambda alice, token: alice.get(f"/api/sessions/?cursor={token}"),
    "in a refused body": lambda alice, token: alice.post("/api/sessions/", {"title": [token], "metadata": token}),
    "in malformed bodies": malformed,
    "in a login": lambda alice, token: alice.client.post("/admin/login/", {"username": "a", "password": token}),
}


@pytest.mark.parametrize("send", STAYS.values(), ids=STAYS)
@pytest.mark.parametrize("is_good", [True, False], ids=["good", "bad"])
def test_a_token_is_not_repeated(
    alice: Caller, written: Callable[[], list[Path]], send: Send, is_good: bool
) -> None:
    token = alice.token if is_good else "cst_" + secrets.token_urlsafe(32)
    send(alice, token)
    log, _ = files = written()
    assert "chatstore.request" in log.read_text()
    assert search(files, needles({token})) == []


def acted_for(alice: Caller, name: str) -> None:
    _, service = ServiceToken.objects.issue(name="archive")
    alice.get("/api/me/", Authorization=f"Bearer {service}", X_On_Behalf_Of=name)


# What a sender puts into a name is repeated in the answer, which is the sender's own doing; but it is not logged.
NAMED: dict[str, Send] = {
    "the path": lambda alice, token: alice.get(f"/api/{token}/"),
    "X-Request-ID": lambda alice, token: alice.get("/api/me/", X_Request_ID=token),
    "X-On-Behalf-Of": acted_for,
    "a parameter's name": lambda alice, token: alice.get(f"/api/sessions/?{token}=1"),
    "a field's name": lambda alice, token: alice.post("/api/sessions/", {token: 1}),
}


@pytest.mark.parametrize("send", NAMED.values(), ids=NAMED)
def test_a_token_in_a_name_is_not_logged(alice: Caller, written: Callable[[], list[Path]], send: Send) -> None:
    token = "cst_" + secrets.token_urlsafe(32)
    send(alice, token)
    log, _ = written()
    assert log.stat().st_size
    assert not search([log], needles({token}))


def test_an_access_token_in_a_path_is_not_logged() -> None:
    assert without_tokens(None, "", {"path": f"/api/{JWT}/", "ms": 1.5}) == {"path": "/api/[token]/", "ms": 1.5}


def test_a_templates_mistake_shows_nothing_of_the_page(written: Callable[[], list[Path]]) -> None:
    page = Template("{{ text|default:missing }}", name="issued.html")
    with pytest.raises(VariableDoesNotExist) as caught:
        page.render(Context({"text": TOKEN}))
    assert TOKEN in str(caught.value)  # The premise: Django's own text quotes the context.
    logging.getLogger("django.request").error("failed", exc_info=caught.value)
    log, _ = files = written()
    assert "VariableDoesNotExist" in log.read_text()
    assert search(files, needles({TOKEN})) == []


@pytest.mark.parametrize("password", [PASSWORD, "not the password"])
def test_a_login_leaves_no_password(sam: Caller, written: Callable[[], list[Path]], password: str) -> None:
    sam.user.set_password(PASSWORD)
    sam.user.save()
    answer = Client().post("/admin/login/?next=/admin/", {"username": "sam", "password": password})
    assert answer.status_code == (302 if password == PASSWORD else 200)
    assert search(written(), needles({PASSWORD, password})) == []


def test_a_server_logs_no_token(collected: Collected, tmp_path: Path) -> None:
    before = set(collected.files())
    with serving(f"sqlite:///{tmp_path}/none.sqlite3") as port:
        fetch(port, "GET", "/api/me/", Authorization=f"Bearer {TOKEN}")
        fetch(port, "POST", f"/api/sessions/?access_token={TOKEN}", f'{{"title": "{TOKEN}"')
    (log,) = (file for file in collected.files() if file.name == f"server-{port}.log")
    assert log not in before
    assert "[chatstore.request]" in log.read_text()
    assert TOKEN in collected.credentials
    assert search([log], needles({TOKEN})) == []


@pytest.mark.last
def test_no_credential_is_in_what_all_tests_said(collected: Collected, request: pytest.FixtureRequest) -> None:
    assert request.session.items[-1] is request.node
    assert collected.credentials
    assert "[chatstore.request]" in collected.run_log.read_text()
    assert " 401 " in collected.answers.read_text(errors="replace")
    hits = search(collected.files(), needles(collected.credentials))
    assert not hits, "\n".join(map(str, hits))
