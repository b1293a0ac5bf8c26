"""Outbound limits, secure and second trunks, the chain of recordings, reconciliations.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("company") as batch_op:
        batch_op.add_column(
            sa.Column(
                "allowed_destinations", sa.JSON(none_as_null=True), nullable=False, server_default=sa.text("'[]'")
            )
        )
        batch_op.add_column(sa.Column("max_outbound_calls", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("max_outbound_per_hour", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("max_spend_per_day", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("trunk") as batch_op:
        batch_op.add_column(
            sa.Column("media_encryption", sa.String(), nullable=False, server_default=sa.text("'none'"))
        )
        batch_op.add_column(sa.Column("secure_only", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("next_trunk_id", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("setup_seconds", sa.Double(), nullable=False, server_default=sa.text("'4'")))
        batch_op.add_column(
            sa.Column("rates", sa.JSON(none_as_null=True), nullable=False, server_default=sa.text("'[]'"))
        )
        batch_op.create_check_constraint(
            op.f("ck_trunk_media_encryption"), "media_encryption IN ('none', 'sdes', 'dtls')"
        )
        batch_op.create_foreign_key(op.f("fk_trunk_next_trunk_id_trunk"), "trunk", ["next_trunk_id"], ["id"])
        batch_op.create_index(op.f("ix_trunk_next_trunk_id"), ["next_trunk_id"])
    for table, column in (("company", "allowed_destinations"), ("trunk", "rates")):
        # The default was for the rows that stood there. (PostgreSQL cannot compare JSON, so it cannot be checked.)
        with op.batch_alter_table(table) as batch_op:
            batch_op.alter_column(column, existing_type=sa.JSON(none_as_null=True), server_default=None)
    with op.batch_alter_table("leg") as batch_op:
        batch_op.add_column(sa.Column("trunk", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("cost_micros", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("recording") as batch_op:
        batch_op.add_column(sa.Column("gaps", sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column("chain_seq", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("manifest_sha256", sa.String(), nullable=True))
        batch_op.create_unique_constraint(op.f("uq_recording_chain_seq"), ["chain_seq"])
        batch_op.drop_constraint(op.f("ck_recording_status"), type_="check")
        batch_op.create_check_constraint(
            op.f("ck_recording_status"), "status IN ('pending', 'ok', 'suspect', 'missing', 'empty')"
        )
    op.create_table(
        "recording_chain",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_recording_chain_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recording_chain")),
    )
    op.create_table(
        "reconciliation",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sources", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("counts", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("findings", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliation")),
    )
    op.create_index(op.f("ix_reconciliation_started_at"), "reconciliation", ["started_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_reconciliation_started_at"), "reconciliation")
    op.drop_table("reconciliation")
    op.drop_table("recording_chain")
    op.execute("UPDATE recording SET status = 'missing' WHERE status = 'empty'")
    with op.batch_alter_table("recording") as batch_op:
        batch_op.drop_constraint(op.f("ck_recording_status"), type_="check")
        batch_op.create_check_constraint(
            op.f("ck_recording_status"), "status IN ('pending', 'ok', 'suspect', 'missing')"
        )
        batch_op.drop_constraint(op.f("uq_recording_chain_seq"), type_="unique")
        for column in ("manifest_sha256", "chain_seq", "gaps"):
            batch_op.drop_column(column)
    with op.batch_alter_table("leg") as batch_op:
        for column in ("cost_micros", "trunk"):
            batch_op.drop_column(column)
    with op.batch_alter_table("trunk") as batch_op:
        batch_op.drop_index(op.f("ix_trunk_next_trunk_id"))
        batch_op.drop_constraint(op.f("fk_trunk_next_trunk_id_trunk"), type_="foreignkey")
        batch_op.drop_constraint(op.f("ck_trunk_media_encryption"), type_="check")
        for column in ("rates", "setup_seconds", "next_trunk_id", "secure_only", "media_encryption"):
            batch_op.drop_column(column)
    with op.batch_alter_table("company") as batch_op:
        for column in ("max_spend_per_day", "max_outbound_per_hour", "max_outbound_calls", "allowed_destinations"):
            batch_op.drop_column(column)
