"""CANCEL and BYE at the worst moments: ``./dev run python bench/chaos/races.py --calls 10000``.

A real Asterisk and the server; callers and the business's telephone are ours (bench/chaos/duel.py) and race each other
with random delays between 0 and 100 ms. Prints what was counted. Exit 0: five seconds after the last call nothing is
stuck and each call that Asterisk took has exactly one record; 1: the summary says what is wrong.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sqlalchemy import select

from bench.chaos import options
from bench.chaos.duel import KINDS, Duels, Plan, plan
from callrouter.store import config
from callrouter.store.models import CallRecordRow
from tests.fixtures.installation import Installation, eventually, installation

SETTLE = 5.0
"""Seconds in which everything must have come to an end, once the two ends are through with all calls."""
TIMER_J = 33.0
"""SIP keeps a dialog while a request in it may still come again: 64 times T1, 32 s (RFC 3261 17.2.2)."""
MENU = """
start: menu
nodes:
  menu: {type: menu, prompt: Please press one., options: {1: dial}, timeout: 5, max_tries: 1, on_exhausted: dial}
  dial: {type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""


@dataclass
class Outcome:
    """What was counted, and what is wrong."""

    numbers: dict[str, int | float] = field(default_factory=dict)
    by_kind: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def summary(self) -> str:
        lines = [f"  {name:<28} {value:>8}" for name, value in self.numbers.items()]
        lines += [f"  {kind:<28} {text}" for kind, text in self.by_kind.items()]
        lines += [f"  WRONG: {fault}" for fault in self.faults] or ["  nothing wrong"]
        return "\n".join(lines)

    def none_of(self, name: str, found: list[str]) -> None:
        """A count that must be 0."""
        self.numbers[name] = len(found)
        if found:
            self.faults.append(f"{name}: {len(found)}, like {found[:3]}")


async def prepare(place: Installation) -> Duels:
    """A trunk, a business with a telephone of ours, a number that rings it and one with a menu; in force on return."""
    net = place.settings.sip_bind.rpartition(".")[0]
    duels = Duels(
        (place.settings.sip_bind, place.settings.sip_port), {"direct": "+12025550161", "menu": "+12025550162"}
    )
    phone = await duels.telephone(f"{net}.61")
    async with place.database.session() as session:
        await config.add_trunk(session, name="races", host=f"{net}.60", qualify_seconds=0, who="races")
        await config.add_company(session, name="races", timezone="America/New_York", who="races")
        uri = f"sip:desk@{phone.local[0]}:{phone.local[1]}"
        await config.add_target(session, "races", name="desk", sip_uri=uri, who="races")
        await config.add_flow(session, "races", name="menu", text=MENU, who="races")
        direct, menu = duels.dids["direct"], duels.dids["menu"]
        await config.add_number(session, "races", number=direct, name="direct", target="desk", who="races")
        await config.add_number(session, "races", number=menu, name="menu", flow="menu", who="races")
    await place.in_force()

    async def known() -> bool:
        return "trunk-races" in await place.asterisk.rx("pjsip show endpoints")

    await eventually(known, "Asterisk knows the trunk")
    await duels.open(f"{net}.60", phone)
    return duels


async def race(place: Installation, calls: int, per_second: float, seed: int, *, dialogs: bool = True) -> Outcome:
    """Place the calls, wait five seconds, and count.

    :param dialogs: also wait half a minute longer, and ask for each answered call whether its SIP dialog is gone
    """
    rng = random.Random(seed)
    plans = [plan(number, KINDS[number % len(KINDS)], rng) for number in range(calls)]
    rng.shuffle(plans)
    outcome = Outcome()
    pid = place.asterisk.pid
    duels = await prepare(place)
    try:
        before = resident(pid)
        began = time.monotonic()
        await duels.fight(plans, per_second)
        outcome.numbers["calls"] = len(plans)
        outcome.numbers["seconds"] = round(time.monotonic() - began, 1)
        await settle(place, outcome, SETTLE)
        outcome.none_of("ends that hang", duels.open_ends())
        if dialogs:
            await asyncio.sleep(TIMER_J)
            outcome.none_of("dialogs left", await duels.dialogs_left())
        outcome.none_of("requests of no call", duels.stray)
        if place.asterisk.pid != pid:
            outcome.faults.append("Asterisk is another process than before")
        await records(place, duels, plans, outcome)
        outcome.numbers["Asterisk grew by, MB"] = round((resident(pid) - before) / 1e6, 1)
    finally:
        duels.close()
    return outcome


async def settle(place: Installation, outcome: Outcome, seconds: float) -> None:
    """Channels, bridges and calls of the server: none may be left."""
    deadline = time.monotonic() + seconds
    async with place.ari() as ari:
        while True:
            channels = [channel.name for channel in await ari.channels()]
            bridges = [bridge.id for bridge in await ari.bridges()]
            calls = int(place.status().get("calls", -1))
            if not (channels or bridges or calls) or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
    outcome.none_of("channels stuck", channels)
    outcome.none_of("bridges stuck", bridges)
    outcome.none_of("calls stuck in the server", ["?"] * calls)


async def records(place: Installation, duels: Duels, plans: list[Plan], outcome: Outcome) -> None:
    """Each call that Asterisk took has one row in its own records and one record with us; none is there twice."""
    ledger: Counter[str] = Counter()
    callers: Counter[str] = Counter()
    rows: dict[str, list[CallRecordRow]] = {}

    async def complete() -> bool:
        nonlocal rows
        found = place.ledger()
        ledger.clear()
        ledger.update(row.uniqueid for row in found)
        callers.clear()
        callers.update(row.caller for row in found)
        rows = {}
        async with place.database.session(read_only=True) as session:
            for row in await session.scalars(select(CallRecordRow)):
                rows.setdefault(row.uniqueid, []).append(row)
        return set(ledger) <= set(rows) and all(row.disposition for many in rows.values() for row in many)

    try:
        await eventually(complete, "a complete record of each call", 60.0)
    except AssertionError as exc:
        outcome.faults.append(str(exc))
    ends = {end.plan.caller: end for end in duels.callers.values()}
    # 180, 183 and 200 come from a channel; 100 and a refusal may come before there is one.
    seen = {caller for caller, end in ends.items() if any(101 <= status < 300 for status in end.statuses)}
    answered = {caller for caller, end in ends.items() if 200 in end.statuses}
    phones = Counter(end.plan.caller for end in duels.phones.values())
    outcome.numbers["calls in Asterisk's records"] = sum(ledger.values())
    outcome.numbers["records"] = sum(len(many) for many in rows.values())
    outcome.numbers["answered"] = len(answered)
    outcome.numbers["cancelled before known"] = sum(end.cancelled_early for end in ends.values())
    # Cancelled before the dialplan's first step, which names the caller.
    outcome.numbers["gone before named"] = callers.pop("", 0)
    outcome.none_of("rows doubled by Asterisk", [each for each, count in (ledger + callers).items() if count > 1])
    outcome.none_of("calls without any row", sorted((seen | answered | set(phones)) - set(callers)))
    outcome.none_of("records missing", sorted(set(ledger) - set(rows)))
    outcome.none_of("records doubled", [each for each, many in rows.items() if len(many) > 1])
    outcome.none_of("records of no call", sorted(set(rows) - set(ledger)))
    outcome.none_of("records open", [c for c, many in rows.items() if any(row.disposition is None for row in many)])
    outcome.none_of("telephones rung twice", [caller for caller, count in phones.items() if count > 1])
    kinds = {each.caller: each.kind for each in plans}
    for kind in KINDS:
        found = Counter(row.disposition for [row, *_] in rows.values() if kinds.get(row.caller or "") == kind)
        outcome.by_kind[kind] = ", ".join(f"{word} {count}" for word, count in found.most_common())


def resident(pid: int | None) -> int:
    """Bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


async def run(calls: int, per_second: float, seed: int) -> Outcome:
    async with installation(work=False) as place:
        await place.spawn_server()
        return await race(place, calls, per_second, seed)


def main() -> int:
    given = options.parser(__doc__, calls=10_000, per_second=20.0).parse_args()
    seed = given.seed
    print(f"seed {seed}: {given.calls} calls at {given.per_second:g}/s", file=sys.stderr)
    outcome = asyncio.run(run(given.calls, given.per_second, seed))
    if given.json:
        print(json.dumps({"seed": seed, **outcome.numbers, "kinds": outcome.by_kind, "wrong": outcome.faults}))
    else:
        print(f"races, seed {seed}:\n{outcome.summary()}")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
