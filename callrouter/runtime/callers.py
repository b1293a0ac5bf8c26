"""Who called before: kept in memory, so that no call ever waits for a database to know its caller.

What earlier runs know is taken in once, after the start; until then a caller counts as unknown. Of then on every call's
log is followed.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import nsmallest

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem
from callrouter.core.identity import CallerHistory
from callrouter.core.model import Company
from callrouter.store.callers import MOST, StoredCaller

LOOK_BACK = 400 * 86400.0
"""A caller of longer ago counts as one who never called."""
LONGEST_WINDOW = 86400.0
"""Of the calls that are counted for ``Company.max_calls_per_caller``."""


SPARE = 20_000
"""How many more than ``MOST`` are kept before the oldest are forgotten."""


@dataclass(slots=True)
class _Caller:
    calls: int = 0
    last_at: float = 0.0
    last_target: str | None = None
    answered_at: float = 0.0
    """When ``last_target`` answered."""
    tags: tuple[str, ...] = ()
    recent: list[float] = field(default_factory=list)
    """Of calls in the last ``LONGEST_WINDOW``, in order."""

    def answered_by(self, target: str, at: float) -> None:
        if at > self.answered_at:
            self.last_target, self.answered_at = target, at

    def tag(self, tags: tuple[str, ...]) -> None:
        self.tags = tuple(dict.fromkeys((*self.tags, *tags)))


@dataclass(slots=True)
class _Open:
    """A call that lasts."""

    number: str | None
    at: float
    who: _Caller | None = None
    """Once it is known whose call it is."""
    legs: dict[str, str] = field(default_factory=dict)
    """Target of each leg."""


class Callers:
    """Follows what calls write into their logs, and tells what it knows.

    :param since: calls that arrive from then on are followed, seconds since the epoch; None: now
    """

    def __init__(self, since: float | None = None) -> None:
        self.since = time.time() if since is None else since
        self.complete = False
        """Whether what earlier runs know was taken in."""
        self._known: dict[tuple[str, str], _Caller] = {}
        self._open: dict[str, _Open] = {}

    def history(self, company: Company, caller: str | None, now: float) -> CallerHistory | None:
        """What is known of a caller whose call arrives.

        :param caller: E.164; None: withheld
        :returns: None: withheld, or not known yet
        """
        if caller is None or not self.complete:
            return None
        who = self._known.get((company.id, caller))
        if who is None:
            return CallerHistory()
        begin = bisect_left(who.recent, now - company.caller_window)
        return CallerHistory(who.calls, who.last_at, who.last_target, who.tags, len(who.recent) - begin)

    def follow(self, call_id: str, item: LogItem) -> None:
        """One more entry of a call's log."""
        if isinstance(item, e.CallArrived):
            # A call of before that is taken in only now: until the past is known it will be a part of it.
            if self.complete or item.at >= self.since:
                self._open[call_id] = _Open(item.caller, item.at)
            return
        call = self._open.get(call_id)
        if call is None:
            return
        match item:
            case note.Routed() if item.company_id is not None and call.number is not None:
                call.who = self._known.setdefault((item.company_id, call.number), _Caller())
                self._count(call.who, call.at)
                self._forget()
            case note.Tagged() if call.who is not None:
                call.who.tag(item.tags)
            case note.LegPlanned():
                call.legs[item.leg_id] = item.target
            case e.LegAnswered() if call.who is not None and item.leg_id in call.legs:
                call.who.answered_by(call.legs[item.leg_id], item.at)
            case e.CallerHungUp() | e.LedgerClosed():
                del self._open[call_id]

    def learn(self, stored: Iterable[StoredCaller]) -> None:
        """Take in what earlier runs know."""
        for each in stored:
            who = self._known.setdefault((each.company_id, each.number), _Caller())
            who.calls += each.calls
            who.last_at = max(who.last_at, each.last_at)
            if each.last_target is not None:
                who.answered_by(each.last_target, each.answered_at)
            who.tag(each.tags)
            who.recent = sorted((*each.recent, *who.recent))
        self.complete = True

    def _forget(self) -> None:
        """Those who called longest ago, many at once: to look for them takes a while."""
        if len(self._known) > MOST + SPARE:
            for key in nsmallest(SPARE, self._known, key=lambda key: self._known[key].last_at):
                del self._known[key]

    def _count(self, who: _Caller, at: float) -> None:
        who.calls += 1
        who.last_at = max(who.last_at, at)
        insort(who.recent, at)
        del who.recent[: bisect_left(who.recent, who.last_at - LONGEST_WINDOW)]
