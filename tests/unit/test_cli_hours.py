"""Opening hours closed early or opened late, on the command line."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import pytest

from callrouter.store import hours
from tests.unit.cli_home import Cli, acme, cli, upgraded

__all__ = ["acme", "cli", "upgraded"]

FLOW = """
start: open
nodes:
  open: {type: hours, open: 24/7, on_open: ana, on_closed: late}
  ana: {type: dial, target: ana, on_busy: late, on_no_answer: late, on_failed: late}
  late: {type: hangup}
"""


@pytest.fixture
def house(acme: Cli) -> Cli:
    (acme.home / "desk.yaml").write_text(FLOW)
    acme("flow", "add", "desk", acme.home / "desk.yaml")
    acme("number", "add", "+12025550101", "--name", "billboard", "--flow", "desk")
    return acme


def explained(cli: Cli, at: str = "now") -> tuple[list[str], str]:
    made = cli.json("route", "explain", "billboard", "--at", at)
    return made["path"], " ".join(step["why"] for step in made["trace"])


def test_a_company_closes_for_a_time(house: Cli) -> None:
    assert explained(house)[0] == ["open", "ana"]
    assert "Nothing is overridden" in house("hours", "list").stdout
    assert house.json("hours", "list") == []
    told = house("hours", "override", "acme", "closed", "--until", "Mon 08:00", "--reason", "snow").stdout
    assert re.fullmatch(r"acme is closed until \d{4}-\d\d-\d\d Mon 08:00 \(America/New_York\): takes effect .*\n", told)
    path, why = explained(house)
    assert path == ["open", "late"]
    assert "overridden for the company until" in why
    assert "Mon 08:00 (America/New_York): snow" in why
    (listed,) = house.json("hours", "list", "--company", "acme")
    assert (listed["company"], listed["flow"], listed["state"], listed["by"]) == ("acme", None, "closed", "tester")
    assert "snow" in house("hours", "list").stdout
    # It is over by itself.
    assert explained(house, "2031-01-01 12:00")[0] == ["open", "ana"]
    house("hours", "clear", "acme", "--why", "thaw")
    assert explained(house)[0] == ["open", "ana"]
    assert house.json("hours", "list") == []


def test_a_company_closes_for_so_long(house: Cli) -> None:
    began = time.time()
    house("hours", "override", "acme", "closed", "--until", "2h")
    (listed,) = house.json("hours", "list")
    assert datetime.fromisoformat(listed["until"]).timestamp() == pytest.approx(began + 7200, abs=60)


def test_a_flow_is_overridden_before_its_company(house: Cli) -> None:
    house("hours", "override", "acme", "closed", "--until", "2031-01-01")
    house("hours", "override", "acme", "open", "--until", "2031-01-01", "--flow", "desk")
    assert explained(house)[0] == ["open", "ana"]
    assert [(each["flow"], each["state"]) for each in house.json("hours", "list")] == [
        (None, "closed"),
        ("desk", "open"),
    ]
    house("hours", "clear", "acme", "--flow", "desk")
    assert explained(house)[0] == ["open", "late"]


def test_another_one_takes_its_place_and_each_is_a_version(house: Cli) -> None:
    house("hours", "override", "acme", "closed", "--until", "2031-01-01", "--reason", "snow")
    house("hours", "override", "acme", "open", "--until", "2031-01-02", "--reason", "thaw")
    (listed,) = house.json("hours", "list")
    assert (listed["state"], listed["until"][:10]) == ("open", "2031-01-02")
    house("hours", "clear", "acme", "--why", "done")
    found = house.json("routing", "history", "--limit", 3)
    assert [(each["what"], each["why"], each["who"]) for each in found] == [
        ("clear hours acme", "done", "tester"),
        ("override hours acme", "thaw", "tester"),
        ("override hours acme", "snow", "tester"),
    ]


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["override", "acme", "closed", "--until", "2020-01-01"], 2, "that time is past"),
        (["override", "acme", "closed", "--until", "tomorrow"], 2, "no moment"),
        (["override", "acme", "shut", "--until", "18:00"], 2, "not one of 'open', 'closed'"),
        (["override", "acme", "closed"], 2, "Missing option '--until'"),
        (["override", "acmee", "closed", "--until", "18:00"], 1, "there is no company 'acmee'"),
        (["override", "acme", "closed", "--until", "18:00", "--flow", "dask"], 1, "there is no flow 'dask'"),
        (["override", "acme", "closed", "--until", "18:00", "--reason", "x" * 201], 2, "at most 200"),
        (["clear", "acme"], 1, "nothing overrides the hours of acme"),
        (["clear", "acme", "--flow", "desk"], 1, "nothing overrides the hours of acme/desk"),
    ],
)
def test_what_is_refused(house: Cli, words: list[str], code: int, says: str) -> None:
    assert says in house.refusal("hours", *words, code=code)["error"]


def test_a_rollback_leaves_it_alone_and_says_so(house: Cli) -> None:
    before = house.json("routing", "history", "--limit", 1)[0]["version"]
    house("hours", "override", "acme", "closed", "--until", "2031-01-01")
    house("number", "edit", "billboard", "--backup", "ana")
    told = house("routing", "rollback", before, "--yes")
    assert "override hours acme: not part of the routing, it stays as it is" in told.output
    assert len(house.json("hours", "list")) == 1


def test_what_is_over_is_neither_listed_nor_cleared(house: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    house("hours", "override", "acme", "closed", "--until", "2031-01-01")
    monkeypatch.setattr(hours, "now", lambda: datetime(2031, 1, 1, 5, 0, tzinfo=UTC))
    assert house.json("hours", "list") == []
    house.refusal("hours", "clear", "acme", code=1)


def test_a_company_is_removed_with_its_override(acme: Cli) -> None:
    acme("company", "add", "zeta", "--timezone", "UTC")
    acme("hours", "override", "zeta", "closed", "--until", "2031-01-01")
    acme("company", "rm", "zeta", "--yes")
    assert acme.json("hours", "list") == []


def test_a_companys_language(acme: Cli) -> None:
    acme("company", "edit", "acme", "--language", "PT-br")
    assert acme.json("company", "show", "acme")["language"] == "pt-br"
    assert "language" in acme("company", "show", "acme").stdout
    refused = acme.refusal("company", "edit", "acme", "--language", "english", code=2)
    assert refused["hint"] == "like en, es, de or pt-br"
    acme("company", "edit", "acme", "--language", "")
    assert acme.json("company", "show", "acme")["language"] is None
