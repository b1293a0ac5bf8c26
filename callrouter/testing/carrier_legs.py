"""Legs of the simulated carrier, folded from its Asterisk's manager events, and the records made of them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from callrouter.testing.carrier_control import Message

Side = Literal["caller", "callee", ""]

# Q.850 cause → SIP status, as chan_pjsip maps them; for an Asterisk before 22 that does not report the status itself.
_STATUS = {1: 404, 16: 603, 17: 486, 18: 408, 19: 480, 20: 480, 21: 403, 27: 502, 34: 503, 38: 500, 42: 503, 127: 500}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """What became of a placed call. Times are seconds since the epoch (UTC), None when it did not happen.

    :param sip_status: final status of the INVITE: 200, the refusal, or 487 when the caller gave up
    :param cause: Q.850 cause of the end; 0 when unknown
    :param progress: when a 183 with early media came
    :param early: WAV of what the caller heard from the first early media on; None: there was none
    :param heard: WAV (8 kHz mono) of what the caller heard from the answer on; None: not answered
    :param said: WAV of what the caller sent, in sync with ``heard``
    :param digits: keys the other side pressed
    :param hung_up_by: ``caller``, ``callee`` (a refusal too), or empty: nobody answered the INVITE at all
    :param timed_out: the caller hung up because ``max_seconds`` were over
    """

    call_id: str
    did: str
    caller: str
    answered: bool
    sip_status: int | None
    cause: int
    cause_text: str
    started: float
    ringing: float | None
    progress: float | None
    answered_at: float | None
    ended: float
    sip_call_id: str
    hung_up_by: Side
    timed_out: bool
    digits: str
    early: Path | None
    heard: Path | None
    said: Path | None

    @property
    def talk_seconds(self) -> float:
        """Seconds from answer to end; 0 when not answered."""
        return self.ended - self.answered_at if self.answered_at is not None else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneCall:
    """One call that reached a phone of the carrier. Times as in ``CallResult``; ``ended`` is None while it lasts.

    :param from_number: user part of the caller's identity (a trusted P-Asserted-Identity, else From)
    :param to: user part of the request URI
    :param headers: every header of the INVITE by name; repeated ones joined by ``", "``
    :param digits: keys the caller pressed
    :param cancelled: the caller gave up before the phone answered or refused
    """

    call_id: str
    phone: str
    from_number: str
    from_name: str
    to: str
    headers: dict[str, str]
    answered: bool
    started: float
    answered_at: float | None
    ended: float | None
    cause: int
    cancelled: bool
    hung_up_by: Side
    digits: str
    sip_call_id: str
    heard: Path | None
    said: Path | None

    def header(self, name: str) -> str:
        """A header's value, whatever its capitals; empty when it was not there."""
        for key, value in self.headers.items():
            if key.lower() == name.lower():
                return value
        return ""


@dataclass(slots=True, eq=False)
class Leg:
    """One channel of the carrier's Asterisk while its events come in."""

    call_id: str
    placed: bool
    channel: str = ""
    phone: str = ""
    number: str = ""
    name: str = ""
    exten: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    started: float | None = None
    ringing: float | None = None
    progress: float | None = None
    answered: float | None = None
    ended: float | None = None
    cause: int = 0
    cause_text: str = ""
    status: int | None = None
    by: str = ""
    remote_hangup: bool = False
    sip_call_id: str = ""
    digits: str = ""
    failure: str = ""
    closed: bool = False
    known: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, event: Message) -> None:
        """Fold one manager event into the leg."""
        at = float(event.get("Timestamp") or 0.0)
        match event["Event"]:
            case "Newchannel":
                self.channel = event["Channel"]
                self.known.set()
                self.started = at
                self.number, self.name = given(event["CallerIDNum"]), given(event["CallerIDName"])
                self.exten = event["Exten"]
            case "Newstate":
                state = event["ChannelState"]
                if state == "5" and self.ringing is None:
                    self.ringing = at
                elif state == "6" and self.answered is None:
                    self.answered = at
            case "DialState":
                if event.get("DialStatus") == "PROGRESS" and self.progress is None:
                    self.progress = at
                elif event.get("DialStatus") == "RINGING" and self.ringing is None:
                    self.ringing = at
            case "DTMFEnd" if event.get("Direction") == "Received":
                self.digits += event["Digit"]
            case "HangupRequest":
                self.remote_hangup = True
            case "UserEvent":
                self._take_user_event(event)
            case "Hangup":
                self.ended = at
                self.cause = int(event.get("Cause") or 0)
                self.cause_text = event.get("Cause-txt", "")
                technical = event.get("TechCause", "")
                self.status = int(technical) if technical.isdigit() else None
                self.over.set()

    def _take_user_event(self, event: Message) -> None:
        match event.get("UserEvent"):
            case "PhoneCall":
                self.phone = unquote(event["Phone"])
            case "PhoneHeader":
                name, value = event["Name"], unquote(event["Value"], errors="replace")
                self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value
            case "LegEnd":
                self.by = event.get("By", "")
                self.sip_call_id = unquote(event.get("SipCallId", ""))

    async def recordings_closed(self, directory: Path, timeout: float = 3.0) -> None:
        """Wait until Asterisk has closed a finished leg's recordings, which it does just after the end."""
        if self.closed:
            return
        paths = [directory / f"{self.call_id}-{what}.wav" for what in ("early", "heard", "said")]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not all(wav_complete(path) for path in paths if path.exists()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        self.closed = True

    def recording(self, directory: Path, what: str) -> Path | None:
        path = directory / f"{self.call_id}-{what}.wav"
        return path if path.exists() and path.stat().st_size > 44 else None

    def result(self, did: str, caller: str, directory: Path, now: float) -> CallResult:
        """The finished call as its caller saw it."""
        answered = self.answered is not None
        # A refusal comes as a hang-up request; giving up does not, though Asterisk then reports a status as well.
        refused = not answered and (self.remote_hangup or bool(self.failure))
        status: int | None = 200 if answered else 487
        if refused:
            status = self.status or _STATUS.get(self.cause)
        side: Side = "callee" if self.by == "" and (refused or self.remote_hangup) else "caller"
        if refused and status == 408 and self.ringing is None:
            side = ""  # our own transaction timed out (RFC 3261, timer B): nobody was there
        return CallResult(
            call_id=self.call_id,
            did=did,
            caller=caller,
            answered=answered,
            sip_status=status,
            cause=self.cause,
            cause_text=self.cause_text or self.failure,
            started=self.started if self.started is not None else now,
            ringing=self.ringing,
            progress=self.progress,
            answered_at=self.answered,
            ended=self.ended if self.ended is not None else now,
            sip_call_id=self.sip_call_id,
            hung_up_by=side,
            timed_out=answered and self.by == "limit",
            digits=self.digits,
            early=self.recording(directory, "early"),
            heard=self.recording(directory, "heard"),
            said=self.recording(directory, "said"),
        )

    def phone_call(self, directory: Path) -> PhoneCall:
        """The call as its phone saw it, finished or not."""
        side: Side = ""
        if self.ended is not None:
            side = "callee" if self.by in ("self", "limit") else "caller"
        return PhoneCall(
            call_id=self.call_id,
            phone=self.phone,
            from_number=self.number,
            from_name=self.name,
            to=self.exten,
            headers=dict(self.headers),
            answered=self.answered is not None,
            started=self.started or 0.0,
            answered_at=self.answered,
            ended=self.ended,
            cause=self.cause,
            cancelled=self.ended is not None and self.answered is None and side == "caller",
            hung_up_by=side,
            digits=self.digits,
            sip_call_id=self.sip_call_id or self.headers.get("Call-ID", ""),
            heard=self.recording(directory, "heard"),
            said=self.recording(directory, "said"),
        )


def wav_complete(path: Path) -> bool:
    """Whether a WAV's header counts all its samples, as it does once its writer has closed it."""
    with path.open("rb") as file:
        head = file.read(44)
    return len(head) == 44 and int.from_bytes(head[40:44], "little") == path.stat().st_size - 44


def given(value: str) -> str:
    """A manager field's value; Asterisk writes ``<unknown>`` for none."""
    return "" if value == "<unknown>" else value
