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
from jwt.utils import base64url_encode

from accounts.authentication import issuer_keys
from chatstore.environment import OidcIssuer

Answer = Callable[[BaseHTTPRequestHandler], None]

AUDIENCE = "https://chat.example.com/api"

MAKERS: dict[str, Callable[[], Any]] = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}
ALGORITHMS = {name: jwt.get_algorithm_by_name(name) for name in MAKERS}


def segment(part: bytes | dict[str, Any]) -> bytes:
    """One of the three parts of a token."""
    return base64url_encode(part if isinstance(part, bytes) else json.dumps(part).encode())


class Issuer:
    """Signs tokens and publishes its keys. `fetches` counts how often they were read; `answer` is what the server
    does with such a request, for a test to replace."""

    def __init__(self, port: int, key: Any = None) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.jwks_url = f"{self.url}.well-known/jwks.json"
        self.private: dict[str, Any] = {}
        self.algorithms: dict[str, str] = {}
        self.fetches = 0
        self.answer: Answer = self.publish
        self.add("key-1", "RS256", key)

    def add(self, kid: str, algorithm: str, key: Any = None) -> None:
        """A new key, published from now on; `key`, where one is given."""
        self.private[kid], self.algorithms[kid] = key or MAKERS[algorithm](), algorithm

    def jwks(self) -> dict[str, Any]:
        keys = []
        for kid, private in self.private.items():
            algorithm = self.algorithms[kid]
            jwk: dict[str, Any] = ALGORITHMS[algorithm].to_jwk(private.public_key(), as_dict=True)
            keys.append({**jwk, "kid": kid, "alg": algorithm, "use": "sig"})
        return {"keys": keys}

    def withdraw(self, kid: str) -> None:
        """A key that is not published any more."""
        del self.private[kid], self.algorithms[kid]

    def publish(self, handler: BaseHTTPRequestHandler) -> None:
        reply(handler, json.dumps(self.jwks()).encode())

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What a good token says, with changes; a claim changed to None is left out."""
        now = int(time.time())
        said = {"iss": self.url, "aud": AUDIENCE, "sub": "auth0|alice", "iat": now, "exp": now + 600, **changes}
        return {name: value for name, value in said.items() if value is not None}

    def token(self, kid: str = "key-1", headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token signed with one of the keys."""
        said = self.claims(**changes)
        return jwt.encode(said, self.private[kid], self.algorithms[kid], headers={"kid": kid, **(headers or {})})

    def spelled(self, header: bytes | dict[str, Any], payload: bytes | dict[str, Any]) -> str:
        """A token of exactly these two parts, well signed with the first key, whatever they say."""
        signing_input = b".".join(segment(part) for part in (header, payload))
        algorithm, private = ALGORITHMS[self.algorithms["key-1"]], self.private["key-1"]
        return (signing_input + b"." + segment(algorithm.sign(signing_input, private))).decode()

    def configured(self, **changes: Any) -> OidcIssuer:
        """What OIDC_ISSUERS says of it."""
        return OidcIssuer(issuer=self.url, audience=AUDIENCE, **changes)


def reply(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    """An answer of an issuer's server."""
    handler.send_response(status)
    named = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    for name, value in named.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def issuing(key: Any = None) -> Iterator[Issuer]:
    """A running issuer, whose first key is `key`, or new (which takes a while)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.fetches += 1
            issuer.answer(self)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    issuer_keys.KEYS.clear()  # A port may be given again; what is remembered is of its last issuer.
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = Issuer(server.server_port, key)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
