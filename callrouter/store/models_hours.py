"""The table of opening hours that are overridden; beside :mod:`callrouter.store.models`, whose tables it refers to."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from callrouter.core.model import HOURS_STATES
from callrouter.store.types import Audited, Base, new_id, one_of


class HoursOverrideRow(Audited, Base):
    """Those that are over stay until another one takes their place."""

    __tablename__ = "hours_override"
    __table_args__ = (UniqueConstraint("company_id", "flow_id"), one_of("state", HOURS_STATES))

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    company_id: Mapped[str] = mapped_column(ForeignKey("company.id", ondelete="CASCADE"))
    flow_id: Mapped[str | None] = mapped_column(ForeignKey("flow.id", ondelete="CASCADE"))
    """None: all flows of the company."""
    state: Mapped[str]
    until: Mapped[datetime]
    reason: Mapped[str]
