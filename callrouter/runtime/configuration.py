"""The routing in force: read from the database whenever its version moves, made ready, then swapped whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from callrouter.asterisk.failsafe import FailsafeEntry, write_failsafe
from callrouter.asterisk.render import FAILSAFE_FILE
from callrouter.config import Settings
from callrouter.core.model import Trunk
from callrouter.core.routing import Entry, RoutingTable, build_table, spoken
from callrouter.core.snapshot import ConfigSnapshot
from callrouter.errors import CallrouterError, DatabaseError
from callrouter.media.prompts import PromptLibrary
from callrouter.store.config import config_version, load_config
from callrouter.store.database import Database

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.3
"""How often the version is looked at; a change is live within a second."""
TRUNK_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ConfigurationProblem:
    """What of the configuration could not be put in force."""

    where: str
    message: str


class Configuration:
    """Keeps the routing table, the prompts and the failsafe file in step with the database.

    :param apply_trunks: renders and reloads Asterisk's trunks; called when they changed
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        library: PromptLibrary,
        apply_trunks: Callable[[tuple[Trunk, ...]], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._database = database
        self._library = library
        self._apply_trunks = apply_trunks
        self._trunks: tuple[Trunk, ...] | None = None
        """What Asterisk was last told."""
        self._wanted: tuple[Trunk, ...] = ()
        self._trunk_problem: str | None = None
        self._retry_at = 0.0
        self._load_problems: tuple[ConfigurationProblem, ...] = ()
        self.table: RoutingTable | None = None

    @property
    def problems(self) -> tuple[ConfigurationProblem, ...]:
        """What of the configuration is not in force, and why."""
        if self._trunk_problem is None:
            return self._load_problems
        return (*self._load_problems, ConfigurationProblem("trunks", self._trunk_problem))

    async def load(self) -> RoutingTable:
        """Read the configuration and put it in force.

        :raises DatabaseError: it cannot be read; what was in force stays
        """
        async with self._database.session() as session:
            snapshot = await load_config(session)
        table = build_table(snapshot)
        problems = [
            ConfigurationProblem(entry.number.e164, entry.problem) for entry in table.entries.values() if entry.problem
        ]
        problems += await self._make_ready(snapshot, table)
        self.table = table
        self._load_problems = tuple(problems)
        for problem in problems:
            log.error("configuration_problem", where=problem.where, problem=problem.message)
        log.info("configuration_loaded", version=table.version, numbers=len(table.entries))
        if snapshot.trunks != self._trunks or self._trunk_problem is not None:
            self._wanted = snapshot.trunks
            await self._tell_trunks()
        return table

    async def watch(self) -> None:
        """Load again whenever the version moves, until cancelled."""
        reported = ""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                async with self._database.session() as session:
                    version = await config_version(session)
                if self.table is None or version != self.table.version:
                    await self.load()
                elif self._trunk_problem is not None and time.monotonic() >= self._retry_at:
                    await self._tell_trunks()
                reported = ""
            except DatabaseError as exc:
                # Calls go on with the routing in force; the journal keeps what they leave.
                if exc.message != reported:
                    reported = exc.message
                    log.error("database_away", problem=exc.message, hint=exc.hint)

    async def _make_ready(self, snapshot: ConfigSnapshot, table: RoutingTable) -> list[ConfigurationProblem]:
        """Everything a call will need, before any call can ask for it."""
        self._library.uploads = {(company_id, name): sha256 for company_id, name, sha256 in snapshot.prompts}
        report = await self._library.render(set(spoken(table)))
        problems = [
            ConfigurationProblem("prompt", f"{prompt.text or prompt.file!r}: {reason}")
            for _, prompt, reason in report.failed
        ]
        try:
            path = self._settings.failsafe_dir / FAILSAFE_FILE
            await asyncio.to_thread(write_failsafe, path, failsafe_entries(table))
        except (CallrouterError, OSError) as exc:
            problems.append(ConfigurationProblem("failsafe", str(exc)))
        return problems

    async def _tell_trunks(self) -> None:
        """Put the trunks in force; what fails is tried again, for a password may be stored or Asterisk come back."""
        problem = None
        try:
            await self._apply_trunks(self._wanted)
        except (CallrouterError, OSError) as exc:
            problem = str(exc)
        if problem is not None and problem != self._trunk_problem:
            log.error("configuration_problem", where="trunks", problem=problem)
        self._trunk_problem = problem
        self._trunks = self._wanted
        self._retry_at = time.monotonic() + TRUNK_RETRY_SECONDS


def failsafe_entries(table: RoutingTable) -> list[FailsafeEntry]:
    """Whom the dialplan rings by itself, for each number that has somebody to ring."""
    return [_failsafe_entry(entry) for entry in table.entries.values() if entry.backups and entry.number.active]


def _failsafe_entry(entry: Entry) -> FailsafeEntry:
    return FailsafeEntry(
        did=entry.number.e164,
        destinations=tuple((backup.endpoint, backup.target.ring_seconds) for backup in entry.backups),
        label=entry.number.name,
        caller_id=entry.backups[0].shown_number(entry.number.e164),
        record=entry.company.record,
        number_id=entry.number.id,
        campaign_id=entry.campaign.id if entry.campaign else "",
        company_id=entry.company.id,
    )
