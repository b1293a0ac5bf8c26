"""Trunks in force: what the database says, in Asterisk's files, and read by Asterisk."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from callrouter.asterisk.ami import Ami
from callrouter.asterisk.ami_events import TrunkState
from callrouter.asterisk.apply import put_in_place, reload
from callrouter.asterisk.install import find_asterisk
from callrouter.config import Settings
from callrouter.core.model import Trunk
from callrouter.errors import ConfigError

log = structlog.get_logger(__name__)


class Trunks:
    """Renders the trunks and has Asterisk read them, without dropping a call."""

    def __init__(self, settings: Settings, ami: Ami) -> None:
        self._settings = settings
        self._ami = ami
        self._unread = False
        """Files were written that Asterisk has not been told of yet."""

    async def apply(self, trunks: Sequence[Trunk]) -> None:
        """Put trunks in force.

        :raises ConfigError: a trunk cannot be used (the others are), or the configuration does not hold together
            (Asterisk keeps the one it has)
        :raises AsteriskError: there is no Asterisk to render for, or it could not be told: call again
        """
        install = await asyncio.to_thread(find_asterisk, self._settings)
        applied = await asyncio.to_thread(put_in_place, self._settings, install, trunks)
        self._unread = self._unread or applied.changed
        if self._unread:
            await reload(self._ami, trunks)
            self._unread = False
            log.info("trunks_applied", trunks=len(trunks))
        if applied.left_out:
            raise ConfigError("; ".join(f"trunk {name} is left out: {why}" for name, why in applied.left_out))


def trunks_down(states: Mapping[str, TrunkState]) -> tuple[tuple[str, str], ...]:
    """Trunks that Asterisk cannot reach, or is not registered with, each with the reason.

    :param states: by endpoint, as AMI tells them
    """
    found = []
    for endpoint, state in sorted(states.items()):
        if not endpoint.startswith("trunk-"):
            continue
        if state.contact == "Unreachable":
            found.append((endpoint.removeprefix("trunk-"), "it does not answer"))
        elif state.registration in ("Unregistered", "Rejected", "Stopped"):
            found.append((endpoint.removeprefix("trunk-"), f"its registration is {state.registration.lower()}"))
    return tuple(found)
