"""How callrouter compares with a dialplan alone: ``./dev bench [NAME …] [--quick]``.

Product and peer take turns in one run, so that a ratio holds on a noisy machine, too. Each round is checked: all calls
went through, each has its record with its campaign, and a recording of both sides. Figures are printed and kept in
bench/results. Exit 0: measured; 1: something was missing, and nothing was measured; 2: no such benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from bench import calls, pure
from bench.figures import Figure, progress, save, table
from bench.sites import WrongResultError
from callrouter.errors import CallrouterError

Benchmark = Callable[[bool], Coroutine[Any, Any, list[Figure]]]
BENCHMARKS: dict[str, Benchmark] = {
    "cpu": calls.cpu,
    "setup": calls.setup,
    "routing": pure.routing,
    "cdr": pure.cdr,
}


def main(argv: list[str] | None = None) -> int:
    lines = "\n".join(f"  {name:<8} {(each.__doc__ or '').splitlines()[0]}" for name, each in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description=__doc__,
        epilog=f"benchmarks:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="*", help="which (default: all)")
    parser.add_argument("--quick", action="store_true", help="few calls and rounds: does it work, not how fast")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args(argv)
    if unknown := [name for name in given.name if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    found: dict[str, list[Figure]] = {}
    for name in given.name or BENCHMARKS:
        progress(f"{name}:")
        try:
            found[name] = asyncio.run(BENCHMARKS[name](given.quick))
        except (WrongResultError, CallrouterError, AssertionError) as exc:
            print(f"{name}: {exc}", file=sys.stderr)
            return 1
        if not given.quick:
            progress(f"  kept in {save(name, found[name])}")
    if given.json:
        print(json.dumps({name: [each.as_dict() for each in figures] for name, figures in found.items()}))
    else:
        print("\n\n".join(f"{name}\n{table(figures)}" for name, figures in found.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
