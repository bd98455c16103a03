"""A hundred and more ways to have a page run what is stored in it, in every text that anybody can fill.

On every page of the admin and on the playground nothing runs, nothing asks, no other host is called, and the
content security policy has nothing to stop.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from html import escape
from itertools import cycle
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import CharField, Field, JSONField, TextField
from django.test import Client
from django.utils import timezone
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    Response,
    Route,
    expect,
)
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts.models import ApiToken, Identity, Membership, ServiceToken, User, Workspace
from conftest import Caller, new_session
from conversations import services
from conversations.models import AccessRecord, Message, Session, Usage, UsageState
from conversations.tests import test_browser
from conversations.tests.chat_clients import configure
from conversations.tests.colleagues import FIND, MESSAGES, SESSIONS
from conversations.tests.payloads import EVIL, LOADS, PAYLOADS, SCRIPTS, bins
from conversations.tests.planting import Planting
from conversations.tests.test_support_refused import Rows, pages_of

# What a page makes of a text is the same on either database.
pytestmark = [pytest.mark.browser, pytest.mark.once]

browser = test_browser.browser

TEXTS = list(PAYLOADS.values())
PACKED = list(bins(TEXTS, 255))
WHOLE = "\n\n".join(TEXTS)
ROLES = ("user", "assistant", "system", "tool", "tool_call")
TOGETHER = 10
TRACES = [f"{number:032x}" for number in range(0xABCDEF00, 0xABCDEF00 + -(-len(TEXTS) // TOGETHER))]
BY_TEMPLATE = ("pwned-by-template", "pbkdf2_sha256$")

LISTEN = """addEventListener("securitypolicyviolation", (event) =>
    breached(`${event.effectiveDirective} ${event.blockedURI} on ${location.pathname}`));"""
# What a reader's pointer, keyboard and clicks would set off.
PROVOKE = """async (patience) => {
    const all = [...document.querySelectorAll("body *")];
    for (const details of document.querySelectorAll("details")) details.open = true;
    for (const one of all) {
        for (const name of ["mouseover", "pointerover"]) one.dispatchEvent(new MouseEvent(name));
        if (one.matches("a, button, input, select, textarea, summary, [tabindex]")) one.focus();
    }
    await new Promise((done) => setTimeout(done, patience));
}"""
ADD_FIELD = """([name, value]) => {
    const field = document.createElement("input");
    Object.assign(field, {name, value});
    document.getElementById("changelist-form").append(field);
}"""
# Elements that no page of ours has: they came out of a text.
INTRUDERS = """() => [...document.querySelectorAll("*")].filter((one) => {
    const name = one.localName;
    const address = one.getAttribute("src") ?? one.getAttribute(name === "link" ? "href" : "data") ?? "";
    const target = name === "a" ? one.protocol : "http:";
    const sent = one.getAttribute("formaction") ?? (name === "form" ? one.getAttribute("action") ?? "" : "");
    return [...one.attributes].some((attribute) => /^on/i.test(attribute.name) || attribute.name === "srcdoc")
        || /^(iframe|object|embed|base|math|marquee|video|audio|image|xss|style|frame|applet)$/.test(name)
        || (name === "meta" && one.httpEquiv)
        || (name === "script" && !address && one.type !== "application/json")
        || (/^(img|script|link|input)$/.test(name) && !/^(|data:,|\\/(static|admin\\/jsi18n)\\/.*)$/.test(address))
        || /\\/\\//.test(sent)
        || !/^(https?|mailto)?:$/.test(target);
}).map((one) => one.outerHTML.slice(0, 200))"""


# What is watched


class Watch:
    """A window of a browser, and everything that it should not have done."""

    def __init__(self, context: BrowserContext, site: str) -> None:
        self.context, self.site = context, site
        self.ran: list[str] = []
        self.breaches: list[str] = []
        self.foreign: list[str] = []
        self.asked: list[str] = []
        self.intruders: list[str] = []
        self.opened = 0
        context.expose_function("pwned", self.note_run)
        context.expose_function("breached", self.note_breach)
        context.add_init_script(LISTEN)
        context.on("request", self.note_request)
        self.page: Page = context.new_page()
        self.page.on("dialog", self.note_dialog)
        self.page.on("console", self.note_console)
        self.page.on("response", self.note_response)

    def note_run(self, *said: Any) -> None:
        self.ran.append(str(said[0]))

    def note_breach(self, what: str) -> None:
        self.breaches.append(what)

    def note_request(self, request: Request) -> None:
        if urlsplit(request.url).scheme not in ("data", "blob") and not request.url.startswith(f"{self.site}/"):
            self.foreign.append(request.url)

    def note_dialog(self, dialog: Dialog) -> None:
        self.asked.append(dialog.message)
        dialog.dismiss()

    def note_console(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            self.breaches.append(message.text)

    def note_response(self, response: Response) -> None:
        """The last wall stands before every page."""
        if response.request.resource_type == "document" and "content-security-policy" not in response.headers:
            self.breaches.append(f"no policy on {response.url}")

    def log_in(self, user: User) -> None:
        client = Client()
        client.force_login(user)
        cookie = client.cookies["sessionid"]
        self.context.add_cookies([{"name": "sessionid", "value": cookie.value, "url": self.site}])

    def open(self, path: str, *expected: int) -> None:
        answer = self.page.goto(self.site + path)
        assert answer is not None
        assert answer.status in (expected or (200,)), (answer.status, path)
        self.look(urlsplit(self.page.url).path)

    def look(self, path: str) -> None:
        """At what the page shows now, and at what it does when it is used."""
        self.opened += 1
        self.page.evaluate(PROVOKE, 20)
        self.intruders += [f"{found} on {path}" for found in self.page.evaluate(INTRUDERS)]
        text = self.page.locator("html").inner_text()
        self.ran += [f"{sign} on {path}" for sign in BY_TEMPLATE if sign in text]
        assert urlsplit(self.page.url).path == path, "The page has led elsewhere."

    def verdict(self) -> dict[str, list[str]]:
        return {
            "ran": self.ran,
            "asked": self.asked,
            "foreign": self.foreign,
            "breaches": self.breaches,
            "intruders": self.intruders,
        }


@pytest.fixture
def watch(browser: Browser, live_server: LiveServer) -> Iterator[Watch]:
    context = browser.new_context()
    yield Watch(context, live_server.url)
    context.close()


@pytest.fixture
def quiet(watch: Watch) -> Iterator[Watch]:
    """At the end nothing has happened."""
    yield watch
    assert watch.opened > 0
    assert watch.verdict() == {kind: [] for kind in watch.verdict()}


# What is stored


class Hostile(Planting):
    """A row in every model, in each of its texts as many payloads as have room."""

    def __init__(self, user: User) -> None:
        self.next_text = cycle(TEXTS)
        super().__init__(user)

    def value_of(self, field: Field[Any, Any]) -> Any:
        if field.choices or not isinstance(field, CharField | TextField | JSONField):
            return super().value_of(field)
        if isinstance(field, JSONField):
            return {text: [text] for text in TEXTS}
        length = getattr(field, "max_length", None)
        return WHOLE if length is None else self.packed(length)

    def packed(self, length: int) -> str:
        """The next ones, and of the last what has room."""
        found = next(self.next_text)
        while len(found) < length:
            found += next(self.next_text)
        return found[:length]


def planted(user: User) -> Rows:
    with transaction.atomic():
        rows: Rows = dict(Hostile(user).rows)
        rows[Group] = Group.objects.create(name=PACKED[0][:150])
        for model, row in list(rows.items()):
            entry = {"content_type": ContentType.objects.get_for_model(model), "object_id": str(row.pk)}
            for text in PACKED[:5]:
                said = {"object_repr": text[:200], "change_message": text, "action_flag": CHANGE}
                LogEntry.objects.create(user=user, **entry, **said)
    return rows


def person(number: int) -> User:
    text = TEXTS[number]
    return User(username=text[:150], name=text[:255], email=text[:254], password=f"!{number}")


def session_of(owner: User, workspace: Workspace, text: str) -> Session:
    now = timezone.now()
    links = dict.fromkeys(("pocket", "group", "agent", "idempotency_key"), text[:255])
    times = dict.fromkeys(("created_at", "updated_at", "last_activity"), now)
    return Session(
        owner=owner, owner_public_id=owner.public_id, workspace=workspace, title=text[:500], titled=True,
        metadata={text: text}, **links, **times,
    )  # fmt: skip


def lists() -> list[User]:
    """A row for each payload in every list; who is who."""
    with transaction.atomic():
        people = User.objects.bulk_create(person(number) for number in range(len(TEXTS)))
        places = Workspace.objects.bulk_create(Workspace(name=text) for text in TEXTS)
        both = list(zip(people, places, TEXTS, strict=True))
        Membership.objects.bulk_create(Membership(user=user, workspace=place) for user, place, _ in both)
        Identity.objects.bulk_create(Identity(user=user, issuer=text, subject=text) for user, _, text in both)
        ApiToken.objects.bulk_create(
            ApiToken(user=user, name=text, prefix=text[:12], digest=f"{user.pk:064}", idempotency_key=text)
            for user, _, text in both
        )
        ServiceToken.objects.bulk_create(
            ServiceToken(name=text, prefix=text[:12], digest=f"{user.pk:064}", workspace=place)
            for user, place, text in both
        )
        Group.objects.bulk_create(Group(name=text[:150]) for text in TEXTS)
        sessions = Session.objects.bulk_create(session_of(*one) for one in both)
        AccessRecord.objects.bulk_create(
            AccessRecord(
                user=user, user_public_id=user.public_id, action="search", session_id=session.pk, detail=text,
                reason=text, address=text[:64],
            )
            for (user, _, text), session in zip(both, sessions, strict=True)
        )  # fmt: skip
        record_usage(both)
    return people


def record_usage(both: Sequence[tuple[User, Workspace, str]]) -> None:
    """Ten payloads a week, since the dashboard names no more."""
    today = timezone.now().date()
    UsageState.objects.all().delete()
    UsageState.objects.create(rolled_through=today - timedelta(days=1), rolled_at=timezone.now())
    Usage.objects.bulk_create(
        Usage(
            day=week_of(number), workspace=place, owner=user, agent=text, role="tool_call", tool_name=text,
            messages=1, tokens=1, interrupted=1, failed=1, sessions=1,
        )
        for number, (user, place, text) in enumerate(both)
    )  # fmt: skip


def week_of(number: int) -> Any:
    return timezone.now().date() - timedelta(days=2 + 7 * (number // TOGETHER))


def talk(session: Session, texts: Sequence[str] = TEXTS, **fields: Any) -> list[Message]:
    """Each payload said in every role, and in each text of its message."""
    rows = [
        {
            "role": role, "content": text, "tool_name": text[:255], "trace_id": text[:255], "span_id": text[:255],
            "metadata": {text: text}, "tokens": 1, **fields,
        }
        for role in ROLES
        for text in texts
    ]  # fmt: skip
    return [
        message for at in range(0, len(rows), 500) for message in services.append(session, rows[at : at + 500])[0]
    ]


# The detectors themselves, and the last wall


def framed(watch: Watch, payloads: Mapping[str, str], policy: str) -> list[str]:
    """Each payload as HTML in a frame of its own, under this content security policy, and provoked. Returns the
    addresses that other hosts would have been asked for."""
    sent = []

    def refuse(route: Route) -> None:
        sent.append(route.request.url)
        route.abort()

    watch.context.route(re.compile(rf"^(?!{re.escape(watch.site)}/)"), refuse)
    tail = "<p title='x'></script>"
    frames = "".join(f'<iframe srcdoc="{escape(text + tail)}"></iframe>' for text in payloads.values())
    headers = {"Content-Security-Policy": policy} if policy else {}
    body = f"<!doctype html><meta charset=utf-8>{frames}"
    watch.page.route(
        "**/framed", lambda route: route.fulfill(body=body, content_type="text/html", headers=headers)
    )
    watch.page.goto(f"{watch.site}/framed")
    for frame in watch.page.frames[1:]:
        if frame.url == "about:srcdoc":
            frame.evaluate(PROVOKE, 0)
    watch.page.wait_for_timeout(1000)
    return sent


def test_the_payloads_work_where_a_page_takes_them_for_html(watch: Watch) -> None:
    sent = framed(watch, SCRIPTS | LOADS, "")
    assert set(SCRIPTS) - set(watch.ran) == set()
    assert len({url for url in sent if EVIL in url}) >= len(LOADS)
    assert set(sent) <= set(watch.foreign)
    assert len(PAYLOADS) >= 100


def test_the_policy_alone_would_stop_them(watch: Watch, staff: Client) -> None:
    policy = staff.get("/admin/").headers["Content-Security-Policy"]
    sent = framed(watch, SCRIPTS | LOADS, policy)
    assert (watch.ran, sent, watch.asked) == ([], [], [])
    assert len(watch.breaches) > len(SCRIPTS)


# Every page


def test_every_page_of_the_admin(quiet: Watch, sam: Caller, alice: Caller) -> None:
    """With packed rows; those that answer a form or send a file are looked at below."""
    rows = planted(alice.user)
    quiet.log_in(sam.user)
    for name, path in pages_of(rows):
        if not name.endswith(("_trash", "_restore", "_settle", "_export", "_reason")):
            quiet.open(path, 200, 403, 404)
    assert quiet.opened > 50


def test_every_list(quiet: Watch, sam: Caller, alice: Caller) -> None:
    """A row for each payload, whole."""
    people = lists()
    talk(new_session(alice))
    quiet.log_in(sam.user)
    names = ("user", "workspace", "membership", "apitoken", "servicetoken")
    paths = [*(f"/admin/accounts/{name}/" for name in names), "/admin/auth/group/", SESSIONS, MESSAGES]
    for path in [*paths, "/admin/conversations/accessrecord/"]:
        quiet.open(path)
        quiet.open(f"{path}?p=2")
    for number in range(0, len(TEXTS), TOGETHER):
        quiet.open(f"/admin/?days=7&until={week_of(number)}")
    place = Workspace.objects.filter(name=TEXTS[0]).get()
    quiet.open(f"/admin/?{urlencode({'days': 90, 'workspace': place.public_id, 'agent': TEXTS[0]})}")
    assert len(people) == len(TEXTS)


def test_every_question_to_a_list(quiet: Watch, sam: Caller, alice: Caller, session: Session) -> None:
    """What is asked for stands on the page again: each packed text in one of these places."""
    talk(session, PACKED[:5])
    quiet.log_in(sam.user)
    day = timezone.now().date()
    places = cycle(
        [
            SESSIONS + "?q={}",
            SESSIONS + f"?workspace={session.workspace_id}&agent={{}}",
            SESSIONS + "?workspace={}",
            SESSIONS + "?deleted={}&day={}",
            SESSIONS + "?unknown={}",
            MESSAGES + "?q={}",
            MESSAGES + f"?session={session.pk}&tool={{}}",
            MESSAGES + f"?day={day}&agent={{}}",
            MESSAGES + f"?day={day}&role={{}}&status={{}}",
            MESSAGES + "?session={}&p={}",
            "/admin/accounts/user/?q={}&o={}&all={}",
            "/admin/accounts/workspace/?kind={}",
            "/admin/accounts/servicetoken/?q={}",
            "/admin/conversations/accessrecord/?q={}&action__exact={}",
            "/admin/?days={}&until={}&workspace={}&agent={}",
            SESSIONS + f"{session.pk}/transcript/?from={{}}&to={{}}&message={{}}&trace={{}}",
            SESSIONS + "{}/transcript/",
            "/admin/accounts/user/add/?username={}&email={}&name={}",
            "/admin/accounts/user/{}/change/?_changelist_filters={}",
            "/admin/nothing/{}/",
            "/admin/autocomplete/?app_label=accounts&model_name=apitoken&field_name=user&term={}",
        ]
    )
    for text, place in zip(PACKED, places, strict=False):
        path = place.replace("{}", quote(text, safe=""))
        answer = quiet.page.goto(quiet.site + path)
        assert answer is not None
        assert answer.status < 500, path
        quiet.look(urlsplit(quiet.page.url).path)
    assert quiet.opened == len(PACKED)


def test_a_transcript(quiet: Watch, sam: Caller, alice: Caller) -> None:
    session = new_session(alice, title=WHOLE[:500], agent=PACKED[0], group=PACKED[1], pocket=PACKED[2])
    talk(session)
    quiet.log_in(sam.user)
    path = f"{SESSIONS}{session.pk}/transcript/"
    for first in range(1, len(TEXTS) * len(ROLES), 50):
        quiet.open(f"{path}?from={first}")
        quiet.open(f"{path}?from={first}&raw=1")
    last = Message.objects.filter(session=session).latest("position")
    for text in (SCRIPTS["break-double"], SCRIPTS["img-onerror"], LOADS["load-img"]):
        quiet.open(f"{path}?{urlencode({'trace': text, 'message': last.pk})}")
    for key in "jk?":
        quiet.page.keyboard.press(key)
    quiet.look(path)


def test_a_marked_message_and_its_run(quiet: Watch, sam: Caller, alice: Caller) -> None:
    """Every text in the run's summary: its trace, its tools."""
    session = new_session(alice)
    for text in PACKED[::2]:
        called = [{"role": "tool_call", "content": text, "tool_name": text, "trace_id": text}] * 2
        services.append(session, called)
    quiet.log_in(sam.user)
    for message in Message.objects.filter(session=session).order_by("position")[::2]:
        asked = {"trace": message.trace_id, "message": message.pk}
        quiet.open(f"{SESSIONS}{session.pk}/transcript/?{urlencode(asked)}")


def test_the_find_page(quiet: Watch, sam: Caller, alice: Caller) -> None:
    """Messages with excerpts, sessions with titles and owners; and the payloads pasted themselves."""
    people = lists()
    session = new_session(alice, title=WHOLE[:500])
    for number, text in enumerate(TEXTS):
        services.append(session, [{"role": "user", "content": text, "trace_id": TRACES[number // TOGETHER]}])
    alices = Session.objects.bulk_create(
        session_of(alice.user, alice.user.personal_workspace(), text) for text in TEXTS
    )
    quiet.log_in(sam.user)
    pasted = [" ".join(TRACES[at : at + 2]) for at in range(0, len(TRACES), 2)]
    known = [str(found.session_id) for found in (*Session.objects.filter(owner__in=people), *alices)]
    pasted += [" ".join(known[at : at + 20]) for at in range(0, len(known), 20)]
    for text in [*pasted, "alice@example.com", "trace_" + TRACES[0]]:
        quiet.page.goto(f"{quiet.site}{FIND}?{urlencode({'q': text})}")
        quiet.look(urlsplit(quiet.page.url).path)
    for text in (
        *bins(TEXTS, 2_000),
        *bins((f"{text}@{EVIL} trace_id={TRACES[0][:8]}{text}" for text in TEXTS), 4_000),
    ):
        quiet.page.goto(f"{quiet.site}{FIND}")
        quiet.page.fill("#staff-find-text", text)
        quiet.page.press("#staff-find-text", "Enter")
        quiet.page.wait_for_load_state()
        quiet.look(urlsplit(quiet.page.url).path)


def test_every_form_that_answers(quiet: Watch, sam: Caller, alice: Caller, settings: Settings) -> None:
    """What is sent comes back: in a form that is wrong, in a message on the next page, in the page of a token."""
    quiet.log_in(sam.user)
    page = quiet.page
    for text in PACKED[::8]:
        page.goto(f"{quiet.site}/admin/accounts/user/add/")
        page.fill("#id_username", text[:150])
        page.fill("#id_name", text)
        page.click("input[name=_save]")
        expect(page.locator(".errornote")).to_be_visible()
        quiet.look(urlsplit(page.url).path)
        page.goto(f"{quiet.site}/admin/accounts/workspace/add/")
        page.fill("#id_name", text)
        page.click("input[name=_continue]")
        expect(page.locator(".messagelist")).to_contain_text("was added successfully")
        quiet.look(urlsplit(page.url).path)
        page.goto(page.url.replace("/change/", "/delete/"))
        quiet.look(urlsplit(page.url).path)
        page.click("#content input[type=submit]")
        expect(page.locator(".messagelist")).to_contain_text("was deleted successfully")
        quiet.look(urlsplit(page.url).path)
        page.goto(f"{quiet.site}/admin/accounts/servicetoken/add/")
        page.fill("#id_name", re.sub(r"[^ -~]", "", text))
        page.click("input[name=_save]")
        expect(page.locator("#issued-token")).to_be_visible()
        quiet.look(urlsplit(page.url).path)
    configure(settings, access_reason_required=True)
    session = new_session(alice, title=PACKED[0])
    for text in PACKED[::8]:
        asked = urlencode({"trace": text, "from": text})
        quiet.open(f"{SESSIONS}{session.pk}/transcript/?{asked}")
        page.locator("input[name=reason]").evaluate("(field) => field.removeAttribute('maxlength')")
        page.fill("input[name=reason]", f"{text}\u202e")
        page.click("#content [type=submit]")
        expect(page.locator(".errorlist")).to_be_visible()
        quiet.look(urlsplit(page.url).path)
        page.goto(f"{quiet.site}{SESSIONS}")
        page.evaluate(ADD_FIELD, [text, WHOLE])
        page.check("input.action-select")
        page.select_option("select[name=action]", "export_jsonl")
        page.click("button[name=index]")
        expect(page.locator("input[name=reason]")).to_be_visible()
        quiet.look(SESSIONS)


def test_what_is_completed(quiet: Watch, sam: Caller, alice: Caller) -> None:
    """The box that Django's admin fills with what the server completes."""
    people = lists()
    quiet.log_in(sam.user)
    page = quiet.page
    page.goto(f"{quiet.site}/admin/accounts/apitoken/add/")
    for user in people[::16]:
        page.click(".field-user .select2-selection")
        page.fill(".select2-search__field", str(user.public_id))
        option = page.locator(".select2-results__option:not(.loading-results)")
        expect(option).to_have_count(1)
        expect(option).to_have_text(user.username, use_inner_text=False)
        option.hover()
        option.click()
        quiet.look(urlsplit(page.url).path)


def test_a_login_that_fails(quiet: Watch, db: None) -> None:
    for text in PACKED[::8]:
        quiet.page.goto(f"{quiet.site}/admin/login/?{urlencode({'next': text, 'x': text})}")
        quiet.page.fill("#id_username", text[:150])
        quiet.page.fill("#id_password", "wrong")
        quiet.page.click("[type=submit]")
        expect(quiet.page.locator(".errornote")).to_be_visible()
        quiet.look("/admin/login/")


def test_files_are_files(quiet: Watch, sam: Caller, alice: Caller) -> None:
    """No browser shows one as a page, whatever is in it."""
    session = new_session(alice, title=WHOLE[:500])
    talk(session)
    quiet.log_in(sam.user)
    quiet.open(f"{SESSIONS}{session.pk}/change/")
    for name in ("jsonl", "md", "csv"):
        path = f"{SESSIONS}{session.pk}/export/{name}/"
        with quiet.page.expect_download() as download:
            quiet.page.evaluate("(path) => { location.href = path; }", path)
        assert re.fullmatch(rf"[\w.-]+\.{name}", download.value.suggested_filename)
        answer = quiet.context.request.get(quiet.site + path)
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "html" not in answer.headers["content-type"]
        if name == "jsonl":
            said = [json.loads(line) for line in answer.text().strip("\n").split("\n")][1:]
            assert {row["content"] for row in said} == set(TEXTS)
    quiet.look(f"{SESSIONS}{session.pk}/change/")


def test_the_playground(quiet: Watch, alice: Caller) -> None:
    Session.objects.bulk_create(session_of(alice.user, alice.user.personal_workspace(), text) for text in TEXTS)
    session = new_session(alice, title=WHOLE[:500])
    talk(session)
    page = quiet.page
    page.route("**/events/", lambda route: route.fulfill(status=404, json={"detail": "No such stream."}))
    page.goto(f"{quiet.site}/#{session.session_id}")
    page.fill("#token", alice.token)
    page.press("#token", "Enter")
    expect(page.locator("#transcript > li").first).to_be_attached()
    while page.locator("#more").is_visible():
        shown = page.locator("#conversations > li").count()
        page.click("#more")
        expect(page.locator("#conversations > li").nth(shown)).to_be_attached()
    while page.locator("#earlier").is_visible():
        shown = page.locator("#transcript > li").count()
        page.click("#earlier")
        expect(page.locator("#transcript > li").nth(shown)).to_be_attached()
    quiet.look("/")
    assert page.locator("#conversations > li").count() == len(TEXTS) + 1
    assert page.locator("#transcript > li").count() == len(TEXTS) * len(ROLES)
