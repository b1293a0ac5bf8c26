"""The simulated carrier on real Asterisk: one carrier calls the phones of another, over SIP and RTP."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from callrouter.asterisk.install import AsteriskInstall, find_asterisk
from callrouter.config import load_settings
from callrouter.errors import AsteriskError, ConflictError, InputError, NotFoundError
from callrouter.testing import speech
from callrouter.testing.audio import duration, levels, speech_present, tone_present
from callrouter.testing.carrier import SimulatedCarrier
from callrouter.testing.carrier_script import (
    Answered,
    CallScript,
    Digits,
    Hangup,
    Phone,
    Say,
    UntilHangup,
    Wait,
    answer,
    answer_then_press,
    busy,
    early_media,
    no_answer,
    not_found,
    reject,
    server_error,
    unavailable,
)
from callrouter.testing.sipp import run_sipp

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture
def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.29", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def install() -> AsteriskInstall:
    return find_asterisk(load_settings())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(
    install: AsteriskInstall, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[SimulatedCarrier, SimulatedCarrier]]:
    """A carrier, and the business that it calls."""
    place = tmp_path_factory.mktemp("pair")
    async with SimulatedCarrier(install, place / "b", address="127.0.0.19", name="business") as business:
        target = (business.address, business.sip_port)
        async with SimulatedCarrier(install, place / "a", address="127.0.0.9", server=target) as carrier:
            yield carrier, business


@pytest.fixture
def business(pair: tuple[SimulatedCarrier, SimulatedCarrier]) -> SimulatedCarrier:
    pair[1].forget_calls()
    return pair[1]


@pytest.fixture
def carrier(pair: tuple[SimulatedCarrier, SimulatedCarrier]) -> SimulatedCarrier:
    pair[0].forget_calls()
    return pair[0]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def answered_calls(carrier: SimulatedCarrier, count: int) -> None:
    async with asyncio.timeout(10):
        while sum(call.answered for call in await carrier.phone_calls()) < count:
            await asyncio.sleep(0.02)


async def test_both_ends_hear_each_other(carrier: SimulatedCarrier, business: SimulatedCarrier) -> None:
    await business.add_phone(Phone("desk", answer(after=0.3, speak="tone:660")))
    result = await carrier.place(CallScript(did="desk", speak="tone:440", steps=(Wait(1.5), Hangup())))
    [call] = await business.wait_phone_calls("desk", 1)

    assert (result.answered, result.sip_status, result.cause, result.hung_up_by) == (True, 200, 16, "caller")
    assert result.ringing is not None
    assert result.answered_at is not None
    assert result.started <= result.ringing < result.answered_at < result.ended
    assert 0.25 < result.answered_at - result.ringing < 1.0
    assert 1.4 < result.talk_seconds < 2.5
    assert (call.answered, call.cancelled, call.hung_up_by) == (True, False, "caller")
    assert call.sip_call_id == result.sip_call_id != ""

    assert result.heard is not None
    assert result.said is not None
    assert call.heard is not None
    assert call.said is not None
    for path, hz, other in (
        (result.heard, 660, 440),
        (result.said, 440, 660),
        (call.heard, 440, 660),
        (call.said, 660, 440),
    ):
        assert tone_present(path, hz, min_seconds=1.0), path
        assert not tone_present(path, other), path
        assert duration(path) == pytest.approx(1.5, abs=0.3)


async def test_spoken_words_arrive_and_silence_stays_silent(
    carrier: SimulatedCarrier, business: SimulatedCarrier
) -> None:
    await business.add_phone(Phone("talker", answer(after=0.1, hang_up_after=2.5)))
    await business.add_phone(Phone("listener", answer(after=0.1, speak="silence", hang_up_after=2.5)))
    talked, listened = await carrier.place_all([CallScript(did="talker", speak="silence"), CallScript(did="listener")])
    [at_talker] = await business.wait_phone_calls("talker", 1)
    [at_listener] = await business.wait_phone_calls("listener", 1)

    assert talked.hung_up_by == listened.hung_up_by == "callee"
    assert talked.heard is not None
    assert listened.heard is not None
    assert at_talker.heard is not None
    assert at_listener.heard is not None
    assert speech_present(talked.heard)
    assert speech_present(at_listener.heard)
    assert levels(listened.heard)[0].silent
    assert levels(at_talker.heard)[0].silent
    # Silent packets are sent all the same, so the recordings have their full length.
    assert duration(listened.heard) == pytest.approx(2.5, abs=0.3)


async def test_a_phone_can_fall_silent_and_go_on_listening(
    carrier: SimulatedCarrier, business: SimulatedCarrier
) -> None:
    await business.add_phone(Phone("brief", answer(after=0.1, speak="tone:660", talk_seconds=1.0, hang_up_after=2.5)))
    result = await carrier.place(CallScript(did="brief", speak="tone:440"))
    assert result.heard is not None
    [level] = levels(result.heard)
    assert level.active_seconds == pytest.approx(1.0, abs=0.2)
    assert level.duration == pytest.approx(2.5, abs=0.3)


async def test_keys_arrive_once_and_in_order_from_either_end(
    carrier: SimulatedCarrier, business: SimulatedCarrier
) -> None:
    await business.add_phone(Phone("menu", answer(after=0.1)))
    await business.add_phone(Phone("screen", answer_then_press("1#", after=0.1, wait=0.3)))
    pressed, screened = await carrier.place_all(
        [
            CallScript(did="menu", steps=(Wait(0.3), Digits("0123456789*#ABCD", gap=0.08), Wait(0.3), Hangup())),
            CallScript(did="screen", speak="tone:440", steps=(Wait(1.5), Hangup())),
        ]
    )
    [menu] = await business.wait_phone_calls("menu", 1)
    assert menu.digits == "0123456789*#ABCD"
    assert pressed.digits == ""
    assert screened.digits == "1#"


async def test_refusals_come_back_with_status_and_cause(carrier: SimulatedCarrier, business: SimulatedCarrier) -> None:
    refusals = {
        "busy": (busy(), 486, 17),
        "declines": (reject(), 603, 21),
        "away": (unavailable(), 480, 19),
        "gone": (not_found(), 404, 1),
        "broken": (server_error(), 503, 34),
    }
    for name, (behaviour, _, _) in refusals.items():
        await business.add_phone(Phone(name, behaviour))
    results = await carrier.place_all(CallScript(did=name) for name in refusals)
    for result, (_, status, cause) in zip(results, refusals.values(), strict=True):
        assert (result.answered, result.sip_status, result.cause) == (False, status, cause), result.did
        assert result.hung_up_by == "callee"
        assert result.heard is None
    calls = await business.wait_phone_calls(None, len(refusals))
    assert {call.phone for call in calls} == set(refusals)
    assert not any(call.cancelled or call.answered for call in calls)


async def test_a_number_without_a_phone_is_not_found(carrier: SimulatedCarrier, business: SimulatedCarrier) -> None:
    result = await carrier.place(CallScript(did="+12125550199"))
    assert (result.sip_status, result.hung_up_by) == (404, "callee")
    [call] = await business.wait_phone_calls("+12125550199", 1)
    assert call.to == "+12125550199"
    assert not call.cancelled
    with pytest.raises(NotFoundError, match="nobody"):
        business.uri("nobody")


@pytest.mark.parametrize("by", ["steps", "ring_timeout"])
async def test_a_caller_loses_patience(carrier: SimulatedCarrier, business: SimulatedCarrier, by: str) -> None:
    await business.add_phone(Phone("empty-desk", no_answer()))
    patience = {"steps": (Wait(1), Hangup())} if by == "steps" else {"ring_timeout": 1.0}
    result = await carrier.place(CallScript(did="empty-desk", **patience))
    assert (result.answered, result.sip_status, result.hung_up_by) == (False, 487, "caller")
    assert result.ringing is not None
    assert result.ended - result.started == pytest.approx(1.0, abs=0.5)
    [call] = await business.wait_phone_calls("empty-desk", 1)
    assert (call.cancelled, call.answered, call.hung_up_by) == (True, False, "caller")


async def test_giving_up_sends_cancel(install: AsteriskInstall, tmp_path: Path, free_udp_port: int) -> None:
    async with SimulatedCarrier(install, tmp_path / "a", server=("127.0.0.29", free_udp_port)) as carrier:
        witness = asyncio.create_task(
            run_sipp("uas_cancelled", local_ip="127.0.0.29", local_port=free_udp_port, timeout=20)
        )
        result = await carrier.place(CallScript(did="100", steps=(Wait(1.5), Hangup())))
        seen = await witness
    assert seen.succeeded == 1
    assert [message.method for message in seen.messages if message.status is None][-2:] == ["CANCEL", "ACK"]
    assert seen.final_status == {result.sip_call_id: 487}
    assert (result.sip_status, result.hung_up_by) == (487, "caller")


async def test_early_media_is_heard_before_the_answer(carrier: SimulatedCarrier, business: SimulatedCarrier) -> None:
    await business.add_phone(Phone("music", early_media(1.5, early="tone:620", speak="tone:660")))
    result = await carrier.place(CallScript(did="music", steps=(Answered(), Wait(1), Hangup())))
    assert result.progress is not None
    assert result.answered_at is not None
    assert result.answered_at - result.progress == pytest.approx(1.5, abs=0.4)
    assert result.early is not None
    assert result.heard is not None
    assert tone_present(result.early, 620, min_seconds=1.0)
    assert tone_present(result.heard, 660, min_seconds=0.7)
    assert not tone_present(result.heard, 620)


async def test_identity_headers_arrive_as_given(carrier: SimulatedCarrier, business: SimulatedCarrier) -> None:
    await business.add_phone(Phone("desk", busy()))
    headers = {"P-Asserted-Identity": '"Front, desk" <sip:+4930123456@carrier.invalid>', "X-Odd": 'a, "b" (c] \\d; é'}
    await carrier.place(CallScript(did="desk", caller="+33123456789", caller_name='Zoë "Z" O(', headers=headers))
    await carrier.place(CallScript(did="desk", anonymous=True))
    named, hidden = await business.wait_phone_calls("desk", 2)

    assert named.header("From").startswith('"Zoë \\"Z\\" O(" <sip:+33123456789@127.0.0.9')
    assert named.header("p-asserted-identity") == headers["P-Asserted-Identity"]
    assert named.header("X-Odd") == headers["X-Odd"]
    # The phones trust the carrier's asserted identity, as telephones behind a server do.
    assert (named.from_number, named.from_name) == ("+4930123456", "Front, desk")
    assert "sip:anonymous@anonymous.invalid" in hidden.header("From")
    assert hidden.header("Privacy") == "id"
    assert "2125550123" not in "".join(hidden.headers.values())


async def test_a_phone_changes_its_mind_while_running(carrier: SimulatedCarrier, business: SimulatedCarrier) -> None:
    uri = await business.add_phone(Phone("desk", busy()))
    assert uri == business.uri("desk") == f"sip:desk@127.0.0.19:{business.sip_port}"
    assert (await carrier.place(CallScript(did="desk"))).sip_status == 486
    await business.add_phone(Phone("desk", answer(after=0.1, hang_up_after=0.3)))
    assert (await carrier.place(CallScript(did="desk"))).answered


async def test_what_is_said_once_is_heard_in_its_place(
    carrier: SimulatedCarrier, business: SimulatedCarrier, tmp_path: Path
) -> None:
    await business.add_phone(Phone("desk", answer(after=0.1)))
    speech.write_wav(tmp_path / "beep.wav", speech.tone(880, 0.5))
    steps = (Wait(0.5), Say(tmp_path / "beep.wav", 1.0), Say("tone:1200", 0.5), Wait(0.7), Hangup())
    await carrier.place(CallScript(did="desk", speak="tone:440", steps=steps))
    [call] = await business.wait_phone_calls("desk", 1)
    assert call.heard is not None
    assert tone_present(call.heard, 880, min_seconds=0.8)
    assert tone_present(call.heard, 1200, min_seconds=0.4)
    assert tone_present(call.heard, 440, min_seconds=0.5)


async def test_a_call_ends_at_its_longest_duration(carrier: SimulatedCarrier, business: SimulatedCarrier) -> None:
    await business.add_phone(Phone("desk", answer(after=0.1)))
    result = await carrier.place(CallScript(did="desk", steps=(UntilHangup(),), max_seconds=0.8))
    assert (result.answered, result.timed_out, result.hung_up_by) == (True, True, "caller")
    assert result.talk_seconds == pytest.approx(0.8, abs=0.4)


async def test_twenty_calls_at_once_leave_nothing_behind(carrier: SimulatedCarrier, business: SimulatedCarrier) -> None:
    await business.add_phone(Phone("desk", answer(after=0.2, speak="tone:660")))
    script = CallScript(did="desk", speak="tone:440", steps=(Wait(0.5), Digits("12"), Wait(0.8), Hangup()))
    results = await carrier.place_all([script] * 20)
    calls = await business.wait_phone_calls("desk", 20)
    assert all(result.answered for result in results)
    assert [call.digits for call in calls] == ["12"] * 20
    assert {call.sip_call_id for call in calls} == {result.sip_call_id for result in results}
    assert len({result.sip_call_id for result in results}) == 20
    assert all(result.heard and tone_present(result.heard, 660, min_seconds=0.8) for result in results)
    assert all(call.heard and tone_present(call.heard, 440) for call in calls)
    assert await carrier.active_channels() == 0
    assert await business.active_channels() == 0


async def test_a_cancelled_task_hangs_its_call_up(carrier: SimulatedCarrier, business: SimulatedCarrier) -> None:
    await business.add_phone(Phone("desk", answer(after=0.1)))
    task = asyncio.create_task(carrier.place(CallScript(did="desk")))
    await answered_calls(business, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [call] = await business.wait_phone_calls("desk", 1)
    assert call.hung_up_by == "caller"
    assert await business.active_channels() == 0


async def test_a_failing_test_leaves_no_process(install: AsteriskInstall, tmp_path: Path) -> None:
    carrier = SimulatedCarrier(install, tmp_path / "a")
    pids: list[int] = []

    async def failing() -> None:
        async with carrier:
            pids.append(carrier.pid or 0)
            assert alive(pids[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failing()
    assert not alive(pids[0])
    with pytest.raises(AsteriskError, match="not running"):
        await carrier.place(CallScript(did="desk"))


async def test_stopping_ends_calls_on_both_sides(
    carrier: SimulatedCarrier, business: SimulatedCarrier, install: AsteriskInstall
) -> None:
    await business.add_phone(Phone("desk", answer(after=0.1)))
    tasks = [asyncio.create_task(carrier.place(CallScript(did="desk"))) for _ in range(3)]
    await answered_calls(business, 3)
    await carrier.stop()
    results = await asyncio.gather(*tasks)
    assert [result.hung_up_by for result in results] == ["caller"] * 3
    await business.wait_phone_calls("desk", 3)
    assert await business.active_channels() == 0
    # And it can be started again.
    await carrier.start()
    assert (await carrier.place(CallScript(did="nobody"))).sip_status == 404


async def test_a_taken_port_is_said(install: AsteriskInstall, tmp_path: Path, business: SimulatedCarrier) -> None:
    second = SimulatedCarrier(install, tmp_path / "second", address=business.address, sip_port=business.sip_port)
    with pytest.raises(ConflictError, match=str(business.sip_port)):
        await second.start()
    assert second.pid is None


async def test_a_directory_deeper_than_a_socket_path_allows(install: AsteriskInstall, tmp_path: Path) -> None:
    async with SimulatedCarrier(install, tmp_path / ("deep-" * 20) / "carrier") as carrier:
        assert await carrier.active_channels() == 0


async def test_scripts_that_cannot_be_dialled_are_refused(carrier: SimulatedCarrier, tmp_path: Path) -> None:
    wrong = {
        "telephone": CallScript(did="100", steps=(Digits("1x"),)),
        "line break": CallScript(did="100", headers={"X-A": "b\r\nX-C: d"}),
        "header name": CallScript(did="100", headers={"X A": "b"}),
        "speak": CallScript(did="100", speak="tone:9999"),
        "no such file": CallScript(did="100", steps=(Say(tmp_path / "absent.wav"),)),
        "needs a DID": CallScript(did=""),
        "too many": CallScript(did="100", steps=(Wait(0.125),) * 200),
    }
    for said, script in wrong.items():
        with pytest.raises(InputError, match=said):
            await carrier.place(script)
    assert await carrier.active_channels() == 0
    with pytest.raises(InputError, match="cannot be a phone's name"):
        Phone("h", busy())
    with pytest.raises(InputError, match="loopback"):
        SimulatedCarrier(find_asterisk(load_settings()), tmp_path, address="192.0.2.1")
