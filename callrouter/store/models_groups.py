"""The tables of groups of targets."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint, false, true
from sqlalchemy.orm import Mapped, mapped_column

from callrouter.core.model import Strategy
from callrouter.store.types import Audited, Base, new_id, one_of


class TargetGroupRow(Audited, Base):
    __tablename__ = "target_group"
    __table_args__ = (UniqueConstraint("company_id", "name"), one_of("strategy", Strategy))

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    company_id: Mapped[str] = mapped_column(ForeignKey("company.id"))
    name: Mapped[str]
    title: Mapped[str]
    strategy: Mapped[str]
    stop_on_declined: Mapped[bool] = mapped_column(server_default=true())
    stop_on_busy: Mapped[bool] = mapped_column(server_default=false())


class GroupMemberRow(Base):
    __tablename__ = "group_member"
    __table_args__ = (
        UniqueConstraint("group_id", "target_id"),
        CheckConstraint("ring_seconds BETWEEN 1 AND 300", name="ring_seconds"),
        CheckConstraint("weight BETWEEN 1 AND 100", name="weight"),
        CheckConstraint("tier BETWEEN 1 AND 99", name="tier"),
    )

    group_id: Mapped[str] = mapped_column(ForeignKey("target_group.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """From 1."""
    target_id: Mapped[str] = mapped_column(ForeignKey("target.id"), index=True)
    ring_seconds: Mapped[int | None]
    weight: Mapped[int]
    tier: Mapped[int]


class GroupTurnRow(Base):
    """How many calls have come to a group, as far as the journal was drained. History: without a foreign key."""

    __tablename__ = "group_turn"

    group_id: Mapped[str] = mapped_column(primary_key=True)
    turn: Mapped[int]
