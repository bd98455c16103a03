"""How a request's body becomes an object: its size, its encoding, its JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any, cast

from django.db import connections
from django.http import HttpRequest
from rest_framework import status
from rest_framework.exceptions import APIException, UnsupportedMediaType
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from chatstore.http.negotiation import AlwaysJSON
from chatstore.http.problems import Invalid

# As in `chatstore.worker`.
SMALL_BODY = 16 * 1024


class PayloadTooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = "The request body is too large."
    default_code = "payload_too_large"


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("The same key stands twice in one object.")
    return found


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON.")


class StrictJSONParser(BaseParser):
    """RFC 8259 JSON in UTF-8, and an object at the top.

    UnreadablePostError where the client went away in the middle (`chatstore.http.chunked`): what came may be JSON
    all the same.
    Refused with 422: NaN and Infinity, the same key twice in one object, nesting and numbers beyond what
    Python parses, and anything but an object.
    """

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        # What a body may take to arrive is nothing to wait for with one of the few connections.
        if parser_context and is_slow(parser_context["request"]):
            give_back_connections()
        sent = stream.read()
        try:
            text = sent.decode("utf-8")
            data = json.loads(text, parse_constant=refuse_constant, object_pairs_hook=refuse_duplicates)
        except UnicodeDecodeError:
            raise Invalid("body", {"": ["The body is not UTF-8."]}, code="invalid_json") from None
        except RecursionError:
            raise Invalid("body", {"": ["The JSON is nested too deeply."]}, code="invalid_json") from None
        except json.JSONDecodeError as error:
            where = f"line {error.lineno} column {error.colno}"
            raise Invalid("body", {"": [f"Not JSON: {error.msg} at {where}."]}, code="invalid_json") from None
        except ValueError as error:
            said = str(error) if error.args and not str(error).startswith("Exceeds") else "A number is too long."
            raise Invalid("body", {"": [said]}, code="invalid_json") from None
        if not isinstance(data, dict):
            raise Invalid("body", {"": ["The body must be a JSON object."]}, code="invalid_json")
        return data


def content_length(request: HttpRequest | Request) -> int:
    """The body's length in bytes; 0 where there is none. Chunked bodies have been measured by `MeasuredBodies`."""
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0


def is_slow(request: HttpRequest | Request) -> bool:
    """Whether some of the body may still be on its way: small ones have come before we are asked."""
    return content_length(request) > SMALL_BODY or "HTTP_EXPECT" in request.META


def give_back_connections() -> None:
    """Of the store, and of the tables of logins where they are elsewhere."""
    for each in connections.all(initialized_only=True):
        if not each.in_atomic_block:
            each.close()


def check_body(request: Request, limit: int) -> None:
    """Refuse a body over `limit` bytes (413), or one that is not JSON (415), before anything is looked up."""
    length = content_length(request)
    if length > limit:
        raise PayloadTooLarge(f"The request body is larger than {limit} bytes.")
    if length and AlwaysJSON().select_parser(request, request.parsers or ()) is None:
        raise UnsupportedMediaType(request.content_type or "")


def body_of(request: Request) -> Mapping[str, Any]:
    """The parsed body; an absent one is an empty object."""
    return cast("Mapping[str, Any]", request.data) if content_length(request) else {}
