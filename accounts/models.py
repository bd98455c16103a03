"""Who is calling: people, the workspaces they share, and what proves who they are."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self
from uuid import UUID

from django.contrib.auth.models import AbstractUser
from django.contrib.auth.models import UserManager as DjangoUserManager
from django.db import IntegrityError, models, transaction
from django.db.models import Exists, ExpressionWrapper, OuterRef, Q
from django.db.models.functions import Lower
from django.utils import timezone

from chatstore.ids import new_uuid

LOCAL_ISSUER = "local"
SHOWN_CHARACTERS = 12
LAST_USED_RESOLUTION = timedelta(minutes=1)


class Retryable(models.Model):
    """A row that an `Idempotency-Key` made: it remembers the key and what was asked (design 3.3)."""

    idempotency_key = models.CharField(max_length=255, null=True, blank=True, editable=False)
    idempotency_digest = models.CharField(max_length=64, null=True, blank=True, editable=False)

    class Meta:
        abstract = True


class UserQuerySet(models.QuerySet["User"]):
    def with_powers(self) -> Self:
        """Each row with `has_powers`: whether the user holds any over this site (staff, superuser, a group, a
        permission)."""
        grouped = Exists(User.groups.through.objects.filter(user=OuterRef("pk")))
        permitted = Exists(User.user_permissions.through.objects.filter(user=OuterRef("pk")))
        powers = Q(is_staff=True) | Q(is_superuser=True) | Q(grouped) | Q(permitted)
        return self.annotate(has_powers=ExpressionWrapper(powers, models.BooleanField()))

    def manageable_by(self, caller: Any) -> Self:
        """Those on whom `caller` may act: everybody for a superuser; for others themselves, and whoever holds
        no powers over this site. Whoever may change a person can become them."""
        if caller.is_superuser:
            return self
        return self.with_powers().filter(Q(pk=caller.pk) | Q(has_powers=False))

    def with_role_in(self, workspace: UUID) -> Self:
        """Each row with `role_in`: the user's role in the workspace with this public id; None for a stranger, or
        where there is none."""
        roles = Membership.objects.filter(user=OuterRef("pk"), workspace__public_id=workspace)
        return self.annotate(role_in=models.Subquery(roles.values("role")))

    def identified(self, issuer: str, subject: str) -> Self:
        """The user whom `issuer` calls `subject`."""
        return self.filter(identities__issuer=issuer, identities__subject=subject)


class UserManager(DjangoUserManager.from_queryset(UserQuerySet)):  # type: ignore[misc]
    """People come with a personal workspace, whichever way they are made."""

    def create_user(self, username: str | None = None, *args: Any, **fields: Any) -> User:
        """A user with a personal workspace. Without a username the public id is the username."""
        fields.setdefault("public_id", new_uuid())
        with transaction.atomic():
            user = super().create_user(username or str(fields["public_id"]), *args, **fields)
            user.personal_workspace()
        return user

    def create_superuser(self, username: str, *args: Any, **fields: Any) -> User:
        with transaction.atomic():
            user = super().create_superuser(username, *args, **fields)
            user.personal_workspace()
        return user

    def of_identity(self, issuer: str, subject: str, **fields: Any) -> tuple[User, bool]:
        """The user whom `issuer` calls `subject`, made with `fields` at first sight; and whether they were made.

        Safe under concurrency: the unique identity decides who made the user, the other's is rolled back.
        """
        known = self.identified(issuer, subject)
        if user := known.first():
            return user, False
        try:
            with transaction.atomic():
                user = self.create_user(**fields)
                Identity.objects.create(user=user, issuer=issuer, subject=subject)
        except IntegrityError:
            return known.get(), False
        return user, True


class User(AbstractUser, Retryable):
    """A person or program that owns sessions. `username` is unique; `email` is not (two issuers may share one)."""

    first_name = None  # type: ignore[assignment]
    last_name = None  # type: ignore[assignment]
    name = models.CharField(max_length=255, blank=True)
    public_id = models.UUIDField(default=new_uuid, unique=True, editable=False)
    created_by = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, editable=False, related_name="+", db_index=False
    )

    # The public id of the one workspace that counts, where a service token of that workspace acts for the user.
    confined_to: UUID | None = None
    has_powers: bool  # As with_powers() has it.
    role_in: str | None  # As with_role_in() has it.

    REQUIRED_FIELDS: ClassVar[list[str]] = ["email"]
    objects: ClassVar[UserManager] = UserManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                "created_by",
                "idempotency_key",
                name="user_idempotency_key",
                condition=Q(idempotency_key__isnull=False),
            ),
        ]
        indexes = [
            # Staff look people up by email, in any case.
            models.Index(Lower("email"), name="user_email_lower"),
        ]

    def __str__(self) -> str:
        return self.username

    def get_full_name(self) -> str:
        return self.name or self.username

    def get_short_name(self) -> str:
        return self.get_full_name()

    def personal_workspace(self) -> Workspace:
        """This user's own workspace, made where it is missing."""
        known = self.memberships.filter(workspace__personal_of=self).select_related("workspace").first()
        if known:
            return known.workspace
        workspace, _ = Workspace.objects.get_or_create(personal_of=self, defaults={"name": "Personal"})
        Membership.objects.get_or_create(user=self, workspace=workspace, defaults={"role": Membership.Role.ADMIN})
        return workspace


class Workspace(models.Model):
    """Where sessions are kept. Each user has a personal one; others are shared by membership."""

    public_id = models.UUIDField(default=new_uuid, unique=True, editable=False)
    name = models.CharField(max_length=255)
    personal_of = models.OneToOneField(
        User, models.CASCADE, null=True, blank=True, editable=False, related_name="personal"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"


class MembershipQuerySet(models.QuerySet["Membership"]):
    def role_of(self, user: User, workspace: str) -> models.Subquery:
        """The role of `user` in the workspace that the outer query names by its column `workspace`."""
        roles = self.of(user).filter(workspace=models.OuterRef(workspace))
        return models.Subquery(roles.values("role"))

    def of(self, user: User) -> Self:
        """The memberships of `user` that count in this request."""
        memberships = self.filter(user=user)
        return memberships.filter(workspace=user.confined_to) if user.confined_to else memberships


class Membership(models.Model):
    """A user's place in a workspace. It counts from the next request (contract 2)."""

    class Role(models.TextChoices):
        MEMBER = "member"
        ADMIN = "admin"

    user = models.ForeignKey(User, models.CASCADE, related_name="memberships", db_index=False)
    workspace = models.ForeignKey(Workspace, models.CASCADE, to_field="public_id", related_name="memberships")
    role = models.CharField(max_length=16, choices=Role, default=Role.MEMBER)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        constraints = [
            # Also the index for "the role of this user in this workspace", which every request asks.
            models.UniqueConstraint(fields=["user", "workspace"], name="membership_once"),
            models.CheckConstraint(condition=Q(role__in=["member", "admin"]), name="membership_role"),
        ]

    def __str__(self) -> str:
        return f"membership {self.pk} ({self.role})"


class Identity(models.Model):
    """What an issuer calls a user. One user may have several; one (issuer, subject) has one user."""

    user = models.ForeignKey(User, models.CASCADE, related_name="identities")
    issuer = models.CharField(max_length=255)
    subject = models.CharField(max_length=255)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name_plural = "identities"
        constraints = [
            models.UniqueConstraint(fields=["issuer", "subject"], name="identity_once"),
        ]

    def __str__(self) -> str:
        return f"identity {self.pk}"


class TokenQuerySet(models.QuerySet["Any"]):
    def in_force(self, now: Any = None) -> Self:
        """Tokens that are neither revoked nor expired."""
        return self.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now or timezone.now()), revoked_at=None)

    def of_text(self, token: str) -> Self:
        return self.filter(digest=digest_of(token))


def digest_of(token: str) -> str:
    """SHA-256 of a token, in hex. The token has 256 random bits, so no salt and no slow hash are needed."""
    return hashlib.sha256(token.encode()).hexdigest()


class TokenManager(models.Manager.from_queryset(TokenQuerySet)):  # type: ignore[misc]
    def issue(self, **fields: Any) -> tuple[Any, str]:
        """A new token, and its plain text, which is stored nowhere."""
        token = self.model(**fields)
        text = token.generate()
        token.save(force_insert=True)
        return token, text


class Token(models.Model):
    """A bearer token as a digest; the plain text is shown once, when it is made."""

    KIND: ClassVar[str]
    PREFIX: ClassVar[str]

    name = models.CharField(max_length=255, blank=True)
    prefix = models.CharField(max_length=SHOWN_CHARACTERS, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.prefix}..."

    @property
    def ref(self) -> str:
        """Names the token in logs and counts (`api_token:12`); SERVICE_AUTH_TOKEN is no row and has no number."""
        return f"{self.KIND}:{self.pk or 0}"

    def generate(self) -> str:
        """Give this new row its secret: returns the plain text, keeps the digest and the first characters."""
        text = self.PREFIX + secrets.token_urlsafe(32)
        self.prefix, self.digest = text[:SHOWN_CHARACTERS], digest_of(text)
        return text

    def note_use(self, now: datetime) -> None:
        """Remember that the token was used; written at most once a minute."""
        if self.last_used_at is None or now - self.last_used_at >= LAST_USED_RESOLUTION:
            type(self)._default_manager.filter(pk=self.pk).update(last_used_at=now)

    def revoke(self) -> None:
        """From the next request on the token opens nothing. A second time changes nothing."""
        type(self)._default_manager.filter(pk=self.pk, revoked_at=None).update(revoked_at=timezone.now())


class ApiTokenQuerySet(TokenQuerySet):
    def valid(self, now: Any = None) -> Self:
        """Tokens that open something now: in force, of an active user."""
        return self.in_force(now).filter(user__is_active=True)


class ApiTokenManager(TokenManager.from_queryset(ApiTokenQuerySet)):  # type: ignore[misc]
    def issue(self, user: User, **fields: Any) -> tuple[ApiToken, str]:
        """A new token of `user`, and its plain text, which is stored nowhere."""
        issued: tuple[ApiToken, str] = super().issue(user=user, **fields)
        return issued


class ApiToken(Token, Retryable):
    """A person's own bearer token (`cst_...`)."""

    KIND = "api_token"
    PREFIX = "cst_"

    user = models.ForeignKey(User, models.CASCADE, related_name="api_tokens")

    objects: ClassVar[ApiTokenManager] = ApiTokenManager()

    class Meta:
        verbose_name = "API token"
        constraints = [
            # Also the index for "whose token is this", which every request asks.
            models.UniqueConstraint(fields=["digest"], name="api_token_digest"),
            models.UniqueConstraint(
                "user",
                "idempotency_key",
                name="api_token_idempotency_key",
                condition=Q(idempotency_key__isnull=False),
            ),
        ]


class ServiceToken(Token):
    """A back end's bearer token (`css_...`), with which it acts on behalf of users without powers.

    With a workspace it acts for that workspace's members alone, and nothing outside of it is theirs then.
    """

    KIND = "service_token"
    PREFIX = "css_"

    class Scope(models.TextChoices):
        """Space-separated, as OAuth 2.0 spells a scope (RFC 6749 section 3.3)."""

        READ = "read", "read"
        WRITE = "write", "write"
        READ_WRITE = "read write", "read and write"

    name = models.CharField(max_length=255, help_text="What the log calls the service.")
    scope = models.CharField(max_length=16, choices=Scope, default=Scope.READ_WRITE)
    workspace = models.ForeignKey(
        Workspace, models.CASCADE, to_field="public_id", null=True, blank=True, related_name="service_tokens"
    )

    objects: ClassVar[TokenManager] = TokenManager()

    class Meta:
        constraints = [
            # Also the index for "which service is this", which every request of one asks.
            models.UniqueConstraint(fields=["digest"], name="service_token_digest"),
            models.CheckConstraint(
                condition=Q(scope__in=["read", "write", "read write"]), name="service_token_scope"
            ),
        ]
