"""Lists of big tables in the admin: they count no table, sort none, and filter by nothing but known keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Final, cast

from django.contrib import admin, messages
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import IntegrityError
from django.db.models import Model, QuerySet, RestrictedError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

BOUND: Final = 10_000
MOST_RESOLVED: Final = 1_000


class BoundedPaginator(Paginator):
    """Pages over the first 10,000 rows. What is beyond is not counted and not offered: a search finds it."""

    @cached_property
    def probed(self) -> int:
        # In the page's own order: without one PostgreSQL may scan the table for the first that match.
        rows = cast("QuerySet[Any]", self.object_list)
        return rows[: BOUND + 1].count()

    @cached_property
    def count(self) -> int:
        return min(self.probed, BOUND)

    @property
    def overflow(self) -> str:
        """What the page says where there are more rows than it offers; empty where there are not."""
        return f"More than {BOUND:,}: narrow the search." if self.probed > BOUND else ""


class BoundedChangeList(ChangeList):
    """A list in an order that an index serves, of the columns that it shows."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """The admin's own order, whatever `?o=` says: any other sorts the whole table."""
        return list(self.model_admin.get_ordering(request))

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        columns = cast(BoundedAdmin, self.model_admin).list_defer
        return super().get_queryset(request, exclude_parameters).defer(*columns)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if self.paginator.overflow:
            # Equal counts hide "10000 results" beside the search box, which would not be true.
            self.full_result_count = self.result_count


class Autocomplete(AutocompleteJsonView):
    """Completes the fields of forms. A relation seen from its other end is none; Django's own fails there."""

    def process_request(self, request: HttpRequest) -> tuple[Any, ...]:
        found: tuple[Any, ...] = super().process_request(request)
        if not found[2].concrete:
            raise PermissionDenied
        return found


class ReadOnly:
    """For the admin or the inline of rows that staff see and never change, superusers too."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class BoundedAdmin(admin.ModelAdmin):
    """The stock admin for a big table. A subclass says in `search` what a search term can name.

    `exact_filters` are the query parameters that narrow the list: a name, and what reads its value or
    returns None for a malformed one. Any other parameter is a 400. `list_defer` are columns that the list
    does not load.
    """

    paginator = BoundedPaginator
    ordering = ("-id",)
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    exact_filters: ClassVar[Mapping[str, Callable[[str], object]]] = {}
    list_defer: ClassVar[Sequence[str]] = ()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BoundedChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        read = self.exact_filters.get(lookup)
        return read is not None and read(value) is not None

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        # PostgreSQL refuses NUL. The search box does so earlier, what completes a field does not.
        return (queryset.none() if "\0" in term else self.search(request, queryset, term)), False

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        """ "Select all 10000" means those that the pages offer, and none beyond the bound."""
        if request.POST.get("select_across") == "1":
            keys = list(queryset.values_list("pk", flat=True)[:BOUND])
            queryset = self.get_queryset(request).filter(pk__in=keys)
        return super().response_action(request, queryset, *args, **kwargs)

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except IntegrityError:
            return self.overtaken(request)

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().delete_view(request, *args, **kwargs)
        except (IntegrityError, RestrictedError):
            return self.overtaken(request)

    def overtaken(self, request: HttpRequest) -> HttpResponse:
        """The form was right when it was checked, and no longer when it was saved: a second click, say."""
        self.message_user(request, "Somebody changed this at the same time; nothing was saved.", messages.ERROR)
        return HttpResponseRedirect(request.path)

    def search(self, request: HttpRequest, queryset: QuerySet[Any], term: str) -> QuerySet[Any]:
        """The rows that `term` (stripped, not empty) names, found by indexes alone."""
        raise NotImplementedError

    def keys_found(self, request: HttpRequest, model: type[Model], term: str) -> list[int]:
        """Keys of `model` that its own admin's search finds, at most a thousand. They are looked up first,
        because an OR that reaches through a join uses no index."""
        rows = model._default_manager.order_by()
        found, _ = self.admin_site.get_model_admin(model).get_search_results(request, rows, term)
        return list(found.values_list("pk", flat=True)[:MOST_RESOLVED])
