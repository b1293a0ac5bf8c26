"""Who is turned away again and again: told once, in a line that a firewall's filter reads, and in bounded memory."""

from __future__ import annotations

import configparser
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from callrouter.asterisk.ami_events import MANY_SECONDS, MANY_TIMES, MAX_REPORTS, MAX_WATCHED, Intruders
from callrouter.config import Settings
from callrouter.logs import configure_logging

FAIL2BAN = Path(__file__).parents[2] / "security" / "fail2ban"


def times(intruders: Intruders, host: str, moments: list[float]) -> list[int]:
    return [intruders.turned_away(host, moment) for moment in moments]


def test_an_address_is_reported_at_its_tenth_time() -> None:
    told = times(Intruders(), "192.0.2.1", [float(n) for n in range(25)])
    assert told == [0] * (MANY_TIMES - 1) + [MANY_TIMES] + [0] * 15


def test_it_is_reported_once_a_minute() -> None:
    told = times(Intruders(), "192.0.2.1", [n * 0.5 for n in range(400)])
    assert [index * 0.5 for index, count in enumerate(told) if count] == [4.5, 65.0, 125.5, 186.0]


def test_who_comes_seldom_is_not_reported() -> None:
    gap = MANY_SECONDS / (MANY_TIMES - 2)
    assert not any(times(Intruders(), "192.0.2.1", [n * gap for n in range(200)]))


def test_addresses_are_told_apart() -> None:
    intruders = Intruders()
    assert not any(intruders.turned_away(f"192.0.2.{n % 200}", n / 1000) for n in range(200 * (MANY_TIMES - 1)))
    assert intruders.turned_away("192.0.2.7", 2.0) == MANY_TIMES
    assert intruders.turned_away("2001:db8::7", 2.0) == 0


@pytest.mark.parametrize("host", ["", "others", "192.0.2.1\nforged", "localhost", "192.0.2.1/24", '1.2.3.4", "x": "'])
def test_what_is_no_address_is_never_reported(host: str) -> None:
    assert not any(times(Intruders(), host, [0.0] * 50))


def test_forged_addresses_cost_bounded_memory_and_few_reports() -> None:
    intruders = Intruders()
    told = 0
    for round_ in range(MANY_TIMES):
        for n in range(5000):
            told += bool(intruders.turned_away(f"10.{n // 250}.{n % 250}.1", float(round_)))
    for n in range(500):
        told += any(times(intruders, f"172.16.{n // 250}.{n % 250}", [20.0] * MANY_TIMES))
    assert len(intruders._watched) <= MAX_WATCHED
    assert told == MAX_REPORTS


# -- fail2ban ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    configure_logging(Settings(log_format="json"))
    yield out
    structlog.reset_defaults()


def filtered(line: str) -> str | None:
    """The address that fail2ban's filter finds in a log line, None for none."""
    parser = configparser.RawConfigParser()
    parser.read(FAIL2BAN / "filter.d" / "callrouter.conf")
    pattern = parser["Definition"]["failregex"].replace("<HOST>", r"(?P<host>[0-9A-Fa-f:.]+)")
    found = re.search(pattern, line)
    return found["host"] if found else None


@pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8::9"])
def test_the_filter_reads_the_line_that_the_server_writes(lines: io.StringIO, address: str) -> None:
    structlog.get_logger().warning("turned_away", address=address, times=10, last="InvalidAccountID")
    [line] = lines.getvalue().splitlines()
    assert json.loads(line)["level"] == "warning"
    assert filtered(line) == address


@pytest.mark.parametrize(
    "fields",
    [
        {"name": '{"address": "198.51.100.1", "times": 10, "last": "X", "event": "turned_away"'},
        {"name": '\n{"address": "198.51.100.1", "times": 10, "last": "X", "event": "turned_away", "level": "warning"}'},
        {"address": "198.51.100.1", "times": 10},
        {"address": '198.51.100.1", "times": 10, "last": "X", "event": "turned_away', "times": 3, "last": "X"},
    ],
)
def test_nobody_can_have_another_shunned(lines: io.StringIO, fields: dict[str, object]) -> None:
    structlog.get_logger().warning("call_arrived", **fields)
    assert [filtered(line) for line in lines.getvalue().splitlines()] == [None]


def test_the_jail_names_the_filter_and_spares_loopback() -> None:
    parser = configparser.RawConfigParser()
    parser.read(FAIL2BAN / "jail.d" / "callrouter.conf")
    assert parser["callrouter"]["filter"] == "callrouter"
    assert "127.0.0.0/8" in parser["callrouter"]["ignoreip"]
