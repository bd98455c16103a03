"""How a body is taken: content types, sizes, encodings, strict JSON, chunks (contract 1, bodies)."""

from __future__ import annotations

import gzip
import io
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, connections
from django.test import RequestFactory

from accounts.models import User
from chatstore.http.bodies import StrictJSONParser
from chatstore.tests.serving import fetch, own_database_url, serving
from chatstore.wsgi import application
from conftest import Caller
from conversations.models import Message, Session

MIB = 1024 * 1024
SAID = {"role": "user", "content": "Hello!"}


def padded(body: Any, size: int) -> bytes:
    """`body` as JSON of exactly `size` bytes."""
    return json.dumps(body).encode().ljust(size)


# Content types


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        " application/json ; charset=utf-8 ",
        "application/json;",
    ],
)
def test_it_works(alice: Caller, content_type: str) -> None:
    made = alice.post("/api/sessions/", {"title": "é"}, Content_Type=content_type)
    assert (made.status_code, made.json()["title"]) == (201, "é")


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/json-patch+json",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/json, text/plain",
        "*/*",
        "application/*",
    ],
)
def test_another_content_type_is_415(alice: Caller, content_type: str) -> None:
    refused = alice.post("/api/sessions/", b"{}", Content_Type=content_type)
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "GZIP", "identity, gzip"])
def test_a_content_coding_is_415(alice: Caller, coding: str) -> None:
    assert alice.post("/api/sessions/", gzip.compress(b"{}"), Content_Encoding=coding).status_code == 415


def test_identity_is_no_coding(alice: Caller) -> None:
    assert alice.post("/api/sessions/", {}, Content_Encoding="identity").status_code == 201


@pytest.mark.parametrize("content_type", ["", "text/plain"])
def test_an_absent_body_needs_no_type(alice: Caller, session: Session, content_type: str) -> None:
    request = RequestFactory().generic("POST", "/", b"")
    assert not request.META.get("CONTENT_LENGTH")
    assert alice.post(f"/api/sessions/{session.pk}/restore/", Content_Type=content_type).status_code == 200


@pytest.mark.parametrize("verb", ["GET", "DELETE"])
def test_a_body_that_means_nothing_is_not_read(alice: Caller, session: Session, verb: str) -> None:
    answer = alice.send(verb, f"/api/sessions/{session.pk}/", b"nonsense", Content_Type="text/plain")
    assert answer.status_code in (200, 204)


# Strict JSON


NO_OBJECT = {
    "cut off": b'{"title": "x"',
    "trailing comma": b'{"title": "x",}',
    "single quotes": b"{'title': 'x'}",
    "comment": b'{"title": "x"} // x',
    "two objects": b"{}{}",
    "white space": b"  ",
    "array": b"[]",
    "text": b'"x"',
    "number": b"5",
    "null": b"null",
    "true": b"true",
    "NaN": b'{"metadata": {"a": NaN}}',
    "Infinity": b'{"metadata": {"a": Infinity}}',
    "-Infinity": b'{"metadata": {"a": -Infinity}}',
    "duplicate key": b'{"title": "x", "title": "y"}',
    "duplicate key, spelled twice": rb'{"title": "x", "t\u0069tle": "y"}',
    "deep duplicate key": b'{"metadata": {"a": [{"b": 1, "b": 1}]}}',
    "5,000 digits": b'{"metadata": {"a": ' + b"9" * 5000 + b"}}",
    "100,000 arrays": b'{"metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 objects": b'{"metadata": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"title": "x"}'.encode("utf-16"),
    "latin-1": '{"title": "é"}'.encode("latin-1"),
    "surrogate in UTF-8": b'{"title": "\xed\xa0\x80"}',
    "overlong UTF-8": b'{"title": "\xc0\x80"}',
    "NUL in text": b'{"title": "a\x00b"}',
    "NUL after": b"{}\x00",
    "line break in text": b'{"title": "a\nb"}',
    "bad escape": rb'{"title": "\x41"}',
}


@pytest.mark.parametrize("name", NO_OBJECT)
def test_what_is_no_strict_json_object_is_422(alice: Caller, name: str) -> None:
    refused = alice.post("/api/sessions/", NO_OBJECT[name])
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_json")
    assert refused.json()["errors"][0]["loc"] == ["body"]
    assert not Session.objects.exists()


@pytest.mark.parametrize("name", ["array", "duplicate key", "NaN"])
def test_a_change_is_held_to_the_same(alice: Caller, session: Session, name: str) -> None:
    assert alice.patch(f"/api/sessions/{session.pk}/", NO_OBJECT[name]).status_code == 422


@pytest.mark.parametrize("depth", [50, 500, 800])
def test_depth_that_python_can_parse_is_refused_as_metadata(alice: Caller, depth: int) -> None:
    body = b'{"metadata": {"a": ' + b"[" * depth + b"]" * depth + b"}}"
    refused = alice.post("/api/sessions/", body)
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", "metadata"])


@pytest.mark.parametrize("body", [b" \r\n\t{ } ", rb'{"\u0074itle": "x"}', b'{"metadata": {"a": 1, "A": 1}}'])
def test_json_may_be_written_in_many_ways(alice: Caller, body: bytes) -> None:
    assert alice.post("/api/sessions/", body).status_code == 201


# Sizes


@pytest.mark.parametrize(("size", "status"), [(8 * MIB, 201), (8 * MIB + 1, 413)], ids=["8 MiB", "one more"])
@pytest.mark.parametrize("path", ["/api/sessions/", "/api/sessions/{}/messages/", "/api/messages/?session_id={}"])
def test_a_body_has_8_mib_at_most(alice: Caller, session: Session, path: str, size: int, status: int) -> None:
    body = {} if path == "/api/sessions/" else SAID
    answer = alice.post(path.format(session.pk), padded(body, size))
    assert answer.status_code == status


@pytest.mark.parametrize(("size", "status"), [(16 * MIB, 201), (16 * MIB + 1, 413)], ids=["16 MiB", "one more"])
def test_a_batch_has_16_mib_at_most(alice: Caller, session: Session, size: int, status: int) -> None:
    path = f"/api/sessions/{session.pk}/messages/batch/"
    answer = alice.post(path, padded({"messages": [SAID]}, size))
    assert answer.status_code == status
    assert Message.objects.count() == (status == 201)


def test_413_comes_before_404_and_415(alice: Caller) -> None:
    refused = alice.post("/api/sessions/x/messages/", b"x" * (8 * MIB + 1), Content_Type="text/plain")
    assert (refused.status_code, refused.json()["code"]) == (413, "payload_too_large")


def test_401_comes_before_413(nobody: Caller) -> None:
    assert nobody.post("/api/sessions/", b"x" * (8 * MIB + 1)).status_code == 401


# Chunks


def call(caller: Caller, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """A POST of a chunked body through the WSGI application, as a server hands it over: no length, one stream."""
    environ = RequestFactory().generic("POST", path).environ | {
        "HTTP_TRANSFER_ENCODING": "chunked",
        "HTTP_AUTHORIZATION": f"Bearer {caller.token}",
        "CONTENT_TYPE": "application/json",
        "wsgi.input": io.BytesIO(body),
    }
    environ.pop("CONTENT_LENGTH", None)
    started: list[str] = []
    serve: Any = application
    answer = serve(environ, lambda status, *rest: started.append(status))
    content = b"".join(answer)
    answer.close()
    return int(started[0].split()[0]), json.loads(content)


@pytest.mark.django_db(transaction=True)
def test_a_chunked_body_is_read(alice: Caller) -> None:
    status, made = call(alice, "/api/sessions/", b'{"title": "Chunked"}')
    assert (status, made["title"]) == (201, "Chunked")


@pytest.mark.django_db(transaction=True)
def test_a_chunked_body_of_nothing_is_absent(alice: Caller) -> None:
    status, made = call(alice, "/api/sessions/", b"")
    assert (status, made["title"]) == (201, "New Chat")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("size", "status"), [(8 * MIB, 201), (8 * MIB + 1, 413), (17 * MIB, 413)])
def test_a_chunked_body_is_measured(alice: Caller, size: int, status: int) -> None:
    assert call(alice, "/api/sessions/", padded({}, size))[0] == status


# While it arrives


@pytest.fixture
def used(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Open connections to the store, and to where the logins are."""
    elsewhere = connection.copy("better_auth")
    monkeypatch.setitem(connections.settings, "better_auth", connection.settings_dict)
    connections["better_auth"] = elsewhere
    connection.ensure_connection()
    elsewhere.connection = elsewhere.get_new_connection(elsewhere.get_connection_params())
    yield [connection, elsewhere]
    elsewhere.close()
    del connections["better_auth"]


@pytest.mark.once
@pytest.mark.parametrize(("size", "open_while_it_arrives"), [(16 * 1024, True), (16 * 1024 + 1, False)])
def test_no_connection_waits_for_a_large_body(used: list[Any], size: int, *, open_while_it_arrives: bool) -> None:
    seen: list[bool] = []

    class Slow(io.BytesIO):
        def read(self, *args: Any) -> bytes:
            seen.extend(each.connection is not None for each in used)
            return super().read(*args)

    request = RequestFactory().post("/", CONTENT_LENGTH=size)
    assert StrictJSONParser().parse(Slow(padded({}, size)), None, {"request": request}) == {}
    assert seen == [open_while_it_arrives, open_while_it_arrives]


# Through a real server


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[int]:
    with serving(own_database_url()) as port:
        yield port


def bearer(caller: Caller) -> dict[str, str]:
    return {"Authorization": f"Bearer {caller.token}", "Content_Type": "application/json"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "chunks", [[b'{"title": ', b'"Chunked"}'], [b'{"title": "Chunked"}'] + [b" " * 65536] * 20]
)
def test_a_server_takes_chunks(server: int, alice: Caller, chunks: list[bytes]) -> None:
    answer, body = fetch(server, "POST", "/api/sessions/", iter(chunks), **bearer(alice))
    assert (answer.status, json.loads(body)["title"]) == (201, "Chunked")
    assert Session.objects.get().title == "Chunked"


@pytest.mark.django_db(transaction=True)
def test_a_server_refuses_too_many_chunks(server: int, alice: Caller) -> None:
    chunks = iter([b" " * MIB] * 8 + [b"{}"])
    answer, _ = fetch(server, "POST", "/api/sessions/", chunks, **bearer(alice))
    assert answer.status == 413


@pytest.mark.django_db(transaction=True)
def test_a_server_hands_over_two_authorization_headers_as_none(server: int, alice: Caller) -> None:
    line = f"Authorization: Bearer {alice.token}\r\n"
    assert b" 200 " in raw(server, f"GET /api/me/ HTTP/1.1\r\nHost: localhost\r\n{line}")
    answer = raw(server, f"GET /api/me/ HTTP/1.1\r\nHost: localhost\r\n{line}{line}")
    assert b" 401 " in answer.partition(b"\r\n")[0]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "chunk", ["zz\r\n{}\r\n0\r\n\r\n", "5\r\n{}\r\n0\r\n\r\n", "2\r\n{}"], ids=["size", "short", "end"]
)
def test_broken_chunks_are_the_clients_fault(server: int, alice: Caller, chunk: str) -> None:
    head = (
        "POST /api/sessions/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {alice.token}\r\nTransfer-Encoding: chunked\r\n"
    )
    answer = raw(server, head, chunk).partition(b"\r\n")[0]
    assert b" 5" not in answer
    assert not Session.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("body", ['{"title": "Whole"}', ""])
def test_a_body_that_is_cut_off_is_not_taken_for_a_whole_one(server: int, alice: Caller, body: str) -> None:
    head = (
        "POST /api/sessions/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {alice.token}\r\nContent-Length: {len(body) + 1}\r\n"
    )
    answer = raw(server, head, body)
    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert b"incomplete_body" in answer
    assert not Session.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("missing", "has_logged_in"), [(0, True), (1, False), (20_000, False)])
def test_a_form_that_is_cut_off_is_refused(server: int, missing: int, *, has_logged_in: bool) -> None:
    """The admin's, too."""
    User.objects.create_superuser("boss", "boss@example.com", "a password")
    token = "a" * 32
    form = f"csrfmiddlewaretoken={token}&username=boss&password=a+password"
    head = (
        f"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\nCookie: csrftoken={token}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form) + missing}\r\n"
    )
    answer = raw(server, head, form)
    assert (b" 302 " in answer.partition(b"\r\n")[0]) is has_logged_in
    assert (b"sessionid" in answer) is has_logged_in
    assert b" 5" not in answer.partition(b"\r\n")[0]


def test_http_1_1_wants_a_host(server: int) -> None:
    assert b" 400 " in raw(server, "GET /health/live HTTP/1.1\r\n").partition(b"\r\n")[0]
    assert b" 200 " in raw(server, "GET /health/live HTTP/1.0\r\n").partition(b"\r\n")[0]


def raw(port: int, head: str, body: str = "") -> bytes:
    """What the server sends back for these bytes, after which nothing more comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        link.sendall(f"{head}Connection: close\r\n\r\n{body}".encode())
        link.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: link.recv(65536), b""))


def test_the_limits_are_those_of_the_contract() -> None:
    assert (settings.MAX_BODY_BYTES, settings.MAX_BATCH_BODY_BYTES) == (8 * MIB, 16 * MIB)
