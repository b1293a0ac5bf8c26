"""Did the host take the processor away? Then a test that failed meanwhile is run again, not believed.

On a virtual machine the host may stop a processor for a third of a second. What a test then sees (a call that the
failsafe took because nobody claimed it in time, speech that is missing from a recording because Asterisk drops what
comes in one burst) is true of that moment and says nothing of the change at hand. The kernel counts such time as
*steal* (proc(5), ``/proc/stat``), so it need not be guessed. No check is weaker for it: each must hold whole, in a
run of its own, and what failed first is printed in full.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

STAT = Path("/proc/stat")
NAP = 0.02
LONG_SECONDS = 0.05
"""A processor that is away for less delays no packet and no clock that a test looks at."""

EXIT_AGAIN = 75
"""Exit status when tests failed, each of them while a processor was away (EX_TEMPFAIL, sysexits.h): run them again."""


def stolen(stat: str) -> list[int]:
    """Clock ticks that were taken from each processor since the start.

    :param stat: text of ``/proc/stat``
    """
    lines = (line.split() for line in stat.splitlines() if line.startswith("cpu"))
    return [int(words[8]) for words in lines if words[0] != "cpu" and len(words) > 8]


def away(before: list[int], after: list[int], ticks_per_second: int) -> float:
    """Seconds that the processor which lost most lost between two looks, one nap apart."""
    return max((late - early for early, late in zip(before, after, strict=False)), default=0) / ticks_per_second


class Metronome:
    """How late a thread is that wants to run every 20 ms: nobody on a machine can tell times better than that."""

    def __init__(self) -> None:
        self.late: list[tuple[float, float]] = []
        """When (seconds since the epoch), and by how many seconds; only what is longer than LONG_SECONDS."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="metronome", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def between(self, begin: float, end: float) -> float:
        """Seconds that it was late by in all, within a span of time."""
        return sum(late for at, late in self.late if begin <= at and at - late <= end)

    def _beat(self) -> None:
        before = time.monotonic()
        while not self._over.wait(NAP):
            now = time.monotonic()
            if (late := now - before - NAP) > LONG_SECONDS:
                self.late.append((time.time(), late))
            before = now


class Watch:
    """Looks, a thread of its own, for processors that are taken away."""

    def __init__(self) -> None:
        self.outages: list[tuple[float, float]] = []
        """When each ended (seconds, monotonic) and how long it was (seconds)."""
        self.disturbed: dict[str, list[float]] = {}
        """Tests that failed while a processor was away: the outages, in seconds."""
        self.undisturbed: set[str] = set()
        self.began: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="outages", daemon=True)

    def start(self) -> None:
        if STAT.exists():
            self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _look(self) -> None:
        ticks = os.sysconf("SC_CLK_TCK")
        before = stolen(STAT.read_text())
        while not self._over.wait(NAP):
            after = stolen(STAT.read_text())
            seconds = away(before, after, ticks)
            if seconds >= LONG_SECONDS:
                self.outages.append((time.monotonic(), seconds))
            before = after

    def failed(self, test: str, now: float) -> None:
        """A test failed: note whether it was disturbed."""
        began = self.began.get(test, now)
        meanwhile = [seconds for ended, seconds in self.outages if ended >= began]
        if meanwhile:
            self.disturbed[test] = meanwhile
        else:
            self.undisturbed.add(test)

    @property
    def all_disturbed(self) -> bool:
        return bool(self.disturbed) and not self.undisturbed


WATCH = pytest.StashKey[Watch]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[WATCH] = Watch()
    config.stash[WATCH].start()


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[WATCH].stop()


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.config.stash[WATCH].began[item.nodeid] = time.monotonic()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.config.stash[WATCH].failed(item.nodeid, time.monotonic())
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.TESTS_FAILED and session.config.stash[WATCH].all_disturbed:
        session.exitstatus = EXIT_AGAIN


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    watch = config.stash[WATCH]
    if not watch.disturbed:
        return
    terminalreporter.write_sep("-", "failed while the host took a processor away")
    for test, outages in watch.disturbed.items():
        terminalreporter.write_line(
            f"{test}: {len(outages)} times, {max(outages) * 1000:.0f} ms at the longest, {sum(outages):.1f} s in all"
        )
