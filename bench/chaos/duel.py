"""Calls whose two ends do the wrong thing at the wrong moment: CANCEL against 200, BYE against BYE, BYE before ACK.

Both ends are ours: a caller who calls in through a trunk, and the business's telephone. Each call has a plan that both
ends follow, found by the caller's number. UDP loses nothing on loopback but when a buffer is full, so requests are
sent again like RFC 3261 wants it.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.chaos.wire import OFFER, Address, SipMessage, Wire, acknowledgement, address_in, message, parse, reply

KINDS = (
    "cancel",
    "cancel-crossing-200",
    "late-200",
    "bye-after-200",
    "bye-before-ack",
    "never-ack",
    "callee-bye-at-answer",
    "both-bye",
    "refuse-against-cancel",
    "menu-cancel",
    "menu-bye",
)
T1 = 0.5
"""Seconds before a request without an answer is sent again (RFC 3261 17.1.1.1); doubled each time."""
TRIES = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """What both ends of a call do. Seconds; None: not done by this plan."""

    number: int
    kind: str
    cancel: float | None = None
    """From INVITE to CANCEL."""
    answer: float | None = None
    """From the telephone's INVITE to its 200."""
    refuse: float | None = None
    """From the telephone's INVITE to its 486."""
    caller_bye: float | None = None
    """From the caller's 200 to its BYE."""
    callee_bye: float | None = None
    """From the telephone's 200 to its BYE."""
    ack: float | None = 0.0
    """From the caller's 200 to its ACK; None: never."""
    answers_cancelled: bool = False
    """The telephone answers 200 although it was cancelled."""

    @property
    def caller(self) -> str:
        """A number nobody else calls from."""
        return f"+1212{3_000_000 + self.number}"


def plan(number: int, kind: str, rng: random.Random) -> Plan:
    """The plan of one call, its moments chosen between 0 and 100 ms."""

    def moment() -> float:
        return rng.uniform(0.0, 0.1)

    match kind:
        case "cancel":
            return Plan(number, kind, cancel=moment())
        case "cancel-crossing-200":
            # The 200 is on its way through Asterisk when the CANCEL comes in.
            answer = moment()
            return Plan(number, kind, cancel=max(0.0, answer + 0.015 + rng.uniform(-0.02, 0.02)), answer=answer)
        case "late-200":
            return Plan(number, kind, cancel=moment(), answers_cancelled=True)
        case "bye-after-200":
            return Plan(number, kind, answer=moment(), caller_bye=moment())
        case "bye-before-ack":
            return Plan(number, kind, answer=moment(), caller_bye=0.0, ack=moment())
        case "never-ack":
            return Plan(number, kind, answer=moment(), caller_bye=moment(), ack=None)
        case "callee-bye-at-answer":
            return Plan(number, kind, answer=moment(), callee_bye=rng.choice((0.0, moment())))
        case "both-bye":
            together = moment()
            return Plan(number, kind, answer=moment(), caller_bye=together, callee_bye=together)
        case "refuse-against-cancel":
            refuse = moment()
            return Plan(number, kind, refuse=refuse, cancel=max(0.0, refuse + 0.015 + rng.uniform(-0.02, 0.02)))
        case "menu-cancel":
            return Plan(number, kind, cancel=moment())
        case "menu-bye":
            return Plan(number, kind, caller_bye=moment())
    raise ValueError(kind)


class _End:
    """What both ends of a call have: a wire, timers, requests that are sent again until they are answered."""

    def __init__(self, plan: Plan, wire: Wire, peer: Address) -> None:
        self.plan, self.wire, self.peer = plan, wire, peer
        self.loop = asyncio.get_running_loop()
        self.done = False
        self._answered: set[str] = set()

    def after(self, seconds: float | None, work: Callable[[], None]) -> None:
        if seconds is not None:
            self.loop.call_later(seconds, work)

    def until_answered(self, name: str, data: bytes, tries: int = TRIES, wait: float = T1) -> None:
        if name in self._answered or not tries:
            return
        self.wire.send(data, self.peer)
        self.loop.call_later(wait, self.until_answered, name, data, tries - 1, wait * 2)

    def answered(self, name: str) -> None:
        self._answered.add(name)

    def finish(self) -> None:
        self.done = True


class CallerEnd(_End):
    """The caller: INVITE, and what its plan says."""

    def __init__(self, plan: Plan, did: str, wire: Wire, server: Address) -> None:
        super().__init__(plan, wire, server)
        host, port = wire.local
        self.call_id = f"duel-{plan.number}@{host}"
        self.uri = f"sip:{did}@{server[0]}:{server[1]}"
        self.begun = 0.0
        self.statuses: list[int] = []
        self.final: SipMessage | None = None
        self.cancelled_early = False
        self._bye_sent = False
        self._from = f"<sip:{plan.caller}@{host}>;tag=c{plan.number}"
        self._local = f"SIP/2.0/UDP {host}:{port}"

    def start(self) -> None:
        self.begun = time.monotonic()
        host, port = self.wire.local
        body = OFFER.format(ip=host, rtp=20000 + self.plan.number % 10000 * 2)
        contact = (("Contact", f"<sip:caller@{host}:{port}>"), ("Content-Type", "application/sdp"))
        self.until_answered("INVITE", self._request("INVITE", self.uri, 1, f"<{self.uri}>", "i", contact, body))
        self.after(self.plan.cancel, self._cancel)

    def _request(
        self,
        method: str,
        uri: str,
        sequence: int,
        to: str,
        branch: str,
        more: tuple[tuple[str, str], ...] = (),
        body: str = "",
    ) -> bytes:
        headers = (
            ("Via", f"{self._local};branch=z9hG4bK{self.plan.number}{branch};rport"), ("Max-Forwards", "70"),
            ("From", self._from), ("To", to), ("Call-ID", self.call_id), ("CSeq", f"{sequence} {method}"), *more,
        )  # fmt: skip
        return message(f"{method} {uri} SIP/2.0", headers, body)

    def _cancel(self) -> None:
        if self.final is None:
            self.until_answered("CANCEL", self._request("CANCEL", self.uri, 1, f"<{self.uri}>", "i"))

    def bye(self, branch: str = "b", sequence: int = 2) -> bytes | None:
        """A BYE of this dialog; None: there never was one."""
        if self.final is None or self.final.status != 200:
            return None
        return self._request("BYE", address_in(self.final["Contact"]), sequence, self.final["To"], branch)

    def _hang_up(self) -> None:
        data = self.bye()
        if data is not None and not self._bye_sent and not self.done:
            self._bye_sent = True
            self.until_answered("BYE", data)

    def take(self, found: SipMessage) -> None:
        if found.status is None:
            self.wire.send(reply(found, "200 OK", ""), self.peer)
            if found.method == "BYE":
                self.finish()
            return
        self.answered(found.method)
        if found.method == "CANCEL" and found.status == 481 and self.final is None:
            # So early that Asterisk did not know the INVITE yet, which RFC 3261 9.1 forbids: said once more.
            self.cancelled_early = True
            self._answered.discard("CANCEL")
            self.after(0.02, self._cancel)
        elif found.method == "BYE":
            self.finish()
        elif found.method == "INVITE":
            self.statuses.append(found.status)
            if found.status >= 200:
                self._final(found)

    def _final(self, found: SipMessage) -> None:
        if found.status != 200:
            self.wire.send(acknowledgement(found, self.uri, ""), self.peer)
            self.final = self.final or found
            self.finish()
            return
        acknowledge = acknowledgement(found, address_in(found["Contact"]), f"z9hG4bK{self.plan.number}a")
        if self.final is not None:  # sent again, since our ACK was not there yet
            if self.plan.ack is not None:
                self.wire.send(acknowledge, self.peer)
            return
        self.final = found
        if self.plan.ack == 0.0:
            self.wire.send(acknowledge, self.peer)
        else:
            self.after(self.plan.ack, lambda: self.wire.send(acknowledge, self.peer))
        if self.plan.cancel is not None:  # the CANCEL lost: RFC 3261 9.1 leaves BYE
            self._hang_up()
        else:
            self.after(self.plan.caller_bye, self._hang_up)


class CalleeEnd(_End):
    """The business's telephone: rings, and what its plan says."""

    def __init__(self, plan: Plan, invite: SipMessage, wire: Wire, peer: Address) -> None:
        super().__init__(plan, wire, peer)
        self.invite = invite
        self.tag = f"p{plan.number}"
        self.cancelled = False
        self.acknowledged = False
        self._last = b""
        self._final = False
        self._respond("180 Ringing")
        self.after(plan.answer, self._answer)
        self.after(plan.refuse, lambda: self._refuse("486 Busy Here"))

    def _respond(self, status: str, body: str = "") -> None:
        host, port = self.wire.local
        more = {"Contact": f"<sip:desk@{host}:{port}>"} | ({"Content-Type": "application/sdp"} if body else {})
        self._last = reply(self.invite, status, self.tag, more, body)
        self.wire.send(self._last, self.peer)

    def _refuse(self, status: str) -> None:
        if not self._final:
            self._final = True
            self._respond(status)
            self.until_answered("ACK", self._last)

    def _answer(self) -> None:
        if self._final:
            return
        self._final = True
        self._respond("200 OK", OFFER.format(ip=self.wire.local[0], rtp=40000 + self.plan.number % 5000 * 2))
        self.until_answered("ACK", self._last, wait=T1)
        self.after(self.plan.callee_bye, self._hang_up)

    def _hang_up(self) -> None:
        if self.done:
            return
        host, port = self.wire.local
        headers = (
            ("Via", f"SIP/2.0/UDP {host}:{port};branch=z9hG4bKp{self.plan.number};rport"), ("Max-Forwards", "70"),
            ("From", f"{self.invite['To']};tag={self.tag}"), ("To", self.invite["From"]),
            ("Call-ID", self.invite["Call-ID"]), ("CSeq", "1 BYE"),
        )  # fmt: skip
        self.until_answered("BYE", message(f"BYE {address_in(self.invite['Contact'])} SIP/2.0", headers))

    def take(self, found: SipMessage) -> None:
        match found.status, found.method:
            case None, "INVITE":
                self.wire.send(self._last, self.peer)
            case None, "ACK":
                self.acknowledged = True
                self.answered("ACK")
                if b"SIP/2.0 200" not in self._last:
                    self.finish()
            case None, "CANCEL":
                self.cancelled = True
                self.wire.send(reply(found, "200 OK", self.tag), self.peer)
                if self.plan.answers_cancelled:
                    self._answer()
                else:
                    self._refuse("487 Request Terminated")
            case None, "BYE":
                self.wire.send(reply(found, "200 OK", ""), self.peer)
                self.finish()
            case None, _:
                self.wire.send(reply(found, "200 OK", ""), self.peer)
            case _, "BYE":
                self.answered("BYE")
                self.finish()


async def _within(seconds: float, done: Callable[[], bool]) -> None:
    """Look 20 times a second whether it is done, not longer than that."""
    for _ in range(round(seconds * 20)):
        if done():
            return
        await asyncio.sleep(0.05)


@dataclass
class Duels:
    """Both sockets, and all calls."""

    server: Address
    dids: dict[str, str]
    """``direct`` and ``menu``: the number that is dialled."""
    callers: dict[str, CallerEnd] = field(default_factory=dict)
    """By SIP Call-ID."""
    phones: dict[str, CalleeEnd] = field(default_factory=dict)
    """By SIP Call-ID of the server's INVITE."""
    stray: list[str] = field(default_factory=list)
    """Start lines of requests that belong to no call."""
    heard_at: float = 0.0
    """When something last came in, on the steady clock."""
    _plans: dict[str, Plan] = field(default_factory=dict)
    _probes: dict[str, int] = field(default_factory=dict)
    _caller_wire: Wire | None = None
    _phone_wire: Wire | None = None

    async def open(self, caller: str, phone: Wire | None) -> None:
        """
        :param caller: the trunk's address
        :param phone: the telephone's socket, from :meth:`telephone`
        """
        self._caller_wire = await Wire(self._to_caller).open(caller)
        self._phone_wire = phone

    async def telephone(self, host: str) -> Wire:
        """The business's telephone: any user at this socket."""
        return await Wire(self._to_phone).open(host)

    def close(self) -> None:
        for wire in (self._caller_wire, self._phone_wire):
            if wire is not None:
                wire.close()

    async def fight(self, plans: list[Plan], per_second: float) -> None:
        """Place the calls at a steady rate, and give each end five seconds more; who has not ended is told later."""
        assert self._caller_wire is not None
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for index, each in enumerate(plans):
            await asyncio.sleep(max(0.0, begin + index / per_second - loop.time()))
            self._plans[each.caller] = each
            did = self.dids["menu" if each.kind.startswith("menu") else "direct"]
            end = CallerEnd(each, did, self._caller_wire, self.server)
            self.callers[end.call_id] = end
            end.start()
        await _within(5.0, lambda: not self.open_ends())

    def open_ends(self) -> list[str]:
        """Ends whose call is not over by their own account."""
        ends = [("caller", end) for end in self.callers.values() if not end.done]
        more = [("telephone", end) for end in self.phones.values() if not end.done]
        return [f"{side} of {end.plan.number} ({end.plan.kind})" for side, end in (*ends, *more)]

    async def dialogs_left(self, seconds: float = 5.0) -> list[str]:
        """Ask for every answered call whether its dialog still exists, by a BYE that must find none (481)."""
        assert self._caller_wire is not None
        self._probes.clear()
        asked = []
        for call_id, end in self.callers.items():
            data = end.bye("probe", 9)
            if data is not None:
                asked.append(call_id)
                self._caller_wire.send(data, self.server)
                await asyncio.sleep(0.001)
        await _within(seconds, lambda: len(self._probes) >= len(asked))
        return [
            f"{self.callers[each].plan}: {self._probes.get(each)}" for each in asked if self._probes.get(each) != 481
        ]

    def _to_caller(self, data: bytes, _sender: Address) -> None:
        self.heard_at = time.monotonic()
        found = parse(data)
        if found is None:
            return
        if found.method == "BYE" and found["CSeq"].startswith("9 ") and found.status is not None:
            self._probes[found["Call-ID"]] = found.status
            return
        end = self.callers.get(found["Call-ID"])
        if end is not None:
            end.take(found)
        elif found.status is None and found.method != "OPTIONS":
            self.stray.append(found.start)

    def _to_phone(self, data: bytes, sender: Address) -> None:
        self.heard_at = time.monotonic()
        found = parse(data)
        if found is None:
            return
        call_id = found["Call-ID"]
        if call_id in self.phones:
            self.phones[call_id].take(found)
            return
        caller = re.search(r"sip:(\+?\d+)@", found["From"])
        known = self._plans.get(caller[1]) if caller else None
        if found.status is None and found.method == "INVITE" and known is not None:
            assert self._phone_wire is not None
            self.phones[call_id] = CalleeEnd(known, found, self._phone_wire, sender)
        elif found.status is None and found.method != "OPTIONS":
            self.stray.append(found.start)
