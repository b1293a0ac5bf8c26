"""What flows and groups of targets need.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

DISPOSITIONS = "'answered', 'voicemail', 'abandoned', 'no-answer', 'busy', 'failed', 'rejected', 'completed'"
"""Before this revision."""
CAUSES = "'normal', 'busy', 'no-answer', 'rejected', 'not-found', 'congestion', 'unavailable'"


def upgrade() -> None:
    _callers()
    _recording()
    _decisions()
    _groups()


def downgrade() -> None:
    _groups_undone()
    _decisions_undone()
    _recording_undone()
    _callers_undone()


def _callers() -> None:
    """Who calls, and who may."""
    with op.batch_alter_table("trunk") as batch_op:
        batch_op.add_column(sa.Column("trust_identity", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("company") as batch_op:
        batch_op.add_column(sa.Column("accept_anonymous", sa.Boolean(), nullable=False, server_default=sa.true()))
        batch_op.add_column(sa.Column("max_calls_per_caller", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("caller_window", sa.Integer(), nullable=False, server_default=sa.text("'3600'")))
    with op.batch_alter_table("call") as batch_op:
        for column in ("diverted_from", "privacy", "verstat"):
            batch_op.add_column(sa.Column(column, sa.String(), nullable=True))
        batch_op.drop_constraint(op.f("ck_call_disposition"), type_="check")
        batch_op.create_check_constraint(op.f("ck_call_disposition"), f"disposition IN ({DISPOSITIONS}, 'blocked')")
    op.create_table(
        "block",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=True),
        sa.Column("pattern", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.CheckConstraint(f"cause IN ({CAUSES})", name=op.f("ck_block_cause")),
        sa.ForeignKeyConstraint(
            ["company_id"], ["company.id"], name=op.f("fk_block_company_id_company"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_block")),
        sa.UniqueConstraint("company_id", "pattern", name=op.f("uq_block_company_id_pattern")),
    )


def _callers_undone() -> None:
    op.drop_table("block")
    op.execute("UPDATE call SET disposition = 'rejected' WHERE disposition = 'blocked'")
    with op.batch_alter_table("call") as batch_op:
        batch_op.drop_constraint(op.f("ck_call_disposition"), type_="check")
        batch_op.create_check_constraint(op.f("ck_call_disposition"), f"disposition IN ({DISPOSITIONS})")
        for column in ("verstat", "privacy", "diverted_from"):
            batch_op.drop_column(column)
    with op.batch_alter_table("company") as batch_op:
        for column in ("caller_window", "max_calls_per_caller", "accept_anonymous"):
            batch_op.drop_column(column)
    with op.batch_alter_table("trunk") as batch_op:
        batch_op.drop_column("trust_identity")


POLICIES = "'force', 'never', 'inherit'"


def _recording() -> None:
    """What is recorded, and with whose consent."""
    for table, default in (("company", "force"), ("target", "inherit"), ("tracking_number", "inherit")):
        with op.batch_alter_table(table) as batch_op:
            batch_op.add_column(
                sa.Column("recording", sa.String(), nullable=False, server_default=sa.text(f"'{default}'"))
            )
            batch_op.create_check_constraint(op.f(f"ck_{table}_recording"), f"recording IN ({POLICIES})")
    op.execute(sa.text("UPDATE company SET recording = 'never' WHERE NOT record"))
    with op.batch_alter_table("company") as batch_op:
        batch_op.drop_column("record")
        batch_op.add_column(sa.Column("consent_required", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("pause_keys", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("pause_seconds", sa.Integer(), nullable=False, server_default=sa.text("'120'")))
    with op.batch_alter_table("call") as batch_op:
        batch_op.add_column(sa.Column("consent", sa.JSON(none_as_null=True), nullable=True))
    with op.batch_alter_table("recording") as batch_op:
        batch_op.add_column(sa.Column("pauses", sa.JSON(none_as_null=True), nullable=True))


def _recording_undone() -> None:
    with op.batch_alter_table("recording") as batch_op:
        batch_op.drop_column("pauses")
    with op.batch_alter_table("call") as batch_op:
        batch_op.drop_column("consent")
    with op.batch_alter_table("company") as batch_op:
        for column in ("pause_seconds", "pause_keys", "consent_required"):
            batch_op.drop_column(column)
        batch_op.add_column(sa.Column("record", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.execute(sa.text("UPDATE company SET record = (recording = 'force')"))
    with op.batch_alter_table("company") as batch_op:
        batch_op.alter_column("record", existing_type=sa.Boolean(), server_default=None)
    for table in ("tracking_number", "target", "company"):
        with op.batch_alter_table(table) as batch_op:
            batch_op.drop_constraint(op.f(f"ck_{table}_recording"), type_="check")
            batch_op.drop_column("recording")


def _decisions() -> None:
    """Languages, values that flows put on calls, and opening hours that are overridden."""
    with op.batch_alter_table("company") as batch_op:
        batch_op.add_column(sa.Column("language", sa.String(), nullable=True))
    with op.batch_alter_table("call") as batch_op:
        batch_op.add_column(sa.Column("set_values", sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column("language", sa.String(), nullable=True))
    op.create_table(
        "hours_override",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("flow_id", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.CheckConstraint("state IN ('open', 'closed')", name=op.f("ck_hours_override_state")),
        sa.ForeignKeyConstraint(
            ["company_id"], ["company.id"], name=op.f("fk_hours_override_company_id_company"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["flow_id"], ["flow.id"], name=op.f("fk_hours_override_flow_id_flow"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hours_override")),
        sa.UniqueConstraint("company_id", "flow_id", name=op.f("uq_hours_override_company_id_flow_id")),
    )


def _decisions_undone() -> None:
    op.drop_table("hours_override")
    with op.batch_alter_table("call") as batch_op:
        batch_op.drop_column("language")
        batch_op.drop_column("set_values")
    with op.batch_alter_table("company") as batch_op:
        batch_op.drop_column("language")


STRATEGIES = "'in-order', 'round-robin', 'weighted', 'tiers', 'least-recent', 'longest-idle', 'ring-all'"


def _groups() -> None:
    """Targets that are rung for each other."""
    op.create_table(
        "target_group",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("strategy", sa.String(), nullable=False),
        sa.Column("stop_on_declined", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("stop_on_busy", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.CheckConstraint(f"strategy IN ({STRATEGIES})", name=op.f("ck_target_group_strategy")),
        sa.ForeignKeyConstraint(["company_id"], ["company.id"], name=op.f("fk_target_group_company_id_company")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_target_group")),
        sa.UniqueConstraint("company_id", "name", name=op.f("uq_target_group_company_id_name")),
    )
    op.create_table(
        "group_member",
        sa.Column("group_id", sa.String(), nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("target_id", sa.String(), nullable=False),
        sa.Column("ring_seconds", sa.Integer(), nullable=True),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("tier", sa.Integer(), nullable=False),
        sa.CheckConstraint("ring_seconds BETWEEN 1 AND 300", name=op.f("ck_group_member_ring_seconds")),
        sa.CheckConstraint("weight BETWEEN 1 AND 100", name=op.f("ck_group_member_weight")),
        sa.CheckConstraint("tier BETWEEN 1 AND 99", name=op.f("ck_group_member_tier")),
        sa.ForeignKeyConstraint(
            ["group_id"], ["target_group.id"], name=op.f("fk_group_member_group_id_target_group"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["target_id"], ["target.id"], name=op.f("fk_group_member_target_id_target")),
        sa.PrimaryKeyConstraint("group_id", "place", name=op.f("pk_group_member")),
        sa.UniqueConstraint("group_id", "target_id", name=op.f("uq_group_member_group_id_target_id")),
    )
    op.create_index(op.f("ix_group_member_target_id"), "group_member", ["target_id"])
    op.create_table(
        "group_turn",
        sa.Column("group_id", sa.String(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", name=op.f("pk_group_turn")),
    )


def _groups_undone() -> None:
    op.drop_table("group_turn")
    op.drop_index(op.f("ix_group_member_target_id"), "group_member")
    op.drop_table("group_member")
    op.drop_table("target_group")
