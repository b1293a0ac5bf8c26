"""After a crash: what the failsafe did meanwhile, and what it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from callrouter.core import events as e
from callrouter.core.disposition import Disposition
from callrouter.core.state import Calling, HandedOver
from callrouter.runtime.recovery import Recovered, Recovery
from callrouter.runtime.supervision import LedgerTail
from tests.builders import CALL, DID, T0
from tests.contract.runtime.crashed import (
    CHANNEL,
    CHOOSING,
    RINGING,
    TABLE,
    TALKING,
    alive,
    died,
    recovered,
    rig,
)
from tests.contract.runtime.support import APP, Rig, ledger_line, until, write_ledger

__all__ = ["rig"]


async def test_a_dial_after_which_the_failsafe_went_on_is_told_as_the_failsafes(rig: Rig) -> None:
    """It had failed, and no controller was there to be told: the dialplan rang the backup destination."""
    died(rig.journal, RINGING)
    alive(rig.asterisk, None).variables |= {"CR_LEG": f"fs-{CHANNEL}-1", "CR_TALK_AT": str(T0 + 40)}
    rig.asterisk.bridges["b1"] = [CHANNEL, "peer"]
    assert await recovered(rig) == Recovered(adopted=1)
    await until(lambda: "LegAnswered" in rig.types(), "the answer")
    rig.asterisk.hangup(CHANNEL)
    await rig.idle()
    record = rig.record()
    assert record.disposition is Disposition.ANSWERED
    assert [(leg.id, leg.answered_at) for leg in record.legs] == [
        (f"{CALL}-l3", None),
        (f"fs-{CHANNEL}-1", T0 + 40),
    ]
    assert [one.id for one in record.recordings] == [f"fs-{CHANNEL}-1"]


async def test_a_failsafe_that_begins_under_an_adopted_call_is_followed(rig: Rig) -> None:
    died(rig.journal, RINGING)
    caller = alive(rig.asterisk, None)
    await recovered(rig)
    await rig.waits_in(CHANNEL, Calling)
    caller.leg = f"fs-{CHANNEL}-1"
    rig.asterisk.dial(CHANNEL, "other", "")
    await rig.waits_in(CHANNEL, HandedOver)
    rig.asterisk.dial(CHANNEL, "other", "ANSWER")
    await until(lambda: "LegAnswered" in rig.types(), "the answer")
    rig.asterisk.hangup(CHANNEL)
    await rig.idle()
    assert [one.id for one in rig.record().recordings] == [f"fs-{CHANNEL}-1"]


async def test_a_conversation_the_failsafe_made_meanwhile_is_in_the_record(rig: Rig, tmp_path: Path) -> None:
    died(rig.journal, CHOOSING)
    tail = LedgerTail(tmp_path / "cdr.csv")
    write_ledger(tail.path, [ledger_line(CHANNEL, end=T0 + 100)])
    tail.poll()
    assert await recovered(rig, tail) == Recovered(closed=1)
    assert rig.record().disposition is Disposition.ANSWERED


async def test_a_caller_the_failsafe_has_is_followed_and_left_alone(rig: Rig) -> None:
    died(rig.journal, CHOOSING)
    alive(rig.asterisk, None).leg = f"fs-{CHANNEL}-1"
    assert await recovered(rig) == Recovered(adopted=1)
    await rig.waits_in(CHANNEL, HandedOver)
    for status in ("", "ANSWER"):
        rig.asterisk.dial(CHANNEL, "peer", status)
    await until(lambda: "LegAnswered" in rig.types(), "the answer")
    assert {request.method for request in rig.asterisk.asked("", "channels", CHANNEL)} <= {"GET"}
    rig.asterisk.hangup(CHANNEL)
    await rig.idle()
    assert (rig.record().disposition, rig.record().answered_by) == (Disposition.ANSWERED, "ana")


@pytest.mark.parametrize("talk_at, shown", [(str(T0 + 40), T0 + 40), ("", None), ("soon", None)])
async def test_a_conversation_the_failsafe_made_before_we_looked_is_read_from_the_channel(
    rig: Rig, talk_at: str, shown: float | None
) -> None:
    died(rig.journal, CHOOSING)
    alive(rig.asterisk, None).variables |= {"CR_LEG": f"fs-{CHANNEL}-1", "CR_TALK_AT": talk_at}
    rig.asterisk.bridges["b1"] = [CHANNEL, "peer"]
    assert await recovered(rig) == Recovered(adopted=1)
    await until(lambda: "LegAnswered" in rig.types(), "the answer")
    await rig.dispatcher.abandon()
    assert await recovered(rig) == Recovered(adopted=1), "and again after a second crash"
    rig.asterisk.hangup(CHANNEL)
    await rig.idle()
    record = rig.record()
    assert (record.disposition, record.answered_by) == (Disposition.ANSWERED, "ana")
    (leg,) = {one.id: one for one in record.legs}.values()
    assert leg.id == f"fs-{CHANNEL}-1"
    assert shown is None or leg.answered_at == shown


async def test_a_hand_over_that_was_decided_but_not_done_is_done(rig: Rig) -> None:
    events: list[e.Event] = [*CHOOSING, e.Digit(T0 + 3, "1"), e.ActionFailed(T0 + 4, "Dial", "no", f"{CALL}-l3")]
    died(rig.journal, events)
    alive(rig.asterisk)
    await recovered(rig)
    await rig.requested(CHANNEL, "variables", "continue cr-failsafe")
    assert rig.dispatcher.active == 1


@pytest.mark.parametrize("events", [CHOOSING, TALKING], ids=["choosing", "talking"])
async def test_a_call_whose_flow_is_lost_is_the_failsafes_unless_they_talk(rig: Rig, events: list[e.Event]) -> None:
    died(rig.journal, events)
    alive(rig.asterisk, None if events is TALKING else f"{APP},incoming,carrier,{DID}")
    lost = Recovery(rig.ari, APP, rig.dispatcher, rig.journal, {}, lambda _: (TABLE, False))
    assert await lost.run(rig.journal.open_logs()) == Recovered(adopted=1)
    if events is CHOOSING:
        await rig.requested(CHANNEL, "variables", "continue cr-failsafe")
    rig.asterisk.hangup(CHANNEL)
    await rig.idle()
    record = rig.record()
    assert record.disposition is (Disposition.ANSWERED if events is TALKING else Disposition.ABANDONED)
    assert "not at hand" in " ".join(step.why for step in record.trace)
