"""Small values to test with: a company, its targets, a routing table around one flow, and a call folded through it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from callrouter.asterisk.ledger import LedgerRow
from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem, fold
from callrouter.core.model import Campaign, Company, FlowVersion, Target, TrackingNumber, Trunk
from callrouter.core.records import CallRecord
from callrouter.core.routing import RoutingTable, build_table
from callrouter.core.session import step
from callrouter.core.snapshot import ConfigSnapshot
from callrouter.core.state import Session, Step

DID = "+12025550123"
CALLER = "+13125550199"
T0 = 1_760_000_000.0
"""Thursday 2025-10-09 08:53:20 UTC."""
CALL = "c"
"""Id of the call, so that its first playback is c-p1."""

T = TypeVar("T")


def company(**changes: Any) -> Company:
    values: dict[str, Any] = {
        "id": "company-1",
        "name": "acme",
        "title": "Acme Plumbing",
        "timezone": "America/New_York",
    }
    return Company(**(values | changes))


def campaign(**changes: Any) -> Campaign:
    values: dict[str, Any] = {
        "id": "campaign-1",
        "company_id": "company-1",
        "name": "spring-radio",
        "title": "Spring radio",
        "source": "radio",
        "medium": "offline",
    }
    return Campaign(**(values | changes))


def trunk(name: str = "carrier", **changes: Any) -> Trunk:
    values: dict[str, Any] = {"id": f"trunk-{name}", "name": name, "preset": "generic-ip", "host": "sip.example.com"}
    return Trunk(**(values | changes))


def target(name: str = "ana", **changes: Any) -> Target:
    values: dict[str, Any] = {
        "id": f"target-{name}",
        "company_id": "company-1",
        "name": name,
        "title": name.title(),
        "sip_uri": f"sip:{name}@192.0.2.7",
    }
    return Target(**(values | changes))


CELL = target("cell", sip_uri=None, number="+12025550177", trunk="a")
"""Dialled over trunk "a"."""
CELL_THEN_ANA = """
start: dial
nodes:
  dial: {type: dial, target: cell, on_busy: end, on_no_answer: end, on_failed: other}
  other: {type: dial, target: ana, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup, cause: congestion}
"""


def number(e164: str = DID, **changes: Any) -> TrackingNumber:
    values: dict[str, Any] = {
        "id": f"number-{e164}",
        "company_id": "company-1",
        "e164": e164,
        "name": "billboard",
        "campaign_id": "campaign-1",
    }
    return TrackingNumber(**(values | changes))


def version(text: str, **changes: Any) -> FlowVersion:
    values: dict[str, Any] = {
        "id": "version-1",
        "flow_id": "flow-1",
        "company_id": "company-1",
        "name": "desk",
        "version": 3,
        "text": text,
    }
    return FlowVersion(**(values | changes))


def snapshot(
    flow: str | None = None,
    *,
    targets: Sequence[Target] = (),
    trunks: Sequence[Trunk] = (),
    numbers: Sequence[TrackingNumber] | None = None,
    of: Company | None = None,
    backup: str | None = None,
    others: Mapping[str, str] = MappingProxyType({}),
) -> ConfigSnapshot:
    """One company with one campaign; its number runs ``flow`` (YAML), or rings "ana" directly without one.

    :param others: further flows, by name
    """
    if numbers is None:
        rings: dict[str, Any] = {"flow": "desk"} if flow is not None else {"target": "ana"}
        numbers = (number(backup=backup, **rings),)
    return ConfigSnapshot(
        version=7,
        companies=(of or company(),),
        campaigns=(campaign(),),
        trunks=(trunk(), *trunks),
        targets=tuple({one.name: one for one in (target("ana"), target("ben"), *targets)}.values()),
        numbers=tuple(numbers),
        flows=(
            *((version(flow),) if flow is not None else ()),
            *(
                version(text, id=f"version-{name}", flow_id=f"flow-{name}", name=name, version=1)
                for name, text in others.items()
            ),
        ),
    )


def table(flow: str | None = None, **changes: Any) -> RoutingTable:
    """As ``snapshot``, resolved."""
    return build_table(snapshot(flow, **changes))


def arrived(at: float = T0, **changes: Any) -> e.CallArrived:
    values: dict[str, Any] = {
        "at": at,
        "call_id": CALL,
        "channel": "1760000000.1",
        "did": DID,
        "caller": CALLER,
        "caller_name": None,
        "trunk": "carrier",
    }
    return e.CallArrived(**(values | changes))


def ledger_row(**changes: Any) -> LedgerRow:
    """Asterisk's own record of a call that the failsafe connected to "ana" for 29 seconds."""
    values: dict[str, Any] = {
        "uniqueid": "1760000000.1",
        "linkedid": "1760000000.1",
        "start": T0,
        "answer": T0 + 10,
        "end": T0 + 40,
        "billsec": 30.0,
        "disposition": "ANSWERED",
        "channel": "PJSIP/trunk-carrier-1",
        "trunk": "carrier",
        "did": DID,
        "caller": "3125550199",
        "handled_by": "failsafe",
        "failsafe_reason": "FAILED",
        "dialstatus": "ANSWER",
        "cause": 16,
        "dial_at": T0 + 1,
        "talk_seconds": 29.0,
        "talk_at": T0 + 11,
        "target": "PJSIP/callrouter-uri/sip:ana@192.0.2.7",
        "leg": "fs-1760000000.1-1",
        "recording": "/spool/fs-1",
        "recording_problem": "",
        "number_id": "",
        "campaign_id": "",
        "company_id": "",
    }
    return LedgerRow(**(values | changes))


@dataclass
class Run:
    """What a call came to."""

    session: Session
    actions: list[a.Action] = field(default_factory=list)
    notes: list[note.Note] = field(default_factory=list)
    log: list[LogItem] = field(default_factory=list)
    """Events and notes as the journal would hold them."""

    def take(self, event: e.Event, routing: RoutingTable) -> Step:
        """One more event."""
        result = step(self.session, event, routing)
        self.session = result.session
        self.actions += result.actions
        self.notes += result.notes
        self.log += [event, *result.notes]
        return result

    @property
    def path(self) -> list[str]:
        return [one.node for one in self.notes_of(note.Visited)]

    @property
    def kinds(self) -> list[str]:
        """Class names of the actions, in order."""
        return [type(action).__name__ for action in self.actions]

    @property
    def record(self) -> CallRecord:
        record = fold(self.log)
        assert record is not None
        return record

    @property
    def ending(self) -> tuple[str, str]:
        """Disposition and its reason."""
        (concluded,) = self.notes_of(note.Concluded)
        return str(concluded.disposition), concluded.reason

    def notes_of(self, kind: type[T]) -> list[T]:
        return [one for one in self.notes if isinstance(one, kind)]

    def actions_of(self, kind: type[T]) -> list[T]:
        return [one for one in self.actions if isinstance(one, kind)]

    def reasons(self, what: str) -> list[str]:
        """Why ``what`` was decided."""
        return [one.why for one in self.notes_of(note.Decided) if one.what == what]


def run(routing: RoutingTable, events: Iterable[e.Event], session: Session | None = None) -> Run:
    """Fold a call's events, beginning with CallArrived."""
    result = Run(session or Session(CALL))
    for event in events:
        result.take(event, routing)
    return result
