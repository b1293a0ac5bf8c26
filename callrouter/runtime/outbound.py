"""Who dials over trunks now, and who did: the counts that the companies' limits are held against.

Every leg is counted under its id, once, whoever tells of it: the call that dials it, a call that is adopted after a
restart, or the database, where the legs of an earlier run stand.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import structlog

from callrouter.core import actions as a
from callrouter.core.model import Company
from callrouter.core.outbound import (
    HOUR,
    Cap,
    Refusal,
    Usage,
    called,
    cost_micros,
    day_start,
    exceeded,
    permit,
    policy_of,
)
from callrouter.store.outbound import StoredLeg

log = structlog.get_logger(__name__)

KEPT_SECONDS = 26 * HOUR
"""A day in any zone, with the hour that the clocks may be put back."""
ALARM_SECONDS = 300.0
"""An alarm is over when its cap has had room for so long."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A cap that has kept legs from being dialled."""

    company: str
    """Name."""
    cap: Cap
    reason: str
    """Of the last leg."""
    since: float
    last: float
    count: int


@dataclass(slots=True)
class _Running:
    started_at: float
    rate: int | None
    answered_at: float | None = None

    def cost(self, now: float) -> int:
        if self.rate is None or self.answered_at is None:
            return 0
        return cost_micros(self.rate, now - self.answered_at)


@dataclass(slots=True)
class _Account:
    """One company's legs."""

    running: dict[str, _Running] = field(default_factory=dict)
    over: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Start and cost, by id."""
    starts: list[float] = field(default_factory=list)
    """Of all legs, in order."""

    def drop(self, leg_id: str) -> None:
        """Count a leg no more."""
        started_at = self.running.pop(leg_id).started_at if leg_id in self.running else None
        if started_at is None:
            started_at, _ = self.over.pop(leg_id, (None, 0))
        if started_at is not None:
            self.starts.remove(started_at)

    def forget(self, before: float) -> None:
        old = bisect_left(self.starts, before)
        if old:
            del self.starts[:old]
            self.over = {key: leg for key, leg in self.over.items() if leg[0] >= before}


class Outbound:
    """Counts legs, and says whether one more may be dialled."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._companies: dict[str, str] = {}
        """Company of each running leg."""
        self._alarms: dict[tuple[str, Cap], tuple[Company, Alarm]] = {}

    # -- legs ----------------------------------------------------------------------------------------------------------

    def ask(self, company: Company, dial: a.Dial | a.Branch, now: float) -> Refusal | None:
        """Count a leg that is about to be dialled; or say why it must not be.

        :returns: None: it is counted, until :meth:`ended`
        """
        account = self._account(company.id)
        # Adopted, and to be dialled only now: it is no other leg.
        account.drop(dial.leg_id)
        account.forget(now - KEPT_SECONDS)
        verdict = permit(called(dial.number), True, policy_of(company), self.usage(company, now))
        if isinstance(verdict, Refusal):
            self._raise(company, dial, verdict, now)
            return verdict
        self.adopt(company.id, dial.leg_id, now, dial.rate)
        return None

    def adopt(self, company_id: str, leg_id: str, started_at: float, rate: int | None) -> None:
        """Count a leg that was dialled before this process began."""
        account = self._account(company_id)
        if leg_id in account.running:
            return
        if leg_id in account.over:
            # The database told of it, as of one that has not ended.
            started_at, _ = account.over.pop(leg_id)
        else:
            insort(account.starts, started_at)
        account.running[leg_id] = _Running(started_at, rate)
        self._companies[leg_id] = company_id

    def answered(self, leg_id: str, at: float) -> None:
        """A leg costs money from now on."""
        running = self._running(leg_id)
        if running is not None and running.answered_at is None:
            running.answered_at = at

    def ended(self, leg_id: str, at: float) -> None:
        """A leg is over."""
        company_id = self._companies.pop(leg_id, None)
        if company_id is None:
            return
        account = self._account(company_id)
        running = account.running.pop(leg_id, None)
        if running is not None:
            account.over[leg_id] = (running.started_at, running.cost(at))

    def learn(self, legs: Iterable[StoredLeg]) -> None:
        """Take in legs from the database or the journal: those of an earlier run, and those the dialplan dialled."""
        for leg in legs:
            account = self._account(leg.company_id)
            if leg.id in account.running:
                continue
            if leg.id not in account.over:
                insort(account.starts, leg.started_at)
            # Of what is known twice, the dearer: the database may not have heard of the end yet.
            started_at, cost = account.over.get(leg.id, (leg.started_at, 0))
            account.over[leg.id] = (started_at, max(cost, leg.cost))

    # -- what can be asked ---------------------------------------------------------------------------------------------

    def usage(self, company: Company, now: float) -> Usage:
        """What a company has in use."""
        account = self._account(company.id)
        spent = 0
        if company.max_spend_per_day is not None:
            today = day_start(now, company.timezone)
            spent = sum(cost for started_at, cost in account.over.values() if started_at >= today)
            spent += sum(leg.cost(now) for leg in account.running.values() if leg.started_at >= today)
        hour = len(account.starts) - bisect_left(account.starts, now - HOUR)
        return Usage(len(account.running), hour, spent)

    @property
    def running(self) -> Mapping[str, int]:
        """Legs over trunks at this moment, by company id."""
        return {key: len(account.running) for key, account in self._accounts.items() if account.running}

    def alarms(self, now: float, companies: Mapping[str, Company] = MappingProxyType({})) -> list[Alarm]:
        """Caps that have kept legs from being dialled lately; one that has room again is dropped after a while.

        :param companies: by id, as they are now
        """
        for key, (then, alarm) in list(self._alarms.items()):
            company = companies.get(then.id, then)
            verdict = exceeded(policy_of(company), self.usage(company, now))
            if verdict is not None and verdict.cap is alarm.cap:
                continue
            if now - alarm.last >= ALARM_SECONDS:
                log.info("outbound_alarm_over", company=alarm.company, cap=alarm.cap, refused=alarm.count)
                del self._alarms[key]
        return [alarm for _, alarm in self._alarms.values()]

    # -- the rest ------------------------------------------------------------------------------------------------------

    def _account(self, company_id: str) -> _Account:
        return self._accounts.setdefault(company_id, _Account())

    def _running(self, leg_id: str) -> _Running | None:
        company_id = self._companies.get(leg_id)
        return None if company_id is None else self._account(company_id).running.get(leg_id)

    def _raise(self, company: Company, dial: a.Dial | a.Branch, refusal: Refusal, now: float) -> None:
        key = company.id, refusal.cap
        _, known = self._alarms.get(key, (company, Alarm(company.name, refusal.cap, "", now, now, 0)))
        alarm = replace(known, reason=refusal.reason, last=now, count=known.count + 1)
        self._alarms[key] = company, alarm
        log.error(
            "outbound_refused",
            company=company.name,
            cap=refusal.cap,
            target=dial.target,
            trunk=dial.trunk,
            reason=refusal.reason,
            count=alarm.count,
        )
