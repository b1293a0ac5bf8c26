"""Making a backup while calls run.

The order matters. One moment of the database is held first; the journal is opened at once after, so everything that was
in it and not yet drained at that moment is in its files, and stays readable when the drain deletes them. A server that
starts on the restored pair drains from the position that the database has, and loses no entry and applies none twice.
What Asterisk wrote by itself comes later than the database: it may hold calls that the database has not, and the server
takes those in.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from callrouter.backup import contents
from callrouter.backup.archive import ArchiveWriter, Manifest, Progress
from callrouter.backup.contents import Tree
from callrouter.backup.keys import Lock
from callrouter.backup.stream import CHUNK
from callrouter.backup.work import work_directory
from callrouter.config import Settings
from callrouter.errors import ConflictError, ServiceError
from callrouter.files import sync
from callrouter.store.copies import Moment, hold
from callrouter.store.database import Database
from callrouter.store.journal import Position, segments

SUFFIX = ".backup"


def default_name(at: datetime) -> str:
    return f"callrouter-{at.astimezone(UTC).strftime('%Y%m%dT%H%M%SZ')}{SUFFIX}"


def create(
    settings: Settings,
    settings_file: Path | None,
    target: Path,
    lock: Lock,
    *,
    recordings: bool,
    progress: Progress,
) -> Manifest:
    """Write a backup. It is whole, and on disk, when it has its name.

    :param settings_file: None: there is none
    :param target: must not exist
    :param recordings: finished and unfinished recordings too
    :raises ConflictError: there is such a file, or another backup is being made
    :raises DatabaseError: the database is away, damaged …
    :raises ServiceError: a file cannot be read or written
    """
    if target.exists():
        raise ConflictError(f"{target} is there already", hint="give another name; backups are never overwritten")
    with ExitStack() as stack:
        work = stack.enter_context(work_directory(settings.home_dir))
        file = stack.enter_context(_output(target))
        journal_id = _journal_id(settings.journal_dir)
        early = _open_segments(settings.journal_dir, {}, stack)
        moment = stack.enter_context(hold(Database(settings.database), journal_id))
        held = _open_segments(settings.journal_dir, early, stack)
        _require_complete(held, moment.position, settings.journal_dir)
        ends = {number: _complete_lines(segment) for number, segment in held.items()}
        at = datetime.now(UTC).isoformat(timespec="seconds")
        writer = ArchiveWriter(file, lock, version=version("callrouter"), created_at=at)
        if settings_file is not None:
            _add_file(writer, contents.SETTINGS, settings_file, Tree("", settings_file.parent))
        _add_database(writer, moment, work, progress)
        if journal_id:
            writer.add(f"{contents.JOURNAL}id", [journal_id.encode()], pack=False)
        for number, segment in sorted(held.items()):
            name = f"{contents.JOURNAL}{Path(segment.name).name}"
            writer.add(name, _pieces(segment, ends[number]), pack=True)
        for tree in [*contents.small(settings), *(contents.sound(settings) if recordings else [])]:
            _add_files(writer, tree, progress)
        return writer.finish(
            Manifest(
                callrouter=version("callrouter"),
                created_at=at,
                database=moment.kind,
                revision=moment.revision,
                recordings=recordings,
                config_version=moment.config_version,
            )
        )


# -- the journal -------------------------------------------------------------------------------------------------------


def _journal_id(directory: Path) -> str:
    try:
        return (directory / "id").read_text("utf-8").strip()
    except FileNotFoundError:
        return ""
    except OSError as exc:
        raise ServiceError(f"{directory} cannot be read: {exc.strerror}", hint="run it as the server's user") from exc


def _open_segments(directory: Path, known: dict[int, BinaryIO], stack: ExitStack) -> dict[int, BinaryIO]:
    """Open every segment that is there; those opened before stay open, also when they were deleted meanwhile."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = dict(known)
    for number, path in segments(directory):
        if number in held:
            continue
        if len(held) > 200:  # the database was away for long
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        try:
            held[number] = stack.enter_context(path.open("rb"))
        except FileNotFoundError:
            continue  # drained and deleted in between
        except OSError as exc:
            raise ServiceError(f"{path} cannot be read: {exc.strerror}", hint="run it as the server's user") from exc
    return held


def _require_complete(held: dict[int, BinaryIO], position: Position, directory: Path) -> None:
    """Segments from the drain's position on must be there without a gap."""
    after = sorted(number for number in held if number >= position.segment)
    if after and after != list(range(position.segment or after[0], after[-1] + 1)):
        raise ServiceError(
            f"the journal in {directory} lacks a segment", hint="try again; if it stays so, look at what became of it"
        )


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """A file's first bytes."""
    try:
        file.seek(0)
        while size and (piece := file.read(min(size, CHUNK))):
            size -= len(piece)
            yield piece
    except OSError as exc:
        raise ServiceError(f"{file.name} cannot be read: {exc.strerror}", hint="look at the disk") from exc


def _complete_lines(file: BinaryIO) -> int:
    """Bytes up to the end of the last complete line: behind it somebody is writing."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - CHUNK)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


# -- files -------------------------------------------------------------------------------------------------------------


def _add_files(writer: ArchiveWriter, tree: Tree, progress: Progress) -> None:
    files = list(tree.files())
    done, total = 0, sum(size for _, _, size in files)
    for name, path, size in files:
        _add_file(writer, name, path, tree)
        done += size
        progress(tree.prefix.rstrip("/"), done, total)


def _add_file(writer: ArchiveWriter, name: str, path: Path, tree: Tree) -> None:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return  # deleted, or finished, in between
    except OSError as exc:
        raise ServiceError(f"{path} cannot be read: {exc.strerror}", hint="run it as the server's user") from exc
    with file:
        facts = os.fstat(file.fileno())
        length = _complete_lines(file) if tree.lines else facts.st_size
        mode = stat.S_IMODE(facts.st_mode)
        writer.add(name, _pieces(file, length), mtime=facts.st_mtime, mode=mode, pack=tree.pack)


def _add_database(writer: ArchiveWriter, moment: Moment, work: Path, progress: Progress) -> None:
    copy = work / "database"
    moment.copy(copy, lambda done, total: progress("database, copying", done, total))
    total = copy.stat().st_size
    with copy.open("rb") as file:

        def text() -> Iterator[bytes]:
            while piece := file.read(CHUNK):
                yield piece
                progress("database, packing", file.tell(), total)

        writer.add(contents.DATABASE[moment.kind], text(), pack=moment.kind == "sqlite")
    copy.unlink()


@contextmanager
def _output(target: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when all of it is on disk, and leaves nothing behind otherwise."""
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")  # 0600
    except OSError as exc:
        raise ServiceError(f"{target} cannot be written: {exc.strerror}", hint="give another place") from exc
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb", buffering=1 << 20) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _name(temporary, target)
        sync(target.parent)
    except FileExistsError:
        temporary.unlink(missing_ok=True)
        raise ConflictError(f"{target} is there already", hint="give another name") from None
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise ServiceError(
            f"{target} cannot be written: {exc.strerror}", hint="free some space, or give a place on another disk"
        ) from exc
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _name(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)  # unlike a rename it replaces nothing
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # A disk that knows no hard links (FAT).
        if target.exists():
            raise FileExistsError(target) from None
        temporary.replace(target)
    else:
        temporary.unlink()
