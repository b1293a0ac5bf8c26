"""SIPp: calls that an Asterisk would not make (malformed, raw headers), and an independent witness.

Scenarios below ``sipp/``: ``uac`` (CSV: DID, caller, display name), ``uac_invite_only`` (keys ``uri_user``,
``from_header``, ``to_header``, ``extra``), ``uas_answer``, ``uas_busy``, ``uas_cancelled``, ``uas_status``,
``uas_ring_status``, ``uas_silent``, ``uas_late``, ``uac_refer`` (CSV as ``uac``) and ``uas_refer`` (key ``refer_to``).
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import re
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from callrouter.errors import InputError, ServiceError

_SCENARIOS = Path(__file__).parent / "sipp"
_RAW_DEFAULTS = {
    "uri_user": "100",
    "from_header": "<sip:+12125550123@127.0.0.1>",
    "to_header": "<sip:100@127.0.0.1>",
    "extra": "X-Probe: callrouter",
}


@dataclass(frozen=True, slots=True)
class SipMessage:
    """One SIP message as it went over the wire.

    :param sent: by SIPp; else it was received
    """

    sent: bool
    text: str
    at: float = 0.0
    """Seconds since the epoch."""

    @property
    def start_line(self) -> str:
        return self.text.split("\n", 1)[0].strip()

    @property
    def status(self) -> int | None:
        """Status of a response; None for a request."""
        match = re.match(r"SIP/2\.0 (\d{3})", self.start_line)
        return int(match[1]) if match else None

    @property
    def method(self) -> str:
        """Method of a request, or of the request that a response answers."""
        if self.status is None:
            return self.start_line.split(" ", 1)[0]
        return self.header("CSeq").rsplit(" ", 1)[-1]

    def header(self, name: str) -> str:
        """First value of a header; empty when absent."""
        match = re.search(rf"^{re.escape(name)}[ \t]*:[ \t]*(.*?)\r?$", self.text, re.IGNORECASE | re.MULTILINE)
        return match[1] if match else ""


@dataclass(frozen=True, slots=True)
class SippResult:
    """What SIPp counted and saw.

    :param succeeded: calls that ran the scenario to its end
    :param failed: calls that did not
    :param call_ids: SIP Call-IDs in order of appearance
    :param messages: all messages, in order
    :param errors: SIPp's error log
    """

    succeeded: int
    failed: int
    call_ids: tuple[str, ...]
    messages: tuple[SipMessage, ...]
    errors: str

    @property
    def final_status(self) -> dict[str, int]:
        """Final response to INVITE, by Call-ID."""
        return {
            message.header("Call-ID"): message.status
            for message in self.messages
            if message.status is not None and message.status >= 200 and message.method == "INVITE"
        }

    @property
    def invites(self) -> tuple[SipMessage, ...]:
        """INVITE requests, one a Call-ID: retransmissions left out."""
        found: dict[str, SipMessage] = {}
        for message in self.messages:
            if message.status is None and message.method == "INVITE":
                found.setdefault(message.header("Call-ID"), message)
        return tuple(found.values())


def find_sipp() -> Path:
    """The SIPp program.

    :raises ServiceError: it is not installed
    """
    program = shutil.which("sipp")
    if program is None:
        raise ServiceError("sipp is not installed", hint="apt-get install sip-tester")
    return Path(program)


async def run_sipp(
    scenario: str | Path,
    remote: tuple[str, int] | None = None,
    *,
    local_ip: str = "127.0.0.1",
    local_port: int | None = None,
    calls: int = 1,
    rate: float = 10.0,
    rows: Sequence[Sequence[str]] | None = None,
    keys: Mapping[str, str] | None = None,
    talk_seconds: float = 0.5,
    status: str = "486 Busy Here",
    rtp_echo: bool = False,
    timeout: float = 60.0,
) -> SippResult:
    """Run one scenario until ``calls`` calls are over.

    :param scenario: name of a bundled scenario, or a file
    :param remote: host and port to call; None: wait for calls on ``local_port``
    :param local_port: None: a free one
    :param rate: calls a second
    :param rows: values of ``[field0]``, ``[field1]`` … ; used in turn
    :param keys: values of named keywords, sent as they are; ``uac_invite_only`` has defaults for its own
    :param talk_seconds: put in for ``TALK_MS`` (milliseconds) in the scenario: when the bundled callers hang up
    :param status: put in for ``STATUS_LINE`` in the scenario: the final response of a bundled waiting one
    :param timeout: seconds for everything; SIPp is ended then, and calls that are not over count as failed
    :raises ServiceError: SIPp is absent, or could not run at all (port taken, broken scenario)
    """
    path = scenario if isinstance(scenario, Path) else _SCENARIOS / f"{scenario}.xml"
    if not path.is_file():
        names = ", ".join(sorted(found.stem for found in _SCENARIOS.glob("*.xml")))
        raise InputError(f"{scenario}: no such SIPp scenario", hint=f"a file, or one of {names}")
    if remote is None and local_port is None:
        raise InputError("a waiting SIPp needs a port", hint="local_port=…")
    values = dict(_RAW_DEFAULTS) if path.stem == "uac_invite_only" else {}
    values.update(keys or {})
    with tempfile.TemporaryDirectory(prefix="callrouter-sipp-") as name:
        place = Path(name)
        text = path.read_text("utf-8").replace("TALK_MS", str(round(talk_seconds * 1000)))
        text = text.replace("STATUS_LINE", status)
        (place / "scenario.xml").write_text(text, "utf-8")
        command = [str(find_sipp()), "-sf", str(place / "scenario.xml"), "-i", local_ip, "-mi", local_ip]
        command += ["-m", str(calls), "-r", f"{rate:g}", "-nostdin"]
        command += ["-timeout", f"{max(1, round(timeout))}s", "-trace_msg", "-message_file", str(place / "messages")]
        command += ["-trace_err", "-error_file", str(place / "errors"), "-trace_stat", "-stf", str(place / "stat")]
        command += ["-p", str(local_port or _free_port(local_ip)), "-mp", str(_free_port(local_ip) & ~1)]
        if rows is not None:
            command += ["-inf", str(_csv(place / "rows.csv", rows))]
        for key, value in values.items():
            command += ["-key", key, value]
        if rtp_echo:
            command.append("-rtp_echo")
        if remote is not None:
            command.append(f"{remote[0]}:{remote[1]}")
        code, output = await _run(command, place, timeout + 5)
        messages = _messages(place / "messages")
        errors = _text(place / "errors")
        counted = _counts(place / "stat")
        if counted is None or code not in (0, 1, 97):
            said = (errors or output).strip().splitlines()[-3:]
            raise ServiceError(f"sipp could not run {path.name} (exit {code}): {' | '.join(said)}")
    succeeded, _ = counted
    ids = dict.fromkeys(found for message in messages if (found := message.header("Call-ID")))
    return SippResult(succeeded, calls - succeeded, tuple(ids), messages, errors)


async def _run(command: list[str], place: Path, timeout: float) -> tuple[int, str]:
    """Run to the end; never leaves the process behind."""
    with (place / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=place, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=asyncio.subprocess.STDOUT
        )
        code = 97
        try:
            async with asyncio.timeout(timeout):
                code = await process.wait()
        except TimeoutError:
            pass
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
    return code, _text(place / "output")


def _free_port(address: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _csv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    for row in rows:
        for value in row:
            if any(mark in value for mark in ";\r\n"):
                raise InputError(f"{value!r}: SIPp's CSV cannot hold it", hint="send it with keys= instead")
    path.write_text("SEQUENTIAL\n" + "".join(";".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


_MESSAGE = re.compile(
    rb"^-+ (\d{4}-\d\d-\d\d)\s+([\d:.]+)[^\n]*\n\w+ message (sent|received) \D{1,2}(\d+)\W{1,2}bytes[^\n]*:\n\n",
    re.MULTILINE,
)


def _messages(path: Path) -> tuple[SipMessage, ...]:
    """Read SIPp's message trace: each message follows a line with its direction and length, and a blank line."""
    raw = path.read_bytes() if path.exists() else b""
    found = []
    for match in _MESSAGE.finditer(raw):
        body = raw[match.end() : match.end() + int(match[4])]
        at = datetime.fromisoformat(f"{match[1].decode()} {match[2].decode()}").timestamp()
        found.append(SipMessage(match[3] == b"sent", body.decode("utf-8", "replace"), at))
    return tuple(found)


def _counts(path: Path) -> tuple[int, int] | None:
    """Cumulative successes and failures: the last line of the statistics."""
    lines = list(csv.DictReader(_text(path).splitlines(), delimiter=";"))
    if not lines:
        return None
    return int(lines[-1]["SuccessfulCall(C)"]), int(lines[-1]["FailedCall(C)"])


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.exists() else ""
