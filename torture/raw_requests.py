"""Requests as bytes: what no client library would send. Each is a write that must not be stored."""

from __future__ import annotations

import re
import socket
from typing import Final

from torture.product import MARK

REFUSED = f"{MARK} refused"
SMUGGLED = f"{MARK} smuggled"
STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


def head(token: str, *lines: str, line: str = "POST /api/sessions/ HTTP/1.1", host: str = "localhost") -> bytes:
    """A request line and its fields; `host=""` leaves that one out."""
    fixed = [line, *([f"Host: {host}"] if host else []), f"Authorization: Bearer {token}"]
    return "\r\n".join([*fixed, "Content-Type: application/json", *lines, "", ""]).encode("latin-1")


def titled(title: str) -> bytes:
    return b'{"title": "%s"}' % title.encode()


BODY: Final = titled(REFUSED)
SIZE: Final = len(BODY)
CHUNKED: Final = "Transfer-Encoding: chunked"
CHUNKS: Final = b"%x\r\n%s\r\n0\r\n\r\n" % (SIZE, BODY)


def whole(token: str, title: str, *lines: str) -> bytes:
    """A request that nothing is wrong with."""
    body = titled(title)
    return head(token, f"Content-Length: {len(body)}", *lines) + body


def malformed(token: str) -> dict[str, bytes]:
    """By name. What could be read as two requests holds a second one that makes a session named SMUGGLED."""
    inner = whole(token, SMUGGLED, "Connection: close")
    length = f"Content-Length: {SIZE}"
    found = {
        "length and chunks": head(token, length, CHUNKED) + b"0\r\n\r\n" + inner,
        "chunks and length": head(token, CHUNKED, "Content-Length: 4") + CHUNKS + inner,
        "chunks in HTTP/1.0": head(token, CHUNKED, line="POST /api/sessions/ HTTP/1.0") + CHUNKS + inner,
        "bare LF in the head": head(token, length).replace(b"\r\n", b"\n") + BODY,
        "bare LF after one field": head(token, "X-One: 1\nContent-Length: 0", length) + BODY + inner,
        "bare CR in a field": head(token, f"X-One: 1\rContent-Length: {SIZE}") + BODY,
        "folded field": head(token, "X-One: 1\r\n two", length) + BODY,
        "folded coding": head(token, "Transfer-Encoding:\r\n chunked", length) + CHUNKS,
        "space before a colon": head(token, f"Content-Length : {SIZE}") + BODY,
        "tab before a colon": head(token, "Transfer-Encoding\t: chunked", length) + CHUNKS,
        "NUL in a value": head(token, "X-One: a\0b", length) + BODY,
        "NUL in a name": head(token, "X-O\0ne: a", length) + BODY,
        "no colon": head(token, "X-One", length) + BODY,
        "no name": head(token, ": one", length) + BODY,
        "a name of Latin-1": head(token, "X-\xdf: one", length) + BODY,
        "64 KB in one field": head(token, f"X-One: {'a' * 65_536}", length) + BODY,
        "64 KB in no field": head(token, "a" * 65_536, length) + BODY,
        "1,000 fields": head(token, *(f"X-{n}: {n}" for n in range(1000)), length) + BODY,
        "2 MB of fields": head(token, *(f"X-{n}: {'a' * 16_000}" for n in range(130)), length) + BODY,
        "a long request line": head(token, length, line=f"POST /api/sessions/?{'a' * 9000} HTTP/1.1") + BODY,
        "a request line without an end": b"POST /" + b"a" * 100_000,
        "unknown expectation": head(token, "Expect: 200-ok", length) + BODY,
        "no Host": head(token, length, host="") + BODY,
        "two Hosts": head(token, "Host: localhost", length) + BODY,
        "two other Hosts": head(token, "Host: evil.example", length) + BODY,
        "nothing": b"\0" * 40 + b"\r\n\r\n",
        "TLS": bytes.fromhex("16030100c8010000c40303") + b"\x0a\x0d\x0a" * 60,
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP/0.9": b"GET /api/sessions/\r\n\r\n",
    }
    for coding in (
        "xchunked", "chunked, identity", "chunked, chunked", "identity, chunkedx", "chunked;q=1", "\x0bchunked",
        "'chunked'", "gzip", "", ",",
    ):  # fmt: skip
        found[f"coding {coding!r}"] = head(token, f"Transfer-Encoding: {coding}", length) + CHUNKS + inner
    found["two codings"] = head(token, CHUNKED, "Transfer-Encoding: identity") + CHUNKS + inner
    found["chunks twice"] = head(token, CHUNKED, CHUNKED) + CHUNKS + inner
    for size in (
        f"+{SIZE}", f"-{SIZE}", f"{SIZE} {SIZE}", f"{SIZE}, {SIZE}", f"{SIZE}, 0", f"0x{SIZE:x}", f"{SIZE}.0",
        f"{SIZE}_0", "\xb2", "", "9" * 5000,
    ):  # fmt: skip
        found[f"length {size[:20]!r}"] = head(token, f"Content-Length: {size}") + BODY + inner
    found["two lengths"] = head(token, length, "Content-Length: 0") + BODY + inner
    found["the same length twice"] = head(token, length, length) + BODY
    for size in ("zz", "-5", "+5", f"0x{SIZE:x}", f" {SIZE:x}", f"{SIZE:x} ", "1_6", "", "5\0"):
        found[f"chunk size {size!r}"] = head(token, CHUNKED) + f"{size}\r\n".encode() + CHUNKS[4:] + inner
    for extension in ("\0", "a=\n", "a\rb", "=", 'a="'):
        first = f"{SIZE:x};{extension}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
        found[f"chunk extension {extension[:9]!r}"] = head(token, CHUNKED) + first + inner
    found["a chunk ends with LF"] = head(token, CHUNKED) + b"%x\n%s\n0\n\n" % (SIZE, BODY) + inner
    found["a chunk is longer than said"] = head(token, CHUNKED) + b"4\r\n%s\r\n0\r\n\r\n" % BODY + inner
    found["a trailer without a colon"] = head(token, CHUNKED) + CHUNKS[:-2] + b"one\r\n\r\n" + inner
    found["a trailer with a length"] = head(token, CHUNKED) + CHUNKS[:-2] + b"Content-Length: 5\r\n\r\n" + inner
    for host in ("evil.example", "local host", "localhost/x", "localhost:x", "localhost@evil.example", "\xe9"):
        found[f"Host {host!r}"] = head(token, length, "Connection: close", host=host) + BODY
    for line in (
        "post /api/sessions/ HTTP/1.1", "POST /api/sessions/ http/1.1", "POST /api/sessions/ HTTP/2.0",
        "POST /api/sessions/ HTTP/1.1 x", "POST  /api/sessions/ HTTP/1.1", " POST /api/sessions/ HTTP/1.1",
        "POST\t/api/sessions/\tHTTP/1.1", "POST /api/sessions/\0 HTTP/1.1", "POST /api/sessions/\xe9 HTTP/1.1",
        "POST api/sessions/ HTTP/1.1", "POST * HTTP/1.1", "POST HTTP/1.1", "POST", "CONNECT localhost:80 HTTP/1.1",
        "CONNECT /api/sessions/ HTTP/1.1", "P@ST /api/sessions/ HTTP/1.1", "POST http://[/api/sessions/ HTTP/1.1",
        "POST /api/sessions/ HTTP/1.11", "POST /api/sessions/ HTTP/-1.1",
    ):  # fmt: skip
        found[f"line {line!r}"] = head(token, length, line=line) + BODY
    return found


def truncated(token: str) -> dict[str, bytes]:
    """Requests whose client goes away before their end; what came of a body is JSON all the same."""
    half = b"%x\r\n%s\r\n" % (SIZE, BODY)
    return {
        "in the line": b"POST /api/sessions/ HT",
        "in the head": head(token, f"Content-Length: {SIZE}")[:-2],
        "before the body": head(token, f"Content-Length: {SIZE}"),
        "in the body": head(token, f"Content-Length: {SIZE + 100}") + BODY,
        "before a chunk": head(token, CHUNKED),
        "in a chunk size": head(token, CHUNKED) + b"1",
        "in a chunk": head(token, CHUNKED) + b"%x\r\n%s" % (SIZE + 10, BODY),
        "after a chunk": head(token, CHUNKED) + half,
        "in the last chunk": head(token, CHUNKED) + half + b"0\r\n",
        "in the trailers": head(token, CHUNKED) + half + b"0\r\nX-One: 1\r\n",
    }


def exchange(port: int, sent: bytes, *, ends: bool = False, seconds: float = 10) -> tuple[list[int], bool]:
    """The statuses of what comes back, and whether the server ended the connection. `ends`: the client sends no
    more, and says so."""
    said = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as link:
        try:
            link.sendall(sent)
            if ends:
                link.shutdown(socket.SHUT_WR)
            while data := link.recv(65_536):
                said += data
        except TimeoutError:
            return statuses(said), False
        except ConnectionError:
            pass
    return statuses(said), True


def statuses(said: bytes | bytearray) -> list[int]:
    return [int(status) for status in STATUS.findall(said) if status != b"100"]
