from __future__ import annotations

import io
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class WholeBody:
    """A body as Django reads it, never beyond its length: ConnectionResetError where it ends before.

    Servers hand over what came, and Django takes that for the whole: a form that was cut off, say.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        if len(data) < size:
            raise ConnectionResetError
        return data

    def readline(self, size: int) -> bytes:
        line = self.stream.readline(size)
        if size and not line:
            raise ConnectionResetError
        return line


class MeasuredBodies:
    """WSGI middleware: a chunked body gets the Content-Length that Django reads by, and any other is whole.

    Without it Django takes a body sent as `Transfer-Encoding: chunked` for an empty one and a write is lost
    in silence. At most `limit` + 1 bytes are read, which is enough for the view to answer 413.
    """

    def __init__(self, application: WSGIApplication, limit: int) -> None:
        self.application = application
        self.limit = limit

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
            body = environ["wsgi.input"].read(self.limit + 1)
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
        else:
            environ["wsgi.input"] = WholeBody(environ["wsgi.input"])
        return self.application(environ, start_response)
