"""What may be dialled over trunks and how much: the limits of a company on the command line."""

from __future__ import annotations

import json
import time

import pytest

from tests.unit.cli_home import Cli, acme, cli, upgraded

__all__ = ["acme", "cli", "upgraded"]

SATELLITE = "+881612345678"


@pytest.fixture
def company(cli: Cli) -> Cli:
    cli("company", "add", "blume", "--timezone", "Europe/Berlin", "--currency", "EUR")
    cli("trunk", "add", "main", "--host", "203.0.113.5")
    return cli


def test_a_new_company_has_limits(company: Cli) -> None:
    found = company.json("company", "show", "blume")
    assert (found["max_outbound_calls"], found["max_outbound_per_hour"], found["max_spend_per_day"]) == (50, 1000, None)
    assert found["allowed_destinations"] == []
    shown = company("company", "show", "blume").stdout
    assert "at most 50 at once, at most 1000 in an hour" in shown


def test_limits_are_changed_and_lifted(company: Cli) -> None:
    company("company", "edit", "blume", "--max-outbound-calls", 80, "--max-spend-per-day", "120.5")
    found = company.json("company", "show", "blume")
    assert (found["max_outbound_calls"], found["max_spend_per_day"]) == (80, 12050)
    assert "120.50 EUR a day" in company("company", "show", "blume").stdout
    for option in ("--max-outbound-calls", "--max-outbound-per-hour", "--max-spend-per-day"):
        company("company", "edit", "blume", option, "none")
    found = company.json("company", "show", "blume")
    assert {found[name] for name in ("max_outbound_calls", "max_outbound_per_hour", "max_spend_per_day")} == {None}


@pytest.mark.parametrize(
    "option,value",
    [
        ("--max-outbound-calls", "ten"),
        ("--max-outbound-calls", "1.5"),
        ("--max-outbound-calls", "-1"),
        ("--max-spend-per-day", "1.234"),
        ("--max-spend-per-day", "5 EUR"),
        ("--allow", "Germany"),
        ("--allow", "+0"),
        ("--allow", "4420"),
    ],
)
def test_what_is_no_limit_is_refused(company: Cli, option: str, value: str) -> None:
    before = company.json("company", "show", "blume")
    assert company.refusal("company", "edit", "blume", f"{option}={value}", code=2)["hint"]
    assert company.json("company", "show", "blume") == before


def test_destinations_are_allowed_and_forbidden(company: Cli) -> None:
    company("company", "edit", "blume", "--allow", "gb", "--allow", "+4420")
    assert company.json("company", "show", "blume")["allowed_destinations"] == ["+4420", "GB"]
    company("company", "edit", "blume", "--forbid", "GB")
    assert company.json("company", "show", "blume")["allowed_destinations"] == ["+4420"]
    assert "on it: +4420" in company.refusal("company", "edit", "blume", "--forbid", "US", code=1)["hint"]


@pytest.mark.parametrize(
    "number,kind", [(SATELLITE, "satellite"), ("+19005550123", "premium-rate"), ("+447012345678", "personal")]
)
def test_a_number_that_costs_dearly_is_no_target_unless_it_is_said(company: Cli, number: str, kind: str) -> None:
    add = ("target", "add", "boat", "--company", "blume", "--number", number, "--trunk", "main")
    refused = company.refusal(*add, code=2)
    assert kind in refused["error"]
    assert "--allow-premium" in refused["hint"]
    company(*add, "--allow-premium")
    assert company.json("company", "show", "blume")["allowed_destinations"] == [number]
    company("target", "edit", "blume/boat", "--ring-seconds", 30)


def test_a_target_is_not_changed_into_one_either(company: Cli) -> None:
    company("target", "add", "desk", "--company", "blume", "--number", "+442079460018", "--trunk", "main")
    company.refusal("target", "edit", "blume/desk", "--number", SATELLITE, code=2)
    company("target", "edit", "blume/desk", "--number", SATELLITE, "--allow-premium")
    assert company.json("target", "show", "blume/desk")["number"] == SATELLITE


def test_the_doctor_tells_of_targets_that_are_never_dialled(company: Cli) -> None:
    company("target", "add", "boat", "--company", "blume", "--number", SATELLITE, "--trunk", "main", "--allow-premium")
    assert "is never dialled" not in company("doctor", code=None).stdout
    company("company", "edit", "blume", "--forbid", SATELLITE)
    assert "target blume/boat: is never dialled" in company("doctor", code=None).stdout


def test_an_alarm_is_shown_and_counts_as_wrong(company: Cli) -> None:
    now = time.time()
    alarm = {"company": "blume", "cap": "calls", "reason": "too many", "since": now - 90, "last": now - 60, "count": 3}
    status = {"at": now, "pid": 1, "version": "0", "ari": {"state": "connected"}, "ami": {"connected": True}}
    (company.home / "status.json").write_text(json.dumps(status | {"alarms": [alarm], "outbound_calls": 4}))
    shown = company("status", code=1).stdout
    assert "outbound: blume: calls kept 3 calls from being dialled, the last 1 min 0 s ago: too many" in shown
    assert company.json("status", code=1)["alarms"] == [alarm]
    assert "blume: calls kept 3 calls from being dialled" in company("doctor", code=None).stdout
