"""What is found when all sides say what they know of the same calls; one table, one row for each way to disagree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core.reconcile import (
    CERTAIN,
    MEANING,
    AsteriskCall,
    CarrierCall,
    Finding,
    Kind,
    LoggedCall,
    OurCall,
    OurRecording,
    Sources,
    Tolerance,
    reconcile,
)
from tests.builders import CALLER, DID, T0

NOW = T0 + 5000
UID = "1.1"


def ours(uniqueid: str = UID, **changes: Any) -> OurCall:
    values: dict[str, Any] = {
        "id": f"call-{uniqueid}", "uniqueid": uniqueid, "did": DID, "caller": CALLER, "trunk": "carrier",
        "started_at": T0, "ended_at": T0 + 40, "company_id": "company-1", "disposition": "answered",
    }  # fmt: skip
    return OurCall(**(values | changes))


def logged(uniqueid: str = UID, **changes: Any) -> LoggedCall:
    values: dict[str, Any] = {"id": f"call-{uniqueid}", "uniqueid": uniqueid, "began_at": T0, "over": True}
    return LoggedCall(**(values | changes))


def cdr(uniqueid: str = UID, **changes: Any) -> AsteriskCall:
    values: dict[str, Any] = {
        "uniqueid": uniqueid, "did": DID, "caller": CALLER, "trunk": "carrier", "start": T0, "answer": T0 + 10,
        "end": T0 + 40, "sip_call_id": f"sip-{uniqueid}",
    }  # fmt: skip
    return AsteriskCall(**(values | changes))


def listed(line: int = 2, **changes: Any) -> CarrierCall:
    values: dict[str, Any] = {"did": DID, "caller": CALLER, "start": T0 + 0.4, "seconds": 30}
    return CarrierCall(line, **(values | changes))


WHOLE = Sources(
    at=NOW, since=T0 - 100, until=NOW, ours=(ours(),), logs=(logged(),), cdrs=(cdr(),), ledger_since=T0 - 9000,
    live=frozenset(),
)  # fmt: skip
CASES: dict[str, tuple[dict[str, Any], list[Kind]]] = {
    "all the same": ({}, []),
    "events say so too": ({"events": (cdr(),)}, []),
    "asterisk alone": ({"ours": (), "logs": ()}, [Kind.MISSING]),
    "events alone, cut": ({"ours": (), "logs": (), "cdrs": (), "events": (cdr(ended=False),)}, [Kind.MISSING]),
    "that call lasts": (
        {"ours": (), "logs": (), "cdrs": (), "events": (cdr(ended=False),), "live": frozenset({UID})},
        [],
    ),
    "nobody said whether it lasts": (
        {"ours": (), "logs": (), "cdrs": (), "events": (cdr(ended=False),), "live": None},
        [],
    ),
    "its row is gone": ({"ours": ()}, [Kind.MISSING_ROW]),
    "its row is old": ({"ours": (ours(ended_at=None, disposition=None),)}, [Kind.STALE]),
    "open, and gone": (
        {"ours": (ours(ended_at=None, disposition=None),), "logs": (logged(over=False),)},
        [Kind.OPEN],
    ),
    "open, gone, and no record": (
        {"ours": (ours(ended_at=None, disposition=None),), "logs": (logged(over=False),), "cdrs": ()},
        [Kind.OPEN],
    ),
    "open, and lives": (
        {
            "ours": (ours(ended_at=None, disposition=None),),
            "logs": (logged(over=False),),
            "cdrs": (),
            "live": frozenset({UID}),
        },
        [],
    ),
    "open, and asterisk is not there to be asked": (
        {"ours": (ours(ended_at=None, disposition=None),), "logs": (logged(over=False),), "cdrs": (), "live": None},
        [],
    ),
    "still in the journal": ({"ours": (), "logs": (), "waiting": frozenset({UID})}, []),
    "ended a moment ago": ({"ours": (), "logs": (), "at": T0 + 50}, []),
    "ended half a minute ago": ({"ours": (), "logs": (), "at": T0 + 70}, [Kind.MISSING]),
    "not for asterisk": ({"cdrs": ()}, [Kind.NOT_IN_LEDGER]),
    "not for asterisk, which died": ({"cdrs": (), "ours": (ours(cut=True),)}, []),
    "older than the ledger": ({"cdrs": (), "ledger_since": T0 + 1}, []),
    "no ledger at all": ({"cdrs": (), "ledger_since": None}, []),
    "two logs": ({"logs": (logged(), logged(id="other"))}, [Kind.DOUBLE]),
    "longer for us": ({"ours": (ours(ended_at=T0 + 45),)}, [Kind.DURATION]),
    "a little longer for us": ({"ours": (ours(ended_at=T0 + 41.5),)}, []),
    "entered the application late": ({"ours": (ours(started_at=T0 + 3),)}, []),
    "nobody's": ({"ours": (ours(company_id=None),)}, [Kind.UNOWNED]),
    "nobody's, and refused": ({"ours": (ours(company_id=None, disposition="rejected"),)}, []),
    "outside of the span": ({"ours": (), "logs": (), "until": T0}, []),
    "recording without a job": (
        {"ours": (ours(recordings=(OurRecording("r", "pending", None, None),)),)},
        [Kind.RECORDING_UNFINISHED],
    ),
    "recording given up": (
        {"ours": (ours(recordings=(OurRecording("r", "pending", "dead", None),)),)},
        [Kind.RECORDING_UNFINISHED],
    ),
    "recording on its way": ({"ours": (ours(recordings=(OurRecording("r", "pending", "queued", None),)),)}, []),
    "recording there": ({"ours": (ours(recordings=(OurRecording("r", "ok", "done", True),)),)}, []),
    "recording never made": ({"ours": (ours(recordings=(OurRecording("r", "missing", "done", None),)),)}, []),
    "recording's file gone": (
        {"ours": (ours(recordings=(OurRecording("r", "ok", "done", False),)),)},
        [Kind.RECORDING_MISSING],
    ),
    "carrier has it": ({"carrier": (listed(),)}, []),
    "carrier has it by its call-id": ({"carrier": (listed(start=T0 + 99, sip_call_id="sip-1.1"),)}, []),
    "carrier has it without its caller": ({"carrier": (listed(caller=None),)}, []),
    "carrier counts from the answer": ({"carrier": (listed(start=T0 + 10),)}, []),
    "carrier has it late": ({"carrier": (listed(start=T0 + 20),)}, [Kind.CARRIER_ONLY]),
    "carrier has another caller": ({"carrier": (listed(caller="+13125550000"),)}, [Kind.OURS_ONLY, Kind.CARRIER_ONLY]),
    "carrier counts more": ({"carrier": (listed(seconds=60),)}, [Kind.CARRIER_DURATION]),
    "carrier has it twice": ({"carrier": (listed(), listed(3))}, [Kind.CARRIER_DOUBLE]),
    "carrier has it twice by call-id": (
        {"carrier": (listed(sip_call_id="sip-1.1"), listed(3, sip_call_id="sip-1.1"))},
        [Kind.CARRIER_DOUBLE],
    ),
    "carrier alone": (
        {"ours": (), "logs": (), "cdrs": (), "carrier": (listed(),)},
        [Kind.CARRIER_ONLY],
    ),
    "carrier's other trunk": (
        {"carrier": (listed(),), "carrier_trunk": "another"},
        [Kind.CARRIER_ONLY],
    ),
    "a test call is no carrier's": (
        {"ours": (ours(test=True),), "carrier": (listed(did="+12025550199"),)},
        [Kind.CARRIER_ONLY],
    ),
    "an empty list says nothing": ({"carrier": ()}, []),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_found(case: str) -> None:
    changes, kinds = CASES[case]
    found = reconcile(replace(WHOLE, **changes))
    assert [one.kind for one in found.found] == kinds
    assert len(found.unexplained) == len(kinds)
    for one in found.found:
        assert one.detail
        assert one.at is not None
        assert one.call_id or one.uniqueid or one.line


def test_every_kind_is_explained_and_tried() -> None:
    assert set(MEANING) == set(Kind)
    assert set(Kind) == {kind for _, kinds in CASES.values() for kind in kinds}
    assert Kind.CARRIER_ONLY not in CERTAIN
    assert Finding(Kind.MISSING, "x").certain


def test_calls_that_were_not_connected_are_missed_only_in_a_list_that_has_such() -> None:
    busy = cdr("2.2", answer=None, start=T0 + 60, end=T0 + 65, did="+12025550177")
    rows = (ours(), ours("2.2", started_at=T0 + 60, ended_at=T0 + 65, did="+12025550177", disposition="busy"))
    sides = replace(WHOLE, ours=rows, logs=(logged(), logged("2.2", began_at=T0 + 60)), cdrs=(cdr(), busy))
    connected = (listed(), listed(3, start=T0 + 99, did="+12025550178"))
    assert [one.kind for one in reconcile(replace(sides, carrier=connected)).found] == [Kind.CARRIER_ONLY]
    every = (listed(), listed(3, start=T0 + 99, did="+12025550178", seconds=0))
    found = reconcile(replace(sides, carrier=every)).found
    assert [one.kind for one in found] == [Kind.OURS_ONLY, Kind.CARRIER_ONLY]


def test_two_calls_of_one_caller_are_told_apart_by_their_time() -> None:
    rows = (cdr(), cdr("2.2", start=T0 + 4, answer=T0 + 5, end=T0 + 9, sip_call_id=""))
    sides = replace(WHOLE, ours=(ours(), ours("2.2", started_at=T0 + 4, ended_at=T0 + 9)), cdrs=rows)
    lines = (listed(2, start=T0 + 4.2, seconds=4), listed(3, start=T0 + 0.1))
    assert reconcile(replace(sides, carrier=lines)).found == ()


def test_the_counts_say_what_was_compared() -> None:
    rows = (ours(), ours("2.2", ended_at=None))
    sides = replace(WHOLE, ours=rows, live=frozenset({"2.2"}), carrier=(listed(),))
    counts = reconcile(sides).counts
    assert (counts["compared"], counts["same"], counts["in_progress"], counts["carrier"]) == (1, 1, 1, 1)


@settings(max_examples=150)
@given(
    ours_there=st.booleans(), ended=st.booleans(), logs=st.integers(0, 2), over=st.booleans(), ledger=st.booleans(),
    events=st.booleans(), live=st.sampled_from([None, frozenset[str](), frozenset({UID})]),
    after=st.sampled_from([0, 20, 45, 75, 5000]),
)  # fmt: skip
def test_a_call_that_lives_is_never_a_finding_and_no_call_passes_unseen(
    ours_there: bool, ended: bool, logs: int, over: bool, ledger: bool, events: bool, live: Any, after: int
) -> None:
    sides = Sources(
        at=T0 + after, since=T0 - 1, until=T0 + 1, live=live, ledger_since=T0 - 9,
        ours=(ours(ended_at=T0 + 40 if ended else None, disposition="answered" if ended else None),) * ours_there,
        logs=tuple(logged(id=f"log-{number}", over=over) for number in range(logs)),
        cdrs=(cdr(),) * ledger, events=(cdr(ended=ledger),) * events,
    )  # fmt: skip
    found = reconcile(sides, Tolerance())
    if live:
        assert found.found == ()
    if live == frozenset() and after == 5000 and (ledger or events or logs) and not (ours_there and ended):
        assert found.found, "it is neither in the database nor still on"
