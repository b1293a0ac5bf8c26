"""The journal on disk: what is appended is there, in order, whatever the disk does meanwhile."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.disposition import Disposition
from callrouter.errors import ConflictError
from callrouter.store.codec import TYPES, Unknown, decode, decode_line, encode_line
from callrouter.store.journal import Journal, Position, read
from tests.waiting import wait_until


def arrived(call: str, at: float = 1.5) -> e.CallArrived:
    return e.CallArrived(at, call, f"chan-{call}", "+12025550100", "+12025550101", "Zoë", "t1")


def over(journal: Journal, call: str) -> None:
    journal.append(call, e.CallerHungUp(9.0))
    journal.append(call, note.Concluded(9.0, Disposition.ABANDONED, "hung up"))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Journal]]:
    journals: list[Journal] = []

    def open_journal(**options: object) -> Journal:
        journals.append(Journal(tmp_path / "journal", **options))  # type: ignore[arg-type]
        return journals[-1]

    yield open_journal
    for journal in journals:
        journal.close()


def lines(directory: Path) -> list[tuple[str, int, str]]:
    return [(line.call, line.seq, line.type) for line, _ in read(directory, Position()) if line]


def test_the_codec_knows_every_event_and_note() -> None:
    assert set(TYPES.values()) == {*get_args(e.Event), *get_args(note.Note)}


@settings(deadline=None)
@given(st.data())
def test_every_event_and_note_survives_the_codec(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(TYPES.values(), key=lambda each: each.__name__)))
    item = data.draw(st.from_type(kind))
    line = decode_line(encode_line("c", 1, item))
    assert line is not None
    back = line.value
    shown = repr(item)
    # JSON has no infinity, UTF-8 no half surrogate pairs, PostgreSQL no NUL: kept as well as it can be.
    exact = shown.isascii() and not any(odd in shown for odd in ("\\x00", "\\ud", "inf", "nan"))
    assert back == item if exact else type(back).__name__ in (type(item).__name__, "Unknown")


def test_what_is_not_known_becomes_a_placeholder() -> None:
    assert decode("FromTheFuture", {"at": 1.0, "x": 2}, 1.0) == Unknown(1.0, "FromTheFuture", {"at": 1.0, "x": 2})
    assert isinstance(decode("Digit", {"at": "noon"}), Unknown)


def test_text_that_is_no_unicode_or_holds_nul_is_written_all_the_same() -> None:
    odd = e.CallArrived(1.0, "c", "ch", "\ud800x", "a\x00b", None, None)
    line = decode_line(encode_line("c", 1, odd))
    assert line is not None
    assert (line.value.did, line.value.caller) == ("?x", "a\ufffdb")  # type: ignore[union-attr]


def test_entries_are_numbered_within_their_call_and_go_on_after_a_restart(
    opened: Callable[..., Journal], tmp_path: Path
) -> None:
    journal = opened()
    assert [journal.append("a", arrived("a")), journal.append("b", arrived("b"))] == [1, 1]
    assert journal.append("a", e.Digit(2.0, "1")) == 2
    journal.close()
    again = opened()
    assert again.append("a", e.Digit(3.0, "2")) == 3
    assert lines(tmp_path / "journal") == [
        ("a", 1, "CallArrived"),
        ("b", 1, "CallArrived"),
        ("a", 2, "Digit"),
        ("a", 3, "Digit"),
    ]
    assert again.id == journal.id


def test_an_appended_entry_survives_the_death_of_the_process_at_once(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from callrouter.core.events import Digit
from callrouter.store.journal import Journal
journal = Journal(Path({str(tmp_path)!r}), fsync_interval=100)
for n in range(100):
    journal.append("a", Digit(float(n), "1"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [seq for _, seq, _ in lines(tmp_path)] == list(range(1, 101))


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_torn_last_line_is_dropped_and_reported(opened: Callable[..., Journal], tmp_path: Path, cut: int) -> None:
    journal = opened()
    for call in "abc":
        journal.append(call, arrived(call))
    journal.close()
    segment = tmp_path / "journal" / "000001.jsonl"
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-cut])
    again = opened()
    last = whole.splitlines(keepends=True)[-1]
    assert again.dropped_bytes == len(last) - cut
    again.append("d", arrived("d"))
    assert [call for call, _, _ in lines(tmp_path / "journal")] == ["a", "b", "d"]


def test_a_damaged_line_in_the_middle_is_passed_over(opened: Callable[..., Journal], tmp_path: Path) -> None:
    journal = opened()
    for call in "abc":
        journal.append(call, arrived(call))
    journal.close()
    segment = tmp_path / "journal" / "000001.jsonl"
    rows = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(rows[0] + b"\0" * 50 + b"\n" + rows[2])
    again = opened()
    found = again.read_from(Position())
    assert [line.call if line else None for line, _ in found] == ["a", None, "c"]
    assert found[-1][1] == again.end


def test_segments_rotate_and_old_ones_go_when_nobody_needs_them(opened: Callable[..., Journal], tmp_path: Path) -> None:
    journal = opened(segment_bytes=500)
    journal.append("long", arrived("long"))
    for number in range(20):
        journal.append(f"c{number}", arrived(f"c{number}"))
        over(journal, f"c{number}")
    journal.sync()
    before = sorted(path.name for path in (tmp_path / "journal").glob("*.jsonl"))
    assert len(before) > 5
    assert journal.forget(journal.end) == []  # "long" began in the first one
    assert list(journal.open_logs()) == ["long"]
    over(journal, "long")
    journal.sync()
    gone = journal.forget(journal.end)
    assert len(gone) >= len(before) - 1
    assert [path.name for path in (tmp_path / "journal").glob("*.jsonl")] == [f"{journal.end.segment:06d}.jsonl"]


def test_a_call_in_progress_is_found_with_its_whole_log(opened: Callable[..., Journal]) -> None:
    journal = opened(segment_bytes=300)
    journal.append("a", arrived("a"))
    journal.append("b", arrived("b"))
    journal.append("a", e.Digit(2.0, "7"))
    over(journal, "b")
    journal.close()
    assert opened().open_logs() == {"a": [arrived("a"), e.Digit(2.0, "7")]}


def test_only_one_process_writes_a_journal(opened: Callable[..., Journal]) -> None:
    opened()
    with pytest.raises(ConflictError, match="another callrouter"):
        opened()


def test_nothing_is_handed_out_that_a_power_failure_could_take(opened: Callable[..., Journal]) -> None:
    journal = opened(fsync_interval=1000)
    journal.append("a", arrived("a"))
    assert journal.read_from(Position()) == []
    journal.sync()
    assert len(journal.read_from(Position())) == 1


class Disk:
    """A disk that takes some bytes, then nothing, until it is mended."""

    def __init__(self, room: int, code: int) -> None:
        self.room, self.code = room, code

    def write(self, fd: int, data: bytes) -> int:
        if self.room <= 0:
            raise OSError(self.code, os.strerror(self.code))
        taken = os.write(fd, data[: self.room])
        self.room -= taken
        return taken


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("room", [0, 1, 100, 400])
def test_what_a_full_disk_refuses_is_written_later_in_order(
    opened: Callable[..., Journal], tmp_path: Path, room: int, code: int
) -> None:
    disk = Disk(room, code)
    journal = opened(fsync_interval=0.01, write=disk.write)
    for number in range(10):
        assert journal.append("a", e.Digit(float(number), "5")) == number + 1
    assert journal.problem is not None
    assert os.strerror(code) in journal.problem
    disk.room = 1_000_000
    wait_until(lambda: journal.problem is None, "the disk takes all", 10, 0.01)
    assert [seq for _, seq, _ in lines(tmp_path / "journal")] == list(range(1, 11))


def test_memory_is_bounded_and_losses_are_counted(opened: Callable[..., Journal]) -> None:
    journal = opened(write=Disk(0, errno.ENOSPC).write, memory_bytes=1000)
    for number in range(100):
        journal.append("a", e.Digit(float(number), "5"))
    assert journal.lost_entries > 50
    assert f"{journal.lost_entries} entries were lost" in (journal.problem or "")


def test_a_real_limit_of_the_file_system_is_survived(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes the kernel itself refuse; raised again, everything is there."""
    program = f"""
import resource, signal, time
from pathlib import Path
from callrouter.core.events import Digit
from callrouter.store.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path({str(tmp_path)!r}), fsync_interval=0.01)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
for n in range(100):
    journal.append("a", Digit(float(n), "1"))
assert journal.problem, "the limit was not noticed"
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
until = time.monotonic() + 10
while journal.problem and time.monotonic() < until:
    time.sleep(0.01)
journal.close()
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    subprocess.run([sys.executable, "-c", program], check=True)
    assert [seq for _, seq, _ in lines(tmp_path)] == list(range(1, 101))


def test_a_directory_that_cannot_be_made_stops_no_call(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    journal = Journal(blocked / "journal", fsync_interval=0.01)
    assert journal.append("a", arrived("a")) == 1
    assert journal.problem is not None
    blocked.unlink()
    wait_until(lambda: journal.problem is None, "the disk takes all", 10, 0.01)
    journal.close()
    assert lines(blocked / "journal") == [("a", 1, "CallArrived")]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.lists(st.integers(1, 7), min_size=1, max_size=50))
def test_any_split_of_the_written_bytes_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory, takes: list[int], reads: list[int]
) -> None:
    """However few bytes each write takes, and however many entries are read at a time."""
    sizes = iter(takes)

    def write(fd: int, data: bytes) -> int:
        return os.write(fd, data[: next(sizes, len(data))])

    directory = tmp_path_factory.mktemp("journal")
    journal = Journal(directory, fsync_interval=1000, segment_bytes=400, write=write)
    for number in range(15):
        journal.append("ab"[number % 2], e.Digit(float(number), "5"))
    journal.sync()
    position, found = Position(), []
    amounts = iter(reads * 20)
    while some := journal.read_from(position, next(amounts, 1)):
        found += [(line.call, line.seq) for line, _ in some if line]
        position = some[-1][1]
    assert position == journal.end
    assert found == [("ab"[number % 2], number // 2 + 1) for number in range(15)]
    journal.close()


def test_appending_takes_microseconds(opened: Callable[..., Journal]) -> None:
    journal = opened()
    item = arrived("a")
    took = []
    for _ in range(2000):
        begin = time.perf_counter()
        journal.append("a", item)
        took.append(time.perf_counter() - begin)
    assert sorted(took)[1000] < 0.000_5
