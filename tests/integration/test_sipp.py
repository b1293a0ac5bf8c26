"""SIPp scenarios against the simulated carrier."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from callrouter.asterisk.install import find_asterisk
from callrouter.config import load_settings
from callrouter.errors import InputError, ServiceError
from callrouter.testing.audio import tone_present
from callrouter.testing.carrier import SimulatedCarrier
from callrouter.testing.carrier_script import CallScript, Hangup, Phone, Wait, answer, busy
from callrouter.testing.sipp import run_sipp

pytestmark = pytest.mark.asterisk


@pytest.fixture
def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.29", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def carrier(tmp_path: Path) -> AsyncIterator[SimulatedCarrier]:
    phones = [
        Phone("desk", answer(after=0.1)),
        Phone("brief", answer(after=0.1, hang_up_after=0.2)),
        Phone("engaged", busy()),
    ]
    install = find_asterisk(load_settings())
    async with SimulatedCarrier(install, tmp_path / "c", address="127.0.0.19", phones=phones) as carrier:
        yield carrier


async def test_calls_from_a_table_end_from_either_side(carrier: SimulatedCarrier) -> None:
    rows = [("desk", "+12125550101", '"Zoë"'), ("brief", "+12125550102", "")]
    result = await run_sipp(
        "uac", (carrier.address, carrier.sip_port), local_ip="127.0.0.29", calls=4, rows=rows, talk_seconds=0.6
    )
    assert (result.succeeded, result.failed) == (4, 0)
    assert len(result.call_ids) == 4
    assert set(result.final_status.values()) == {200}
    calls = await carrier.wait_phone_calls(None, 4)
    assert sorted((call.phone, call.from_number, call.from_name, call.hung_up_by) for call in calls) == [
        ("brief", "+12125550102", "", "callee"),
        ("brief", "+12125550102", "", "callee"),
        ("desk", "+12125550101", "Zoë", "caller"),
        ("desk", "+12125550101", "Zoë", "caller"),
    ]


async def test_raw_headers_go_out_as_given_and_any_answer_counts(carrier: SimulatedCarrier) -> None:
    remote = (carrier.address, carrier.sip_port)
    keys = {"uri_user": "engaged", "from_header": '"\x01é" <sip:%00@x.invalid>', "extra": "X-A: b\r\nX-B: c"}
    refused = await run_sipp("uac_invite_only", remote, local_ip="127.0.0.29", keys=keys)
    assert refused.succeeded == 1
    assert list(refused.final_status.values()) == [486]
    assert refused.invites[0].header("From").startswith(keys["from_header"])
    [call] = await carrier.wait_phone_calls("engaged", 1)
    assert (call.header("X-A"), call.header("X-B")) == ("b", "c")
    unknown = await run_sipp("uac_invite_only", remote, local_ip="127.0.0.29", keys={"uri_user": "no;such=one"})
    assert list(unknown.final_status.values()) == [404]
    answered = await run_sipp(
        "uac_invite_only", remote, local_ip="127.0.0.29", keys={"uri_user": "desk"}, talk_seconds=0.2
    )
    assert (answered.succeeded, list(answered.final_status.values())) == (1, [200])


async def test_no_answer_at_all_is_a_failed_call(carrier: SimulatedCarrier) -> None:
    keys = {"from_header": "no address at all"}
    remote = (carrier.address, carrier.sip_port)
    result = await run_sipp("uac_invite_only", remote, local_ip="127.0.0.29", keys=keys, timeout=2)
    assert (result.succeeded, result.failed, result.final_status) == (0, 1, {})


async def test_a_witness_answers_and_echoes(carrier: SimulatedCarrier, free_udp_port: int) -> None:
    carrier.aim("127.0.0.29", free_udp_port)
    witness = asyncio.create_task(
        run_sipp("uas_answer", local_ip="127.0.0.29", local_port=free_udp_port, rtp_echo=True, timeout=20)
    )
    script = CallScript(did="+12125550100", caller_name="Ann", speak="tone:440", steps=(Wait(1), Hangup()))
    result = await carrier.place(script)
    seen = await witness
    assert (seen.succeeded, seen.call_ids) == (1, (result.sip_call_id,))
    [invite] = seen.invites
    assert invite.start_line == f"INVITE sip:+12125550100@127.0.0.29:{free_udp_port} SIP/2.0"
    assert invite.header("from").startswith('"Ann" <sip:+12125550123@')
    assert result.heard is not None
    assert tone_present(result.heard, 440)


async def test_a_busy_witness(carrier: SimulatedCarrier, free_udp_port: int) -> None:
    carrier.aim("127.0.0.29", free_udp_port)
    witness = asyncio.create_task(run_sipp("uas_busy", local_ip="127.0.0.29", local_port=free_udp_port, timeout=20))
    result = await carrier.place(CallScript(did="100"))
    assert (await witness).succeeded == 1
    assert (result.sip_status, result.cause) == (486, 17)


async def test_what_sipp_cannot_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such SIPp scenario"):
        await run_sipp("uac_imagined", ("127.0.0.1", 5060))
    with pytest.raises(InputError, match="needs a port"):
        await run_sipp("uas_busy")
    with pytest.raises(InputError, match="CSV"):
        await run_sipp("uac", ("127.0.0.1", 5060), rows=[("100;x=y", "1", "")])
    broken = tmp_path / "broken.xml"
    broken.write_text("<scenario><send></scenario>")
    with pytest.raises(ServiceError, match=r"could not run broken\.xml"):
        await run_sipp(broken, ("127.0.0.1", 5060), timeout=5)
