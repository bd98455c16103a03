"""How a log line is made: structured, with the request's id, and never with a message's words."""

from __future__ import annotations

import logging
import re
import sqlite3
import time
import traceback
from collections.abc import Callable
from typing import Any, cast

import structlog
from django.db import Error as DatabaseError
from django.template import VariableDoesNotExist
from psycopg import Error as PostgresError
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

LOG_PROCESSORS: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

# Our own tokens, and JWTs.
TOKENS = re.compile(r"cs[st]_[A-Za-z0-9_-]{43}|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

log = structlog.get_logger("chatstore.sql")


def described(error: BaseException) -> str:
    """One line for `error`. A database error's own text quotes the failing row, so only its code and
    constraint are told; a template error's quotes all that the page was given, a new token among it."""
    name = type(error).__qualname__
    if isinstance(error, PostgresError):
        return f"{name}: sqlstate={error.sqlstate} constraint={error.diag.constraint_name}"
    if isinstance(error, DatabaseError | sqlite3.Error | UnicodeError | VariableDoesNotExist):
        return name
    return f"{name}: {error}"


def traceback_without_values(error: BaseException) -> str:
    """The traceback of `error` and of what caused it, oldest first, with `described` for each text."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None:
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"{frames}{described(current)}")
        current = current.__cause__ or current.__context__
    return "\n\n".join(reversed(parts))


def exception_without_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """structlog processor: turn `exc_info` into a traceback that holds nobody's data."""
    exc_info: ExcInfo | bool | None = event.pop("exc_info", None)
    event.pop("exc_text", None)
    if isinstance(exc_info, tuple) and exc_info[1] is not None:
        event["exception"] = traceback_without_values(exc_info[1])
    return event


def without_tokens(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """structlog processor: what somebody put a token into that is logged, a path say, is logged without it."""
    return {name: TOKENS.sub("[token]", said) if isinstance(said, str) else said for name, said in event.items()}


class EventFormatter(structlog.stdlib.ProcessorFormatter):
    """As structlog's own, which makes a second record of each event to format it."""

    def format(self, record: logging.LogRecord) -> str:
        if not hasattr(record, "_logger"):  # Of somebody who knows nothing of structlog.
            return super().format(record)
        event: Any = {**cast("EventDict", record.msg), "_record": record, "_from_structlog": True}
        for processor in self.processors:
            event = processor(None, record.levelname, event)
        return str(event)


def log_statement(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """A database execute wrapper (LOG_SQL): the statement's text, never its parameters."""
    started = time.perf_counter()
    try:
        return execute(sql, params, many, context)
    finally:
        log.info("sql", statement=sql, ms=round((time.perf_counter() - started) * 1000, 1))
