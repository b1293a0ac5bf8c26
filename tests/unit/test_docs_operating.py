"""The operator's page names what the program really says."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from callrouter.config import Settings
from tests.unit.test_docs import CODE_SPAN, first_cells, read, section, status_keys

PACKAGE = Path(__file__).resolve().parents[2] / "callrouter"
PAGE = read("guides/operating.md")
FAILURES = section(PAGE, "What failures look like")
CODE = "\n".join(path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py")))
OTHERS = {"on_failed", "cost_micros"}
"""Exits of nodes and fields of records, which have pages of their own."""


def logged(level: str = r"\w+") -> set[str]:
    """Names of log events in the source."""
    return set(re.findall(rf'\blog\.{level}\(\s*"(\w+)"', CODE))


def names(text: str) -> set[str]:
    """Words in code style that are names of ours: ``like_this``, or ``like.this``."""
    return {span for span in CODE_SPAN.findall(text) if re.fullmatch(r"[a-z]+([_.][a-z]+)+", span)}


def test_every_name_in_the_table_of_failures_exists() -> None:
    settings = {field.name for field in msgspec.structs.fields(Settings)}
    files = {"routing.snapshot"}
    known = logged() | settings | status_keys() | files | OTHERS
    assert names(FAILURES) - known == set()
    assert len(names(FAILURES) & logged()) > 20, "the page quotes the log"


def test_every_log_name_in_the_table_of_failures_is_explained() -> None:
    assert (names(FAILURES) & logged()) - first_cells(section(PAGE, "Logs")) == set()


def test_every_error_that_is_logged_is_explained() -> None:
    assert logged("(?:error|exception)") - first_cells(section(PAGE, "Logs")) == set()


@pytest.mark.parametrize("name", ["disk", "clock"])
def test_a_check_of_the_doctor_that_is_named_exists(name: str) -> None:
    assert f"`doctor`: {name}" in FAILURES
    assert re.search(rf'\b(ok|warn|fail)\(\s*"{name}"', CODE)


@pytest.mark.parametrize(
    "failure",
    [
        *("server crashes", "server hangs", "Asterisk dies", "Asterisk hangs", "locked, full or read-only", "damaged"),
        *("its directory is missing", "disk of home full", "not registered", "the clock jumps", "power loss"),
        *("network between server and Asterisk", "certificate ended", "a cap tripped", "restored from a backup"),
    ],
)
def test_a_failure_has_its_row_with_three_cells(failure: str) -> None:
    [row] = [line for line in FAILURES.splitlines() if failure in line and line.startswith("| **")]
    assert row.count(" | ") == 2, row


def test_the_check_sees_a_name_that_does_not_exist() -> None:
    assert names("`no_such_event` and `ari.nothing`") == {"no_such_event", "ari.nothing"}
    assert "no_such_event" not in logged()
