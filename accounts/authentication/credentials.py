"""What proved who is calling: `request.auth`."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Credential(Protocol):
    """`ref` names a credential in logs and counts, and is no secret: `api_token:12`."""

    @property
    def ref(self) -> str: ...


class AccessToken(NamedTuple):
    """An OIDC access token. `person` is the user's key: each of their tokens counts as one credential;
    `expires_at` in seconds of Unix time."""

    person: int
    expires_at: float

    @property
    def ref(self) -> str:
        return f"oidc:{self.person}"


class Login(NamedTuple):
    """A session of better-auth; `id` is its row's, as text."""

    id: str

    @property
    def ref(self) -> str:
        return f"better_auth:{self.id}"
