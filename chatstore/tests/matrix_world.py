"""The cast and its things, made once for all cells of a module; each test is undone within that transaction."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth.models import Permission
from django.db import connection, transaction
from django.db.models import Value
from django.db.models.functions import Concat
from django.test import override_settings
from django.utils import timezone
from pydantic import SecretStr

from accounts.models import ApiToken, Identity, Membership, ServiceToken, User, Workspace
from accounts.tests.issuers import Issuer, issuing
from chatstore.tests.matrix_things import secret
from conftest import Caller, caller, new_message, new_session
from conversations import services
from conversations.models import Message, Session, Turn

OF_THE_SETTINGS = secrets.token_urlsafe(32)
TABLES = [
    model._meta.db_table
    for model in (User, Workspace, Membership, Identity, ApiToken, ServiceToken, Session, Message, Turn)
]


class World(NamedTuple):
    """`callers` by principal; `names` is what paths are filled in with; `rows` what the tables held."""

    callers: dict[str, Caller]
    names: dict[str, Any]
    rows: dict[str, list[tuple[Any, ...]]]

    def __repr__(self) -> str:
        return "the world"


class Acting(Caller):
    """Somebody who says on whose behalf."""

    def __init__(self, token: str, on_behalf_of: object) -> None:
        super().__init__(None, token)
        self.on_behalf_of = str(on_behalf_of)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return super().send(method, path, body, **{"X_On_Behalf_Of": self.on_behalf_of, **headers})


def all_rows() -> dict[str, list[tuple[Any, ...]]]:
    """Every column of every row that the API can write."""
    with connection.cursor() as cursor:
        return {table: rows_of(cursor, table) for table in TABLES}


def rows_of(cursor: Any, table: str) -> list[tuple[Any, ...]]:
    cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)} ORDER BY id")
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def changed(world: World) -> list[str]:
    """The tables that are not as they were."""
    now = all_rows()
    return [name for name, before in world.rows.items() if now[name] != before]


@contextmanager
def made() -> Iterator[World]:
    with issuing() as issuer, issuing() as other_issuer, transaction.atomic():
        known = {"oidc_issuers": (issuer.configured(),), "service_auth_token": SecretStr(OF_THE_SETTINGS)}
        with override_settings(ENVIRONMENT=settings.ENVIRONMENT.model_copy(update=known)):
            people = invited()
            places = shared_by(people)
            callers = {**people, **services_of(people, places, issuer), **strangers(people, issuer, other_issuer)}
            names = furnished(people, places)
            uses_noted()
            for each in callers.values():
                each.client.raise_request_exception = False
            yield World(callers, names, all_rows())
        transaction.set_rollback(True)


def uses_noted() -> None:
    """All tokens count as just used for as long as the tests run: their use is written once a minute."""
    later = timezone.now() + timedelta(hours=1)
    ApiToken.objects.update(last_used_at=later)
    ServiceToken.objects.update(last_used_at=later)


def invited() -> dict[str, Caller]:
    people = {name: caller(name) for name in ("alice", "bob", "carol", "erin", "mallory")}
    people["token-of-deactivated"] = caller("dora", is_active=False)
    people["stan"] = caller("stan", is_staff=True)
    people["helen"] = caller("helen", is_staff=True)
    people["sam"] = caller("sam", is_staff=True, is_superuser=True)
    # Carol and erin are known by what they administer, not by what they are.
    User.objects.exclude(username__in=["carol", "erin"]).update(
        name=Concat(Value("secret[user-"), "username", Value("]"))
    )
    on_users = Permission.objects.filter(content_type__app_label="accounts", codename__endswith="_user")
    people["helen"].user.user_permissions.set(on_users)
    return people


def shared_by(people: dict[str, Caller]) -> dict[str, Workspace]:
    places = {name: Workspace.objects.create(name=secret(f"workspace-{name}")) for name in ("shared", "elsewhere")}
    roles = {"alice": "member", "bob": "member", "carol": "admin"}
    for place, members in (("shared", roles), ("elsewhere", {"erin": "admin", "mallory": "member"})):
        for name, role in members.items():
            Membership.objects.create(user=people[name].user, workspace=places[place], role=role)
    for name in ("alice", "mallory"):
        personal = people[name].user.personal_workspace()
        Workspace.objects.filter(pk=personal.pk).update(name=secret(f"workspace-{name}s"))
        places[f"{name}s"] = personal
    return places


def service(scope: str = "read write", **fields: Any) -> str:
    """The text of a new service token."""
    text: str = ServiceToken.objects.issue(name="back end", scope=scope, **fields)[1]
    return text


def services_of(people: dict[str, Caller], places: dict[str, Workspace], issuer: Issuer) -> dict[str, Caller]:
    ids = {name: person.user.public_id for name, person in people.items()}
    alice, bob, carol = ids["alice"], ids["bob"], ids["carol"]
    Identity.objects.create(user=people["alice"].user, issuer=issuer.url, subject="auth0|alice")
    now = timezone.now()
    anywhere, bound, elsewhere = service(), service(workspace=places["shared"]), places["elsewhere"]
    return {
        "alice-by-oidc": Caller(people["alice"].user, issuer.token()),
        "service-read": Acting(service("read"), alice),
        "service-write": Acting(service("write"), alice),
        "service-read-write": Acting(anywhere, alice),
        "service-by-subject": Acting(anywhere, f"{issuer.url}|auth0|alice"),
        "service-of-the-settings": Acting(OF_THE_SETTINGS, alice),
        "service-for-the-admin": Acting(anywhere, carol),
        "service-of-the-workspace": Acting(bound, alice),
        "service-of-the-workspace-for-its-admin": Acting(bound, carol),
        "service-expired": Acting(service(expires_at=now), alice),
        "service-revoked": Acting(service(revoked_at=now), alice),
        "service-for-nobody-named": Caller(None, anywhere),
        "service-for-an-empty-name": Acting(anywhere, ""),
        "service-for-somebody-absent": Acting(anywhere, places["shared"].public_id),
        "service-for-two": Acting(anywhere, f"{alice},{bob}"),
        "service-for-alice-twice": Acting(anywhere, f"{alice}, {alice}"),
        "service-for-staff": Acting(anywhere, ids["stan"]),
        "service-for-a-superuser": Acting(anywhere, ids["sam"]),
        "service-for-deactivated": Acting(anywhere, ids["token-of-deactivated"]),
        "service-of-the-settings-for-staff": Acting(OF_THE_SETTINGS, ids["stan"]),
        "service-of-another-workspace": Acting(service(workspace=elsewhere), alice),
        "alice-on-behalf-of-bob": Acting(people["alice"].token, bob),
        "alice-by-oidc-on-behalf-of-bob": Acting(issuer.token(), bob),
    }


def strangers(people: dict[str, Caller], issuer: Issuer, other_issuer: Issuer) -> dict[str, Caller]:
    """Whose token opens nothing."""
    alice, dora = people["alice"].user, people["token-of-deactivated"].user
    Identity.objects.create(user=dora, issuer=issuer.url, subject="auth0|dora")
    hour_ago = int(timezone.now().timestamp()) - 3600
    texts = {
        "nobody": "",
        "garbage": "cst_" + "x" * 43,
        "garbage-of-a-service": "css_" + "x" * 43,
        "expired-token": ApiToken.objects.issue(alice, expires_at=timezone.now())[1],
        "revoked-token": ApiToken.objects.issue(alice, revoked_at=timezone.now())[1],
        "oidc-expired": issuer.token(exp=hour_ago),
        "oidc-for-another-audience": issuer.token(aud="https://elsewhere.example.com/"),
        "oidc-of-another-issuer": other_issuer.token(),
        "oidc-of-deactivated": issuer.token(sub="auth0|dora"),
    }
    return {name: Caller(None, text) for name, text in texts.items()}


def furnished(people: dict[str, Caller], places: dict[str, Workspace]) -> dict[str, Any]:
    """The things that the paths name."""
    names: dict[str, Any] = {f"workspace_{name}": place.public_id for name, place in places.items()}
    names |= {f"user_{name}": person.user.pk for name, person in people.items()}
    names |= {
        "user_dora": people["token-of-deactivated"].user.pk,
        "public_id_alice": people["alice"].user.public_id,
    }
    for name, owner, place in (
        ("alices", "alice", "shared"),
        ("bobs", "bob", "shared"),
        ("mallorys", "mallory", "elsewhere"),
        ("personal", "alice", "alices"),
        ("left", "alice", "elsewhere"),
        ("deleted", "alice", "shared"),
        ("mallorys-deleted", "mallory", "elsewhere"),
    ):
        names |= session_with_messages(name, people[owner], places[place])
    for name, owner in (("alices", "alice"), ("bobs", "bob"), ("mallorys", "mallory")):
        names[f"token_{name}"] = a_token(people[owner], name)
    names["token_revoked"] = a_token(people["alice"], "revoked", revoked_at=timezone.now())
    return names


def session_with_messages(name: str, owner: Caller, place: Workspace) -> dict[str, Any]:
    """A session, one message of it and one that was deleted; the session itself too, where it is called so. A
    reply is being written in it, by another worker: nobody begins one during these tests."""
    session = new_session(owner, place, title=secret(f"session-{name}"))
    message = new_message(session, secret(f"message-{name}"), trace_id="run-1", span_id="step-1")
    emptied = new_message(session)
    services.delete_message(emptied)
    now = timezone.now()
    Turn.objects.create(
        session=session,
        question=1,
        answer=1,
        worker="another",
        started_at=now,
        lease_until=now + timedelta(days=1),
    )
    if name.endswith("deleted"):
        services.trash_session(session)
    told = name.replace("-", "_")
    uuid = str(session.session_id).upper() if name == "alices" else session.session_id
    return {
        f"session_{told}": session.pk,
        f"uuid_{told}": uuid,
        f"message_{told}": message.pk,
        f"emptied_{told}": emptied.pk,
    }


def a_token(person: Caller, name: str, **fields: Any) -> int:
    token, _ = ApiToken.objects.issue(person.user, name=secret(f"token-{name}"), **fields)
    return token.pk
