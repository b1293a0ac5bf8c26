"""The tables.

Ids are UUIDv7 in 36 characters on every database: the core speaks strings, a call is found by the first few characters
of its id with plain LIKE, and text sorts by time just as the bytes would. Text columns have no length: a strange DID or
caller name must never cost a CDR.

A call refers to company, campaign, number and flow version by id but without foreign keys: it is history, and it has to
be storable when the configuration it began with has been changed meanwhile.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, UniqueConstraint, false, text, true
from sqlalchemy.orm import Mapped, mapped_column

from callrouter.core.disposition import Disposition, LegResult
from callrouter.core.model import CallerIdMode, DidSource, MediaEncryption, NumberFormat, RecordingPolicy
from callrouter.core.records import RecordingKind, RecordingStatus
from callrouter.store.types import Audited, Base, new_id, now, one_of

JOB_STATES = ("queued", "running", "done", "dead")

# -- configuration -----------------------------------------------------------------------------------------------------


class CompanyRow(Audited, Base):
    __tablename__ = "company"
    __table_args__ = (one_of("recording", RecordingPolicy),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    title: Mapped[str]
    timezone: Mapped[str]
    country: Mapped[str]
    currency: Mapped[str]
    language: Mapped[str | None]
    record: Mapped[str] = mapped_column("recording", server_default=text("'force'"))
    consent_required: Mapped[bool] = mapped_column(server_default=false())
    pause_keys: Mapped[bool] = mapped_column(server_default=false())
    pause_seconds: Mapped[int] = mapped_column(server_default=text("'120'"))
    allowed_destinations: Mapped[list[Any]] = mapped_column(default=list)
    """Countries ("US") and prefixes ("+4420") that may be dialled though no target names them."""
    max_outbound_calls: Mapped[int | None]
    max_outbound_per_hour: Mapped[int | None]
    max_spend_per_day: Mapped[int | None] = mapped_column(BigInteger)
    """Minor units of ``currency``."""
    accept_anonymous: Mapped[bool] = mapped_column(server_default=true())
    max_calls_per_caller: Mapped[int | None]
    caller_window: Mapped[int] = mapped_column(server_default=text("'3600'"))
    """Seconds."""


class CampaignRow(Audited, Base):
    """Removed ones stay (``removed_at``): their calls are still reported under their name."""

    __tablename__ = "campaign"
    __table_args__ = (
        Index(
            "uq_campaign_company_id_name",
            "company_id",
            "name",
            unique=True,
            sqlite_where=text("removed_at IS NULL"),
            postgresql_where=text("removed_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    company_id: Mapped[str] = mapped_column(ForeignKey("company.id"))
    name: Mapped[str]
    title: Mapped[str]
    source: Mapped[str]
    medium: Mapped[str]
    removed_at: Mapped[datetime | None]


class TrunkRow(Audited, Base):
    __tablename__ = "trunk"
    __table_args__ = (
        one_of("transport", ("udp", "tcp", "tls")),
        one_of("caller_id", CallerIdMode),
        one_of("did_source", DidSource),
        one_of("number_format", NumberFormat),
        one_of("media_encryption", MediaEncryption),
        CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    preset: Mapped[str]
    host: Mapped[str]
    port: Mapped[int]
    transport: Mapped[str]
    match: Mapped[list[Any]]
    registers: Mapped[bool]
    username: Mapped[str | None]
    codecs: Mapped[list[Any]]
    caller_id: Mapped[str]
    fixed_caller_id: Mapped[str | None]
    did_source: Mapped[str]
    number_format: Mapped[str]
    qualify_seconds: Mapped[int]
    country: Mapped[str]
    media_encryption: Mapped[str] = mapped_column(server_default=text("'none'"))
    secure_only: Mapped[bool] = mapped_column(server_default=false())
    trust_identity: Mapped[bool] = mapped_column(server_default=false())
    next_trunk_id: Mapped[str | None] = mapped_column(ForeignKey("trunk.id"), index=True)
    setup_seconds: Mapped[float] = mapped_column(server_default=text("'4'"))
    rates: Mapped[list[Any]] = mapped_column(default=list)
    """[prefix, millionths of the company's currency unit per minute], longest prefix wins."""


class TargetRow(Audited, Base):
    __tablename__ = "target"
    __table_args__ = (
        UniqueConstraint("company_id", "name"),
        CheckConstraint("(sip_uri IS NULL) <> (number IS NULL)", name="destination"),
        CheckConstraint("number IS NULL OR trunk_id IS NOT NULL", name="trunk"),
        one_of("recording", RecordingPolicy),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    company_id: Mapped[str] = mapped_column(ForeignKey("company.id"))
    name: Mapped[str]
    title: Mapped[str]
    number: Mapped[str | None]
    trunk_id: Mapped[str | None] = mapped_column(ForeignKey("trunk.id"), index=True)
    sip_uri: Mapped[str | None]
    ring_seconds: Mapped[int]
    whisper: Mapped[str | None]
    record: Mapped[str] = mapped_column("recording", server_default=text("'inherit'"))


class FlowRow(Audited, Base):
    """Removed ones stay (``removed_at``), with their versions: calls refer to the version they went through."""

    __tablename__ = "flow"
    __table_args__ = (
        Index(
            "uq_flow_company_id_name",
            "company_id",
            "name",
            unique=True,
            sqlite_where=text("removed_at IS NULL"),
            postgresql_where=text("removed_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    company_id: Mapped[str] = mapped_column(ForeignKey("company.id"))
    name: Mapped[str]
    newest: Mapped[int]
    """Number of the newest version."""
    removed_at: Mapped[datetime | None]


class FlowVersionRow(Base):
    __tablename__ = "flow_version"
    __table_args__ = (UniqueConstraint("flow_id", "version"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    flow_id: Mapped[str] = mapped_column(ForeignKey("flow.id"))
    version: Mapped[int]
    text: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)
    created_by: Mapped[str]
    why: Mapped[str]


class TrackingNumberRow(Audited, Base):
    __tablename__ = "tracking_number"
    __table_args__ = (
        UniqueConstraint("company_id", "name"),
        CheckConstraint("(flow_id IS NULL) <> (target_id IS NULL)", name="destination"),
        one_of("recording", RecordingPolicy),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    company_id: Mapped[str] = mapped_column(ForeignKey("company.id"))
    e164: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    campaign_id: Mapped[str | None] = mapped_column(ForeignKey("campaign.id"), index=True)
    flow_id: Mapped[str | None] = mapped_column(ForeignKey("flow.id"), index=True)
    target_id: Mapped[str | None] = mapped_column(ForeignKey("target.id"), index=True)
    backup_id: Mapped[str | None] = mapped_column(ForeignKey("target.id"), index=True)
    active: Mapped[bool]
    record: Mapped[str] = mapped_column("recording", server_default=text("'inherit'"))


class PromptRow(Audited, Base):
    """An uploaded recording; the converted audio lies in the prompts directory under its hash."""

    __tablename__ = "prompt"
    __table_args__ = (UniqueConstraint("company_id", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    company_id: Mapped[str] = mapped_column(ForeignKey("company.id"))
    name: Mapped[str]
    filename: Mapped[str]
    sha256: Mapped[str]
    seconds: Mapped[float]


class ConfigStateRow(Base):
    """One row: the number of the configuration in force. It moves with every change."""

    __tablename__ = "config_state"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int]


class ConfigChangeRow(Base):
    """The audit log: one row for every version of the configuration."""

    __tablename__ = "config_change"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(default=now)
    who: Mapped[str]
    what: Mapped[str]
    why: Mapped[str]
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]


# -- calls -------------------------------------------------------------------------------------------------------------


class CallRecordRow(Base):
    """One caller's call: the CDR."""

    __tablename__ = "call"
    __table_args__ = (
        one_of("disposition", Disposition),
        one_of("handled_by", ("controller", "failsafe")),
        Index(None, "started_at", "id"),
        Index(None, "company_id", "started_at"),
        Index(None, "campaign_id", "started_at"),
        Index(None, "caller", "started_at"),
        Index(None, "did", "started_at"),
        Index(None, "ended_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    uniqueid: Mapped[str] = mapped_column(unique=True)
    linkedid: Mapped[str | None]
    did: Mapped[str]
    caller: Mapped[str | None]
    caller_name: Mapped[str | None]
    trunk: Mapped[str | None]
    started_at: Mapped[datetime]
    test: Mapped[bool]
    company_id: Mapped[str | None]
    campaign_id: Mapped[str | None]
    number_id: Mapped[str | None]
    source: Mapped[str | None]
    medium: Mapped[str | None]
    flow_version_id: Mapped[str | None]
    config_version: Mapped[int | None]
    answered_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    ring_seconds: Mapped[float]
    talk_seconds: Mapped[float]
    hold_seconds: Mapped[float]
    answered_by: Mapped[str | None]
    cause: Mapped[int | None]
    disposition: Mapped[str | None]
    reason: Mapped[str]
    handled_by: Mapped[str]
    recording_problem: Mapped[str | None]
    consent: Mapped[dict[str, Any] | None]
    diverted_from: Mapped[str | None]
    privacy: Mapped[str | None]
    verstat: Mapped[str | None]
    set_values: Mapped[dict[str, Any] | None]
    """What ``set`` nodes put on it."""
    language: Mapped[str | None]
    path: Mapped[list[Any]]
    trace: Mapped[list[Any]]


class LegRow(Base):
    """One destination that was tried."""

    __tablename__ = "leg"
    __table_args__ = (one_of("result", LegResult), UniqueConstraint("call_id", "seq"))

    id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("call.id", ondelete="CASCADE"))
    seq: Mapped[int]
    target_id: Mapped[str | None]
    target: Mapped[str]
    endpoint: Mapped[str]
    started_at: Mapped[datetime]
    ringing_at: Mapped[datetime | None]
    answered_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    cause: Mapped[int | None]
    result: Mapped[str | None]
    hold_seconds: Mapped[float]
    trunk: Mapped[str | None]
    cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    """Millionths of the company's currency unit."""


class CallEventRow(Base):
    """A call's log, as drained from the journal. No foreign key: a call's first entries precede its row."""

    __tablename__ = "call_event"

    call_id: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    type: Mapped[str]
    data: Mapped[dict[str, Any]]


class RecordingRow(Base):
    __tablename__ = "recording"
    __table_args__ = (
        one_of("kind", RecordingKind),
        one_of("status", RecordingStatus),
        Index(None, "status", "started_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(ForeignKey("call.id", ondelete="CASCADE"), index=True)
    leg_id: Mapped[str | None]
    kind: Mapped[str]
    started_at: Mapped[datetime]
    status: Mapped[str]
    problem: Mapped[str | None]
    pauses: Mapped[list[Any] | None]
    """Objects with begin, end (seconds since the epoch; null: to its end) and by."""
    path: Mapped[str | None]
    """Relative to the recordings directory."""
    format: Mapped[str | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None]
    seconds: Mapped[float | None]
    left_dbfs: Mapped[float | None]
    """Level of the caller's channel, dB below full scale."""
    right_dbfs: Mapped[float | None]
    """Level of the business's channel."""
    verified_at: Mapped[datetime | None]
    gaps: Mapped[list[Any] | None]
    """What is missing of it: objects with channel, start, end, seconds, why."""
    chain_seq: Mapped[int | None] = mapped_column(unique=True)
    """Place of its manifest in the chain of all manifests, from 1."""
    manifest_sha256: Mapped[str | None]


class RecordingChainRow(Base):
    """One row: the newest manifest of the chain."""

    __tablename__ = "recording_chain"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int]
    sha256: Mapped[str]


class CallTagRow(Base):
    __tablename__ = "call_tag"

    call_id: Mapped[str] = mapped_column(ForeignKey("call.id", ondelete="CASCADE"), primary_key=True)
    tag: Mapped[str] = mapped_column(primary_key=True, index=True)


# -- machinery ---------------------------------------------------------------------------------------------------------


class JobRow(Base):
    """Work to be done after a call; kept when done or dead, for whoever asks what happened."""

    __tablename__ = "job"
    __table_args__ = (one_of("state", JOB_STATES), Index(None, "state", "run_at"))

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]
    key: Mapped[str | None] = mapped_column(unique=True)
    state: Mapped[str]
    attempts: Mapped[int]
    max_attempts: Mapped[int]
    run_at: Mapped[datetime]
    leased_by: Mapped[str | None]
    leased_until: Mapped[datetime | None]
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


class JournalPositionRow(Base):
    """How far a journal (by its id) has been drained."""

    __tablename__ = "journal_position"

    journal: Mapped[str] = mapped_column(primary_key=True)
    segment: Mapped[int] = mapped_column(Integer)
    offset: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class LedgerPositionRow(Base):
    """How far a file of Asterisk's own CDRs has been read. ``file`` tells a rotated file from the one read before."""

    __tablename__ = "ledger_position"

    ledger: Mapped[str] = mapped_column(primary_key=True)
    file: Mapped[str]
    offset: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class ReconciliationRow(Base):
    """One comparison of journal, database, Asterisk's records and the carrier's: what was counted and found."""

    __tablename__ = "reconciliation"
    __table_args__ = (Index(None, "started_at"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    started_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
    since: Mapped[datetime]
    until: Mapped[datetime]
    sources: Mapped[list[Any]]
    counts: Mapped[dict[str, Any]]
    findings: Mapped[list[Any]]
