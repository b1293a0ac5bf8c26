"""Medians, ratios and bars of the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import figures
from bench.figures import Figure, percentile, save, spread, table


def test_a_ratio_is_taken_round_by_round() -> None:
    figure = Figure("cpu", "ms", (2.0, 6.0, 3.0), (1.0, 2.0, 4.0), limit=2.0)
    assert figure.ratios == (2.0, 3.0, 0.75)
    assert figure.told == 2.0
    assert figure.met is True


@pytest.mark.parametrize(
    "figure, met",
    [
        (Figure("most, below", "", (3.0,), limit=4.0), True),
        (Figure("most, above", "", (5.0,), limit=4.0), False),
        (Figure("least, above", "", (5.0,), limit=4.0, at_least=True), True),
        (Figure("least, below", "", (3.0,), limit=4.0, at_least=True), False),
        (Figure("ratio, above", "", (3.0,), (2.0,), limit=1.15), False),
        (Figure("of another kind", "", (1.0,), base=(10.0,), limit=0.2), True),
        (Figure("no bar", "", (3.0,)), None),
    ],
    ids=lambda value: value.name if isinstance(value, Figure) else str(value),
)
def test_bars(figure: Figure, met: bool | None) -> None:
    assert figure.met is met


def test_rounds_that_do_not_match_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        _ = Figure("cpu", "ms", (1.0, 2.0), (1.0,)).ratios


@pytest.mark.parametrize(
    "share, expected", [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0)], ids=["p50", "p99", "most", "least"]
)
def test_percentiles_by_nearest_rank(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], share) == expected


def test_the_spread_is_told_with_the_median() -> None:
    assert spread((3.0, 1.0, 2.0)) == "2 (1–3)"
    assert spread((1234.5,)) == "1,234"
    assert spread(()) == "–"


def test_a_table_says_what_was_missed() -> None:
    lines = table(
        [Figure("cpu", "ms", (3.0,), (2.0,), limit=1.15), Figure("events", "", (5.0,), limit=8.0)]
    ).splitlines()
    assert lines[1].split() == ["cpu", "ms", "3", "2", "1.5", "≤", "1.15:", "missed"]
    assert lines[2].split() == ["events", "5", "–", "–", "≤", "8:", "met"]


def test_results_are_kept_with_machine_and_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    kept = json.loads(save("cpu", [Figure("cpu", "ms", (3.0,), (2.0,), limit=1.15)], calls=10).read_text())
    assert (kept["benchmark"], kept["calls"]) == ("cpu", 10)
    assert kept["figures"][0]["ratios"] == [1.5]
    assert {"processors", "model", "python", "callrouter"} <= kept["machine"].keys()
