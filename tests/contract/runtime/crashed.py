"""Calls whose controller died: their logs, and the recovery that finds them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from callrouter.asterisk.ledger import LedgerRow
from callrouter.core import events as e
from callrouter.core.cdr import LogItem
from callrouter.core.routing import RoutingTable
from callrouter.runtime.recovery import Recovered, Recovery
from callrouter.runtime.supervision import LedgerTail
from callrouter.store.journal import Journal
from tests.builders import CALL, T0, arrived, run, table
from tests.contract.runtime.support import APP, MENU, Asterisk, Caller, Rig, open_rig

TABLE = table(MENU)
CHANNEL = "1760000000.1"

SAYING: list[e.Event] = [arrived()]
CHOOSING: list[e.Event] = [*SAYING, e.PlaybackEnded(T0 + 2, f"{CALL}-p1")]
RINGING: list[e.Event] = [
    *CHOOSING,
    e.Digit(T0 + 3, "1"),
    e.LegStarted(T0 + 3, f"{CALL}-l3", "peer"),
    e.LegRinging(T0 + 4, f"{CALL}-l3"),
]
TALKING: list[e.Event] = [*RINGING, e.LegAnswered(T0 + 9, f"{CALL}-l3")]
GREETING: list[e.Event] = [*CHOOSING, e.Digit(T0 + 3, "2")]
TAKING: list[e.Event] = [*GREETING, e.PlaybackEnded(T0 + 6, f"{CALL}-p3")]


def log_of(events: list[e.Event], routing: RoutingTable = TABLE) -> list[LogItem]:
    return run(routing, events).log


def died(journal: Journal, events: list[e.Event], call_id: str = CALL, routing: RoutingTable = TABLE) -> None:
    """Leave the log of a call whose controller died."""
    for entry in log_of(events, routing):
        journal.append(call_id, entry)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path) as opened:
        yield opened


def alive(asterisk: Asterisk, app_data: str | None = f"{APP},incoming,carrier,+12025550123") -> Caller:
    """The caller's channel, in the application, or (None) in the dialplan."""
    caller = asterisk.caller(CHANNEL, age=60.0)
    caller.in_stasis, caller.app_data = app_data is not None, app_data or ""
    return caller


async def recovered(rig: Rig, tail: LedgerTail | None = None, routing: RoutingTable = TABLE) -> Recovered:
    rows = tail.rows if tail else {}
    return await recovery(rig, rows, routing).run(rig.journal.open_logs())


def recovery(rig: Rig, rows: Mapping[str, LedgerRow], routing: RoutingTable = TABLE, **more: Any) -> Recovery:
    return Recovery(rig.ari, APP, rig.dispatcher, rig.journal, rows, lambda _: (routing, True), **more)
