"""SIP as bytes on a UDP socket: an end that says whatever it is told to say, when it is told to, however wrong.

No SIP library stands between: what Asterisk gets is what is written here, to the millisecond and to the byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

Address = tuple[str, int]

OFFER = (
    "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {rtp} RTP/AVP 0 101\r\n"
    "a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
)
"""An SDP body for audio that nobody sends."""


@dataclass(frozen=True, slots=True)
class SipMessage:
    """One message that came in. Header names as they came."""

    start: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    @property
    def status(self) -> int | None:
        """Status of a response, None for a request."""
        return int(self.start[8:11]) if self.start.startswith("SIP/2.0 ") and self.start[8:11].isdigit() else None

    @property
    def method(self) -> str:
        """Method of a request, or of the request that a response answers."""
        return self.start.split(" ", 1)[0] if self.status is None else self["CSeq"].rpartition(" ")[2]

    def __getitem__(self, name: str) -> str:
        """A header's first value; empty without one."""
        return next(iter(self.all(name)), "")

    def all(self, name: str) -> list[str]:
        wanted = name.lower()
        return [value for key, value in self.headers if key.lower() == wanted]


def parse(data: bytes) -> SipMessage | None:
    """A message, or None for what is none (a keepalive)."""
    head, _, body = data.partition(b"\r\n\r\n")
    start, *lines = head.decode("utf-8", "replace").split("\r\n")
    if "SIP/2.0" not in start:
        return None
    pairs = (line.partition(":") for line in lines)
    return SipMessage(start, tuple((name.strip(), value.strip()) for name, _, value in pairs), body)


def message(start: str, headers: Iterable[tuple[str, str]], body: str = "") -> bytes:
    """A whole message; ``Content-Length`` is added."""
    lines = [start, *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(body.encode())}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def reply(request: SipMessage, status: str, tag: str, more: Mapping[str, str] | None = None, body: str = "") -> bytes:
    """The response to a request.

    :param status: code and words
    :param tag: put into To where that has none
    """
    to = request["To"]
    headers = [("Via", via) for via in request.all("Via")]
    headers += [("Record-Route", route) for route in request.all("Record-Route")]
    headers += [
        ("From", request["From"]),
        ("To", to if ";tag=" in to or not tag else f"{to};tag={tag}"),
        ("Call-ID", request["Call-ID"]),
        ("CSeq", request["CSeq"]),
        *(more or {}).items(),
    ]
    return message(f"SIP/2.0 {status}", headers, body)


def acknowledgement(final: SipMessage, uri: str, branch: str) -> bytes:
    """ACK to a final response to our INVITE (RFC 3261 17.1.1.3, 13.2.2.4).

    :param uri: of the request, or for 2xx the response's Contact
    :param branch: of a new transaction; used for 2xx only
    """
    status = final.status or 0
    via = final["Via"]
    if 200 <= status < 300:
        via = f"{via.split(';', 1)[0]};branch={branch};rport"
    headers = [
        ("Via", via), ("Max-Forwards", "70"), ("From", final["From"]), ("To", final["To"]),
        ("Call-ID", final["Call-ID"]), ("CSeq", f"{final['CSeq'].split(' ')[0]} ACK"),
    ]  # fmt: skip
    return message(f"ACK {uri} SIP/2.0", headers)


def address_in(header: str) -> str:
    """The URI of a Contact, From or To header."""
    return header.split("<", 1)[1].split(">", 1)[0] if "<" in header else header.split(";", 1)[0]


@dataclass
class Wire(asyncio.DatagramProtocol):
    """One UDP socket. What comes in goes to ``take`` with the sender's address."""

    take: Callable[[bytes, Address], None]
    local: Address = ("", 0)
    _transport: asyncio.DatagramTransport | None = field(default=None, repr=False)

    async def open(self, host: str, port: int = 0) -> Wire:
        """Bind. Port 0: any free one."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # A burst of calls must not be lost on our own side.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        sock.bind((host, port))
        sock.setblocking(False)
        self.local = sock.getsockname()
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=sock)
        self._transport = transport
        return self

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.take(data, addr)

    def send(self, data: bytes, to: Address) -> None:
        assert self._transport is not None
        self._transport.sendto(data, to)

    def close(self) -> None:
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.close()
