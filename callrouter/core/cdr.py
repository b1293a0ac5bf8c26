"""The CDR, folded from a call's log: its events and notes in the order they happened; nothing else is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.disposition import UNWATCHED, Disposition, LegResult, cause_text, leg_result
from callrouter.core.outbound import cost_micros
from callrouter.core.records import CallRecord, Consent, Leg, Pause, RecordingRef, TraceStep

LogItem: TypeAlias = e.Event | note.Note

ANSWERED_ELSEWHERE = 26
"""Q.850, of legs that rang at once with one that answered."""
_CAUSES = {"BUSY": 17, "NOANSWER": 19}
"""Q.850 of one of several that rang at once: Asterisk's cause is that of any of them, or none."""


def fold(log: Iterable[LogItem]) -> CallRecord | None:
    """The record of one call.

    :param log: the call's events and notes, oldest first
    :returns: None when the log does not begin with CallArrived; a record without disposition while the call lasts
    """
    record: CallRecord | None = None
    rates: dict[str, int] = {}
    dials: dict[str, str] = {}
    held_since: float | None = None
    for item in log:
        if isinstance(item, e.CallArrived):
            record = record or _begin(item)
            continue
        if record is None:
            return None
        if isinstance(item, note.LegPlanned) and item.rate is not None:
            rates[item.leg_id] = item.rate
        if isinstance(item, note.LegPlanned) and item.dial:
            dials[item.leg_id] = item.dial
        if isinstance(item, e.LegHeld):
            if item.on and held_since is None and _is_open(record, item.leg_id):
                held_since = item.at
            elif not item.on and held_since is not None:
                record, held_since = _hold(record, item.at - held_since), None
            continue
        ends = isinstance(item, e.DialReturned | e.CallerHungUp | e.LedgerClosed)
        if ends and held_since is not None:
            record, held_since = _hold(record, item.at - held_since), None
        record = _add(record, item, dials)
    return _priced(record, rates) if record is not None and rates else record


def _priced(record: CallRecord, rates: Mapping[str, int]) -> CallRecord:
    """What the legs that have ended cost."""
    legs = tuple(
        replace(leg, cost_micros=cost_micros(rates[leg.id], leg.talk_seconds))
        if leg.id in rates and leg.trunk is not None and leg.ended_at is not None
        else leg
        for leg in record.legs
    )
    return replace(record, legs=legs)


def _begin(event: e.CallArrived) -> CallRecord:
    return CallRecord(
        id=event.call_id,
        uniqueid=event.channel,
        linkedid=event.linkedid,
        did=event.did,
        caller=event.caller,
        caller_name=event.caller_name,
        trunk=event.trunk,
        started_at=event.at,
        test=event.test,
        handled_by=event.handled_by,
        privacy=event.privacy,
        diverted_from=event.diverted_from,
        verstat=event.verstat,
    )


def _add(record: CallRecord, item: LogItem, dials: Mapping[str, str]) -> CallRecord:
    """
    :param dials: what legs that ring at once have in common, by leg
    """
    match item:
        case note.Routed():
            record = replace(
                record,
                company_id=item.company_id,
                campaign_id=item.campaign_id,
                number_id=item.number_id,
                source=item.source,
                medium=item.medium,
                flow_version_id=item.flow_version_id,
                config_version=item.config_version,
            )
            return _trace(record, item.at, "routing", "routed", item.why)
        case note.Visited():
            record = replace(record, path=(*record.path, item.node))
            return _trace(record, item.at, item.path, "reached", item.why)
        case note.Decided():
            return _trace(record, item.at, item.path, item.what, item.why)
        case note.Tagged():
            tags = tuple(dict.fromkeys((*record.tags, *item.tags)))
            return _trace(replace(record, tags=tags), item.at, item.path, "tagged", ", ".join(item.tags))
        case note.Assigned():
            values = {**dict(record.values), **dict(item.values)}
            told = [f"{name} = {value}" for name, value in item.values]
            told += [f"language = {item.language}"] * (item.language is not None)
            record = replace(record, values=tuple(values.items()), language=item.language or record.language)
            return _trace(record, item.at, item.path, "set", ", ".join(told))
        case note.Gathered():
            count = len(item.digits)
            hidden = f" ({count} digit{'s' if count > 1 else ''})" if e.HIDDEN in item.digits else ""
            return _trace(record, item.at, item.path, f"gathered {item.name}", item.digits + hidden)
        case note.Consented():
            consent = Consent(item.at, item.path, item.mode, item.response, item.script, item.digit)
            traced = _trace(record, item.at, item.path, f"consent: {item.response}", item.response.told)
            return replace(traced, consent=consent)
        case note.LegPlanned():
            # Destinations are tried one after another: the dialplan does not say how its last one ended.
            if not any(item.dial and dials.get(leg.id) == item.dial for leg in record.legs):
                record = _end_open_leg(record, item.at, LegResult.FAILED, 0)
            if any(leg.id == item.leg_id for leg in record.legs):
                return record
            leg = Leg(
                id=item.leg_id,
                seq=len(record.legs) + 1,
                target_id=item.target_id or None,
                target=item.target,
                endpoint=item.endpoint,
                started_at=item.at,
                trunk=item.trunk,
            )
            record = replace(record, legs=(*record.legs, leg))
            return _trace(record, item.at, item.path, f"dial {item.target}", item.why)
        case note.RecordingPlanned():
            if any(known.id == item.recording_id for known in record.recordings):
                return record
            ref = RecordingRef(item.recording_id, item.kind, item.leg_id, item.at)
            return replace(record, recordings=(*record.recordings, ref))
        case note.RecordingSkipped():
            record = replace(record, recording_problem=record.recording_problem or item.why)
            return _trace(record, item.at, "recording", "trouble", item.why)
        case note.RecordingPaused():
            record = _paused(record, item.recording_id, lambda known: (*known, Pause(item.at, None, item.by)))
            return _trace(record, item.at, "recording", "paused", item.by)
        case note.RecordingResumed():
            record = _paused(record, item.recording_id, lambda known: _ended(known, item.at))
            return _trace(record, item.at, "recording", "resumed", item.by)
        case note.Concluded():
            return _conclude(record, item)
        case e.LegStarted():
            return _leg(record, item.leg_id, started_at=item.at)
        case e.LegRinging():
            return _leg(record, item.leg_id, ringing_at=item.at)
        case e.LegAnswered():
            answered = _leg(record, item.leg_id, answered_at=item.at)
            if answered == record:
                return record
            answered = _others_elsewhere(answered, item, dials)
            return _trace(answered, item.at, item.leg_id, "answered", "the destination answered")
        case e.DialRefused():
            legs = tuple(
                replace(leg, trunk=None, ended_at=item.at, result=LegResult.FAILED) if leg.id == item.leg_id else leg
                for leg in record.legs
            )
            return replace(record, legs=legs)
        case e.LegEnded():
            return _end_leg(record, item.leg_id, item.at, leg_result(item.status, 0), _CAUSES.get(item.status, 0))
        case e.DialReturned() if item.leg_id in dials.values():
            return _all_ended(record, item, [leg for leg, dial in dials.items() if dial == item.leg_id])
        case e.DialReturned():
            if item.status == "NOANSWER":
                record = _untaken(record, item.leg_id)
            return _end_leg(record, item.leg_id, item.at, leg_result(item.status, item.cause), item.cause)
        case e.LedgerClosed():
            return _ledger(record, item)
        case e.CallerHungUp():
            record = _end_open_leg(record, item.at, LegResult.CANCELLED, item.cause)
            record = replace(record, ended_at=item.at, cause=item.cause)
            return _trace(record, item.at, "call", "ended", cause_text(item.cause))
    return record


def _others_elsewhere(record: CallRecord, item: e.LegAnswered, dials: Mapping[str, str]) -> CallRecord:
    """Of legs that ring at once the first to answer has the call; Asterisk cancels the others."""
    for leg_id, dial in dials.items():
        if leg_id != item.leg_id and dial == dials.get(item.leg_id):
            record = _end_leg(record, leg_id, item.at, LegResult.CANCELLED, ANSWERED_ELSEWHERE)
    return record


def _all_ended(record: CallRecord, item: e.DialReturned, legs: Sequence[str]) -> CallRecord:
    """The talk phase of legs that rang at once is over."""
    cause = _CAUSES.get(item.status, item.cause)
    for leg_id in legs:
        if item.status == "NOANSWER":
            record = _untaken(record, leg_id)
        record = _end_leg(record, leg_id, item.at, leg_result(item.status, item.cause), cause)
    return record


def _paused(
    record: CallRecord, recording_id: str, change: Callable[[tuple[Pause, ...]], tuple[Pause, ...]]
) -> CallRecord:
    recordings = tuple(
        replace(ref, pauses=change(ref.pauses)) if ref.id == recording_id else ref for ref in record.recordings
    )
    return replace(record, recordings=recordings)


def _ended(known: tuple[Pause, ...], at: float) -> tuple[Pause, ...]:
    return (*known[:-1], replace(known[-1], end=at)) if known else ()


def _conclude(record: CallRecord, item: note.Concluded) -> CallRecord:
    """Sum up the legs: what the caller waited, how long they talked, and with whom."""
    talked = next((leg for leg in record.legs if leg.answered_at is not None or leg.result is LegResult.ANSWERED), None)
    reason = item.reason
    talk = sum(leg.talk_seconds for leg in record.legs)
    if item.disposition is Disposition.ANSWERED and talk:
        reason = f"{item.reason} and talked for {talk:.0f} s"
    record = replace(
        record,
        disposition=item.disposition,
        reason=reason,
        ring_seconds=sum(leg.ring_seconds for leg in record.legs),
        talk_seconds=talk,
        hold_seconds=sum(leg.hold_seconds for leg in record.legs),
        answered_at=talked.answered_at if talked else None,
        answered_by=talked.target if talked else None,
    )
    return _trace(record, item.at, "call", str(item.disposition), reason)


def _trace(record: CallRecord, at: float, path: str, what: str, why: str) -> CallRecord:
    return replace(record, trace=(*record.trace, TraceStep(at, path, what, why)))


def _leg(
    record: CallRecord,
    leg_id: str,
    started_at: float | None = None,
    ringing_at: float | None = None,
    answered_at: float | None = None,
) -> CallRecord:
    """Set times of a leg; ringing and answer keep their first (a repeated "ringing" is no news)."""
    legs = tuple(
        replace(
            leg,
            started_at=started_at or leg.started_at,
            ringing_at=leg.ringing_at or ringing_at,
            answered_at=leg.answered_at or answered_at,
        )
        if leg.id == leg_id and leg.ended_at is None
        else leg
        for leg in record.legs
    )
    return replace(record, legs=legs)


def _answered_at(record: CallRecord, leg_id: str, at: float) -> CallRecord:
    legs = tuple(replace(leg, answered_at=at) if leg.id == leg_id else leg for leg in record.legs)
    return replace(record, legs=legs)


def _untaken(record: CallRecord, leg_id: str) -> CallRecord:
    """The destination answered and hung up on the whisper: nobody spoke, nothing was recorded."""
    legs = tuple(
        replace(leg, answered_at=None) if leg.id == leg_id and leg.ended_at is None else leg for leg in record.legs
    )
    recordings = tuple(recording for recording in record.recordings if recording.leg_id != leg_id)
    return replace(record, legs=legs, recordings=recordings)


def _end_leg(record: CallRecord, leg_id: str, at: float, result: LegResult, cause: int) -> CallRecord:
    legs = []
    for leg in record.legs:
        if leg.id == leg_id and leg.ended_at is None:
            ended = LegResult.ANSWERED if leg.answered_at is not None else result
            leg = replace(leg, ended_at=at, result=ended, cause=cause)
        legs.append(leg)
    return replace(record, legs=tuple(legs))


def _end_open_leg(record: CallRecord, at: float, result: LegResult, cause: int) -> CallRecord:
    for leg in record.legs:
        if leg.ended_at is None:
            record = _end_leg(record, leg.id, at, result, cause)
    return record


def _is_open(record: CallRecord, leg_id: str) -> bool:
    return any(leg.id == leg_id and leg.ended_at is None for leg in record.legs)


def _hold(record: CallRecord, seconds: float) -> CallRecord:
    if not record.legs:
        return record
    held = next((leg for leg in reversed(record.legs) if leg.answered_at is not None), record.legs[-1])
    longer = replace(held, hold_seconds=held.hold_seconds + max(0.0, seconds))
    return replace(record, legs=tuple(longer if leg is held else leg for leg in record.legs))


def _ledger(record: CallRecord, item: e.LedgerClosed) -> CallRecord:
    """The end of a call that nobody watched, from Asterisk's own CDR."""
    ringing = [leg for leg in record.legs if leg.ended_at is None]
    if ringing:
        # Of several that rang at once at most one is left when it has answered.
        last = next((leg for leg in ringing if leg.answered_at is not None), ringing[-1])
        if (item.answered_at or item.billsec > 0) and item.dialstatus in ("", "ANSWER"):
            began = item.answered_at or item.at - item.billsec
            if last.answered_at is None or began < last.answered_at:
                # An answer that was noticed late, after a restart, is Asterisk's own to date.
                record = _answered_at(record, last.id, began)
        result = LegResult.FAILED if item.asterisk_ended else LegResult.CANCELLED
        if item.dialstatus:
            result = leg_result(item.dialstatus, item.cause)
        # The business may have hung up long before the caller's channel went: nobody was there to go on with it.
        talked_until = item.answered_at + item.billsec if item.answered_at and item.billsec > 0 else item.at
        record = _end_leg(record, last.id, min(item.at, talked_until), result, item.cause)
        record = _end_open_leg(record, item.at, LegResult.CANCELLED, item.cause)
    elif (
        item.billsec > 0
        and item.dialstatus == "ANSWER"
        and not any(leg.result is LegResult.ANSWERED for leg in record.legs)
    ):
        began = item.answered_at or item.at - item.billsec
        leg = Leg(f"{record.id}-unwatched", len(record.legs) + 1, None, UNWATCHED, "", began, answered_at=began)
        record = _end_leg(replace(record, legs=(*record.legs, leg)), leg.id, item.at, LegResult.ANSWERED, item.cause)
    return replace(record, ended_at=item.at, cause=item.cause)
