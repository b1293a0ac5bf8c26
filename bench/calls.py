"""Benchmarks that place calls: callrouter and a dialplan alone, in turn, on Asterisks of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.figures import Figure, percentile, progress
from bench.load import Load, Placed
from bench.sites import Cost, Peer, Product, both

STATUS_SECONDS = 1.5
"""The server writes what it counted every second."""
REST = 2.0
"""Seconds of quiet before a round, so that the round before has been written down."""


@dataclass
class Rounds:
    """What each round gave."""

    ours: list[tuple[Placed, Cost]] = field(default_factory=list)
    theirs: list[tuple[Placed, Cost]] = field(default_factory=list)
    events: list[float] = field(default_factory=list)
    """ARI events a call."""
    bytes: list[float] = field(default_factory=list)
    """Of these events, a call."""


async def play(ours: Product, theirs: Peer, load: Load, rounds: int) -> Rounds:
    """Place a load at both in turn, ``rounds`` times; each time who begins is changed.

    :raises WrongResultError: a call, a record, a tag or a recording is missing
    """
    found = Rounds()
    for number in range(rounds):
        sites: tuple[Product | Peer, ...] = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        for site in sites:
            await asyncio.sleep(REST)
            progress(f"  round {number + 1} of {rounds}: {load.calls} calls at {load.per_second:g}/s, {site.name}")
            if isinstance(site, Product):
                events, size = site.events()
                found.ours.append(await site.place(load))
                await asyncio.sleep(STATUS_SECONDS)
                later, larger = site.events()
                found.events.append((later - events) / load.calls)
                found.bytes.append((larger - size) / load.calls)
            else:
                found.theirs.append(await site.place(load))
            await site.check(load)
    return found


def milliseconds_each(
    costs: Sequence[tuple[Placed, Cost]], calls: int, *, controller: bool = False
) -> tuple[float, ...]:
    return tuple((cost.controller if controller else cost.asterisk) / calls * 1000 for _, cost in costs)


async def cpu(quick: bool) -> list[Figure]:
    """Processor time a call, in Asterisk and in the controller; and the events that the controller is sent."""
    load = Load(calls=60 if quick else 300, per_second=15, talk_seconds=1.0)
    async with both() as (ours, theirs):
        await play(ours, theirs, Load(10, 10, 0.5), 1)
        found = await play(ours, theirs, load, 2 if quick else 5)
    peer = milliseconds_each(found.theirs, load.calls)
    return [
        Figure("Asterisk's CPU a call", "ms", milliseconds_each(found.ours, load.calls), peer, limit=1.15),
        Figure(
            "controller's CPU a call",
            "ms",
            milliseconds_each(found.ours, load.calls, controller=True),
            base=peer,
            limit=0.20,
        ),
        Figure("ARI events a call", "", tuple(found.events), limit=8),
        Figure("ARI events a call", "kB", tuple(size / 1000 for size in found.bytes), limit=4),
    ]


async def setup(quick: bool) -> list[Figure]:
    """What the controller adds between the caller's INVITE and the one at the phone, and between the two answers."""
    figures = []
    async with both() as (ours, theirs):
        await play(ours, theirs, Load(10, 10, 0.5), 1)
        for rate, most in ((25.0, 5.0), (100.0, 10.0)):
            load = Load(calls=round(rate * (2 if quick else 10)), per_second=rate, talk_seconds=1.0)
            found = await play(ours, theirs, load, 1 if quick else 3)
            for share, limit in ((0.5, 1.5), (0.99, most)):
                figures.append(_added(f"INVITE to INVITE, p{share * 100:g} at {rate:g}/s", found, share, limit, False))
                figures.append(_added(f"200 to 200, p{share * 100:g} at {rate:g}/s", found, share, limit, True))
    return figures


def _added(name: str, found: Rounds, share: float, limit: float, answer: bool) -> Figure:
    """Milliseconds that ours takes longer than theirs, round by round."""

    def at(placed: Placed) -> float:
        return 1000 * percentile(placed.answer_seconds() if answer else placed.setup_seconds(), share)

    ours = tuple(at(placed) for placed, _ in found.ours)
    theirs = tuple(at(placed) for placed, _ in found.theirs)
    return Figure(
        f"added, {name}", "ms", tuple(mine - peers for mine, peers in zip(ours, theirs, strict=True)), limit=limit
    )
