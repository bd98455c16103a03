"""The windows of a transcript, and the jumps out of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from django.test import Client

from conftest import Caller, new_message, new_session
from conversations.models import Session
from conversations.staff import transcript
from conversations.tests.transcripts import at, classes, link, many, page_of, range_of, shown

# What staff see is of the same code on either database; on SQLite a browser opens each page.
pytestmark = pytest.mark.postgres

# Windows


@pytest.mark.parametrize(
    ("query", "positions"),
    [
        ("", (1, 50)),
        ("?from=1", (1, 50)),
        ("?from=51", (51, 100)),
        ("?from=100", (100, 120)),
        ("?from=120", (120, 120)),
        ("?from=121", (71, 120)),
        ("?from=9223372036854775807", (71, 120)),
        ("?to=120", (71, 120)),
        ("?to=9223372036854775807", (71, 120)),
        ("?to=50", (1, 50)),
        ("?to=10", (1, 10)),
        ("?to=1", (1, 1)),
        ("?from=20&to=30", (20, 30)),
        ("?from=20&to=110", (20, 69)),
        ("?from=30&to=20", (1, 0)),
    ],
)
def test_a_window_is_a_range_of_positions(
    staff: Client, session: Session, query: str, positions: tuple[int, int]
) -> None:
    many(session, 120)
    assert shown(page_of(staff, session, query)) == range_of(*positions)


def test_earlier_and_later_meet_without_a_gap(staff: Client, session: Session) -> None:
    many(session, 120)
    seen: list[int] = []
    query: str | None = ""
    while query is not None:
        page = page_of(staff, session, query.partition("#")[0])
        seen += shown(page)
        query = link(page, "j")
    assert seen == range_of(1, 120)
    back: list[int] = []
    query = link(page, "G")
    while query is not None:
        page = page_of(staff, session, query.partition("#")[0])
        back = shown(page) + back
        query = link(page, "k")
    assert back == range_of(1, 120)


def test_the_ends_offer_nothing_beyond(staff: Client, session: Session) -> None:
    many(session, 51)
    first, last = page_of(staff, session), page_of(staff, session, "?to=51")
    assert (link(first, "k"), link(first, "j")) == (None, "?from=51#m51")
    assert (link(last, "k"), link(last, "j")) == ("?to=1#m1", None)
    assert (link(last, "g"), link(last, "G")) == ("?from=1#m1", "?to=51#m51")


@pytest.mark.parametrize(
    ("removed", "query", "positions", "earlier", "later"),
    [
        ((1, 10), "", range_of(11, 60), "?to=10#m10", "?from=61#m61"),
        ((20, 30), "", [*range_of(1, 19), *range_of(31, 61)], None, "?from=62#m62"),
        ((111, 120), "?from=111", [], "?to=110#m110", None),
        ((1, 10), "?to=10", [], None, "?from=11#m11"),
        ((1, 120), "", [], None, None),
    ],
)
def test_a_window_reads_over_rows_that_are_gone(
    staff: Client, session: Session, removed: tuple[int, int], query: str, positions: Sequence[int],
    earlier: str | None, later: str | None,
) -> None:  # fmt: skip
    many(session, 120)
    at(session, *range_of(*removed)).delete()
    page = page_of(staff, session, query)
    assert (shown(page), link(page, "k"), link(page, "j")) == (positions, earlier, later)


@pytest.mark.parametrize(
    ("position", "first"), [(1, 1), (24, 1), (25, 1), (26, 2), (60, 36), (119, 95), (120, 96)]
)
def test_a_marked_message_opens_the_window_around_it(
    staff: Client, session: Session, position: int, first: int
) -> None:
    said = many(session, 120)
    page = page_of(staff, session, f"?message={said[position - 1].pk}")
    assert shown(page) == range_of(first, min(first + 49, 120))
    assert [n for n in shown(page) if "marked" in classes(page, n)] == [position]
    assert f"?message={said[position - 1].pk}#m{position}" in page


def test_a_message_of_another_session_is_told(staff: Client, alice: Caller, session: Session) -> None:
    many(session, 3)
    other = new_message(new_session(alice), "Elsewhere")
    page = page_of(staff, session, f"?message={other.pk}")
    assert f"Message {other.pk} is not in this session." in page
    assert (shown(page), "Elsewhere" in page, " marked" in page) == ([1, 2, 3], False, False)


@pytest.mark.parametrize("name", ["from", "to", "message"])
@pytest.mark.parametrize(
    "value", ["0", "-1", "01", "1.5", "abc", "%00", "9" * 30, "9223372036854775808", "%D9%A1"]
)
def test_a_malformed_number_is_left_out_with_a_word(
    staff: Client, session: Session, name: str, value: str
) -> None:
    many(session, 3)
    page = page_of(staff, session, f"?{name}={value}")
    assert shown(page) == [1, 2, 3]
    assert f"“{name}” is not a number from 1 on" in page


@pytest.mark.parametrize(
    "query",
    [
        "?trace=%00",
        "?trace=" + "x" * 300,
        "?trace=%FF",
        "?raw=x&o=1&p=2&_popup=1",
        "?from=&to=&message=&trace=",
        "?from=1&from=x",
        "?%00=1",
        "?message=1&message=",
    ],
)
def test_nonsense_is_no_error(staff: Client, session: Session, query: str) -> None:
    many(session, 3)
    assert shown(page_of(staff, session, query)) == [1, 2, 3]


@pytest.mark.parametrize("key", ["0", "-1", "abc", "%00", "99999999999999999999", "9" * 5000, "\uff11", "17"])
def test_a_session_that_is_none_is_a_404(staff: Client, key: str) -> None:
    assert staff.get(f"/admin/conversations/session/{key}/transcript/").status_code == 404


# Jumps


def test_a_jump_leads_to_the_next_beyond_the_window(staff: Client, session: Session) -> None:
    many(session, 120)
    at(session, 1, 80, 90).update(status="failed", role="assistant")
    page = page_of(staff, session)
    assert link(page, "u") == "?from=51#m51"
    assert link(page, "f") == "?from=80#m80"
    assert link(page_of(staff, session, "?from=40&to=80"), "f") == "?from=90#m90"


def test_a_jump_takes_the_highlight_along(staff: Client, session: Session) -> None:
    said = many(session, 120)
    page = page_of(staff, session, f"?message={said[0].pk}&trace=a%26b&raw=1")
    assert link(page, "u") == f"?message={said[0].pk}&trace=a%26b&raw=1&from=51#m51"


def test_a_jump_that_finds_nothing_says_how_far_it_looked(
    staff: Client, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript, "REACH", 20)
    many(session, 120)
    at(session, 71).update(status="failed", role="assistant")
    page = page_of(staff, session)
    assert link(page, "f") is None
    assert "No failure in #51 to #70." in page
    assert link(page_of(staff, session, "?from=2"), "f") == "?from=71#m71"
    assert "No failure in the rest of the session." in page_of(staff, session, "?to=110")
