"""What no controller watched, told by Asterisk's own records: whole calls that the dialplan handled by itself, and the
ends of calls whose controller was away. Both become events like any other call's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from callrouter.asterisk.ledger import LedgerRow
from callrouter.core import events as e
from callrouter.core.cdr import LogItem
from callrouter.core.phone import normalize_caller, normalize_dialled
from callrouter.core.routing import SIMULATOR_TRUNK, RoutingTable
from callrouter.core.session import ALONE, FAILSAFE, step
from callrouter.core.state import BACKUP_LEG, Calling, HandedOver, Session

GIVEN_BACK = "CONTROLLER"
"""The reason that a controller gives when it hands a call to the failsafe itself."""


def closing_events(
    row: LedgerRow | None, session: Session, at: float, *, message_begun: bool | None = None
) -> list[e.Event]:
    """How a call ended that nobody watched, and before it the conversation that the dialplan began by itself.

    :param row: Asterisk's own record, when it wrote one
    :param session: where the call stood when it was last watched
    :param at: taken as the end when there is no record (Asterisk itself died); seconds since the epoch, UTC
    :param message_begun: see ``LedgerClosed``
    """
    if row is None:
        return [e.LedgerClosed(at, 0.0, None, cause=41, asterisk_ended=True, message_begun=message_begun)]
    found: list[e.Event] = []
    wait = session.wait
    # What it rang before that one, the ledger does not say.
    rung = bool(row.target) if session.unwatched else row.leg.startswith(BACKUP_LEG)
    if rung and getattr(wait, "answered_at", None) is None:
        began, leg_id = row.dial_at or row.start, row.leg or f"{row.uniqueid}-1"
        if not isinstance(wait, Calling | HandedOver):
            found.append(e.Resumed(began, inside=False, message_begun=message_begun))
        found.append(e.LegStarted(began, leg_id, "", row.target))
        if row.talk_at is not None or (row.dialstatus == "ANSWER" and row.talk_seconds > 0):
            found.append(e.LegAnswered(row.talk_at or row.end - row.talk_seconds, leg_id, bool(row.recording)))
    if isinstance(wait, Calling) and row.leg and row.leg != wait.leg_id and not rung:
        # The leg was planned, and never dialled: the row tells of the one before it, whose end is known.
        return [e.LedgerClosed(row.end, 0.0, None, row.cause)]
    if isinstance(wait, Calling) and wait.branches and wait.answered_at is None and row.talk_at is not None:
        found.append(e.LegAnswered(row.talk_at, wait.leg_at(row.target)))
    closed = e.LedgerClosed(
        at=row.end,
        billsec=row.talk_seconds,
        answered_at=row.talk_at,
        cause=row.cause,
        dialstatus=row.dialstatus,
        recording_problem=row.recording_problem or None,
        asterisk_ended=row.cut,
        message_begun=message_begun,
    )
    return [*found, closed]


def log_of(row: LedgerRow, call_id: str, table: RoutingTable, default_country: str) -> list[LogItem]:
    """The events and decisions of a call nobody but Asterisk watched.

    :param row: Asterisk's own record of it
    :param table: the routing now, which says whose number was dialled
    """
    country = table.country_of_trunk.get(row.trunk or "", default_country)
    handled_by = row.handled_by or "controller"
    why = "the controller gave the call back" if row.failsafe_reason == GIVEN_BACK else ALONE
    arrived = e.CallArrived(
        at=row.start,
        call_id=call_id,
        channel=row.uniqueid,
        did=normalize_dialled(row.did, country),
        caller=normalize_caller(row.caller, country),
        caller_name=None,
        trunk=row.trunk or None,
        linkedid=row.linkedid,
        test=row.trunk == SIMULATOR_TRUNK,
        handled_by=handled_by,
        unwatched=why if handled_by == FAILSAFE else "it ended before a controller took it",
    )
    session = Session(call_id)
    log = list(played(session, [arrived], table))
    session = step(session, arrived, table).session
    return [*log, *played(session, closing_events(row, session, row.end), table)]


def played(session: Session, events: Iterable[e.Event], table: RoutingTable) -> Iterator[LogItem]:
    """Events with the decisions they lead to, as a log has them."""
    for event in events:
        yield event
        result = step(session, event, table)
        session = result.session
        yield from result.notes
