"""The benchmarks measure what they say: calls through both Asterisks, checked, and nothing passes that did less."""

from __future__ import annotations

import pytest

from bench.calls import milliseconds_each, play
from bench.load import Load
from bench.sites import WrongResultError, both

pytestmark = [pytest.mark.asterisk, pytest.mark.slow, pytest.mark.timeout(240)]


async def test_calls_at_both_are_placed_checked_and_counted() -> None:
    load = Load(calls=8, per_second=4, talk_seconds=1.0)
    async with both() as (ours, theirs):
        found = await play(ours, theirs, load, 1)
        [(placed, _)] = found.ours
        assert placed.succeeded == 8
        assert len(placed.setup_seconds()) == len(placed.answer_seconds()) == 8
        assert min(placed.setup_seconds() + placed.answer_seconds()) > 0
        for costs in (found.ours, found.theirs):
            assert all(spent > 0 for spent in milliseconds_each(costs, load.calls))
        assert all(spent > 0 for spent in milliseconds_each(found.ours, load.calls, controller=True))
        assert all(spent == 0 for spent in milliseconds_each(found.theirs, load.calls, controller=True))
        assert found.events[0] >= 2
        assert found.bytes[0] > 500

        # Recordings that are not there are not counted as made.
        await theirs.place(load)
        next(theirs.recordings.glob("*-tx.wav")).unlink()
        with pytest.raises(WrongResultError, match="7 of 8 recordings of one side"):
            await theirs.check(load)
