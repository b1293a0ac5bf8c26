"""The talk phase on a real Asterisk, steered by a few lines of controller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from callrouter.asterisk.ari import AriClient
from callrouter.asterisk.ari_events import CallBroadcast, StasisStart
from callrouter.asterisk.ari_stream import AriStream, Connected
from callrouter.asterisk.render import render, write_config
from callrouter.asterisk.secrets import load_secrets
from callrouter.testing.audio import tone_present
from callrouter.testing.carrier_script import CallScript, Phone, UntilHangup, Wait, answer, early_media
from tests.integration.rendered_server import (  # noqa: F401 - fixtures
    DID,
    Older,
    Place,
    home,
    pitch,
    place,
    settings,
)
from tests.waiting import eventually

pytestmark = pytest.mark.asterisk


class Controller:
    """Claims every call and tells what entered the application."""

    def __init__(self, place: Place) -> None:
        s = place.settings
        password = load_secrets(s).ari.reveal()
        url = f"http://{s.ari_host}:{s.ari_port}"
        self.app = s.ari_app
        self.ari = AriClient(url, s.ari_user, password)
        self.stream = AriStream(url, s.ari_user, password, s.ari_app)
        self.entered: asyncio.Queue[StasisStart] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.ari.start()
        self.stream.start()
        first = await anext(self.stream)
        assert isinstance(first, Connected), first
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for item in self.stream:
            if isinstance(item, CallBroadcast):
                await self.ari.claim(item.channel.id, self.app)
            elif isinstance(item, StasisStart):
                self.entered.put_nowait(item)

    async def vanish(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.stream.close()
        await self.ari.close()

    async def next(self) -> StasisStart:
        async with asyncio.timeout(10):
            return await self.entered.get()

    async def dial(self, channel: str, place: Place, phone: str, **values: str) -> None:
        await self.ari.set_variables(
            channel,
            {
                "CR_DEST": f"PJSIP/callrouter-uri/{place.carrier.uri(phone)}",
                "CR_RING": "20",
                "CR_OPTS": "",
                "CR_REC": "",
                "CR_CID": "",
                "CR_WHISPER": "",
                "CR_MAX": "0",
                "CR_LEG": "leg-1",
                **values,
            },
        )
        await self.ari.continue_(channel, "cr-dial", "s", 1)


@asynccontextmanager
async def controller(place: Place) -> AsyncIterator[Controller]:
    found = Controller(place)
    await found.start()
    try:
        yield found
    finally:
        await found.vanish()


async def test_menu_then_whisper_then_talk_then_back(place: Place, home: Path) -> None:
    spool = place.settings.recording_spool
    whisper = home / "prompts" / "whisper"
    samples = (np.sin(np.arange(8000) * 2 * np.pi * 1000 / 8000) * 8000).astype(np.int16)
    soundfile.write(str(whisper) + ".wav", samples, 8000, subtype="PCM_16")
    await place.carrier.add_phone(Phone("front", answer(after=1, speak="tone:700", hang_up_after=4)))
    async with controller(place) as steering:
        call = asyncio.create_task(place.carrier.place(CallScript(did=DID, steps=(UntilHangup(),), speak="tone:250")))
        start = await steering.next()
        assert start.args == ["incoming", "simulator", DID]
        await steering.ari.answer(start.channel.id)
        await steering.dial(
            start.channel.id,
            place,
            "front",
            CR_REC=str(spool / "leg-1"),
            CR_WHISPER=str(whisper),
            CR_CID="+12025550199",
        )
        back = await steering.next()
        assert back.args[:4] == ["dialed", "ANSWER", "16", "leg-1"]
        assert "".join(back.args[4:]) == "", "no recording problem"
        assert (await steering.ari.get_variable(start.channel.id, "CALLERID(num)")) == "+12125550123"
        await steering.ari.hangup(start.channel.id, 16)
        result = await call
    (rung,) = await place.carrier.wait_phone_calls("front", 1)
    assert rung.from_number == "+12025550199"
    assert rung.heard is not None
    assert result.heard is not None
    assert tone_present(rung.heard, 1000), "the business hears the whisper"
    assert not tone_present(result.heard, 1000), "the caller does not"
    assert tone_present(result.heard, 440), "the caller hears ringing made here (440 + 480 Hz)"
    row = await place.row(1)
    assert (row.handled_by, row.dialstatus, row.leg, row.cause) == ("controller", "ANSWER", "leg-1", 16)
    assert row.talk_seconds == pytest.approx(3, abs=0.4), "four seconds of the business less one of whisper"
    caller, _ = soundfile.read(row.recording + "-rx.wav")
    business, _ = soundfile.read(row.recording + "-tx.wav")
    assert len(caller) / 8000 == pytest.approx(row.talk_seconds, abs=0.25)
    assert abs(len(caller) - len(business)) <= 160
    assert pitch(caller) == pytest.approx(250, abs=10)
    assert pitch(business) == pytest.approx(700, abs=10)
    assert len(place.rows()) == 1
    assert place.trouble() == []


@pytest.mark.parametrize("phone, args", [("engaged", ["BUSY", "17"]), ("never", ["NOANSWER", "19"])])
async def test_destination_that_does_not_answer_gives_the_caller_back(
    place: Place, phone: str, args: list[str]
) -> None:
    async with controller(place) as steering:
        call = asyncio.create_task(place.carrier.place(CallScript(did=DID)))
        start = await steering.next()
        await steering.dial(
            start.channel.id, place, phone, CR_RING="1", CR_REC=str(place.settings.recording_spool / "x")
        )
        back = await steering.next()
        assert back.args[:4] == ["dialed", *args, "leg-1"]
        await steering.ari.hangup(start.channel.id, int(args[1]))
        assert not (await call).answered


async def test_controller_gone_while_dialling_leaves_the_caller_to_the_failsafe(place: Place) -> None:
    steering = Controller(place)
    await steering.start()
    call = asyncio.create_task(place.carrier.place(CallScript(did=DID, steps=(Wait(1),))))
    start = await steering.next()
    await steering.dial(start.channel.id, place, "never", CR_RING="2")
    await steering.vanish()
    assert (await call).answered
    row = await place.row(1)
    assert (row.handled_by, row.failsafe_reason, row.dialstatus) == ("failsafe", "FAILED", "ANSWER")


async def test_business_hanging_up_on_the_whisper_is_no_answer(place: Place, home: Path) -> None:
    whisper = home / "prompts" / "long"
    soundfile.write(str(whisper) + ".wav", np.zeros(8000 * 5, dtype=np.int16), 8000, subtype="PCM_16")
    await place.carrier.add_phone(Phone("front", answer(after=0.2, hang_up_after=1)))
    async with controller(place) as steering:
        call = asyncio.create_task(place.carrier.place(CallScript(did=DID)))
        start = await steering.next()
        await steering.dial(start.channel.id, place, "front", CR_WHISPER=str(whisper))
        back = await steering.next()
        assert back.args[:2] == ["dialed", "NOANSWER"]
        await steering.ari.hangup(start.channel.id, 19)
        await call
    row = await place.row(1)
    assert (row.dialstatus, row.talk_seconds) == ("NOANSWER", 0)


async def test_longest_conversation_ends_it(place: Place) -> None:
    async with controller(place) as steering:
        call = asyncio.create_task(place.carrier.place(CallScript(did=DID, steps=(UntilHangup(),))))
        start = await steering.next()
        await steering.dial(start.channel.id, place, "front", CR_MAX="1")
        back = await steering.next()
        assert back.args[:2] == ["dialed", "ANSWER"]
        await steering.ari.hangup(start.channel.id, 16)
        assert (await call).talk_seconds == pytest.approx(1, abs=0.5)


async def test_hung_controller_is_noticed_without_broadcast_too(place: Place) -> None:
    write_config(
        render(place.settings, Older(place.install), [], load_secrets(place.settings)), place.settings.asterisk_etc_dir
    )
    await place.asterisk.rx("dialplan reload")
    await place.asterisk.rx("module reload cdr_custom.so")

    async def older() -> bool:
        return "CR_BROADCAST=0" in await place.asterisk.rx("dialplan show globals")

    await eventually(older, "the older dialplan", 10)
    async with controller(place) as steering:
        call = asyncio.create_task(place.carrier.place(CallScript(did=DID, steps=(Wait(0.5),))))
        assert (await steering.next()).args == ["incoming", "simulator", DID]
        assert (await call).answered, "nobody renewed the time-out"
    row = await place.row(1)
    assert (row.handled_by, row.failsafe_reason) == ("failsafe", "DEADMAN")
    assert row.talk_seconds == pytest.approx(0.5, abs=0.3), "the older Asterisk's ledger reads the same"
    assert row.start < (row.dial_at or 0) < (row.talk_at or 0) < row.end


async def test_caller_hears_early_media_of_the_destination(place: Place) -> None:
    await place.carrier.add_phone(Phone("front", early_media(1.5, early="tone:620", hang_up_after=1)))
    async with controller(place) as steering:
        call = asyncio.create_task(place.carrier.place(CallScript(did=DID, steps=(UntilHangup(),))))
        start = await steering.next()
        await steering.dial(start.channel.id, place, "front")
        await steering.next()
        await steering.ari.hangup(start.channel.id, 16)
        result = await call
    assert result.early is not None
    assert tone_present(result.early, 620)
