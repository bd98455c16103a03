"""How gunicorn serves this project: `gunicorn -c python:chatstore.gunicorn chatstore.wsgi`."""

from __future__ import annotations

import gc
import os
from collections import Counter
from typing import Any, Final

from django.utils.module_loading import import_string
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.http.errors import InvalidHeader
from gunicorn.workers.base import Worker

from chatstore.postgresql.base import BoundedConnection
from chatstore.settings import ENVIRONMENT

STALL_SECONDS: Final = 2


class LoggerWithoutContent(Logger):
    """gunicorn's own log, without what a client sent: a malformed request can hold a token or a message."""

    def warning(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        text = str(msg)
        super().warning(text.partition(":")[0] if text.startswith("Invalid request") else msg, *args, **kwargs)

    def debug(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Without what stands after the first sentence: what a client had sent of its request."""
        super().debug(str(msg).partition(":")[0].partition(".")[0], **kwargs)

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        super().exception(msg, *(str(arg).partition("?")[0] for arg in args), **kwargs)


logger_class = LoggerWithoutContent

bind = f"{ENVIRONMENT.host}:{ENVIRONMENT.port}"
worker_class = "chatstore.worker.Worker"
workers = ENVIRONMENT.web_workers
threads = ENVIRONMENT.web_threads
# Each worker takes this many more than it has threads for; they wait, or are kept alive.
worker_connections = threads + 1000
# No preload: a connection pool opened before the fork would be shared by processes and break.
keepalive = 5
# The longest that gunicorn has: filters of 255 characters each, percent-encoded, make long lines.
limit_request_line = 8190
# Access tokens with many permissions are long.
limit_request_field_size = 16384
# Files, too, are sent by what ends where nobody reads.
sendfile = False
control_socket_disable = True


def pre_fork(server: Arbiter, worker: Worker) -> None:
    """WEB_CPU_AFFINITY: each worker gets the processor that the fewest others have. Threads of one process take
    turns at Python's lock; on several processors most of the time goes into waking each other up."""
    if ENVIRONMENT.web_cpu_affinity and hasattr(os, "sched_getaffinity"):
        taken = Counter(other.processor for other in server.WORKERS.values())
        worker.processor = min(sorted(os.sched_getaffinity(0)), key=taken.__getitem__)


def pre_request(worker: Worker, request: Any) -> None:
    """HTTP/1.1 wants a Host (RFC 9112, 3.2): who would route one without is not who answers it."""
    if request.version >= (1, 1) and not any(name == "HOST" for name, _ in request.headers):
        raise InvalidHeader("HOST", req=request)


def post_worker_init(worker: Worker) -> None:
    """Each worker keeps its own turns from its start on. Not `chatstore.wsgi` does this: it is imported elsewhere,
    too. By name, since the keeper stands on models, which Django has only in the worker."""
    if hasattr(worker, "processor"):
        os.sched_setaffinity(0, {worker.processor})
    if ENVIRONMENT.db_statement_timeout:
        # PostgreSQL ends a statement itself; one that goes on beyond has nobody at the other end. Not for
        # commands, some of which run statements without a limit.
        BoundedConnection.longest = ENVIRONMENT.db_statement_timeout + STALL_SECONDS
    import_string("conversations.chat.keeper.keep_this_process")()
    # What is loaded by now stays: the garbage collector need not walk through it again and again, nor after every
    # 700 new objects, while a thousand streams wait.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
