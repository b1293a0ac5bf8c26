from __future__ import annotations

import pytest

from callrouter.core.disposition import LegResult, cause_text, leg_result
from callrouter.core.flow.nodes import HANGUP_CAUSES


@pytest.mark.parametrize(
    "status,cause,result",
    [
        ("ANSWER", 16, "answered"),
        ("ANSWER", 0, "answered"),
        ("BUSY", 17, "busy"),
        ("BUSY", 21, "busy"),
        ("NOANSWER", 19, "no-answer"),
        ("NOANSWER", 0, "no-answer"),
        ("CANCEL", 16, "cancelled"),
        ("CANCEL", 127, "cancelled"),
        ("CHANUNAVAIL", 3, "failed"),
        ("CHANUNAVAIL", 19, "no-answer"),
        ("CHANUNAVAIL", 18, "no-answer"),
        ("CHANUNAVAIL", 20, "failed"),
        ("CONGESTION", 34, "failed"),
        ("CONGESTION", 17, "busy"),
        ("CONGESTION", 21, "failed"),
        ("CONGESTION", 1, "failed"),
        ("DONTCALL", 0, "failed"),
        ("TORTURE", 0, "failed"),
        ("INVALIDARGS", 0, "failed"),
        ("", 0, "failed"),
        ("", 17, "busy"),
        ("whatever", 999, "failed"),
    ],
)
def test_dialstatus_and_cause_say_how_a_destination_ended(status, cause, result):
    assert leg_result(status, cause) is LegResult(result)


def test_a_cause_is_told_in_words_and_number():
    assert cause_text(17) == "user busy (17)"
    assert cause_text(999) == "unknown cause (999)"
    assert all("unknown" not in cause_text(cause) for cause in HANGUP_CAUSES.values())
