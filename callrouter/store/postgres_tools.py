"""PostgreSQL's own programs, which copy a database and put one back. No password is ever on a command line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from callrouter.errors import DatabaseError

DEBIAN = Path("/usr/lib/postgresql")
ASIDE = "before_restore_"
"""Beginning of the name of a schema that holds what was there before a restore."""
POLL_SECONDS = 0.2


class ToolsMissing(DatabaseError):
    """PostgreSQL's client programs are not installed."""


@dataclass(frozen=True, slots=True)
class PostgresTools:
    """``pg_dump``, ``pg_restore`` and ``psql`` for one database."""

    directory: Path
    environment: dict[str, str]
    name: str
    """The database's name for messages; without password."""

    def dump(self, target: Path, told: Callable[[int, int], None], snapshot: str | None = None) -> None:
        """Write the database into a file (custom format) that does not exist yet, for its owner alone.

        :param snapshot: of a transaction that is still open; None: as it is now
        :raises DatabaseError: pg_dump failed; the file is not left behind
        """
        command = ["pg_dump", "--format=custom", f"--exclude-schema={ASIDE}*", "--no-password"]
        if snapshot:
            command.append(f"--snapshot={snapshot}")
        temporary = target.with_name(f".{target.name}.part")
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary.unlink(missing_ok=True)
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                self._run(command, file.fileno(), lambda: told(os.fstat(file.fileno()).st_size, 0))
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def restore(self, dump: Path, script: Path, aside: str | None, told: Callable[[int, int], None]) -> None:
        """Put a dump into the database, in one transaction.

        :param script: where the SQL may lie meanwhile
        :param aside: name for the schema that is there, which is kept under it; None: nothing is there
        :raises DatabaseError: it failed; nothing was changed
        """
        command = ["pg_restore", "--no-owner", "--no-privileges", f"--file={script}", str(dump)]
        self._run(command, subprocess.DEVNULL, lambda: told(0, 0))
        run = ["psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--single-transaction"]
        if aside:
            run.append(f"--command=ALTER SCHEMA public RENAME TO {aside}")
            run.append("--command=CREATE SCHEMA public")
        self._run([*run, f"--file={script}"], subprocess.DEVNULL, lambda: told(0, 0))

    def _run(self, command: Sequence[str], stdout: int, tick: Callable[[], None]) -> None:
        whole = [str(self.directory / command[0]), *command[1:]]
        process = subprocess.Popen(
            whole, env=self.environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, umask=0o077
        )
        try:
            while True:
                try:
                    said = process.communicate(timeout=POLL_SECONDS)[1].decode("utf-8", "replace").strip()
                    break
                except subprocess.TimeoutExpired:
                    tick()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if process.returncode:
            last = said.splitlines()[-1] if said else f"exit {process.returncode}"
            raise DatabaseError(
                f"{command[0]} could not work on {self.name}: {said.splitlines()[0] if said else last}",
                hint="its programs must not be older than the server" if "version mismatch" in said else None,
            )


def find(url: URL) -> PostgresTools:
    """The programs on the PATH, else the newest of Debian's.

    :param url: the database they are to work on
    :raises ToolsMissing: they are not installed
    """
    directory = _directory()
    if directory is None:
        raise ToolsMissing(
            "pg_dump, pg_restore and psql are not installed, and a PostgreSQL database is copied with them",
            hint="install the PostgreSQL client programs (apt-get install postgresql-client)",
        )
    query = {name: value if isinstance(value, str) else ",".join(value) for name, value in url.query.items()}
    given = {
        "PGHOST": url.host or query.get("host"),
        "PGPORT": str(url.port) if url.port else query.get("port"),
        "PGUSER": url.username or query.get("user"),
        "PGPASSWORD": str(url.password) if url.password is not None else query.get("password"),
        "PGDATABASE": url.database,
        "PGSSLMODE": query.get("ssl") or query.get("sslmode"),
        "PGCONNECT_TIMEOUT": "10",
        "LC_ALL": "C.UTF-8",
    }
    environment = {**os.environ, **{name: value for name, value in given.items() if value}}
    return PostgresTools(directory, environment, url.set(password=None, query={}).render_as_string())


def _directory() -> Path | None:
    wanted = ("pg_dump", "pg_restore", "psql")
    # Debian's own wrapper in /usr/bin picks a version by the cluster: the programs themselves come first.
    version = re.compile(r"/(\d+)/bin$")
    debian = sorted(DEBIAN.glob("*/bin"), key=lambda path: int(m[1]) if (m := version.search(str(path))) else 0)
    on_path = shutil.which("pg_dump")
    places = [*reversed(debian), *([Path(on_path).parent] if on_path else [])]
    return next((place for place in places if all(os.access(place / name, os.X_OK) for name in wanted)), None)
