"""What the viewsets of sessions, of messages and of what is found in them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.db.models import QuerySet
from rest_framework.exceptions import NotFound
from rest_framework.response import Response

from accounts.models import User
from chatstore.http.pagination import PAGE_PARAMETERS, KeysetPagination, Read
from chatstore.http.problems import Conflict, Invalid, Refused
from chatstore.http.viewsets import StrictViewSet
from chatstore.ids import row_id_of, uuid_of
from conversations import services
from conversations.api import queries
from conversations.models import Session

SESSION_GONE = "There is no such session."
MESSAGE_GONE = "There is no such message."

ANSWERS = {
    services.SessionGone: NotFound(SESSION_GONE),
    services.MessageGone: NotFound(MESSAGE_GONE),
    services.MessageStreaming: Conflict("The message is still being written.", code="message_streaming"),
    services.QuotaReached: Refused("You have as many sessions as you may.", code="session_quota_reached"),
}


class ConversationViewSet(StrictViewSet):
    def handle_exception(self, exc: Exception) -> Response:
        """The domain's errors as this API's answers."""
        return super().handle_exception(ANSWERS.get(type(exc), exc))

    @property
    def caller(self) -> User:
        return cast(User, self.request.user)

    def is_plain(self, *others: str) -> bool:
        """Whether nothing narrows the list but these parameters: its query then is one that is compiled."""
        return not self.request.query_params.keys() - {*PAGE_PARAMETERS, *others}

    def page_of(
        self, rows: QuerySet[Any, Any] | Read, shape: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        """What a Read gives, or the JSON that `shape` makes of a queryset's rows."""
        page = cast(KeysetPagination, self.paginator).paginate_queryset(rows, self.request, self)
        return [shape(row) for row in page] if shape and isinstance(rows, QuerySet) else page

    def session_named(self, ref: str, *, deleted_too: bool = False) -> Session:
        """Fetch, then authorise: 404 where it is not, 403 where it is not for the caller."""
        session = queries.session_named(ref, self.caller, deleted_too=deleted_too)
        if session is None:
            raise NotFound(SESSION_GONE)
        self.check_object_permissions(self.request, session)
        return session

    def session_in_query(self) -> Session | None:
        """The one that `session_id` names; None where it is absent, 422 where it names nothing."""
        ref = self.request.query_params.get("session_id")
        if ref is None:
            return None
        if uuid_of(ref) is None and row_id_of(ref) is None:
            raise Invalid("query", {"session_id": ["Must be an integer id or a UUID."]})
        return self.session_named(ref)
