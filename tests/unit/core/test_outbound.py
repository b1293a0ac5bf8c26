"""What may be dialled over trunks, and what it costs."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.disposition import LegResult
from callrouter.core.model import NumberKind
from callrouter.core.outbound import (
    Cap,
    Permit,
    Policy,
    Refusal,
    Usage,
    amount,
    called,
    cost_micros,
    day_start,
    micros_of_minor,
    minor_of_amount,
    permit,
    policy_of,
    rate_of,
)
from callrouter.core.phone import kind_of
from callrouter.errors import InputError
from tests.builders import CELL, CELL_THEN_ANA, T0, arrived, company, run, table, trunk

NUMBERS = {
    "+12025550123": NumberKind.ORDINARY,
    "+442079460018": NumberKind.ORDINARY,
    "+4915112345678": NumberKind.ORDINARY,
    "+18005550123": NumberKind.ORDINARY,
    "+18765550123": NumberKind.ORDINARY,
    "+19005550123": NumberKind.PREMIUM,
    "+449011234567": NumberKind.PREMIUM,
    "+499001234567": NumberKind.PREMIUM,
    "+33899123456": NumberKind.PREMIUM,
    "+979123456789": NumberKind.PREMIUM,
    "+4918012345": NumberKind.SHARED_COST,
    "+447012345678": NumberKind.PERSONAL,
    "+881612345678": NumberKind.SATELLITE,
    "+882161234567": NumberKind.SATELLITE,
    "+88312345678": NumberKind.SATELLITE,
    "+870772001234": NumberKind.SATELLITE,
}
FREE = Policy()
TIGHT = Policy(max_calls=2, max_per_hour=5, max_spend=1_000_000)


def cap(verdict: Permit | Refusal) -> Cap | None:
    return verdict.cap if isinstance(verdict, Refusal) else None


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_that_cost_dearly_are_known(number):
    assert kind_of(number) is NUMBERS[number]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_target_may_be_dialled_unless_it_may_cost_dearly(number):
    ordinary = NUMBERS[number] is NumberKind.ORDINARY
    assert cap(permit(called(number), True, FREE, Usage())) is (None if ordinary else Cap.NUMBER_KIND)
    assert cap(permit(called(number), True, Policy(allowed=(number[:6],)), Usage())) is None
    assert cap(permit(called(number), True, Policy(allowed=("US", "GB", "DE")), Usage())) == (
        None if ordinary else Cap.NUMBER_KIND
    ), "a country alone allows no number that costs dearly"


@pytest.mark.parametrize(
    "number,allowed,expected",
    [
        ("+442079460018", (), Cap.DESTINATION),
        ("+442079460018", ("US",), Cap.DESTINATION),
        ("+442079460018", ("GB",), None),
        ("+442079460018", ("US", "+4420"), None),
        ("+442079460018", ("+4421",), Cap.DESTINATION),
        ("+18765550123", ("US",), Cap.DESTINATION),
        ("+881612345678", ("US",), Cap.NUMBER_KIND),
        ("+881612345678", ("+8816",), None),
    ],
)
def test_what_no_target_names_needs_its_country_or_prefix(number, allowed, expected):
    assert cap(permit(called(number), False, Policy(allowed=allowed), Usage())) is expected


@pytest.mark.parametrize(
    "usage,expected",
    [
        (Usage(), None),
        (Usage(1, 4, 999_999), None),
        (Usage(2, 2, 0), Cap.CALLS),
        (Usage(0, 5, 0), Cap.PER_HOUR),
        (Usage(0, 0, 1_000_000), Cap.SPEND),
        (Usage(9, 9, 9_000_000), Cap.CALLS),
    ],
)
def test_a_cap_that_is_reached_leaves_no_room(usage, expected):
    verdict = permit(called("+12025550123"), True, TIGHT, usage)
    assert cap(verdict) is expected
    assert permit(called("+12025550123"), True, FREE, usage) == Permit()
    if isinstance(verdict, Refusal):
        assert "the company may" in verdict.reason


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 2_000_000))
def test_less_in_use_is_never_refused_where_more_is_not(calls, hour, spent):
    if permit(called("+12025550123"), True, TIGHT, Usage(calls, hour, spent)) == Permit():
        for less in (Usage(calls // 2, hour, spent), Usage(calls, hour // 2, spent), Usage(calls, hour, spent // 2)):
            assert permit(called("+12025550123"), True, TIGHT, less) == Permit()


def test_the_longest_prefix_has_the_rate():
    rates = (("+1", 10_000), ("+1212", 8_000), ("+44", 12_000))
    assert [rate_of(rates, number) for number in ("+12125550123", "+13125550123", "+442079460018", "+4930123")] == [
        8_000,
        10_000,
        12_000,
        None,
    ]


@pytest.mark.parametrize(
    "rate,seconds,cost", [(60_000, 60, 60_000), (60_000, 0.2, 1_000), (10_000, 61, 10_167), (1, 1, 1), (9, 0, 0)]
)
def test_seconds_that_began_are_paid(rate, seconds, cost):
    assert cost_micros(rate, seconds) == cost


@given(st.integers(0, 10**9), st.floats(0, 10**5), st.floats(0, 10**5))
def test_two_halves_never_cost_less_than_the_whole(rate, one, other):
    assert cost_micros(rate, one) + cost_micros(rate, other) >= cost_micros(rate, one + other) - rate // 60 - 1
    assert cost_micros(rate, one + other) >= cost_micros(rate, one)


def test_a_day_begins_at_midnight_in_the_companys_zone():
    zone = ZoneInfo("America/New_York")
    for at in (datetime(2025, 11, 2, 0, 30, tzinfo=zone), datetime(2025, 11, 2, 23, 59, tzinfo=zone)):
        assert day_start(at.timestamp(), "America/New_York") == datetime(2025, 11, 2, tzinfo=zone).timestamp()
    assert day_start(datetime(2025, 11, 3, 4, 59, tzinfo=ZoneInfo("UTC")).timestamp(), "America/New_York") == (
        datetime(2025, 11, 2, tzinfo=zone).timestamp()
    )


@pytest.mark.parametrize(
    "text,currency,minor,micros",
    [
        ("12.5", "USD", 1250, 12_500_000),
        ("7", "EUR", 700, 7_000_000),
        ("100", "JPY", 100, 100_000_000),
        ("0.125", "KWD", 125, 125_000),
    ],
)
def test_amounts_are_kept_in_minor_units(text, currency, minor, micros):
    assert minor_of_amount(text, currency) == minor
    assert micros_of_minor(minor, currency) == micros


@pytest.mark.parametrize(
    "text,currency", [("1.234", "USD"), ("1.5", "JPY"), ("-1", "USD"), ("x", "USD"), ("", "USD"), ("1,5", "EUR")]
)
def test_what_is_no_amount_is_refused(text, currency):
    with pytest.raises(InputError, match="is no amount"):
        minor_of_amount(text, currency)


@pytest.mark.parametrize("micros,shown", [(0, "0.00"), (12_500_000, "12.50"), (1_234, "0.001234"), (100, "0.0001")])
def test_amounts_are_shown_whole(micros, shown):
    assert amount(micros) == shown


# -- in a call ---------------------------------------------------------------------------------------------------------

RATED = table(CELL_THEN_ANA, targets=[CELL], trunks=[trunk("a", rates=(("+1", 60_000),), next_trunk="b"), trunk("b")])


def test_a_leg_says_what_the_limits_need():
    result = run(RATED, [arrived()])
    (dial,) = result.actions_of(a.Dial)
    assert (dial.trunk, dial.number, dial.rate) == ("a", "+12025550177", 60_000)
    free = run(table(), [arrived()]).actions_of(a.Dial)[0]
    assert (free.trunk, free.rate) == (None, None)


def test_a_refused_leg_is_not_dialled_and_the_flow_goes_on():
    result = run(RATED, [arrived(), e.DialRefused(T0 + 1, "c-l1", "calls", "2 calls over trunks at once")])
    assert result.path == ["dial", "other"]
    assert result.reasons("refused: calls") == ["cell was not dialled: 2 calls over trunks at once"]
    first, second = result.record.legs
    assert (first.trunk, first.result, first.ended_at, first.cost_micros) == (None, LegResult.FAILED, T0 + 1, None)
    assert second.result is None
    assert not [one for one in result.notes_of(note.LegPlanned) if one.trunk == "b"], "not over another trunk either"


def test_a_refusal_of_another_leg_is_stale():
    before = run(RATED, [arrived()])
    assert run(RATED, [arrived(), e.DialRefused(T0 + 1, "c-l9", "calls", "x")]).session == before.session


def test_a_leg_costs_its_minutes():
    events: list[e.Event] = [
        arrived(),
        e.LegStarted(T0 + 1, "c-l1", "peer"),
        e.LegAnswered(T0 + 10, "c-l1"),
        e.CallerHungUp(T0 + 100),
    ]
    assert run(RATED, events[:-1]).record.legs[0].cost_micros is None, "not yet"
    record = run(RATED, events).record
    assert record.legs[0].cost_micros == 90_000
    assert record.cost_micros == 90_000


def test_a_leg_without_a_rate_costs_nobody_knows_what():
    events: list[e.Event] = [arrived(), e.LegAnswered(T0 + 10, "c-l1"), e.CallerHungUp(T0 + 100)]
    assert run(table(), events).record.cost_micros is None
    unrated = table(CELL_THEN_ANA, targets=[CELL], trunks=[trunk("a")])
    assert run(unrated, events).record.legs[0].cost_micros is None


def test_the_limits_of_a_company():
    policy = policy_of(company(max_spend_per_day=1234, max_outbound_calls=3, currency="JPY"))
    assert (policy.max_calls, policy.max_per_hour, policy.max_spend) == (3, None, 1_234_000_000)
