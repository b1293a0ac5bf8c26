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
from callrouter.core.routing import RoutingTable
from callrouter.core.session import step
from callrouter.core.state import Calling, HandedOver, Leaving, Over, Session
from callrouter.runtime.clock import CallClock
from callrouter.runtime.executor import Executor, Outcome
from callrouter.runtime.outbound import Outbound

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
    ) -> None:
        self.id = call_id
        self.channel = channel
        self.session = session or Session(call_id)
        self._table = table
        self._journal = journal
        self._executor = executor
        self._on_over = on_over
        self._outbound = outbound or Outbound()
        self._leg = ""
        """The leg over a trunk that is counted for this call: at most one."""
        self._adopt_leg()
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
            self._end_leg(time.time())
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
        self._journal.append(self.id, event)
        result = step(self.session, event, self._table)
        self.session = result.session
        self._follow_leg(event.at)
        needed = not isinstance(self.session.wait, Calling | HandedOver | Leaving | Over)
        if needed:
            self.unneeded.clear()
        for decided in result.notes:
            self._journal.append(self.id, decided)
        for action in result.actions:
            await self._perform(action)
        if not needed:  # only now has the dialplan got the caller
            self.unneeded.set()

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
        entry = self.session.entry
        if isinstance(action, a.Dial) and action.trunk is not None and entry is not None:
            refusal = self._outbound.ask(entry.company, action, time.time())
            if refusal is not None:
                self.put(e.DialRefused(time.time(), action.leg_id, refusal.cap, refusal.reason))
                return
            self._leg = action.leg_id
        outcome = await self._executor.perform(self.channel, entry.company.id if entry else "", action)
        self._follow_up(action, outcome)

    def _adopt_leg(self) -> None:
        """A call of before a restart has its leg counted again."""
        wait, entry = self.session.wait, self.session.entry
        if isinstance(wait, Calling) and wait.trunk is not None and entry is not None:
            self._outbound.adopt(entry.company.id, wait.leg_id, wait.dialled_at, wait.rate)
            self._leg = wait.leg_id
            if wait.answered_at is not None:
                self._outbound.answered(self._leg, wait.answered_at)

    def _follow_leg(self, at: float) -> None:
        wait = self.session.wait
        if not self._leg:
            return
        if not isinstance(wait, Calling) or wait.leg_id != self._leg:
            self._end_leg(at)
        elif wait.answered_at is not None:
            self._outbound.answered(self._leg, wait.answered_at)

    def _end_leg(self, at: float) -> None:
        if self._leg:
            self._outbound.ended(self._leg, at)
            self._leg = ""

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


def _reference(action: a.Action) -> str | None:
    """The id by which an action's end is reported."""
    match action:
        case a.Play() | a.StopPlayback():
            return action.playback_id
        case a.Record() | a.StopRecording():
            return action.recording_id
        case a.Dial():
            return action.leg_id
    return None
