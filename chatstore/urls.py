from __future__ import annotations

from django.contrib import admin
from django.urls import include, path, re_path

from chatstore.bounded_admin import Autocomplete
from chatstore.http.health import health, live
from chatstore.http.openapi import OpenAPIView, RedocView, SwaggerView, redoc_script
from chatstore.http.problems import api_not_found
from conversations.front import FrontPage
from conversations.staff import dashboard
from conversations.staff.find_page import find_page

handler400 = "chatstore.http.problems.bad_request"
handler403 = "chatstore.http.problems.permission_denied"
handler500 = "chatstore.http.problems.server_error"

admin.site.site_header = admin.site.site_title = "Chatstore"
admin.site.index_title = "Overview"

urlpatterns = [
    path("api/", include("conversations.api.urls")),  # First: what is asked most is found at once.
    path("", FrontPage.as_view(), name="front"),
    path("admin/find/", admin.site.admin_view(find_page), name="staff-find"),
    # Before the admin's own index, which it adds to.
    path("admin/", admin.site.admin_view(dashboard.index)),
    path(
        "admin/autocomplete/",
        admin.site.admin_view(Autocomplete.as_view(admin_site=admin.site)),
        name="staff-autocomplete",
    ),
    path("admin/", admin.site.urls),
    re_path(r"^health/?$", health, name="health"),
    re_path(r"^health/live/?$", live, name="health-live"),
    path("openapi.json", OpenAPIView.as_view(), name="openapi"),
    path("docs", SwaggerView.as_view(url_name="openapi"), name="docs"),
    path("redoc", RedocView.as_view(url_name="openapi"), name="redoc"),
    path("redoc.js", redoc_script, name="redoc-script"),
    path("", include("accounts.urls")),
    path("api/", include("conversations.chat.urls")),
    path("api", api_not_found),
    re_path(r"^api/", api_not_found),
]
