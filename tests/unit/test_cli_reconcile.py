"""``callrouter reconcile`` on the command line: what it prints, refuses, and exits with."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from callrouter.config import load_settings
from tests.contract.runtime.support import ledger_line, write_ledger
from tests.unit.cli_home import Cli, acme, cli, upgraded

__all__ = ["acme", "cli", "upgraded"]

ENDED = time.time() - 600
HEAD = "Start Time,From,To,Duration\n"


def ledger(cli: Cli, *lines: str) -> None:
    write_ledger(load_settings(environ={}, home=str(cli.home)).ledger_path, lines)


@pytest.fixture
def carrier(tmp_path: Path) -> Path:
    at = datetime.fromtimestamp(ENDED - 40, UTC).strftime("%Y-%m-%d %H:%M:%S")
    path = tmp_path / "list.csv"
    path.write_text(f"{HEAD}{at},13125550199,2025550123,30\n")
    return path


def test_nothing_to_compare_is_nothing_to_explain(cli: Cli) -> None:
    shown = cli("reconcile")
    assert "0 calls compared" in shown.stdout
    assert "Nothing to explain." in shown.stdout
    assert "Asterisk does not answer" in shown.stderr


def test_before_the_first_time_there_is_no_last(cli: Cli) -> None:
    assert "callrouter reconcile does it now" in cli("reconcile", "--last", code=1).stdout
    assert cli.json("reconcile", "--last", code=1) is None


def test_what_is_found_is_shown_and_mended_and_shown_again(acme: Cli) -> None:
    acme("number", "add", "+12025550123", "--name", "billboard", "--target", "ana", "--campaign", "spring-radio")
    ledger(acme, ledger_line("1.1", end=ENDED))
    dry = acme("reconcile", "--dry-run", code=1)
    assert "0 mended, 1 unexplained." in dry.stdout
    assert acme.json("call", "list") == []
    shown = acme("reconcile")
    assert "1 mended, 0 unexplained." in shown.stdout
    assert "missing (1): Asterisk has a record of the call, and the database has none" in shown.stdout
    [call] = acme.json("call", "list")
    assert (call["handled_by"], call["disposition"], call["campaign"]) == ("failsafe", "answered", "spring-radio")
    last = acme.json("reconcile", "--last")
    assert [(one["kind"], one["uniqueid"], one["repaired"]) for one in last["findings"]] == [("missing", "1.1", True)]
    again = acme.json("reconcile")
    assert (again["findings"], again["counts"]["same"]) == ([], 1)


def test_the_carriers_list_is_compared(acme: Cli, carrier: Path) -> None:
    acme("number", "add", "+12025550123", "--name", "billboard", "--target", "ana")
    ledger(acme, ledger_line("1.1", end=ENDED))
    acme("reconcile")
    assert acme.json("reconcile", "--carrier", carrier)["findings"] == []
    carrier.write_text(carrier.read_text().replace(",30\n", ",1:30\n"))
    shown = acme("reconcile", "--carrier", carrier, code=1).stdout
    assert "carrier-duration" in shown
    assert "90 s for the carrier, 30.0 s for Asterisk" in shown


def test_lines_outside_of_the_span_are_left_out(cli: Cli, carrier: Path) -> None:
    assert cli.json("reconcile", "--carrier", carrier, code=1)["counts"]["carrier"] == 1
    assert cli.json("reconcile", "--carrier", carrier, "--since", "5m")["counts"]["carrier"] == 0


@pytest.mark.parametrize(
    "args, message",
    [
        (("--trunk", "carrier"), "--trunk is about the carrier's list"),
        (("--time-format", "%H"), "--time-format is about the carrier's list"),
        (("--since", "yesterday"), "'yesterday' is no time"),
        (("--since", "1h", "--until", "2h"), "--since is not before --until"),
        (("--carrier", "LIST", "--columns", "did"), "'did' is no FIELD=NAME"),
        (("--carrier", "LIST", "--columns", "did=Nr"), "no column for did"),
        (("--carrier", "LIST", "--zone", "Mars/Olympus"), "is no time zone"),
    ],
)
def test_what_cannot_be_meant_is_refused(cli: Cli, carrier: Path, args: tuple[str, ...], message: str) -> None:
    given = [carrier if arg == "LIST" else arg for arg in args]
    assert message in cli.refusal("reconcile", *given, code=2)["error"]


def test_a_line_that_cannot_be_read_stops_it_all(cli: Cli, carrier: Path) -> None:
    carrier.write_text(HEAD + "soon,1,2,3\n")
    refused = cli.refusal("reconcile", "--carrier", carrier, code=2)
    assert "line 2: 'soon' is no time" in refused["error"]
    assert "--time-format" in refused["hint"]
    assert cli.json("reconcile", "--last", code=1) is None


def test_a_list_in_latin_1_is_read(cli: Cli, carrier: Path) -> None:
    carrier.write_bytes(carrier.read_bytes().replace(b"Duration", b"Duration,L\xe4nge"))
    assert cli.json("reconcile", "--carrier", carrier, code=1)["counts"]["carrier"] == 1
