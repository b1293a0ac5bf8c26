"""Processors that the host takes away are found in what the kernel counts, and excuse nothing else."""

from __future__ import annotations

import pytest

from tests.outages import Metronome, Watch, away, stolen

QUIET = """\
cpu  3687802 18208 520776 3248185 27473 0 44231 277388 0 0
cpu0 1843901 9104 260388 1624092 13736 0 22115 138694 0 0
cpu1 1843901 9104 260388 1624093 13737 0 22116 138694 0 0
intr 1234
ctxt 99
"""


def test_ticks_of_each_processor() -> None:
    assert stolen(QUIET) == [138694, 138694]


@pytest.mark.parametrize("stat", ["", "cpu  1 2 3\ncpu0 1 2 3\n"])
def test_a_kernel_that_does_not_count(stat: str) -> None:
    assert stolen(stat) == []
    assert away([], [], 100) == 0


@pytest.mark.parametrize("before, after, seconds", [([5, 5], [5, 5], 0), ([5, 5], [6, 26], 0.21), ([5], [5, 900], 0)])
def test_the_longest_counts(before: list[int], after: list[int], seconds: float) -> None:
    assert away(before, after, 100) == seconds


def test_only_what_was_disturbed_is_run_again() -> None:
    watch = Watch()
    watch.began = {"first": 10.0, "second": 20.0}
    watch.outages = [(12.0, 0.2), (14.0, 0.1)]
    watch.failed("first", 15.0)
    assert watch.disturbed == {"first": [0.2, 0.1]}
    assert watch.all_disturbed
    watch.failed("second", 25.0)
    assert watch.undisturbed == {"second"}
    assert not watch.all_disturbed


def test_nothing_failed_is_nothing_to_run_again() -> None:
    assert not Watch().all_disturbed


def test_what_a_metronome_missed_counts_where_it_falls_into_a_span() -> None:
    metronome = Metronome()
    metronome.late = [(10.0, 0.5), (20.0, 2.0), (30.0, 0.1)]
    assert metronome.between(19.0, 25.0) == 2.0
    assert metronome.between(15.0, 17.5) == 0.0
    assert metronome.between(19.5, 19.6) == 2.0, "it was away all the time"
    assert metronome.between(0.0, 40.0) == pytest.approx(2.6)
