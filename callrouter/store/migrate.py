"""Schema versions: alembic, run from within. Every function takes a synchronous connection (``run_sync``).

alembic is loaded when something is to be migrated: to know how a database stands, which every start asks, needs it not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from callrouter.errors import DatabaseError, SchemaError
from callrouter.store import models, models_blocks, models_groups, models_hours
from callrouter.store.types import Base

if TYPE_CHECKING:
    from alembic.config import Config

_ = models, models_blocks, models_groups, models_hours  # fill Base.metadata
_REVISION = re.compile(r'^(revision|down_revision)(?:: [^=]+)? = "([^"]+)"$', re.MULTILINE)

LOCK = 7238461902
"""Key of the PostgreSQL advisory lock that keeps two upgrades apart."""


class SchemaStatus(StrEnum):
    OK = "ok"
    OLD = "needs upgrade"
    NEWER = "newer than this program"
    HALF_APPLIED = "half-applied"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class SchemaState:
    """How a database's schema stands to this program."""

    status: SchemaStatus
    revision: str | None
    """What the database has."""
    head: str
    """What this program works with."""
    detail: str

    @property
    def ok(self) -> bool:
        return self.status is SchemaStatus.OK

    def error(self, name: str) -> SchemaError:
        """The state as an error.

        :param name: the database's name
        """
        match self.status:
            case SchemaStatus.NEWER:
                message = f"database {name} was written by a newer callrouter (revision {self.revision})"
                hint = "install that version, or restore the backup made before its upgrade"
            case SchemaStatus.HALF_APPLIED:
                message = f"database {name}: a migration was applied only in part: {self.detail}"
                hint = "restore the backup beside it (*.before-*), then run: callrouter db upgrade"
            case SchemaStatus.ABSENT:
                message, hint = f"database {name} is not set up: {self.detail}", "run: callrouter db upgrade"
            case SchemaStatus.OLD:
                message = f"database {name} is at revision {self.revision}, this callrouter needs {self.head}"
                hint = "run: callrouter db upgrade"
            case _:
                message, hint = f"database {name}: {self.detail}", "nothing to do"
        return SchemaError(message, hint=hint)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What an upgrade or downgrade did."""

    before: str | None
    after: str | None
    backup: Path | None
    """Copy of the database as it was before; None: nothing was changed, or no copy was asked for."""


def directory() -> Path:
    """Where the migrations lie: within the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for place in (package / "_migrations", package.parent / "migrations"):
        if (place / "env.py").is_file():
            return place
    raise DatabaseError("the migrations are missing from this installation", hint="install callrouter again")


@cache
def revisions() -> tuple[str, ...]:
    """All revisions, oldest first: read out of the migrations, which to run them is not needed for."""
    after: dict[str | None, str] = {}
    for path in (directory() / "versions").glob("*.py"):
        told = dict(_REVISION.findall(path.read_text("utf-8")))
        if "revision" in told:
            after[told.get("down_revision") or None] = told["revision"]
    found: list[str] = []
    while (following := after.get(found[-1] if found else None)) is not None:
        found.append(following)
    return tuple(found)


@cache
def head() -> str:
    """The revision this program works with."""
    if not revisions():
        raise DatabaseError("the migrations are missing from this installation", hint="install callrouter again")
    return revisions()[-1]


def knows(revision: str) -> bool:
    """Whether this program can bring a database of that revision up to date."""
    return revision in revisions()


def check(connection: Connection) -> SchemaState:
    """How the schema stands. A migration runs in one transaction, so a half-applied one comes from elsewhere (an
    interrupted restore, tables made by hand); it is told by tables and columns that do not fit the revision."""
    inspector = inspect(connection)
    present = set(inspector.get_table_names())
    ours = {table.name: table for table in Base.metadata.sorted_tables}
    stored: list[str] = []
    if "alembic_version" in present:
        stored = [row[0] for row in connection.execute(text("SELECT version_num FROM alembic_version"))]
    revision = ", ".join(sorted(stored)) or None

    def state(status: SchemaStatus, detail: str) -> SchemaState:
        return SchemaState(status, revision, head(), detail)

    strays = sorted(name for name in present if name.startswith("_alembic_tmp_"))
    if strays:
        return state(SchemaStatus.HALF_APPLIED, f"table {strays[0]} was left behind")
    if not stored:
        found = sorted(present & set(ours))
        if found:
            return state(SchemaStatus.HALF_APPLIED, f"it has table {found[0]}, but no revision")
        return state(SchemaStatus.ABSENT, "it holds no tables of callrouter")
    if not set(stored) <= set(revisions()):
        return state(SchemaStatus.NEWER, "its revision is unknown to this program")
    if len(stored) > 1:
        return state(SchemaStatus.HALF_APPLIED, "it has two revisions")
    if revision != head():
        return state(SchemaStatus.OLD, f"{head()} is the newest")
    missing = sorted(set(ours) - present)
    if missing:
        return state(SchemaStatus.HALF_APPLIED, f"table {missing[0]} is missing")
    for (_, name), columns in inspector.get_multi_columns(filter_names=list(ours)).items():
        lacking = sorted({column.name for column in ours[name].columns} - {column["name"] for column in columns})
        if lacking:
            return state(SchemaStatus.HALF_APPLIED, f"table {name} has no column {lacking[0]}")
    return state(SchemaStatus.OK, "up to date")


def upgrade(connection: Connection, revision: str) -> None:
    from alembic import command

    _run(connection, lambda config: command.upgrade(config, revision))


def downgrade(connection: Connection, revision: str) -> None:
    from alembic import command

    _run(connection, lambda config: command.downgrade(config, revision))


def differences(connection: Connection) -> list[object]:
    """What the models have and the schema has not, or the other way round; empty when they agree."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, Base.metadata))


def _run(connection: Connection, action: Callable[[Config], None]) -> None:
    config = _config()
    config.attributes["connection"] = connection
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    action(config)


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    # "%" would be read as an interpolation.
    config.set_main_option("script_location", str(directory()).replace("%", "%%"))
    return config
