"""The search box and its page: who may, what is written down of a search, and what is shown."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from accounts.models import User
from conftest import Caller, new_message, new_session
from conversations import services
from conversations.models import Message, Session
from conversations.staff import find_page, lookups
from conversations.staff.traces import MOST_READ, candidates_in, query_of
from conversations.tests.chat_clients import configure
from conversations.tests.colleagues import FIND, holding, logged, said_in
from conversations.tests.test_find import DASHED, PASTED, SPAN, TRACE

MEGABYTE = 2**20


@pytest.fixture
def several(alice: Caller, session: Session) -> list[Message]:
    """Messages of one trace in two sessions."""
    return [new_message(place, "Xylophone", trace_id=TRACE) for place in (session, new_session(alice))]


def text_of(answer: Any) -> str:
    assert answer.status_code == 200
    return str(answer.content.decode())


# What is shown


def test_what_was_recognised_is_said(staff: Client, session: Session) -> None:
    new_message(session, trace_id="another")
    said = text_of(staff.get(FIND, {"q": f"trace {DASHED} of <nobody@example.com>"}))
    assert f"trace or session id: <code>{DASHED}</code>" in said
    assert "email address: <code>nobody@example.com</code>" in said


def test_a_list_shows_excerpts(staff: Client, several: list[Message]) -> None:
    said = text_of(staff.get(FIND, {"q": TRACE}))
    assert said.count("Xylophone") == 2
    assert "asks for a reason" not in said


def test_a_list_has_no_excerpts_where_reading_asks_for_a_reason(
    staff: Client, several: list[Message], settings: Settings
) -> None:
    configure(settings, access_reason_required=True)
    said = text_of(staff.get(FIND, {"q": TRACE}))
    assert "Xylophone" not in said
    assert "Reading asks for a reason here" in said
    assert all(f"message={message.pk}#" in said for message in several)


@pytest.mark.parametrize("pasted", [TRACE, "alice@example.com"])
def test_a_list_has_no_titles_where_reading_asks_for_a_reason(
    staff: Client, several: list[Message], settings: Settings, pasted: str
) -> None:
    Session.objects.update(title="Saxophone")
    assert text_of(staff.get(FIND, {"q": pasted})).count("Saxophone") == 2
    configure(settings, access_reason_required=True)
    said = text_of(staff.get(FIND, {"q": pasted}))
    assert "Saxophone" not in said
    assert "Reading asks for a reason here" in said
    assert all(str(message.session) in said for message in several)


def test_one_message_is_not_read_without_a_reason(staff: Client, session: Session, settings: Settings) -> None:
    configure(settings, access_reason_required=True)
    new_message(session, "Xylophone", trace_id=TRACE)
    said = text_of(staff.get(FIND, {"q": TRACE}, follow=True))
    assert 'name="reason"' in said
    assert "Xylophone" not in said


def test_an_id_on_too_many_messages_is_told(
    staff: Client, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "MOST_LOOKED_AT", 3)
    monkeypatch.setattr(find_page, "MOST_LOOKED_AT", 3)
    services.append(session, [{"role": "user", "content": "Hi", "trace_id": TRACE}] * 3)
    assert staff.get(FIND, {"q": TRACE}).status_code == 302
    new_message(session, trace_id=TRACE)
    said = text_of(staff.get(FIND, {"q": TRACE}))
    assert "the first 3 of each were" in said
    assert len(re.findall(r"message=\d+#", said)) == 4


# Who


def test_strangers_are_sent_to_the_login(alice: Caller) -> None:
    logged_in = Client()
    logged_in.force_login(alice.user)
    for client in (Client(), logged_in):
        for answer in (client.get(FIND, {"q": TRACE}), client.post(FIND, {"q": TRACE})):
            assert answer.headers["Location"].startswith("/admin/login/")
    assert alice.get(f"{FIND}?q={TRACE}").headers["Location"].startswith("/admin/login/")


@pytest.mark.parametrize("codenames", [(), ("view_message",), ("view_session",)])
def test_who_may_not_view_both_sees_neither_page_nor_box(
    db: None, codenames: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    client = holding(*codenames)
    for answer in (client.get(FIND, {"q": TRACE}), client.post(FIND, {"q": TRACE})):
        assert answer.status_code == 403
    refused = [(line["user"], line["action"]) for line in said_in(caplog, "refused")]
    assert refused == [(str(User.objects.get(username="vera").public_id), "search")] * 2
    assert "staff-find-text" not in client.get("/admin/").content.decode()
    assert logged("action") == []


def test_the_box_is_on_every_page_and_has_the_focus_on_its_own(db: None) -> None:
    client = holding("view_message", "view_session")
    for path, focused in (("/admin/", 0), ("/admin/conversations/message/", 0), (FIND, 1)):
        said = text_of(client.get(path))
        assert 'for="staff-find-text"' in said
        assert said.count(" autofocus") == focused
    assert "staff-find-text" not in Client().get("/admin/login/").content.decode()


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_there_is_no_other_method(staff: Client, method: str) -> None:
    assert getattr(staff, method)(FIND).status_code == 405


# What is written down


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("hits", [0, 1, 2])
def test_a_search_is_recorded_for_each_session_it_shows(
    operations: Client, several: list[Message], method: str, hits: int
) -> None:
    """Each time that it does: a post that leads to a list, and the list."""
    new_message(several[0].session, trace_id="once-1")
    pasted = ("trace_id=none-1", "trace_id=once-1", TRACE)[hits]
    answer = getattr(operations, method)(FIND, {"q": pasted})
    while answer.headers.get("Location", "").startswith("?"):
        answer = operations.get(FIND + answer.headers["Location"])
    detail = ["trace none-1", "trace once-1", f"uuid {TRACE}"][hits]
    found: list[Any] = [(message.session.pk, message.session.session_id) for message in several[:hits]] or [
        (None, None)
    ]
    times = 2 if method == "post" and hits == 2 else 1
    assert set(logged("action", "detail", "user_public_id")) == {
        ("search", detail, User.objects.get(username="operations").public_id)
    }
    assert Counter(logged("session_id", "session_uuid")) == Counter(found * times)


def test_a_post_that_leads_to_a_list_is_recorded(operations: Client, several: list[Message]) -> None:
    assert operations.post(FIND, {"q": TRACE}).headers["Location"] == f"?q={TRACE}"
    assert set(logged("session_id")) == {message.session_id for message in several}


def test_a_list_of_a_persons_sessions_is_recorded_for_each(operations: Client, several: list[Message]) -> None:
    operations.get(FIND, {"q": "alice@example.com"})
    assert set(logged("detail")) == {"email alice@example.com"}
    assert set(logged("session_id")) == {message.session_id for message in several}


@pytest.mark.parametrize("query", [{}, {"q": ""}, {"q": " \n"}, {"x": "1"}])
def test_no_search_is_not_recorded(operations: Client, query: dict[str, str]) -> None:
    assert operations.get(FIND, query).status_code == 200
    assert operations.post(FIND, query).status_code == 200
    assert logged("action") == []


@pytest.mark.parametrize(
    ("pasted", "detail"),
    [
        (TRACE, f"uuid {TRACE}"),
        (f"Hi, Xylophone lied in {DASHED}", f"uuid {DASHED}"),
        ("Xylophone of bob@example.com, session 17", "session 17, email bob@example.com"),
        ("17", "message 17, session 17"),
        ("trace_id=run-17 Xylophone", "trace run-17"),
        ("see 4bf92f35 Xylophone", "prefix 4bf92f35"),
        ("Xylophone", "no id recognised"),
        ("Xylophone 17 plays", "no id recognised"),
        ("correct-horse-17", "no id recognised"),
        ("a secret sentence", "no id recognised"),
    ],
)
def test_a_record_holds_ids_and_no_words(operations: Client, pasted: str, detail: str) -> None:
    operations.get(FIND, {"q": pasted})
    assert logged("detail") == [detail]


@pytest.mark.parametrize("column", ["trace_id", "span_id"])
@pytest.mark.parametrize(
    ("pasted", "detail"),
    [
        ("order-check-alpha", "pasted order-check-alpha"),
        ("order-ch", "prefix order-ch"),
        ("order-check-alpha?", "no id recognised"),
        ("order-check-beta", "no id recognised"),
    ],
)
def test_what_is_stored_as_an_id_is_one(
    operations: Client, session: Session, column: str, pasted: str, detail: str
) -> None:
    new_message(session, **{column: "order-check-alpha"})
    operations.get(FIND, {"q": pasted})
    assert logged("detail", "session_id") == [(detail, None if detail == "no id recognised" else session.pk)]


def test_a_long_id_is_cut_and_hides_no_other(operations: Client, session: Session) -> None:
    new_message(session, trace_id=TRACE)
    operations.get(FIND, {"q": f"trace={'a1' * 120}\n{TRACE}"})
    assert logged("detail") == [f"trace {'a1' * 31}a\N{HORIZONTAL ELLIPSIS}, uuid {TRACE}"]


def test_a_record_is_one_printable_line(operations: Client, session: Session) -> None:
    new_message(session, trace_id="a\u202eb\nc")
    operations.get(FIND, {"q": "a\u202eb\nc"})
    assert logged("detail") == ["pasted a b c"]


def test_a_record_holds_each_id_whole(operations: Client) -> None:
    operations.get(FIND, {"q": " ".join(f"{n:032x}" for n in range(20))})
    (detail,) = logged("detail")
    assert detail == f"{', '.join(f'uuid {n:032x}' for n in range(6))} and 14 more"
    assert len(detail) <= 255


# Pasting by POST


def test_the_box_posts_its_own_form_alone(db: None, session: Session) -> None:
    message = new_message(session, trace_id=TRACE)
    client = Client(enforce_csrf_checks=True)
    client.cookies = holding("view_message", "view_session").cookies
    assert client.post(FIND, {"q": TRACE}).status_code == 403
    form = text_of(client.get("/admin/")).partition('<form id="staff-find"')[2].partition("</form>")[0]
    token = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', form)[0]
    assert 'method="post"' in form
    assert "maxlength" not in form
    answer = client.post(FIND, {"q": TRACE, "csrfmiddlewaretoken": token})
    assert answer.status_code == 303
    assert f"message={message.pk}#" in answer.headers["Location"]


def test_several_are_listed_under_the_url_of_the_ids(staff: Client, several: list[Message]) -> None:
    answer = staff.post(FIND, {"q": f"Hi, Xylophone lied in {TRACE}. " + "so " * 5000})
    assert (answer.status_code, answer.headers["Location"]) == (303, f"?q={TRACE}")
    shown = staff.get(FIND + answer.headers["Location"])
    assert {hit.id for hit in shown.context["found"].messages} == {message.pk for message in several}


@pytest.mark.parametrize("pasted", ["say 17 words", "Xylophone", "correct-horse-17"])
def test_words_are_in_no_url(staff: Client, alice: Caller, session: Session, pasted: str) -> None:
    """An id may look like words: such are listed by the answer itself."""
    for place in (session, new_session(alice)):
        new_message(place, trace_id=pasted)
    answer = staff.post(FIND, {"q": pasted})
    assert answer.status_code == 200
    assert len(answer.context["found"].messages) == 2


@pytest.mark.parametrize("pasted", PASTED.values(), ids=PASTED)
def test_the_url_names_the_same_ids(pasted: str) -> None:
    ids = {named for named in candidates_in(pasted) if named.is_id}
    query = query_of(candidates_in(pasted))
    assert ids
    assert ids <= set(candidates_in(query))
    for text in sorted((named.text for named in ids), key=len, reverse=True):
        query = query.replace(text, "")
    assert set(query.split()) <= {"trace:", "span:"}


def test_a_long_url_is_none() -> None:
    assert query_of(candidates_in(" ".join(f"trace_id={n:03}{'é' * 250}" for n in range(20)))) == ""


def test_what_is_not_read_is_told(staff: Client, several: list[Message]) -> None:
    words = "x " * (MOST_READ // 2)
    assert staff.post(FIND, {"q": words[: -len(TRACE)] + TRACE}).status_code == 303
    said = text_of(staff.post(FIND, {"q": words + TRACE}))
    assert f"Only the first {MOST_READ} characters" in said
    assert "Nothing is stored" in said
    said = text_of(staff.post(FIND, {"q": TRACE + " x" * MOST_READ}))
    assert f"Only the first {MOST_READ} characters" in said
    assert said.count("Xylophone") == 2


@pytest.mark.parametrize("unit", ["x", "\0", "é ", "\u202e", f"{TRACE} ", "a1@b.cd ", "%25", "\\n"])
def test_a_megabyte_is_no_error(staff: Client, unit: str) -> None:
    assert staff.post(FIND, {"q": unit * (MEGABYTE // len(unit.encode()))}).status_code == 200


def test_more_than_any_body_may_have_is_413(staff: Client, settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = MEGABYTE
    form = f"q={'x' * MEGABYTE}"
    answer = staff.post(FIND, form, content_type="application/x-www-form-urlencoded")
    assert (answer.status_code, answer.content) == (413, b"More than 1 MB was sent.\n")


@pytest.mark.parametrize(
    "query",
    [
        "q=%00",
        "q=a%00b",
        "q=%ED%A0%80",
        "q=%2500",
        "q=%25ED%25A0%2580",
        "q=%",
        "q=",
        "",
        "q=-1",
        f"q={2**63}",
        f"q={'9' * 5000}",
        "q=%27%22%3C",
        "x=1",
        "q=%5C%25_%25_%25",
    ],
)
def test_nonsense_is_no_error(staff: Client, session: Session, query: str) -> None:
    assert staff.get(f"{FIND}?{query}").status_code == 200


# The cost

EVERYTHING = f"{TRACE} {SPAN} message 9 session 9 a@example.com alice@example.com ab12cd34 ab12cd35"


@pytest.mark.parametrize("stored", ["another", TRACE, "ab12cd34ffff"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_page_takes_few_queries(
    operations: Client, alice: Caller, several: list[Message], stored: str, method: str
) -> None:
    Message.objects.update(trace_id=stored)
    with CaptureQueriesContext(connection) as asked:
        getattr(operations, method)(FIND, {"q": EVERYTHING})
    assert len(asked) <= 12
