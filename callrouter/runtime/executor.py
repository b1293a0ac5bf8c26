"""Doing what the core asked for, over ARI. What cannot be done comes back as a value, never as an exception."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import structlog

from callrouter.asterisk.ari import AriClient
from callrouter.core import actions as a
from callrouter.core.flow.nodes import Prompt
from callrouter.errors import AmiError, AriError
from callrouter.media.beep import beep

log = structlog.get_logger(__name__)

TALK_CONTEXT = "cr-dial"
FAILSAFE_CONTEXT = "cr-failsafe"
FAILSAFE_REASON = {"CR_FS_REASON": "CONTROLLER"}
"""Tells the ledger that the controller gave the call back itself."""
ULAW_BYTES_PER_SECOND = 8000
SILENT_CAUSE = 102
"""Q.850 "recovery on timer expiry", given to a leg that shows no sign of life."""


class Prompts(Protocol):
    """Where rendered prompts are found; the media library is one."""

    directory: Path

    def path_for(self, prompt: Prompt, company_id: str) -> Path | None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an action.

    ``problem``: why it failed; "" when it did not. ``gone``: the channel exists no more, its end will be reported.
    ``unreported``: gone before we could ask for its events, so that nobody reports the end.
    ``guard``: seconds after which a playback that has not reported its end is taken as ended.
    """

    problem: str = ""
    gone: bool = False
    unreported: bool = False
    guard: float | None = None


DONE = Outcome()


class Executor:
    """Turns actions into ARI requests.

    :param app: Stasis application, for subscriptions
    :param spool: where Asterisk writes raw recordings
    :param mute: has silence recorded of a channel's conversation (True), or what is said (False)
    """

    def __init__(
        self,
        ari: AriClient,
        app: str,
        prompts: Prompts,
        spool: Path,
        max_call_seconds: int,
        mute: Callable[[str, bool], Awaitable[bool]] | None = None,
    ) -> None:
        self._ari = ari
        self._app = app
        self._prompts = prompts
        self._spool = spool
        self._max_call_seconds = max_call_seconds
        self._mute = mute

    async def perform(self, channel: str, company_id: str, action: a.Action) -> Outcome:
        """Do one action on a caller's channel."""
        try:
            match action:
                case a.Answer():
                    await self._ari.answer(channel)
                case a.Play():
                    return await self._play(channel, company_id, action)
                case a.StopPlayback():
                    await self._ari.stop_playback(action.playback_id)
                case a.Dial():
                    return await self._dial(channel, company_id, action)
                case a.StopLeg():
                    await self._ari.hangup(action.channel, SILENT_CAUSE)
                case a.Record():
                    await self._record(channel, action)
                case a.StopRecording():
                    await self._ari.stop_recording(action.recording_id)
                case a.SetConsent():
                    await self._ari.set_variables(channel, {"CR_CONSENT": "given" if action.given else "refused"})
                case a.PauseRecording():
                    return await self._pause(channel, action)
                case a.Hangup():
                    await self._ari.hangup(channel, action.cause)
                case a.LeaveToFailsafe():
                    return await self._leave(channel, FAILSAFE_CONTEXT, FAILSAFE_REASON)
                case a.StartTimer() | a.CancelTimer() | a.AskGroup() | a.AskWebhook() | a.StopWebhook():
                    raise TypeError("timers, groups and webhooks are the call's own")
        except AriError as exc:
            if exc.gone or await self._is_gone(channel, exc):
                # An everyday outcome: the caller, the playback or the recording ended meanwhile.
                return Outcome(problem="gone", gone=True)
            return Outcome(problem=exc.message)
        return DONE

    async def _is_gone(self, channel: str, refusal: AriError) -> bool:
        """Whether what was refused in other words was asked of a channel that just went."""
        if not 400 <= refusal.status < 500:
            return False
        try:
            await self._ari.channel(channel)
        except AriError as exc:
            return exc.gone
        return False

    async def _play(self, channel: str, company_id: str, action: a.Play) -> Outcome:
        paths = [self._prompts.path_for(prompt, company_id) for prompt in action.prompts]
        found = [path for path in paths if path is not None]
        # Asterisk skips a missing file in silence and calls it played: look first.
        if len(found) < len(paths):
            missing = next(prompt for prompt, path in zip(action.prompts, paths, strict=True) if path is None)
            return Outcome(problem=f"prompt {missing.text or missing.file!r} is not rendered")
        await self._ari.play(channel, action.playback_id, [f"sound:{path}" for path in found])
        return Outcome(guard=sum(_seconds(path) for path in found) + 5.0)

    async def _dial(self, channel: str, company_id: str, action: a.Dial) -> Outcome:
        return await self._leave(
            channel,
            TALK_CONTEXT,
            {
                "CR_LEG": action.leg_id,
                "CR_DEST": action.endpoint or "&".join(each.endpoint for each in _trunks_first(action.branches)),
                "CR_RING": str(action.ring_seconds),
                "CR_OPTS": "m" if action.music else "R" if action.ringing else "",
                "CR_REC": str(self._spool / action.leg_id) if action.record else "",
                "CR_PAUSE_KEYS": "1" if action.pause_keys else "",
                "CR_CID": action.caller_id or "",
                "CR_WHISPER": self._whisper(action, company_id),
                "CR_MAX": str(self._max_call_seconds),
                "CR_TARGET": action.target,
                "CR_COMPANY": company_id,
                **self._members(action, company_id),
            },
        )

    def _members(self, action: a.Dial, company_id: str) -> dict[str, str]:
        """What the dialplan has to know of each of several that ring at once; "_" lets their channels inherit it."""
        found = {"_CR_MEMBERS": str(len(action.branches) or "")}
        for place, each in enumerate(action.branches, 1):
            found[f"_CR_DEST_{place}"] = each.endpoint
            found[f"_CR_CID_{place}"] = each.caller_id or ""
            found[f"_CR_WHISPER_{place}"] = self._whisper(each, company_id)
        return found

    def _whisper(self, leg: a.Dial | a.Branch, company_id: str) -> str:
        """Path of what a destination hears first; "" for nothing."""
        path = next((self._prompts.path_for(prompt, company_id) for prompt in leg.whisper), None)
        if leg.whisper and path is None:
            log.warning("whisper_not_rendered", leg=leg.leg_id)
        return str(path or "")

    async def _leave(self, channel: str, context: str, variables: Mapping[str, str]) -> Outcome:
        """Hand the channel to the dialplan. The subscription lets its events still come, also when a caller hangs up
        between these requests: hence it is the first of them."""
        try:
            await self._ari.subscribe(self._app, f"channel:{channel}")
        except AriError as exc:
            if exc.status == 410:
                return Outcome(problem="gone", gone=True, unreported=True)
            raise
        await self._ari.set_variables(channel, variables)
        await self._ari.continue_(channel, context, "s", 1)
        return DONE

    async def _pause(self, channel: str, action: a.PauseRecording) -> Outcome:
        if self._mute is None:
            return Outcome(problem="this server has no manager interface")
        try:
            return DONE if await self._mute(channel, action.on) else Outcome(problem="gone", gone=True)
        except AmiError as exc:
            return Outcome(problem=exc.message)

    async def _record(self, channel: str, action: a.Record) -> None:
        if action.beep:
            # What is asked of a channel is done in turn: the recording begins when this has been played.
            try:
                tone = await asyncio.to_thread(beep, self._prompts.directory)
            except OSError as exc:  # a message without a beep before it is better than none
                log.warning("beep_not_made", reason=str(exc))
            else:
                await self._ari.play(channel, f"{action.recording_id}-beep", [f"sound:{tone}"])
        await self._ari.record(
            channel,
            action.recording_id,
            format="wav",
            max_duration_seconds=action.max_seconds,
            max_silence_seconds=action.silence_seconds,
            beep=False,
            terminate_on=_TERMINATORS[action.finish_on],
            if_exists="overwrite",
        )


def _trunks_first(branches: Sequence[a.Branch]) -> list[a.Branch]:
    """The dialplan tells by the first one whether a dial goes over a trunk."""
    return sorted(branches, key=lambda each: each.trunk is None)


_TERMINATORS: dict[str, Literal["none", "any", "*", "#"]] = {"": "none", "any": "any", "*": "*", "#": "#"}


def _seconds(path: Path) -> float:
    """How long a prompt plays, from the size of its µ-law file."""
    try:
        return path.with_name(path.name + ".ulaw").stat().st_size / ULAW_BYTES_PER_SECOND
    except OSError:
        return 60.0
