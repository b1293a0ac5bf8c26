"""The table of callers that are refused; beside :mod:`callrouter.store.models`, whose tables it refers to."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from callrouter.core.flow.nodes import HANGUP_CAUSES
from callrouter.store.types import Audited, Base, new_id, one_of


class BlockRow(Audited, Base):
    __tablename__ = "block"
    __table_args__ = (UniqueConstraint("company_id", "pattern"), one_of("cause", HANGUP_CAUSES))

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    company_id: Mapped[str | None] = mapped_column(ForeignKey("company.id", ondelete="CASCADE"))
    """None: for all companies."""
    pattern: Mapped[str]
    """"+12025550123", "+1900*" or "anonymous"."""
    reason: Mapped[str]
    cause: Mapped[str]
    """What the caller is refused with."""
    expires_at: Mapped[datetime | None]
