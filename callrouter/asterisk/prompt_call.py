"""A call to a telephone that records a prompt: rung by ARI, run by the dialplan (``dialplans/prompt.conf``)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from callrouter.asterisk.ari import AriClient
from callrouter.errors import AriError, ServiceError

CONTEXT = "cr-prompt"
ASK = "After the tone, say what callers are to hear. Then press pound."
CHECK = "To keep this, press 1, or hang up. To record it again, press 2."
LOOK_SECONDS = 0.25
NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class PromptCall:
    """Whom to ring, and what to record."""

    id: str
    """Of the channel."""
    endpoint: str
    """Dial string (``core.dialstring``)."""
    path: Path
    """Where Asterisk writes, without extension."""
    ask: Path
    beep: Path
    check: Path
    """Sounds that are played, without extension."""
    seconds: int = 120
    """Longest recording."""
    ring_seconds: int = 30

    @property
    def file(self) -> Path:
        return self.path.with_name(f"{self.path.name}.wav")


async def record_by_telephone(ari: AriClient, call: PromptCall, told: Callable[[str], None]) -> bytes:
    """Ring a telephone and have a prompt recorded there.

    :param told: is given a line of progress
    :returns: the recording, a WAV file; nothing of it is left in Asterisk's directory
    :raises ServiceError: it did not answer, or nothing was recorded
    :raises AriError: Asterisk does not answer, or cannot ring it
    """
    variables = {
        # From the first moment: it is nobody's call, answered or not.
        "CDR_PROP(disable)": "1",
        "CR_PROMPT": str(call.path),
        "CR_PROMPT_SECONDS": str(call.seconds),
        "CR_PROMPT_ASK": str(call.ask),
        "CR_PROMPT_BEEP": str(call.beep),
        "CR_PROMPT_CHECK": str(call.check),
    }
    try:
        await ari.originate(
            call.endpoint,
            channel_id=call.id,
            context=CONTEXT,
            extension="s",
            priority=1,
            timeout=call.ring_seconds,
            variables=variables,
        )
        answered = await _stay(ari, call.id, told)
        if not answered:
            raise ServiceError("the telephone did not answer", hint="is it registered, and is somebody there?")
        try:
            return call.file.read_bytes()
        except FileNotFoundError:
            raise ServiceError(
                "the telephone hung up before anything was recorded",
                hint="speak after the tone; callrouter doctor tells whether Asterisk can write there",
            ) from None
    finally:
        with suppress(AriError):
            await ari.hangup(call.id, 16)
        call.file.unlink(missing_ok=True)


async def _stay(ari: AriClient, channel: str, told: Callable[[str], None]) -> bool:
    """Wait until the channel is gone. Whether it was answered."""
    answered = False
    while True:
        try:
            state = (await ari.channel(channel)).state
        except AriError as exc:
            if exc.status != NOT_FOUND:
                raise
            return answered
        if state == "Up" and not answered:
            answered = True
            told("answered; it is asked to speak after the tone")
        await asyncio.sleep(LOOK_SECONDS)
