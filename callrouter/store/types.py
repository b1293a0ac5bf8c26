"""Column types and the declarative base. Times are aware datetimes in UTC here, float seconds in the core."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

import uuid_utils
from sqlalchemy import CheckConstraint, DateTime, Dialect, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON, TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC on every database (SQLite keeps no zone and would give it back naive)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """All tables. Constraints are named by rule, so that migrations can address them on every database."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
        str: String(),
    }


def new_id() -> str:
    """A UUIDv7 (RFC 9562): 36 characters, in order of time."""
    return str(uuid_utils.uuid7())


def now() -> datetime:
    return datetime.now(UTC)


def to_datetime(at: float | None) -> datetime | None:
    """Seconds since the epoch as an aware datetime."""
    return None if at is None else datetime.fromtimestamp(at, UTC)


def to_seconds(at: datetime | None) -> float | None:
    """An aware datetime as seconds since the epoch."""
    return None if at is None else at.timestamp()


def one_of(column: str, values: type[StrEnum] | Iterable[str]) -> CheckConstraint:
    """CHECK that ``column`` is NULL or one of ``values``."""
    listed = ", ".join(f"'{value!s}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class Audited:
    """Who made and who last changed a row of the configuration."""

    created_at: Mapped[datetime] = mapped_column(default=now, sort_order=90)
    created_by: Mapped[str] = mapped_column(sort_order=91)
    updated_at: Mapped[datetime] = mapped_column(default=now, sort_order=92)
    updated_by: Mapped[str] = mapped_column(sort_order=93)
