"""Markdown that people and models wrote, as HTML that does nothing: it runs nothing and loads nothing.

Two walls, each of which would do alone for a script: the parser takes no HTML and no images, so that all of it
comes out as text and links; and of what it makes, nh3 lets through a short list of tags, and links to the web
or to mail. Relative links are none: they would lead into this very admin.
"""

from __future__ import annotations

from typing import Final

import nh3
from markdown_it import MarkdownIt

TAGS: Final = frozenset(
    {"a", "blockquote", "br", "code", "em", "hr", "li", "ol", "p", "pre", "s", "strong", "ul"}
    | {"h1", "h2", "h3", "h4", "h5", "h6", "table", "tbody", "td", "th", "thead", "tr"}
)
PARSER: Final = (
    MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": True})
    .enable(["table", "strikethrough"])
    .disable("image")
)
CLEANER: Final = nh3.Cleaner(
    tags=TAGS,
    clean_content_tags=frozenset({"script", "style"}),
    attributes={"*": set(), "a": {"href"}, "ol": {"start"}},
    link_rel="noopener noreferrer nofollow",
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
)


def clean_html(text: str) -> str:
    """`text` rendered. The template trusts this and nothing else that is stored."""
    return CLEANER.clean(PARSER.render(text))
