"""Callers and phones of a benchmark: SIPp, which costs little and tells when each message came and went."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from callrouter.testing.sipp import SipMessage, SippResult, run_sipp

SCENARIO = Path(__file__).parent / "sipp" / "caller.xml"
SPEECH_HZ = 440.0
_callers = itertools.count()


@dataclass(frozen=True, slots=True)
class Load:
    """So many calls, so fast, so long.

    :param calls: to place
    :param per_second: calls begun each second
    :param talk_seconds: from the answer until the caller hangs up
    """

    calls: int
    per_second: float
    talk_seconds: float


@dataclass(frozen=True, slots=True)
class Placed:
    """What callers and phones saw of a load."""

    callers: SippResult
    phones: SippResult

    @property
    def succeeded(self) -> int:
        """Calls that went from INVITE to BYE as both ends wanted."""
        return min(self.callers.succeeded, self.phones.succeeded)

    def setup_seconds(self) -> list[float]:
        """From each caller's INVITE to the INVITE at the phone, retransmissions left out."""
        came = {_number(each): each.at for each in reversed(self.phones.invites)}
        return [came[_number(each)] - each.at for each in self.callers.invites if _number(each) in came]

    def answer_seconds(self) -> list[float]:
        """From each phone's 200 to the 200 at the caller."""
        went = _answered(self.phones, sent=True)
        came = _answered(self.callers, sent=False)
        return [came[number] - went[number] for number in came if number in went]


def _number(message: SipMessage) -> str:
    """The caller's number: both legs of a call have it."""
    return message.header("From").partition("sip:")[2].partition("@")[0]


def _answered(seen: SippResult, *, sent: bool) -> dict[str, float]:
    found: dict[str, float] = {}
    for message in seen.messages:
        if message.sent is sent and message.status == 200 and message.method == "INVITE":
            found.setdefault(_number(message), message.at)
    return found


def speech(directory: Path) -> Path:
    """A second of sound as a telephone sends it: PCMU octets (RFC 3551, 4.5.14)."""
    path = directory / "speech.ulaw"
    if not path.exists():
        tone = 0.3 * np.sin(2 * np.pi * SPEECH_HZ * np.arange(8000) / 8000)
        soundfile.write(path, tone, 8000, format="RAW", subtype="ULAW")
    return path


async def place(load: Load, did: str, server: tuple[str, int], phone: tuple[str, int], directory: Path) -> Placed:
    """Place a load's calls and wait until all are over. The phone sends back what it hears.

    :param server: SIP address and port of the Asterisk
    :param phone: address and port that the business line is at; callers call from the same address
    :param directory: for files of this load
    :raises ServiceError: SIPp is absent or could not run
    """
    scenario = directory / "caller.xml"
    scenario.write_text(SCENARIO.read_text("utf-8").replace("SPEECH", str(speech(directory))), "utf-8")
    rows = [(did, f"+1212{5_000_000 + next(_callers)}") for _ in range(load.calls)]
    patience = load.calls / load.per_second + load.talk_seconds + 30
    phones = asyncio.create_task(
        run_sipp(
            "uas_answer",
            local_ip=phone[0],
            local_port=phone[1],
            calls=load.calls,
            rtp_echo=True,
            timeout=patience,
        )
    )
    await asyncio.sleep(0.3)
    callers = await run_sipp(
        scenario,
        server,
        local_ip=phone[0],
        calls=load.calls,
        rate=load.per_second,
        rows=rows,
        talk_seconds=load.talk_seconds,
        timeout=patience,
    )
    return Placed(callers, await phones)
