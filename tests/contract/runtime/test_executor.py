"""What each action asks of Asterisk, to the letter, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from callrouter.asterisk.ari import AriClient
from callrouter.core import actions as a
from callrouter.core.flow.nodes import Prompt
from callrouter.media.prompts import PromptLibrary
from callrouter.runtime.executor import Executor, Outcome
from tests.contract.runtime.support import APP, Asterisk, Tone

HELLO, BYE = Prompt(text="Hello"), Prompt(text="Goodbye")
CHANNEL = "1760000000.1"
DIAL = a.Dial(
    leg_id="c-l1",
    target_id="target-ana",
    target="ana",
    endpoint="PJSIP/+13125550100@trunk-carrier",
    ring_seconds=25,
    caller_id="+12025550123",
    whisper=(HELLO,),
    record=True,
    music=True,
)


@pytest.fixture
async def asterisk() -> AsyncIterator[Asterisk]:
    async with Asterisk(app=APP, finish_playbacks=False) as fake:
        fake.caller(CHANNEL).in_stasis = True
        fake.reply("POST", "^applications/callrouter/subscription", 200, {"name": APP})
        yield fake


@pytest.fixture
async def library(tmp_path: Path) -> PromptLibrary:
    library = PromptLibrary(tmp_path / "prompts", Tone())
    assert (await library.render({("company-1", HELLO), ("company-1", BYE)})).ok
    return library


@pytest.fixture
async def ari(asterisk: Asterisk) -> AsyncIterator[AriClient]:
    async with AriClient(asterisk.base_url, asterisk.user, asterisk.password, timeout=0.5) as client:
        yield client


@pytest.fixture
def executor(ari: AriClient, library: PromptLibrary) -> Executor:
    return Executor(ari, APP, library, Path("/spool/recording"), 14400)


Asked = list[tuple[str, str, dict[str, Any]]]


async def asked_by(executor: Executor, asterisk: Asterisk, action: a.Action) -> tuple[Outcome, Asked]:
    before = len(asterisk.requests)
    outcome = await executor.perform(CHANNEL, "company-1", action)
    return outcome, [(r.method, r.path, r.args) for r in asterisk.requests[before:]]


ON = f"channels/{CHANNEL}"
SUBSCRIBED = ("POST", "applications/callrouter/subscription", {"eventSource": f"channel:{CHANNEL}"})


@pytest.mark.parametrize(
    "action, wanted",
    [
        (a.Answer(), [("POST", f"{ON}/answer", {})]),
        (a.StopPlayback("c-p1"), [("DELETE", "playbacks/c-p1", {})]),
        (a.StopRecording("c-m1"), [("POST", "recordings/live/c-m1/stop", {})]),
        (a.Hangup(17), [("DELETE", ON, {"reason_code": "17"})]),
        (a.SetConsent(True), [("POST", f"{ON}/variables", {"variables": {"CR_CONSENT": "given"}})]),
        (a.SetConsent(False), [("POST", f"{ON}/variables", {"variables": {"CR_CONSENT": "refused"}})]),
        (
            a.LeaveToFailsafe("why"),
            [
                SUBSCRIBED,
                ("POST", f"{ON}/variables", {"variables": {"CR_FS_REASON": "CONTROLLER"}}),
                ("POST", f"{ON}/continue", {"context": "cr-failsafe", "extension": "s", "priority": 1}),
            ],
        ),
        (
            a.Record("c-m1", 120, 4, False, "#"),
            [
                (
                    "POST",
                    f"{ON}/record",
                    {
                        "name": "c-m1",
                        "format": "wav",
                        "maxDurationSeconds": 120,
                        "maxSilenceSeconds": 4,
                        "beep": False,
                        "terminateOn": "#",
                        "ifExists": "overwrite",
                    },
                )
            ],
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)
async def test_an_action_is_exactly_these_requests(
    executor: Executor, asterisk: Asterisk, action: a.Action, wanted: Asked
) -> None:
    asterisk.playbacks["c-p1"] = {"id": "c-p1", "target_uri": f"channel:{CHANNEL}"}
    if not isinstance(action, a.Record):
        asterisk.recordings["c-m1"] = {"name": "c-m1", "target_uri": f"channel:{CHANNEL}"}
    assert await asked_by(executor, asterisk, action) == (Outcome(), wanted)


@pytest.mark.parametrize("finish_on, said", [("", "none"), ("any", "any"), ("*", "*"), ("#", "#")])
async def test_the_key_that_ends_a_message(executor: Executor, asterisk: Asterisk, finish_on: str, said: str) -> None:
    _, asked = await asked_by(executor, asterisk, a.Record("c-m1", 5, 0, False, finish_on))
    assert asked[0][2]["terminateOn"] == said


async def test_the_beep_is_our_own_and_comes_before_the_recording(
    executor: Executor, asterisk: Asterisk, library: PromptLibrary
) -> None:
    """Asterisk's own is in a package that need not be there."""
    outcome, asked = await asked_by(executor, asterisk, a.Record("c-m1", 5, 0, True, ""))
    assert outcome == Outcome()
    assert [path for _, path, _ in asked] == [f"{ON}/play/c-m1-beep", f"{ON}/record"]
    (sound,) = asked[0][2]["media"]
    assert sound == f"sound:{library.directory / 'beep'}"
    assert [file.stat().st_size for file in library.directory.glob("beep*")] == [3200], "0.4 s, and nothing beside it"
    assert asked[1][2]["beep"] is False


async def test_many_first_messages_at_once_all_get_their_beep(
    executor: Executor, asterisk: Asterisk, library: PromptLibrary
) -> None:
    actions = [a.Record(f"c-m{number}", 5, 0, True, "") for number in range(20)]
    outcomes = await asyncio.gather(*(executor.perform(CHANNEL, "company-1", action) for action in actions))
    assert set(outcomes) == {Outcome()}
    assert len(asterisk.recordings) == len(asterisk.playbacks) == 20


async def test_a_message_is_taken_also_when_no_beep_can_be_made(
    ari: AriClient, asterisk: Asterisk, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    executor = Executor(ari, APP, PromptLibrary(tmp_path / "file", Tone()), tmp_path, 0)
    assert await executor.perform(CHANNEL, "company-1", a.Record("c-m1", 5, 0, True, "")) == Outcome()
    assert list(asterisk.recordings) == ["c-m1"]


async def test_prompts_are_one_playback_by_path_and_its_end_is_guarded(
    executor: Executor, asterisk: Asterisk, library: PromptLibrary
) -> None:
    outcome, asked = await asked_by(executor, asterisk, a.Play("c-p1", (HELLO, BYE)))
    paths = [library.path_for(prompt) for prompt in (HELLO, BYE)]
    assert asked == [("POST", f"{ON}/play/c-p1", {"media": [f"sound:{path}" for path in paths]})]
    seconds = sum(path.with_name(path.name + ".ulaw").stat().st_size for path in paths if path) / 8000
    assert (outcome.problem, outcome.gone) == ("", False)
    assert outcome.guard == pytest.approx(seconds + 5)


async def test_a_prompt_that_is_missing_fails_before_anything_is_asked(
    executor: Executor, asterisk: Asterisk, library: PromptLibrary
) -> None:
    path = library.path_for(BYE)
    assert path is not None
    path.with_name(path.name + ".alaw").unlink()
    outcome, asked = await asked_by(executor, asterisk, a.Play("c-p1", (HELLO, BYE)))
    assert asked == []
    assert (outcome.problem, outcome.gone) == ("prompt 'Goodbye' is not rendered", False)
    outcome, asked = await asked_by(executor, asterisk, a.Play("c-p1", (Prompt(file="jingle"),)))
    assert (outcome.problem, asked) == ("prompt 'jingle' is not rendered", [])


async def test_a_dial_sets_everything_the_dialplan_needs_in_one_request(
    executor: Executor, asterisk: Asterisk, library: PromptLibrary
) -> None:
    outcome, asked = await asked_by(executor, asterisk, DIAL)
    variables = {
        "CR_LEG": "c-l1",
        "CR_DEST": "PJSIP/+13125550100@trunk-carrier",
        "CR_RING": "25",
        "CR_OPTS": "m",
        "CR_REC": "/spool/recording/c-l1",
        "CR_PAUSE_KEYS": "",
        "CR_CID": "+12025550123",
        "CR_WHISPER": str(library.path_for(HELLO)),
        "CR_MAX": "14400",
        "CR_TARGET": "ana",
        "CR_COMPANY": "company-1",
        "_CR_MEMBERS": "",
    }
    assert outcome == Outcome()
    assert asked == [
        SUBSCRIBED,
        ("POST", f"{ON}/variables", {"variables": variables}),
        ("POST", f"{ON}/continue", {"context": "cr-dial", "extension": "s", "priority": 1}),
    ]


async def test_a_dial_with_another_trunk_behind_it_lets_the_caller_hear_ringing_at_once(
    executor: Executor, asterisk: Asterisk
) -> None:
    two = a.Dial("c-l3", "t", "cell", "PJSIP/+1@trunk-a", 10, None, record=False, ringing=True, trunk="a")
    await executor.perform(CHANNEL, "company-1", two)
    assert asterisk.channels[CHANNEL].variables["CR_OPTS"] == "R"


async def test_a_silent_leg_is_ended_and_not_its_caller(executor: Executor, asterisk: Asterisk) -> None:
    asterisk.caller("leg-channel")
    outcome, asked = await asked_by(executor, asterisk, a.StopLeg("c-l1", "leg-channel"))
    assert outcome == Outcome()
    assert asked == [("DELETE", "channels/leg-channel", {"reason_code": "102"})]
    assert CHANNEL in asterisk.channels
    again, _ = await asked_by(executor, asterisk, a.StopLeg("c-l1", "leg-channel"))
    assert again.gone


async def test_a_second_dial_leaves_nothing_of_the_first(executor: Executor, asterisk: Asterisk) -> None:
    await executor.perform(CHANNEL, "company-1", DIAL)
    asterisk.channels[CHANNEL].in_stasis = True
    plain = a.Dial("c-l2", "t", "ben", "PJSIP/callrouter-uri/sip:b@192.0.2.1", 10, None, record=False)
    await executor.perform(CHANNEL, "company-1", plain)
    left = asterisk.channels[CHANNEL].variables
    assert {name: left[name] for name in ("CR_OPTS", "CR_REC", "CR_CID", "CR_WHISPER")} == dict.fromkeys(
        ("CR_OPTS", "CR_REC", "CR_CID", "CR_WHISPER"), ""
    )


async def test_a_whisper_that_is_missing_does_not_keep_the_business_from_ringing(
    executor: Executor, asterisk: Asterisk
) -> None:
    silent = a.Dial("c-l1", "t", "ana", "PJSIP/callrouter-uri/sip:a@192.0.2.1", 10, None, (Prompt(text="Unsaid"),))
    outcome, asked = await asked_by(executor, asterisk, silent)
    assert outcome == Outcome()
    assert asked[1][2]["variables"]["CR_WHISPER"] == ""


ACTIONS: list[a.Action] = [
    a.Answer(),
    a.Play("c-p1", (HELLO,)),
    a.StopPlayback("c-p1"),
    DIAL,
    a.Record("c-m1", 5, 0, False, ""),
    a.StopRecording("c-m1"),
    a.Hangup(16),
    a.LeaveToFailsafe("why"),
]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: type(action).__name__)
@pytest.mark.parametrize("status", [404, 409])
async def test_what_is_gone_is_no_failure(
    executor: Executor, asterisk: Asterisk, action: a.Action, status: int
) -> None:
    for method in ("POST", "DELETE"):
        asterisk.reply(method, ".", status, {"message": "Channel not found"})
    outcome = await executor.perform(CHANNEL, "company-1", action)
    assert outcome.gone


@pytest.mark.parametrize("action", [DIAL, a.LeaveToFailsafe("why")], ids=lambda action: type(action).__name__)
async def test_a_caller_who_goes_before_we_listen_is_told_as_gone(
    executor: Executor, asterisk: Asterisk, action: a.Action
) -> None:
    """Asterisk's words for a channel that is not there any more to be subscribed: nobody will report its end."""
    asterisk.reply("POST", "^applications/callrouter/subscription", 422, {"message": "Event source does not exist"})
    outcome, asked = await asked_by(executor, asterisk, action)
    assert (outcome.gone, outcome.unreported) == (True, True)
    assert asked == [SUBSCRIBED]


async def test_a_caller_who_goes_between_two_requests_is_told_as_gone(executor: Executor, asterisk: Asterisk) -> None:
    """Asterisk does not say 404 for a variable of a channel that hangs up just then."""
    asterisk.reply("POST", f"{ON}/variables", 400, {"message": "Failed to execute function"})
    asterisk.reply("GET", f"^{ON}$", 404, {"message": "Channel not found"})
    outcome = await executor.perform(CHANNEL, "company-1", DIAL)
    assert (outcome.gone, outcome.unreported) == (True, False)


async def test_a_variable_refused_for_a_living_channel_is_a_problem(executor: Executor, asterisk: Asterisk) -> None:
    asterisk.reply("POST", f"{ON}/variables", 400, {"message": "Failed to execute function"})
    outcome = await executor.perform(CHANNEL, "company-1", DIAL)
    assert not outcome.gone
    assert "Failed to execute function" in outcome.problem


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: type(action).__name__)
async def test_a_refusal_comes_back_as_a_problem(executor: Executor, asterisk: Asterisk, action: a.Action) -> None:
    for method in ("POST", "DELETE"):
        asterisk.reply(method, ".", 500, {"message": "Allocation failed"})
    outcome = await executor.perform(CHANNEL, "company-1", action)
    assert not outcome.gone
    assert "Allocation failed" in outcome.problem


async def test_an_asterisk_that_does_not_answer_is_a_problem(executor: Executor, asterisk: Asterisk) -> None:
    await asterisk.stop()
    outcome = await executor.perform(CHANNEL, "company-1", a.Answer())
    assert outcome.problem
    assert not outcome.gone


@pytest.mark.parametrize("channel", ["a/b", "a?x=1", "../applications", "a#b", "a%2Fb", "a b;c", "ä\0"])
async def test_no_id_can_leave_its_place_in_the_path(executor: Executor, asterisk: Asterisk, channel: str) -> None:
    await executor.perform(channel, "company-1", a.Answer())
    (request,) = asterisk.requests
    assert request.segments == ("channels", channel.replace("\0", ""), "answer")


async def test_what_a_caller_chose_is_never_in_a_path(executor: Executor, asterisk: Asterisk) -> None:
    """A dialled number and a name travel in bodies alone."""
    odd = a.Dial("c-l1", "t", "ana", "PJSIP/x", 5, "+1/../../asterisk?x=#", record=False)
    await executor.perform(CHANNEL, "company-1", odd)
    assert {request.segments[0] for request in asterisk.requests} == {"channels", "applications"}
    assert asterisk.channels[CHANNEL].variables["CR_CID"] == "+1/../../asterisk?x=#"
