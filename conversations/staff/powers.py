"""What staff do with sessions in the admin, each by a permission of its own, by POST, and recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from django.contrib import admin, messages
from django.db import OperationalError, transaction
from django.db.models import QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.http.response import HttpResponseBase
from django.urls import path, reverse

from conversations import services
from conversations.models import AccessRecord, Session, Turn
from conversations.staff import access, export


def restore(session: Session) -> bool:
    """Each of these three takes a locked session, and says whether there was anything to do."""
    if session.deleted_at is None:
        return False
    services.restore_session(session)
    return True


def trash(session: Session) -> bool:
    if session.deleted_at:
        return False
    services.trash_session(session)
    return True


def settle(session: Session) -> bool:
    is_lost = Turn.objects.lost().filter(session=session).exists()
    services.settle_lost(session)
    return is_lost


class Power(NamedTuple):
    label: str
    done: str
    permission: str
    use: Callable[[Session], bool]


# By AccessRecord.Action.
POWERS: Final = {
    "restore": Power("Restore", "restored", "conversations.restore_session", restore),
    "trash": Power("Move to trash", "moved to trash", "conversations.trash_session", trash),
    "settle": Power("Settle lost turn", "settled", "conversations.settle_turn", settle),
}
EXPORT: Final = "conversations.export_session"


class SessionPowers(admin.ModelAdmin):
    """Buttons on a session's page, and actions on the list. Who lacks a permission sees neither, and is refused
    where the request is made by hand."""

    actions = ("restore", "trash", "settle", "export_jsonl", "export_markdown", "export_csv")

    def get_urls(self) -> list[Any]:
        def named(name: str, route: str, view: Callable[..., HttpResponseBase], **said: str) -> Any:
            wrapped = self.admin_site.admin_view(view)
            return path(f"<int:pk>/{route}/", wrapped, said, name=f"conversations_session_{name}")

        return [
            *(named(power, power, self.power_view, power=power) for power in POWERS),
            named("export", "export/<slug:form>", self.export_view),
            named("reason", "reason", self.reason_view),
            *super().get_urls(),
        ]

    # Permissions

    def may(self, request: HttpRequest, permission: str) -> bool:
        return self.has_view_permission(request) and request.user.has_perm(permission)

    def has_restore_permission(self, request: HttpRequest) -> bool:
        return self.may(request, POWERS["restore"].permission)

    def has_trash_permission(self, request: HttpRequest) -> bool:
        return self.may(request, POWERS["trash"].permission)

    def has_settle_permission(self, request: HttpRequest) -> bool:
        return self.may(request, POWERS["settle"].permission)

    def has_export_permission(self, request: HttpRequest) -> bool:
        """A file says what the messages say."""
        return self.may(request, EXPORT) and request.user.has_perm("conversations.view_message")

    # A session's page

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        """The title and the metadata are people's words."""
        session: Session = context["original"]
        if asking := access.asked_for_reason(request, session):
            return asking
        access.record(request, AccessRecord.Action.VIEW, session=session)
        context["powers"] = [
            (POWERS[power].label, reverse(f"admin:conversations_session_{power}", args=[session.pk]))
            for power in self.offered(request, session)
        ]
        context["exports"] = [
            (f"Export as {form.label}", reverse("admin:conversations_session_export", args=[session.pk, name]))
            for name, form in export.FORMS.items()
            if self.has_export_permission(request)
        ]
        return super().render_change_form(request, context, *args, **kwargs)

    def offered(self, request: HttpRequest, session: Session) -> Iterable[str]:
        """The powers that there is something to do for."""
        if session.deleted_at and self.has_restore_permission(request):
            yield "restore"
        if not session.deleted_at and self.has_trash_permission(request):
            yield "trash"
        if self.has_settle_permission(request) and Turn.objects.lost().filter(session=session).exists():
            yield "settle"

    def session_of(self, request: HttpRequest, pk: int) -> Session:
        session: Session | None = self.get_queryset(request).filter(pk=pk).first()
        if session is None:
            raise Http404
        return session

    def power_view(self, request: HttpRequest, pk: int, power: str) -> HttpResponse:
        if not self.may(request, POWERS[power].permission):
            access.refuse(power)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        self.used(request, power, [self.session_of(request, pk)])
        return HttpResponseRedirect(reverse("admin:conversations_session_change", args=[pk]))

    def export_view(self, request: HttpRequest, pk: int, form: str) -> HttpResponseBase:
        if not self.has_export_permission(request):
            access.refuse(AccessRecord.Action.EXPORT)
        if request.method != "GET":
            return HttpResponseNotAllowed(["GET"])
        session = self.session_of(request, pk)
        if form not in export.FORMS:
            raise Http404
        return access.asked_for_reason(request, session) or self.exported(request, form, [session])

    def reason_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if not self.has_view_permission(request):
            access.refuse("reason")
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        return access.take_reason(request, self.session_of(request, pk))

    # Actions on the list

    @admin.action(permissions=["restore"], description="Restore selected sessions")
    def restore(self, request: HttpRequest, queryset: QuerySet[Session]) -> None:
        self.used(request, "restore", keys_of(queryset))

    @admin.action(permissions=["trash"], description="Move selected sessions to trash")
    def trash(self, request: HttpRequest, queryset: QuerySet[Session]) -> None:
        self.used(request, "trash", keys_of(queryset))

    @admin.action(permissions=["settle"], description="Settle lost turns of selected sessions")
    def settle(self, request: HttpRequest, queryset: QuerySet[Session]) -> None:
        self.used(request, "settle", keys_of(queryset))

    @admin.action(permissions=["export"], description="Export selected sessions as JSONL")
    def export_jsonl(self, request: HttpRequest, queryset: QuerySet[Session]) -> HttpResponseBase:
        return self.exported_list(request, "jsonl", queryset)

    @admin.action(permissions=["export"], description="Export selected sessions as Markdown")
    def export_markdown(self, request: HttpRequest, queryset: QuerySet[Session]) -> HttpResponseBase:
        return self.exported_list(request, "md", queryset)

    @admin.action(permissions=["export"], description="Export messages of selected sessions as CSV")
    def export_csv(self, request: HttpRequest, queryset: QuerySet[Session]) -> HttpResponseBase:
        return self.exported_list(request, "csv", queryset)

    # What they do

    def used(self, request: HttpRequest, power: str, sessions: Iterable[Session]) -> None:
        """Each session in a transaction of its own, and its record with it."""
        results = [outcome(request, power, session) for session in sessions]
        said = f"{results.count('')} {POWERS[power].done}."
        left = sorted({result for result in results if result})
        self.message_user(request, " ".join([said, *left]), messages.WARNING if left else messages.SUCCESS)

    def exported_list(self, request: HttpRequest, form: str, queryset: QuerySet[Session]) -> HttpResponseBase:
        return access.asked_for_reason_of_many(request) or self.exported(request, form, list(keys_of(queryset)))

    def exported(self, request: HttpRequest, form: str, sessions: list[Session]) -> HttpResponseBase:
        access.record_each(request, AccessRecord.Action.EXPORT, sessions, detail=form)
        return export.exported(request, form, sessions)


def keys_of(queryset: QuerySet[Session]) -> QuerySet[Session]:
    """Ten thousand may be chosen, with a megabyte of metadata each."""
    return queryset.select_related(None).only("session_id")


def outcome(request: HttpRequest, power: str, session: Session) -> str:
    """Empty where it is done and recorded; else why not."""
    try:
        with transaction.atomic():
            if not POWERS[power].use(services.locked(session)):
                return "There was nothing to do for the others."
            access.record(request, power, session=session)
    except services.SessionGone:
        return "Some have been purged meanwhile."
    except services.QuotaReached:
        return "Some would be more live sessions than their owner may have."
    except OperationalError:
        return "Some could not be done now; try again."
    return ""
