"""Pages of a list: `skip` and `limit`, and a cursor whose page costs the same at any depth."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from django.core import signing
from django.db.models import Q, QuerySet
from django.utils.dateparse import parse_datetime
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chatstore.http.parameters import integer_of
from chatstore.http.problems import Invalid
from chatstore.http.times import wire_time

PAGE_PARAMETERS = ("limit", "skip", "cursor")
MAX_SKIP = 2**31 - 1
# Reads rows, or their JSON where it has the names of the `keyset`: those after the one with this key (None: from
# the first on), how many to skip, how many at most.
Read = Callable[[Sequence[Any] | None, int, int], list[dict[str, Any]]]
SIGNER = signing.Signer(salt="chatstore.http.pagination")


class KeysetPagination(BasePagination):
    """Pages a queryset of rows (`values()`), or what a `Read` gives, in the order of the view's `keyset`.

    `keyset` names the columns of the order, all in one direction, the last one unique:
    ("position",) or ("-updated_at", "-id"). A page that is not the last carries `Link: <...>; rel="next"`
    (RFC 8288). Its cursor holds the last row's columns, signed, and bound to the caller, the path and the
    filters: another list's cursor is a 422.
    """

    default_limit = 50
    max_limit = 200

    def paginate_queryset(  # type: ignore[override]
        self, queryset: QuerySet[Any, Any] | Read, request: Request, view: APIView | None = None
    ) -> list[dict[str, Any]]:
        self.request, self.keyset = request, view.keyset  # type: ignore[union-attr]
        limit, skip, last = self.place(request)
        read = queryset if callable(queryset) else self.reading(queryset)
        rows = read(last, skip, limit + 1)
        self.next_after = rows[limit - 1] if len(rows) > limit else None
        return rows[:limit]

    def reading(self, queryset: QuerySet[Any, Any]) -> Read:
        def read(last: Sequence[Any] | None, skip: int, limit: int) -> list[dict[str, Any]]:
            rows = queryset if last is None else queryset.filter(beyond(self.keyset, last))
            return list(rows.order_by(*self.keyset)[skip : skip + limit])

        return read

    def place(self, request: Request) -> tuple[int, int, list[Any] | None]:
        """The page that the query asks for: limit, skip, and the key of the row before it."""
        query = request.query_params
        errors: dict[str, list[str]] = {}
        limit = integer_of(query, "limit", self.default_limit, 1, self.max_limit, errors)
        skip = integer_of(query, "skip", 0, 0, MAX_SKIP, errors)
        if "cursor" in query and "skip" in query:
            errors["skip"] = ["Goes with a first page, not with a cursor."]
        last = self.opened(query["cursor"], errors) if "cursor" in query else None
        if errors:
            raise Invalid("query", errors)
        return limit, skip, last

    def opened(self, cursor: str, errors: dict[str, list[str]]) -> list[Any] | None:
        try:
            binding, *last = SIGNER.unsign_object(cursor)
        except (signing.BadSignature, ValueError):
            binding, last = None, []
        if binding != self.binding():
            errors["cursor"] = ["Is not a cursor of this list with these filters."]
            return None
        return [parse_datetime(key) if isinstance(key, str) else key for key in last]

    def binding(self) -> str:
        """What a cursor is for: who asks, which list, in which order, with which filters."""
        filters = sorted(i for i in self.request.query_params.items() if i[0] not in PAGE_PARAMETERS)
        list_of = repr((self.request.user.pk, self.request.path.rstrip("/"), self.keyset, filters))
        return hashlib.blake2b(list_of.encode(), digest_size=8).hexdigest()

    def get_paginated_response(self, data: Any) -> Response:
        headers = {"Link": f'<{self.next_link()}>; rel="next"'} if self.next_after else None
        return Response(data, headers=headers)

    def next_link(self) -> str:
        assert self.next_after is not None
        keys = [self.next_after[name.lstrip("-")] for name in self.keyset]
        plain = [wire_time(key) if isinstance(key, datetime) else key for key in keys]
        cursor = SIGNER.sign_object([self.binding(), *plain]).replace(":", "%3A")
        others = self.request.query_params.copy()
        for name in ("skip", "cursor"):
            others.pop(name, None)
        query = f"{others.urlencode()}&cursor={cursor}" if others else f"cursor={cursor}"
        return self.request.build_absolute_uri(f"{self.request.path}?{query}")

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        def parameter(name: str, description: str, **schema: Any) -> dict[str, Any]:
            return {"name": name, "in": "query", "description": description, "schema": schema}

        return [
            parameter(
                "limit",
                "Rows in a page.",
                type="integer",
                minimum=1,
                maximum=self.max_limit,
                default=self.default_limit,
            ),
            parameter("skip", "Rows to leave out first.", type="integer", minimum=0, maximum=MAX_SKIP, default=0),
            parameter("cursor", "From the `Link` header of the page before.", type="string", minLength=1),
        ]

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return schema


def beyond(keyset: Sequence[str], last: Sequence[Any]) -> Q:
    """The rows after the one whose key is `last`.

    The bound on the first column stands alone so that an index begins there: (a, b) < (x, y) is
    a <= x and (a < x or b < y).
    """
    operator = "lt" if keyset[0].startswith("-") else "gt"
    names = [name.lstrip("-") for name in keyset]
    if len(names) == 1:
        return Q(**{f"{names[0]}__{operator}": last[0]})
    first, second = names
    return Q(**{f"{first}__{operator}e": last[0]}) & (
        Q(**{f"{first}__{operator}": last[0]}) | Q(**{f"{second}__{operator}": last[1]})
    )
