from __future__ import annotations

from django.urls import re_path

from chatstore.http.routers import OptionalSlashRouter
from conversations.api.search import SearchViewSet
from conversations.api.usage import UsageViewSet
from conversations.api.views import MessageViewSet, SessionMessageViewSet, SessionViewSet

router = OptionalSlashRouter()
router.register("sessions", SessionViewSet, basename="session")
router.register("messages", MessageViewSet, basename="message")
router.register("search", SearchViewSet, basename="search")

urlpatterns = [
    *router.urls,
    re_path(r"^usage/?$", UsageViewSet.as_view({"get": "retrieve"}), name="usage"),
    re_path(
        r"^sessions/(?P<session_ref>[^/]+)/messages/?$",
        SessionMessageViewSet.as_view({"get": "list", "post": "create"}),
        name="session-messages",
    ),
    re_path(
        r"^sessions/(?P<session_ref>[^/]+)/messages/batch/?$",
        SessionMessageViewSet.as_view({"post": "batch"}, pagination_class=None),
        name="session-messages-batch",
    ),
]
