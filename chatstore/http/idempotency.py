"""The `Idempotency-Key` header of the creating POSTs (contract 1, retry)."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from rest_framework.request import Request

from chatstore.http.fields import compact_json
from chatstore.http.problems import Invalid
from chatstore.retries import Retry

KEY = re.compile(r"[\x20-\x7e]{1,255}")
REPLAYED = "Idempotency-Replayed"


def retry_of(request: Request, route: str, content: Any) -> Retry | None:
    """What the request's `Idempotency-Key` promises, None where it has none; 422 for a malformed one.

    `route` names the operation, `content` is the validated body: JSON types only.
    """
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is None:
        return None
    if not KEY.fullmatch(key):
        raise Invalid("header", {"Idempotency-Key": ["Must be 1 to 255 printable ASCII characters."]})
    said = f"{route}\n{compact_json(without_nulls(content))}"
    digest = hashlib.sha256(said.encode()).hexdigest()
    return Retry(key, digest)


def without_nulls(content: Any) -> Any:
    """The validated body, or a list of them, without null fields: null is as good as absent (contract 1)."""
    if isinstance(content, list):
        return [without_nulls(item) for item in content]
    return {name: value for name, value in content.items() if value is not None}
