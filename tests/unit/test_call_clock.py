"""A call's own time, while the machine's clock is set."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from callrouter.runtime.clock import CallClock


@dataclass
class Machine:
    """Its two clocks."""

    steady: float = 1000.0
    offset: float = 1_700_000_000.0

    def wall(self) -> float:
        return self.steady + self.offset

    def clock(self) -> CallClock:
        return CallClock(self.wall, lambda: self.steady)


@pytest.mark.parametrize("step", [-86400.0, -3600.0, -2.0, 0.0, 0.4, 2.0, 3600.0, 86400.0])
def test_durations_stay_what_they_are(step: float) -> None:
    machine = Machine()
    clock = machine.clock()
    began = clock.at(machine.wall())
    machine.steady += 10
    machine.offset += step
    assert clock.at(machine.wall()) - began == pytest.approx(10, abs=0.5)
    machine.steady += 20
    machine.offset -= step / 2
    assert clock.at(machine.wall()) - began == pytest.approx(30, abs=0.5)


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_an_event_that_was_under_way_while_the_clock_was_set(step: float) -> None:
    machine = Machine()
    clock = machine.clock()
    began = clock.at(machine.wall())
    machine.steady += 5
    sent = machine.wall()
    machine.offset += step
    machine.steady += 0.1
    assert clock.at(sent) - began == pytest.approx(5)


def test_moments_keep_their_order() -> None:
    machine = Machine()
    clock = machine.clock()
    given = [clock.at(machine.wall() + delta) for delta in (0.0, 0.5, 0.2, -0.3, 0.6)]
    assert given == sorted(given)


def test_what_the_ledger_tells_of_the_past_is_as_it_was() -> None:
    machine = Machine()
    clock = machine.clock()
    clock.at(machine.wall())
    assert clock.at(machine.wall() - 7) == machine.wall() - 7
