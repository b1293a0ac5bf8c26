"""The rendered configuration on a real Asterisk: boots clean, takes calls, rings without a controller."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest
import soundfile

from callrouter.asterisk.failsafe import FailsafeDestination, FailsafeEntry, write_failsafe
from callrouter.asterisk.render import FAILSAFE_FILE, render, write_config
from callrouter.asterisk.secrets import load_secrets, write_secret
from callrouter.config import Settings, load_settings
from callrouter.core.dialstring import dial_string
from callrouter.core.model import DidSource, Target
from callrouter.testing.carrier import SimulatedCarrier
from callrouter.testing.carrier_script import CallScript, Hangup, Phone, UntilHangup, Wait, answer
from tests.integration.rendered_server import (  # noqa: F401 - fixtures
    BUSY_FIRST,
    DID,
    NEVER,
    Place,
    as_dict,
    home,
    pitch,
    place,
    settings,
    trunk,
)
from tests.waiting import eventually

pytestmark = pytest.mark.asterisk


async def test_boots_without_error_or_warning_in_the_log(place: Place) -> None:
    assert place.trouble() == []
    assert "trunk-simulator" in await place.asterisk.rx("pjsip show identifies")
    assert "Command not found" not in await place.asterisk.rx("dialplan show cr-failsafe")


async def test_without_a_controller_the_backup_is_rung_and_both_sides_recorded(place: Place) -> None:
    call = await place.carrier.place(CallScript(did=DID, caller="+12125550123", steps=(Wait(3),), speak="tone:440"))
    assert call.answered
    row = await place.row(1)
    assert (row.did, row.trunk, row.caller, row.handled_by) == (DID, "simulator", "+12125550123", "failsafe")
    assert row.failsafe_reason in ("TIMEOUT", "FAILED")
    assert (row.dialstatus, row.cause, row.disposition) == ("ANSWER", 16, "ANSWERED")
    assert (row.number_id, row.campaign_id, row.company_id) == ("n1", "c1", "k1")
    assert row.talk_seconds == pytest.approx(3, abs=0.3)
    assert call.answered_at is not None
    assert row.talk_at == pytest.approx(call.answered_at, abs=0.15)
    assert row.start == pytest.approx(call.started, abs=0.3)
    caller, _ = soundfile.read(row.recording + "-rx.wav")
    business, _ = soundfile.read(row.recording + "-tx.wav")
    assert abs(len(caller) - len(business)) <= 160
    assert len(caller) / 8000 == pytest.approx(row.talk_seconds, abs=0.25), "recording begins at the answer"
    assert pitch(caller) == pytest.approx(440, abs=10)
    assert pitch(business) == pytest.approx(700, abs=10)
    assert place.trouble() == []


async def test_backups_are_tried_in_turn_with_the_number_shown(place: Place) -> None:
    call = await place.carrier.place(CallScript(did=BUSY_FIRST, steps=(Wait(1),)))
    assert call.answered
    (rung,) = await place.carrier.wait_phone_calls("front", 1)
    assert rung.from_number == DID
    row = await place.row(1)
    assert row.target.startswith("PJSIP/callrouter-uri/sip:front@")
    assert row.recording.endswith("-3")
    await place.idle()
    assert len(place.rows()) == 1


async def test_caller_hanging_up_while_it_rings_is_one_cancelled_row(place: Place) -> None:
    call = await place.carrier.place(CallScript(did=NEVER, steps=(Wait(1), Hangup())))
    assert not call.answered
    row = await place.row(1)
    assert row.dialstatus == "CANCEL"
    assert row.talk_seconds == 0
    assert row.answer is None
    assert row.target.endswith(place.carrier.uri("never"))
    (rung,) = await place.carrier.wait_phone_calls("never", 1)
    assert rung.cancelled


async def test_business_hanging_up_ends_the_call(place: Place) -> None:
    await place.carrier.add_phone(Phone("front", answer(after=0.2, hang_up_after=1)))
    call = await place.carrier.place(CallScript(did=DID, steps=(UntilHangup(),)))
    assert call.hung_up_by == "callee"
    row = await place.row(1)
    assert (row.dialstatus, row.cause) == ("ANSWER", 16)
    assert row.talk_seconds == pytest.approx(call.talk_seconds, abs=0.3)
    await place.idle()
    assert len(place.rows()) == 1


async def test_number_nobody_has_gets_404_and_a_row(place: Place) -> None:
    call = await place.carrier.place(CallScript(did="+19995550000"))
    assert call.sip_status == 404
    row = await place.row(1)
    assert (row.did, row.handled_by, row.dialstatus, row.cause) == ("+19995550000", "failsafe", "", 1)


async def test_odd_did_gets_404(place: Place) -> None:
    for did in ("sales", "*97", "#1", "'; DROP TABLE calls"):
        call = await place.carrier.place(CallScript(did=did))
        assert call.sip_status == 404, did
        assert place.trouble() == [], did


async def test_odd_caller_and_did_tricks_harm_nothing(place: Place) -> None:
    call = await place.carrier.place(
        CallScript(
            did="12025550101",
            caller="+1212$[1+1]${EPOCH}",
            caller_name='Zo\u00eb "x" ${SHELL(id)} , & ; ) $[1/0]',
            steps=(Wait(0.5),),
        )
    )
    assert call.answered, "the failsafe knows the number without its plus"
    row = await place.row(1)
    assert row.did == DID
    assert set(row.caller) <= set("+0123456789")
    assert place.trouble() == []


async def test_address_that_is_no_trunk_gets_401_and_no_call(place: Place, home: Path) -> None:
    net = place.settings.sip_bind.rpartition(".")[0]
    stranger = SimulatedCarrier(
        place.install,
        home / "stranger",
        address=f"{net}.66",
        server=(place.settings.sip_bind, place.settings.sip_port),
        name="stranger",
    )
    async with stranger:
        for name in ("trunk-simulator", "callrouter-uri", "+12125550123"):
            call = await stranger.place(CallScript(did=DID, caller=name, ring_timeout=5))
            assert not call.answered
            assert call.sip_status == 401
    assert place.rows() == []
    assert "0 calls processed" in await place.asterisk.rx("core show calls")


async def test_ami_tells_of_strangers_and_keeps_the_noise_to_itself(place: Place, home: Path) -> None:
    s = place.settings
    reader, writer = await asyncio.open_connection(s.ami_host, s.ami_port)
    password = load_secrets(s).ami.reveal()
    writer.write(f"Action: Login\r\nUsername: {s.ami_user}\r\nSecret: {password}\r\n\r\n".encode())
    writer.write(b"Action: Command\r\nActionID: shell\r\nCommand: core show uptime\r\n\r\n")
    net = s.sip_bind.rpartition(".")[0]
    stranger = SimulatedCarrier(
        place.install, home / "stranger", address=f"{net}.66", server=(s.sip_bind, s.sip_port), name="stranger"
    )
    async with stranger:
        await stranger.place(CallScript(did=DID, ring_timeout=5))
    await place.carrier.place(CallScript(did=DID, steps=(Wait(0.3),)))
    said = ""
    async with asyncio.timeout(10):
        while "Event: Hangup" not in said:
            said += (await reader.read(65536)).decode()
    writer.close()
    assert "Authentication accepted" in said
    assert "Event: FullyBooted" in said
    assert "Event: InvalidAccountID" in said
    assert f"{net}.66" in said
    assert "Event: Newchannel" in said
    assert not {"VarSet", "TestEvent", "Newexten", "DialBegin"} & set(re.findall(r"Event: (\w+)", said))
    assert "Permission denied" in said, "no CLI through AMI"


async def test_missing_recording_directory_does_not_stop_the_call(place: Place) -> None:
    shutil.rmtree(place.settings.recording_spool)
    call = await place.carrier.place(CallScript(did=DID, steps=(Wait(1),)))
    assert call.answered
    row = await place.row(1)
    assert row.recording == ""
    assert row.recording_problem == "the recording directory is missing"


async def test_failsafe_file_is_read_anew_after_a_change(place: Place) -> None:
    new = "+12025550177"
    assert (await place.carrier.place(CallScript(did=new))).sip_status == 404
    uri = place.carrier.uri("front")
    write_failsafe(
        place.settings.failsafe_dir / FAILSAFE_FILE,
        [FailsafeEntry(new, (FailsafeDestination(f"PJSIP/callrouter-uri/{uri}", 9),))],
    )
    assert (await place.carrier.place(CallScript(did=new, steps=(Wait(0.3),)))).answered
    assert (await place.carrier.place(CallScript(did=DID))).sip_status == 404


async def test_pjsip_reload_adds_a_trunk_under_a_live_call(place: Place, settings: Settings) -> None:
    net = settings.sip_bind.rpartition(".")[0]
    task = asyncio.create_task(place.carrier.place(CallScript(did=DID, steps=(Wait(5),), speak="tone:440")))

    async def talking() -> bool:
        return "2 active channels" in await place.asterisk.rx("core show channels count")

    await eventually(talking, "the conversation", 10)
    write_secret(settings.secrets_dir, "trunk-isp", "s;e=c[r]et")
    more = [
        trunk("isp", host=f"{net}.77", username="acme", registers=True, did_source=DidSource.TO_HEADER, transport="tcp")
    ]
    assert write_config(render(settings, place.install, more, load_secrets(settings, more)), settings.asterisk_etc_dir)
    assert not write_config(
        render(settings, place.install, more, load_secrets(settings, more)), settings.asterisk_etc_dir
    )
    await place.asterisk.rx("module reload res_pjsip.so")
    await place.asterisk.rx("dialplan reload")

    async def known() -> bool:
        return f"{net}.77/32" in await place.asterisk.rx("pjsip show identify trunk-isp")

    await eventually(known, "the new trunk", 10)
    assert "s;e=c[r]et" in await place.asterisk.rx("pjsip show auth trunk-isp")
    call = await task
    assert call.talk_seconds == pytest.approx(5, abs=0.3)
    heard, rate = soundfile.read(call.heard)
    assert pitch(heard[-rate:]) == pytest.approx(700, abs=10), "audio went on after the reload"


async def test_trunk_brings_the_did_in_to_and_takes_a_number_out(place: Place, settings: Settings) -> None:
    """The simulated carrier as an ordinary trunk that puts the DID into To."""
    plain = load_settings(environ={}, **{**as_dict(settings), "simulator": False})
    pbx = trunk(
        "pbx",
        host=settings.simulator_address,
        port=place.carrier.sip_port,
        did_source=DidSource.TO_HEADER,
        qualify_seconds=1,
    )
    write_config(render(plain, place.install, [pbx], load_secrets(plain, [pbx])), settings.asterisk_etc_dir)
    await place.asterisk.rx("module reload res_pjsip.so")
    await place.asterisk.rx("dialplan reload")

    async def reachable() -> bool:
        return "Avail" in await place.asterisk.rx("pjsip show contacts")

    await eventually(reachable, "the trunk answers", 10)
    target = Target(id="t", company_id="k", name="desk", title="Desk", number="+12025550188", trunk="pbx")
    await place.carrier.add_phone(Phone("+12025550188", answer(after=0.2)))
    destination = FailsafeDestination(dial_string(target, pbx), 9)
    write_failsafe(settings.failsafe_dir / FAILSAFE_FILE, [FailsafeEntry(DID, (destination,))])
    call = await place.carrier.place(CallScript(did=DID, caller="+12125550123", caller_name="Zoë", steps=(Wait(0.3),)))
    assert call.answered
    row = await place.row(1)
    assert (row.trunk, row.did, row.target) == ("pbx", DID, "PJSIP/+12025550188@trunk-pbx")
    (rung,) = await place.carrier.wait_phone_calls("+12025550188", 1)
    assert (rung.from_number, rung.from_name) == ("+12125550123", "Zoë")
    assert "+12125550123" in rung.header("P-Asserted-Identity")
    assert place.trouble() == []
