"""Ring groups: whom a call rings, in which order, and what the group comes to. Facts come in with an event; nothing is
left to chance, so that a call's log gives the same order again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from callrouter.core.disposition import LegResult
from callrouter.core.model import Member, Strategy, TargetGroup
from callrouter.errors import InputError

MAX_MEMBERS = 50
MAX_WEIGHT = 100
MAX_TIER = 99
DECLINED_CAUSE = 21
"""Q.850 "call rejected", which Asterisk makes of a 603."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a group when a call comes to it. Times are seconds since the epoch, by the target's id."""

    turn: int = 0
    """How many calls came to it before."""
    rung: tuple[tuple[str, float], ...] = ()
    """When each target was last rung, by whatever call; one that is missing never was."""
    talked: tuple[tuple[str, float], ...] = ()
    """When each one's last conversation ended."""
    talking: tuple[str, ...] = ()
    """Those that are talking now."""


def order(group: TargetGroup, ids: Mapping[str, str], facts: Facts) -> tuple[Member, ...]:
    """All members of a group in the order in which they are rung; of ``ring-all`` as they stand.

    :param ids: id of each target, by name; members that are not there are left out
    """
    members = [member for member in group.members if member.target in ids]
    match group.strategy:
        case Strategy.IN_ORDER | Strategy.RING_ALL:
            return tuple(members)
        case Strategy.ROUND_ROBIN:
            return tuple(_from(members, facts.turn))
        case Strategy.TIERS:
            tiers = sorted({member.tier for member in members})
            return tuple(
                one for tier in tiers for one in _from([each for each in members if each.tier == tier], facts.turn)
            )
        case Strategy.WEIGHTED:
            return tuple(_by_weight(members, facts.turn))
        case Strategy.LEAST_RECENT:
            rung = dict(facts.rung)
            return tuple(sorted(members, key=lambda one: rung.get(ids[one.target], -math.inf)))
        case Strategy.LONGEST_IDLE:
            talked = {**dict(facts.talked), **dict.fromkeys(facts.talking, math.inf)}
            return tuple(sorted(members, key=lambda one: talked.get(ids[one.target], -math.inf)))


def reason(group: TargetGroup, rung: Sequence[str], facts: Facts) -> str:
    """Why the members are rung in this order, in words.

    :param rung: names of targets, as they will ring
    """
    names = ", ".join(rung)
    match group.strategy:
        case Strategy.RING_ALL:
            return f"rings {names} at once"
        case Strategy.ROUND_ROBIN | Strategy.TIERS | Strategy.WEIGHTED:
            return f"{group.strategy}, call {facts.turn + 1}: {names}"
    return f"{group.strategy}: {names}"


def stops(group: TargetGroup, result: LegResult, cause: int) -> str | None:
    """Why no other member is rung after a leg that ended so; None: the next one is.

    :param cause: Q.850
    """
    if cause == DECLINED_CAUSE and result is not LegResult.ANSWERED:
        return "declined for all" if group.stop_on_declined else None
    return "a busy member makes the group busy" if result is LegResult.BUSY and group.stop_on_busy else None


def summed(results: Collection[LegResult]) -> LegResult:
    """What a group comes to whose members all failed: nobody there, where at least one has rung to its end; else busy,
    where one was."""
    for worst in (LegResult.NO_ANSWER, LegResult.BUSY):
        if worst in results:
            return worst
    return LegResult.FAILED


def _from(members: Sequence[Member], turn: int) -> list[Member]:
    start = turn % len(members) if members else 0
    return [*members[start:], *members[:start]]


def _by_weight(members: Sequence[Member], turn: int) -> Iterator[Member]:
    """Smooth weighted round robin: in as many calls as the weights come to, each member is first as often as its weight
    says, and never far more often in a row than that. Who follows in a call is who would be first in the next ones."""
    if not members:
        return
    share = reduce(math.gcd, (member.weight for member in members))
    weights = [member.weight // share for member in members]
    total = sum(weights)
    credit = [0] * len(members)
    seen: set[int] = set()
    for step in range(turn % total + total):
        credit = [left + weight for left, weight in zip(credit, weights, strict=True)]
        first = max(range(len(members)), key=lambda place: credit[place])
        credit[first] -= total
        if step >= turn % total and first not in seen:
            seen.add(first)
            yield members[first]


# -- members, as people write them -------------------------------------------------------------------------------------

_LIMITS = {"ring_seconds": 300, "weight": MAX_WEIGHT, "tier": MAX_TIER}


def parse_member(text: str) -> Member:
    """``bob``, ``bob:ring=20`` or ``bob:weight=3,tier=2``.

    :raises InputError: it is no such member
    """
    name, _, rest = text.partition(":")
    given: dict[str, int] = {}
    for part in rest.split(",") if rest else ():
        key, _, value = (word.strip() for word in part.partition("="))
        key = "ring_seconds" if key == "ring" else key
        if key not in _LIMITS or not (value.isascii() and value.isdecimal()):
            raise InputError(f"{part!r} says nothing of a member", hint="like bob:ring=20,weight=3,tier=2")
        given[key] = int(value)
    return Member(name.strip(), **given)


def member_text(member: Member) -> str:
    """A member as ``parse_member`` reads it."""
    ring = f"ring={member.ring_seconds}" if member.ring_seconds else ""
    weight = f"weight={member.weight}" if member.weight != 1 else ""
    tier = f"tier={member.tier}" if member.tier != 1 else ""
    return ":".join(part for part in (member.target, ",".join(filter(None, (ring, weight, tier)))) if part)


def checked_members(members: Sequence[Member], strategy: Strategy) -> tuple[Member, ...]:
    """Members of a group.

    :raises InputError: none, too many, a target twice, a value out of range, one that the strategy does not look at
    """
    if not 1 <= len(members) <= MAX_MEMBERS:
        raise InputError(f"a group has 1 to {MAX_MEMBERS} members, not {len(members)}", hint="--member NAME, repeated")
    twice = [one.target for place, one in enumerate(members) if one.target in {each.target for each in members[:place]}]
    if twice:
        raise InputError(f"target {twice[0]!r} is in the group twice", hint="give it once")
    for one in members:
        for field, most in _LIMITS.items():
            value = getattr(one, field)
            if value is not None and not 1 <= value <= most:
                raise InputError(f"member {one.target!r}: {field} {value} is out of range", hint=f"1 to {most}")
        for field, wanted in (("weight", Strategy.WEIGHTED), ("tier", Strategy.TIERS)):
            if getattr(one, field) != 1 and strategy is not wanted:
                raise InputError(
                    f"member {one.target!r} has a {field}, which the strategy {strategy} does not look at",
                    hint=f"leave it out, or take the strategy {wanted}",
                )
        if one.ring_seconds is not None and strategy is Strategy.RING_ALL:
            raise InputError(
                f"member {one.target!r} has ring seconds of its own, but all ring as long as the group",
                hint="leave them out: the longest of its targets counts; or give ring on the dial node",
            )
    return tuple(members)
