"""After a restart: go on with the calls that live, close those that ended meanwhile.

A call's session is the fold of its log, so nothing else had to be saved. What the log does not know, because nobody
watched, Asterisk's own CDR does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from callrouter.asterisk.ari import AriClient
from callrouter.asterisk.ari_events import Channel
from callrouter.asterisk.ledger import LedgerRow
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem
from callrouter.core.disposition import Disposition
from callrouter.core.routing import RoutingTable
from callrouter.core.session import step
from callrouter.core.state import BACKUP_LEG, Calling, HandedOver, Leaving, Session
from callrouter.errors import AriError
from callrouter.runtime.call import Log
from callrouter.runtime.dispatcher import Dispatcher
from callrouter.runtime.translate import DIALED

log = structlog.get_logger(__name__)

CLAIM_SECONDS = 10.0
"""A younger call may still be waiting to be claimed."""
ARRIVING_SECONDS = 1.0
"""The same right after a connection: what came in before that, nobody will claim any more."""
LEDGER_SECONDS = 1.0
"""Asterisk writes a call's record some milliseconds after its channel is gone."""


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


def closing_events(row: LedgerRow | None, session: Session, at: float) -> list[e.Event]:
    """The end of a call that nobody watched, and before it the conversation that the dialplan's failsafe began."""
    found: list[e.Event] = []
    wait = session.wait
    if row is not None and row.leg.startswith(BACKUP_LEG) and getattr(wait, "answered_at", None) is None:
        began = row.dial_at or row.start
        if not isinstance(wait, Calling | HandedOver):
            found.append(e.Resumed(began, inside=False))
        found.append(e.LegStarted(began, row.leg, ""))
        if row.talk_at is not None:
            found.append(e.LegAnswered(row.talk_at, row.leg))
    return [*found, closing_event(row, at)]


def owed(call_id: str, entries: Sequence[LogItem], table: RoutingTable) -> list[note.Note]:
    """What was decided upon a log's last event and is missing in it: the controller was killed while it wrote."""
    last = max((place for place, entry in enumerate(entries) if isinstance(entry, e.Event)), default=None)
    if last is None:
        return []
    session, _ = rebuild(call_id, entries[:last], table)
    decided = step(session, entries[last], table).notes  # type: ignore[arg-type]
    written = entries[last + 1 :]
    if isinstance(entries[last], e.CallerHungUp | e.LedgerClosed):
        return [each for each in decided if each not in written]
    return list(decided[len(written) :])


def close_log(
    call_id: str, entries: Sequence[LogItem], table: RoutingTable, row: LedgerRow | None, journal: Log
) -> None:
    """Append the end of a call whose channel is gone."""
    ends = [place for place, entry in enumerate(entries) if isinstance(entry, e.CallerHungUp | e.LedgerClosed)]
    if ends:
        # Killed between the end and what was concluded from it; what came later changes nothing.
        upto = [*entries[: ends[0] + 1], *(entry for entry in entries[ends[0] :] if isinstance(entry, note.Note))]
        for decided in owed(call_id, upto, table):
            journal.append(call_id, decided)
        return
    for decided in owed(call_id, entries, table):
        journal.append(call_id, decided)
    session, _ = rebuild(call_id, entries, table)
    last = max((entry.at for entry in entries), default=time.time())
    for event in closing_events(row, session, last):
        journal.append(call_id, event)
        result = step(session, event, table)
        session = result.session
        for decided in result.notes:
            journal.append(call_id, decided)


async def recover(
    logs: Mapping[str, Sequence[LogItem]],
    rows: Mapping[str, LedgerRow],
    table: RoutingTable,
    ari: AriClient,
    app: str,
    dispatcher: Dispatcher,
    journal: Log,
    refresh: Callable[[], object] | None = None,
) -> Recovered:
    """Adopt or close every call that was in progress.

    :param logs: call id → its log, of calls without an end
    :param rows: Asterisk's own records by unique id, of calls that have ended
    :param refresh: reads on in these records
    """
    channels = {channel.id: channel for channel in await ari.channels()}
    known = {entry.channel for log in logs.values() for entry in log if isinstance(entry, e.CallArrived)}
    if refresh is not None:
        await ended_rows(known - channels.keys(), rows, refresh)
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
                for decided in owed(call_id, entries, table):
                    journal.append(call_id, decided)
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
            and time.time() - channel.creationtime > CLAIM_SECONDS
            and not dispatcher.owns(channel.id)
        ):
            await dispatcher.give_back(channel.id, "no record of this call after a restart")
            given_back += 1
    return Recovered(adopted, closed, given_back)


async def ended_rows(gone: set[str], rows: Mapping[str, LedgerRow], refresh: Callable[[], object]) -> None:
    """Read Asterisk's records until those of ``gone`` are there: they come a moment after the channels have gone.

    What is not there after :data:`LEDGER_SECONDS` was never written, because Asterisk itself died.
    """
    until = time.monotonic() + LEDGER_SECONDS
    refresh()
    while not gone <= rows.keys() and time.monotonic() < until:
        await asyncio.sleep(0.05)
        refresh()


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
    returned = dial_result(channel, wait, now) if isinstance(wait, Calling) else None
    # Also keeps the ids of what the dead controller started from being used again.
    call.put(e.Resumed(now, inside and returned is None))
    if returned is not None:
        call.put(returned)
    elif inside and isinstance(wait, Calling):
        if wait.answered_at is not None:
            call.put(e.DialReturned(now, wait.leg_id, status="", cause=0))
    elif not inside and not isinstance(wait, Leaving) and getattr(wait, "answered_at", None) is None:
        leg_id, talk_at = await _leg_on(ari, channel, now)
        if isinstance(wait, Calling) and not leg_id.startswith(BACKUP_LEG):
            if bridged:
                call.put(e.LegAnswered(talk_at, wait.leg_id))
        elif leg_id.startswith(BACKUP_LEG):
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
