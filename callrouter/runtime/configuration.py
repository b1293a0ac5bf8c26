"""The routing in force: read from the database whenever its version moves, made ready, then swapped whole.

What was in force last is kept in a file, so that a start needs no database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from callrouter.asterisk.failsafe import (
    FailsafeBlock,
    FailsafeDestination,
    FailsafeEntry,
    FailsafeWindow,
    write_failsafe,
)
from callrouter.asterisk.render import FAILSAFE_FILE
from callrouter.config import Settings
from callrouter.core.blocks import ANONYMOUS, REJECTED
from callrouter.core.failsafe_plan import failsafe_windows
from callrouter.core.flow.link import gaps
from callrouter.core.flow.nodes import HANGUP_CAUSES
from callrouter.core.model import Trunk
from callrouter.core.recording_policy import consent_needed, said_alone
from callrouter.core.routing import Entry, RoutingTable, build_table, spoken
from callrouter.core.snapshot import ConfigSnapshot
from callrouter.errors import CallrouterError, ConfigError, DatabaseError, SchemaError
from callrouter.media.prompts import PromptLibrary
from callrouter.store.config import config_version, list_trunks, load_config
from callrouter.store.database import Database
from callrouter.store.snapshot_file import SNAPSHOT_FILE, KeptConfig, keep_config, kept_config

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.3
"""How often the version is looked at; a change is live within a second."""
AWAY_SECONDS = 1.0
"""How often a database that is away is asked."""
PATIENCE_SECONDS = 3.0
"""A database that says nothing for so long counts as away; the question stays asked."""
RETRY_SECONDS = 5.0
FAILSAFE_SECONDS = 6 * 3600.0
"""How often the failsafe file is written anew: the opening hours in it reach some days ahead."""


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
        self._unkept: ConfigSnapshot | None = None
        """What could not be written to the snapshot file."""
        self._keep_problem: str | None = None
        self._keep_at = 0.0
        self._failsafe_at = 0.0
        self._question: asyncio.Task[ConfigSnapshot | None] | None = None
        self._fits = False
        """Whether the database's schema was looked at since it was last away."""
        self.table: RoutingTable | None = None
        self.last_run: ConfigSnapshot | None = None
        """What was in force when the last run ended, as far as was kept."""
        self.kept_at: float | None = None
        """When the routing in force was read from the database, where it now comes from the snapshot file; seconds
        since the epoch. None: it comes from the database."""
        self.away: DatabaseError | None = None
        """Why the database cannot be asked now."""
        self.met = asyncio.Event()
        """Set once the database has answered, and its schema is ours."""

    @property
    def problems(self) -> tuple[ConfigurationProblem, ...]:
        """What of the configuration is not in force, and why."""
        more = (("trunks", self._trunk_problem), ("snapshot", self._keep_problem))
        return (*self._load_problems, *(ConfigurationProblem(where, what) for where, what in more if what is not None))

    async def start(self) -> None:
        """Put a configuration in force: the database's; while that is away, the one that was kept.

        :raises SchemaError: the database is not of the version this program needs
        :raises DatabaseError: it is away, and no configuration was kept
        """
        try:
            kept = await asyncio.to_thread(kept_routing, self._settings, self._database)
            self.last_run = kept.config if kept is not None else None
            try:
                snapshot = await self._ask()
            except SchemaError:
                raise
            except DatabaseError as exc:
                self._note_away(exc)
                if kept is None or not await self._load_kept(kept):
                    raise
            else:
                if snapshot is not None:
                    await self._use(snapshot)
        except BaseException:
            await self._drop_question()
            raise

    async def load(self) -> RoutingTable:
        """Read the configuration from the database and put it in force.

        :raises DatabaseError: it cannot be read; what was in force stays
        """
        return await self._use(await self._read())

    async def _load_kept(self, kept: KeptConfig) -> bool:
        """Put the configuration in force that was kept; whether it could be."""
        try:
            await self._use(kept.config, kept.saved_at)
        except Exception as exc:  # noqa: BLE001 - whatever the file holds, the start must not end in a traceback
            log.error("snapshot_refused", problem=f"the routing snapshot makes no routing: {exc!r}")
            return False
        log.warning("routing_from_snapshot", version=kept.config.version, saved_at=kept.saved_at)
        return True

    async def _use(self, snapshot: ConfigSnapshot, kept_at: float | None = None) -> RoutingTable:
        """Put a configuration in force.

        :param kept_at: it comes from the snapshot file, and was read from the database then
        """
        table = build_table(snapshot)
        problems = [
            ConfigurationProblem(entry.number.e164, problem)
            for entry in table.entries.values()
            for problem in ([entry.problem] if entry.problem else gaps(entry.flow))
        ]
        problems += await self._make_ready(snapshot, table)
        problems += await self._write_failsafe(table)
        self.table = table
        self.kept_at = kept_at
        self._load_problems = tuple(problems)
        if kept_at is None:
            await self._keep(snapshot)
        for problem in problems:
            log.error("configuration_problem", where=problem.where, problem=problem.message)
        log.info("configuration_loaded", version=table.version, numbers=len(table.entries))
        if snapshot.trunks != self._trunks or self._trunk_problem is not None:
            self._wanted = snapshot.trunks
            await self._tell_trunks()
        return table

    async def watch(self) -> None:
        """Load again whenever the version moves, until cancelled."""
        try:
            while True:
                await asyncio.sleep(POLL_SECONDS if self.away is None else AWAY_SECONDS)
                try:
                    snapshot = await self._ask()
                    self._note_back()
                    if snapshot is not None:
                        await self._use(snapshot)
                except DatabaseError as exc:
                    # Calls go on with the routing in force; the journal keeps what they leave.
                    self._note_away(exc)
                if self._trunk_problem is not None and time.monotonic() >= self._retry_at:
                    await self._tell_trunks()
                if self._unkept is not None and time.monotonic() >= self._keep_at:
                    await self._keep(self._unkept)
                if self.table is not None and time.monotonic() >= self._failsafe_at:
                    for problem in await self._write_failsafe(self.table):
                        log.error("configuration_problem", where=problem.where, problem=problem.message)
        finally:
            await self._drop_question()

    async def _ask(self) -> ConfigSnapshot | None:
        """The database's configuration, where it is not the one in force.

        A question that is not answered in time stays asked: to take it back would have to wait for the database too.

        :raises DatabaseError: it cannot be read, or does not answer
        """
        if self._question is None:
            self._question = asyncio.create_task(self._read_if_other(), name="configuration-question")
        await asyncio.wait({self._question}, timeout=PATIENCE_SECONDS)
        if not self._question.done():
            raise DatabaseError(
                f"database {self._database.shown} has not answered for {PATIENCE_SECONDS:g} s",
                hint="look at its server, and at who holds a lock",
            )
        question, self._question = self._question, None
        return question.result()

    async def _read_if_other(self) -> ConfigSnapshot | None:
        # After a start from the file everything is read anew: a database that was restored may have the same version.
        if self._fits and self.table is not None and self.kept_at is None:
            async with self._database.session(read_only=True) as session:
                if await config_version(session) == self.table.version:
                    return None
        return await self._read()

    async def _read(self) -> ConfigSnapshot:
        if not self._fits:
            # While it was away it may have been replaced by one of another version.
            await self._database.require_current()
            self._fits = True
        async with self._database.session(read_only=True) as session:
            snapshot = await load_config(session)
        self.met.set()
        return snapshot

    async def _drop_question(self) -> None:
        if self._question is not None:
            self._question.cancel()
            await asyncio.wait({self._question}, timeout=PATIENCE_SECONDS)
            self._question = None

    def _note_away(self, exc: DatabaseError) -> None:
        if self.away is None or self.away.message != exc.message:
            log.error("database_away", problem=exc.message, hint=exc.hint)
        self.away = exc
        self._fits = False

    def _note_back(self) -> None:
        if self.away is not None:
            log.info("database_back")
        self.away = None

    async def _keep(self, snapshot: ConfigSnapshot) -> None:
        """Write the snapshot file; a full disk is tried again."""
        path = self._settings.home_dir / SNAPSHOT_FILE
        problem = None
        try:
            await asyncio.to_thread(keep_config, path, KeptConfig(self._database.shown, time.time(), snapshot))
            self._unkept = None
        except OSError as exc:
            problem = f"{path} cannot be written: {exc.strerror or exc}"
            self._unkept = snapshot
            self._keep_at = time.monotonic() + RETRY_SECONDS
            if problem != self._keep_problem:
                log.error("configuration_problem", where="snapshot", problem=problem)
        self._keep_problem = problem

    async def _make_ready(self, snapshot: ConfigSnapshot, table: RoutingTable) -> list[ConfigurationProblem]:
        """Everything a call will need, before any call can ask for it."""
        self._library.uploads = {(company_id, name): sha256 for company_id, name, sha256 in snapshot.prompts}
        report = await self._library.render(set(spoken(table)))
        return [
            ConfigurationProblem("prompt", f"{prompt.text or prompt.file!r}: {reason}")
            for _, prompt, reason in report.failed
        ]

    async def _write_failsafe(self, table: RoutingTable) -> list[ConfigurationProblem]:
        def write() -> None:
            entries = failsafe_entries(table, time.time(), self._library)
            path = self._settings.failsafe_dir / FAILSAFE_FILE
            write_failsafe(path, entries, failsafe_blocks(table, time.time()))

        self._failsafe_at = time.monotonic() + FAILSAFE_SECONDS
        try:
            await asyncio.to_thread(write)
        except (CallrouterError, OSError) as exc:
            return [ConfigurationProblem("failsafe", str(exc))]
        return []

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
        self._retry_at = time.monotonic() + RETRY_SECONDS


def kept_routing(settings: Settings, database: Database) -> KeptConfig | None:
    """What was last read from this database; None when nothing usable was kept."""
    try:
        return kept_config(settings.home_dir / SNAPSHOT_FILE, database.shown)
    except ConfigError as exc:
        log.error("snapshot_refused", problem=exc.message, hint=exc.hint)
        return None


async def trunks_in_force(settings: Settings, database: Database) -> tuple[Trunk, ...]:
    """The trunks of the database; while that is away, those that were kept: Asterisk can start without it too.

    :raises SchemaError: the database is not of the version this program needs
    :raises DatabaseError: it is away, and nothing was kept
    """

    async def ask() -> list[Trunk]:
        await database.require_current()
        async with database.session(read_only=True) as session:
            return await list_trunks(session)

    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return tuple(await ask())
    except SchemaError:
        raise
    except (DatabaseError, TimeoutError) as exc:
        kept = kept_routing(settings, database)
        problem = exc if isinstance(exc, DatabaseError) else DatabaseError(f"database {database.shown} does not answer")
        if kept is None:
            raise problem from exc
        log.warning("trunks_from_snapshot", problem=problem.message)
        return kept.config.trunks


def failsafe_entries(table: RoutingTable, now: float, library: PromptLibrary) -> list[FailsafeEntry]:
    """What the dialplan does by itself with each number that has somebody to ring.

    :param now: seconds since the epoch; from then on opening hours are worked out
    :param library: has the announcements
    """
    return [
        _failsafe_entry(entry, now, library)
        for entry in table.entries.values()
        if entry.backup_ways and entry.number.active
    ]


def failsafe_blocks(table: RoutingTable, now: float) -> list[FailsafeBlock]:
    """Whom the dialplan refuses by itself: the block lists, and withheld numbers where a company takes none.

    :param now: seconds since the epoch; what has expired is left out
    """
    companies = {entry.company.id: entry.company for entry in table.entries.values()}
    private = [
        FailsafeBlock(ident, ANONYMOUS, HANGUP_CAUSES[REJECTED])
        for ident, company in companies.items()
        if not company.accept_anonymous
    ]
    listed = [
        FailsafeBlock(block.company_id or "", block.pattern, HANGUP_CAUSES[block.cause], block.expires_at)
        for block in table.blocks.by_pattern.values()
        if block.counts(now)
    ]
    return [*private, *listed]


def _failsafe_entry(entry: Entry, now: float, library: PromptLibrary) -> FailsafeEntry:
    places = list(enumerate(entry.backup_ways, 1))
    windows = tuple(
        FailsafeWindow(
            until=window.until,
            say=tuple(
                str(path)
                for prompt in window.alone.announce
                if (path := library.path_for(prompt, entry.company.id)) is not None
            ),
            places=tuple(
                place for rung in window.alone.destinations for place, (backup, _) in places if backup is rung
            ),
            cause=window.alone.cause,
            consent=bool(window.alone.consent)
            and all(library.path_for(prompt, entry.company.id) is not None for prompt in window.alone.announce),
        )
        for window in failsafe_windows(entry, now)
    )
    plain = len(windows) == 1 and not windows[0].say and windows[0].places == tuple(place for place, _ in places)
    return FailsafeEntry(
        did=entry.number.e164,
        destinations=tuple(
            FailsafeDestination(
                endpoint=way.endpoint,
                ring_seconds=backup.target.ring_seconds,
                caller_id=way.shown_number(entry.number.e164),
                place=place,
                record=said_alone(entry, backup.target).record,
                retry=way is not backup.ways[0],
            )
            for place, (backup, way) in places
        ),
        label=entry.number.name,
        consent_needed=consent_needed(entry),
        number_id=entry.number.id,
        campaign_id=entry.campaign.id if entry.campaign else "",
        company_id=entry.company.id,
        max_calls=entry.company.max_outbound_calls,
        windows=() if plain else windows,
    )
