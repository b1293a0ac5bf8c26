"""Kill the server under load, for long: ``./dev run python bench/chaos/run.py --calls 20000 --kills 200``.

A real Asterisk, a simulated carrier and a worker in a directory of their own; the server is killed with -9 at random
moments and started again. Prints what was counted. Exit 0: no call was lost or doubled; 1: the summary says which.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.chaos import options
from bench.chaos.account import Account
from bench.chaos.storm import Storm
from tests.fixtures.installation import installation


async def run(calls: int, kills: int, per_second: float, seed: int) -> Account:
    """One storm, with the kills spread over it. It lasts until there were as many, or twice as many calls as asked."""
    # Standard output is for the summary.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    async with installation() as place:
        storm = Storm(place, random.Random(seed))
        await place.spawn_server()
        await storm.prepare()
        enough = partial(_enough, storm, calls, kills)
        raining = asyncio.create_task(storm.rain(2 * calls, per_second, enough))
        mean = calls / per_second / max(1, kills)
        # A start takes about two seconds.
        await storm.kill_servers(kills, raining.done, max(2.0, 2 * (mean - 2.0)))
        await raining
        return (await storm.account(60.0)).check()


def _enough(storm: Storm, calls: int, kills: int, placed: int) -> bool:
    return placed >= calls and storm.kills >= kills


def main() -> int:
    parser = options.parser(__doc__, calls=20_000, per_second=10.0)
    parser.add_argument("--kills", type=int, default=200, help="kills (default: %(default)s)")
    given = parser.parse_args()
    seed = given.seed
    print(f"seed {seed}: {given.calls} calls at {given.per_second:g}/s, {given.kills} kills", file=sys.stderr)
    began = time.monotonic()
    account = asyncio.run(run(given.calls, given.kills, given.per_second, seed))
    if account.faults:
        keep = Path(tempfile.gettempdir()) / f"chaos-{seed}.log"
        keep.write_text(account.server_log)
        print(f"the server's log is kept in {keep}", file=sys.stderr)
    if given.json:
        print(json.dumps({"seed": seed, **account.numbers, "wrong": account.faults}))
    else:
        print(f"chaos, seed {seed}, {time.monotonic() - began:.0f} s:\n{account.summary()}")
    return 1 if account.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
