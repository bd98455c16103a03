from __future__ import annotations

from django.urls import re_path

from conversations.chat.views import ChatViewSet, ConversationViewSet, EventViewSet, StopViewSet

urlpatterns = [
    re_path("^chat/?$", ChatViewSet.as_view({"post": "create"}), name="chat"),
    re_path("^chat/stream/?$", ChatViewSet.as_view({"post": "stream"}), name="chat-stream"),
    re_path("^conversations/?$", ConversationViewSet.as_view({"get": "list"}), name="conversations"),
    re_path(
        "^conversations/(?P<ref>[^/]+)/?$",
        ConversationViewSet.as_view({"get": "retrieve"}, detail=True),
        name="conversation",
    ),
    re_path(
        "^sessions/(?P<ref>[^/]+)/events/?$", EventViewSet.as_view({"get": "retrieve"}, detail=True), name="events"
    ),
    re_path("^sessions/(?P<ref>[^/]+)/stop/?$", StopViewSet.as_view({"post": "create"}, detail=True), name="stop"),
]
