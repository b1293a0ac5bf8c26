"""A trunk that fails: the same target is dialled over the next one, by the server and by the dialplan alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from callrouter.core.disposition import Disposition, LegResult
from callrouter.store import config
from callrouter.testing.audio import tone_present
from callrouter.testing.carrier_script import Answered, Behaviour, Hangup, Wait, server_error
from callrouter.testing.sipp import SippResult, run_sipp
from tests.acceptance.conversations import check_recording, speaking
from tests.fixtures.installation import BUSINESS_HZ, Business, Installation, Seen, eventually, free_port, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

TALK = (Answered(), Wait(2.0), Hangup())
SETUP_SECONDS = 1.5
FLOW = """
start: dial
nodes:
  dial: {type: dial, target: desk, ring: 15, on_busy: busy, on_no_answer: none, on_failed: failed}
  busy: {type: hangup, cause: busy}
  none: {type: hangup, cause: no-answer}
  failed: {type: tag, tags: [nobody reached], next: end}
  end: {type: hangup, cause: congestion}
"""


@dataclass(frozen=True)
class Carrier:
    """How the first trunk's carrier behaves: a SIPp scenario, or nobody at all."""

    scenario: str | None
    status: str = ""


FIRST = {
    "refuses": Carrier("uas_status", "503 Service Unavailable"),
    "breaks": Carrier("uas_status", "500 Server Internal Error"),
    "silent": Carrier("uas_silent"),
    "late": Carrier("uas_late"),
    "absent": Carrier(None),
    "busy": Carrier("uas_ring_status", "486 Busy Here"),
    "declined": Carrier("uas_status", "603 Decline"),
    "unknown": Carrier("uas_status", "404 Not Found"),
    "both down": Carrier("uas_status", "503 Service Unavailable"),
}
SECOND: dict[str, Behaviour] = {"both down": server_error()}
ANSWERED = ("refuses", "breaks", "silent", "late", "absent")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place() -> AsyncIterator[Installation]:
    async with installation() as made:
        await made.start_server()
        yield made


async def two_trunks(place: Installation, name: str, port: int) -> str:
    """A trunk to ``port``, and behind it one to the simulated carrier."""
    address = place.settings.simulator_address
    async with place.database.session() as session:
        common: dict[str, Any] = {"host": address, "qualify_seconds": 0, "who": "tests"}
        net = f"127.{port % 60 + 3}.{port // 60 % 250}"
        second = f"{name}-second"
        await config.add_trunk(session, name=second, port=place.carrier.sip_port, match=[f"{net}.2"], **common)
        await config.add_trunk(
            session, name=name, port=port, match=[f"{net}.1"], next_trunk=second, setup_seconds=SETUP_SECONDS, **common
        )
    return name


async def in_asterisk(place: Installation, *trunks: str) -> None:
    async def known() -> bool:
        shown = await place.asterisk.rx("pjsip show endpoints")
        return all(f"trunk-{trunk}-second" in shown for trunk in trunks)

    await eventually(known, "Asterisk knows the trunks")


async def one_call(place: Installation, name: str, business: Business, port: int) -> tuple[Seen, SippResult | None]:
    carrier = FIRST[name]
    if carrier.scenario is None:
        return await place.call(business, steps=TALK), None
    sipp = asyncio.create_task(
        run_sipp(
            carrier.scenario,
            local_ip=place.settings.simulator_address,
            local_port=port,
            status=carrier.status,
            timeout=25,
        )
    )
    seen = await place.call(business, steps=TALK)
    return seen, await sipp


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def calls(place: Installation) -> dict[str, tuple[Seen, SippResult | None]]:
    """All at once, one number each."""
    ports = {name: free_port(place.settings.simulator_address, socket.SOCK_DGRAM) for name in FIRST}
    businesses = {}
    for name, port in ports.items():
        trunk = await two_trunks(place, name.replace(" ", "-"), port)
        phone = SECOND.get(name, speaking())
        businesses[name] = await place.business({"desk": phone}, flow=FLOW, trunk=trunk)
    await in_asterisk(place, *(name.replace(" ", "-") for name in FIRST))
    found = await asyncio.gather(*(one_call(place, name, businesses[name], ports[name]) for name in FIRST))
    return dict(zip(FIRST, found, strict=True))


@pytest.mark.parametrize("name", ANSWERED)
async def test_the_next_trunk_reaches_the_same_target(
    place: Installation, calls: dict[str, tuple[Seen, SippResult | None]], name: str
) -> None:
    seen, sipp = calls[name]
    record = seen.call.record
    assert record.disposition is Disposition.ANSWERED, seen.trace
    assert record.path == ("dial",)
    assert [(leg.target, leg.trunk, leg.result) for leg in record.legs] == [
        ("desk", name, LegResult.FAILED),
        ("desk", f"{name}-second", LegResult.ANSWERED),
    ]
    assert f"trunk failed: {name}: " in seen.trace
    assert seen.phone.heard is not None
    assert seen.caller.heard is not None
    assert tone_present(seen.caller.heard, BUSINESS_HZ, min_seconds=1.0)
    check_recording(place, seen)
    if sipp is not None:
        assert sipp.failed == 0, sipp.errors
        assert len(sipp.invites) == 1


async def test_it_is_dialled_within_a_second_of_the_failure(
    calls: dict[str, tuple[Seen, SippResult | None]],
) -> None:
    for name in ("refuses", "breaks"):
        seen, sipp = calls[name]
        assert sipp is not None
        refused = next(message for message in sipp.messages if (message.status or 0) >= 500)
        assert 0 < seen.phone.started - refused.at < 1.0, name


async def test_a_silent_trunk_is_left_after_its_setup_time(calls: dict[str, tuple[Seen, SippResult | None]]) -> None:
    for name in ("silent", "late", "absent"):
        seen, sipp = calls[name]
        first, second = seen.call.record.legs
        assert second.started_at - first.started_at == pytest.approx(SETUP_SECONDS, abs=0.5), name
        assert f"no sign of life over {name}" in seen.trace
        # The caller hears ringing all the time.
        assert seen.caller.ringing is not None
        assert seen.caller.ringing < first.started_at + 1.0
        if sipp is not None:
            assert [message.method for message in sipp.messages if message.text.startswith("CANCEL")] == ["CANCEL"]


async def test_a_late_answer_is_acknowledged_and_ended(calls: dict[str, tuple[Seen, SippResult | None]]) -> None:
    seen, sipp = calls["late"]
    assert sipp is not None
    received = [message.method for message in sipp.messages if not message.sent and message.status is None]
    assert received == ["INVITE", "CANCEL", "ACK", "BYE"]
    assert seen.call.record.disposition is Disposition.ANSWERED
    assert len(seen.call.recordings) == 1


@pytest.mark.parametrize(
    "name,disposition,result",
    [
        ("busy", Disposition.BUSY, LegResult.BUSY),
        ("declined", Disposition.FAILED, LegResult.FAILED),
        ("unknown", Disposition.FAILED, LegResult.FAILED),
    ],
)
async def test_the_destinations_own_answer_is_final(
    calls: dict[str, tuple[Seen, SippResult | None]], name: str, disposition: Disposition, result: LegResult
) -> None:
    seen, _ = calls[name]
    assert seen.phones["desk"] == []
    assert seen.call.record.disposition is disposition
    assert [(leg.trunk, leg.result) for leg in seen.call.record.legs] == [(name, result)]


async def test_when_both_fail_the_flow_goes_on(calls: dict[str, tuple[Seen, SippResult | None]]) -> None:
    seen, _ = calls["both down"]
    assert [(leg.trunk, leg.result) for leg in seen.call.record.legs] == [
        ("both-down", LegResult.FAILED),
        ("both-down-second", LegResult.FAILED),
    ]
    assert seen.call.record.tags == ("nobody reached",)
    assert seen.caller.sip_status == 503


async def test_a_trunk_known_to_be_down_comes_last(place: Installation) -> None:
    """Nobody answers its OPTIONS: no caller waits for it, and it is tried when the others fail."""
    port = free_port(place.settings.simulator_address, socket.SOCK_DGRAM)
    name = await two_trunks(place, "known-down", port)
    async with place.database.session() as session:
        await config.edit_trunk(session, name, {"qualify_seconds": 1}, who="tests")
    desk = await place.business({"desk": speaking()}, flow=FLOW, trunk=name)
    none = await place.business({"desk": server_error()}, flow=FLOW, trunk=name)
    await eventually(
        lambda: "known-down" in dict(place.server.parts.dispatcher.trunks_down) if place.server else False,
        "the trunk is known to be down",
    )
    seen, lost = await asyncio.gather(place.call(desk, steps=TALK), place.call(none, steps=TALK))
    assert [(leg.trunk, leg.result) for leg in seen.call.record.legs] == [("known-down-second", LegResult.ANSWERED)]
    assert "known-down comes last, it is down: it does not answer" in seen.trace
    assert [leg.trunk for leg in lost.call.record.legs] == ["known-down-second", "known-down"]


async def test_the_dialplan_alone_goes_on_over_the_next_trunk(place: Installation) -> None:
    ports, made = {}, {}
    for name in ("refuses", "busy", "silent"):
        ports[name] = free_port(place.settings.simulator_address, socket.SOCK_DGRAM)
        trunk = await two_trunks(place, f"alone-{name}", ports[name])
        made[name] = await place.business({"desk": speaking()}, flow=FLOW, trunk=trunk, ring=3)
    await in_asterisk(place, *(f"alone-{name}" for name in made))
    await place.stop_server()
    waiting = [
        asyncio.create_task(
            run_sipp(
                str(FIRST[name].scenario),
                local_ip=place.settings.simulator_address,
                local_port=port,
                status=FIRST[name].status,
                timeout=25,
            )
        )
        for name, port in ports.items()
    ]
    callers = {name: place.caller() for name in made}
    results = await asyncio.gather(*(place.place(made[name], caller=callers[name], steps=TALK) for name in made))
    sipps = await asyncio.gather(*waiting)
    await place.start_server()
    seen = dict(
        zip(
            made,
            await asyncio.gather(
                *(place.seen(made[name], result, callers[name]) for name, result in zip(made, results, strict=True))
            ),
            strict=True,
        )
    )
    assert [sipp.failed for sipp in sipps] == [0, 0, 0]
    for name in ("refuses", "silent"):
        record = seen[name].call.record
        assert record.disposition is Disposition.ANSWERED
        assert record.handled_by == "failsafe"
        assert record.legs[-1].trunk == f"alone-{name}-second"
        assert len(seen[name].phones["desk"]) == 1
    refused = next(message for message in sipps[0].messages if message.status == 503)
    assert 0 < seen["refuses"].phone.started - refused.at < 1.0
    assert seen["busy"].caller.sip_status == 486
    assert seen["busy"].phones["desk"] == []
