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
from callrouter.core.flow.said import said_by
from callrouter.core.model import FlowVersion
from callrouter.core.routing import Entry, Linked, RoutingTable, direct_flow, linked_flow
from callrouter.core.state import BACKUP_LEG, HandedOver, Over, Session

LOST = "the flow that the call began with is not at hand"


def routed_in(entries: Iterable[LogItem]) -> note.Routed | None:
    """What a call's log says of its routing."""
    return next((entry for entry in entries if isinstance(entry, note.Routed)), None)


def flow_versions_in(entries: Iterable[LogItem]) -> frozenset[str]:
    """Ids of the versions of flows that a call began with: its own, and those that it goes on in."""
    routed = routed_in(entries)
    own = (routed.flow_version_id,) if routed is not None and routed.flow_version_id is not None else ()
    return frozenset((*own, *(version_id for _, version_id in routed.flows))) if routed is not None else frozenset()


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
    :returns: the table, and whether it has the flows that the call began with. It has not when neither a table nor the
        versions' texts are at hand (the database is away, the number was removed): the call then goes on with today's
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
        begun = _as_begun(entry, routed, entries, versions)
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
    entry: Entry, routed: note.Routed, entries: Sequence[LogItem], versions: Mapping[str, FlowVersion]
) -> Entry | None:
    """A number's entry with the flows it had then; who is rung by a target's name is as it is today."""
    version_id = routed.flow_version_id
    if version_id is not None and version_id == entry.flow_version_id and routed.flows == entry.flow_versions:
        return _active(entry)
    if version_id is None:
        if entry.flow_version_id is None:
            return _active(entry)
        rung = next((each.target for each in entries if isinstance(each, note.LegPlanned)), None)
        flow = direct_flow(rung) if rung is not None else None
        return _with_flow(entry, flow, "direct", None) if flow else None
    version = versions.get(version_id)
    if version is None or any(each not in versions for _, each in routed.flows):
        return None
    # By the names that they went by then: they name each other.
    names = {version_id: version.name, **{each: name for name, each in routed.flows}}
    own = names[version_id]
    found = linked_flow([replace(versions[each], name=name) for each, name in names.items()], own)
    return _with_flow(entry, found[0], f"{own}@{version.version}", version_id, found[1]) if found is not None else None


def _with_flow(
    entry: Entry, flow: n.Flow, label: str, version_id: str | None, linked: tuple[Linked, ...] = ()
) -> Entry:
    said = said_by(flow, entry.members)
    return _active(replace(entry, flow=flow, flow_label=label, flow_version_id=version_id, said=said, linked=linked))


def _active(entry: Entry) -> Entry:
    """A number that was switched off since was on when the call came in, and its company may have let in others."""
    company = replace(entry.company, accept_anonymous=True, max_calls_per_caller=None)
    return replace(entry, number=replace(entry.number, active=True), company=company, problem=None)


def _judged(arrived: e.CallArrived, routed: note.Routed) -> BlockList:
    """Who was let in is not kept out afterwards, and who was kept out stays so."""
    if not routed.blocked:
        return NO_BLOCKS
    return block_list([Block("", None, arrived.caller or ANONYMOUS, routed.why)])
