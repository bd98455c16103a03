"""An OIDC issuer for the tests: a real server with real keys on 127.0.0.1."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from chatstore.environment import OidcIssuer

AUDIENCE = "https://chat.example.com/api"

MAKERS: dict[str, Callable[[], Any]] = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}
ALGORITHMS = {name: jwt.get_algorithm_by_name(name) for name in MAKERS}


class Issuer:
    """Signs tokens and publishes its keys. `fetches` counts how often they were read; `answer` is what the server
    does with such a request, for a test to replace."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.jwks_url = f"{self.url}.well-known/jwks.json"
        self.private: dict[str, Any] = {}
        self.algorithms: dict[str, str] = {}
        self.fetches = 0
        self.add("key-1", "RS256")

    def add(self, kid: str, algorithm: str) -> None:
        """A new key, published from now on."""
        self.private[kid], self.algorithms[kid] = MAKERS[algorithm](), algorithm

    def jwks(self) -> dict[str, Any]:
        keys = []
        for kid, private in self.private.items():
            algorithm = self.algorithms[kid]
            jwk: dict[str, Any] = ALGORITHMS[algorithm].to_jwk(private.public_key(), as_dict=True)
            keys.append({**jwk, "kid": kid, "alg": algorithm, "use": "sig"})
        return {"keys": keys}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.dumps(self.jwks()).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What a good token says, with changes; a claim changed to None is left out."""
        now = int(time.time())
        said = {"iss": self.url, "aud": AUDIENCE, "sub": "auth0|alice", "iat": now, "exp": now + 600, **changes}
        return {name: value for name, value in said.items() if value is not None}

    def token(self, kid: str = "key-1", headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token signed with one of the keys."""
        said = self.claims(**changes)
        return jwt.encode(said, self.private[kid], self.algorithms[kid], headers={"kid": kid, **(headers or {})})

    def configured(self, **changes: Any) -> OidcIssuer:
        """What OIDC_ISSUERS says of it."""
        return OidcIssuer(issuer=self.url, audience=AUDIENCE, **changes)


@contextmanager
def issuing() -> Iterator[Issuer]:
    """A running issuer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.fetches += 1
            issuer.answer(self)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = Issuer(server.server_port)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
