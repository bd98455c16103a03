"""The project's routes and, for the tests of its cookie, an event stream's place."""

from __future__ import annotations

from typing import cast

from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication.bearer import BearerAuthentication
from accounts.authentication.event_cookie import EventCookieAuthentication
from accounts.models import User
from chatstore.http.viewsets import StrictViewSet
from chatstore.urls import urlpatterns as of_the_project


class EventsViewSet(StrictViewSet):
    authentication_classes = (BearerAuthentication, EventCookieAuthentication)

    def retrieve(self, request: Request, ref: str) -> Response:
        return Response({"user": str(cast(User, request.user).public_id)})

    def create(self, request: Request, ref: str) -> Response:
        return Response({})


events = EventsViewSet.as_view({"get": "retrieve", "post": "create"})
urlpatterns = [path("api/sessions/<str:ref>/events/", events), *of_the_project]
