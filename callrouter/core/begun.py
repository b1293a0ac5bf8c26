"""The routing that a call began with. A call keeps its flow's version, also across a restart of the controller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.blocks import ANONYMOUS, NO_BLOCKS, Block, BlockList, block_list
from callrouter.core.cdr import LogItem
from callrouter.core.flow import nodes as n
from callrouter.core.flow.parse import parse_flow
from callrouter.core.flow.said import said_by
from callrouter.core.model import FlowVersion
from callrouter.core.routing import Entry, RoutingTable, direct_flow
from callrouter.core.state import BACKUP_LEG, HandedOver, Over, Session
from callrouter.errors import InputError

LOST = "the flow that the call began with is not at hand"


def routed_in(entries: Iterable[LogItem]) -> note.Routed | None:
    """What a call's log says of its routing."""
    return next((entry for entry in entries if isinstance(entry, note.Routed)), None)


def table_begun_with(
    entries: Sequence[LogItem],
    current: RoutingTable,
    earlier: Sequence[RoutingTable] = (),
    versions: Mapping[str, FlowVersion] = MappingProxyType({}),
) -> tuple[RoutingTable, bool]:
    """The table that a call's log is read with.

    :param entries: the log
    :param current: the routing in force now
    :param earlier: tables that were in force before, newest first
    :param versions: texts of flows, by the version's id
    :returns: the table, and whether it has the flow that the call began with. It has not when neither a table nor the
        version's text is at hand (the database is away, the number was removed): the call then goes on with today's
    """
    arrived = next((entry for entry in entries if isinstance(entry, e.CallArrived)), None)
    routed = routed_in(entries)
    if arrived is None or routed is None:
        return current, True
    tables = (current, *earlier)
    for table in tables:
        if table.version == routed.config_version:
            return table, True
    if routed.number_id is None:
        return _without(current, arrived.did), True
    for table in tables:
        entry = table.entries.get(arrived.did)
        if entry is None or entry.number.id != routed.number_id:
            continue
        begun = _as_begun(entry, routed.flow_version_id, entries, versions)
        if begun is not None:
            entries_then = MappingProxyType({**table.entries, arrived.did: begun})
            return replace(table, entries=entries_then, blocks=_judged(arrived, routed)), True
    return current, False


def stranded(call_id: str, entries: Iterable[LogItem], table: RoutingTable) -> Session:
    """The session of a call whose flow is not at hand, so that its log cannot be walked through: what the log says of
    its last destination. For all else the dialplan's failsafe has to do.

    :param table: the routing in force now
    """
    session = Session(call_id, wait=HandedOver(), ending=LOST)
    wait, targets = HandedOver(), dict[str, str]()
    for entry in entries:
        match entry:
            case e.CallArrived():
                session = replace(session, entry=table.entries.get(entry.did), did=entry.did, caller=entry.caller)
            case note.LegPlanned():
                targets[entry.leg_id] = entry.target
                wait = HandedOver(
                    entry.dial or entry.leg_id,
                    entry.target,
                    wait.legs + 1 if entry.leg_id.startswith(BACKUP_LEG) else 0,
                )
            case e.LegAnswered(leg_id=leg_id) if leg_id in targets:
                wait = replace(wait, target=targets[leg_id], answered_at=entry.at)
                session = replace(session, talked=session.talked or wait.target)
            case e.DialReturned(leg_id=leg_id) if leg_id == wait.leg_id:
                wait = HandedOver()
            case e.CallerHungUp() | e.LedgerClosed():
                return replace(session, wait=Over())
    return replace(session, wait=wait)


def _without(table: RoutingTable, did: str) -> RoutingTable:
    """The number was nobody's when the call came in."""
    others = {number: entry for number, entry in table.entries.items() if number != did}
    return replace(table, entries=MappingProxyType(others))


def _as_begun(
    entry: Entry, version_id: str | None, entries: Sequence[LogItem], versions: Mapping[str, FlowVersion]
) -> Entry | None:
    """A number's entry with the flow it had then; who is rung by a target's name is as it is today."""
    if version_id is not None and version_id == entry.flow_version_id:
        return _active(entry)
    if version_id is None:
        if entry.flow_version_id is None:
            return _active(entry)
        rung = next((each.target for each in entries if isinstance(each, note.LegPlanned)), None)
        flow = direct_flow(rung) if rung is not None else None
        return _with_flow(entry, flow, "direct", None) if flow else None
    version = versions.get(version_id)
    if version is None:
        return None
    try:
        flow = parse_flow(version.text, version.name)
    except InputError:
        return None
    label = f"{version.name}@{version.version}"
    return _with_flow(entry, flow, label, version_id)


def _with_flow(entry: Entry, flow: n.Flow, label: str, version_id: str | None) -> Entry:
    said = said_by(flow, entry.members)
    return _active(replace(entry, flow=flow, flow_label=label, flow_version_id=version_id, said=said))


def _active(entry: Entry) -> Entry:
    """A number that was switched off since was on when the call came in, and its company may have let in others."""
    company = replace(entry.company, accept_anonymous=True, max_calls_per_caller=None)
    return replace(entry, number=replace(entry.number, active=True), company=company, problem=None)


def _judged(arrived: e.CallArrived, routed: note.Routed) -> BlockList:
    """Who was let in is not kept out afterwards, and who was kept out stays so."""
    if not routed.blocked:
        return NO_BLOCKS
    return block_list([Block("", None, arrived.caller or ANONYMOUS, routed.why)])
