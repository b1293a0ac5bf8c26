"""Which event belongs to which call. New calls are claimed here; what belongs to no call is recognised and told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import structlog
import uuid_utils

from callrouter.asterisk import ari_events
from callrouter.asterisk.ari import AriClient
from callrouter.core import events as e
from callrouter.core.routing import RoutingTable
from callrouter.core.state import Calling, Session
from callrouter.errors import AriError
from callrouter.runtime.call import Call, Log
from callrouter.runtime.callers import Callers
from callrouter.runtime.executor import FAILSAFE_CONTEXT, FAILSAFE_REASON, Executor
from callrouter.runtime.outbound import Outbound
from callrouter.runtime.rotation import Rotation
from callrouter.runtime.translate import DIALED, INCOMING, arrival, branch_of, channel_of, translate
from callrouter.runtime.webhooks import Webhooks

log = structlog.get_logger(__name__)

HAND_OVER_SECONDS = 5.0
CLAIMED_SECONDS = 30.0
"""A claimed call that has not entered by then never will: its caller was gone."""


class Dispatcher:
    """Calls in progress, by the caller's channel.

    :param table: gives the routing in force now; None while there is none yet (calls are then left to the failsafe)
    :param store_problem: why recordings cannot be stored now, or None
    """

    def __init__(
        self,
        ari: AriClient,
        app: str,
        executor: Executor,
        journal: Log,
        table: Callable[[], RoutingTable | None],
        store_problem: Callable[[], str | None],
        default_country: str,
        outbound: Outbound | None = None,
        rotation: Rotation | None = None,
        callers: Callers | None = None,
        webhooks: Webhooks | None = None,
    ) -> None:
        self._ari = ari
        self._app = app
        self._executor = executor
        self._journal = journal
        self._table = table
        self._store_problem = store_problem
        self._country = default_country
        self._outbound = outbound or Outbound()
        self._rotation = rotation or Rotation()
        self._callers = callers or Callers()
        self._webhooks = webhooks or Webhooks()
        self._calls: dict[str, Call] = {}
        self._peers: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._claimed: set[str] = set()
        self._claiming = False
        self.draining = False
        self.total = 0
        self.trunks_down: tuple[tuple[str, str], ...] = ()
        """Trunks known to be down, each with the reason."""

    # -- what can be asked ---------------------------------------------------------------------------------------------

    @property
    def active(self) -> int:
        """Calls in progress."""
        return len(self._calls)

    @property
    def channels(self) -> frozenset[str]:
        """Ids of the callers' channels we follow."""
        return frozenset(self._calls)

    def owns(self, channel: str) -> bool:
        """Whether a channel is a caller's or a leg of a call we follow."""
        return channel in self._calls or channel in self._peers

    def claimed(self, channel: str) -> bool:
        """Whether we claimed a call that has yet to enter."""
        return channel in self._claimed

    def get(self, channel: str) -> Call | None:
        return self._calls.get(channel)

    @property
    def in_application(self) -> int:
        """Calls that need us now: in a menu, a prompt, a message. Those who talk do not."""
        return sum(not call.unneeded.is_set() for call in self._calls.values())

    async def wait_unneeded(self) -> None:
        """Until no call needs us any more."""
        for call in list(self._calls.values()):
            await call.unneeded.wait()

    # -- events --------------------------------------------------------------------------------------------------------

    def dispatch(self, event: ari_events.AriEvent) -> None:
        """Give an event to its call; never blocks."""
        match event:
            case ari_events.CallBroadcast():
                self._claiming = True
                self._spawn(self._claim(event.channel.id))
                return
            case ari_events.StasisStart(args=[kind, *_]) if kind == INCOMING and event.channel.id not in self._calls:
                self._begin(event)
                return
            case ari_events.StasisStart(args=[kind, *_]) if kind == DIALED and event.channel.id not in self._calls:
                # A call whose record we do not have: the dialplan can still look after the caller.
                self._spawn(self.give_back(event.channel.id, "no record of this call"))
                return
        channel = channel_of(event)
        call = self._calls.get(channel) if channel else None
        if call is None and channel in self._peers and isinstance(event, _FROM_PEER):
            call = self._calls.get(self._peers[channel])
        if call is None:
            return
        if isinstance(event, ari_events.Dial) and event.dialstatus == "":
            self._peers[event.peer.id] = call.channel
            if leg := branch_of(event, call.session, call.peers.values()):
                call.peers[event.peer.id] = leg
        if isinstance(event, ari_events.StasisStart) and not self._claiming:
            self._spawn(self._hold_deadman(call.channel))
        branch = call.peers.get(event.peer.id, "") if isinstance(event, ari_events.Dial) else ""
        said = translate(event, call.session, branch)
        if said is not None:
            call.put(said)

    def hold(self, channel: str, on: bool, at: float) -> None:
        """AMI saw a channel being put on hold, or taken back."""
        call = self._calls.get(self._peers.get(channel, channel))
        if call is not None:
            wait = call.session.wait
            leg_id = getattr(wait, "talking", None) or getattr(wait, "leg_id", None)
            if leg_id:
                call.put(e.LegHeld(at, leg_id, on))

    def pause(self, on: bool, at: float, channel: str = "", call_id: str = "") -> None:
        """A recording is to be paused or resumed: for keys pressed on a channel, or for a call that was named."""
        caller = self._peers.get(channel, channel)
        for call in self._calls.values():
            if call_id == call.id or (channel and call.channel == caller):
                by = e.COMMAND if call_id else "caller" if call.channel == channel else "business"
                call.put(e.PauseAsked(at, on, by))

    def store_changed(self, problem: str | None) -> None:
        """The recording store broke, or works again: every call in progress is told."""
        for call in self._calls.values():
            call.put(e.RecordingTrouble(time.time(), problem or ""))

    def trunks_changed(self, down: tuple[tuple[str, str], ...]) -> None:
        """Trunks went down or came back: every call in progress is told, for it may have to dial yet."""
        if down == self.trunks_down:
            return
        known = dict(self.trunks_down)
        for name, why in down:
            if name not in known:
                log.warning("trunk_down", trunk=name, reason=why)
        self.trunks_down = down
        for call in self._calls.values():
            call.put(e.TrunksChanged(time.time(), down))

    def adopt(
        self,
        call_id: str,
        channel: str,
        session: Session,
        table: RoutingTable,
        peers: Mapping[str, str] = MappingProxyType({}),
    ) -> Call:
        """Go on with a call that was in progress when the controller died.

        :param peers: channels of its legs, so that what is seen of them is taken for this call's
        """
        self._peers |= dict.fromkeys(peers, channel)
        call = self._follow(call_id, channel, table, session)
        if isinstance(session.wait, Calling):
            call.peers |= {peer: leg for peer, leg in peers.items() if session.wait.branch(leg) is not None}
        return call

    async def give_back(self, channel: str, why: str) -> None:
        """Let the dialplan's failsafe look after a channel."""
        log.warning("call_given_back", channel=channel, reason=why)
        try:
            await self._ari.set_variables(channel, FAILSAFE_REASON)
            await self._ari.continue_(channel, FAILSAFE_CONTEXT, "s", 1)
        except AriError as exc:
            if not exc.gone:
                log.error("give_back_failed", channel=channel, reason=exc.message)

    async def hang_up(self, channel: str) -> None:
        """End a channel whose call was decided to end."""
        try:
            await self._ari.hangup(channel, 16)
        except AriError as exc:
            if not exc.gone:
                log.error("hangup_failed", channel=channel, reason=exc.message)

    async def hand_over(self) -> None:
        """Give the calls that need us to the failsafe: the server stops."""
        for call in list(self._calls.values()):
            if not call.unneeded.is_set():
                log.warning("call_given_back", channel=call.channel, reason="the server stops")
                call.leave("the server stops")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_SECONDS):
                await self.wait_unneeded()

    async def abandon(self) -> None:
        """Stop following all calls without ending any."""
        tasks, calls = [*self._tasks], list(self._calls.values())
        for call in calls:
            call.abandon()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(call.wait() for call in calls), return_exceptions=True)

    # -- the rest ------------------------------------------------------------------------------------------------------

    async def _claim(self, channel: str) -> None:
        if self.draining or self._table() is None:
            return
        self._claimed.add(channel)
        try:
            if await self._ari.claim(channel, self._app):
                asyncio.get_running_loop().call_later(CLAIMED_SECONDS, self._claimed.discard, channel)
            else:
                self._claimed.discard(channel)
        except AriError as exc:
            self._claimed.discard(channel)
            log.warning("claim_failed", channel=channel, reason=exc.message)

    def _begin(self, event: ari_events.StasisStart) -> None:
        table = self._table()
        if table is None or self.draining:
            self._claimed.discard(event.channel.id)
            why = "the server stops" if self.draining else "the routing is not loaded yet"
            self._spawn(self.give_back(event.channel.id, why))
            return
        call_id = str(uuid_utils.uuid7())
        call = self._follow(call_id, event.channel.id, table, None)
        self.total += 1
        if event.channel.id in self._claimed:
            self._claimed.discard(event.channel.id)
        else:
            self._spawn(self._hold_deadman(event.channel.id))
        arrived = arrival(
            event, call_id, table.country_of_trunk, self._country, self._store_problem(), self.trunks_down
        )
        entry = table.entries.get(arrived.did)
        call.put(
            replace(
                arrived,
                overrides=table.overrides_of(arrived.did, arrived.at),
                history=self._callers.history(entry.company, arrived.caller, arrived.at) if entry else None,
            )
        )

    async def _hold_deadman(self, channel: str) -> None:
        """An Asterisk without StasisBroadcast sends the caller to the failsafe unless a live controller says no."""
        try:
            await self._ari.set_variables(channel, {"TIMEOUT(absolute)": "0"})
        except AriError as exc:
            if not exc.gone:
                log.warning("deadman_not_held", channel=channel, reason=exc.message)

    def _follow(self, call_id: str, channel: str, table: RoutingTable, session: Session | None) -> Call:
        counts = self._outbound, self._rotation, self._callers, self._webhooks
        call = Call(call_id, channel, table, self._journal, self._executor, self._over, session, *counts)
        self._calls[channel] = call
        return call

    def _over(self, call: Call) -> None:
        if self._calls.get(call.channel) is call:
            del self._calls[call.channel]
        for peer in [peer for peer, caller in self._peers.items() if caller == call.channel]:
            del self._peers[peer]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_FROM_PEER = (ari_events.ChannelHold, ari_events.ChannelUnhold)
