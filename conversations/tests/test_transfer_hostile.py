"""Lines that break readers of files: each is told of by its number, without its words, and the rest goes in."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from conftest import Caller, caller, new_session
from conversations import services
from conversations.models import Message, Session
from conversations.tests.hostile import UNSTORABLE, VALUES
from conversations.tests.seeds import emptied
from conversations.tests.test_transfer import file_of, loaded, rows_of, told, turn
from conversations.transfer import reading, writing

pytestmark = pytest.mark.django_db  # In a transaction that is rolled back: there are hundreds of cases.

NOBODY = "00000000-0000-4000-8000-000000000000"
SECRET = "SECRET"

# Values that no field of this kind takes.
NO_TEXT: dict[str, Any] = {"null": None, "number": 5, "true": True, "list": ["SECRET"], "object": {"SECRET": 1}}
NO_INTEGER: dict[str, Any] = {
    "null": None, "text": "5", "true": True, "float": 1.0, "negative": -1, "2^63": 2**63, "10^30": 10**30,
    "-2^63": -(2**63), "list": [1],
}  # fmt: skip
NO_UUID: dict[str, Any] = {
    "null": None, "number": 5, "word": "SECRET", "empty": "", "no-dashes": "0" * 32, "braces": "{" + NOBODY + "}",
    "urn": f"urn:uuid:{NOBODY}", "too-long": f"{NOBODY}0",
    "other-digits": NOBODY.replace("0", "\u0660"), "nobody": NOBODY,
}  # fmt: skip
NO_TIME: dict[str, Any] = {
    "null": None, "number": 0, "word": "SECRET", "empty": "", "month-13": "2024-13-01T00:00:00Z",
    "february-30": "2024-02-30T00:00:00Z", "year-0": "0000-01-01T00:00:00Z", "year-10000": "10000-01-01T00:00:00Z",
    "before-year-1": "0001-01-01T00:00:00+01:00", "after-year-9999": "9999-12-31T23:59:59-01:00",
    "offset": "2024-01-01T00:00:00+99:00", "hour-25": "2024-01-01T25:00:00Z", "nul": "2024-01-01T00:00:00Z\x00",
    "digits": "٢٠٢٤-01-01T00:00:00Z", "infinity": "infinity", "now": "now", "list": [],
}  # fmt: skip
NO_METADATA: dict[str, Any] = {
    "text": "SECRET", "list": [1], "number": 1, "true": True, "nul": {"SECRET": "\x00"},
    "nul-key": {"SECRET\x00": 1},
    "surrogate": {"SECRET": ["\ud800"]}, "big": {"SECRET": 10**40}, "float": {"SECRET": 1e300},
    "deep": {"SECRET": json.loads("[" * 40 + "]" * 40)}, "long-key": {"S" * 256: 1},
    "large": {"SECRET": "x" * 70_000},
}  # fmt: skip
LONG = {"256": "S" * 256, "a-million": "SECRET" * 200_000}
TEXTS = {**{f"unstorable-{name}": text for name, text in UNSTORABLE.items()}, **NO_TEXT}
LINKS = {**{name: value for name, value in TEXTS.items() if name != "null"}, **LONG}

BAD: dict[tuple[str, str], dict[str, Any]] = {
    ("message", "content"): {**TEXTS, "empty": "", "too-long": "S" * (1024 * 1024 + 1)},
    ("message", "position"): {**NO_INTEGER, "zero": 0, "beyond": 3, "2^63-1": 2**63 - 1},
    ("message", "version"): {**NO_INTEGER, "zero": 0, "beyond": 2**62},
    ("message", "tokens"): {**NO_INTEGER, "2^31": 2**31},
    ("message", "role"): {**NO_TEXT, "SECRET": SECRET, "upper": "USER", "empty": ""},
    ("message", "status"): {**NO_TEXT, "SECRET": SECRET, "streaming": "streaming"},
    ("message", "metadata"): NO_METADATA,
    ("message", "trace_id"): LINKS,
    ("message", "created_at"): {**NO_TIME, "after-the-session": "9999-12-31T23:59:59.999999Z"},
    ("message", "session"): NO_UUID,
    ("message", "deleted_at"): {"not-emptied": "2024-01-01T00:00:00Z"},
    ("message", "idempotency_key"): {"without-digest": "SECRET"},
    ("message", "idempotency_digest"): {"without-key": "0" * 64, "word": SECRET, "upper": "A" * 64},
    ("message", "idempotency_index"): {**NO_INTEGER, "2^31": 2**31},
    ("turn", "question"): {**NO_INTEGER, "zero": 0, "after-the-answer": 3},
    ("turn", "answer"): {**NO_INTEGER, "beyond": 99},
    ("turn", "status"): {**NO_TEXT, "running": "running"},
    ("turn", "session"): NO_UUID,
}
BAD_SESSION: dict[tuple[str, str], dict[str, Any]] = {
    ("session", "session_id"): {name: value for name, value in NO_UUID.items() if name != "nobody"},
    ("session", "owner"): NO_UUID,
    ("session", "workspace"): NO_UUID,
    ("session", "title"): {**TEXTS, "empty": "", "501": "S" * 501},
    ("session", "last_position"): {**NO_INTEGER, "less-than-messages": 1},
    ("session", "version"): {**NO_INTEGER, "zero": 0},
    ("session", "metadata"): NO_METADATA,
    ("session", "titled"): {"null": None, "one": 1, "text": "true"},
    ("session", "updated_at"): NO_TIME,
}
BAD_PEOPLE: dict[tuple[str, str], dict[str, Any]] = {
    ("user", "public_id"): {name: value for name, value in NO_UUID.items() if name != "nobody"},
    ("user", "username"): {**TEXTS, "empty": "", "spaces": "S E C R E T", "151": "S" * 151, "not-nfkc": "ﬃ"},
    ("user", "email"): {**TEXTS, "word": SECRET, "header": "a@b.example\nSECRET"},
    ("user", "is_active"): {"null": None, "one": 1},
    ("user", "identities"): {
        "null": None, "text": SECRET, "of-text": [SECRET], "of-nothing": [{}],
        "unknown": [{"issuer": "a", "subject": "b", "created_at": "2024-01-01T00:00:00Z", "id": 1}],
        "twice": [{"issuer": "a", "subject": "b", "created_at": "2024-01-01T00:00:00Z"}] * 2,
        "101": [{"issuer": "a", "subject": f"{n}", "created_at": "2024-01-01T00:00:00Z"} for n in range(101)],
    },
    ("workspace", "name"): {**TEXTS, **LONG},
    ("workspace", "personal_of"): {name: value for name, value in NO_UUID.items() if name != "null"},
    ("membership", "role"): {**NO_TEXT, "owner": "owner"},
    ("membership", "user"): NO_UUID,
}  # fmt: skip


def written() -> bytes:
    """The file, without a snapshot: nobody else writes."""
    return b"".join(writing.exported())


def cases(of: dict[tuple[str, str], dict[str, Any]]) -> list[Any]:
    return [
        pytest.param(kind, field, value, id=f"{kind}-{field}-{name}")
        for (kind, field), values in of.items()
        for name, value in values.items()
    ]


@cache
def small_store() -> bytes:
    """A file of one user and one session of two messages and a turn."""
    session = new_session(caller("alice"))
    services.append(session, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    turn(session, 1, 2, "complete")
    found = written()
    emptied()
    return found


@pytest.fixture
def rows(db: None) -> list[dict[str, Any]]:
    return rows_of(small_store())


def last(rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(row for row in reversed(rows) if row["type"] == kind)


def spelled(rows: list[dict[str, Any]]) -> bytes:
    """As json writes it: escaped, also what is no text."""
    first = file_of(rows).splitlines(keepends=True)[0]
    return first + b"".join(json.dumps(row).encode() + b"\n" for row in rows[1:])


def quietly(content: bytes) -> list[str]:
    """What was told, of lines that are there, and nothing of their words."""
    lines = told(content)
    number = content.count(b"\n")
    assert lines
    assert all(1 < int(line[5:].partition(":")[0]) <= number + 1 for line in lines)
    assert not any("secret" in line.lower() or not line.isprintable() or len(line) > 250 for line in lines)
    return lines


@pytest.mark.once
@pytest.mark.parametrize(("kind", "field", "value"), cases(BAD))
def test_a_bad_message_or_turn_is_left_out(rows: list[dict[str, Any]], kind: str, field: str, value: Any) -> None:
    last(rows, kind)[field] = value
    lines = quietly(spelled(rows))
    assert Session.objects.get().message_count == Message.objects.count() == (1 if kind == "message" else 2)
    assert any(line.startswith(f"line {rows.index(last(rows, kind)) + 1}: ") for line in lines)
    assert file_of(rows_of(written()))


@pytest.mark.once
@pytest.mark.parametrize(("kind", "field", "value"), cases(BAD_SESSION))
def test_a_bad_session_is_left_out_and_the_next_goes_in(
    rows: list[dict[str, Any]], kind: str, field: str, value: Any
) -> None:
    good = {**last(rows, "session"), "session_id": NOBODY, "last_position": 1, "message_count": 1, "tokens": 0}
    message = {**next(row for row in rows if row["type"] == "message"), "session": NOBODY}
    last(rows, kind)[field] = value
    quietly(spelled([*rows, good, message]))
    assert str(Session.objects.get().session_id) == NOBODY
    assert Message.objects.count() == 1


@pytest.mark.once
@pytest.mark.parametrize(("kind", "field", "value"), cases(BAD_PEOPLE))
def test_bad_people_are_left_out(rows: list[dict[str, Any]], kind: str, field: str, value: Any) -> None:
    last(rows, kind)[field] = value
    quietly(spelled(rows))


# Lines that are no objects of ours

BROKEN: dict[str, bytes] = {
    "no-json": b"SECRET",
    "blank": b"   ",
    "half": b'{"type":"message","content":"SECRET',
    "two": b'{"type":"message"}{"type":"SECRET"}',
    "number": b"5",
    "null": b"null",
    "list": b'["SECRET"]',
    "text": b'"SECRET"',
    "no-type": b'{"content":"SECRET"}',
    "null-type": b'{"type":null}',
    "list-type": b'{"type":["SECRET"]}',
    "unknown-type": b'{"type":"SECRET"}',
    "store": b'{"counts":{"creation":0,"membership":0,"message":0,"session":0,"turn":0,"user":0,"workspace":0},'
    b'"format":1,"type":"store"}',
    "nothing-else": b'{"type":"message"}',
    "same-key-twice": b'{"type":"message","type":"message"}',
    "nan": b'{"type":"message","tokens":NaN}',
    "infinity": b'{"type":"message","tokens":-Infinity}',
    "long-number": b'{"type":"message","tokens":' + b"9" * 5000 + b"}",
    "deep": b'{"type":"message","metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep-objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "latin-1": '{"type":"message","content":"é SECRET"}'.encode("latin-1"),
    "utf-16": '{"type":"message"}'.encode("utf-16-le").replace(b"\n", b""),
    "surrogate-bytes": b'{"type":"message","content":"\xed\xa0\x80"}',
    "overlong": b'{"type":"message","content":"\xc0\x80"}',
    "mark": b'\xef\xbb\xbf{"type":"message"}',
    "nul-byte": b'{"type":"message","content":"\x00"}',
    "control": b'{"type":"message","content":"\x1b[31mSECRET"}',
    "single-quotes": b"{'type':'message'}",
    "comment": b'// SECRET\t{"type":"message"}',
    "trailing-comma": b'{"type":"message",}',
    "carriage-return": b'{"type":"message"}\r\r',
    "bad-escape": b'{"type":"message","content":"\\xSECRET"}',
    "only-nul": b"\x00\x00",
}


@pytest.mark.once
@pytest.mark.parametrize("place", ["between", "last"])
@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_line_is_told_of_and_the_rest_goes_in(
    rows: list[dict[str, Any]], line: bytes, place: str
) -> None:
    lines = file_of(rows).splitlines(keepends=True)
    number = len(lines) - 1 if place == "between" else len(lines)
    lines.insert(number, line + b"\n")
    said = quietly(b"".join(lines))
    assert said[0].startswith(f"line {number + 1}: ")
    assert len(said) == 2  # And that there is a line too many.
    assert Message.objects.count() == 2


@pytest.mark.once
def test_a_key_twice_in_a_line_is_told(rows: list[dict[str, Any]]) -> None:
    content = file_of(rows)
    at = content.rindex(b'"type":"message"')
    said = quietly(content[:at] + b'"role":"user",' + content[at:])
    assert "the same key stands twice" in said[0].lower()


@pytest.mark.once
@pytest.mark.parametrize("kind", ["user", "workspace", "membership", "session", "message", "turn"])
@pytest.mark.parametrize("how", ["missing", "unknown"])
def test_each_field_must_be_there_and_no_other(rows: list[dict[str, Any]], kind: str, how: str) -> None:
    row = last(rows, kind)
    number = rows.index(row) + 1
    for field in [name for name in row if name != "type"]:
        other = {**row, "SECRET\x1b": 1} if how == "unknown" else {k: v for k, v in row.items() if k != field}
        said = quietly(spelled([*rows[: number - 1], other, *rows[number:]]))
        emptied()
        what = "has a field that nobody knows" if how == "unknown" else f"{field} is missing"
        assert f"line {number}: {what}" in said


@pytest.mark.once
def test_a_line_that_is_too_long_is_not_kept(rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 2_000)
    lines = file_of(rows).splitlines(keepends=True)
    long = json.dumps({**last(rows, "message"), "position": 3, "content": SECRET * 2_000}).encode() + b"\n"
    said = quietly(b"".join([*lines, long]))
    assert [line.partition(":")[0] for line in said] == [f"line {len(lines) + 1}", f"line {len(lines) + 1}"]
    assert Message.objects.count() == 2


@pytest.mark.once
def test_a_message_before_its_session_is_told(rows: list[dict[str, Any]]) -> None:
    message = rows.pop(next(n for n, row in enumerate(rows) if row["type"] == "message"))
    number = next(n for n, row in enumerate(rows) if row["type"] == "session")
    rows.insert(number, message)
    said = quietly(file_of(rows))
    assert said[0] == f"line {number + 1}: the session of this message does not stand before it"
    assert Session.objects.get().message_count == 1


@pytest.mark.once
@pytest.mark.parametrize("positions", [(2, 1), (1, 1), (2, 2)])
def test_positions_rise(rows: list[dict[str, Any]], positions: tuple[int, int]) -> None:
    said_by = [row for row in rows if row["type"] == "message"]
    for row, position in zip(said_by, positions, strict=True):
        row["position"] = position
    said = quietly(file_of(rows))
    assert "position must be higher than that of the message before" in said[0]
    assert Session.objects.get().message_count == 1


def test_counters_are_what_the_messages_say(rows: list[dict[str, Any]]) -> None:
    last(rows, "session").update(message_count=1, tokens=10**6)
    said = quietly(file_of(rows))
    assert len(said) == 1
    assert "message_count and tokens" in said[0]
    session = Session.objects.get()
    assert (session.message_count, session.tokens) == (2, 0)


def test_a_key_twice_in_a_session_is_told(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["type"] == "message":
            row.update(idempotency_key="k", idempotency_digest="0" * 64, idempotency_index=0)
    said = quietly(file_of(rows))
    assert "breaks a rule of the database: " in said[0]
    assert Session.objects.get().message_count == 1


def test_a_session_twice_is_the_same_or_another(rows: list[dict[str, Any]]) -> None:
    start = rows.index(last(rows, "session"))
    report = loaded(file_of([*rows, *rows[start:]]))
    assert report.refused == 0
    assert report.there["message"] == 2
    emptied()
    other = [{**row, **({"content": SECRET} if row["type"] == "message" else {})} for row in rows[start:]]
    assert len(quietly(file_of([*rows, *other]))) == 2


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_every_metadata_value_comes_back_the_same(alice: Caller, value: str) -> None:
    new_session(alice, metadata={"value": json.loads(value)})
    content = written()
    emptied()
    assert told(content) == []
    assert written() == content


def test_what_no_store_should_hold_is_written_and_refused(alice: Caller) -> None:
    session = new_session(alice, metadata={"a": "b"})
    Session.objects.filter(pk=session.pk).update(version=3)
    rows = rows_of(written())
    last(rows, "session")["metadata"] = {"a": "\ud800"}
    emptied()
    assert "lone surrogate" in quietly(file_of(rows))[0]
