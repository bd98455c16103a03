"""Search of one's own messages: what is found, for whom, and the same on both databases and with an index."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from accounts.models import Membership, ServiceToken, Workspace
from conftest import Caller, new_message, new_session
from conversations import search, services
from conversations.models import Message, Session
from conversations.search_index import SEARCHED
from conversations.tests import hostile, search_index

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["scan", "index"])
def mode(request: pytest.FixtureRequest, settings: Settings, db: None) -> str:
    """Without the index of words and with it. SQLite has none, and ignores the setting."""
    if request.param == "index":
        if connection.vendor == "postgresql":
            search_index.make()
        search_index.switch_on(settings)
    return str(request.param)


@contextmanager
def no_scans() -> Iterator[None]:
    """Has PostgreSQL use the index, however few rows there are."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
        yield


def ask(caller: Caller, q: str, **more: Any) -> Any:
    answer = caller.get(f"/api/search/?{urlencode({'q': q, **more})}")
    assert answer.status_code == 200, answer.content
    return answer


def found(caller: Caller, q: str, **more: Any) -> list[int]:
    return [row["id"] for row in ask(caller, q, **more).json()]


# What a word finds


@pytest.mark.parametrize(
    ("content", "finds", "finds_not"),
    [
        ("Deploy the pods", ["deploy", "DEPLOY", "depl", "pods the", "  the  "], ["ploy", "deploys", "the cat"]),
        ("Über die Straße", ["über", "ÜBER", "stra", "Straße", "straße die"], ["ber", "uber", "strasse", "aße"]),
        ("ПРИВЕТ, мир", ["привет", "Мир", "при"], ["ривет"]),
        ("שלום עולם", ["שלום", "עול"], ["לום"]),
        ("안녕하세요 세계", ["안녕", "세계"], ["녕하"]),
        ("私は東京都に行く。iPhoneで", ["東京", "京都", "行く", "iphone", "私は東京都"], ["東 大阪", "phone"]),
        ("สวัสดีครับ", ["สวัสดี", "ครับ"], ["ไม่"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा", "हि"], ["दी", "षा"]),
        ("Launch 🚀 now 👩\u200d👩\u200d👧", ["🚀", "👩\u200d👩", "launch 🚀"], ["🛸"]),
        (
            "see https://foo.com/bar-baz?q=1#top ok",
            ["foo.com", "https://foo.com/bar", "bar-baz", "baz", "q=1", "#top", "com/bar"],
            ["oo.com", "foo.org", "ar-baz"],
        ),
        (
            "x = my_function(arg1)[0]; // C++ & C#",
            ["my_function", "function", "c++", "C#", "(arg1)", "[0];"],
            ["unction"],
        ),
        ("well-known e-mail don't", ["well-known", "known", "mail", "don't", "-known"], ["wellknown", "nown"]),
        (
            "1e2x 1.5 -12 007 0x1F 3,000 v2 1e21ß9",
            ["1e2", "1e2x", "1.5", "-12", "007", "0x1f", "3,000", "v2", "1e21ß"],
            ["e2x", "07"],
        ),
        ("100% of $5 <b>bold</b> a\\b 'q'", ["100%", "$5", "<b>", "bold", "a\\b", "'q'", "\\b"], ["old"]),
        ("a\r\nnew\tline\u2028end\u00a0here", ["new", "line", "end", "here"], ["ew"]),
        ("e\u0301clair Z\u0351\u0300x", ["e\u0301clair", "e", "z\u0351"], ["clair", "x"]),
        ("zero\u200bwidth soft\u00adhyphen", ["width", "hyphen", "zero"], ["idth"]),
        ("\uff26\uff35\uff2c\uff2c width", ["\uff26\uff35\uff2c\uff2c", "width"], ["full"]),
        ("A" * 3000 + " end", ["a" * 200, "A" * 255, "end"], ["A" * 200 + "b"]),
        ("ü" * 3000, ["ü" * 255, "Ü"], ["ü" * 200 + "b"]),
        ("%_*?.", ["%", "_", "*", "?", ".", "%_*?."], ["%%", "x"]),
        ("ΛΌΓΟΣ λόγος", ["λόγο", "λόγος"], ["όγος"]),
    ],
)  # fmt: skip
def test_a_word_is_found_where_a_word_begins_with_it(
    alice: Caller, mode: str, content: str, finds: list[str], finds_not: list[str]
) -> None:
    new_message(new_session(alice), content)
    with no_scans():
        assert [q for q in finds if not found(alice, q)] == []
        assert [q for q in finds_not if found(alice, q)] == []


def test_the_index_leaves_nothing_out(alice: Caller, settings: Settings) -> None:
    """Made-up words of letters that a parser of words may take apart: what begins with them is found."""
    chosen = random.Random(7)
    made = [
        "".join(chosen.choices("ab019eExüÄßéжЖ한שعa\u0435\u0301字_-./@:+", k=chosen.randint(1, 9)))
        for _ in range(400)
    ]
    session = new_session(alice)
    for words in (made[start : start + 20] for start in range(0, len(made), 20)):
        new_message(session, " ".join(words))
    sought = [word[: chosen.randint(1, len(word))] for word in made]
    scanned = {
        word: search.find(Message.objects.all(), Session.objects.all(), [word], limit=50) for word in sought
    }
    assert all(page.keys for page in scanned.values())
    if connection.vendor == "postgresql":
        search_index.make()
    search_index.switch_on(settings)
    with no_scans():
        for word, page in scanned.items():
            assert search.find(Message.objects.all(), Session.objects.all(), [word], limit=50) == page, word


@pytest.mark.parametrize("text", hostile.TEXTS.values(), ids=hostile.TEXTS)
def test_any_text_finds_itself(alice: Caller, mode: str, text: str) -> None:
    message = new_message(new_session(alice), f"Before {text} after")
    words = search.words_of(text)[: search.MOST_WORDS]
    assert found(alice, " ".join(words)) == [message.pk]


@pytest.mark.parametrize("text", hostile.UNSTORABLE.values(), ids=hostile.UNSTORABLE)
def test_what_is_no_text_is_no_error_of_the_server(alice: Caller, text: str) -> None:
    new_message(new_session(alice))
    answer = alice.get(f"/api/search/?q={quote(text, errors='surrogatepass')}")
    assert answer.status_code == (422 if "\0" in text else 200)


DISTINCT = " ".join(f"{number:x}" for number in range(0x10000, 0x10000 + 174_000))


def test_a_mebibyte_of_distinct_words_is_stored_and_found(alice: Caller, mode: str) -> None:
    message = new_message(new_session(alice), DISTINCT)
    within, beyond = DISTINCT[:SEARCHED].split()[-2], DISTINCT.split()[-1]
    assert len(DISTINCT) > 1_000_000
    assert found(alice, f"10000 {within}") == [message.pk]
    assert found(alice, beyond) == []


def test_compounds_of_more_words_than_a_row_of_the_index_holds_are_stored(alice: Caller, mode: str) -> None:
    """Left alone, PostgreSQL would take each for two words and a third."""
    chosen = random.Random(7)
    letters = [chr(0xAC00 + number) for number in range(11_000)]
    words = (
        "".join(chosen.choices(letters, k=2)) + "-" + "".join(chosen.choices(letters, k=2)) for _ in range(34_000)
    )
    assert new_message(new_session(alice), " ".join(words))


def test_a_word_that_a_parser_takes_apart_is_found_at_the_end_of_a_long_message(alice: Caller, mode: str) -> None:
    """PostgreSQL knows the places of the first 16,383 words alone."""
    message = new_message(new_session(alice), "word " * 17_000 + "1e21ß9")
    assert found(alice, "1e21ß") == [message.pk]


# Whose messages


def test_only_ones_own_are_found(alice: Caller, bob: Caller, carol: Caller, shared: Workspace, mode: str) -> None:
    mine = new_message(new_session(alice, shared), "needle")
    assert found(alice, "needle") == [mine.pk]
    assert found(bob, "needle") == found(carol, "needle") == []


def test_a_session_that_one_administers_is_searched_when_it_is_named(
    carol: Caller, bob: Caller, session: Session
) -> None:
    message = new_message(session, "needle")
    assert found(carol, "needle", session_id=session.session_id) == [message.pk]
    assert bob.get(f"/api/search/?q=needle&session_id={session.pk}").status_code == 403


def test_a_workspace_that_was_left_is_not_searched(alice: Caller, shared: Workspace, mode: str) -> None:
    new_message(new_session(alice, shared), "needle")
    Membership.objects.filter(user=alice.user, workspace=shared).delete()
    assert found(alice, "needle") == []


def test_a_service_of_a_workspace_searches_there_alone(alice: Caller, shared: Workspace) -> None:
    there = new_message(new_session(alice, shared), "needle")
    new_message(new_session(alice), "needle")
    _, text = ServiceToken.objects.issue(name="back end", scope="read", workspace=shared)
    service = Caller(None, text)
    answer = service.get("/api/search/?q=needle", X_On_Behalf_Of=str(alice.user.public_id))
    assert [row["id"] for row in answer.json()] == [there.pk]


def test_what_is_deleted_is_gone_at_once(alice: Caller, mode: str) -> None:
    session = new_session(alice)
    first, second = new_message(session, "needle"), new_message(session, "needle")
    services.delete_message(first)
    assert found(alice, "needle") == [second.pk]
    services.trash_session(session)
    assert found(alice, "needle") == []
    services.restore_session(session)
    assert found(alice, "needle") == [second.pk]


def test_an_edit_is_found_by_its_new_words(alice: Caller, mode: str) -> None:
    message = new_message(new_session(alice), "needle")
    alice.patch(f"/api/messages/{message.pk}/", {"content": "haystack"})
    assert found(alice, "needle") == []
    assert found(alice, "haystack") == [message.pk]


def test_a_reply_whose_worker_is_lost_is_found_as_interrupted(alice: Caller) -> None:
    message = new_message(new_session(alice), "half of a needle", role="assistant")
    Message.objects.filter(pk=message.pk).update(status="streaming")
    assert [row["status"] for row in ask(alice, "needle").json()] == ["interrupted"]


# Narrowing


def test_session_workspace_role_and_time_narrow(alice: Caller, shared: Workspace, mode: str) -> None:
    one, other = new_session(alice, shared), new_session(alice)
    first = new_message(one, "needle")
    second = new_message(other, "needle", role="assistant")
    between = Message.objects.get(pk=second.pk).created_at
    assert found(alice, "needle") == [second.pk, first.pk]
    assert found(alice, "needle", session_id=one.pk) == [first.pk]
    assert found(alice, "needle", session_id=str(other.session_id)) == [second.pk]
    assert found(alice, "needle", workspace=shared.public_id) == [first.pk]
    assert found(alice, "needle", role="assistant") == [second.pk]
    assert found(alice, "needle", since=between.isoformat()) == [second.pk]
    assert found(alice, "needle", until=between.isoformat()) == [first.pk]


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("", "q"),
        ("q=", "q"),
        ("q=%20%09%0a", "q"),
        ("q=a%00b", "q"),
        (f"q={'x' * 256}", "q"),
        ("q=a+b+c+d+e+f+g+h+i+j+k", "q"),
        ("q=a&q=b", "q"),
        ("q=a&text=b", "text"),
        ("q=a&role=robot", "role"),
        ("q=a&workspace=1", "workspace"),
        ("q=a&since=yesterday", "since"),
        ("q=a&until=%00", "until"),
        ("q=a&limit=0", "limit"),
        ("q=a&limit=101", "limit"),
        ("q=a&cursor=x", "cursor"),
        ("q=a&session_id=1x", "session_id"),
    ],
)
def test_what_cannot_be_used_is_422(alice: Caller, query: str, place: str) -> None:
    answer = alice.get(f"/api/search/?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["query", place]


@pytest.mark.parametrize("times", [hostile.SOMETIME])
def test_any_moment_can_be_asked_for(alice: Caller, times: tuple[str, ...]) -> None:
    for moment in times:
        assert alice.get(f"/api/search/?q=a&since={moment}&until={moment}").status_code == 200, moment


# Pages


def test_pages_are_newest_first_and_hold_each_once(alice: Caller, mode: str) -> None:
    sessions = [new_session(alice), new_session(alice)]
    keys = [new_message(sessions[number % 2], "needle").pk for number in range(5)]
    answer = ask(alice, "needle", limit=2)
    seen = [row["id"] for row in answer.json()]
    while link := answer.headers.get("Link"):
        new_message(sessions[0], "needle")
        answer = alice.get(link.partition(">")[0].removeprefix("<http://testserver"))
        seen += [row["id"] for row in answer.json()]
    assert seen == keys[::-1]


def test_a_cursor_is_for_its_own_words(alice: Caller) -> None:
    session = new_session(alice)
    new_message(session, "needle")
    new_message(session, "needle")
    cursor = ask(alice, "needle", limit=1).headers["Link"].partition("cursor=")[2].partition(">")[0]
    assert alice.get(f"/api/search/?q=needle&cursor={cursor}").status_code == 200
    assert alice.get(f"/api/search/?q=pin&cursor={cursor}").status_code == 422


@pytest.mark.parametrize("rows", [1, 20])
def test_a_page_is_three_queries(alice: Caller, rows: int) -> None:
    for _ in range(rows):
        new_message(new_session(alice), "needle")
    with CaptureQueriesContext(connection) as captured:
        assert len(found(alice, "needle")) == rows
    # The first is for the token. PostgreSQL is given a time, within a transaction: here a savepoint.
    assert len(captured) == 4 + (3 if connection.vendor == "postgresql" else 0)


# Excerpts


def parts(caller: Caller, q: str) -> list[list[dict[str, Any]]]:
    (row,) = ask(caller, q).json()
    shown: list[list[dict[str, Any]]] = row["excerpts"]
    return shown


def test_a_hit_says_where_it_is(alice: Caller) -> None:
    session = new_session(alice, title="Sewing")
    new_message(session, "first")
    message = new_message(session, "A needle <b>")
    message.refresh_from_db()
    assert ask(alice, "Needle").json() == [
        {
            "id": message.pk,
            "session_id": session.pk,
            "session": str(session.session_id),
            "title": "Sewing",
            "position": 2,
            "role": "user",
            "status": "complete",
            "created_at": message.created_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "excerpts": [
                [
                    {"text": "A ", "match": False},
                    {"text": "needle", "match": True},
                    {"text": " <b>", "match": False},
                ]
            ],
        }
    ]


def test_an_excerpt_is_short_and_shows_each_word(alice: Caller) -> None:
    new_message(new_session(alice), "x " * 500 + "Needle and thread" + " y" * 5000 + " haystack" + " z" * 500)
    shown = parts(alice, "needle thread haystack")
    texts = ["".join(part["text"] for part in excerpt) for excerpt in shown]
    matches = [[part["text"] for part in excerpt if part["match"]] for excerpt in shown]
    assert matches == [["Needle", "thread"], ["haystack"]]
    assert all(len(text) < 240 and text[0] == text[-1] == "…" for text in texts)


def test_what_has_changed_meanwhile_is_shown_from_its_beginning() -> None:
    assert search.excerpts("Nothing of it", ["needle"]) == [[{"text": "Nothing of it", "match": False}]]
    assert search.excerpts("", ["needle"]) == [[]]


# How far it looks


@pytest.fixture
def newest_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "NEWEST", 3)


def test_without_the_index_the_newest_are_looked_at(alice: Caller, newest_three: None) -> None:
    old, new = new_session(alice), new_session(alice)
    keys = [new_message(session, "needle").pk for session in (old, old, new, new)]
    answer = ask(alice, "needle")
    assert [row["id"] for row in answer.json()] == [keys[3], keys[2], keys[1]]
    assert answer.headers["Search-Partial"] == "true"
    assert "Search-Partial" not in ask(alice, "needle", session_id=old.pk).headers


def test_so_many_sessions_are_looked_at(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "NEWEST_SESSIONS", 2)
    keys = [new_message(new_session(alice), "needle").pk for _ in range(2)]
    assert "Search-Partial" not in ask(alice, "needle").headers
    keys.append(new_message(new_session(alice), "needle").pk)
    answer = ask(alice, "needle")
    assert [row["id"] for row in answer.json()] == [keys[2], keys[1]]
    assert answer.headers["Search-Partial"] == "true"


@pytest.mark.postgres
def test_with_the_index_all_are_looked_at(alice: Caller, settings: Settings, newest_three: None) -> None:
    search_index.make()
    search_index.switch_on(settings)
    keys = [new_message(new_session(alice), "needle").pk for _ in range(5)]
    answer = ask(alice, "needle")
    assert [row["id"] for row in answer.json()] == keys[::-1]
    assert "Search-Partial" not in answer.headers


@pytest.mark.postgres
def test_with_the_index_what_takes_too_long_ends(
    alice: Caller, settings: Settings, newest_three: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MILLISECONDS", 1)
    search_index.switch_on(settings)  # And no index: it computes the words of each.
    session = new_session(alice)
    services.append(session, [{"role": "user", "content": DISTINCT[:200_000]}] * 5)
    now = timezone.now()
    answer = ask(alice, "10000", until=now.replace(year=now.year + 1).isoformat())
    assert len(answer.json()) == 3
    assert answer.headers["Search-Partial"] == "true"


@pytest.mark.postgres
@pytest.mark.django_db
def test_what_takes_too_long_to_read_is_503(
    alice: Caller, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little that is: the search then has no time at all."""
    for _ in range(20):
        services.append(session, [{"role": "user", "content": "word " * 20_000}])
    monkeypatch.setattr(search, "MILLISECONDS_OF_NEWEST", 1)
    answer = alice.get("/api/search/?q=nothing")
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert "Retry-After" in answer.headers
    monkeypatch.undo()
    assert alice.get("/api/search/?q=nothing").json() == []
