"""The rules and transactions of sessions and messages, the same from web, command or test.

Every write to a session or its messages takes the lock of the session's row first, so that positions have
no gaps, counters are exact and versions rise by one (design section 3). Errors are the domain's own; the
API turns them into answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.db.models.expressions import Combinable
from django.db.models.functions import Greatest
from django.utils import timezone

from accounts.models import User, Workspace
from chatstore.retries import Retry
from conversations import statements, usage
from conversations.models import DEFAULT_TITLE, Message, Session, Turn

AUTO_TITLE_LENGTH: Final = 60
# What usage is counted by; content, say, is not.
USED: Final = {"tokens", "tool_name", "status"}


class SessionGone(Exception):
    """The session does not exist, or is deleted."""


class MessageGone(Exception):
    """The message does not exist, or is deleted, or its session is."""


class MessageStreaming(Exception):
    """The message is still being written."""


class QuotaReached(Exception):
    """The owner has as many live sessions as MAX_SESSIONS_PER_USER allows."""


# Sessions


def create_session(
    owner: User, workspace: Workspace, fields: Mapping[str, Any], retry: Retry | None = None
) -> tuple[Session, bool]:
    """A new session of `owner`, or the one that this key made before; and whether it was made now.

    `fields` may hold title, titled (false for a title that nobody gave), pocket, group, agent and metadata.
    Raises QuotaReached, KeyReused, and
    SessionGone for the retry of a session that is deleted.
    """
    now = timezone.now()
    session = Session(
        **{"title": DEFAULT_TITLE, "titled": "title" in fields, **fields},
        owner=owner,
        owner_public_id=owner.public_id,
        workspace=workspace,
        created_at=now,
        updated_at=now,
        last_activity=now,
        **(retry.columns if retry else {}),
    )
    try:
        with transaction.atomic() if has_quota() else nullcontext():
            check_quota(owner.pk)
            if statements.insert_session(session):
                return session, True
    except QuotaReached:  # The last one that fits may have been made by this very key.
        if retry is None or not made_by_owner(owner, retry).exists():
            raise
    return replayed_session(owner, retry), False


def made_by_owner(owner: User, retry: Retry) -> Any:
    return Session.objects.filter(owner=owner, idempotency_key=retry.key)


def replayed_session(owner: User, retry: Retry | None) -> Session:
    assert retry is not None
    session = made_by_owner(owner, retry).first()
    if session is None:  # Purged in this very moment.
        raise SessionGone
    retry.check(session.idempotency_digest)
    if session.deleted_at:
        raise SessionGone
    return session


def has_quota() -> bool:
    return settings.ENVIRONMENT.max_sessions_per_user is not None


def check_quota(owner_id: int) -> None:
    """Raise QuotaReached where one more live session is too many. Locks the owner until the commit, so that
    two creations at once cannot both pass."""
    limit = settings.ENVIRONMENT.max_sessions_per_user
    if limit is None:
        return
    User.objects.select_for_update(no_key=True).get(pk=owner_id)
    if Session.objects.live().filter(owner_id=owner_id)[:limit].count() >= limit:
        raise QuotaReached


def locked(session: Session) -> Session:
    """The session's row, locked until the commit, deleted or not. SessionGone where it has been purged."""
    row = Session.objects.select_for_update(no_key=True).filter(pk=session.pk).first()
    if row is None:
        raise SessionGone
    return row


def change_session(session: Session, changes: Mapping[str, Any]) -> Session:
    """Set title, pocket or metadata. `version` and `updated_at` move only where something differs."""
    with transaction.atomic():
        row = locked(session)
        if row.deleted_at:
            raise SessionGone
        titled = row.titled or "title" in changes
        if differing := difference(row, changes):
            moment = Greatest("updated_at", timezone.now())
            write_session(row, **differing, titled=titled, updated_at=moment)
        elif titled != row.titled:  # Nothing that anybody sees: no new version.
            Session.objects.filter(pk=row.pk).update(titled=True)
    return row


def trash_session(session: Session) -> None:
    """Soft delete: gone from every read path at the commit. SessionGone where it is deleted already."""
    with transaction.atomic():
        row = locked(session)
        if row.deleted_at:
            raise SessionGone
        write_session(row, deleted_at=timezone.now())
        Turn.objects.running().filter(session=row).update(stop_requested_at=timezone.now())


def restore_session(session: Session) -> Session:
    """Bring a session back as it was. Nothing changes for one that is not deleted. Raises QuotaReached."""
    with transaction.atomic():
        row = locked(session)
        if row.deleted_at:
            check_quota(row.owner_id)
            write_session(row, deleted_at=None, updated_at=Greatest("updated_at", timezone.now()))
    return row


def difference(row: Session | Message, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the changes that differ from the row."""
    return {name: value for name, value in changes.items() if not same_json(getattr(row, name), value)}


def same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal. For Python 1 and true are, too; for JSON only 1 and 1.0 are."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def write_session(row: Session, **values: Any) -> None:
    """Write columns of a locked session and raise its version; `row` is brought up to date."""
    Session.objects.filter(pk=row.pk).update(**values, version=F("version") + 1)
    row.version += 1
    for name, value in values.items():
        setattr(row, name, value)
    if computed := [name for name, value in values.items() if isinstance(value, Combinable)]:
        row.refresh_from_db(fields=computed)


# Messages


class Replay(Exception):
    """Ends an append's transaction without a trace: the key has made its rows before."""


def append(
    session: Session, messages: Sequence[Mapping[str, Any]], retry: Retry | None = None
) -> tuple[list[Message], bool]:
    """Append messages in order, all or none; or find those that this key made before.

    Each mapping holds role and content, and may hold tool_name, trace_id, span_id, tokens and metadata.
    Returns the rows and whether they were made now. Raises SessionGone, KeyReused, and MessageGone for
    the retry of a message that is deleted.
    """
    if len(messages) == 1 and connection.vendor == "postgresql" and not settings.ENVIRONMENT.auto_title:
        return append_at_once(session, messages, retry)
    try:
        with transaction.atomic(savepoint=retry is not None):
            return appended(session, messages, retry), True
    except Replay:
        return replayed_messages(session, retry), False


def appended(session: Session, messages: Sequence[Mapping[str, Any]], retry: Retry | None) -> list[Message]:
    now = timezone.now()
    counted = statements.count_up(session.pk, len(messages), sum(m.get("tokens", 0) for m in messages), now)
    if counted is None:
        raise SessionGone
    if retry and made_by(session, retry).exists():
        raise Replay
    rows = new_rows(session, messages, retry, now)
    for position, row in enumerate(rows, counted.last_position - len(rows) + 1):
        row.position, row.version = position, counted.version
    Message.objects.bulk_create(rows)
    if settings.ENVIRONMENT.auto_title:
        title_after(session, rows)
    return rows


def new_rows(
    session: Session, messages: Sequence[Mapping[str, Any]], retry: Retry | None, now: datetime
) -> list[Message]:
    """Rows without what the session gives them, position and version."""
    columns = retry.columns if retry else {}
    return [
        Message(**message, session=session, created_at=now, updated_at=now, idempotency_index=index, **columns)
        for index, message in enumerate(messages)
    ]


def append_at_once(
    session: Session, messages: Sequence[Mapping[str, Any]], retry: Retry | None
) -> tuple[list[Message], bool]:
    """`append` of one message in one round trip: the statement is its own transaction where there is none."""
    (row,) = new_rows(session, messages, retry, timezone.now())
    has_outer = connection.in_atomic_block and retry is not None
    try:
        with transaction.atomic() if has_outer else nullcontext():
            found = statements.append_one(row)
    except IntegrityError:
        if retry is None or not made_by(session, retry).exists():
            raise
        found = None  # The same key, in the same moment.
    if found:
        row.pk, row.position, row.version = found
        row._state.adding = False
        return [row], True
    if retry is None or not Session.objects.live().filter(pk=session.pk).exists():
        raise SessionGone
    return replayed_messages(session, retry), False


def made_by(session: Session, retry: Retry) -> Any:
    return Message.objects.filter(session=session, idempotency_key=retry.key)


def replayed_messages(session: Session, retry: Retry | None) -> list[Message]:
    assert retry is not None
    rows = list(made_by(session, retry).order_by("idempotency_index"))
    if not rows:  # Purged in this very moment.
        raise SessionGone
    retry.check(rows[0].idempotency_digest)
    if any(row.deleted_at for row in rows):
        raise MessageGone
    for row in rows:
        row.session = session
    return rows


def title_after(session: Session, rows: Sequence[Message]) -> None:
    """AUTO_TITLE: the first user message names a session whose title nobody gave. Part of the append."""
    said = next((row.content for row in rows if row.role == Message.Role.USER and row.content.strip()), None)
    if said is not None:
        title = shortened(said)
        Session.objects.filter(pk=session.pk, titled=False).update(title=title, titled=True)


def shortened(text: str) -> str:
    """`text` on one line, cut at a word near 60 characters."""
    line = " ".join(text.split())
    if len(line) <= AUTO_TITLE_LENGTH:
        return line
    cut = line[: AUTO_TITLE_LENGTH + 1].rsplit(" ", 1)[0]
    return cut[:AUTO_TITLE_LENGTH] + "…"


def locked_message(session: Session, message_id: int) -> Message:
    """A live, finished message of a locked session. MessageGone, MessageStreaming."""
    live = Message.objects.filter(session=session, pk=message_id, deleted_at=None)
    message = live.first()
    if message and message.status == Message.Status.STREAMING:
        settle_lost(session)
        message = live.first()
    if message is None:
        raise MessageGone
    if message.status == Message.Status.STREAMING:
        raise MessageStreaming
    return message


def end_turn(session: Session, turn: Turn, status: str, trace_id: str | None = None) -> bool:
    """Close a running turn of the locked session, and what is open of it. Returns whether it was running, for the
    worker that `turn` names."""
    open_rows = Message.objects.filter(session=session, status=Message.Status.STREAMING)
    now = timezone.now()
    if times := list(open_rows.values_list("created_at", flat=True)):
        write_session(session)
        usage.mark(times)
        of_rows = Message.Status.FAILED if status == Turn.Status.FAILED else Message.Status.INTERRUPTED
        open_rows.update(status=of_rows, version=session.version, updated_at=now)
    running = Turn.objects.running().filter(pk=turn.pk, worker=turn.worker)
    return bool(running.update(status=status, finished_at=now, trace_id=trace_id or turn.trace_id))


def settle_lost(session: Session) -> None:
    """Where the running turn of the locked session has lost its worker, it is interrupted now."""
    if lost := Turn.objects.lost().filter(session=session).first():
        end_turn(session, lost, Turn.Status.INTERRUPTED)


def change_message(message: Message, changes: Mapping[str, Any]) -> Message:
    """Set content, metadata, tokens, tool_name, trace_id or span_id. The version moves where something differs.

    Raises SessionGone, MessageGone, MessageStreaming.
    """
    with transaction.atomic():
        session = locked(message.session)
        if session.deleted_at:
            raise SessionGone
        row = locked_message(session, message.pk)
        differing = difference(row, changes)
        if differing:
            added = differing.get("tokens", row.tokens) - row.tokens
            write_message(session, row, added_tokens=added, **differing)
    row.session = session
    return row


def delete_message(message: Message) -> None:
    """Final: content, metadata and tool_name are emptied and the counters go down, in one transaction.

    Position, key and digest stay until the session is purged. Raises as `change_message` does.
    """
    with transaction.atomic():
        session = locked(message.session)
        if session.deleted_at:
            raise SessionGone
        row = locked_message(session, message.pk)
        emptied = {"content": "", "metadata": None, "tool_name": None}
        write_message(session, row, added_tokens=-row.tokens, added_count=-1, deleted_at=timezone.now(), **emptied)


def write_message(
    session: Session, row: Message, *, added_tokens: int, added_count: int = 0, **values: Any
) -> None:
    """Write columns of a message under its session's lock; counters and versions follow.

    Addressed by (session, id) and never saved whole, so that it can be routed on a cluster (design 3.7).
    """
    counters = {"tokens": added_tokens, "message_count": added_count}
    write_session(session, **{name: F(name) + added for name, added in counters.items() if added})
    now = timezone.now()
    written = {**values, "version": session.version, "updated_at": max(row.updated_at, now)}
    Message.objects.filter(session=session, pk=row.pk).update(**written)
    if USED & values.keys() and "deleted_at" not in values:
        usage.mark([row.created_at])
    for name, value in written.items():
        setattr(row, name, value)
