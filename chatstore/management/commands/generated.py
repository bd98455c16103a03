from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.validation import validate_schema
from pydantic.fields import FieldInfo

from chatstore.environment import BASE_DIR, Environment

BEGIN = "<!-- settings: written by `manage.py generated` -->"
END = "<!-- end of settings -->"


def shown(field: FieldInfo) -> str:
    """A setting's default as one writes it in a `.env` file; empty where it has none."""
    value = field.default
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def env_example(_: str) -> str:
    """`.env.example`: every setting, commented out, with its description."""
    lines = ["# Copy to .env and uncomment what you change. Written by `manage.py generated`."]
    for name, field in Environment.model_fields.items():
        lines += ["", f"# {field.description}", f"# {name.upper()}={shown(field)}"]
    return "\n".join(lines) + "\n"


def settings_table(page: str) -> str:
    """`docs/operations.md` with its table of settings."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = ["| setting | default | what it does |", "|---|---|---|"]
    for name, field in Environment.model_fields.items():
        default = f"`{shown(field)}`" if shown(field) else "none"
        rows.append(f"| `{name.upper()}` | {default} | {field.description} |")
    return before + "\n".join([BEGIN, *rows, END]) + after


def openapi(_: str) -> str:
    """`docs/openapi.json`: what /openapi.json answers with the default settings."""
    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    validate_schema(schema)  # type: ignore[no-untyped-call]
    return OpenApiJsonRenderer().render(schema, renderer_context={}).decode() + "\n"


FILES: dict[str, Callable[[str], str]] = {
    ".env.example": env_example,
    "docs/operations.md": settings_table,
    "docs/openapi.json": openapi,
}


class Command(BaseCommand):
    help = "Write what is generated from the code: .env.example, the table of settings, the OpenAPI document."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="Write nothing; fail where a file is old.")

    def handle(self, *args: Any, **options: Any) -> None:
        old = [name for name in FILES if not is_current(BASE_DIR / name, FILES[name])]
        if options["check"] and old:
            raise CommandError(f"Not what the code says: {', '.join(old)}. `make fix` writes them again.")
        for name in old:
            path = BASE_DIR / name
            path.write_text(FILES[name](text_of(path)))
            self.stdout.write(f"wrote {name}")


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def is_current(path: Path, generate: Callable[[str], str]) -> bool:
    return path.exists() and text_of(path) == generate(text_of(path))
