"""Query strings and forms are UTF-8, whatever charset a request's Content-Type names."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.test import RequestFactory

from chatstore.http.charsets import UTF8Requests
from chatstore.ids import new_uuid
from chatstore.tests.serving import fetch, own_database_url, serving

pytestmark = pytest.mark.once

FORM = "application/x-www-form-urlencoded"
PATHS = ("/health/live", "/api/sessions/", "/admin/login/", "/nowhere")
SAID = "next=/admin/%5Cud800&q=%5Cud800&username=%5Cud800%ff+AEE-&password=x"

TYPES = [
    *(
        f"{media_type}; charset={charset}"
        for media_type in ("text/plain", FORM, "application/json")
        for charset in ("base64", "unicode_escape", "utf-8", "latin-1", "")
    ),
    *(
        f"text/plain; charset={charset}"
        for charset in (
            "rot13", "hex", "zlib", "bz2", "uu", "quopri", "raw_unicode_escape", "utf-7", "utf-16", "utf-8-sig",
            "idna", "punycode", "undefined", "mbcs", "unknown", "x" * 1000, '"base64"', "BASE64", "Unicode-Escape",
            "utf-8; charset=base64", "base64; charset=utf-8", "\xe9",
        )
    ),
    "text/plain;CharSet = base64",
    "text/plain;charset*=utf-8''base64",
    "text/plain;charset*0=base;charset*1=64",
    "text/plain;charset*=nonsense''base64",
    "text/plain;name*=nonsense''%41",
    'text/plain;name="a;charset=base64',
    "multipart/form-data; boundary=x; charset=base64",
    "multipart/form-data; boundary*=nonsense''x",
    "charset=base64",
    ";charset=base64",
    ";",
    "text/plain;charset",
]  # fmt: skip


@pytest.fixture(scope="module")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    path = tmp_path_factory.mktemp("charsets") / "log"
    with path.open("wb") as log, serving(own_database_url(), log) as port:
        yield port, path


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("content_type", TYPES)
def test_no_charset_makes_a_request_fail(server: tuple[int, Path], content_type: str) -> None:
    port, log = server
    for path in PATHS:
        for verb, body in (("GET", None), ("POST", SAID)):
            request_id = str(new_uuid())
            headers = {"Content_Type": content_type, "X_Request_ID": request_id}
            answer, _ = fetch(port, verb, f"{path}?{SAID}", body, **headers)
            assert answer.status < 500, path
            assert answer.headers["X-Request-ID"] == request_id
            logged = [line for line in log.read_text().splitlines() if request_id in line]
            assert [line for line in logged if path in line], path


def handed_over(content_type: str) -> str:
    environ: Any = RequestFactory().generic("POST", "/", b"", content_type=content_type).environ
    environ |= {"CONTENT_TYPE": content_type, "wsgi.input": BytesIO()}
    UTF8Requests(lambda env, start: [])(environ, None)  # type: ignore[arg-type]
    return str(environ["CONTENT_TYPE"])


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "application/json;",
        'application/json;charset="UTF-8"',
        " application/json ; charset=utf-8 ",
        "multipart/form-data; boundary=----x",
        "application/json; version=1",
    ],
)
def test_what_says_utf_8_or_nothing_is_left_as_it_is(content_type: str) -> None:
    assert handed_over(content_type) == content_type


def test_another_charset_is_one_that_nobody_knows(alice: Any) -> None:
    """Django then takes UTF-8, and JSON in another charset is refused as ever."""
    content_type = handed_over("application/json; charset=base64")
    assert content_type == "application/json; charset=unsupported"
    assert alice.post("/api/sessions/", b"{}", Content_Type=content_type).status_code == 415
