"""Calls the dialplan handled by itself, told by Asterisk's own CDR, made into logs like any other call's."""

from __future__ import annotations

from callrouter.asterisk.ledger import LedgerRow
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem
from callrouter.core.conclusion import outcome
from callrouter.core.disposition import Disposition, LegResult, cause_text, leg_result
from callrouter.core.phone import normalize_caller, normalize_dialled
from callrouter.core.records import RecordingKind
from callrouter.core.routing import SIMULATOR_TRUNK, Destination, Entry, Reject, RoutingTable, decide

PATH = "failsafe"


def log_of(row: LedgerRow, call_id: str, table: RoutingTable, default_country: str) -> list[LogItem]:
    """The events and decisions of a call nobody but Asterisk watched.

    :param row: Asterisk's own record of it
    :param table: the routing now, which says whose number was dialled
    """
    country = table.country_of_trunk.get(row.trunk or "", default_country)
    did = normalize_dialled(row.did, country)
    decision = decide(table, did)
    entry = decision.entry
    arrived = e.CallArrived(
        at=row.start,
        call_id=call_id,
        channel=row.uniqueid,
        did=did,
        caller=normalize_caller(row.caller, country),
        caller_name=None,
        trunk=row.trunk or None,
        linkedid=row.linkedid,
        test=row.trunk == SIMULATOR_TRUNK,
        handled_by=row.handled_by or "controller",
    )
    log: list[LogItem] = [arrived, _routed(row, entry, decision.why, table.version)]
    why = "no controller answered" if row.failsafe_reason != "CONTROLLER" else "the controller gave the call back"
    if row.handled_by == PATH:
        log.append(note.Visited(row.start, PATH, PATH, why))
    result: LegResult | None = None
    target = ""
    if row.target:
        result, target = _leg(row, entry, log)
    log.append(e.CallerHungUp(row.end, row.cause))
    rejected = isinstance(decision, Reject)
    log.append(note.Concluded(row.end, *_conclusion(row, entry, result, target, rejected, decision.why)))
    return log


def _routed(row: LedgerRow, entry: Entry | None, why: str, version: int) -> note.Routed:
    campaign = entry.campaign if entry else None
    return note.Routed(
        at=row.start,
        why=why,
        company_id=entry.company.id if entry else None,
        campaign_id=campaign.id if campaign else None,
        number_id=entry.number.id if entry else None,
        source=campaign.source if campaign else None,
        medium=campaign.medium if campaign else None,
        config_version=version,
    )


def _leg(row: LedgerRow, entry: Entry | None, log: list[LogItem]) -> tuple[LegResult, str]:
    """The destination that the dialplan rang last; what it rang before, the ledger does not say."""
    known = _destination(row.target, entry)
    name = known.target.name if known else row.target
    leg_id = row.leg or f"{row.uniqueid}-1"
    began = row.dial_at or row.start
    # Without a result the dialling was not over when the caller's channel went.
    result = leg_result(row.dialstatus, row.cause) if row.dialstatus else LegResult.CANCELLED
    log.append(
        note.LegPlanned(
            at=began,
            path=PATH,
            leg_id=leg_id,
            target_id=known.target.id if known else "",
            target=name,
            endpoint=row.target,
            ring_seconds=known.target.ring_seconds if known else 0,
            why="backup destination",
        )
    )
    if result is LegResult.ANSWERED:
        answered_at = row.talk_at or row.end - row.talk_seconds
        log.append(e.LegAnswered(answered_at, leg_id))
        if row.recording:
            log.append(note.RecordingPlanned(answered_at, leg_id, RecordingKind.CONVERSATION, leg_id))
    if row.recording_problem:
        log.append(note.RecordingSkipped(began, row.recording_problem))
    if result is not LegResult.CANCELLED:
        log.append(e.DialReturned(row.end, leg_id, row.dialstatus, row.cause))
    return result, name


def _destination(dial_string: str, entry: Entry | None) -> Destination | None:
    if entry is None:
        return None
    return next((known for known in entry.destinations.values() if known.endpoint == dial_string), None)


def _conclusion(
    row: LedgerRow, entry: Entry | None, result: LegResult | None, target: str, rejected: bool, why: str
) -> tuple[Disposition, str]:
    if result is not None:
        return outcome(target, result, row.cause)
    if rejected:
        return Disposition.REJECTED, why
    if row.handled_by != PATH:
        return Disposition.ABANDONED, "the caller hung up before the call was routed"
    if entry is not None and entry.backups:
        return Disposition.ABANDONED, "the caller hung up before anything rang"
    return Disposition.FAILED, f"nothing was rung: {cause_text(row.cause)}"
