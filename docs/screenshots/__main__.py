"""The pictures of docs/images, taken anew: `make screenshots`.

    .venv/bin/python -m docs.screenshots [--folder FOLDER] [--every]

Starts the server on a database of its own, which it fills and throws away. Needs Chromium, and no network.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright

from chatstore.environment import BASE_DIR
from docs.screenshots.camera import EVERY, PICTURES, launched, take

PLANT = "import os; from docs.screenshots.scene import plant; plant(os.environ['SCREENSHOTS_PASSWORD'])"
TRACER = '{"hex": "https://traces.example.com/trace/{trace_id_hex}"}'
SECONDS_TO_START = 30


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--folder", type=Path, default=BASE_DIR / "docs" / "images")
    arguments.add_argument("--every", action="store_true", help="Each page in light, dark and phone.")
    options = arguments.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as own:
        password, port = secrets.token_urlsafe(15), free_port()
        os.environ |= {
            "DATABASE_URL": f"sqlite:///{own}/screenshots.sqlite3",
            "ENV": "development",
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "WEB_WORKERS": "1",
            "LOG_LEVEL": "WARNING",
            "TRACE_URL_TEMPLATES": TRACER,
            "ACCESS_REASON_REQUIRED": "false",
            "SCREENSHOTS_PASSWORD": password,
        }
        for words in (["migrate", "--verbosity", "0"], ["shell", "--verbosity", "0", "-c", PLANT]):
            subprocess.run([sys.executable, "manage.py", *words], cwd=BASE_DIR, check=True)
        with serving(port), sync_playwright() as playwright, launched(playwright) as browser:
            pictures = EVERY if options.every else PICTURES
            take(browser, f"http://127.0.0.1:{port}", password, options.folder, pictures)


@contextmanager
def serving(port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "gunicorn", "-c", "python:chatstore.gunicorn", "chatstore.wsgi"]
    server = subprocess.Popen(command, cwd=BASE_DIR)
    try:
        wait_for(server, port)
        yield
    finally:
        server.terminate()
        server.wait(20)


def wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and server.poll() is None:
        link = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            link.request("GET", "/health/live")
            link.getresponse()
        except OSError:
            time.sleep(0.1)
        else:
            return
        finally:
            link.close()
    raise SystemExit("The server did not start.")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
