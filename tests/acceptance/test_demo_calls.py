"""The five calls of the demonstration, on real Asterisk: what each end heard, what was sent, what was written down."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
import soundfile

from callrouter.core.disposition import Disposition
from callrouter.demo.business import CALLS, LINES, load_business, phones
from callrouter.store import config
from callrouter.store.calls import StoredCall
from callrouter.testing.audio import duration, tone_present
from callrouter.testing.carrier_legs import CallResult, PhoneCall
from callrouter.testing.carrier_script import CallScript, Digits, Phone, UntilHangup, Wait, answer
from tests.acceptance.listening import voice
from tests.fixtures.installation import Installation, eventually, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

MENU, STRAIGHT, BUSY, UNANSWERED, HUNG_UP = range(5)


class Demo:
    """The five calls, placed at once, and all that is known of them."""

    def __init__(self, house: Installation) -> None:
        self.house = house
        self.results: list[CallResult] = []
        self.calls: list[StoredCall] = []
        self.rang: dict[str, list[PhoneCall]] = {}

    async def run(self) -> None:
        house = self.house
        async with house.database.session() as session:
            await load_business(session, house.carrier)
        await house.in_force()
        # Each side sounds different, so that who heard whom can be told.
        scripts = [
            CallScript(
                did=call.script.did,
                caller=call.script.caller,
                caller_name=call.script.caller_name,
                # Keys that come while the prompt plays must cut it short; the rest is as in the demonstration.
                steps=(Wait(2.5), Digits("1"), UntilHangup()) if number == MENU else call.script.steps,
                max_seconds=call.script.max_seconds,
                speak=f"tone:{440 + 40 * number}",
            )
            for number, call in enumerate(CALLS)
        ]
        self.results = await house.carrier.place_all(scripts)
        for call in CALLS:
            [record] = await house.records_of(call.script.did)
            self.calls.append(record)
        for line in LINES:
            self.rang[line.name] = await house.carrier.phone_calls(line.name)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def demo() -> AsyncIterator[Demo]:
    async with installation() as place:
        for phone in phones():
            await place.carrier.add_phone(phone)
        for name, hz in (("reception", 900), ("dr-lee", 960)):
            await place.carrier.add_phone(
                Phone(name, answer(after=1.5 if name == "reception" else 2.5, hang_up_after=6.0, speak=f"tone:{hz}"))
            )
        await place.start_server()
        demo = Demo(place)
        await demo.run()
        yield demo


def heard(path: Path | None) -> Path:
    assert path is not None
    return path


async def test_every_call_is_one_row_with_its_attribution(demo: Demo) -> None:
    expected = {
        MENU: ("harbor-dental", "billboard-i95", "billboard-line", "billboard", "offline"),
        STRAIGHT: ("harbor-dental", "spring-radio", "radio-line", "radio", "offline"),
        BUSY: ("westside-plumbing", "search-emergency", "search-line", "google", "cpc"),
        UNANSWERED: ("harbor-dental", None, "statement-line", None, None),
        HUNG_UP: ("harbor-dental", "spring-radio", "radio-evening-line", "radio", "offline"),
    }
    for number, facts in expected.items():
        call = demo.calls[number]
        record = call.record
        assert (call.company, call.campaign, call.number, record.source, record.medium) == facts
        assert record.did == CALLS[number].script.did
        assert record.caller == CALLS[number].script.caller
        assert record.caller_name == CALLS[number].script.caller_name
        assert record.handled_by == "controller"
        assert record.test


async def test_disposition_and_reason(demo: Demo) -> None:
    expected = [
        (Disposition.ANSWERED, r"reception answered and talked for \d+ s"),
        (Disposition.ANSWERED, r"dr-lee answered and talked for \d+ s"),
        (Disposition.BUSY, r"(dispatch|on-call) was busy"),
        (Disposition.NO_ANSWER, r"billing-desk did not answer"),
        (Disposition.ABANDONED, r"the caller hung up in menu"),
    ]
    for call, (disposition, reason) in zip(demo.calls, expected, strict=True):
        assert call.record.disposition is disposition
        assert re.fullmatch(reason, call.record.reason), call.record.reason


async def test_path_flow_version_and_tags(demo: Demo) -> None:
    async with demo.house.database.session() as session:
        desk = await config.get_flow(session, "harbor-dental/front-desk")
        emergency = await config.get_flow(session, "westside-plumbing/emergency")
    menu, straight, busy, unanswered, hung_up = (call.record for call in demo.calls)
    assert menu.path == ("menu", "appointments", "reception")
    assert menu.tags == ("appointment",)
    assert straight.path == ("dial",)
    assert busy.path[0] == "hours"
    assert busy.path[-1] == "busy"
    assert unanswered.path == ("dial", "no-answer")
    assert hung_up.path == ("menu",)
    assert [record.flow_version_id for record in (menu, straight, busy, unanswered, hung_up)] == [
        desk.id,
        None,
        emergency.id,
        None,
        desk.id,
    ]


async def test_each_destination_tried_is_one_leg(demo: Demo) -> None:
    assert [len(call.record.legs) for call in demo.calls[:2]] == [1, 1]
    assert [len(call.record.legs) for call in demo.calls[3:]] == [1, 0]
    # By the hour it is the office or the plumber on call; a busy office is not passed on.
    assert [leg.target for leg in demo.calls[BUSY].record.legs] in (["dispatch"], ["on-call"])
    rang = {name: len(calls) for name, calls in demo.rang.items() if calls}
    tried = [leg.target for call in demo.calls for leg in call.record.legs]
    assert rang == {name: tried.count(name) for name in tried}


async def test_ring_and_talk_times_are_those_of_the_other_end(demo: Demo) -> None:
    for number, name in ((MENU, "reception"), (STRAIGHT, "dr-lee")):
        record, [phone] = demo.calls[number].record, demo.rang[name]
        assert phone.answered_at is not None
        assert phone.ended is not None
        assert record.answered_at is not None
        assert record.ended_at is not None
        assert record.legs[0].started_at == pytest.approx(phone.started, abs=0.5)
        # The whisper comes between the phone's answer and the conversation: the caller still hears ringing.
        assert 0 <= record.answered_at - phone.answered_at < 4.0
        assert record.answered_at + record.talk_seconds == pytest.approx(phone.ended, abs=0.5)
        assert record.ring_seconds == pytest.approx(record.answered_at - phone.started, abs=0.6)
        assert record.ended_at == pytest.approx(demo.results[number].ended, abs=0.5)
    assert demo.calls[UNANSWERED].record.ring_seconds == pytest.approx(6.0, abs=0.7)
    for number in (BUSY, UNANSWERED, HUNG_UP):
        record = demo.calls[number].record
        assert record.talk_seconds == 0
        assert record.answered_at is None
        assert record.answered_by is None


async def test_what_the_caller_got(demo: Demo) -> None:
    menu, straight, busy, unanswered, hung_up = demo.results
    assert menu.answered
    assert menu.hung_up_by == "callee"
    assert straight.answered
    assert straight.ringing is not None
    assert (busy.answered, busy.sip_status) == (False, 486)
    assert (unanswered.answered, unanswered.sip_status) == (False, 480)
    assert hung_up.answered
    assert hung_up.hung_up_by == "caller"


async def test_what_each_end_heard(demo: Demo) -> None:
    [reception], [dr_lee] = demo.rang["reception"], demo.rang["dr-lee"]
    menu, straight = demo.results[MENU], demo.results[STRAIGHT]
    # The menu's prompt, then the receptionist.
    assert voice(heard(menu.heard))
    assert tone_present(heard(menu.heard), 900, min_seconds=2.0)
    # The whisper, then the caller.
    assert voice(heard(reception.heard))
    assert tone_present(heard(reception.heard), 440, min_seconds=2.0)
    # Straight through: no prompt, and the whisper is not for the caller.
    assert tone_present(heard(straight.heard), 960, min_seconds=2.0)
    assert not voice(heard(straight.heard))
    assert voice(heard(dr_lee.heard))
    assert tone_present(heard(dr_lee.heard), 480, min_seconds=2.0)
    # Nobody heard somebody else's call.
    assert not tone_present(heard(menu.heard), 960)
    assert not tone_present(heard(straight.heard), 900)
    assert not tone_present(heard(reception.heard), 480)
    assert not tone_present(heard(dr_lee.heard), 440)
    assert voice(heard(demo.results[HUNG_UP].heard))


async def test_the_key_press_stays_with_the_menu(demo: Demo) -> None:
    assert "menu: digit 1: the caller pressed 1" in "\n".join(
        f"{step.path}: {step.what}: {step.why}" for step in demo.calls[MENU].record.trace
    )
    assert demo.rang["reception"][0].digits == ""


async def test_the_outgoing_invite_names_the_caller(demo: Demo) -> None:
    for number, name in ((MENU, "reception"), (STRAIGHT, "dr-lee"), (UNANSWERED, "billing-desk")):
        [phone] = demo.rang[name]
        script = CALLS[number].script
        assert f"<sip:{script.caller}@" in phone.header("From")
        assert str(script.caller_name) in phone.header("From")
        assert phone.to == name
        # What belongs between us and Asterisk goes no further.
        assert not [header for header in phone.headers if header.lower().startswith("x-")]
        assert "CR_" not in str(phone.headers)


async def test_recordings_hold_both_sides_apart(demo: Demo) -> None:
    for number, (left, right) in {MENU: (440, 900), STRAIGHT: (480, 960)}.items():
        call = demo.calls[number]
        [recording] = call.recordings
        assert (recording.status, recording.problem, recording.kind) == ("ok", None, "conversation")
        assert recording.leg_id == call.record.legs[0].id
        file = demo.house.settings.recordings / str(recording.path)
        assert hashlib.sha256(file.read_bytes()).hexdigest() == recording.sha256
        assert file.stat().st_size == recording.size_bytes
        samples, rate = soundfile.read(file)
        assert (file.suffix, rate, samples.shape[1]) == (".flac", 8000, 2)
        assert tone_present(file, left, channel=0, min_seconds=2.0)
        assert tone_present(file, right, channel=1, min_seconds=2.0)
        assert not tone_present(file, right, channel=0)
        assert not tone_present(file, left, channel=1)
        assert duration(file) == pytest.approx(call.record.talk_seconds, abs=0.4)
        assert recording.seconds == pytest.approx(duration(file), abs=0.01)
        assert recording.left_dbfs is not None
        assert recording.right_dbfs is not None
        assert recording.left_dbfs > -35
        assert recording.right_dbfs > -35
    for number in (BUSY, UNANSWERED, HUNG_UP):
        assert demo.calls[number].recordings == ()
        assert demo.calls[number].record.recording_problem is None


async def test_recordings_are_kept_by_date_and_name_nobody(demo: Demo) -> None:
    kept = demo.house.settings.recordings
    files = [path.relative_to(kept) for path in kept.rglob("*") if path.is_file()]
    # Each with its manifest beside it.
    assert sorted(file.suffix for file in files) == [".flac", ".flac", ".json", ".json"]
    assert len({file.with_suffix("") for file in files}) == 2
    numbers = [text.lstrip("+")[-7:] for call in CALLS for text in (call.script.did, call.script.caller)]
    for file in files:
        assert file.parent.as_posix() == datetime.now(UTC).strftime("%Y/%m/%d")
        assert not any(number in file.as_posix().replace("-", "") for number in numbers)
        assert not any(number.encode() in (kept / file).read_bytes() for number in numbers)
    raw = [path for path in demo.house.settings.recording_spool.glob("*.wav") if path.stat().st_size > 44]
    assert raw == []


async def test_every_decision_has_its_reason(demo: Demo) -> None:
    for call in demo.calls:
        assert all(step.why and step.path and step.what for step in call.record.trace)
        assert [step.at for step in call.record.trace] == sorted(step.at for step in call.record.trace)
        visited = tuple(step.path.rsplit("/")[-1] for step in call.record.trace if step.what == "reached")
        assert visited == call.record.path
        assert call.record.trace[0].what == "routed"
        assert call.record.trace[-1].what == str(call.record.disposition)


async def test_the_ledger_agrees(demo: Demo) -> None:
    statuses = ["ANSWER", "ANSWER", "BUSY", "NOANSWER", ""]
    for call, result, status in zip(demo.calls, demo.results, statuses, strict=True):
        row = await demo.house.ledger_of(call.record.uniqueid)
        assert row.did == call.record.did
        assert row.caller == call.record.caller
        assert row.handled_by == "controller"
        assert row.dialstatus == status
        assert row.start == pytest.approx(call.record.started_at, abs=0.3)
        assert row.end == pytest.approx(result.ended, abs=0.5)
        assert row.talk_seconds == pytest.approx(call.record.talk_seconds, abs=0.3)
    assert len(demo.house.ledger()) == 5


async def test_nothing_is_left_behind(demo: Demo) -> None:
    house = demo.house
    assert house.server is not None
    await house.idle()
    assert house.status()["calls"] == 0
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("call-")]
    async with house.ari() as ari:
        assert (await ari.application(house.settings.ari_app)).channel_ids == []
        assert await ari.bridges() == []
    await eventually(lambda: house.status()["journal"]["pending"] == 0, "the journal is drained")
