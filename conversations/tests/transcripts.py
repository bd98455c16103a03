"""What tests read out of a transcript's page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from django.db.models import QuerySet
from django.test import Client

from conversations import services
from conversations.models import Message, Session

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Seen(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.found]


def path(session: Session) -> str:
    return f"/admin/conversations/session/{session.pk}/transcript/"


def page_of(client: Client, session: Session, query: str = "") -> str:
    response = client.get(path(session) + query)
    assert response.status_code == 200
    return str(response.content.decode())


def shown(page: str) -> list[int]:
    return [int(found) for found in re.findall(r'<article id="m(\d+)"', page)]


def classes(page: str, position: int) -> list[str]:
    found = re.search(rf'<article id="m{position}" class="([^"]*)"', page)
    assert found
    return found[1].split()


def link(page: str, key: str) -> str | None:
    """Where the link of this key leads."""
    found = re.search(rf'<a href="([^"]*)"(?: rel="\w+")? data-key="{key}"', page)
    return found[1].replace("&amp;", "&") if found else None


def many(session: Session, count: int, **fields: Any) -> list[Message]:
    rows = [
        {"role": "user" if n % 5 == 0 else "assistant", "content": f"Word {n}", **fields} for n in range(count)
    ]
    return services.append(session, rows)[0]


def at(session: Session, *positions: int) -> QuerySet[Message]:
    return Message.objects.filter(session=session, position__in=positions)


def range_of(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))
