"""The controller died while a caller waited to leave a message: whether there is one, the place of recordings says."""

from __future__ import annotations

from pathlib import Path

import pytest

from callrouter.asterisk.render import SPOOL_SIGN
from callrouter.core.disposition import Disposition
from callrouter.core.state import Saying
from callrouter.runtime.recovery import Recovered
from callrouter.runtime.supervision import LedgerTail
from tests.builders import CALL, T0
from tests.contract.runtime.crashed import CHANNEL, TAKING, alive, died, recovery
from tests.contract.runtime.support import APP, Rig, ledger_line, write_ledger

MESSAGE = f"{CALL}-m4"
NO_CALLEE = {"target": "", "leg": "", "dialstatus": "", "talk_at": "", "talk_end": "", "recording": ""}
SPOOLS = pytest.mark.parametrize(
    "files, disposition",
    [
        ([], Disposition.VOICEMAIL),
        ([SPOOL_SIGN], Disposition.ABANDONED),
        ([SPOOL_SIGN, f"{MESSAGE}.wav"], Disposition.VOICEMAIL),
    ],
    ids=["the disk is away", "nothing was begun", "it was begun"],
)


@pytest.fixture
def spool(tmp_path: Path, files: list[str]) -> Path:
    for name in files:
        (tmp_path / name).touch()
    return tmp_path


@SPOOLS
async def test_who_hung_up_meanwhile(rig: Rig, spool: Path, disposition: Disposition) -> None:
    died(rig.journal, TAKING)
    tail = LedgerTail(spool / "cdr.csv")
    write_ledger(tail.path, [ledger_line(CHANNEL, end=T0 + 100, handled_by="controller", **NO_CALLEE)])
    tail.poll()
    run = recovery(rig, tail.rows, spool=spool)
    assert await run.run(rig.journal.open_logs()) == Recovered(closed=1)
    record = rig.record()
    assert [one.id for one in record.recordings] == [MESSAGE], "it was planned"
    assert record.disposition is disposition
    assert ("left a message" in record.reason) is (disposition is Disposition.VOICEMAIL)


@SPOOLS
async def test_who_hung_up_later(rig: Rig, spool: Path, disposition: Disposition) -> None:
    died(rig.journal, TAKING)
    alive(rig.asterisk, f"{APP},incoming,carrier,+12025550123")
    run = recovery(rig, {}, spool=spool)
    assert await run.run(rig.journal.open_logs()) == Recovered(adopted=1)
    await rig.waits_in(CHANNEL, Saying)
    rig.asterisk.hangup(CHANNEL)
    await rig.idle()
    assert rig.record().disposition is disposition
