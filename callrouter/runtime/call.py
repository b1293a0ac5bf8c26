"""One call: one task, one queue. Every event is appended to the journal before it is acted on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import structlog

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem
from callrouter.core.disposition import Disposition
from callrouter.core.keys import masked
from callrouter.core.model import Company
from callrouter.core.routing import RoutingTable
from callrouter.core.session import step
from callrouter.core.state import Calling, HandedOver, Leaving, Over, Session
from callrouter.runtime.callers import Callers
from callrouter.runtime.clock import CallClock
from callrouter.runtime.executor import Executor, Outcome
from callrouter.runtime.outbound import Outbound
from callrouter.runtime.rotation import Rotation
from callrouter.runtime.webhooks import Webhooks

log = structlog.get_logger(__name__)

HANGUP_SECONDS = 0.15
"""Asterisk reports the end of what a caller heard or said before that caller's hang-up, by some milliseconds."""


class Log(Protocol):
    """Where a call's events and decisions are appended; the journal is one."""

    def append(self, call_id: str, entry: LogItem) -> object: ...


class Call:
    """A caller's call while it lasts.

    :param table: the routing in force when the call arrived; it keeps it to its end
    :param on_over: called once, when the call is over
    """

    def __init__(
        self,
        call_id: str,
        channel: str,
        table: RoutingTable,
        journal: Log,
        executor: Executor,
        on_over: Callable[[Call], None],
        session: Session | None = None,
        outbound: Outbound | None = None,
        rotation: Rotation | None = None,
        callers: Callers | None = None,
        webhooks: Webhooks | None = None,
    ) -> None:
        self.id = call_id
        self.channel = channel
        self.session = session or Session(call_id)
        self._table = table
        self._journal = journal
        self._executor = executor
        self._on_over = on_over
        self._outbound = outbound or Outbound()
        self._rotation = rotation or Rotation()
        self._callers = callers or Callers()
        self._webhooks = webhooks or Webhooks()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._legs: set[str] = set()
        """The legs over trunks that are counted for this call: several only while they ring at once."""
        self.peers: dict[str, str] = {}
        """Leg of each channel among those that ring at once."""
        self._adopt_legs()
        self._clock = CallClock()
        self._queue: asyncio.Queue[e.Event | a.LeaveToFailsafe] = asyncio.Queue()
        self.unneeded = asyncio.Event()
        """Set while the caller is talking, ringing or leaving: the dialplan does that without us."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._task = asyncio.create_task(self._run(), name=f"call-{call_id}")

    def put(self, event: e.Event) -> None:
        """Something happened to this call just now."""
        self._queue.put_nowait(replace(event, at=self._clock.at(event.at)))

    def tell(self, event: e.Event) -> None:
        """Something happened while nobody watched; Asterisk itself kept when."""
        self._queue.put_nowait(event)

    def leave(self, why: str) -> None:
        """Let the dialplan's failsafe look after the caller, if the call needs us at all."""
        self._queue.put_nowait(a.LeaveToFailsafe(why))

    async def wait(self) -> None:
        """Until the call is over."""
        await asyncio.shield(self._task)

    def abandon(self) -> None:
        """Stop following the call without ending it: the server goes down, the caller does not."""
        self._stop_timers()
        self._stop_asking()
        self._task.cancel()

    async def _run(self) -> None:
        try:
            while not self.session.over:
                item = await self._next()
                try:
                    if not isinstance(item, a.LeaveToFailsafe):
                        await self._take(item)
                    elif not self.unneeded.is_set():
                        await self._hand_over(item.reason)
                except Exception as exc:  # a fault of ours must not strand a caller
                    log.exception("call_failed", call=self.id, item=type(item).__name__)
                    await self._rescue(item, repr(exc))
        finally:
            self._stop_timers()
            self._stop_asking()
            self._end_legs(self._legs, time.time())
            self.unneeded.set()
            self._on_over(self)

    async def _next(self) -> e.Event | a.LeaveToFailsafe:
        """What is next. A hang-up that cut a message or a prompt short comes before the end of that: the flow must not
        go on for a caller who is gone."""
        item = await self._queue.get()
        if isinstance(item, e.RecordingEnded) or (isinstance(item, e.PlaybackEnded) and not item.ok):
            await asyncio.sleep(HANGUP_SECONDS)
            waiting = [item, *(self._queue.get_nowait() for _ in range(self._queue.qsize()))]
            for each in sorted(waiting, key=lambda one: not isinstance(one, e.CallerHungUp)):
                self._queue.put_nowait(each)
            item = self._queue.get_nowait()
        return item

    async def _take(self, event: e.Event) -> None:
        if isinstance(event, e.PlaybackEnded):
            self._cancel_timer(event.playback_id)
        event = masked(self.session, event)  # from here on nobody knows a digit that nobody may know
        self._write(event)
        result = step(self.session, event, self._table)
        self.session = result.session
        self._follow_legs(event.at)
        needed = not isinstance(self.session.wait, Calling | HandedOver | Leaving | Over)
        if needed:
            self.unneeded.clear()
        for decided in result.notes:
            self._write(decided)
        for action in result.actions:
            await self._perform(action)
        if not needed:  # only now has the dialplan got the caller
            self.unneeded.set()

    def _write(self, item: LogItem) -> None:
        self._journal.append(self.id, item)
        self._rotation.follow(self.id, item)
        self._callers.follow(self.id, item)

    async def _rescue(self, item: e.Event | a.LeaveToFailsafe, why: str) -> None:
        """The program failed on this call: the dialplan takes the caller to the backup destination."""
        try:
            self._journal.append(self.id, note.Decided(time.time(), "call", "internal error", why[:500]))
            if isinstance(item, e.CallerHungUp | e.LedgerClosed):
                self._journal.append(self.id, note.Concluded(item.at, Disposition.FAILED, "an internal error"))
        except Exception:  # the caller comes first
            log.exception("call_not_logged", call=self.id)
        if isinstance(item, e.CallerHungUp | e.LedgerClosed):
            self.session = replace(self.session, wait=Over())
        elif not isinstance(self.session.wait, Leaving | HandedOver | Over):
            await self._hand_over("an internal error")
        else:
            self.unneeded.set()

    async def _hand_over(self, why: str) -> None:
        self._stop_timers()
        self._stop_asking()
        self.session = replace(self.session, wait=HandedOver(), ending=why)
        try:
            await self._perform(a.LeaveToFailsafe(why))
        except Exception:  # nothing more can be done
            log.exception("call_not_handed_over", call=self.id)
        self.unneeded.set()

    async def _perform(self, action: a.Action) -> None:
        match action:
            case a.StartTimer():
                self._start_timer(action.timer_id, action.seconds, e.TimerFired(0.0, action.timer_id))
                return
            case a.CancelTimer():
                self._cancel_timer(action.timer_id)
                return
            case a.StopPlayback():
                self._cancel_timer(action.playback_id)
            case a.AskGroup():
                self.put(e.GroupKnown(time.time(), action.ref, action.group_id, self._rotation.ask(action)))
                return
            case a.AskWebhook():
                self._asking[action.ref] = asyncio.create_task(self._ask(action), name=f"webhook-{action.ref}")
                return
            case a.StopWebhook():
                self._stop_asking(action.ref)
                return
        entry = self.session.entry
        if isinstance(action, a.Dial) and entry is not None:
            allowed = self._permitted(entry.company, action)
            if allowed is None:
                return
            action = allowed
        outcome = await self._executor.perform(self.channel, entry.company.id if entry else "", action)
        self._follow_up(action, outcome)
        if outcome.gone and isinstance(action, a.Record):
            # Told before the end of the call, which is queued or on its way: who hung up while we were slow to read
            # has left no message, however long ago the greeting ended.
            refused = e.ActionFailed(time.time(), "Record", "the caller is gone", action.recording_id, gone=True)
            await self._take(refused)

    async def _ask(self, asked: a.AskWebhook) -> None:
        try:
            reply = await self._webhooks.ask(asked)
            self.put(e.WebhookAnswered(time.time(), asked.ref, asked.node, asked.url, reply))
        finally:
            self._asking.pop(asked.ref, None)

    def _stop_asking(self, *refs: str) -> None:
        """Give up requests: those named, or all."""
        for ref in refs or tuple(self._asking):
            if (task := self._asking.pop(ref, None)) is not None:
                task.cancel()

    def _permitted(self, company: Company, dial: a.Dial) -> a.Dial | None:
        """What of a dial the company's limits allow, counted; None: nothing. What they refuse is told as an event."""
        if not dial.branches:
            return dial if self._counts(company, dial) else None
        allowed = tuple(each for each in dial.branches if self._counts(company, each))
        return replace(dial, branches=allowed) if allowed else None

    def _counts(self, company: Company, leg: a.Dial | a.Branch) -> bool:
        if leg.trunk is None:
            return True
        refusal = self._outbound.ask(company, leg, time.time())
        if refusal is None:
            self._legs.add(leg.leg_id)
            return True
        self.put(e.DialRefused(time.time(), leg.leg_id, refusal.cap, refusal.reason))
        return False

    def _adopt_legs(self) -> None:
        """A call of before a restart has its legs counted again."""
        wait, entry = self.session.wait, self.session.entry
        if not isinstance(wait, Calling) or entry is None:
            return
        for leg in wait.branches or (wait,):
            if leg.trunk is not None and leg.leg_id in _alive(wait):
                self._outbound.adopt(entry.company.id, leg.leg_id, wait.dialled_at, leg.rate)
                self._legs.add(leg.leg_id)
        self._follow_legs(wait.answered_at or wait.dialled_at)

    def _follow_legs(self, at: float) -> None:
        if not self._legs:
            return
        wait = self.session.wait
        self._end_legs(self._legs - (_alive(wait) if isinstance(wait, Calling) else set()), at)
        if isinstance(wait, Calling) and wait.answered_at is not None and wait.talking in self._legs:
            self._outbound.answered(wait.talking, wait.answered_at)

    def _end_legs(self, legs: set[str], at: float) -> None:
        for leg_id in legs:
            self._outbound.ended(leg_id, at)
        self._legs = self._legs - legs

    def _follow_up(self, action: a.Action, outcome: Outcome) -> None:
        ref = _reference(action)
        if outcome.guard is not None and ref is not None:
            # Asterisk does not report the end of every playback.
            self._start_timer(ref, outcome.guard, e.PlaybackEnded(0.0, ref, ok=False))
        if outcome.unreported:
            self.put(e.CallerHungUp(time.time(), 0))
        if outcome.problem and not outcome.gone:
            name = type(action).__name__
            log.warning("action_failed", call=self.id, action=name, reason=outcome.problem)
            self.put(e.ActionFailed(time.time(), name, outcome.problem, ref))

    def _start_timer(self, timer_id: str, seconds: float, event: e.TimerFired | e.PlaybackEnded) -> None:
        self._cancel_timer(timer_id)

        def fire() -> None:
            self._timers.pop(timer_id, None)
            fired: e.Event
            if isinstance(event, e.TimerFired):
                fired = e.TimerFired(time.time(), timer_id)
            else:
                fired = e.PlaybackEnded(time.time(), timer_id, ok=False)
            self.put(fired)

        self._timers[timer_id] = asyncio.get_running_loop().call_later(seconds, fire)

    def _cancel_timer(self, timer_id: str) -> None:
        timer = self._timers.pop(timer_id, None)
        if timer is not None:
            timer.cancel()

    def _stop_timers(self) -> None:
        for timer_id in list(self._timers):
            self._cancel_timer(timer_id)


def _alive(wait: Calling) -> set[str]:
    """The legs of a dial that have not ended."""
    if wait.winner or not wait.branches:
        return {wait.talking}
    return {each.leg_id for each in wait.branches if each.result is None}


def _reference(action: a.Action) -> str | None:
    """The id by which an action's end is reported."""
    match action:
        case a.Play() | a.StopPlayback():
            return action.playback_id
        case a.Record() | a.StopRecording() | a.PauseRecording():
            return action.recording_id
        case a.Dial():
            return action.leg_id
    return None
