"""Users with all that belongs to them from the first sight on, made in batches and found again by identity."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from typing import NamedTuple

from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.db import IntegrityError, transaction

from accounts.models import Identity, Membership, User, Workspace
from conversations.bulk import pieces
from conversations.seeding.plans import PlannedPerson, digest_of, uuid_at

BATCH = 500
ATTEMPTS = 3


class Owner(NamedTuple):
    """What a session's row says of its owner."""

    id: int
    public_id: uuid.UUID
    workspace: uuid.UUID


def ensure(people: Iterable[PlannedPerson]) -> int:
    """Make those who are missing, with identity, personal workspace and an unusable password; how many were made.

    Safe beside another run: the unique identity decides, and the batch is looked at again.
    """
    return sum(ensure_batch(batch) for batch in pieces(people, BATCH))


def ensure_batch(batch: Collection[PlannedPerson]) -> int:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with transaction.atomic():
                there = known(batch)
                missing = [person for person in batch if (person.issuer, person.subject) not in there]
                make(missing)
            return len(missing)
        except IntegrityError:
            if attempt == ATTEMPTS:
                raise
    return 0


def known(batch: Collection[PlannedPerson]) -> set[tuple[str, str]]:
    found = Identity.objects.filter(
        issuer__in={person.issuer for person in batch}, subject__in=[person.subject for person in batch]
    )
    return set(found.values_list("issuer", "subject"))


def make(people: Collection[PlannedPerson]) -> None:
    users = User.objects.bulk_create(user_of(person) for person in people)
    workspaces = Workspace.objects.bulk_create(
        Workspace(
            public_id=uuid_at(user.date_joined, "workspace", str(user.public_id)),
            name="Personal",
            personal_of=user,
            created_at=user.date_joined,
        )
        for user in users
    )
    Membership.objects.bulk_create(
        Membership(user=user, workspace=workspace, role=Membership.Role.ADMIN, created_at=user.date_joined)
        for user, workspace in zip(users, workspaces, strict=True)
    )
    Identity.objects.bulk_create(
        Identity(user=user, issuer=person.issuer, subject=person.subject, created_at=person.joined)
        for user, person in zip(users, people, strict=True)
    )


def user_of(person: PlannedPerson) -> User:
    """Nobody can log in with the password: what follows the prefix is the hash of nothing."""
    return User(
        username=str(person.public_id),
        public_id=person.public_id,
        name=person.name,
        email=person.email,
        date_joined=person.joined,
        password=UNUSABLE_PASSWORD_PREFIX + digest_of("password", str(person.public_id))[:40],
    )


def owners(issuer: str, subjects: Collection[str]) -> dict[str, Owner]:
    """The users whom `issuer` calls so, by subject."""
    rows = Identity.objects.filter(issuer=issuer, subject__in=subjects).values_list(
        "subject", "user_id", "user__public_id", "user__personal__public_id"
    )
    return {subject: Owner(pk, public_id, home or personal(pk)) for subject, pk, public_id, home in rows}


def personal(user_id: int) -> uuid.UUID:
    return User.objects.get(pk=user_id).personal_workspace().public_id
