"""Fixtures that several kinds of tests share."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["tests.fixtures.postgres", "tests.fixtures.installation", "tests.recording_place"]

# The same examples in every run, so that a failure is of the change at hand. To look for new ones:
# ./dev test --hypothesis-profile=explore tests/unit
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile("repeatable")
