"""The lines of users, who made them, workspaces and memberships.

A user who is not here by public id, but by an identity, is the same person: what is the file's user's becomes
theirs. A personal workspace is its person's: where they have one, it takes what was in the file's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

from django.contrib.auth.hashers import make_password
from django.db import IntegrityError, connection, transaction

from accounts.models import Identity, Membership, User, Workspace
from conversations import bulk
from conversations.transfer.lines import Line
from conversations.transfer.report import Report
from conversations.usage import take_time

# The name of the lock that imports take turns by.
TURN: Final = int.from_bytes(b"transfer")
USER_COLUMNS: Final = ("public_id", "username", "name", "email", "is_active", "date_joined", "password")
COMPARED: Final = {
    "username": "username",
    "name": "name",
    "email": "email",
    "is_active": "is_active",
    "created_at": "date_joined",
}


class Known:
    """Users and workspaces that have another public id here than in the file."""

    def __init__(self) -> None:
        self.users: dict[UUID, UUID] = {}
        self.workspaces: dict[UUID, UUID] = {}

    def users_here(self, ids: Iterable[UUID]) -> dict[UUID, User]:
        """Those who are here, by the file's public id."""
        named = {public_id: self.users.get(public_id, public_id) for public_id in ids}
        here = User.objects.in_bulk(list(named.values()), field_name="public_id")
        return {public_id: here[own] for public_id, own in named.items() if own in here}

    def workspaces_here(self, ids: Iterable[UUID]) -> dict[UUID, UUID]:
        """Their public ids here, by the file's."""
        named = {public_id: self.workspaces.get(public_id, public_id) for public_id in ids}
        there = Workspace.objects.filter(public_id__in=named.values())
        here = set(there.values_list("public_id", flat=True))
        return {public_id: own for public_id, own in named.items() if own in here}


def take_turn() -> None:
    """Wait for another import's transaction, as long as it takes: no two add the same at once."""
    take_time()
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [TURN])


# Users


@transaction.atomic
def load_users(lines: Sequence[Line], known: Known, report: Report) -> None:
    take_turn()
    identified = identities_here(lines)
    here = known.users_here(line.fields["public_id"] for line in lines)
    new = [line for line in lines if is_new(line, here, identified, known, report)]
    insert(
        User, "user", USER_COLUMNS, [user_row(line.fields) for line in new], [line.number for line in new], report
    )
    load_identities(lines, known, report)


def user_row(fields: dict[str, Any]) -> tuple[Any, ...]:
    """Nobody can log in with the password."""
    values = {**fields, "date_joined": fields["created_at"], "password": make_password(None)}
    return tuple(values[name] for name in USER_COLUMNS)


def identities_here(lines: Sequence[Line]) -> dict[tuple[str, str], UUID]:
    """Whose the identities of these lines are here."""
    wanted = {identity[1:] for line in lines for identity in line.fields["identities"]}
    rows = Identity.objects.filter(
        issuer__in={issuer for issuer, _ in wanted}, subject__in={subject for _, subject in wanted}
    ).values_list("issuer", "subject", "user__public_id")
    return {(issuer, subject): owner for issuer, subject, owner in rows if (issuer, subject) in wanted}


def is_new(
    line: Line, here: dict[UUID, User], identified: dict[tuple[str, str], UUID], known: Known, report: Report
) -> bool:
    """Whether the user must be made. Remembers who is here under another public id."""
    fields = line.fields
    if user := here.get(fields["public_id"]):
        different = [name for name, column in COMPARED.items() if fields[name] != getattr(user, column)]
        if different:
            report.differs(line.number, f"user {user.public_id}", different)
        else:
            report.there["user"] += 1
        return False
    owners = {identified[identity[1:]] for identity in fields["identities"] if identity[1:] in identified}
    if len(owners) > 1:
        report.refuse(line.number, f"user {fields['public_id']} has identities of several users who are here")
    elif owners:
        known.users[fields["public_id"]] = owners.pop()
        report.there["user"] += 1
    else:
        return True
    return False


def load_identities(lines: Sequence[Line], known: Known, report: Report) -> None:
    """Those that are missing. One that is somebody else's here stays theirs."""
    users = known.users_here(line.fields["public_id"] for line in lines)
    identified = identities_here(lines)
    rows, numbers = [], []
    for line, created_at, issuer, subject in identities_of(lines):
        user = users.get(line.fields["public_id"])
        owner = identified.get((issuer, subject))
        if user and owner is None:
            rows.append((user.pk, issuer, subject, created_at))
            numbers.append(line.number)
        elif user and owner != user.public_id:
            report.refuse(line.number, f"user {user.public_id} has an identity that is somebody else's here")
    for place, constraint in bulk.insert_what_fits(Identity, ("user", "issuer", "subject", "created_at"), rows):
        report.broke(numbers[place], constraint)


def identities_of(lines: Sequence[Line]) -> Iterator[tuple[Line, Any, str, str]]:
    for line in lines:
        for created_at, issuer, subject in line.fields["identities"]:
            yield line, created_at, issuer, subject


@transaction.atomic
def load_creations(lines: Sequence[Line], known: Known, report: Report) -> None:
    """Who made whom, and by which request. It is added to a user of this public id who was made by nobody."""
    take_turn()
    users = known.users_here(line.fields["user"] for line in lines)
    makers = known.users_here(line.fields["created_by"] for line in lines)
    for line in lines:
        fields = line.fields
        user, maker = users.get(fields["user"]), makers.get(fields["created_by"])
        if user is None or maker is None:
            report.refuse(line.number, "names a user who is not here")
        elif user.public_id != fields["user"]:
            report.there["creation"] += 1
        else:
            load_creation(line.number, user, (maker.pk, *made_with(fields)), report)


def made_with(fields: dict[str, Any]) -> tuple[Any, Any]:
    return fields["idempotency_key"], fields["idempotency_digest"]


def load_creation(number: int, user: User, made: tuple[Any, ...], report: Report) -> None:
    names = ("created_by_id", "idempotency_key", "idempotency_digest")
    here = tuple(getattr(user, name) for name in names)
    if here == made:
        report.there["creation"] += 1
    elif here != (None, None, None):
        report.differs(number, f"user {user.public_id}", ["created_by, idempotency_key or idempotency_digest"])
    else:
        try:
            with transaction.atomic():
                User.objects.filter(pk=user.pk).update(**dict(zip(names, made, strict=True)))
        except IntegrityError as error:
            report.broke(number, bulk.constraint_of(error))
        else:
            report.added["creation"] += 1


# Workspaces


@transaction.atomic
def load_workspaces(lines: Sequence[Line], known: Known, report: Report) -> None:
    take_turn()
    ids = [line.fields["public_id"] for line in lines]
    here = Workspace.objects.select_related("personal_of").in_bulk(ids, field_name="public_id")
    people = known.users_here(line.fields["personal_of"] for line in lines if line.fields["personal_of"])
    homes = dict(Workspace.objects.filter(personal_of__in=people.values()).values_list("personal_of", "public_id"))
    rows, numbers = [], []
    for line in lines:
        fields = line.fields
        person = people.get(fields["personal_of"])
        if workspace := here.get(fields["public_id"]):
            compare_workspace(line, workspace, person, report)
        elif fields["personal_of"] and person is None:
            report.refuse(line.number, "is personal to a user who is not here")
        elif person and person.pk in homes:
            known.workspaces[fields["public_id"]] = homes[person.pk]
            report.there["workspace"] += 1
        else:
            rows.append((fields["public_id"], fields["name"], person and person.pk, fields["created_at"]))
            numbers.append(line.number)
    columns = ("public_id", "name", "personal_of", "created_at")
    insert(Workspace, "workspace", columns, rows, numbers, report)


def compare_workspace(line: Line, workspace: Workspace, person: User | None, report: Report) -> None:
    fields = line.fields
    different = [name for name in ("name", "created_at") if fields[name] != getattr(workspace, name)]
    if workspace.personal_of != person or (fields["personal_of"] and person is None):
        different.append("personal_of")
    if different:
        report.differs(line.number, f"workspace {workspace.public_id}", different)
    else:
        report.there["workspace"] += 1


@transaction.atomic
def load_memberships(lines: Sequence[Line], known: Known, report: Report) -> None:
    take_turn()
    users = known.users_here(line.fields["user"] for line in lines)
    workspaces = known.workspaces_here(line.fields["workspace"] for line in lines)
    there = Membership.objects.filter(user__in=users.values(), workspace__public_id__in=workspaces.values())
    roles = {(member.user_id, member.workspace_id): member.role for member in there}
    rows, numbers = [], []
    for line in lines:
        fields = line.fields
        user, workspace = users.get(fields["user"]), workspaces.get(fields["workspace"])
        if user is None or workspace is None:
            report.refuse(line.number, "names a user or a workspace that is not here")
        elif role := roles.get((user.pk, workspace)):
            if role == fields["role"]:
                report.there["membership"] += 1
            else:
                report.differs(line.number, f"membership of {user.public_id} in {workspace}", ["role"])
        else:
            rows.append((user.pk, workspace, fields["role"], fields["created_at"]))
            numbers.append(line.number)
    insert(Membership, "membership", ("user", "workspace", "role", "created_at"), rows, numbers, report)


def insert(
    model: type[Any],
    kind: str,
    columns: Sequence[str],
    rows: Sequence[Any],
    numbers: Sequence[int],
    report: Report,
) -> None:
    refused = bulk.insert_what_fits(model, columns, rows)
    report.added[kind] += len(rows) - len(refused)
    for place, constraint in refused:
        report.broke(numbers[place], constraint)


LOAD: Final[dict[str, Callable[[Sequence[Line], Known, Report], None]]] = {
    "user": load_users,
    "creation": load_creations,
    "workspace": load_workspaces,
    "membership": load_memberships,
}
