"""People and what is theirs beside conversations: rows that name somebody or something that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.db.models import Exists, ForeignKey, Model, OuterRef, QuerySet

from accounts.models import ApiToken, Identity, Membership, ServiceToken, User, Workspace
from conversations.doctor.findings import Finding
from conversations.doctor.sessions import unhurried
from conversations.models import Usage

ROWS_AT_ONCE: Final = 10_000
REFERRING: Final[tuple[type[Model], ...]] = (User, Workspace, Membership, Identity, ApiToken, ServiceToken, Usage)
NOT_THERE: Final = "Bring back from a backup what it names, or delete the row by SQL."


def check(*, fix: bool) -> Iterator[Finding]:
    for model in REFERRING:
        for field in model._meta.concrete_fields:
            if isinstance(field, ForeignKey):
                yield from orphans(model, field)
    yield from homeless(fix=fix)


def orphans(model: type[Model], field: ForeignKey[Any, Any]) -> Iterator[Finding]:
    """Rows whose foreign key names nothing."""
    named = field.related_model._default_manager.filter(**{field.target_field.name: OuterRef(field.attname)})
    lacking = model._default_manager.filter(~Exists(named), **{f"{field.name}__isnull": False})
    for pk in walked(model._default_manager.all(), lacking):
        said = f"The {model._meta.verbose_name} {pk} names a {field.name} that is not there."
        yield Finding("orphans", said, NOT_THERE)


def homeless(*, fix: bool) -> Iterator[Finding]:
    """People without a workspace of their own, or who are no member of it. Their next request makes it, too."""
    at_home = Membership.objects.filter(user=OuterRef("pk"), workspace__personal_of=OuterRef("pk"))
    for pk in walked(User.objects.all(), User.objects.filter(~Exists(at_home))):
        if fix:
            User.objects.get(pk=pk).personal_workspace()
        yield Finding("orphans", f"The user {pk} has no personal workspace.", is_mended=fix)


def walked(rows: QuerySet[Any], found: QuerySet[Any]) -> Iterator[int]:
    """The keys of `found`, which are among `rows`, in statements of ROWS_AT_ONCE rows."""
    after = 0
    while True:
        following = rows.filter(pk__gt=after).order_by("pk").values_list("pk", flat=True)
        with unhurried():
            last = following[ROWS_AT_ONCE - 1 : ROWS_AT_ONCE].first()
            piece = found.filter(pk__gt=after)
            keys = list((piece if last is None else piece.filter(pk__lte=last)).values_list("pk", flat=True))
        yield from sorted(keys)
        if last is None:
            return
        after = last
