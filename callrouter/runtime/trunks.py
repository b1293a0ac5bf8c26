"""Trunks in force: what the database says, in Asterisk's files, and read by Asterisk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from callrouter.asterisk.ami import Ami
from callrouter.asterisk.apply import RELOADED, put_in_place
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
            for module in RELOADED:
                await self._ami.reload(module)
            self._unread = False
            log.info("trunks_applied", trunks=len(trunks))
        if applied.left_out:
            raise ConfigError("; ".join(f"trunk {name} is left out: {why}" for name, why in applied.left_out))
