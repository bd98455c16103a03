"""The secrets of a development installation, kept on disk for the person who runs it."""

from __future__ import annotations

import json
import os
from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600


class Credentials:
    """`credentials.json` in a folder of its own: nobody but their owner can ever read them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "credentials.json"
        self.secrets = self.read()
        self.error: str | None = None

    def read(self) -> dict[str, str]:
        """What is kept; nothing where there is no file, or none that can be read or understood."""
        try:
            found = json.loads(self.file.read_bytes())
        except (OSError, ValueError):
            found = None
        if found and self.file.stat().st_mode & 0o077:
            self.file.chmod(FILE_MODE)  # Somebody has opened it to others.
        pairs = found.items() if isinstance(found, dict) else ()
        return {name: secret for name, secret in pairs if isinstance(secret, str)}

    def get(self, name: str) -> str:
        """The secret, empty where none is kept."""
        return self.secrets.get(name, "")

    def put(self, name: str, secret: str) -> None:
        """Keep a secret, on disk at once. Where that cannot be, `error` says why."""
        self.secrets[name] = secret
        try:
            self.write()
        except OSError as error:
            self.error = error.strerror

    def write(self) -> None:
        """Replace the file in one step by one that was never readable by others."""
        self.folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        self.folder.chmod(FOLDER_MODE)
        written = self.folder / f"credentials.{os.getpid()}.tmp"
        written.unlink(missing_ok=True)
        handle = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with os.fdopen(handle, "w") as file:
            json.dump(self.secrets, file)
        written.replace(self.file)
