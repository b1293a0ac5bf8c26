"""One call in full, and calls as they come."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

from callrouter.cli import output
from callrouter.cli.call import call_cells, call_json, consent_json, recording_json
from callrouter.core.disposition import cause_text
from callrouter.core.outbound import amount

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from callrouter.cli.context import App
    from callrouter.core.records import Consent
    from callrouter.store.calls import CallFilter, CallRow, StoredCall

POLL_SECONDS = 0.5
LOOK_BACK = 200
"""So many of the newest calls are compared at each look."""


def stored_json(call: StoredCall) -> dict[str, Any]:
    """A call with legs, trace and recordings; times in ISO 8601."""
    record = call.record
    shown: dict[str, Any] = output.plain(record)
    shown |= {name: output.iso(getattr(record, name)) for name in ("started_at", "answered_at", "ended_at")}
    times = ("started_at", "ringing_at", "answered_at", "ended_at")
    shown["consent"] = consent_json(record.consent)
    shown["values"] = dict(record.values)
    shown["legs"] = [
        {**output.plain(leg), "ring_seconds": leg.ring_seconds, "talk_seconds": leg.talk_seconds}
        | {name: output.iso(getattr(leg, name)) for name in times}
        for leg in record.legs
    ]
    shown["trace"] = [{**output.plain(step), "at": output.iso(step.at)} for step in record.trace]
    shown["recordings"] = [recording_json(recording) for recording in call.recordings]
    shown |= {"company": call.company, "campaign": call.campaign, "number": call.number, "duration": record.duration}
    shown |= {"cost_micros": record.cost_micros, "currency": call.currency}
    return shown


def print_call(call: StoredCall, zone: tzinfo, recordings_dir: Path) -> None:
    """A call for people: record, legs, recordings, trace."""
    record = call.record

    def clock(at: float | None) -> str | None:
        return None if at is None else datetime.fromtimestamp(at, zone).strftime("%H:%M:%S.%f")[:-4]

    caller = record.caller or "withheld"
    what = str(record.disposition) if record.disposition else "in progress"
    tried = f"{record.source} / {record.medium}" if record.source else None
    output.fields(
        [
            ("call", record.id + (" (test)" if record.test else "")),
            ("began", datetime.fromtimestamp(record.started_at, zone).strftime("%Y-%m-%d %H:%M:%S %Z")),
            ("caller", f"{caller} “{record.caller_name}”" if record.caller_name else caller),
            ("withheld by", f"Privacy: {record.privacy}" if record.privacy else None),
            ("diverted from", record.diverted_from),
            ("signature", record.verstat),
            ("dialled", record.did + (f" ({call.number})" if call.number else "")),
            ("company", call.company),
            ("campaign", f"{call.campaign} ({tried})" if call.campaign and tried else call.campaign),
            ("trunk", record.trunk),
            ("disposition", f"{what}: {record.reason}" if record.reason else what),
            ("answered by", record.answered_by),
            ("duration", output.seconds(record.duration) or None),
            ("ring", f"{record.ring_seconds:.1f} s" if record.ring_seconds else None),
            ("talk", f"{record.talk_seconds:.1f} s" if record.talk_seconds else None),
            ("hold", f"{record.hold_seconds:.1f} s" if record.hold_seconds else None),
            ("cost", f"{amount(record.cost_micros)} {call.currency or ''}" if record.cost_micros is not None else None),
            ("hangup cause", cause_text(record.cause) if record.cause is not None else None),
            ("tags", ", ".join(record.tags) or None),
            ("values", ", ".join(f"{name} = {value}" for name, value in record.values) or None),
            ("language", record.language),
            ("path", " → ".join(record.path) or None),
            ("handled by", None if record.handled_by == "controller" else record.handled_by),
            ("configuration", record.config_version),
            ("recording", record.recording_problem),
            ("consent", _consent(record.consent, clock)),
        ]
    )
    if record.legs:
        output.say("\nLegs", bold=True)
        output.table(
            ("#", "target", "endpoint", "over", "at", "result", "ring", "talk", "cost", "cause"),
            [
                (
                    leg.seq,
                    leg.target,
                    leg.endpoint,
                    leg.trunk or "",
                    clock(leg.started_at),
                    leg.result or "ringing",
                    f"{leg.ring_seconds:.1f}",
                    f"{leg.talk_seconds:.1f}" if leg.talk_seconds else "",
                    amount(leg.cost_micros) if leg.cost_micros else "",
                    cause_text(leg.cause) if leg.cause is not None else "",
                )
                for leg in record.legs
            ],
            right=("#", "ring", "talk", "cost"),
        )
    if call.recordings:
        output.say("\nRecordings", bold=True)
        for recording in call.recordings:
            level = [f"{x:.0f} dBFS" for x in (recording.left_dbfs, recording.right_dbfs) if x is not None]
            output.fields(
                [
                    (str(recording.kind), recording.id),
                    ("status", recording.status + (f": {recording.problem}" if recording.problem else "")),
                    ("file", recordings_dir / recording.path if recording.path else None),
                    ("length", f"{recording.seconds:.1f} s" if recording.seconds else None),
                    (
                        "paused",
                        ", ".join(f"{clock(p.begin)} to {clock(p.end) or 'its end'}" for p in recording.pauses) or None,
                    ),
                    ("level", " left, ".join(level) + (" right" if len(level) > 1 else "") if level else None),
                ]
            )
    if record.trace:
        output.say("\nWhy it went where it went", bold=True)
        output.table(
            ("at", "where", "what", "why"), [(clock(step.at), step.path, step.what, step.why) for step in record.trace]
        )


def _consent(consent: Consent | None, clock: Callable[[float], str | None]) -> str | None:
    if consent is None:
        return None
    key = f", key {consent.digit}" if consent.digit else ""
    return f"{consent.response.told} (at {clock(consent.at)}{key}, {consent.path}, script {consent.script[:12]})"


async def follow(app: App, chosen: CallFilter, lines: int, *, once: bool = False) -> None:
    """Print calls as they begin and end, until interrupted."""
    from callrouter.cli.call import company_zones
    from callrouter.store.calls import list_calls

    seen: dict[str, object] = {}
    first = True
    async with app.database() as database:
        while True:
            async with database.session(read_only=True) as session:
                rows = await list_calls(session, chosen, LOOK_BACK)
                zones = await company_zones(session)
            fresh = [row for row in reversed(rows) if seen.get(row.id) != _state(row)]
            seen |= {row.id: _state(row) for row in rows}
            if len(seen) > 10 * LOOK_BACK:
                seen = {row.id: _state(row) for row in rows}
            if first:
                fresh = fresh[len(fresh) - lines :] if lines < len(fresh) else fresh
                if not app.json and not once:
                    output.say("Following calls; Ctrl-C ends it.", err=True)
                first = False
            for row in fresh:
                _print_line(app, row, zones)
            if once:
                return
            await asyncio.sleep(POLL_SECONDS)


def _state(row: CallRow) -> tuple[object, ...]:
    return row.disposition, row.ended_at, row.answered_at


def _print_line(app: App, row: CallRow, zones: dict[str, tzinfo]) -> None:
    import click

    if app.json:
        output.emit(call_json(row), indent=None)
        return
    at = datetime.fromtimestamp(row.started_at, zones.get(row.company or "", UTC)).strftime("%m-%d %H:%M:%S")
    short, _, caller, did, campaign, what, who, ring, talk, _ = (str(cell or "") for cell in call_cells(row, zones))
    parts = [
        short,
        at,
        f"{caller} → {did}",
        campaign,
        what,
        who,
        f"ring {ring}" if ring else "",
        talk and f"talk {talk}",
    ]
    click.echo(output.safe("  ".join(part for part in parts if part)))
