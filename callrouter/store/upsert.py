"""INSERT … ON CONFLICT, which SQLite and PostgreSQL write alike and SQLAlchemy keeps in two places."""

from __future__ import annotations

from typing import Any

from sqlalchemy import FromClause
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession


def dialect_of(session: AsyncSession) -> str:
    """``sqlite`` or ``postgresql``."""
    return session.get_bind().dialect.name


def insert(session: AsyncSession, model: type[Any] | FromClause) -> Any:
    """An INSERT of the session's database that has ``on_conflict_do_update`` and ``on_conflict_do_nothing``."""
    return insert_of(dialect_of(session), model)


def insert_of(dialect: str, model: type[Any] | FromClause) -> Any:
    """As :func:`insert`, for who keeps the statement."""
    make: Any = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return make(model)
