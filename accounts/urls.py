from __future__ import annotations

from django.urls import include, path, re_path

from accounts.views import ApiTokenViewSet, EventCookieViewSet, MeViewSet, UserViewSet
from chatstore.http.routers import OptionalSlashRouter

router = OptionalSlashRouter()
router.register("users", UserViewSet, basename="user")
router.register("me/tokens", ApiTokenViewSet, basename="me-token")

urlpatterns = [
    re_path(
        "^auth/session/?$",
        EventCookieViewSet.as_view({"post": "create", "delete": "destroy"}),
        name="event-cookie",
    ),
    re_path("^api/me/?$", MeViewSet.as_view({"get": "retrieve"}), name="me"),
    path("api/", include(router.urls)),
]
