"""Random flows for property tests, and what must hold for the record of any call."""

from __future__ import annotations

from hypothesis import strategies as st

from callrouter.core.cdr import fold
from callrouter.core.routing import RoutingTable
from tests.builders import Run, company, table

NAMES = [f"n{index}" for index in range(7)]
TARGETS = ["ana", "ben", "eve"]  # eve is no target of the company
STATUSES = ["ANSWER", "BUSY", "NOANSWER", "CANCEL", "CHANUNAVAIL", "CONGESTION", ""]
CAUSES = [0, 1, 3, 16, 17, 18, 19, 21, 34, 127, 999]
KEYS = "0123456789*#"


@st.composite
def node_texts(draw: st.DrawFn, names: list[str]) -> str:
    def to() -> str:
        return draw(st.sampled_from(names))

    def maybe(text: str) -> str:
        return text if draw(st.booleans()) else ""

    match draw(st.sampled_from(["play", "menu", "dial", "hours", "voicemail", "tag", "hangup"])):
        case "play":
            return f"{{type: play, prompt: [Hi, {{file: x}}], next: {to()}{maybe(f', on_failed: {to()}')}}}"
        case "menu":
            options = ", ".join(f"'{key}': {to()}" for key in draw(st.sets(st.sampled_from("12#"), min_size=1)))
            return (
                f"{{type: menu, prompt: P, options: {{{options}}}, on_exhausted: {to()}, "
                f"max_tries: {draw(st.integers(1, 3))}{maybe(f', on_timeout: {to()}')}{maybe(f', on_invalid: {to()}')}"
                f"{maybe(', invalid_prompt: No')}{maybe(', barge_in: no')}}}"
            )
        case "dial":
            return (
                f"{{type: dial, target: {draw(st.sampled_from(TARGETS))}, on_busy: {to()}, on_no_answer: {to()}, "
                f"on_failed: {to()}{maybe(f', on_answered: {to()}')}{maybe(', record: no')}}}"
            )
        case "hours":
            return f"{{type: hours, open: 'Mo-Fr 08:00-18:00', on_open: {to()}, on_closed: {to()}}}"
        case "voicemail":
            return f"{{type: voicemail, on_failed: {to()}{maybe(', greeting: Hi')}{maybe(f', on_done: {to()}')}}}"
        case "tag":
            return f"{{type: tag, tags: [x, y], next: {to()}}}"
    return f"{{type: hangup, cause: {draw(st.sampled_from(['normal', 'busy', 'unavailable']))}}}"


@st.composite
def flow_texts(draw: st.DrawFn) -> str:
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    nodes = [f"  {name}: {draw(node_texts(names))}" for name in names]
    return "\n".join([f"start: {draw(st.sampled_from(names))}", "nodes:", *nodes, ""])


def tables() -> st.SearchStrategy[RoutingTable]:
    """Random graphs; sometimes without a backup to go to, or none to be recorded."""
    return st.builds(
        lambda text, backup, record: table(text, backup=backup, of=company(record=record)),
        flow_texts(),
        st.sampled_from([None, "ben"]),
        st.booleans(),
    )


def check_record(result: Run) -> None:
    log = result.log
    for count in range(0, len(log), max(1, len(log) // 20)):
        fold(log[:count])
    record = result.record
    assert len({leg.id for leg in record.legs}) == len(record.legs)
    assert len({one.id for one in record.recordings}) == len(record.recordings)
    if not result.session.over:
        assert record.disposition is None
        return
    assert record.disposition is not None
    assert record.reason
    assert record.ended_at is not None
    assert all(leg.ended_at is not None and leg.result is not None for leg in record.legs)
    assert record.talk_seconds >= 0
    assert record.ring_seconds >= 0
    assert record.hold_seconds >= 0
