"""Who is calling: people, the workspaces they share, and what proves who they are."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

from django.contrib.auth.models import AbstractUser
from django.contrib.auth.models import UserManager as DjangoUserManager
from django.db import IntegrityError, models, transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Lower
from django.utils import timezone

from chatstore.ids import new_uuid

LOCAL_ISSUER = "local"
TOKEN_PREFIX = "cst_"  # noqa: S105
SHOWN_CHARACTERS = 12
LAST_USED_RESOLUTION = timedelta(minutes=1)


class Retryable(models.Model):
    """A row that an `Idempotency-Key` made: it remembers the key and what was asked (design 3.3)."""

    idempotency_key = models.CharField(max_length=255, null=True, blank=True, editable=False)
    idempotency_digest = models.CharField(max_length=64, null=True, blank=True, editable=False)

    class Meta:
        abstract = True


class UserQuerySet(models.QuerySet["User"]):
    def manageable_by(self, caller: Any) -> Self:
        """Those on whom `caller` may act: everybody for a superuser; for others themselves, and whoever holds
        no powers over this site. Whoever may change a person can become them."""
        if caller.is_superuser:
            return self
        grouped = Exists(User.groups.through.objects.filter(user=OuterRef("pk")))
        permitted = Exists(User.user_permissions.through.objects.filter(user=OuterRef("pk")))
        powerful = Q(is_staff=True) | Q(is_superuser=True) | Q(grouped) | Q(permitted)
        return self.filter(Q(pk=caller.pk) | ~powerful)


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
        known = self.filter(identities__issuer=issuer, identities__subject=subject)
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
        return models.Subquery(self.filter(user=user, workspace=models.OuterRef(workspace)).values("role"))


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


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def valid(self) -> Self:
        """Tokens that open something now: not revoked, not expired, of an active user."""
        return self.filter(
            Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now()),
            revoked_at=None,
            user__is_active=True,
        )

    def of_text(self, token: str) -> Self:
        return self.filter(digest=digest_of(token))


def digest_of(token: str) -> str:
    """SHA-256 of a token, in hex. The token has 256 random bits, so no salt and no slow hash are needed."""
    return hashlib.sha256(token.encode()).hexdigest()


class ApiTokenManager(models.Manager.from_queryset(ApiTokenQuerySet)):  # type: ignore[misc]
    def issue(self, user: User, **fields: Any) -> tuple[ApiToken, str]:
        """A new token of `user`, and its plain text, which is stored nowhere."""
        token = ApiToken(user=user, **fields)
        text = token.generate()
        token.save(force_insert=True)
        return token, text


class ApiToken(Retryable):
    """A bearer token (`cst_...`) as a digest; the plain text is shown once, when it is made."""

    user = models.ForeignKey(User, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=255, blank=True)
    prefix = models.CharField(max_length=SHOWN_CHARACTERS, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

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

    def __str__(self) -> str:
        return f"{self.prefix}..."

    def generate(self) -> str:
        """Give this new row its secret: returns the plain text, keeps the digest and the first characters."""
        text = TOKEN_PREFIX + secrets.token_urlsafe(32)
        self.prefix, self.digest = text[:SHOWN_CHARACTERS], digest_of(text)
        return text

    def note_use(self, now: datetime) -> None:
        """Remember that the token was used; written at most once a minute."""
        if self.last_used_at is None or now - self.last_used_at >= LAST_USED_RESOLUTION:
            ApiToken.objects.filter(pk=self.pk).update(last_used_at=now)

    def revoke(self) -> None:
        """From the next request on the token opens nothing. A second time changes nothing."""
        ApiToken.objects.filter(pk=self.pk, revoked_at=None).update(revoked_at=timezone.now())
