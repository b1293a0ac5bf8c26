"""Whose turn it is in each group, and when each target was rung and talked last: the facts that groups are ordered by.

Kept in memory. At a start they come from the database and the journal; a group's turn is in every ``GroupKnown``, which
is written down before anybody is rung by it.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem
from callrouter.core.groups import Facts
from callrouter.errors import DatabaseError
from callrouter.store.database import Database
from callrouter.store.rotation import StoredRotation, journal_items, stored_times, stored_turns

KEPT_SECONDS = 30 * 86400.0
"""Who was rung or talked longer ago counts as one who never was."""


class Rotation:
    """Follows what calls write into their logs, and tells what it knows."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}
        self._rung: dict[str, float] = {}
        self._talked: dict[str, float] = {}
        self._legs: dict[str, dict[str, str]] = {}
        """Target of each leg, by the call that lasts."""
        self._talking: dict[str, dict[str, str]] = {}
        """Those of them that were answered."""

    def ask(self, asked: a.AskGroup) -> Facts:
        """What is known of a group now; it is one call's turn."""
        turn = self._turns.get(asked.group_id, 0)
        self._turns[asked.group_id] = turn + 1
        talking = {target for legs in self._talking.values() for target in legs.values()}
        return Facts(
            turn=turn,
            rung=_of(self._rung, asked.target_ids),
            talked=_of(self._talked, asked.target_ids),
            talking=tuple(each for each in asked.target_ids if each in talking),
        )

    def follow(self, call_id: str, item: LogItem) -> None:
        """One more entry of a call's log."""
        match item:
            case e.GroupKnown():
                self._turns[item.group_id] = max(self._turns.get(item.group_id, 0), item.facts.turn + 1)
            case note.LegPlanned() if item.target_id:
                self._rung[item.target_id] = max(self._rung.get(item.target_id, 0.0), item.at)
                self._legs.setdefault(call_id, {})[item.leg_id] = item.target_id
            case e.LegAnswered():
                if (target := self._legs.get(call_id, {}).get(item.leg_id)) is not None:
                    self._talking.setdefault(call_id, {})[item.leg_id] = target
            case e.DialReturned() | e.CallerHungUp() | e.LedgerClosed():
                for target in self._talking.pop(call_id, {}).values():
                    self._talked[target] = max(self._talked.get(target, 0.0), item.at)
                if not isinstance(item, e.DialReturned):
                    self._legs.pop(call_id, None)

    def learn(self, stored: StoredRotation) -> None:
        """Take in what an earlier run wrote down; what is known already may be newer."""
        for known, told in (
            (self._rung, stored.rung),
            (self._talked, stored.talked),
        ):
            for key, at in told.items():
                known[key] = max(known.get(key, 0.0), at)
        for group, turn in stored.turns.items():
            self._turns[group] = max(self._turns.get(group, 0), turn)


def _of(known: dict[str, float], targets: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    return tuple((each, known[each]) for each in targets if each in known)


async def follow_journal(rotation: Rotation, journal: Path) -> None:
    """Take in what the journal still has, before a call can ask."""

    def follow() -> None:
        for call_id, item in journal_items(journal):
            rotation.follow(call_id, item)

    await asyncio.to_thread(follow)


async def learn_rotation(rotation: Rotation, database: Database) -> bool:
    """Take in what earlier runs left in the database.

    :returns: whether it could be asked; until then the journal has to do
    """
    try:
        async with database.session(read_only=True) as session:
            rotation.learn(await stored_turns(session))
            rotation.learn(await stored_times(session, time.time() - KEPT_SECONDS))
    except DatabaseError:
        return False
    return True
