"""Messages out of ``tests/data/malformed-sip``, sent as they are, each from a socket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.chaos.wire import OFFER, Address, Wire, acknowledgement, address_in, parse, reply

CORPUS = Path(__file__).parents[1] / "data" / "malformed-sip"
_REPEATED = re.compile(r"\{([^{}]*?)\*(\d+)\}", re.DOTALL)


@dataclass(frozen=True)
class Odd:
    """One message of the corpus, as its README says."""

    name: str
    wrong: str
    must: str
    start: str = "INVITE sip:{did}@{server}:{port} SIP/2.0"
    set: Mapping[str, str] = field(default_factory=dict)
    add: tuple[str, ...] = ()
    body: str = "{sdp}"
    raw: str = ""
    cut: int = 0
    after: str = ""
    bare: bool = False
    udp: bool = False
    what: str = ""
    """Put in for ``{what}``, as it is."""

    def text(self, values: Mapping[str, str]) -> bytes:
        """The message as bytes."""
        if self.raw:
            whole = self.raw
        else:
            headers = {
                "Via": "SIP/2.0/{transport} {me}:{my_port};branch={branch};rport",
                "Max-Forwards": "70",
                "From": "<sip:{caller}@{me}>;tag={tag}",
                "To": "<sip:{did}@{server}>",
                "Call-ID": "{call_id}",
                "CSeq": "1 INVITE",
                "Contact": "<sip:probe@{me}:{my_port};transport={transport}>",
                "Content-Type": "application/sdp",
                "Content-Length": "{length}",
            } | dict(self.set)
            lines = [self.start, *(f"{name}: {value}" for name, value in headers.items() if value), *self.add]
            whole = "\r\n".join(lines) + "\r\n\r\n" + self.body + self.after
        known = dict(values) | {"sdp": OFFER.format(ip=values["me"], rtp=20000)}
        body = _filled(self.body, known)
        filled = _filled(whole, known | {"length": str(len(body.encode("latin-1")))})
        data = filled.replace("{what}", self.what).encode("latin-1")
        if self.bare:
            data = data.replace(b"\r\n", b"\n")
        return data[: self.cut] if self.cut else data


def _filled(text: str, values: Mapping[str, str]) -> str:
    # What is repeated may hold values, whose braces would end the repetition too early.
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return _REPEATED.sub(lambda found: found[1] * int(found[2]), text)


def corpus() -> list[Odd]:
    """All messages."""
    return [
        Odd(**entry | {"add": tuple(entry.get("add", ()))})
        for path in sorted(CORPUS.glob("*.toml"))
        for entry in tomllib.loads(path.read_text("utf-8"))["message"]
    ]


@dataclass
class Attempt:
    """One message on its way, and what came back. Whoever answers is acknowledged, whoever hangs up is answered."""

    odd: Odd
    number: int
    local: str
    server: Address
    did: str
    transport: str = "UDP"
    statuses: list[int] = field(default_factory=list)
    """Of every response."""
    final: int | None = None
    """To an INVITE."""
    requests: list[str] = field(default_factory=list)
    """Methods that Asterisk sent to this socket."""
    _wire: Wire | None = None
    _writer: asyncio.StreamWriter | None = None
    _reading: asyncio.Task[None] | None = None

    @property
    def caller(self) -> str:
        """A number nobody else calls from."""
        return f"+1303{2_000_000 + self.number}"

    async def send(self) -> None:
        if self.transport == "UDP":
            self._wire = await Wire(lambda data, _sender: self._take(data)).open(self.local)
            self._wire.send(self._text(self._wire.local), self.server)
            return
        reader, self._writer = await asyncio.open_connection(*self.server, local_addr=(self.local, 0))
        self._reading = asyncio.create_task(self._read(reader))
        self._writer.write(self._text(self._writer.get_extra_info("sockname")))
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def _text(self, me: Address) -> bytes:
        digits = self.did.removeprefix("+")
        return self.odd.text({
            "did": self.did, "did_digits_escaped": "".join(f"%{ord(digit):02x}" for digit in digits),
            "server": self.server[0], "port": str(self.server[1]), "me": me[0], "my_port": str(me[1]),
            "caller": self.caller, "call_id": f"odd-{self.transport}-{self.number}", "tag": f"odd{self.number}",
            "branch": f"z9hG4bKodd{self.transport}{self.number}", "transport": self.transport,
        })  # fmt: skip

    async def _read(self, reader: asyncio.StreamReader) -> None:
        buffer = b""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                buffer += data
                while (end := buffer.find(b"\r\n\r\n")) >= 0:
                    length = re.search(rb"^content-length\s*:\s*(\d+)", buffer[:end], re.IGNORECASE | re.MULTILINE)
                    size = end + 4 + int(length[1] if length else 0)
                    if len(buffer) < size:
                        break
                    self._take(buffer[:size])
                    buffer = buffer[size:]

    def _take(self, data: bytes) -> None:
        found = parse(data)
        if found is None:
            return
        if found.status is None:
            self.requests.append(found.method)
            if found.method != "ACK":
                self._say(reply(found, "200 OK", "me"))
            return
        self.statuses.append(found.status)
        if found.method == "INVITE" and found.status >= 200:
            self.final = self.final or found.status
            uri = address_in(found["Contact"]) if found.status < 300 else f"sip:{self.did}@{self.server[0]}"
            self._say(acknowledgement(found, uri, f"z9hG4bKack{self.number}"))

    def _say(self, data: bytes) -> None:
        if self._wire is not None:
            self._wire.send(data, self.server)
        elif self._writer is not None and not self._writer.is_closing():
            self._writer.write(data)

    async def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)


def captured(path: Path) -> Iterator[bytes]:
    """The payloads of Asterisk's own capture of its SIP (``pjsip set logger pcap``)."""
    data = path.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"M<\xb2\xa1") else ">"
    place = 24
    while place + 16 <= len(data):
        size = struct.unpack(f"{order}I", data[place + 8 : place + 12])[0]
        yield data[place + 16 : place + 16 + size]
        place += 16 + size


def invites_sent(path: Path) -> dict[str, str]:
    """INVITEs that Asterisk itself sent: Call-ID → request URI."""
    found: dict[str, str] = {}
    for packet in captured(path):
        start = packet.find(b"INVITE sip:")
        # Ethernet, IP and UDP headers stand before it: what is found later is quoted by somebody.
        if 0 <= start < 80 and b"\r\nUser-Agent: callrouter\r\n" in packet:
            parsed = parse(packet[start:])
            if parsed is not None:
                found[parsed["Call-ID"]] = parsed.start.split(" ")[1]
    return found
