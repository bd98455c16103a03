"""pytest plugin: what a session of tests logs and answers, kept to be searched for the credentials that it used.

The search is `test_no_credentials.py`, the last test of a session. Kept are every log line at DEBUG, formatted as
the project does it, the logs of the servers that tests start, and each error answer and admin page.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import logging
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus, unquote

import pytest
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.http.cookie import parse_cookie
from django.test import Client

from accounts.authentication import event_cookie
from accounts.models import ApiToken, ServiceToken, Token

# Words shorter, or of fewer different characters, stand in other words by chance.
SHORTEST = 12
FEWEST_DIFFERENT = 6
# What is searched for is the beginning of each: it finds what was cut short, too, and keeps the search fast.
SEARCHED = 24
SHOWN_ONCE = re.compile(r"/admin/accounts/(api|service)token/add/")
MOST_HITS = 5


# What is searched for


def pieces(credential: str) -> set[str]:
    """What of a credential must not be seen: its secret without the prefix that tells its kind, and each part of
    it (a JWT's signature, a better-auth token without its signature). Empty for what is no secret."""
    for kind in (ApiToken, ServiceToken):
        credential = credential.removeprefix(kind.PREFIX)
    plain = unquote(credential)
    parts = {credential, plain, *re.split(r"[.:]", plain)}
    return {part[:SEARCHED] for part in parts if is_secret(part)}


def is_secret(part: str) -> bool:
    return len(part) >= SHORTEST and len(set(part)) >= FEWEST_DIFFERENT and part.isprintable()


def encoded_inside(text: bytes, offset: int) -> bytes:
    """The base64 of `text` that does not depend on what stands around it, where `offset` (0 to 2) characters of an
    unfinished group of three precede it."""
    whole = base64.b64encode(bytes(offset) + text).rstrip(b"=")
    return whole[(0, 2, 3)[offset] : None if (offset + len(text)) % 3 == 0 else -1]


def forms(text: str) -> Iterator[tuple[bytes, str]]:
    """Each way to write `text`, and what it is called. Where two ways write the same, the later name holds."""
    yield html.escape(text).encode(), "HTML-escaped"
    yield repr(text)[1:-1].encode(), "as Python's repr"
    yield json.dumps(text, ensure_ascii=False)[1:-1].encode(), "JSON-escaped"
    yield json.dumps(text)[1:-1].encode(), "JSON-escaped"
    for written in (quote(text), quote(text, safe=""), quote_plus(text)):
        yield written.encode(), "URL-encoded"
    for offset in range(3):
        standard = encoded_inside(text.encode(), offset)
        yield standard.replace(b"+", b"-").replace(b"/", b"_"), "in base64 for URLs"
        yield quote(standard, safe="").encode(), "in base64, URL-encoded"
        yield standard, "in base64"
    yield text.encode(), "as it is"


def needles(credentials: Iterable[str]) -> dict[bytes, str]:
    """All that must not be found, and the name of its form."""
    secrets = {piece for credential in credentials for piece in pieces(credential)}
    return {form: name for secret in secrets for form, name in forms(secret)}


# The search


class Hit(NamedTuple):
    """Where a credential was found. `before` is what the line says before it."""

    file: str
    line: int
    form: str
    before: str


def search(files: Iterable[Path], sought: Mapping[bytes, str]) -> list[Hit]:
    """The first lines of the files in which one of `sought` stands, with the first of them in each line."""
    assert sought  # grep takes no pattern for the empty one.
    command = ["grep", "-aHnobF", "--null", "-m", "50", "-f", "-", "--", *map(str, files)]
    done = subprocess.run(
        command, input=b"\n".join(sought) + b"\n", capture_output=True, env={"LC_ALL": "C"}, check=False
    )
    assert done.returncode in (0, 1), done.stderr  # 1: nothing found.
    hits: dict[tuple[str, int], Hit] = {}
    for found in done.stdout.splitlines():
        file, _, rest = found.partition(b"\0")
        line, offset, match = rest.split(b":", 2)
        place = (file.decode(), int(line))
        if place not in hits and len(hits) < MOST_HITS:
            before = beginning(Path(place[0]), int(offset))
            hits[place] = Hit(Path(place[0]).name, place[1], sought[match], before)
    return list(hits.values())


def beginning(file: Path, offset: int) -> str:
    """What stands before the offset in its line; of a long one the first characters."""
    return file.read_bytes()[:offset].rpartition(b"\n")[2][:150].decode(errors="replace")


# What is kept


class Collected:
    """What the session has used and said so far."""

    def __init__(self) -> None:
        self.credentials: set[str] = set()
        self.folder: Path | None = None  # None where no session of pytest runs.

    @property
    def run_log(self) -> Path:
        assert self.folder
        return self.folder / "run.log"

    @property
    def answers(self) -> Path:
        assert self.folder
        return self.folder / "answers"

    def files(self) -> list[Path]:
        assert self.folder
        return sorted(self.folder.iterdir())

    def note_request(self, authorization: str = "", cookie: str = "") -> None:
        """The credentials in a request's headers."""
        words = re.split(r"[\s,]+", str(authorization))
        if words[0].lower() == "basic":
            password = password_of("".join(words[1:]))
            words = [*words[1:], password] if password else []
        self.credentials.update(words)
        cookies = parse_cookie(str(cookie))
        self.credentials.update(
            cookies.get(name, "") for name in (event_cookie.NAME, settings.SESSION_COOKIE_NAME)
        )

    def note_answer(
        self, verb: str, path: str, status: int, headers: Iterable[tuple[str, str]], body: bytes
    ) -> None:
        """An answer that is an error or an admin page, as one line. Not the one page that shows a new token."""
        is_page = path.startswith("/admin/") and not (verb == "POST" and SHOWN_ONCE.search(path))
        if self.folder and (status >= 400 or is_page):
            said = f"{verb} {path} {status} ".encode(errors="replace") + body + str(dict(headers)).encode()
            with self.answers.open("ab") as file:
                file.write(said.replace(b"\n", b" ") + b"\n")

    @contextmanager
    def server_log(self, name: str, own: Any = None) -> Iterator[Any]:
        """A file for what a server says; `own` is the test's own, which is copied when the server has ended."""
        if own is not None or not self.folder:
            yield subprocess.DEVNULL if own is None else own
            if self.folder and hasattr(own, "name"):
                shutil.copyfile(own.name, self.folder / name)
        else:
            with (self.folder / name).open("ab") as file:
                yield file


COLLECTED = Collected()


def password_of(basic: str) -> str:
    """The password in the value of a Basic Authorization header, empty where there is none (RFC 7617)."""
    try:
        return base64.b64decode(basic).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


# The hooks


def noting_client(request: Callable[..., Any]) -> Callable[..., Any]:
    """Django's `Client.request`, whose answers and credentials are kept."""

    def noting(client: Client, **environ: Any) -> Any:
        sent = {**client.defaults, **environ}
        COLLECTED.note_request(sent.get("HTTP_AUTHORIZATION", ""), sent.get("HTTP_COOKIE", ""))
        response = request(client, **environ)
        COLLECTED.note_request(cookie="; ".join(f"{name}={kept.value}" for name, kept in client.cookies.items()))
        body = b"" if response.streaming else response.content
        COLLECTED.note_answer(
            environ["REQUEST_METHOD"], environ["PATH_INFO"], response.status_code, response.items(), body
        )
        return response

    return noting


def noting_generate(generate: Callable[[Token], str]) -> Callable[[Token], str]:
    def noting(token: Token) -> str:
        text = generate(token)
        COLLECTED.credentials.add(text)
        return text

    return noting


def noting_password(function: Callable[..., Any]) -> Callable[..., Any]:
    """`set_password` and `check_password` of users: every password that is chosen or tried comes through one."""

    def noting(user: AbstractBaseUser, raw_password: str | None) -> Any:
        COLLECTED.credentials.add(raw_password or "")
        return function(user, raw_password)

    return noting


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """The project's logging with LOG_LEVEL=DEBUG, into the file as well."""
    root = logging.getLogger()
    handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(stderr_handler().formatter)
    root.addHandler(handler)
    yield
    root.removeHandler(handler)
    handler.close()


def stderr_handler() -> logging.Handler:
    """The one handler of the project's own logging."""
    (found,) = (handler for handler in logging.getLogger().handlers if handler.name == "stderr")
    return found


@pytest.fixture(autouse=True, scope="session")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collected]:
    """Collects from the first test to the last. Django's client is changed itself, not subclassed: the tests and
    pytest-django make theirs by its own name, in many places."""
    COLLECTED.folder = tmp_path_factory.mktemp("said")
    with pytest.MonkeyPatch.context() as patch, logging_to(COLLECTED.run_log):
        patch.setattr(Client, "request", noting_client(Client.request))
        patch.setattr(Token, "generate", noting_generate(Token.generate))
        for name in ("set_password", "check_password"):
            patch.setattr(AbstractBaseUser, name, noting_password(getattr(AbstractBaseUser, name)))
        yield COLLECTED
    COLLECTED.folder = None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "last: runs after all others")
    root = logging.getLogger()
    # DEBUG is for our file: what else listens, pytest's handlers too, formats what it did before. And here, not
    # in the fixture: pytest puts the level back at the end of each test.
    stderr_handler().setLevel(root.level)
    config.option.log_level = config.option.log_level or logging.getLevelName(root.level)
    root.setLevel(logging.DEBUG)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)
