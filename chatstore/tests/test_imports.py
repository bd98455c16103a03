"""The walls between the rooms (design 2): who may import whom, and what stands nowhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("accounts", "chatstore", "conversations")

# What everything may stand on: no room imports from above.
GROUND = {"chatstore.ids", "chatstore.retries", "chatstore.compiled"}
HTTP = {*GROUND, "chatstore.http"}
MODELS = {"accounts.models", "conversations.models"}
USAGE = {"conversations.usage", "conversations.exact_usage"}
STORE = {*MODELS, *USAGE, "conversations.services", "conversations.shapes"}

ROUTES = {
    "accounts.urls",
    "conversations.api.urls",
    "conversations.chat.urls",
    "conversations.front",
    "conversations.staff",
}

# Each room and the rooms that it may import, itself always among them. A module is in the room with the
# longest name that its own begins with. The wings api, chat and staff know nothing of each other.
ROOMS: dict[str, set[str]] = {
    "chatstore.ids": set(),
    "chatstore.compiled": set(),
    "chatstore.indexes": set(),
    "chatstore.retries": set(),
    "chatstore.http": GROUND,
    "chatstore.bounded_admin": set(),
    "chatstore.environment": set(),
    "chatstore": {"chatstore.http", "chatstore.environment"},
    "chatstore.urls": {"chatstore.http", "chatstore.bounded_admin", *ROUTES},
    "accounts.models": {"chatstore.ids"},
    "accounts.authentication": {*HTTP, "accounts.models", "chatstore.environment"},
    "accounts": {*HTTP, "accounts.models"},
    "accounts.checks": {*HTTP, "accounts.authentication"},
    "accounts.apps": {"accounts.checks"},
    "accounts.views": {*HTTP, "accounts.models", "accounts", "accounts.authentication"},
    "accounts.urls": {*HTTP, "accounts.views"},
    "accounts.admin": {*HTTP, "accounts.models", "accounts", "chatstore.bounded_admin"},
    "accounts.management": {*GROUND, "accounts.models"},
    "conversations": {"conversations.models"},
    "conversations.models": {"accounts.models", "chatstore.ids", "chatstore.indexes"},
    "conversations.usage": {*MODELS},
    "conversations.exact_usage": {*MODELS},
    "conversations.search_index": set(),
    "conversations.search": {*MODELS, "conversations.search_index"},
    "conversations.statements": {"chatstore.compiled", *MODELS},
    "conversations.services": {*GROUND, *MODELS, "conversations.statements", "conversations.usage"},
    "conversations.shapes": {"chatstore.http"},
    "conversations.bulk": {*GROUND, *STORE},
    "conversations.retention": {*GROUND, *STORE},
    "conversations.erasure": {*GROUND, *STORE, "conversations.retention"},
    "conversations.front": {"conversations.management.credentials"},
    "conversations.management.credentials": {*GROUND, *STORE},
    "conversations.seeding": {*GROUND, *STORE, "conversations.bulk"},
    "conversations.transfer": {*HTTP, *STORE, "conversations.bulk"},
    "conversations.doctor": {*HTTP, *STORE, "chatstore", "conversations.search_index"},
    "conversations.api": {*HTTP, *STORE},
    "conversations.api.views": {*HTTP, *STORE, "conversations.api"},
    "conversations.api.usage": {*HTTP, *STORE, "conversations.api"},
    "conversations.api.search": {
        *HTTP,
        *STORE,
        "conversations.api",
        "conversations.search",
        "conversations.search_index",
    },
    "conversations.api.urls": {
        "chatstore.http",
        "conversations.api.search",
        "conversations.api.usage",
        "conversations.api.views",
    },
    "conversations.chat": {*HTTP, *STORE, "accounts.authentication"},
    "conversations.chat.views": {*HTTP, *STORE, "accounts.authentication", "conversations.chat"},
    "conversations.chat.checks": {"conversations.chat"},
    "conversations.checks": {"chatstore.http", "conversations.search_index"},
    "conversations.apps": {"conversations.chat.checks", "conversations.checks"},
    "conversations.chat.urls": {"chatstore.http", "conversations.chat.views"},
    "conversations.staff": {*HTTP, *STORE, "conversations.search"},
    "conversations.admin": {
        *HTTP,
        *STORE,
        "conversations.search",
        "conversations.staff",
        "chatstore.bounded_admin",
    },
    "conversations.management": {
        *GROUND,
        *STORE,
        "conversations.bulk",
        "conversations.chat",
        "conversations.management.credentials",
        "conversations.doctor",
        "conversations.erasure",
        "conversations.retention",
        "conversations.seeding",
        "conversations.transfer",
        "chatstore.management",
    },
    "conversations.management.commands.searchindex": {"chatstore", *MODELS, "conversations.search_index"},
    "chatstore.management": {"chatstore", "chatstore.environment", "chatstore.http"},
}
# Django asks for this name.
NAMED_BY_DJANGO = {"chatstore.postgresql.base"}
BANNED_NAMES = {"utils.py", "helpers.py", "common.py", "base.py", "signals.py"}
NOT_IN_MODELS = ("rest_framework", "django.http", "chatstore.http")
SIGNALS = ("django.dispatch", "django.db.models.signals", "django.core.signals", "django.test.signals")


def sources() -> Iterator[Path]:
    """The product's own modules: tests and migrations are exempt."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not {"tests", "migrations"} & set(path.parts):
                yield path


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sources()}
MODULE = pytest.mark.parametrize("module", sorted(MODULES))


def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def names_of(node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names; of `from a import b` also a.b where that is one."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "Imports are absolute."
        source = node.module or ""
        below = [f"{source}.{alias.name}" for alias in node.names]
        modules = [name for name in below if name in MODULES]
        yield from modules
        if len(modules) < len(below):
            yield source


def imports(tree: ast.AST) -> set[str]:
    return {name for node in ast.walk(tree) for name in names_of(node)}


def room_of(module: str) -> str:
    rooms = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return max(rooms, key=len)


def trespasses(module: str, tree: ast.AST) -> list[str]:
    """The rooms that `module` imports and may not."""
    own = room_of(module)
    ours = [name for name in imports(tree) if name.partition(".")[0] in (*PACKAGES, "conftest")]
    rooms = {room_of(name) if name != "conftest" else name for name in ours}
    return sorted(rooms - ROOMS[own] - {own})


def functions(tree: ast.AST) -> Iterator[ast.AST]:
    return (
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    )


def indexes_without_comment(source: str) -> list[int]:
    """The lines of those in `indexes = [...]` that no comment stands directly above."""
    lines = source.splitlines()
    lists = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign) and "indexes" in [getattr(target, "id", "") for target in node.targets]
    ]
    entries = [entry for listed in lists if isinstance(listed, ast.List) for entry in listed.elts]
    return [entry.lineno for entry in entries if not lines[entry.lineno - 2].lstrip().startswith("#")]


@MODULE
def test_a_room_imports_only_what_it_may(module: str) -> None:
    assert trespasses(module, tree_of(module)) == []


@MODULE
def test_only_urls_import_views(module: str) -> None:
    views = [name for name in imports(tree_of(module)) if name in MODULES and name.endswith(".views")]
    assert not views or module.endswith(".urls")


@pytest.mark.parametrize("module", [name for name in sorted(MODULES) if name.endswith(".models")])
def test_models_know_nothing_of_http(module: str) -> None:
    assert [name for name in imports(tree_of(module)) if name.startswith(NOT_IN_MODELS)] == []


@MODULE
def test_no_function_imports(module: str) -> None:
    inside = [found for function in functions(tree_of(module)) for found in imports(function)]
    assert inside == []


@MODULE
def test_no_file_has_a_name_that_says_nothing(module: str) -> None:
    assert MODULES[module].name not in BANNED_NAMES or module in NAMED_BY_DJANGO


@MODULE
def test_no_signals_are_received(module: str) -> None:
    tree = tree_of(module)
    assert [name for name in imports(tree) if name.startswith(SIGNALS)] == []
    assert "receiver" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def marked_safe(tree: ast.AST) -> list[int]:
    """The lines that call text safe HTML. `SafeString` is fine as what a function gives back."""
    words = {"mark_safe", "SafeString", "SafeText"}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = [
        node.lineno for node in calls if {getattr(node.func, "id", ""), getattr(node.func, "attr", "")} & words
    ]
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return called + [node.lineno for node in froms if "mark_safe" in [alias.name for alias in node.names]]


@MODULE
def test_nothing_is_marked_safe(module: str) -> None:
    assert marked_safe(tree_of(module)) == []


@pytest.mark.parametrize("module", [name for name in sorted(MODULES) if name.endswith("models")])
def test_every_index_has_a_comment(module: str) -> None:
    assert indexes_without_comment(MODULES[module].read_text()) == []


TRESPASSES = {
    "http-imports-models": ("chatstore.http.problems", "from accounts.models import User", ["accounts.models"]),
    "accounts-import-conversations": (
        "accounts.models",
        "from conversations.models import Session",
        ["conversations.models"],
    ),
    "services-import-api": (
        "conversations.services",
        "from conversations.api import queries",
        ["conversations.api"],
    ),
    "models-import-services": (
        "conversations.models",
        "from conversations import services",
        ["conversations.services"],
    ),
    "models-import-http": ("conversations.models", "import chatstore.http.fields", ["chatstore.http"]),
    "api-imports-staff": ("conversations.api.filters", "import conversations.staff", ["conversations.staff"]),
    "api-imports-views": (
        "conversations.api.filters",
        "from conversations.api import views",
        ["conversations.api.views"],
    ),
    "product-imports-tests": ("conversations.services", "import conftest", ["conftest"]),
    "inside-a-function": (
        "accounts.models",
        "def f():\n    from conversations.models import Session",
        ["conversations.models"],
    ),
}


@pytest.mark.parametrize(("module", "source", "found"), TRESPASSES.values(), ids=TRESPASSES.keys())
def test_a_trespass_would_be_noticed(module: str, source: str, found: list[str]) -> None:
    assert trespasses(module, ast.parse(source)) == found


@pytest.mark.parametrize(
    "source", ["safestring.mark_safe('x')", "from a import mark_safe as m", "SafeString('x')"]
)
def test_text_marked_safe_would_be_noticed(source: str) -> None:
    assert marked_safe(ast.parse(source)) == [1]


def test_an_index_without_a_comment_would_be_noticed() -> None:
    source = (
        "class Meta:\n    indexes = [\n        # For a list.\n        Index('a'),\n        Index('b'),\n    ]\n"
    )
    assert indexes_without_comment(source) == [5]


def test_the_walk_sees_the_product() -> None:
    assert {"chatstore.http.problems", "accounts.models", "conversations.services"} <= set(MODULES)
    assert len(MODULES) > 30
