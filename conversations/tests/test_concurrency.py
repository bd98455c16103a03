"""What many do at once comes out as if one had done it after the other (design 3.1, 3.3; promises 2, 3, 7)."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from django.conf import LazySettings
from django.db import connection
from django.db.models import Sum

from accounts.models import ApiToken, Membership, User, Workspace
from conftest import Caller, new_message, new_session
from conversations import services
from conversations.models import Message, Session

pytestmark = [pytest.mark.waits, pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

T = TypeVar("T")
THREADS = 16
HELLO = {"role": "user", "content": "Hello!"}


def at_once(jobs: Sequence[Callable[[], T]], threads: int = THREADS) -> list[T]:
    """What the jobs give, run by `threads` threads that begin together. Raises what a job raises."""
    start = threading.Barrier(min(threads, len(jobs)))

    def begun(number: int, job: Callable[[], T]) -> T:
        if number < start.parties:
            start.wait(timeout=10)
        try:
            return job()
        finally:
            connection.close()

    with ThreadPoolExecutor(threads) as pool:
        return [answer.result() for answer in [pool.submit(begun, *job) for job in enumerate(jobs)]]


def post(person: Caller, place: str, body: Any, key: str | None = None) -> Callable[[], Any]:
    """A job: a request by a client of its own."""
    headers = {"Idempotency_Key": key} if key else {}
    return lambda: Caller(person.user, person.token).post(place, body, **headers)


def is_exact(session: Session) -> bool:
    """Whether positions have no gaps, counters equal a recount, and no version is beyond the session's."""
    row, messages = Session.objects.get(pk=session.pk), Message.objects.filter(session=session)
    live = messages.filter(deleted_at=None)
    assert list(messages.order_by("position").values_list("position", flat=True)) == [
        *range(1, row.last_position + 1)
    ]
    assert row.message_count == live.count()
    assert row.tokens == (live.aggregate(total=Sum("tokens"))["total"] or 0)
    return all(1 < version <= row.version for version in messages.values_list("version", flat=True))


# Appends


def test_sixteen_append_to_one_session(session: Session) -> None:
    def ten() -> list[int]:
        return [services.append(session, [{**HELLO, "tokens": 3}])[0][0].position for _ in range(10)]

    given = at_once([ten] * THREADS)
    session.refresh_from_db()
    assert sorted(position for positions in given for position in positions) == list(range(1, 161))
    assert all(positions == sorted(positions) for positions in given)
    assert (session.message_count, session.tokens, session.version) == (160, 480, 161)
    assert is_exact(session)


def test_batches_stay_together(session: Session) -> None:
    def batch() -> list[int]:
        return [row.position for row in services.append(session, [HELLO] * 5)[0]]

    given = at_once([batch] * 40)
    assert all(positions == list(range(positions[0], positions[0] + 5)) for positions in given)
    assert is_exact(session)


def test_a_mix_of_everything_leaves_exact_counters(session: Session) -> None:
    services.append(session, [{**HELLO, "tokens": 5}] * 20)
    done = Counter[str]()

    def some(seed: int) -> Callable[[], None]:
        chance = random.Random(seed)

        def work() -> None:
            for number in range(12):
                ids = list(Message.objects.live().filter(session=session).values_list("pk", flat=True))
                message = Message.objects.select_related("session").get(pk=chance.choice(ids))
                name = chance.choice(["append", "batch", "edit", "edit", "delete", "rename"])
                try:
                    one_of(name, session, message, f"{seed}-{number}", chance)
                except services.MessageGone:
                    name = "too late"
                done[name] += 1

        return work

    at_once([some(seed) for seed in range(12)], 12)
    session.refresh_from_db()
    assert is_exact(session)
    assert sum(done.values()) == 144
    assert session.version == 2 + done.total() - done["too late"]
    assert min(done[name] for name in ("append", "batch", "edit", "delete", "rename")) > 0


def one_of(name: str, session: Session, message: Message, text: str, chance: random.Random) -> None:
    """One change, which makes a difference."""
    if name == "append":
        services.append(session, [{**HELLO, "content": text, "tokens": chance.randrange(9)}])
    elif name == "batch":
        services.append(session, [{**HELLO, "tokens": chance.randrange(9)}] * 3)
    elif name == "edit":
        services.change_message(message, {"content": text, "tokens": chance.randrange(9)})
    elif name == "delete":
        services.delete_message(message)
    else:
        services.change_session(session, {"title": text})


def test_two_sessions_in_opposite_order_do_not_deadlock(alice: Caller) -> None:
    one, two = new_session(alice), new_session(alice)

    def both(first: Session, second: Session) -> Callable[[], None]:
        def work() -> None:
            for _ in range(5):
                services.append(first, [HELLO])
                services.append(second, [HELLO])

        return work

    at_once([both(one, two), both(two, one)] * 8)
    assert [Session.objects.get(pk=each.pk).message_count for each in (one, two)] == [80, 80]
    assert is_exact(one)
    assert is_exact(two)


def test_a_message_deleted_by_many_is_counted_down_once(alice: Caller, session: Session) -> None:
    message = new_message(session, tokens=7)
    kept = new_message(session, tokens=1)
    place = f"/api/messages/{message.pk}/"
    answers = at_once([lambda: Caller(alice.user, alice.token).delete(place)] * 8, 8)
    assert Counter(answer.status_code for answer in answers) == {204: 1, 404: 7}
    session.refresh_from_db()
    assert (session.message_count, session.tokens, session.version) == (1, kept.tokens, 4)


def test_a_session_deleted_and_restored_by_many_changes_once_each(alice: Caller, session: Session) -> None:
    place = f"/api/sessions/{session.pk}/"
    gone = at_once([lambda: Caller(alice.user, alice.token).delete(place)] * 8, 8)
    back = at_once([post(alice, f"{place}restore/", None)] * 8, 8)
    assert Counter(answer.status_code for answer in gone) == {204: 1, 404: 7}
    assert Counter(answer.status_code for answer in back) == {200: 8}
    assert {answer.json()["version"] for answer in back} == {3}


def test_an_append_that_was_answered_is_there_whatever_became_of_the_session(
    alice: Caller, session: Session
) -> None:
    """Trash and restore run beside the appends: each is stored and counted, or answered 404."""
    place = f"/api/sessions/{session.pk}/"

    def back_and_forth() -> None:
        for _ in range(10):
            services.trash_session(session)
            services.restore_session(session)

    appends = [post(alice, f"{place}messages/", {**HELLO, "tokens": 1}) for _ in range(60)]
    _, *answers = at_once([back_and_forth, *appends], 12)
    stored = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    assert {answer.status_code for answer in answers} <= {201, 404}
    assert sorted(Message.objects.values_list("pk", flat=True)) == sorted(stored)
    assert is_exact(session)


def test_a_reader_sees_no_gap_while_others_append(alice: Caller, session: Session) -> None:
    """Positions appear in order: nobody sees 3 before 2."""
    place = f"/api/sessions/{session.pk}/messages/?limit=500"

    def read() -> bool:
        seen = [row["position"] for row in Caller(alice.user, alice.token).get(place).json()]
        return seen == list(range(1, len(seen) + 1))

    def write() -> bool:
        return all(services.append(session, [HELLO] * 2) for _ in range(10))

    assert all(at_once([read, write] * 8 + [read] * 20))


def test_a_counter_is_the_number_of_messages_at_every_commit(session: Session) -> None:
    services.append(session, [HELLO] * 30)
    pks = list(Message.objects.values_list("pk", flat=True))

    def read() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT message_count, (SELECT count(*) FROM conversations_message m"
                " WHERE m.session_id = s.id AND m.deleted_at IS NULL) FROM conversations_session s"
            )
            counter, number = cursor.fetchone()
        return bool(counter == number)

    def delete(pk: int) -> Callable[[], bool]:
        def work() -> bool:
            services.delete_message(Message.objects.select_related("session").get(pk=pk))
            return bool(services.append(session, [HELLO]))

        return work

    jobs = [job for pk in pks for job in (delete(pk), read, read)]
    assert all(at_once(jobs, 12))


# Retries


def shown(answer: Any) -> Any:
    """The answer's body, without what a replay cannot show."""
    body = answer.json()
    return {name: value for name, value in body.items() if name != "token"} if isinstance(body, dict) else body


def storm(person: Caller, place: str, bodies: Sequence[Any]) -> list[list[Any]]:
    """Each write sent three times at once, with a key of its own: the three answers of each."""
    jobs = [post(person, place, body, f"key-{number}") for number, body in enumerate(bodies) for _ in range(3)]
    answers = at_once(jobs, 12)
    return [answers[number : number + 3] for number in range(0, len(answers), 3)]


def is_calm(answers: list[list[Any]]) -> bool:
    """Of each three one made the row and two replayed it; and all said the same."""
    assert {answer.status_code for three in answers for answer in three} == {201}
    assert all(shown(three[0]) == shown(three[1]) == shown(three[2]) for three in answers)
    return all(
        [answer.headers.get("Idempotency-Replayed") for answer in three].count("true") == 2 for three in answers
    )


def test_a_storm_of_messages_is_stored_once(alice: Caller, session: Session) -> None:
    bodies = [{**HELLO, "content": f"{number}", "tokens": 1} for number in range(60)]
    assert is_calm(storm(alice, f"/api/messages/?session_id={session.pk}", bodies))
    session.refresh_from_db()
    assert sorted(int(text) for text in Message.objects.values_list("content", flat=True)) == list(range(60))
    assert (session.message_count, session.tokens, session.version) == (60, 60, 61)
    assert is_exact(session)


def test_a_storm_of_batches_is_stored_once(alice: Caller, session: Session) -> None:
    bodies = [
        {"messages": [{**HELLO, "content": f"{number}-{index}"} for index in range(3)]} for number in range(15)
    ]
    assert is_calm(storm(alice, f"/api/sessions/{session.pk}/messages/batch/", bodies))
    assert Message.objects.count() == 45
    assert is_exact(session)


def test_a_storm_of_sessions_is_stored_once(alice: Caller) -> None:
    assert is_calm(storm(alice, "/api/sessions/", [{"title": f"{number}"} for number in range(20)]))
    assert Session.objects.count() == 20


def test_a_storm_of_users_is_stored_once(sam: Caller) -> None:
    bodies = [{"username": f"user-{number}"} if number % 2 else {"name": f"{number}"} for number in range(30)]
    assert is_calm(storm(sam, "/api/users/", bodies))
    assert User.objects.count() == Workspace.objects.count() == Membership.objects.count() == 31


def test_one_token_is_made_and_shown_once(alice: Caller) -> None:
    answers = at_once([post(alice, "/api/me/tokens/", {"name": "laptop"}, "k")] * 12, 12)
    assert {answer.status_code for answer in answers} == {201}
    assert ApiToken.objects.filter(name="laptop").count() == 1
    assert len([answer for answer in answers if answer.json()["token"]]) == 1
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_one_key_with_different_content_makes_one_row(alice: Caller, session: Session) -> None:
    place = f"/api/sessions/{session.pk}/messages/"
    answers = at_once([post(alice, place, {**HELLO, "content": f"{number}"}, "k") for number in range(12)], 12)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 422: 11}
    assert Message.objects.count() == 1
    assert is_exact(session)


def test_one_key_on_a_message_and_a_batch_makes_one_of_them(alice: Caller, session: Session) -> None:
    place = f"/api/sessions/{session.pk}/messages/"
    jobs = [post(alice, place, HELLO, "k"), post(alice, f"{place}batch/", {"messages": [HELLO]}, "k")] * 6
    answers = at_once(jobs, 12)
    assert Counter(answer.status_code for answer in answers) == {201: 6, 422: 6}
    assert Message.objects.count() == 1


def test_people_with_the_same_key_make_their_own(alice: Caller, bob: Caller) -> None:
    answers = at_once([post(alice, "/api/sessions/", {}, "k"), post(bob, "/api/sessions/", {}, "k")] * 6, 12)
    assert {answer.status_code for answer in answers} == {201}
    assert Session.objects.filter(owner=alice.user).count() == Session.objects.filter(owner=bob.user).count() == 1


def test_one_username_is_given_once(sam: Caller) -> None:
    answers = at_once([post(sam, "/api/users/", {"username": "dave"})] * 8, 8)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 422: 7}


def test_the_quota_holds_and_a_retry_at_the_quota_is_a_replay(alice: Caller, settings: LazySettings) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"max_sessions_per_user": 3})
    answers = at_once([post(alice, "/api/sessions/", {}, f"key-{number // 3}") for number in range(18)], 12)
    assert Session.objects.count() == 3
    assert Counter(answer.status_code for answer in answers) == {201: 9, 400: 9}


# Retries, later


def test_a_retry_after_a_change_shows_the_row_as_it_is_now(alice: Caller, session: Session) -> None:
    place = f"/api/sessions/{session.pk}/messages/"
    made = alice.post(place, HELLO, Idempotency_Key="k").json()
    changed = alice.patch(f"/api/messages/{made['id']}/", {"content": "Changed"}).json()
    again = alice.post(place, HELLO, Idempotency_Key="k")
    assert (again.status_code, again["Idempotency-Replayed"], again.json()) == (201, "true", changed)


def test_a_retry_after_a_rename_shows_the_session_as_it_is_now(alice: Caller) -> None:
    made = alice.post("/api/sessions/", {"title": "One"}, Idempotency_Key="k").json()
    changed = alice.patch(f"/api/sessions/{made['id']}/", {"title": "Two"}).json()
    assert alice.post("/api/sessions/", {"title": "One"}, Idempotency_Key="k").json() == changed


@pytest.mark.parametrize("deleted", [0, 1], ids=["first", "second"])
def test_a_retry_after_a_deletion_is_404(alice: Caller, session: Session, deleted: int) -> None:
    """Also of a batch of which one message is deleted."""
    place, body = f"/api/sessions/{session.pk}/messages/batch/", {"messages": [HELLO, HELLO]}
    made = alice.post(place, body, Idempotency_Key="k").json()
    alice.delete(f"/api/messages/{made[deleted]['id']}/")
    assert alice.post(place, body, Idempotency_Key="k").status_code == 404
    assert Message.objects.count() == 2


def test_a_retry_after_the_session_is_deleted_is_404_until_it_is_restored(alice: Caller) -> None:
    made = alice.post("/api/sessions/", {}, Idempotency_Key="k").json()
    alice.delete(f"/api/sessions/{made['id']}/")
    assert alice.post("/api/sessions/", {}, Idempotency_Key="k").status_code == 404
    alice.post(f"/api/sessions/{made['id']}/restore/")
    assert alice.post("/api/sessions/", {}, Idempotency_Key="k").json()["id"] == made["id"]


@pytest.mark.parametrize("who", ["bob", "carol", "mallory", "sam"])
def test_a_retry_by_another_caller_is_403(who: str, request: pytest.FixtureRequest, session: Session) -> None:
    place, alice = f"/api/sessions/{session.pk}/messages/", request.getfixturevalue("alice")
    alice.post(place, HELLO, Idempotency_Key="k")
    assert request.getfixturevalue(who).post(place, HELLO, Idempotency_Key="k").status_code == 403


def test_a_retry_after_leaving_the_workspace_shows_nothing(alice: Caller, shared: Workspace) -> None:
    body = {"workspace_id": str(shared.public_id)}
    alice.post("/api/sessions/", body, Idempotency_Key="k")
    Membership.objects.filter(user=alice.user, workspace=shared).delete()
    assert alice.post("/api/sessions/", body, Idempotency_Key="k").status_code == 422


def test_the_two_spellings_of_an_append_are_one_operation(alice: Caller, session: Session) -> None:
    alice.post(f"/api/sessions/{session.session_id}/messages", HELLO, Idempotency_Key="k")
    again = alice.post(f"/api/messages/?session_id={session.pk}", HELLO, Idempotency_Key="k")
    assert again["Idempotency-Replayed"] == "true"


OTHERS = {
    "other-content": ("", {**HELLO, "content": "Other"}),
    "other-tokens": ("", {**HELLO, "tokens": 1}),
    "other-metadata": ("", {**HELLO, "metadata": {"a": True}}),
    "other-route": ("batch/", {"messages": [HELLO]}),
}


@pytest.mark.parametrize(("route", "body"), OTHERS.values(), ids=OTHERS.keys())
def test_a_key_for_something_else_is_422(alice: Caller, session: Session, route: str, body: Any) -> None:
    place = f"/api/sessions/{session.pk}/messages/"
    alice.post(place, HELLO, Idempotency_Key="k")
    answer = alice.post(place + route, body, Idempotency_Key="k")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert Message.objects.count() == 1
