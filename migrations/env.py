"""Runs migrations on a connection that callrouter hands in, in that connection's transaction.

``alembic revision --autogenerate`` and the like take the database from ``alembic -x url=…``.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from alembic import context
from sqlalchemy import Connection

from callrouter.store import models, models_blocks, models_groups, models_hours
from callrouter.store.types import Base, UtcDateTime

_ = models, models_blocks, models_groups, models_hours  # fill Base.metadata


def render_item(kind: str, value: object, _context: object) -> str | Literal[False]:
    """Migrations must not change when our column types do: they name SQLAlchemy's own."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(value, UtcDateTime) else False


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        # SQLite alters a table by building it anew.
        render_as_batch=True,
        render_item=render_item,
        compare_type=True,
        compare_server_default=True,
        # SQLite's DDL is transactional; alembic thinks otherwise because Python's driver used to be in the way.
        transactional_ddl=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_alone() -> None:
    from callrouter.store.database import Database

    database = Database(context.get_x_argument(as_dictionary=True)["url"])
    try:
        async with database.engine.begin() as connection:
            await connection.run_sync(run)
    finally:
        await database.dispose()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    asyncio.run(run_alone())
