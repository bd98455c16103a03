from __future__ import annotations

from django.urls import re_path

from accounts.views import ApiTokenViewSet, MeViewSet, UserViewSet
from chatstore.http.routers import OptionalSlashRouter

router = OptionalSlashRouter()
router.register("users", UserViewSet, basename="user")
router.register("me/tokens", ApiTokenViewSet, basename="me-token")

urlpatterns = [
    re_path(r"^me/?$", MeViewSet.as_view({"get": "retrieve"}), name="me"),
    *router.urls,
]
