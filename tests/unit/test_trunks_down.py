"""Which trunks are known to be down."""

from __future__ import annotations

from callrouter.asterisk.ami_events import TrunkState
from callrouter.runtime.trunks import trunks_down


def test_what_asterisk_cannot_reach_or_is_not_registered_with_is_down() -> None:
    states = [
        TrunkState("trunk-dead", contact="Unreachable"),
        TrunkState("trunk-fine", contact="Reachable", registration="Registered"),
        TrunkState("trunk-lost", contact="Reachable", registration="Rejected"),
        TrunkState("trunk-plain", contact="NonQualified"),
        TrunkState("trunk-new"),
        TrunkState("callrouter-uri", contact="Unreachable"),
    ]
    assert trunks_down({state.name: state for state in states}) == (
        ("dead", "it does not answer"),
        ("lost", "its registration is rejected"),
    )
