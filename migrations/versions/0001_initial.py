"""The first schema.

Revision ID: 0001
Revises: nothing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "call",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("uniqueid", sa.String(), nullable=False),
        sa.Column("linkedid", sa.String(), nullable=True),
        sa.Column("did", sa.String(), nullable=False),
        sa.Column("caller", sa.String(), nullable=True),
        sa.Column("caller_name", sa.String(), nullable=True),
        sa.Column("trunk", sa.String(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("test", sa.Boolean(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=True),
        sa.Column("campaign_id", sa.String(), nullable=True),
        sa.Column("number_id", sa.String(), nullable=True),
        sa.Column("source", sa.String(), nullable=True),
        sa.Column("medium", sa.String(), nullable=True),
        sa.Column("flow_version_id", sa.String(), nullable=True),
        sa.Column("config_version", sa.Integer(), nullable=True),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ring_seconds", sa.Double(), nullable=False),
        sa.Column("talk_seconds", sa.Double(), nullable=False),
        sa.Column("hold_seconds", sa.Double(), nullable=False),
        sa.Column("answered_by", sa.String(), nullable=True),
        sa.Column("cause", sa.Integer(), nullable=True),
        sa.Column("disposition", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("handled_by", sa.String(), nullable=False),
        sa.Column("recording_problem", sa.String(), nullable=True),
        sa.Column("path", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("trace", sa.JSON(none_as_null=True), nullable=False),
        sa.CheckConstraint(
            "disposition IN ('answered', 'voicemail', "
            "'abandoned', 'no-answer', 'busy', 'failed', 'rejected', 'completed')",
            name=op.f("ck_call_disposition"),
        ),
        sa.CheckConstraint("handled_by IN ('controller', 'failsafe')", name=op.f("ck_call_handled_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_call")),
        sa.UniqueConstraint("uniqueid", name=op.f("uq_call_uniqueid")),
    )
    with op.batch_alter_table("call", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_call_caller_started_at"), ["caller", "started_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_call_campaign_id_started_at"), ["campaign_id", "started_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_call_company_id_started_at"), ["company_id", "started_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_call_did_started_at"), ["did", "started_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_call_ended_at"), ["ended_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_call_started_at_id"), ["started_at", "id"], unique=False)

    op.create_table(
        "call_event",
        sa.Column("call_id", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("call_id", "seq", name=op.f("pk_call_event")),
    )
    op.create_table(
        "company",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("timezone", sa.String(), nullable=False),
        sa.Column("country", sa.String(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("record", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_company")),
        sa.UniqueConstraint("name", name=op.f("uq_company_name")),
    )
    op.create_table(
        "config_change",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("before", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("after", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_config_change")),
    )
    op.create_table(
        "config_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_config_state_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_config_state")),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("payload", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("key", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leased_by", sa.String(), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'dead')", name=op.f("ck_job_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("key", name=op.f("uq_job_key")),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_job_state_run_at"), ["state", "run_at"], unique=False)

    op.create_table(
        "journal_position",
        sa.Column("journal", sa.String(), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("journal", name=op.f("pk_journal_position")),
    )
    op.create_table(
        "ledger_position",
        sa.Column("ledger", sa.String(), nullable=False),
        sa.Column("file", sa.String(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("ledger", name=op.f("pk_ledger_position")),
    )
    op.create_table(
        "trunk",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("preset", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("transport", sa.String(), nullable=False),
        sa.Column("match", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("registers", sa.Boolean(), nullable=False),
        sa.Column("username", sa.String(), nullable=True),
        sa.Column("codecs", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("caller_id", sa.String(), nullable=False),
        sa.Column("fixed_caller_id", sa.String(), nullable=True),
        sa.Column("did_source", sa.String(), nullable=False),
        sa.Column("number_format", sa.String(), nullable=False),
        sa.Column("qualify_seconds", sa.Integer(), nullable=False),
        sa.Column("country", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.CheckConstraint(
            "caller_id IN ('pass-through', 'tracking-number', 'fixed')", name=op.f("ck_trunk_caller_id")
        ),
        sa.CheckConstraint("did_source IN ('request-uri', 'to-header')", name=op.f("ck_trunk_did_source")),
        sa.CheckConstraint(
            "number_format IN ('e164', 'e164-no-plus', 'national', 'international-00')",
            name=op.f("ck_trunk_number_format"),
        ),
        sa.CheckConstraint("transport IN ('udp', 'tcp', 'tls')", name=op.f("ck_trunk_transport")),
        sa.CheckConstraint("port BETWEEN 1 AND 65535", name=op.f("ck_trunk_port")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trunk")),
        sa.UniqueConstraint("name", name=op.f("uq_trunk_name")),
    )
    op.create_table(
        "call_tag",
        sa.Column("call_id", sa.String(), nullable=False),
        sa.Column("tag", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["call_id"], ["call.id"], name=op.f("fk_call_tag_call_id_call"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("call_id", "tag", name=op.f("pk_call_tag")),
    )
    with op.batch_alter_table("call_tag", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_call_tag_tag"), ["tag"], unique=False)

    op.create_table(
        "campaign",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("medium", sa.String(), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["company_id"], ["company.id"], name=op.f("fk_campaign_company_id_company")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaign")),
    )
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        batch_op.create_index(
            "uq_campaign_company_id_name",
            ["company_id", "name"],
            unique=True,
            sqlite_where=sa.text("removed_at IS NULL"),
            postgresql_where=sa.text("removed_at IS NULL"),
        )

    op.create_table(
        "flow",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("newest", sa.Integer(), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["company_id"], ["company.id"], name=op.f("fk_flow_company_id_company")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flow")),
    )
    with op.batch_alter_table("flow", schema=None) as batch_op:
        batch_op.create_index(
            "uq_flow_company_id_name",
            ["company_id", "name"],
            unique=True,
            sqlite_where=sa.text("removed_at IS NULL"),
            postgresql_where=sa.text("removed_at IS NULL"),
        )

    op.create_table(
        "leg",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("call_id", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("target_id", sa.String(), nullable=True),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ringing_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cause", sa.Integer(), nullable=True),
        sa.Column("result", sa.String(), nullable=True),
        sa.Column("hold_seconds", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "result IN ('answered', 'busy', 'no-answer', 'failed', 'cancelled')", name=op.f("ck_leg_result")
        ),
        sa.ForeignKeyConstraint(["call_id"], ["call.id"], name=op.f("fk_leg_call_id_call"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leg")),
        sa.UniqueConstraint("call_id", "seq", name=op.f("uq_leg_call_id_seq")),
    )
    op.create_table(
        "prompt",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["company_id"], ["company.id"], name=op.f("fk_prompt_company_id_company")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt")),
        sa.UniqueConstraint("company_id", "name", name=op.f("uq_prompt_company_id_name")),
    )
    op.create_table(
        "recording",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("call_id", sa.String(), nullable=False),
        sa.Column("leg_id", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("path", sa.String(), nullable=True),
        sa.Column("format", sa.String(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.String(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("left_dbfs", sa.Double(), nullable=True),
        sa.Column("right_dbfs", sa.Double(), nullable=True),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('conversation', 'voicemail')", name=op.f("ck_recording_kind")),
        sa.CheckConstraint("status IN ('pending', 'ok', 'suspect', 'missing')", name=op.f("ck_recording_status")),
        sa.ForeignKeyConstraint(["call_id"], ["call.id"], name=op.f("fk_recording_call_id_call"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recording")),
    )
    with op.batch_alter_table("recording", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_recording_call_id"), ["call_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_recording_status_started_at"), ["status", "started_at"], unique=False)

    op.create_table(
        "target",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("number", sa.String(), nullable=True),
        sa.Column("trunk_id", sa.String(), nullable=True),
        sa.Column("sip_uri", sa.String(), nullable=True),
        sa.Column("ring_seconds", sa.Integer(), nullable=False),
        sa.Column("whisper", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.CheckConstraint("(sip_uri IS NULL) <> (number IS NULL)", name=op.f("ck_target_destination")),
        sa.CheckConstraint("number IS NULL OR trunk_id IS NOT NULL", name=op.f("ck_target_trunk")),
        sa.ForeignKeyConstraint(["company_id"], ["company.id"], name=op.f("fk_target_company_id_company")),
        sa.ForeignKeyConstraint(["trunk_id"], ["trunk.id"], name=op.f("fk_target_trunk_id_trunk")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_target")),
        sa.UniqueConstraint("company_id", "name", name=op.f("uq_target_company_id_name")),
    )
    with op.batch_alter_table("target", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_target_trunk_id"), ["trunk_id"], unique=False)

    op.create_table(
        "flow_version",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("flow_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["flow_id"], ["flow.id"], name=op.f("fk_flow_version_flow_id_flow")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flow_version")),
        sa.UniqueConstraint("flow_id", "version", name=op.f("uq_flow_version_flow_id_version")),
    )
    op.create_table(
        "tracking_number",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("e164", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("campaign_id", sa.String(), nullable=True),
        sa.Column("flow_id", sa.String(), nullable=True),
        sa.Column("target_id", sa.String(), nullable=True),
        sa.Column("backup_id", sa.String(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.CheckConstraint("(flow_id IS NULL) <> (target_id IS NULL)", name=op.f("ck_tracking_number_destination")),
        sa.ForeignKeyConstraint(["backup_id"], ["target.id"], name=op.f("fk_tracking_number_backup_id_target")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_tracking_number_campaign_id_campaign")),
        sa.ForeignKeyConstraint(["company_id"], ["company.id"], name=op.f("fk_tracking_number_company_id_company")),
        sa.ForeignKeyConstraint(["flow_id"], ["flow.id"], name=op.f("fk_tracking_number_flow_id_flow")),
        sa.ForeignKeyConstraint(["target_id"], ["target.id"], name=op.f("fk_tracking_number_target_id_target")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tracking_number")),
        sa.UniqueConstraint("company_id", "name", name=op.f("uq_tracking_number_company_id_name")),
        sa.UniqueConstraint("e164", name=op.f("uq_tracking_number_e164")),
    )
    with op.batch_alter_table("tracking_number", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tracking_number_backup_id"), ["backup_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_tracking_number_campaign_id"), ["campaign_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_tracking_number_flow_id"), ["flow_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_tracking_number_target_id"), ["target_id"], unique=False)

    op.execute("INSERT INTO config_state (id, version) VALUES (1, 1)")


def downgrade() -> None:
    with op.batch_alter_table("tracking_number", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tracking_number_target_id"))
        batch_op.drop_index(batch_op.f("ix_tracking_number_flow_id"))
        batch_op.drop_index(batch_op.f("ix_tracking_number_campaign_id"))
        batch_op.drop_index(batch_op.f("ix_tracking_number_backup_id"))

    op.drop_table("tracking_number")
    op.drop_table("flow_version")
    with op.batch_alter_table("target", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_target_trunk_id"))

    op.drop_table("target")
    with op.batch_alter_table("recording", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_recording_status_started_at"))
        batch_op.drop_index(batch_op.f("ix_recording_call_id"))

    op.drop_table("recording")
    op.drop_table("prompt")
    op.drop_table("leg")
    with op.batch_alter_table("flow", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_flow_company_id_name",
            sqlite_where=sa.text("removed_at IS NULL"),
            postgresql_where=sa.text("removed_at IS NULL"),
        )

    op.drop_table("flow")
    with op.batch_alter_table("campaign", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_campaign_company_id_name",
            sqlite_where=sa.text("removed_at IS NULL"),
            postgresql_where=sa.text("removed_at IS NULL"),
        )

    op.drop_table("campaign")
    with op.batch_alter_table("call_tag", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_call_tag_tag"))

    op.drop_table("call_tag")
    op.drop_table("trunk")
    op.drop_table("ledger_position")
    op.drop_table("journal_position")
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_state_run_at"))

    op.drop_table("job")
    op.drop_table("config_state")
    op.drop_table("config_change")
    op.drop_table("company")
    op.drop_table("call_event")
    with op.batch_alter_table("call", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_call_started_at_id"))
        batch_op.drop_index(batch_op.f("ix_call_ended_at"))
        batch_op.drop_index(batch_op.f("ix_call_did_started_at"))
        batch_op.drop_index(batch_op.f("ix_call_company_id_started_at"))
        batch_op.drop_index(batch_op.f("ix_call_campaign_id_started_at"))
        batch_op.drop_index(batch_op.f("ix_call_caller_started_at"))

    op.drop_table("call")
