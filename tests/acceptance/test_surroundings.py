"""Broken surroundings of a server that runs: what is said, and that calls go on."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from secrets import token_urlsafe

import pytest
import pytest_asyncio

from callrouter.bootstrap import asterisk_process, open_server
from callrouter.config import load_settings
from callrouter.core.disposition import Disposition
from callrouter.errors import ConflictError
from callrouter.jobs import finish_recording
from callrouter.store.calls import StoredCall
from callrouter.testing.audio import tone_present
from callrouter.testing.carrier_script import Answered, Hangup, UntilHangup, Wait, answer
from tests.acceptance.listening import voice
from tests.fixtures.installation import BUSINESS_HZ, CALLER_HZ, Business, Installation, eventually, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

TALK = (Answered(), Wait(2.0), Hangup())
DESK = {"desk": answer(after=0.2, speak=f"tone:{BUSINESS_HZ}", hang_up_after=1.0)}


async def test_a_wrong_ari_password_is_told(house: Installation) -> None:
    """A second server that has the wrong password says so, and does no harm."""
    home = house.settings.home_dir.with_name(house.settings.home_dir.name + "-x")
    shutil.copytree(house.settings.secrets_dir, home / "secrets")
    try:
        secret = home / "secrets" / "ari-password"
        secret.unlink()
        secret.touch(0o600)
        wrong = token_urlsafe(32)
        secret.write_text(wrong)
        (home / "callrouter.toml").write_text((house.settings.home_dir / "callrouter.toml").read_text())
        settings = load_settings(
            home / "callrouter.toml", {}, home=str(home), database_url=house.settings.database, ari_app="other"
        )
        async with open_server(settings) as server:
            running = asyncio.create_task(server.run())
            await eventually(lambda: server.status()["ari"]["state"] == "refused", "the refusal is told")
            said = server.status()["ari"]["error"]
            assert "password" in said.lower()
            assert wrong not in str(server.status())
            server.stop()
            await running
    finally:
        shutil.rmtree(home)
    seen = await house.call(await house.business(DESK))
    assert seen.call.record.handled_by == "controller"


async def test_a_sip_port_in_use_is_told() -> None:
    async with installation(work=False) as place:
        await place.asterisk.stop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind((place.settings.sip_bind, place.settings.sip_port))  # as another program would
            second = asterisk_process(place.settings, place.install)
            try:
                with pytest.raises(ConflictError, match="Address already in use") as told:
                    await second.start()
            finally:
                await second.stop()
            assert told.value.hint
            assert not second.running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def store() -> AsyncIterator[Installation]:
    """An installation whose recording store gets broken."""
    async with installation() as place:
        await place.start_server()
        yield place


async def spoken_with(place: Installation, business: Business, **script: object) -> StoredCall:
    """A call that must be a conversation whatever became of the recording."""
    seen = await place.call(business, **({"steps": TALK} | script))
    assert seen.call.record.disposition is Disposition.ANSWERED
    assert seen.caller.heard is not None
    assert tone_present(seen.caller.heard, BUSINESS_HZ)
    assert seen.phone.heard is not None
    assert tone_present(seen.phone.heard, CALLER_HZ)
    return seen.call


async def until_store(place: Installation, broken: bool) -> None:
    await eventually(lambda: bool(place.status()["recording_store"]["problem"]) is broken, "the store is looked at")


async def test_the_recording_directory_is_missing(store: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish_recording, "APPEAR_SECONDS", 3.0)  # sooner given up than in earnest: 30 s
    business = await store.business(DESK)
    spool = store.settings.recording_spool
    away = spool.with_name("away")
    spool.rename(away)
    try:
        # At once, before anybody looked: the dialplan notices.
        unnoticed = await spoken_with(store, business)
        await until_store(store, True)
        noticed = await spoken_with(store, business)
    finally:
        if spool.exists():
            shutil.rmtree(spool)
        away.rename(spool)
    await until_store(store, False)
    for call in (unnoticed, noticed):
        assert call.record.recording_problem is not None
        assert "missing" in call.record.recording_problem
        assert all(each.status == "missing" for each in call.recordings)
    well = await spoken_with(store, business)
    assert well.record.recording_problem is None
    assert [each.status for each in well.recordings] == ["ok"]


async def test_a_message_cannot_be_recorded(store: Installation) -> None:
    flow = """
start: message
nodes:
  message: {type: voicemail, greeting: Leave a message., on_failed: sorry, on_done: end}
  sorry: {type: play, prompt: We cannot take a message now. Please call again later., next: end}
  end: {type: hangup}
"""
    business = await store.business(DESK, flow=flow)
    spool = store.settings.recording_spool
    away = spool.with_name("away")
    spool.rename(away)
    try:
        await until_store(store, True)
        seen = await store.call(business, steps=(UntilHangup(),))
    finally:
        if spool.exists():
            shutil.rmtree(spool)
        away.rename(spool)
    await until_store(store, False)
    assert seen.call.record.path == ("message", "sorry", "end")
    assert seen.call.record.recording_problem is not None
    assert seen.call.record.disposition is not Disposition.VOICEMAIL
    assert len(voice(seen.caller.heard)) >= 1
    assert seen.caller.hung_up_by == "callee"


async def test_the_recording_directory_breaks_during_a_call(store: Installation) -> None:
    business = await store.business({"desk": answer(after=0.2, speak=f"tone:{BUSINESS_HZ}")})
    kept = store.settings.recordings
    away = kept.with_name("away-kept")
    caller = store.caller()
    running = asyncio.create_task(store.place(business, caller=caller, steps=(Answered(), Wait(6.0), Hangup())))
    try:
        await eventually(lambda: store.status()["calls"] == 1, "the call")

        async def answered() -> bool:
            calls = await store.carrier.phone_calls(business.phones["desk"])
            return bool(calls) and calls[0].answered

        await eventually(answered, "the conversation")
        kept.rename(away)
        await until_store(store, True)
        result = await running
    finally:
        running.cancel()
        if kept.exists():
            shutil.rmtree(kept)
        away.rename(kept)
    assert result.talk_seconds == pytest.approx(6.0, abs=0.5)
    await until_store(store, False)
    # The raw legs were kept, so nothing was lost after all; the record says what happened.
    [call] = await store.records_of(business.did, caller, seconds=60)
    assert call.record.recording_problem is not None
    assert "may be incomplete" in call.record.recording_problem
    assert [each.status for each in call.recordings] == ["ok"]


async def test_a_full_disk_is_known_before_a_call() -> None:
    async with installation(recording_min_free_mb=10_000_000) as place:
        server = await place.start_server()
        await eventually(lambda: server.status()["recording_store"]["problem"], "the full disk is noticed")
        call = await spoken_with(place, await place.business(DESK))
        assert call.record.recording_problem is not None
        assert "MB free" in call.record.recording_problem
        assert call.recordings == ()
        assert list(place.settings.recording_spool.glob("*.wav")) == []


async def test_opus_when_it_is_asked_for() -> None:
    async with installation(recording_format="opus") as place:
        await place.start_server()
        call = await spoken_with(place, await place.business(DESK))
        [recording] = call.recordings
        assert (recording.status, recording.format) == ("ok", "opus")
        file = place.settings.recordings / str(recording.path)
        assert file.suffix == ".opus"
        assert tone_present(file, CALLER_HZ, channel=0)
        assert tone_present(file, BUSINESS_HZ, channel=1)
