"""The journal on disk: an append-only log of every call's events. The call's path never waits for a database.

``append`` hands a line to the operating system (a write, a few microseconds): it survives the death of this process at
once. A thread forces it to disk every 50 ms: a power failure costs at most that much. What cannot be written (full or
read-only disk) is kept in memory, in order, and written when the disk takes it again; a call is never disturbed.

Segments are ``NNNNNN.jsonl`` files of about 16 MB. One process writes (it holds ``lock``); anybody may read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from callrouter.core.events import CallArrived, CallerHungUp, LedgerClosed
from callrouter.core.notes import Concluded
from callrouter.errors import ConflictError
from callrouter.files import replace_file, whole_lines
from callrouter.store.codec import Line, LogItem, decode_line, encode_line, items
from callrouter.store.types import new_id

SEGMENT_BYTES = 16 * 1024 * 1024
MEMORY_BYTES = 64 * 1024 * 1024
"""What is kept while the disk takes nothing; beyond it entries are lost, and counted."""
RETRY_SECONDS = 0.25
LOOK_SECONDS = 2.0
"""Between two looks at the disk: it is to be said that it is full before a call finds out."""
REMEMBERED_CALLS = 20_000
"""Calls whose last number is kept for an entry that comes late."""
ENDS = (CallerHungUp.__name__, LedgerClosed.__name__)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place between two lines of a journal."""

    segment: int = 0
    offset: int = 0


def is_over(types: set[str]) -> bool:
    """Whether a log with entries of these types is that of a finished call."""
    return Concluded.__name__ in types and not types.isdisjoint(ENDS)


class Journal:
    """The journal of one installation, open for writing.

    :param directory: made when it is missing
    :param fsync_interval: seconds between two forced writes to disk
    :param write: for tests: what ``os.write`` does
    :raises ConflictError: another process writes this journal
    """

    def __init__(
        self,
        directory: Path,
        fsync_interval: float = 0.05,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        memory_bytes: int = MEMORY_BYTES,
        write: Callable[[int, bytes], int] = os.write,
    ) -> None:
        self.directory = Path(directory)
        self.dropped_bytes = 0
        """Length of the torn last line that was found at start (the process or the machine died while writing it)."""
        self.lost_entries = 0
        """Entries that neither disk nor memory had room for."""
        self.id = ""
        """Tells this journal from one that was here before; known once the directory could be written."""
        self._segment_bytes = segment_bytes
        self._memory_bytes = memory_bytes
        self._write = write
        self._mutex = threading.Lock()
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._retry_at = 0.0
        self._problem: str | None = None
        self._sync_problem: str | None = None
        self._room_problem: str | None = None
        self._look_at = 0.0
        self._fd: int | None = None
        self._lock_fd: int | None = None
        self._segment = 0
        self._size = 0
        self._retired: list[int] = []
        self._dirty = False
        self._midline = False
        self._new_segment = False
        self._ready = False
        self._synced = Position()
        self._seqs: dict[str, int] = {}
        self._open: dict[str, tuple[int, set[str]]] = {}
        self._interval = fsync_interval
        self._wake = threading.Event()
        self._closed = False
        try:
            self._begin()
        except OSError as exc:
            self._trouble(exc)
        self._thread = threading.Thread(target=self._sync_forever, name="journal-fsync", daemon=True)
        self._thread.start()

    # -- writing ---------------------------------------------------------------------------------------------------

    def append(self, call_id: str, entry: LogItem) -> int:
        """Write one entry of a call's log. Never raises for a disk: see :attr:`problem`.

        :returns: its number within the call, from 1
        """
        name = type(entry).__name__
        with self._mutex:
            seq = self._seqs.get(call_id, 0) + 1
            self._seqs[call_id] = seq
            self._note(call_id, name)
            line = encode_line(call_id, seq, entry)
            if self._pending_bytes + len(line) > self._memory_bytes:
                self.lost_entries += 1
                return seq
            self._pending.append(line)
            self._pending_bytes += len(line)
            if self._problem is None or time.monotonic() >= self._retry_at:
                self._flush()
        return seq

    def resume(self, call_id: str, seq: int) -> None:
        """Let a call's numbers go on after ``seq`` (its log was found in the database)."""
        with self._mutex:
            self._seqs[call_id] = max(seq, self._seqs.get(call_id, 0))

    def sync(self) -> None:
        """Write and force to disk what is there, now; returns when that is done or has failed."""
        with self._mutex:
            self._flush()
        self._sync()

    def close(self) -> None:
        """Write, force to disk, let go of the directory."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        self._thread.join()
        self.sync()
        with self._mutex:
            for fd in (self._fd, self._lock_fd):
                if fd is not None:
                    os.close(fd)
            self._fd = self._lock_fd = None

    @property
    def problem(self) -> str | None:
        """Why the journal does not reach the disk at present; None: it does."""
        if self._problem is not None:
            lost = f"; {self.lost_entries} entries were lost" if self.lost_entries else ""
            return f"{self._problem} ({self.waiting} entries wait in memory{lost})"
        return self._sync_problem or self._room_problem

    @property
    def waiting(self) -> int:
        """Entries that wait in memory for the disk."""
        return len(self._pending)

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def end(self) -> Position:
        """Behind the last byte on disk."""
        return Position(self._segment, self._size)

    def read_from(self, position: Position, limit: int = 500) -> list[tuple[Line | None, Position]]:
        """Entries after ``position`` that a power failure would leave, each with the position behind it.

        A damaged line is None. What is not yet forced to disk is not given: else the database could be ahead of a
        journal that lost its last lines, and entries would be numbered twice.
        """
        until = self.synced
        if position >= until:
            return []
        return [found for found in read(self.directory, position, limit) if found[1] <= until]

    @property
    def synced(self) -> Position:
        """Behind the last byte that was forced to disk."""
        return self._synced

    def knows(self, call_id: str) -> bool:
        """Whether this journal has (or lately had) entries of a call."""
        with self._mutex:
            return call_id in self._seqs

    def open_calls(self) -> set[str]:
        """Calls in this journal that have begun and not ended."""
        with self._mutex:
            return set(self._open)

    def open_logs(self) -> dict[str, list[LogItem]]:
        """The events and notes of every call in this journal that has begun and not ended, oldest first."""
        wanted = self.open_calls()
        logs: dict[str, list[LogItem]] = {call: [] for call in sorted(wanted)}
        if wanted:
            for line, _ in read(self.directory, Position()):
                if line is not None and line.call in wanted:
                    logs[line.call] += items([line])
        return logs

    def bytes_after(self, position: Position) -> int:
        """How much the journal holds after ``position``, what waits in memory included."""
        size = self._pending_bytes
        for number, path in segments(self.directory):
            if number >= position.segment:
                with contextlib.suppress(OSError):
                    size += path.stat().st_size - (position.offset if number == position.segment else 0)
        return max(0, size)

    def forget(self, drained: Position) -> list[Path]:
        """Delete segments wholly before ``drained`` that hold nothing of a call in progress; the last one stays.

        :returns: what was deleted
        """
        with self._mutex:
            needed = min((segment for segment, _ in self._open.values()), default=self._segment)
            keep = min(needed, drained.segment, self._segment)
        gone = []
        for number, path in segments(self.directory):
            if number < keep:
                with contextlib.suppress(OSError):
                    path.unlink()
                    gone.append(path)
        return gone

    # -- within ----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Take the directory, mend a torn last line, learn the calls in progress and their numbers."""
        self._take()
        for number, path in segments(self.directory):
            self._segment = number
            self._size = self._learn(number, path)
        self._synced = self.end
        self._ready = True

    def _take(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._lock_fd is None:
            fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                raise ConflictError(
                    f"another callrouter writes the journal in {self.directory}",
                    hint="stop it first, or give another home",
                ) from None
            self._lock_fd = fd
        if not self.id:
            name = self.directory / "id"
            if not name.exists() or not name.read_text().strip():
                replace_file(name, new_id().encode())
            self.id = name.read_text().strip()

    def _learn(self, number: int, path: Path) -> int:
        size = 0
        for raw, end in whole_lines(path):
            size = end
            line = decode_line(raw)
            if line is not None:
                self._seqs[line.call] = max(line.seq, self._seqs.get(line.call, 0))
                self._note(line.call, line.type, number)
        torn = path.stat().st_size - size
        if torn:
            self.dropped_bytes += torn
            os.truncate(path, size)
        return size

    def _note(self, call_id: str, name: str, segment: int | None = None) -> None:
        if name == CallArrived.__name__ and call_id not in self._open:
            self._open[call_id] = (self._segment if segment is None else segment, set())
        elif call_id in self._open and (name in ENDS or name == Concluded.__name__):
            types = self._open[call_id][1]
            types.add(name)
            if is_over(types):
                del self._open[call_id]
                if len(self._seqs) > REMEMBERED_CALLS:
                    for old in list(self._seqs)[: REMEMBERED_CALLS // 2]:
                        if old not in self._open:
                            del self._seqs[old]

    def _flush(self) -> None:
        """Write what is pending, in order; with the mutex held."""
        try:
            if not self._ready:
                self._begin_again()
            while self._pending:
                if self._fd is None or (self._size >= self._segment_bytes and not self._midline):
                    self._rotate()
                fd = self._fd
                if fd is None:
                    return
                first = self._pending[0]
                written = self._write(fd, first)
                self._dirty = True
                self._size += written
                self._pending_bytes -= written
                self._midline = written < len(first)
                if self._midline:
                    # The disk took a part: the rest has to follow it directly.
                    self._pending[0] = first[written:]
                else:
                    self._pending.popleft()
        except OSError as exc:
            self._trouble(exc)
        else:
            self._problem = None

    def _begin_again(self) -> None:
        try:
            self._begin()
        except ConflictError as exc:
            raise OSError(errno.EBUSY, exc.message) from exc

    def _rotate(self) -> None:
        number = self._segment
        if self._fd is not None or number == 0 or self._size >= self._segment_bytes:
            number += 1
        fd = os.open(
            self.directory / f"{number:06d}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        if self._fd is not None:
            self._retired.append(self._fd)
        if number != self._segment:
            self._segment, self._size, self._new_segment = number, 0, True
        self._fd = fd

    def _trouble(self, exc: OSError) -> None:
        self._problem = f"the journal in {self.directory} cannot be written: {exc.strerror or exc}"
        self._retry_at = time.monotonic() + RETRY_SECONDS

    def _sync_forever(self) -> None:
        while not self._wake.wait(self._interval):
            with self._mutex:
                if (self._pending or not self._ready) and time.monotonic() >= self._retry_at:
                    self._flush()
            self._sync()
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + LOOK_SECONDS
                self._room_problem = _no_room(self.directory)

    def _sync(self) -> None:
        with self._mutex:
            retired, self._retired = self._retired, []
            fd = self._fd if self._dirty else None
            self._dirty = False
            new_segment, self._new_segment = self._new_segment, False
            end = self.end
        # Outside of the mutex: no append waits for the disk.
        try:
            for old in retired:
                os.fsync(old)
            if fd is not None:
                os.fsync(fd)
            if new_segment:
                _sync_directory(self.directory)
            self._sync_problem = None
        except OSError as exc:
            self._sync_problem = f"the journal in {self.directory} cannot be forced to disk: {exc.strerror}"
        finally:
            for old in retired:
                os.close(old)
            # A disk that refuses to force data out is reported; holding the drain back would only add to the loss.
            self._synced = end


def _no_room(directory: Path) -> str | None:
    """Why nothing more could be written there, as far as the file system says; None: it could."""
    try:
        room = os.statvfs(directory)
    except OSError as exc:
        return f"the journal in {directory} cannot be looked at: {exc.strerror}"
    if room.f_flag & os.ST_RDONLY:
        return f"the journal in {directory} cannot be written: {os.strerror(errno.EROFS)}"
    # Network shares may tell no sizes at all.
    if room.f_blocks and not room.f_bavail:
        return f"the journal in {directory} cannot grow: {os.strerror(errno.ENOSPC)}"
    return None


def _sync_directory(directory: Path) -> None:
    """A new file survives a power failure only with its directory."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def segments(directory: Path) -> list[tuple[int, Path]]:
    """A journal's segments, oldest first."""
    try:
        names = [path for path in Path(directory).iterdir() if path.suffix == ".jsonl" and path.stem.isdigit()]
    except OSError:
        return []
    return sorted((int(path.stem), path) for path in names)


def read(directory: Path, position: Position, limit: int | None = None) -> Iterator[tuple[Line | None, Position]]:
    """Complete lines after ``position``, each with the position behind it. A damaged one is None."""
    count = 0
    for number, path in segments(directory):
        if number < position.segment:
            continue
        offset = position.offset if number == position.segment else 0
        for raw, end in whole_lines(path, offset):
            yield decode_line(raw), Position(number, end)
            count += 1
            if limit is not None and count >= limit:
                return
