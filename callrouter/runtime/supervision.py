"""Looking after what events alone cannot guarantee: channels without an owner, calls without a channel."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from callrouter.asterisk.ami import Ami
from callrouter.asterisk.ami_events import Headers
from callrouter.asterisk.ari import AriClient
from callrouter.asterisk.ari_events import Channel
from callrouter.asterisk.ledger import LedgerRow, file_identity, read_ledger
from callrouter.core.state import Calling, HandedOver, Leaving
from callrouter.runtime.call import Call
from callrouter.runtime.dispatcher import Dispatcher
from callrouter.runtime.recovery import (
    ARRIVING_SECONDS,
    CLAIM_SECONDS,
    dial_result,
    ended_rows,
    in_application,
    last_leg,
    reached,
)
from callrouter.runtime.unwatched import closing_events

log = structlog.get_logger(__name__)

KEEP_ROWS = 20_000
ORPHAN_SECONDS = 30.0
"""A leg that has been alone for so long has no caller any more."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the ledger. ``file`` tells a rotated file from the one under the same name now."""

    file: str = ""
    offset: int = 0


class LedgerTail:
    """Asterisk's own CDR file, followed as it grows; the latest rows by unique id."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: OrderedDict[str, LedgerRow] = OrderedDict()
        self._place = Place()
        self._unread: list[tuple[LedgerRow, Place]] = []

    def seek(self, place: Place) -> None:
        """Go on from where an earlier run stopped; what was read before and not taken is read again."""
        self._place = place
        self._unread = []

    def poll(self) -> None:
        """Read what was written since. Another file under the name was rotated in: begin anew."""
        try:
            facts = self.path.stat()
            file = file_identity(facts)
            if file != self._place.file:
                self._finish_rotated()
            if file != self._place.file or facts.st_size < self._place.offset:
                self._place = Place(file)
            self._read(self.path)
        except OSError:
            return
        while len(self.rows) > KEEP_ROWS:
            self.rows.popitem(last=False)

    def _read(self, path: Path) -> None:
        for row, offset in read_ledger(path, self._place.offset):
            self._place = Place(self._place.file, offset)
            self.rows[row.uniqueid] = row
            self._unread.append((row, self._place))

    def _finish_rotated(self) -> None:
        """Read the rest of the file that had the name before, where it still lies beside it."""
        for path in self.path.parent.glob(f"{self.path.name}?*"):
            if file_identity(path.stat()) == self._place.file:
                self._read(path)

    def take(self) -> list[tuple[LedgerRow, Place]]:
        """Rows that were not taken before, each with the place behind it."""
        self.poll()
        taken, self._unread = self._unread, []
        return taken


async def resync(
    ari: AriClient,
    dispatcher: Dispatcher,
    rows: Mapping[str, LedgerRow],
    app: str,
    missed: set[str] | None = None,
    refresh: Callable[[], object] | None = None,
) -> None:
    """Compare our calls with Asterisk's channels, and mend what a lost event left behind.

    :param rows: Asterisk's own records of calls that have ended
    :param missed: while events come: calls that the last round found without a channel. Their end may just be on its
        way, so it is taken as lost only when this round finds them so again. None: events were lost for sure
    :param refresh: reads on in ``rows``
    :raises AriError: Asterisk does not answer
    """
    before = dispatcher.channels
    channels = {channel.id: channel for channel in await ari.channels()}
    if missed is None and refresh is not None:
        await ended_rows(set(before) - channels.keys(), rows, refresh)
    now = time.time()
    suspects = set[str]()
    lost: list[tuple[Call, Channel]] = []
    returned: list[tuple[Call, Channel, Calling]] = []
    for channel_id in before:
        call = dispatcher.get(channel_id)
        if call is None:
            continue
        channel = channels.get(channel_id)
        if channel is None and missed is not None and channel_id not in missed | rows.keys():
            suspects.add(channel_id)
        elif channel is None:
            log.warning("call_end_missed", call=call.id)
            for event in closing_events(rows.get(channel_id), call.session, now):
                call.tell(event)
        elif isinstance(call.session.wait, Leaving | HandedOver) and in_application(channel, app):
            # It was asked to go and is still here: the request was lost.
            if isinstance(call.session.wait, HandedOver):
                await dispatcher.give_back(channel_id, call.session.ending)
            else:
                await dispatcher.hang_up(channel_id)
        elif isinstance(call.session.wait, Calling):
            if not in_application(channel, app):
                lost.append((call, channel))
            elif dial_result(channel, {}, call.session.wait, now):
                returned.append((call, channel, call.session.wait))
        elif isinstance(call.session.wait, HandedOver):
            lost.append((call, channel))
    for call, channel, wait in returned:
        if (noted := await last_leg(ari, channel.id)) is not None:
            for event in dial_result(channel, noted, wait, now):
                call.tell(event)
    if missed is None and lost:
        # Who answered meanwhile was told to nobody.
        bridged = {member for bridge in await ari.bridges() for member in bridge.channels}
        for call, channel in lost:
            if (noted := await last_leg(ari, channel.id)) is not None:
                for event in reached(noted, call.session, channel.id in bridged, now):
                    call.tell(event)
    if missed is not None:
        missed.clear()
        missed |= suspects
    # Who came in before the event socket was there was told to nobody: they need not wait any longer.
    young = CLAIM_SECONDS if missed is not None else ARRIVING_SECONDS
    for channel in channels.values():
        alone = not dispatcher.owns(channel.id) and channel.id not in before and not dispatcher.claimed(channel.id)
        if alone and in_application(channel, app) and now - channel.creationtime > young:
            await dispatcher.give_back(channel.id, "its arrival was missed")


class Supervisor:
    """Finds legs that nobody owns and ends them.

    A leg is an orphan when no other channel belongs to its call, it is in no bridge, and it has been so for
    ``ORPHAN_SECONDS``.
    """

    def __init__(self, ami: Ami, dispatcher: Dispatcher) -> None:
        self._ami = ami
        self._dispatcher = dispatcher
        self._suspects: dict[str, float] = {}
        self.ended = 0

    async def look(self, now: float) -> list[str]:
        """One round.

        :param now: seconds on any steady clock
        :returns: unique ids of the channels that were ended
        :raises AmiError: Asterisk does not answer
        """
        channels = await self._ami.channels()
        alone = {channel["Uniqueid"]: channel for channel in channels if self._is_alone(channel, channels)}
        self._suspects = {key: self._suspects.get(key, now) for key in alone}
        ended = []
        for unique_id, since in list(self._suspects.items()):
            if now - since >= ORPHAN_SECONDS:
                log.warning("orphan_ended", channel=alone[unique_id].get("Channel", ""), uniqueid=unique_id)
                await self._ami.hangup(alone[unique_id].get("Channel", ""), 31)
                ended.append(unique_id)
                del self._suspects[unique_id]
        self.ended += len(ended)
        return ended

    def _is_alone(self, channel: Headers, channels: list[Headers]) -> bool:
        if self._dispatcher.owns(channel["Uniqueid"]) or channel.get("BridgeId"):
            return False
        if channel.get("Application") not in ("AppDial", "AppDial2", ""):
            return False  # it runs dialplan of its own, which ends it
        return not any(
            other.get("Linkedid") == channel.get("Linkedid") and other["Uniqueid"] != channel["Uniqueid"]
            for other in channels
        )
