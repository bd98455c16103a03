from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# A charset that nobody knows: Django takes UTF-8, and JSON that says so is refused (415).
UNSUPPORTED: Final = " charset=unsupported"


class UTF8Requests:
    """WSGI middleware: query strings and forms are UTF-8, whatever charset the Content-Type names.

    Django decodes them by any codec of Python's, before it has a request to answer: some fail, some make text
    that nothing can store. Another charset is handed over as an unknown one, and so is each encoded parameter
    (RFC 2231), which may be one in disguise.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        media_type, *parameters = environ.get("CONTENT_TYPE", "").split(";")
        kept = [parameter if is_harmless(parameter) else UNSUPPORTED for parameter in parameters]
        if parameters:
            environ["CONTENT_TYPE"] = ";".join([media_type, *kept])
        return self.application(environ, start_response)


def is_harmless(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    is_charset = name.strip().lower() == "charset"
    return "*" not in name and (not is_charset or value.strip(' "').lower() == "utf-8")
