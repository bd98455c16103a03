"""Erasing a person: the account, everything they own, and what staff's tools remember about them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth import SESSION_KEY
from django.contrib.contenttypes.models import ContentType
from django.db import models, transaction
from django.db.models import Q, QuerySet

from accounts.models import ApiToken, Identity, Membership, ServiceToken, User, Workspace
from chatstore.ids import row_id_of, uuid_of
from conversations import usage
from conversations.models import Message, Session, Turn
from conversations.retention import Advance, Removed, counted, remove_all

ROWS_AT_ONCE = 1_000


class NobodyNamed(Exception):
    """No user is called so."""


class SeveralNamed(Exception):
    """The reference names more than one user; the argument holds their ids."""


class CannotErase(Exception):
    """A rule forbids it; the argument says which, for a person to read."""


def named(ref: str) -> User:
    """The one user whom `ref` names: an id, a public id, a username or `issuer|subject`.

    A username can look like somebody else's id; what cannot be undone asks for certainty. Raises NobodyNamed,
    SeveralNamed.
    """
    meant = Q(username=ref)
    issuer, bar, subject = ref.partition("|")
    if bar:
        meant |= Q(pk__in=Identity.objects.filter(issuer=issuer, subject=subject).values("user"))
    if row_id := row_id_of(ref):
        meant |= Q(pk=row_id)
    if public_id := uuid_of(ref):
        meant |= Q(public_id=public_id)
    users = list(User.objects.filter(meant).order_by("pk")[:2])
    if not users:
        raise NobodyNamed
    if len(users) > 1:
        raise SeveralNamed([user.pk for user in users])
    return users[0]


def owned(user: User) -> QuerySet[Session]:
    """The person's sessions, live and trashed, in every workspace."""
    return Session.objects.filter(owner=user).order_by("pk")


def about_to_go(user: User) -> Removed:
    return counted(owned(user))


def refusal(user: User) -> str | None:
    """The rule that forbids to erase this person, for a person to read; None where none does."""
    if set(active_superusers().values_list("pk", flat=True)) == {user.pk}:
        return "This is the last active superuser; nobody could manage the others."
    strangers = Session.objects.filter(workspace__in=personal(user).values("public_id")).exclude(owner=user)
    if number := strangers.count():
        return (
            f"{number:,} sessions of other people are in this person's personal workspace, and are not theirs"
            " to take along: let the owners go first, or purge the sessions."
        )
    return None


def refuse(user: User) -> None:
    if reason := refusal(user):
        raise CannotErase(reason)


def active_superusers() -> QuerySet[User]:
    return User.objects.filter(is_superuser=True, is_active=True)


def personal(user: User) -> QuerySet[Workspace]:
    return Workspace.objects.filter(personal_of=user)


def erase(user: User, advance: Advance) -> Removed:
    """Delete a person and everything of theirs, for good; returns what of sessions and messages was removed.

    First nobody can use the account any more, then the sessions go, some in each transaction, then the account.
    Stopped halfway it can be started again. Raises CannotErase with nothing changed, or, where somebody put a
    session into the personal workspace meanwhile, with the account closed.
    """
    close(user)
    forget_logins(user)
    forget_log_of_conversations(user)
    removed = remove_all(owned(user), advance)
    delete_account(user)
    return removed


@transaction.atomic
def close(user: User) -> None:
    """From the commit on the person's tokens open nothing, and nobody else is in the personal workspace."""
    list(active_superusers().select_for_update(no_key=True).order_by("pk"))  # Two erased at once are not two left.
    refuse(user)
    User.objects.filter(pk=user.pk).update(is_active=False)
    forget_log_of_account(user)
    Membership.objects.filter(workspace__in=personal(user)).exclude(user=user).delete()


@transaction.atomic
def delete_account(user: User) -> None:
    """What is left: the locks keep anything new from referring to the person or their workspace."""
    usage.wait_for_turn()
    list(User.objects.select_for_update().filter(pk=user.pk))
    list(personal(user).select_for_update())
    refuse(user)
    remove_all(owned(user), lambda _: None)  # What a request in flight has made since.
    forget_log_of_account(user)
    forget_logs(LogEntry.objects.filter(user=user))
    ApiToken.objects.filter(user=user).delete()
    Identity.objects.filter(user=user).delete()
    Membership.objects.filter(user=user).delete()
    personal(user).delete()
    User.objects.filter(created_by=user).update(idempotency_key=None, idempotency_digest=None)  # Their words.
    User.objects.filter(pk=user.pk).delete()


# What the admin remembers


def forget_log_of_account(user: User) -> None:
    """Delete the admin's log entries about the account and what belongs to it."""
    belongings: dict[type[models.Model], QuerySet[Any]] = {
        User: User.objects.filter(pk=user.pk),
        ApiToken: ApiToken.objects.filter(user=user),
        Identity: Identity.objects.filter(user=user),
        Membership: Membership.objects.filter(Q(user=user) | Q(workspace__in=personal(user))),
        Workspace: personal(user),
        ServiceToken: ServiceToken.objects.filter(workspace__in=personal(user)),
    }
    for model, rows in belongings.items():
        ids = [str(pk) for pk in rows.values_list("pk", flat=True)]
        forget_logs(entries_about(model).filter(object_id__in=ids))


def forget_log_of_conversations(user: User) -> None:
    """Delete the admin's log entries about the person's sessions, messages and turns.

    It walks the entries, not the messages: the log has no index on its objects, and is much the shorter.
    """
    of_sessions = Q(session__owner=user)
    for model, theirs in ((Session, Q(owner=user)), (Message, of_sessions), (Turn, of_sessions)):
        for entries in walked(entries_about(model)):
            named_by = {entry.pk: row_id_of(entry.object_id or "") for entry in entries}
            ids = set(
                model._default_manager.filter(theirs, pk__in=filter(None, named_by.values())).values_list("pk")
            )
            LogEntry.objects.filter(pk__in=[pk for pk, row_id in named_by.items() if (row_id,) in ids]).delete()


def entries_about(model: type[models.Model]) -> QuerySet[LogEntry]:
    """The log entries about rows of this model, also those made through a proxy of it."""
    names = [known for known in apps.get_models() if known._meta.concrete_model is model]
    types = ContentType.objects.get_for_models(*names, for_concrete_models=False)
    return LogEntry.objects.filter(content_type__in=types.values())


def forget_logs(entries: QuerySet[LogEntry]) -> None:
    for piece in walked(entries):
        LogEntry.objects.filter(pk__in=[entry.pk for entry in piece]).delete()


def forget_logins(user: User) -> None:
    """End the person's logins to the admin. Whose they are is only said inside their signed data."""
    logins = apps.get_model("sessions", "Session")
    for rows in walked(logins._default_manager.all()):
        theirs = [row.pk for row in rows if row.get_decoded().get(SESSION_KEY) == str(user.pk)]
        logins._default_manager.filter(pk__in=theirs).delete()


def walked(rows: QuerySet[Any]) -> Iterable[list[Any]]:
    """All of these rows, ROWS_AT_ONCE in a list, by primary key; they may be deleted on the way."""
    last = None
    while True:
        page = list((rows if last is None else rows.filter(pk__gt=last)).order_by("pk")[:ROWS_AT_ONCE])
        if not page:
            return
        yield page
        last = page[-1].pk
