"""Fixtures that several kinds of tests share."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

pytest_plugins = ["tests.outages", "tests.fixtures.postgres", "tests.fixtures.installation", "tests.recording_place"]

TOLD_CHARACTERS = 4000

# An installed program has its bytecode, and what tests start as processes of their own starts the quicker for it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The same examples in every run, so that a failure is of the change at hand. To look for new ones:
# ./dev test --hypothesis-profile=explore tests/unit
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile("repeatable")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What failed, once more and last: what was captured during a test can be many times as long as its failure."""
    failed = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]
    for report in failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        terminalreporter.write_sep("-", report.nodeid)
        terminalreporter.write_line((crash.message if crash else report.longreprtext)[-TOLD_CHARACTERS:])
