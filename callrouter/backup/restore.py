"""Putting a backup back. All of it is unpacked beside its place, checked, and brought up to date there; only then is it
moved in, by renaming. Until then nothing of the installation has changed; what was there before is kept aside."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from callrouter.backup import contents
from callrouter.backup.archive import ArchiveReader, Manifest, Progress, open_archive
from callrouter.backup.contents import Tree
from callrouter.backup.keys import Lock
from callrouter.backup.work import work_directory
from callrouter.config import Settings, load_settings
from callrouter.errors import ArchiveError, ConfigError, ConflictError, ServiceError
from callrouter.files import sync
from callrouter.store import migrate, postgres_tools, sqlite_copy
from callrouter.store.copies import count_tables
from callrouter.store.database import Database
from callrouter.store.journal import segments


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did."""

    settings: Settings
    manifest: Manifest
    revision: str
    """The database's schema now."""
    aside: tuple[str, ...]
    """Where what was there before is kept: directories, and a PostgreSQL schema."""
    kept: tuple[Path, ...]
    """Recordings and logs that were there, are not as in the backup, and stayed as they are."""


@dataclass(frozen=True, slots=True)
class _Slot:
    """A member that was unpacked."""

    staged: Path
    final: Path
    tree: Tree


def restore(archive: Path, lock: Lock, home: Path, *, config: Path | None, force: bool, progress: Progress) -> Restored:
    """Restore a backup into ``home`` and the other places that its settings name.

    :param config: settings file to be used instead of the backup's
    :param force: set aside what is there
    :raises ArchiveError: damaged, cut off, newer; nothing was changed
    :raises ConflictError: something is there, or a server runs on it; nothing was changed
    :raises DatabaseError: the database refuses it; nothing was changed
    :raises ServiceError: disk full …; nothing was changed
    """
    with ExitStack() as stack:
        reader = ArchiveReader(stack.enter_context(open_archive(archive)), lock)
        manifest = reader.manifest
        if not migrate.knows(manifest.revision):
            raise ArchiveError(
                f"it holds a database of schema {manifest.revision}, which this callrouter does not know",
                hint=f"restore it with callrouter {manifest.callrouter}, which made it, or a newer one",
            )
        stack.enter_context(_writing(home))
        work = stack.enter_context(work_directory(home))
        settings = _settings(reader, work, home, config)
        database = Database(settings.database)
        if database.sqlite != (manifest.database == "sqlite"):
            raise ConfigError(
                f"it holds a {manifest.database} database, and database_url names {database.shown}",
                hint="set CALLROUTER_DATABASE_URL, or edit database_url, to a database of that kind",
            )
        _lock_journal(settings.journal_dir, stack)
        tables = 0 if database.sqlite else asyncio.run(_tables(database))
        there = _what_is_there(settings, database, tables)
        if there and not force:
            raise ConflictError(
                f"there is something already: {', '.join(there)}",
                hint="give a --home that is empty, or --force: what is there is set aside, not deleted",
            )
        places = _Places(home, work, stack)
        slots = _unpack(reader, settings, database, places, progress)
        loaded = next(slot for slot in slots if slot.tree.prefix == contents.DATABASE_PREFIX)
        progress("checking", 0, 0)
        schema = None
        if database.path is not None:
            _bring_up_to_date(loaded.staged)
        else:
            slots.remove(loaded)
            schema = _load_postgres(database, loaded.staged, tables > 0, progress)
        with _loaded(database, schema):
            aside, kept = _put_in_place(slots, _trees(settings, database), places)
        if database.path is None:
            asyncio.run(_upgrade(database))
        return Restored(settings, manifest, migrate.head(), (*aside, *([schema] if schema else [])), tuple(kept))


@contextmanager
def _writing(home: Path) -> Iterator[None]:
    """A home that is made for this is gone again when nothing came of it."""
    made = not home.exists()
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield
    except OSError as exc:
        hint = "nothing was changed; look at the disk and its permissions"
        raise ServiceError(f"{exc.filename or home} cannot be written: {exc.strerror}", hint=hint) from exc
    finally:
        if made:
            with suppress(OSError):
                home.rmdir()


@contextmanager
def _loaded(database: Database, schema: str | None) -> Iterator[None]:
    """Whatever fails inside comes after PostgreSQL has its tables, and says so."""
    try:
        yield
    except ServiceError as exc:
        if database.sqlite:
            raise
        before = f"; what it held is in schema {schema}" if schema else ""
        hint = f"{exc.hint}, but {database.shown} is restored already{before}: mend it, and restore again with --force"
        raise ServiceError(exc.message, hint=hint) from exc


def _settings(reader: ArchiveReader, work: Path, home: Path, config: Path | None) -> Settings:
    """The settings that are going to be in force."""
    member = reader.manifest.member(contents.SETTINGS)
    if config is None and member is not None:
        config = work / "settings.toml"
        config.write_bytes(b"".join(reader.read(member)))
    return load_settings(config, home=str(home))


# -- what is there -----------------------------------------------------------------------------------------------------


def _what_is_there(settings: Settings, database: Database, tables: int) -> list[str]:
    found = [f"tables in {database.shown}"] if tables else []
    if database.path is not None and database.path.exists():
        sqlite_copy.refuse_while_open(database.path)
        found.append(str(database.path))
    found += [str(settings.journal_dir)] if segments(settings.journal_dir) else []
    with suppress(FileNotFoundError):
        found += [str(settings.secrets_dir)] if any(settings.secrets_dir.iterdir()) else []
    return found


def _lock_journal(directory: Path, stack: ExitStack) -> None:
    """
    :raises ConflictError: a server writes this journal
    """
    if not directory.is_dir():
        return
    handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise ConflictError(f"a server runs on {directory.parent}", hint="stop it first, and the worker") from exc


# -- unpacking ---------------------------------------------------------------------------------------------------------


class _Places:
    """Where to unpack, and where to set aside: on the disk of the final place, since renaming does not leave a disk."""

    def __init__(self, home: Path, work: Path, stack: ExitStack) -> None:
        self._home, self._stack = home, stack
        self._works = {home: work}
        self._aside = f"before-restore-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S%fZ')}"

    def work(self, directory: Path) -> Path:
        root = self._root(directory)
        if root not in self._works:
            self._works[root] = self._stack.enter_context(work_directory(root))
        return self._works[root]

    def aside(self, directory: Path) -> Path:
        """A directory that only its owner can look into."""
        aside = self._root(directory) / self._aside
        aside.mkdir(mode=0o700, exist_ok=True)
        return aside

    def _root(self, directory: Path) -> Path:
        there = directory
        while not there.exists():
            there = there.parent
        if there.stat().st_dev == self._home.stat().st_dev:
            return self._home
        directory.mkdir(parents=True, exist_ok=True)
        return directory


def _trees(settings: Settings, database: Database) -> list[Tree]:
    found = [*contents.moving(settings, database.path), *contents.small(settings), *contents.sound(settings)]
    if database.path is None:
        # It is unpacked only: PostgreSQL takes it from there.
        found.append(Tree(contents.DATABASE_PREFIX, settings.home_dir, ()))
    return found


def _unpack(
    reader: ArchiveReader, settings: Settings, database: Database, places: _Places, progress: Progress
) -> list[_Slot]:
    trees = _trees(settings, database)
    slots = []
    done, total = 0, reader.manifest.size
    for member in reader.manifest.members:
        tree = next((one for one in trees if member.name.startswith(one.prefix)), None)
        if tree is None:
            raise ArchiveError(
                f"it holds {member.name}, which this callrouter does not know",
                hint=f"restore it with callrouter {reader.manifest.callrouter}, which made it, or a newer one",
            )
        final = tree.directory / member.name.removeprefix(tree.prefix)
        if database.path is not None and tree.prefix == contents.DATABASE_PREFIX:
            final = database.path
        staged = places.work(tree.directory) / "unpacked" / member.name
        staged.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            for piece in reader.read(member):
                file.write(piece)
                done += len(piece)
                progress(tree.prefix.rstrip("/"), done, total)
            file.flush()
            os.fsync(file.fileno())
        os.utime(staged, (member.mtime, member.mtime))
        staged.chmod(member.mode & 0o777)
        slots.append(_Slot(staged, final, tree))
    if not any(slot.tree.prefix == contents.DATABASE_PREFIX for slot in slots):
        raise ArchiveError("it holds no database")
    return slots


# -- the database ------------------------------------------------------------------------------------------------------


def _bring_up_to_date(path: Path) -> None:
    """
    :raises DatabaseError: it is damaged, or cannot be brought up to date
    """
    asyncio.run(_upgrade(Database(f"sqlite+aiosqlite:///{path}")))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        sqlite_copy.require_sound(connection, "in the backup")
        sqlite_copy.single_file(connection)
    sync(path)


async def _upgrade(database: Database) -> None:
    try:
        await database.upgrade(keep=False)
    finally:
        await database.dispose()


async def _tables(database: Database) -> int:
    try:
        return await count_tables(database)
    finally:
        await database.dispose()


def _load_postgres(database: Database, dump: Path, there: bool, progress: Progress) -> str | None:
    """Load the dump; the name of the schema with the tables that were there."""
    schema = f"{postgres_tools.ASIDE}{datetime.now(UTC).strftime('%Y%m%dt%H%M%Sz')}" if there else None
    tools = postgres_tools.find(database.url)
    tools.restore(dump, dump.with_suffix(".sql"), schema, lambda _done, _total: progress("loading the database", 0, 0))
    return schema


# -- moving in ---------------------------------------------------------------------------------------------------------


def _put_in_place(slots: list[_Slot], trees: list[Tree], places: _Places) -> tuple[list[str], list[Path]]:
    """Set aside what is there, move in what was unpacked.

    :returns: the directories that hold what was there; what was there and stayed
    :raises ServiceError: something cannot be moved; what was moved is back in its place
    """
    done: list[tuple[Path, Path]] = []
    asides: dict[str, None] = {}
    kept = []

    def move(source: Path, target: Path, mode: int = 0o755) -> None:
        target.parent.mkdir(parents=True, exist_ok=True, mode=mode)
        source.rename(target)
        done.append((source, target))

    # The database goes first and comes last: without it no server starts, so a half-done restore is noticed.
    is_database = [slot for slot in slots if slot.tree.prefix == contents.DATABASE_PREFIX]
    others = [slot for slot in slots if slot not in is_database]
    present = {slot.tree.prefix for slot in slots} | {contents.DATABASE_PREFIX, contents.JOURNAL}
    replaced = [tree for tree in trees if not tree.kept and tree.prefix in present]
    replaced.sort(key=lambda tree: tree.prefix != contents.DATABASE_PREFIX)
    try:
        for tree in replaced:
            for name, path, _ in tree.files():
                aside = places.aside(tree.directory)
                asides[str(aside)] = None
                move(path, aside / name, 0o700)
        for slot in [*others, *is_database]:
            if slot.tree.kept and slot.final.exists():
                if not _same(slot.staged, slot.final):
                    kept.append(slot.final)
                continue
            private = slot.tree.prefix in (contents.JOURNAL, contents.SECRETS)
            move(slot.staged, slot.final, 0o700 if private else 0o755)
        for directory in {final.parent for _, final in done}:
            sync(directory)
    except BaseException as exc:  # Ctrl-C too
        for source, target in reversed(done):
            with suppress(OSError):
                target.rename(source)
        if not isinstance(exc, OSError):
            raise
        hint = "everything is where it was"
        raise ServiceError(f"{exc.filename} cannot be moved: {exc.strerror}", hint=hint) from exc
    return list(asides), kept


def _same(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while piece := first.read(1 << 20):
            if piece != second.read(1 << 20):
                return False
    return True
