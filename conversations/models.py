"""What is stored: sessions and their messages.

The counters on a session are exact at every commit, positions have no gaps when they are given, and
`version` rises with every change: `services.py` holds the transactions that keep it so.
"""

from __future__ import annotations

from typing import Any, Self, TypeVar

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from accounts.models import Membership, Retryable, User, Workspace
from chatstore.ids import new_uuid, row_id_of, uuid_of
from chatstore.indexes import TimeIndex

DEFAULT_TITLE = "New Chat"
Row = TypeVar("Row", bound=models.Model)


class OwnedQuerySet(models.QuerySet[Row]):
    """Rows that have an owner and are in a workspace."""

    def with_role_of(self, user: User) -> Self:
        """Each row with `role_of_caller`: the user's role in its workspace, None for a stranger.

        A scalar subquery, one look into the index for each row that a page shows. PostgreSQL turns IN and
        EXISTS into a join, and then sorts all of somebody's sessions to show the first fifty.
        """
        return self.annotate(role_of_caller=Membership.objects.role_of(user, "workspace_id"))

    def owned_by(self, user: User) -> Self:
        """The user's own, in workspaces they are still a member of."""
        return self.with_role_of(user).filter(owner=user, role_of_caller__isnull=False)


class SessionQuerySet(OwnedQuerySet["Session"]):
    def live(self) -> Self:
        return self.filter(deleted_at=None)

    def deleted(self) -> Self:
        return self.filter(deleted_at__isnull=False)

    def visible_to(self, user: User) -> Self:
        """What this user may read: their own, and everybody's where they are an admin (contract 2)."""
        own = Q(owner=user, role_of_caller__isnull=False)
        return self.with_role_of(user).filter(own | Q(role_of_caller=Membership.Role.ADMIN))

    def named(self, ref: str) -> Self:
        """The row that `ref` names by its integer id or its UUID; none where `ref` spells neither."""
        if session_id := uuid_of(ref):
            return self.filter(session_id=session_id)
        return self.filter(pk=row_id) if (row_id := row_id_of(ref)) else self.none()


class Session(Retryable):
    """A conversation: a title, links to what it is about, and counters over its messages."""

    session_id = models.UUIDField(default=new_uuid, unique=True, editable=False)
    owner = models.ForeignKey(User, models.CASCADE, related_name="+", db_index=False)
    # A copy of what never changes, so that a list need not join users.
    owner_public_id = models.UUIDField(editable=False)
    # By public id, which the API shows: a list need not join workspaces either.
    workspace = models.ForeignKey(
        Workspace, models.RESTRICT, to_field="public_id", related_name="+", db_index=False
    )
    title = models.CharField(max_length=500, default=DEFAULT_TITLE)
    titled = models.BooleanField(default=False, help_text="Somebody gave the title.")
    pocket = models.CharField(max_length=255, null=True, blank=True)
    group = models.CharField(max_length=255, null=True, blank=True)
    agent = models.CharField(max_length=255, null=True, blank=True)
    metadata = models.JSONField(null=True, blank=True)
    last_position = models.BigIntegerField(default=0)
    message_count = models.BigIntegerField(default=0)
    tokens = models.BigIntegerField(default=0)
    version = models.BigIntegerField(default=1)
    last_activity = models.DateTimeField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True, blank=True)

    role_of_caller: str | None  # Set by with_role_of().

    objects = SessionQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "idempotency_key"],
                name="session_idempotency_key",
                condition=Q(idempotency_key__isnull=False),
            ),
            models.CheckConstraint(
                condition=Q(message_count__gte=0, tokens__gte=0, last_position__gte=F("message_count")),
                name="session_counters",
            ),
            models.CheckConstraint(condition=Q(version__gte=1), name="session_version"),
            models.CheckConstraint(condition=~Q(title=""), name="session_title"),
        ]
        indexes = [
            # GET /api/sessions/: my sessions, newest first; also the trash, which is few among them.
            models.Index(fields=["owner", "-updated_at", "-id"], name="session_of_owner"),
            # GET /api/sessions/?workspace=W&owner=all: a workspace's sessions, newest first.
            models.Index(fields=["workspace", "-updated_at", "-id"], name="session_of_workspace"),
            # manage.py purge: what has been in the trash longest.
            models.Index(fields=["deleted_at"], name="session_trash", condition=Q(deleted_at__isnull=False)),
        ]
        # What staff may do beside looking, each for itself (docs/admin.md).
        permissions = [
            ("restore_session", "Can restore session"),
            ("trash_session", "Can move session to trash"),
            ("export_session", "Can export session"),
        ]

    def __str__(self) -> str:
        return f"session {self.pk} ({self.session_id})"

    def is_owned_by(self, user: User) -> bool:
        """Whether `user` owns it and is still a member of its workspace; needs `with_role_of(user)`."""
        return self.owner_id == user.pk and self.role_of_caller is not None

    def is_administered_by(self, user: User) -> bool:
        """Whether `user` is an admin of its workspace; needs `with_role_of(user)`."""
        return self.role_of_caller == Membership.Role.ADMIN


class MessageQuerySet(models.QuerySet["Message"]):
    def live(self) -> Self:
        """Messages that are there: neither they nor their session are deleted."""
        return self.filter(deleted_at=None, session__deleted_at=None)

    def visible_to(self, user: User) -> Self:
        """What this user may read, deleted messages of live sessions included."""
        return self.filter(session__in=Session.objects.live().visible_to(user))


class Message(Retryable):
    """One entry of a session. Its place is `position`: 1, 2, 3 ... without gaps when given, and final.

    A `tool_call` is a marker: arguments and outputs live in the tracing system, found by `trace_id` and
    `span_id`, which are kept exactly as sent.
    """

    class Role(models.TextChoices):
        USER = "user"
        ASSISTANT = "assistant"
        SYSTEM = "system"
        TOOL_CALL = "tool_call"
        TOOL = "tool"

    class Status(models.TextChoices):
        COMPLETE = "complete"
        STREAMING = "streaming"
        INTERRUPTED = "interrupted"
        FAILED = "failed"

    session = models.ForeignKey(Session, models.CASCADE, related_name="messages", db_index=False)
    position = models.BigIntegerField()
    role = models.CharField(max_length=16, choices=Role)
    content = models.TextField(blank=True)
    tool_name = models.CharField(max_length=255, null=True, blank=True)
    trace_id = models.CharField(max_length=255, null=True, blank=True)
    span_id = models.CharField(max_length=255, null=True, blank=True)
    tokens = models.IntegerField(default=0)
    metadata = models.JSONField(null=True, blank=True)
    status = models.CharField(max_length=16, choices=Status, default=Status.COMPLETE)
    version = models.BigIntegerField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True, blank=True)
    idempotency_index = models.IntegerField(default=0, editable=False)

    objects = MessageQuerySet.as_manager()

    class Meta:
        constraints = [
            # Also the index for every page of a session.
            models.UniqueConstraint(fields=["session", "position"], name="message_position"),
            models.UniqueConstraint(
                fields=["session", "idempotency_key", "idempotency_index"],
                name="message_idempotency_key",
                condition=Q(idempotency_key__isnull=False),
            ),
            models.CheckConstraint(
                condition=Q(role__in=["user", "assistant", "system", "tool_call", "tool"]),
                name="message_role",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["complete", "streaming", "interrupted", "failed"]),
                name="message_status",
            ),
            models.CheckConstraint(
                condition=Q(position__gte=1, tokens__gte=0, version__gte=1), name="message_numbers"
            ),
            models.CheckConstraint(
                condition=~Q(content="")
                | Q(deleted_at__isnull=False)
                | (Q(role="assistant") & ~Q(status="complete")),
                name="message_content",
            ),
        ]
        indexes = [
            # ?since_version=: what changed in a session, for a client that resumes.
            models.Index(fields=["session", "version"], name="message_version"),
            # ?trace_id= and the admin's search. Pattern operators serve a prefix too; a plain index does not.
            models.Index(
                fields=["trace_id"],
                name="message_trace",
                condition=Q(trace_id__isnull=False),
                opclasses=["varchar_pattern_ops"],
            ),
            # ?span_id= and the admin's search.
            models.Index(
                fields=["span_id"],
                name="message_span",
                condition=Q(span_id__isnull=False),
                opclasses=["varchar_pattern_ops"],
            ),
            # What a turn leaves open when it ends, and what an event stream begins with: few rows, for a while.
            models.Index(fields=["session"], name="message_streaming", condition=Q(status="streaming")),
            # The messages of some days: manage.py rollup, today's usage, and the admin's ?day=.
            # Several intervals for a range of pages: where a purge made room, new messages stand among old ones.
            TimeIndex(
                fields=["created_at"],
                name="message_time",
                opclasses=["timestamptz_minmax_multi_ops"],
                autosummarize=True,
                pages_per_range=64,
            ),
        ]

    def __str__(self) -> str:
        return f"message {self.pk} ({self.role})"


class TurnQuerySet(models.QuerySet["Turn"]):
    def running(self) -> Self:
        return self.filter(status=Turn.Status.RUNNING)

    def alive(self) -> Self:
        """Running, in a worker that still says so."""
        return self.running().filter(lease_until__gt=timezone.now())

    def shown(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Messages, as rows or as JSON: those that are still streaming and have lost their worker, interrupted. So
        they are for whoever reads, before it is written. One query where any is streaming, else none."""
        streaming = [row for row in rows if row.get("status") == Message.Status.STREAMING]
        if streaming:
            sessions = {row["session_id"] for row in streaming}
            alive = set(self.alive().filter(session__in=sessions).values_list("session_id", flat=True))
            for row in streaming:
                if row["session_id"] not in alive:
                    row["status"] = Message.Status.INTERRUPTED.value
        return rows

    def lost(self) -> Self:
        """Running, but their worker has not said so for too long."""
        return self.running().filter(lease_until__lte=timezone.now())


class Turn(models.Model):
    """A user's message and what an assistant makes of it. It runs in one worker, which renews its lease.

    Messages are named by their positions in the session: `question` is the user's, `answer` the last one that the
    assistant has written, the same as `question` until there is one.
    """

    class Status(models.TextChoices):
        RUNNING = "running"
        COMPLETE = "complete"
        INTERRUPTED = "interrupted"
        FAILED = "failed"

    session = models.ForeignKey(Session, models.CASCADE, related_name="turns", db_index=False)
    question = models.BigIntegerField()
    answer = models.BigIntegerField()
    status = models.CharField(max_length=16, choices=Status, default=Status.RUNNING)
    trace_id = models.CharField(max_length=255, null=True, blank=True)
    worker = models.CharField(max_length=64)
    lease_until = models.DateTimeField()
    stop_requested_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = TurnQuerySet.as_manager()

    class Meta:
        constraints = [
            # Also the index for the turn of a message, and for those of a session that is removed.
            models.UniqueConstraint(fields=["session", "question"], name="turn_of_question"),
            models.UniqueConstraint(fields=["session"], name="turn_running_once", condition=Q(status="running")),
            models.CheckConstraint(
                condition=Q(status__in=["running", "complete", "interrupted", "failed"]), name="turn_status"
            ),
            models.CheckConstraint(condition=Q(answer__gte=F("question")), name="turn_answer"),
        ]
        indexes = [
            # The turns whose worker is lost; those that run are few.
            models.Index(fields=["lease_until"], name="turn_lease", condition=Q(status="running")),
        ]
        permissions = [("settle_turn", "Can settle turn")]

    def __str__(self) -> str:
        return f"turn {self.pk} ({self.status})"

    @property
    def is_lost(self) -> bool:
        """Whether it is said to run, and its worker has not said so for too long."""
        return self.status == self.Status.RUNNING and self.lease_until <= timezone.now()


class AccessRecord(models.Model):
    """What a member of staff did with other people's conversations. Written once, never changed, never deleted.

    It points at nothing that a purge removes, and outlives the person who acted: their public id stays. It holds
    ids, what was searched for, and the reason that they gave; never a message's words.
    """

    class Action(models.TextChoices):
        TRANSCRIPT = "transcript"
        SEARCH = "search"
        EXPORT = "export"
        RESTORE = "restore"
        TRASH = "trash"
        SETTLE = "settle"
        VIEW = "view"

    user = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+", db_index=False)
    user_public_id = models.UUIDField()
    action = models.CharField(max_length=16, choices=Action)
    # No foreign key: a purge must not have to look here, nor take the record along.
    session_id = models.BigIntegerField(null=True)
    session_uuid = models.UUIDField(null=True)
    detail = models.CharField(max_length=255, blank=True, help_text="What was searched for, or in which form.")
    address = models.CharField(max_length=64, help_text="Where it came from; of IPv6 the network.")
    reason = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        default_permissions = ("view",)
        constraints = [
            models.CheckConstraint(
                condition=Q(action__in=["transcript", "search", "export", "restore", "trash", "settle", "view"]),
                name="access_action",
            ),
        ]
        indexes = [
            # The admin's ?user_public_id= and its search for a person, newest first.
            models.Index(fields=["user_public_id", "-id"], name="access_of_person"),
            # manage.py eraseuser: the records that point at the account, which let go of it.
            models.Index(fields=["user"], name="access_of_user", condition=Q(user__isnull=False)),
            # The admin's ?session_id= and its search for a session, newest first.
            models.Index(
                fields=["session_id", "-id"], name="access_of_session", condition=Q(session_id__isnull=False)
            ),
            # The admin's search for a session by its UUID, also after a purge.
            models.Index(fields=["session_uuid"], name="access_of_uuid", condition=Q(session_uuid__isnull=False)),
            # The admin's ?action__exact=, newest first: some are rare among very many others.
            models.Index(fields=["action", "-id"], name="access_of_action"),
        ]

    def __str__(self) -> str:
        return f"access record {self.pk} ({self.action})"


class Usage(models.Model):
    """What was said on a UTC day, by whom, where and in which role: the roll-up of messages (usage.py).

    Deleted messages count: what was used is not less for that. `agent` and `tool_name` are empty where there is
    none; calls of tools alone have a `tool_name`.
    """

    day = models.DateField()
    workspace = models.ForeignKey(
        Workspace, models.CASCADE, to_field="public_id", related_name="+", db_index=False
    )
    owner = models.ForeignKey(User, models.CASCADE, related_name="+", db_index=False)
    agent = models.CharField(max_length=255, blank=True)
    role = models.CharField(max_length=16, choices=Message.Role)
    tool_name = models.CharField(max_length=255, blank=True)
    messages = models.BigIntegerField()
    tokens = models.BigIntegerField()
    interrupted = models.BigIntegerField()
    failed = models.BigIntegerField()
    # Each session once a day, in one of the rows that its messages are counted in: so they can be added up.
    sessions = models.BigIntegerField()

    objects = OwnedQuerySet.as_manager()

    class Meta:
        default_permissions = ()
        constraints = [
            # Also the index for a range of days.
            models.UniqueConstraint(
                fields=["day", "workspace", "owner", "agent", "role", "tool_name"], name="usage_once"
            ),
        ]
        indexes = [
            # GET /api/usage/: the usage of one person; manage.py eraseuser.
            models.Index(fields=["owner", "day"], name="usage_of_owner"),
            # GET /api/usage/?workspace=W&owner=all; a workspace that is removed.
            models.Index(fields=["workspace", "day"], name="usage_of_workspace"),
        ]

    def __str__(self) -> str:
        return f"usage {self.pk} ({self.day})"


class UsageTotal(models.Model):
    """Usage of a UTC day added up for the dashboard, so that a page reads no more for more people.

    Of everything, of the workspace or of the agent that `subject` names; as a whole (`kind` day), or of one of the
    day's busiest tools, agents or workspaces.
    """

    class Scope(models.TextChoices):
        ALL = "all"
        WORKSPACE = "workspace"
        AGENT = "agent"

    class Kind(models.TextChoices):
        DAY = "day"
        TOOL = "tool"
        AGENT = "agent"
        WORKSPACE = "workspace"

    scope = models.CharField(max_length=16, choices=Scope)
    subject = models.CharField(max_length=255, blank=True)
    day = models.DateField()
    kind = models.CharField(max_length=16, choices=Kind)
    name = models.CharField(max_length=255, blank=True)
    messages = models.BigIntegerField()
    tokens = models.BigIntegerField()
    sessions = models.BigIntegerField()
    users = models.BigIntegerField()
    interrupted = models.BigIntegerField()
    failed = models.BigIntegerField()

    class Meta:
        default_permissions = ()
        constraints = [
            # Also the index for the days of one subject.
            models.UniqueConstraint(fields=["scope", "subject", "day", "kind", "name"], name="usagetotal_once"),
        ]
        indexes = [
            # manage.py rollup: the days that it counts again.
            models.Index(fields=["day"], name="usagetotal_day"),
        ]

    def __str__(self) -> str:
        return f"usage total {self.pk} ({self.day})"


class UsageMark(models.Model):
    """A UTC day whose messages changed after it may have been counted. Any number of marks for a day, so that
    nobody who writes one waits for another."""

    day = models.DateField()

    class Meta:
        default_permissions = ()
        indexes = [
            # manage.py rollup: the marks of the days that it counts.
            models.Index(fields=["day"], name="usagemark_day"),
        ]

    def __str__(self) -> str:
        return f"mark {self.pk} ({self.day})"


class UsageState(models.Model):
    """One row: how far usage has been rolled up, and when that was done last."""

    rolled_through = models.DateField(null=True)
    rolled_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"usage through {self.rolled_through}"


class Maintenance(models.Model):
    """One row: who is at work on `manage.py maintain`, and until when others leave it alone."""

    holder = models.CharField(max_length=64, blank=True)
    lease_until = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"maintenance ({self.holder or 'nobody'})"
