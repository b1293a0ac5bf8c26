"""After a restart: go on with the calls that live, close those that ended meanwhile.

A call's session is the fold of its log, so nothing else had to be saved. What the log does not know, because nobody
watched, Asterisk's own CDR does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from callrouter.asterisk.ari import AriClient
from callrouter.asterisk.ari_events import Channel
from callrouter.asterisk.ledger import LedgerRow
from callrouter.asterisk.render import SPOOL_SIGN
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.begun import LOST, flow_versions_in, routed_in, stranded, table_begun_with
from callrouter.core.cdr import LogItem
from callrouter.core.disposition import Disposition
from callrouter.core.model import FlowVersion
from callrouter.core.routing import RoutingTable, build_table
from callrouter.core.session import FAILSAFE, step
from callrouter.core.snapshot import ConfigSnapshot
from callrouter.core.state import BACKUP_LEG, Calling, HandedOver, Leaving, Session, Taking
from callrouter.core.walk import BACKUP
from callrouter.errors import AriError, DatabaseError
from callrouter.runtime.call import Log
from callrouter.runtime.dispatcher import Dispatcher
from callrouter.runtime.translate import DIALED
from callrouter.runtime.unwatched import closing_events, played
from callrouter.store.config import get_flow_version
from callrouter.store.database import Database

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


def session_of(call_id: str, entries: Sequence[LogItem], table: RoutingTable, same: bool) -> Session:
    """A call's session; of a call whose flow is not at hand (``same`` False), what its log alone says."""
    return rebuild(call_id, entries, table)[0] if same else stranded(call_id, entries, table)


def owed(call_id: str, entries: Sequence[LogItem], table: RoutingTable, *, same: bool = True) -> list[note.Note]:
    """What was decided upon a log's last event and is missing in it: the controller was killed while it wrote.

    :param same: as for :func:`close_log`
    """
    last = max((place for place, entry in enumerate(entries) if isinstance(entry, e.Event)), default=None)
    if last is None:
        return []
    session = session_of(call_id, entries[:last], table, same)
    decided = step(session, entries[last], table).notes  # type: ignore[arg-type]
    written = entries[last + 1 :]
    if isinstance(entries[last], e.CallerHungUp | e.LedgerClosed):
        return [each for each in decided if each not in written]
    return list(decided[len(written) :])


def close_log(
    call_id: str,
    entries: Sequence[LogItem],
    table: RoutingTable,
    row: LedgerRow | None,
    journal: Log,
    *,
    same: bool = True,
    spool: Path | None = None,
) -> None:
    """Append the end of a call whose channel is gone.

    :param same: whether ``table`` has the flow that the call began with
    :param spool: where Asterisk records; None: not looked at
    """
    if any(isinstance(entry, note.Concluded) for entry in entries):
        return
    ends = [place for place, entry in enumerate(entries) if isinstance(entry, e.CallerHungUp | e.LedgerClosed)]
    if ends:
        # Killed between the end and what was concluded from it; what came later changes nothing.
        upto = [*entries[: ends[0] + 1], *(entry for entry in entries[ends[0] :] if isinstance(entry, note.Note))]
        for decided in owed(call_id, upto, table, same=same):
            journal.append(call_id, decided)
        return
    if same:
        for decided in owed(call_id, entries, table):
            journal.append(call_id, decided)
    session = session_of(call_id, entries, table, same)
    last = max((entry.at for entry in entries), default=time.time())
    begun = message_begun(session, spool)
    for item in played(session, closing_events(row, session, last, message_begun=begun), table):
        journal.append(call_id, item)


def message_begun(session: Session, spool: Path | None) -> bool | None:
    """Whether there is a file of the message that a session takes; None: it takes none, or none can be looked for."""
    if spool is None or not isinstance(session.wait, Taking) or not (spool / SPOOL_SIGN).exists():
        return None
    return (spool / f"{session.wait.recording_id}.wav").exists()


@dataclass(frozen=True, slots=True)
class Recovery:
    """Adopts or closes every call that was in progress.

    :param rows: Asterisk's own records by unique id, of calls that have ended
    :param table_for: the routing that a log is read with, and whether it is what the call began with
    :param refresh: reads on in these records
    :param cut_row: what else Asterisk left of a call that it has no record of, because it died
    :param spool: where Asterisk records; None: not looked at
    """

    ari: AriClient
    app: str
    dispatcher: Dispatcher
    journal: Log
    rows: Mapping[str, LedgerRow]
    table_for: Callable[[Sequence[LogItem]], tuple[RoutingTable, bool]]
    refresh: Callable[[], object] | None = None
    cut_row: Callable[[str], LedgerRow | None] = lambda _: None
    spool: Path | None = None

    async def run(self, logs: Mapping[str, Sequence[LogItem]]) -> Recovered:
        """One pass over Asterisk's channels.

        :param logs: call id → its log, of calls without an end
        :raises AriError: Asterisk does not answer
        """
        channels = {channel.id: channel for channel in await self.ari.channels()}
        known = {entry.channel for log in logs.values() for entry in log if isinstance(entry, e.CallArrived)}
        if self.refresh is not None:
            await ended_rows(known - channels.keys(), self.rows, self.refresh)
        bridged = {member for bridge in await self.ari.bridges() for member in bridge.channels}
        adopted = closed = 0
        for call_id, entries in logs.items():
            arrived = next((entry for entry in entries if isinstance(entry, e.CallArrived)), None)
            if arrived is None or self.dispatcher.owns(arrived.channel):
                continue
            try:
                channel = channels.get(arrived.channel)
                if await self._take_up(call_id, entries, channel, arrived.channel in bridged):
                    adopted += 1
                    continue
            except Exception:  # one call that cannot be rebuilt must not cost the others
                log.exception("call_not_recovered", call=call_id)
                at = max(entry.at for entry in entries)
                self.journal.append(call_id, e.CallerHungUp(at, 41))
                self.journal.append(call_id, note.Concluded(at, Disposition.FAILED, "an internal error"))
            closed += 1
        return Recovered(adopted, closed, await self._give_back(channels.values()))

    async def _take_up(self, call_id: str, entries: Sequence[LogItem], channel: Channel | None, bridged: bool) -> bool:
        """Adopt a call whose channel lives (True), or close its log (False)."""
        table, same = self.table_for(entries)
        session = session_of(call_id, entries, table, same)
        noted: Mapping[str, str] | None = {}
        if channel is not None and channel.id not in self.rows and not session.over:
            noted = await self._watch(channel, session)
            if noted is None:  # it ended since the channels were listed
                if self.refresh is not None:
                    await ended_rows({channel.id}, self.rows, self.refresh)
                channel = None
        if channel is None or noted is None or channel.id in self.rows or session.over:
            gone = next(entry.channel for entry in entries if isinstance(entry, e.CallArrived))
            row = self.rows.get(gone) or self.cut_row(gone)
            close_log(call_id, entries, table, row, self.journal, same=same, spool=self.spool)
            return False
        if same:
            for decided in owed(call_id, entries, table):
                self.journal.append(call_id, decided)
        else:
            self.journal.append(call_id, note.Visited(time.time(), FAILSAFE, BACKUP, LOST))
        peers = {entry.channel: entry.leg_id for entry in entries if isinstance(entry, e.LegStarted) and entry.channel}
        await self._adopt(channel, noted, session, table, bridged, peers)
        return True

    async def _watch(self, channel: Channel, session: Session) -> Mapping[str, str] | None:
        """Have a channel's events sent to us; gives what the dialplan notes on it, where that is of use. None: the
        channel is gone."""
        try:
            await self.ari.subscribe(self.app, f"channel:{channel.id}")
        except AriError as exc:
            if exc.gone:
                return None
            log.warning("adopt_subscribe_failed", call=session.call_id, reason=exc.message)
        wait = session.wait
        dialled = isinstance(wait, Calling) and dial_result(channel, {}, wait, 0.0)
        return await last_leg(self.ari, channel.id) if dialled or not in_application(channel, self.app) else {}

    async def _give_back(self, channels: Iterable[Channel]) -> int:
        """Channels that wait for us without a log of ours."""
        given_back = 0
        for channel in channels:
            old = time.time() - channel.creationtime > CLAIM_SECONDS
            if in_application(channel, self.app) and old and not self.dispatcher.owns(channel.id):
                await self.dispatcher.give_back(channel.id, "no record of this call after a restart")
                given_back += 1
        return given_back

    async def _adopt(
        self,
        channel: Channel,
        noted: Mapping[str, str],
        session: Session,
        table: RoutingTable,
        bridged: bool,
        peers: Mapping[str, str],
    ) -> None:
        now = time.time()
        wait, inside = session.wait, in_application(channel, self.app)
        call = self.dispatcher.adopt(session.call_id, channel.id, session, table, peers)
        returned = dial_result(channel, noted, wait, now) if isinstance(wait, Calling) else []
        # Also keeps the ids of what the dead controller started from being used again.
        call.put(e.Resumed(now, inside and not returned, message_begun(session, self.spool)))
        for event in returned or ([] if inside else reached(noted, session, bridged, now)):
            call.tell(event)
        if inside and not returned:
            if isinstance(wait, Calling) and wait.answered_at is not None:
                call.put(e.DialReturned(now, wait.leg_id, status="", cause=0))
            elif isinstance(wait, HandedOver):  # killed before the channel could be sent away
                await self.dispatcher.give_back(channel.id, session.ending)
            elif isinstance(wait, Leaving):
                await self.dispatcher.hang_up(channel.id)
        log.info("call_adopted", call=session.call_id, node=session.node)


async def begun_with(
    logs: Mapping[str, Sequence[LogItem]],
    current: RoutingTable,
    last_run: ConfigSnapshot | None,
    database: Database | None,
) -> Callable[[Sequence[LogItem]], tuple[RoutingTable, bool]]:
    """How to find the routing that each of these calls began with.

    :param last_run: what was in force when the last run ended
    :param database: asked for the texts of flows that are in neither; None: it is away
    """
    moved = any(
        (said := routed_in(log)) is not None and said.config_version != current.version for log in logs.values()
    )
    earlier = [build_table(last_run)] if moved and last_run is not None else []
    versions: dict[str, FlowVersion] = {}
    if moved and database is not None:
        wanted = {version_id for log in logs.values() for version_id in flow_versions_in(log)}
        with contextlib.suppress(DatabaseError):
            async with database.session(read_only=True) as session:
                for version_id in sorted(wanted):
                    if (found := await get_flow_version(session, version_id)) is not None:
                        versions[found.id] = found

    def find(entries: Sequence[LogItem]) -> tuple[RoutingTable, bool]:
        table, same = table_begun_with(entries, current, earlier, versions)
        if not same:
            log.warning("flow_not_at_hand", hint="the failsafe takes the caller, where nobody talks yet")
        return table, same

    return find


async def ended_rows(gone: set[str], rows: Mapping[str, LedgerRow], refresh: Callable[[], object]) -> None:
    """Read Asterisk's records until those of ``gone`` are there: they come a moment after the channels have gone.

    What is not there after :data:`LEDGER_SECONDS` was never written, because Asterisk itself died.
    """
    until = time.monotonic() + LEDGER_SECONDS
    refresh()
    while not gone <= rows.keys() and time.monotonic() < until:
        await asyncio.sleep(0.05)
        refresh()


async def last_leg(ari: AriClient, channel: str) -> Mapping[str, str] | None:
    """What the dialplan notes on a caller's channel of the leg that it dialled last: its id, when they began and ended
    to talk, and who answered of several that rang at once. Empty where it does not say; None: the channel is gone."""
    try:
        return await ari.get_variables(channel, ["CR_LEG", "CR_TALK_AT", "CR_TALK_END", "CR_ANSWERED"])
    except AriError as exc:
        return None if exc.gone else {}


def reached(noted: Mapping[str, str], session: Session, bridged: bool, now: float) -> list[e.Event]:
    """Whom the dialplan rang for a caller while nobody watched, and whether they talk.

    :param noted: from :func:`last_leg`
    :param bridged: whether the caller's channel is in a bridge
    """
    wait = session.wait
    if isinstance(wait, Leaving) or getattr(wait, "answered_at", None) is not None:
        return []
    leg_id = noted.get("CR_LEG", "")
    rang: list[e.Event] = []
    if leg_id.startswith(BACKUP_LEG):
        rang = [e.LegStarted(now, leg_id, "")]
    elif isinstance(wait, Calling):
        leg_id = wait.leg_at(noted.get("CR_ANSWERED", "")) if bridged else wait.leg_id
    else:
        return []
    return [*rang, e.LegAnswered(_moment(noted, "CR_TALK_AT") or now, leg_id)] if bridged else rang


def _moment(noted: Mapping[str, str], name: str) -> float | None:
    try:
        return float(noted.get(name, "")) or None
    except ValueError:
        return None


def in_application(channel: Channel, app: str) -> bool:
    """Whether our application has the channel, by what its dialplan is doing."""
    data = channel.dialplan.app_data
    match channel.dialplan.app_name:
        case "Stasis":
            return data.split(",")[0] == app
        case "StasisBroadcast":
            return f"^{app}$" in data
    return False


def dial_result(channel: Channel, noted: Mapping[str, str], wait: Calling, now: float) -> list[e.Event]:
    """The talk phase that ended while nobody watched: its result still stands in the channel's Stasis() arguments, its
    times in its variables. Empty: it has not returned.

    :param noted: from :func:`last_leg`
    :param now: taken as its end where the channel does not say
    """
    args = channel.dialplan.app_data.split(",")
    if channel.dialplan.app_name != "Stasis" or len(args) < 5 or args[1] != DIALED or args[4] != wait.leg_id:
        return []
    _, _, status, cause, leg_id, *problem = args
    talk_at, ended = _moment(noted, "CR_TALK_AT"), _moment(noted, "CR_TALK_END") or now
    events: list[e.Event] = []
    if status == "ANSWER" and wait.answered_at is None and talk_at is not None:
        events.append(e.LegAnswered(talk_at, wait.leg_at(noted.get("CR_ANSWERED", ""))))
    code = int(cause) if cause.isdigit() else 0
    return [*events, e.DialReturned(ended, leg_id, status, code, ",".join(problem) or None)]
