"""What rounds measured: medians, ratios with their spread, a table for people and a file for later."""

from __future__ import annotations

import json
import math
import os
import platform
import sqlite3
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import callrouter

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured, once a round.

    :param product: of callrouter
    :param peer: of what it is measured against, in the same rounds; empty: it has no peer
    :param limit: bar for the median ratio, or for the product's own median where there is no peer
    :param at_least: the bar is a least value, not a most
    :param base: the peer's values that the ratio is taken of, where they are of another kind than ``peer``
    """

    name: str
    unit: str
    product: tuple[float, ...]
    peer: tuple[float, ...] = ()
    limit: float | None = None
    at_least: bool = False
    base: tuple[float, ...] = ()

    @property
    def ratios(self) -> tuple[float, ...]:
        """Product over peer, round by round."""
        against = self.base or self.peer
        return tuple(ours / theirs for ours, theirs in zip(self.product, against, strict=bool(against)) if theirs)

    @property
    def told(self) -> float:
        """What the bar is held against."""
        return statistics.median(self.ratios or self.product)

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None: there is none."""
        if self.limit is None:
            return None
        return self.told >= self.limit if self.at_least else self.told <= self.limit

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "product": list(self.product),
            "peer": list(self.peer or self.base),
            "ratios": list(self.ratios),
            "median": self.told,
            "limit": self.limit,
            "at_least": self.at_least,
            "met": self.met,
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of all values do not exceed; nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(round(share * len(ordered), 6)) - 1)]


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """Median, and the least and the most."""
    if not values:
        return "–"
    if len(values) == 1:
        return number(values[0])
    return f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))})"


def bar(figure: Figure) -> str:
    if figure.limit is None:
        return ""
    sign = "≥" if figure.at_least else "≤"
    return f"{sign} {number(figure.limit)}: {'met' if figure.met else 'missed'}"


def table(figures: Sequence[Figure]) -> str:
    """Figures as a table, medians first, the least and the most round in brackets."""
    rows = [("what", "unit", "callrouter", "peer", "ratio", "bar")]
    rows += [
        (
            each.name,
            each.unit,
            spread(each.product),
            spread(each.peer or each.base),
            spread(each.ratios),
            bar(each),
        )
        for each in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def machine() -> dict[str, Any]:
    """What it was measured on, without its name."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "processors": len(os.sched_getaffinity(0)),
        "model": model,
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "callrouter": callrouter.__version__,
    }


def save(name: str, figures: Sequence[Figure], **said: Any) -> Path:
    """Keep a benchmark's figures in ``bench/results``.

    :param said: more that belongs to the result: versions, calls, rounds
    """
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = RESULTS / f"{name}-{now:%Y%m%d-%H%M%S}.json"
    found = {
        "benchmark": name,
        "at": now.isoformat(timespec="seconds"),
        "machine": machine(),
        **said,
        "figures": [each.as_dict() for each in figures],
    }
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return path


def progress(text: str) -> None:
    """A line for who waits; standard output is for the result."""
    print(text, file=sys.stderr, flush=True)
