"""After a restart: go on with the calls that live, close those that ended meanwhile.

A call's session is the fold of its log, so nothing else had to be saved. What the log does not know, because nobody
watched, Asterisk's own CDR does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from callrouter.asterisk.ari import AriClient
from callrouter.asterisk.ari_events import Channel
from callrouter.asterisk.ledger import LedgerRow
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem
from callrouter.core.disposition import Disposition
from callrouter.core.records import RecordingKind
from callrouter.core.routing import RoutingTable
from callrouter.core.session import step
from callrouter.core.state import Calling, HandedOver, Leaving, Session
from callrouter.errors import AriError
from callrouter.runtime.call import Log
from callrouter.runtime.dispatcher import Dispatcher
from callrouter.runtime.translate import DIALED

log = structlog.get_logger(__name__)

CLAIM_SECONDS = 10.0
"""A younger call may still be waiting to be claimed."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a restart found."""

    adopted: int = 0
    closed: int = 0
    given_back: int = 0


def rebuild(call_id: str, entries: Iterable[LogItem], table: RoutingTable) -> tuple[Session, e.CallArrived | None]:
    """A call's session from its log. Notes are skipped: the events give them again."""
    session, arrived = Session(call_id), None
    for entry in entries:
        if isinstance(entry, e.CallArrived):
            arrived = arrived or entry
        if isinstance(entry, e.Event):
            session = step(session, entry, table).session
    return session, arrived


def closing_event(row: LedgerRow | None, at: float) -> e.Event:
    """How a call ended that nobody watched.

    :param row: Asterisk's own record, when it wrote one
    :param at: taken as the end when it did not (Asterisk itself died); seconds since the epoch, UTC
    """
    if row is None:
        return e.CallerHungUp(at, 41)
    return e.LedgerClosed(
        at=row.end,
        billsec=row.talk_seconds,
        answered_at=row.talk_at,
        cause=row.cause,
        dialstatus=row.dialstatus,
    )


def close_log(
    call_id: str, entries: Sequence[LogItem], table: RoutingTable, row: LedgerRow | None, journal: Log
) -> None:
    """Append the end of a call whose channel is gone."""
    ends = [place for place, entry in enumerate(entries) if isinstance(entry, e.CallerHungUp | e.LedgerClosed)]
    session, _ = rebuild(call_id, entries[: ends[0]] if ends else entries, table)
    if ends:
        # Killed between the end and what was concluded from it.
        for decided in step(session, entries[ends[0]], table).notes:  # type: ignore[arg-type]
            journal.append(call_id, decided)
        return
    last = max((entry.at for entry in entries), default=time.time())
    event = closing_event(row, last)
    journal.append(call_id, event)
    known = {entry.recording_id for entry in entries if isinstance(entry, note.RecordingPlanned)}
    if row is not None and row.handled_by == "failsafe" and row.recording and row.talk_at and row.leg not in known:
        # Recorded by the dialplan when the controller was gone.
        journal.append(call_id, note.RecordingPlanned(row.talk_at, row.leg, RecordingKind.CONVERSATION, row.leg))
    for decided in step(session, event, table).notes:
        journal.append(call_id, decided)


async def recover(
    logs: Mapping[str, Sequence[LogItem]],
    rows: Mapping[str, LedgerRow],
    table: RoutingTable,
    ari: AriClient,
    app: str,
    dispatcher: Dispatcher,
    journal: Log,
) -> Recovered:
    """Adopt or close every call that was in progress.

    :param logs: call id → its log, of calls without an end
    :param rows: Asterisk's own records by unique id, of calls that have ended
    """
    now = time.time()
    channels = {channel.id: channel for channel in await ari.channels()}
    bridged = {member for bridge in await ari.bridges() for member in bridge.channels}
    adopted = closed = 0
    for call_id, entries in logs.items():
        arrived = next((entry for entry in entries if isinstance(entry, e.CallArrived)), None)
        if arrived is None or dispatcher.owns(arrived.channel):
            continue
        channel = channels.get(arrived.channel)
        try:
            session, _ = rebuild(call_id, entries, table)
            if channel is not None and arrived.channel not in rows and not session.over:
                await _adopt(call_id, channel, session, table, ari, app, dispatcher, channel.id in bridged)
                adopted += 1
                continue
            close_log(call_id, entries, table, rows.get(arrived.channel), journal)
        except Exception:  # one call that cannot be rebuilt must not cost the others
            log.exception("call_not_recovered", call=call_id)
            at = max(entry.at for entry in entries)
            journal.append(call_id, e.CallerHungUp(at, 41))
            journal.append(call_id, note.Concluded(at, Disposition.FAILED, "an internal error"))
        closed += 1
    given_back = 0
    for channel in channels.values():
        if (
            in_application(channel, app)
            and now - channel.creationtime > CLAIM_SECONDS
            and not dispatcher.owns(channel.id)
        ):
            await dispatcher.give_back(channel.id, "no record of this call after a restart")
            given_back += 1
    return Recovered(adopted, closed, given_back)


async def _adopt(
    call_id: str,
    channel: Channel,
    session: Session,
    table: RoutingTable,
    ari: AriClient,
    app: str,
    dispatcher: Dispatcher,
    bridged: bool,
) -> None:
    now = time.time()
    try:
        await ari.subscribe(app, f"channel:{channel.id}")
    except AriError as exc:
        log.warning("adopt_subscribe_failed", call=call_id, reason=exc.message)
    wait, inside = session.wait, in_application(channel, app)
    call = dispatcher.adopt(call_id, channel.id, session, table)
    # Also keeps the ids of what the dead controller started from being used again.
    call.put(e.Resumed(now, inside))
    if isinstance(wait, Calling):
        returned = dial_result(channel, wait, now)
        if returned is not None:
            call.put(returned)
        elif inside:
            call.put(e.DialReturned(now, wait.leg_id, status="", cause=0))
        elif bridged and wait.answered_at is None:
            _, talk_at = await _leg_on(ari, channel, now)
            call.put(e.LegAnswered(talk_at, wait.leg_id))
    elif not inside and not isinstance(wait, Leaving) and getattr(wait, "answered_at", None) is None:
        leg_id, talk_at = await _leg_on(ari, channel, now)
        if leg_id.startswith("fs-"):
            call.put(e.LegStarted(now, leg_id, ""))
            if bridged:
                call.put(e.LegAnswered(talk_at, leg_id))
    elif inside and isinstance(wait, Leaving | HandedOver):
        # Killed before the channel could be sent away.
        if isinstance(wait, HandedOver):
            await dispatcher.give_back(channel.id, session.ending)
        else:
            await dispatcher.hang_up(channel.id)
    log.info("call_adopted", call=call_id, node=session.node)


async def _leg_on(ari: AriClient, channel: Channel, now: float) -> tuple[str, float]:
    """The leg that the dialplan dialled last on a caller's channel, and when its conversation began (or now)."""
    try:
        found = await ari.get_variables(channel.id, ["CR_LEG", "CR_TALK_AT"])
    except AriError:
        return "", now
    try:
        return found.get("CR_LEG", ""), float(found.get("CR_TALK_AT") or now)
    except ValueError:
        return found.get("CR_LEG", ""), now


def in_application(channel: Channel, app: str) -> bool:
    """Whether our application has the channel, by what its dialplan is doing."""
    data = channel.dialplan.app_data
    match channel.dialplan.app_name:
        case "Stasis":
            return data.split(",")[0] == app
        case "StasisBroadcast":
            return f"^{app}$" in data
    return False


def dial_result(channel: Channel, wait: Calling, now: float) -> e.DialReturned | None:
    """The talk phase ended while nobody watched: its result still stands in the channel's Stasis() arguments."""
    args = channel.dialplan.app_data.split(",")
    if channel.dialplan.app_name != "Stasis" or len(args) < 5 or args[1] != DIALED or args[4] != wait.leg_id:
        return None
    return e.DialReturned(
        now,
        wait.leg_id,
        status=args[2],
        cause=int(args[3]) if args[3].isdigit() else 0,
        recording_problem=",".join(args[5:]) or None,
    )
