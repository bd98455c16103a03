"""The dashboard: what the address asks for, what is drawn of a report, who sees it, and what it costs."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from playwright.sync_api import FloatRect, expect

from accounts.models import User, Workspace
from conftest import Caller, new_message, new_session
from conversations.models import Message, Session
from conversations.staff import dashboard
from conversations.staff.charts import Chart, Entry, bar_chart, short, step_to
from conversations.staff.dashboard import Asked, read_query
from conversations.tests import test_browser
from conversations.tests.colleagues import holding
from conversations.tests.test_browser import Visit
from conversations.usage import Counts, Report, Share

browser = test_browser.browser
visit = test_browser.visit

TODAY = date(2026, 11, 22)
HOSTILE = "<script>document.title = 'owned'</script>\u202e\"'><img src=x onerror=\"document.title = 'owned'\">"
WORKSPACE = "019a0000-0000-7000-8000-000000000001"


def counts_of(day: date) -> Counts:
    """A weekly rhythm, one spike, and a week in which nothing was said."""
    if day.toordinal() % 60 in range(5):
        return Counts(day)
    swing = 1.1 + math.sin(day.toordinal() * 1.7) / 6
    messages = int(swing * (140 if day.weekday() > 4 else 1_150)) * (4 if day.toordinal() % 41 == 3 else 1)
    failed = day.toordinal() % 5 % 3
    return Counts(day, messages, messages * 312, messages // 14, messages // 31, messages // 190, failed)


def report_of(first: date, last: date, **fields: Any) -> Report:
    """What `conversations.usage.report` could say of these days."""
    shares = [Share(f"tool_{n}", f"tool_{n}", 90_000 // n**2, 0 if n % 2 else 1_200 * n) for n in range(1, 11)]
    said: dict[str, Any] = {
        "as_of": datetime(2026, 11, 22, 7, 41, tzinfo=UTC),
        "rolled_through": last - timedelta(days=1),
        "uncounted_days": 0,
        "latest_day": last,
        "days": [counts_of(first + timedelta(days=n)) for n in range((last - first).days + 1)],
        "tools": shares,
        "agents": [Share("support", "support", 31_402, 9_700_321), Share("", "", 1_201, 70_000)],
        "workspaces": [Share(WORKSPACE, "Acme", 20_000, 5_000_000), Share(str(uuid.UUID(int=7)), "", 3, 1)],
    }
    return Report(first, last, **said | fields)


Fake = Callable[..., None]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Lets the page be given a report with these fields in place of the real one."""

    def fake(**fields: Any) -> None:
        monkeypatch.setattr(dashboard, "report", lambda first, last, **_: report_of(first, last, **fields))

    return fake


class Page(HTMLParser):
    """The text of each element that has an id or stands in a table, and every attribute's value."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]


def opened(client: Client, **query: str) -> str:
    response = client.get("/admin/", query)
    assert response.status_code == 200
    return response.content.decode()


# Geometry


@pytest.mark.parametrize(
    ("highest", "step"),
    [(0, 1), (1, 1), (4, 1), (5, 2), (8, 2), (9, 5), (20, 5), (21, 10), (4_000, 1_000), (4_001, 2_000)],
)
def test_an_axis_has_few_round_steps(highest: int, step: int) -> None:
    assert step_to(highest) == step


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0"),
        (500, "500"),
        (1_500, "1.5k"),
        (20_000, "20k"),
        (1_500_000, "1.5M"),
        (4 * 10**9, "4B"),
        (10**12, "1T"),
    ],
)
def test_an_axis_says_numbers_shortly(number: int, said: str) -> None:
    assert short(number) == said


def chart_of(*stacks: list[int]) -> Chart:
    return bar_chart([Entry(str(n), "", stack) for n, stack in enumerate(stacks)])


def test_a_bar_is_as_high_as_its_share_of_the_axis() -> None:
    chart = chart_of([10], [40], [0], [25])
    assert [tick.label for tick in chart.ticks] == ["0", "10", "20", "30", "40"]
    assert [tick.y for tick in chart.ticks] == [100, 75, 50, 25, 0]
    bars = [[(bar.y, bar.height) for bar in column.bars] for column in chart.columns]
    assert bars == [[(75, 25)], [(0, 100)], [], [(37.5, 62.5)]]


def test_bars_are_stacked_and_keep_their_series() -> None:
    [column] = chart_of([1, 3]).columns
    assert [(bar.series, bar.y, bar.height) for bar in column.bars] == [(1, 75, 25), (2, 0, 75)]
    [column] = chart_of([0, 4]).columns
    assert [(bar.series, bar.y, bar.height) for bar in column.bars] == [(2, 0, 100)]


@pytest.mark.parametrize("days", [1, 7, 30, 90])
def test_columns_fill_the_plot_side_by_side(days: int) -> None:
    columns = chart_of(*[[1]] * days).columns
    assert columns[0].x == 0
    assert columns[-1].x + columns[-1].width == pytest.approx(100, abs=0.02)
    for left, right in pairwise(columns):
        assert left.bars[0].x + left.bars[0].width < right.bars[0].x


def test_a_little_is_seen_beside_very_much() -> None:
    chart = chart_of([1], [1_000_000])
    assert chart.columns[0].bars[0].height > 0.5


def test_nothing_at_all_is_an_axis_without_bars() -> None:
    assert [tick.label for tick in chart_of([0], [0]).ticks] == ["0", "1"]
    assert bar_chart([]).columns == []


@pytest.mark.parametrize(
    ("days", "labels"),
    [(7, list("0246")), (30, ["1", "8", "15", "22", "29"]), (90, ["5", "26", "47", "68", "89"])],
)
def test_labels_are_few_and_end_with_the_last_day(days: int, labels: list[str]) -> None:
    assert [label.text for label in chart_of(*[[1]] * days).labels] == labels


# What is asked for


@pytest.mark.parametrize("days", [7, 30, 90])
def test_a_period_ends_today(days: int) -> None:
    asked = read_query({"days": str(days)}, TODAY)
    assert (asked.until, (asked.until - asked.first).days + 1, asked.notes) == (TODAY, days, ())


def test_nothing_asked_is_thirty_days() -> None:
    assert read_query({}, TODAY) == Asked(TODAY, TODAY, 30)
    assert read_query({"days": "", "until": "", "workspace": ""}, TODAY).notes == ()


MALFORMED = {
    "days": ["0", "-7", "8", "31", "7.0", "\u0667", "seven", "7 ", "9" * 5_000, "\0"],
    "until": ["yesterday", "2026-13-01", "2026-02-30", "20261101", "2026-W40-1", "3000-01-01", "1969-12-31",
              "0001-01-01", "9999-12-31", "2026-1-1", "2026-11-01T00:00",
              "\u0662\u0660\u0662\u0666-11-01", "\0", "-1"],
    "workspace": ["1", "acme", "\0", WORKSPACE.replace("-", ""), "'; DROP TABLE x; --", WORKSPACE],
    "agent": ["\0", "a" * 256],
}  # fmt: skip
BAD = [(name, value) for name, values in MALFORMED.items() for value in values]


@pytest.mark.django_db
@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{name}-{value[:20]!a}" for name, value in BAD])
def test_a_malformed_value_is_left_out_and_said(staff: Client, name: str, value: str) -> None:
    asked = read_query({name: value}, TODAY)
    assert asked == Asked(TODAY, TODAY, notes=asked.notes)
    assert [note.startswith(f"“{name}”") for note in asked.notes] == [True]
    new_session(Caller(User.objects.create_user("ida"), ""))
    new_message(Session.objects.get())
    assert escape(f"“{name}”") in opened(staff, **{name: value})


def test_a_period_does_not_end_tomorrow() -> None:
    assert read_query({"until": "2026-11-22"}, TODAY).notes == ()
    asked = read_query({"until": "2026-11-23"}, TODAY)
    assert (asked.until, len(asked.notes)) == (TODAY, 1)


@pytest.mark.django_db
def test_a_workspace_or_an_agent_narrows(shared: Workspace) -> None:
    asked = read_query({"workspace": str(shared.public_id).upper(), "until": "2026-11-01"}, TODAY)
    assert (asked.workspace, asked.agent, asked.until) == (shared, None, date(2026, 11, 1))
    assert asked.address(days=7) == f"?days=7&until=2026-11-01&workspace={shared.public_id}"
    assert asked.address(workspace=None, until=None) == "?days=30"
    without = read_query({"agent": ""}, TODAY)
    assert (without.workspace, without.agent) == (None, "")
    assert without.address() == "?days=30&agent="
    both = read_query({"workspace": str(shared.public_id), "agent": "support"}, TODAY)
    assert (both.workspace, both.agent) == (shared, None)
    assert both.notes == ("Either a workspace or an agent: “agent” was left out.",)


def test_a_link_quotes_a_name() -> None:
    assert read_query({}, TODAY).address(agent="a&days=7#ü") == "?days=30&agent=a%26days%3D7%23%C3%BC"


@pytest.mark.django_db
def test_periods_follow_each_other(staff: Client, said: Fake) -> None:
    said()
    today = timezone.now().date()
    page = opened(staff, days="7", agent="support")
    earlier = today - timedelta(days=7)
    assert f'href="?days=7&amp;until={earlier}&amp;agent=support" rel="prev"' in page
    assert 'rel="next"' not in page
    page = opened(staff, days="7", until=str(earlier))
    assert f"{earlier - timedelta(days=6)} to {earlier}" in page
    assert 'href="?days=7" rel="next"' in page
    page = opened(staff, until="1970-01-01")
    assert 'rel="prev"' not in page
    assert 'href="?days=30&amp;until=1970-01-31" rel="next"' in page


# What is shown


@pytest.mark.django_db
@pytest.mark.parametrize("days", [7, 30, 90])
def test_each_figure_is_drawn_and_a_table(staff: Client, said: Fake, days: int) -> None:
    said()
    page = opened(staff, days=str(days))
    assert page.count('<svg class="chart"') == 5
    assert "in this period" not in page
    assert page.count('<g class="column">') == 5 * days
    assert page.count('<th scope="row">2') == 5 * days
    counts = counts_of(timezone.now().date())
    assert f">{counts.messages:,}</td>" in page
    assert f": {counts.tokens:,} tokens</title>" in page
    assert f": {counts.interrupted:,} interrupted, {counts.failed:,} failed</title>" in page


@pytest.mark.django_db
def test_every_drawing_is_named_by_its_title(staff: Client, said: Fake) -> None:
    said()
    page = Page(opened(staff))
    ids = [value for _, name, value in page.attributes if name == "id"]
    named = [value for _, name, value in page.attributes if name == "aria-labelledby"]
    assert len(ids) == len(set(ids))
    assert named
    assert set(named) <= set(ids)


@pytest.mark.django_db
def test_what_does_not_add_up_is_not_added_up(staff: Client, said: Fake) -> None:
    day = timezone.now().date()
    said(days=[Counts(day, 1_500, 20_000, 4, 3, 2, 1), Counts(day, 1_500, 20_000, 6, 2, 0, 1)])
    sums = re.findall(r'class="sum">(.*?)<', opened(staff))
    assert sums == [
        "3,000 messages",
        "40,000 tokens",
        "at most 6 sessions on a day",
        "at most 3 users on a day",
        "2 interrupted, 2 failed",
    ]


@pytest.mark.django_db
def test_the_busiest_are_links_that_narrow(staff: Client, said: Fake) -> None:
    said()
    page = opened(staff, days="90")
    assert 'href="?days=90&amp;agent=support" title="support"><bdi>support</bdi>' in page
    assert 'href="?days=90&amp;agent=" title="no agent"><bdi>no agent</bdi>' in page
    assert f'href="?days=90&amp;workspace={WORKSPACE}" title="Acme"><bdi>Acme</bdi>' in page
    assert f"<bdi>{uuid.UUID(int=7)}</bdi>" in page  # Its name is empty.
    assert '<bdi title="tool_1">tool_1</bdi>' in page
    assert "9,700,321" in page


@pytest.mark.django_db
def test_a_narrowed_page_is_widened_again(staff: Client, said: Fake, shared: Workspace) -> None:
    said()
    page = opened(staff, workspace=str(shared.public_id))
    assert '<bdi title="Shared">Shared</bdi> <a href="?days=30"' in page
    assert "Busiest workspaces" not in page
    page = opened(staff, agent="support")
    assert '<bdi title="support">support</bdi> <a href="?days=30"' in page
    assert "Busiest agents" not in page
    assert 'href="?days=30&amp;workspace=' in page
    assert "No agent <a" in opened(staff, agent="")


@pytest.mark.django_db
def test_what_is_narrowed_is_asked_of_the_report(
    staff: Client, shared: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def note(first: date, last: date, **narrowed: Any) -> Report:
        asked.append((last - first, narrowed))
        return report_of(first, last)

    monkeypatch.setattr(dashboard, "report", note)
    opened(staff, workspace=str(shared.public_id), days="7")
    opened(staff, agent="support")
    opened(staff)
    assert asked == [
        (timedelta(days=6), {"workspace": shared, "agent": None}),
        (timedelta(days=29), {"workspace": None, "agent": "support"}),
        (timedelta(days=29), {"workspace": None, "agent": None}),
    ]


@pytest.mark.django_db
def test_it_says_until_when_it_counted_and_what_is_late(staff: Client, said: Fake) -> None:
    said()
    page = opened(staff)
    assert "2026-11-22 07:41 UTC" in page
    assert "Days are UTC" in page
    assert "manage.py rollup" not in page
    said(uncounted_days=3)
    assert "3 days of this period are not counted yet" in opened(staff)
    said(uncounted_days=1)
    assert "1 day of this period is not counted yet" in opened(staff)
    said(rolled_through=None)
    page = opened(staff)
    assert "No day has been rolled up yet" in page
    assert "manage.py maintain" in page


@pytest.mark.django_db
def test_an_empty_store_says_what_to_do_first(staff: Client) -> None:
    page = opened(staff)
    assert "manage.py createtoken EMAIL" in page
    assert 'href="/docs"' in page
    assert '<svg class="chart"' not in page


@pytest.mark.django_db
def test_a_period_without_messages_leads_to_the_last_that_has_some(
    staff: Client, said: Fake, session: Session
) -> None:
    today = timezone.now().date()
    said(days=[Counts(today)], latest_day=date(2026, 3, 4), tools=[], agents=[], workspaces=[])
    page = opened(staff, agent="support")
    assert 'href="?days=30&amp;until=2026-03-04&amp;agent=support">2026-03-04</a>' in page
    assert page.count("None in this period.") == 7
    assert "createtoken" not in page


@pytest.mark.django_db
def test_hostile_names_are_text(staff: Client, said: Fake, alice: Caller) -> None:
    shared = Workspace.objects.create(name=HOSTILE[:255])
    shares = [Share(HOSTILE, HOSTILE, 5, 5), Share("", HOSTILE, 5, 5)]
    said(tools=shares, agents=shares, workspaces=shares)
    for narrowed in ({}, {"workspace": str(shared.public_id)}, {"agent": HOSTILE}):
        page = opened(staff, **narrowed)
        tags = Page(page)
        assert HOSTILE not in page
        assert escape(HOSTILE) in page
        assert "img" not in tags.tags
        assert not [name for _, name, _ in tags.attributes if name.startswith("on") or name == "style"]
        assert "style" not in tags.tags


# Who sees it


@pytest.mark.django_db
@pytest.mark.parametrize("missing", ["view_session", "view_message"])
def test_who_may_not_see_both_sees_the_stock_index(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Report:
        raise AssertionError("Nothing is read for them.")

    monkeypatch.setattr(dashboard, "report", fail)
    page = opened(holding(*{"view_session", "view_message"} - {missing}), days="malformed")
    assert 'id="usage"' not in page
    assert "conversations/dashboard.css" not in page
    assert 'id="content-main"' in page


@pytest.mark.django_db
def test_support_sees_it_with_the_apps_and_the_recent_actions(said: Fake) -> None:
    said()
    user = User.objects.create_user("vera", is_staff=True)
    user.groups.add(Group.objects.get(name="Support"))
    client = Client()
    client.force_login(user)
    page = opened(client)
    for part in (
        'id="usage"',
        "conversations/dashboard.css",
        'class="app-conversations module',
        "recent-actions-module",
    ):
        assert part in page


@pytest.mark.django_db
def test_others_are_asked_to_log_in(alice: Caller) -> None:
    assert Client().get("/admin/").headers["Location"] == "/admin/login/?next=/admin/"
    client = Client()
    client.force_login(alice.user)
    assert client.get("/admin/").status_code == 302


# With the real report


@pytest.mark.django_db
def test_what_was_said_today_is_on_the_page(staff: Client, alice: Caller, shared: Workspace) -> None:
    session = new_session(alice, shared, agent="support")
    new_message(session, tokens=1_234)
    new_message(session, "Failed", "tool_call", tool_name="search_orders", tokens=1)
    other = new_session(alice, agent="sales")
    new_message(other, tokens=70_000)
    page = opened(staff)
    assert re.findall(r'class="sum">(.*?)<', page)[:4] == [
        "3 messages",
        "71,235 tokens",
        "at most 2 sessions on a day",
        "at most 1 user on a day",
    ]
    for name in ("search_orders", "support", "sales", "Shared"):
        assert f"<bdi>{name}</bdi>" in page or f'<bdi title="{name}">{name}</bdi>' in page
    for query in ({"agent": "support"}, {"workspace": str(shared.public_id)}):
        assert "1,235 tokens" in opened(staff, **query)
    assert "71,235" not in opened(staff, agent="support")


@pytest.mark.django_db
def test_the_page_takes_few_queries(staff: Client, alice: Caller, shared: Workspace) -> None:
    for agent in ("support", "sales", None):
        session = new_session(alice, shared, agent=agent)
        new_message(session)
    Message.objects.filter(session=session).update(created_at=timezone.now() - timedelta(days=3))
    call_command("rollup", verbosity=0)
    for query in ({}, {"days": "90", "agent": "support"}, {"workspace": str(shared.public_id)}):
        with CaptureQueriesContext(connection) as queries:
            opened(staff, **query)
        assert len(queries) <= 12, [query["sql"] for query in queries]


# In a browser


def overlapping(boxes: list[FloatRect]) -> list[FloatRect]:
    """Those that begin before the one to their left has ended; all on one line."""
    return [right for left, right in pairwise(boxes) if right["x"] < left["x"] + left["width"]]


@pytest.mark.once
@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_its_days_stand_apart(visit: Visit, sam: Caller, said: Fake, width: int) -> None:
    long = "lookup_customer_by_email_or_phone_number_and_country_" * 4
    said(tools=[Share(long, long, 10**12, 10**12)], workspaces=[Share(WORKSPACE, HOSTILE, 5, 5)])
    visit.page.set_viewport_size({"width": width, "height": 900})
    visit.log_in(sam)
    for days in (7, 30, 90):
        visit.page.goto(f"{visit.site}/admin/?days={days}&agent={long}")
        visit.page.click(".tokens summary")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        labels = visit.page.locator(".messages .label")
        boxes = [box for label in labels.all() if (box := label.bounding_box())]
        assert len(boxes) >= 4
        assert overlapping(boxes) == []
    expect(visit.page.locator("#usage")).to_contain_text("document.title = 'owned'")
    assert "owned" not in visit.page.title()


@pytest.mark.once
@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
def test_the_table_opens_and_an_agent_narrows(visit: Visit, sam: Caller, alice: Caller) -> None:
    for agent in ("support", "sales"):
        new_message(new_session(alice, agent=agent))
    visit.log_in(sam)
    page = visit.page
    expect(page.locator(".messages .sum")).to_have_text("2 messages")
    expect(page.locator(".messages table")).to_be_hidden()
    page.click(".messages summary")
    expect(page.locator(".messages tbody tr")).to_have_count(30)
    expect(page.locator(".messages tbody td").last).to_have_text("2")
    page.click("#usage .busiest >> text=sales")
    expect(page.locator(".messages .sum")).to_have_text("1 message")
    page.click("text=7 days")
    expect(page.locator("#usage .narrowed")).to_contain_text("Agent sales")
    page.click("text=clear")
    expect(page.locator(".messages .sum")).to_have_text("2 messages")
    bar = page.locator(".messages .bar").bounding_box()
    assert bar is not None
    assert bar["height"] > 50
