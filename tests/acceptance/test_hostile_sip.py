"""Broken SIP and scanners, from a trunk and from strangers: Asterisk and the server live on, nobody is dialled, nothing
is written down that was no call, and the next caller gets through."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import select

from bench.chaos.races import resident
from bench.chaos.wire import Address, Wire, parse
from callrouter.asterisk.ami_events import MAX_SECURITY_COUNTERS
from callrouter.asterisk.ledger import LedgerRow
from callrouter.core.disposition import Disposition
from callrouter.store import config
from callrouter.store.models import CallRecordRow
from callrouter.testing.carrier_script import Answered, UntilHangup, answer
from tests.acceptance.raw_sip import Attempt, Odd, corpus, invites_sent
from tests.fixtures.installation import Business, Installation, eventually, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="session")]

STUCK_SECONDS = 5.0
GROWTH_BYTES = 60_000_000
"""Asterisk keeps pools and threads from its first calls; a leak of a message's size would pass this many times over."""
TICKS = 100.0
"""Clock ticks a second (sysconf _SC_CLK_TCK)."""


@dataclass
class Door:
    place: Installation
    business: Business
    net: str
    capture: Path
    """Asterisk's own capture of its SIP."""
    pid: int

    @property
    def server(self) -> Address:
        return self.place.settings.sip_bind, self.place.settings.sip_port

    async def alive(self) -> None:
        """The same Asterisk, both of its interfaces and the server answer, and a call goes through."""
        assert self.place.asterisk.pid == self.pid
        assert self.place.asterisk.running
        async with self.place.ari() as ari:
            await ari.ping()
        await eventually(lambda: self.place.status()["ami"]["connected"], "AMI is connected")
        assert self.place.status()["ari"]["state"] == "connected"
        assert "Traceback" not in self.place.server_log()
        seen = await self.place.call(self.business, steps=(Answered(), UntilHangup()))
        assert seen.call.record.disposition is Disposition.ANSWERED
        assert seen.call.record.handled_by == "controller"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def door() -> AsyncIterator[Door]:
    async with installation(work=False) as place:
        await place.spawn_server()
        net = place.settings.sip_bind.rpartition(".")[0]
        async with place.database.session() as session:
            for name, last in (("udp", 70), ("tcp", 71)):
                await config.add_trunk(
                    session, name=f"odd-{name}", host=f"{net}.{last}", transport=name, qualify_seconds=0, who="tests"
                )
        business = await place.business({"desk": answer(after=0.0, hang_up_after=0.3)}, record=False)

        async def known() -> bool:
            return "trunk-odd-udp" in await place.asterisk.rx("pjsip show endpoints")

        await eventually(known, "Asterisk knows the trunks")
        capture = place.settings.home_dir / "sip.pcap"
        await place.asterisk.rx(f"pjsip set logger pcap {capture}")
        await place.asterisk.rx("pjsip set logger on")
        assert place.asterisk.pid is not None
        yield Door(place, business, net, capture, place.asterisk.pid)


async def send_all(door: Door, odd: Sequence[Odd], local: str, transport: str, first: int) -> list[Attempt]:
    """Send messages one after another, and wait until Asterisk is through with them."""
    attempts = []
    for number, each in enumerate(odd, first):
        attempt = Attempt(each, number, local, door.server, door.business.did, transport)
        attempts.append(attempt)
        await attempt.send()
        await asyncio.sleep(0.03)  # a pace, as a caller has it
    await door.place.idle(STUCK_SECONDS)
    return attempts


def verdict(attempt: Attempt, rows: list[LedgerRow]) -> str:
    """What is wrong with what became of a message; empty: nothing."""
    taken = [row for row in rows if row.dialstatus == "ANSWER"]
    match attempt.odd.must:
        case "rings" if attempt.final != 200 or len(taken) != 1 or len(rows) != 1:
            return "it must ring"
        case "rings" if attempt.requests.count("BYE") < 1:
            return "its caller was never told of the hang-up"
        case "refused" if rows or any(status < 400 for status in attempt.statuses):
            return "it must be refused"
        case "unknown" if attempt.final != 404 or len(rows) != 1 or rows[0].dialstatus:
            return "it must be 404"
        case "either" if (attempt.final == 200) != (len(taken) == 1) or len(rows) > 1:
            return "it is neither a call nor none"
    return ""


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
async def test_odd_messages_from_a_trunk(door: Door, transport: str) -> None:
    place = door.place
    sent = [odd for odd in corpus() if transport == "UDP" or not odd.udp]
    assert len(sent) >= 100
    before, invites = {row.uniqueid for row in place.ledger()}, set(invites_sent(door.capture))
    memory = resident(door.pid)
    local = f"{door.net}.{70 if transport == 'UDP' else 71}"
    attempts = await send_all(door, sent, local, transport, 0 if transport == "UDP" else 1000)

    async def written() -> bool:
        rows = [row for row in place.ledger() if row.uniqueid not in before]
        async with place.database.session(read_only=True) as session:
            stored = set(
                await session.scalars(select(CallRecordRow.uniqueid).where(CallRecordRow.disposition.is_not(None)))
            )
        return {row.uniqueid for row in rows} <= stored

    await eventually(written, "a record of each call")
    rows = [row for row in place.ledger() if row.uniqueid not in before]
    by_caller: dict[str, list[LedgerRow]] = {}
    for row in rows:
        by_caller.setdefault(row.caller, []).append(row)
    wrong = []
    for attempt in attempts:
        problem = verdict(attempt, by_caller.pop(attempt.caller, []))
        if problem:
            wrong.append(f"{attempt.odd.name}: {problem}; {attempt.statuses} {attempt.requests}")
        await attempt.close()
    assert wrong == []
    assert by_caller == {}, "calls of nobody"
    # Whom Asterisk called: the business, once for each call that was taken.
    new = {call: uri for call, uri in invites_sent(door.capture).items() if call not in invites}
    assert {re.sub(r"@.*", "", uri) for uri in new.values()} == {f"sip:{door.business.phones['desk']}"}
    assert len(new) == sum(bool(row.dialstatus) for row in rows)
    async with place.database.session(read_only=True) as session:
        stored = Counter(await session.scalars(select(CallRecordRow.uniqueid)))
        rejected = set(
            await session.scalars(select(CallRecordRow.uniqueid).where(CallRecordRow.disposition == "rejected"))
        )
    assert [each for each, count in stored.items() if count > 1] == []
    assert set(stored) == {row.uniqueid for row in place.ledger()}, "a record of what was no call"
    assert {row.uniqueid for row in rows if not row.dialstatus} <= rejected
    assert resident(door.pid) - memory < GROWTH_BYTES
    await door.alive()


async def test_odd_messages_from_a_stranger(door: Door) -> None:
    rows, invites = len(door.place.ledger()), len(invites_sent(door.capture))
    attempts = await send_all(door, corpus(), f"{door.net}.66", "UDP", 2000)
    served = [
        (attempt.odd.name, attempt.statuses, attempt.requests)
        for attempt in attempts
        if attempt.requests or any(status < 400 for status in attempt.statuses)
    ]
    for attempt in attempts:
        await attempt.close()
    assert served == []
    assert sum(401 in attempt.statuses for attempt in attempts) > 50
    assert len(door.place.ledger()) == rows
    assert len(invites_sent(door.capture)) == invites
    await door.alive()


# -- scanners ----------------------------------------------------------------------------------------------------------


class Scanner:
    """Asks one question after another, as svmap, svwar and svcrack do, from as many addresses as one likes."""

    def __init__(self, server: Address) -> None:
        self.server = server
        self.answers: dict[str, list[bytes]] = {}
        self._wires: list[Wire] = []
        self._count = 0

    async def open(self, hosts: Sequence[str]) -> Scanner:
        self._wires = [await Wire(self._take).open(host) for host in hosts]
        return self

    def _take(self, data: bytes, _sender: Address) -> None:
        found = parse(data)
        if found is not None:
            self.answers.setdefault(found["Call-ID"], []).append(data)

    def ask(self, method: str, user: str, authorization: str = "") -> str:
        """Send one request; gives its Call-ID."""
        self._count += 1
        wire = self._wires[self._count % len(self._wires)]
        host, port = wire.local
        call_id = f"scan-{self._count}"
        who = f"<sip:{user}@{self.server[0]}>"
        lines = [
            f"{method} sip:{user}@{self.server[0]}:{self.server[1]} SIP/2.0",
            f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK-{self._count};rport", "Max-Forwards: 70",
            f'From: "sipvicious" {who};tag={self._count:x}', f"To: {who}", f"Call-ID: {call_id}",
            f"CSeq: 1 {method}", f"Contact: <sip:{user}@{host}:{port}>", "User-Agent: friendly-scanner",
            *([f"Authorization: {authorization}"] if authorization else ()), "Expires: 3600", "Content-Length: 0",
        ]  # fmt: skip
        wire.send(("\r\n".join(lines) + "\r\n\r\n").encode(), self.server)
        return call_id

    async def said(self, call_id: str) -> bytes:
        """The answer, without what differs from question to question."""
        await eventually(lambda: call_id in self.answers, f"an answer to {call_id}", 5.0)
        return re.sub(
            rb'(?m)(nonce="[^"]*"|opaque="[^"]*"|tag=[^\s;]+|branch=[^\s;]+|rport=\d+|scan-\d+'
            rb"|<sip:[^>]*>|127\.[\d.]+(:\d+)?)",
            b"X",
            self.answers[call_id][0],
        )

    def close(self) -> None:
        for wire in self._wires:
            wire.close()


@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER", "INVITE", "SUBSCRIBE", "MESSAGE"])
async def test_a_scanner_learns_no_names(door: Door, method: str) -> None:
    """What is there and what is not is answered alike: a trunk, our own endpoint, a number of ours, nobody."""
    scanner = await Scanner(door.server).open([f"{door.net}.67"])
    try:
        names = ("trunk-odd-udp", "callrouter-uri", door.business.did, "1000", "nobody-at-all")
        answers = {name: await scanner.said(scanner.ask(method, name)) for name in names}
    finally:
        scanner.close()
    assert len(set(answers.values())) == 1, answers
    [answer] = set(answers.values())
    assert answer.startswith(b"SIP/2.0 401")
    assert b"Asterisk" not in answer


async def test_a_scanner_guesses_no_password(door: Door) -> None:
    """Any password for any name is as wrong as any other, and none is right."""
    scanner = await Scanner(door.server).open([f"{door.net}.67"])
    try:
        for user in ("trunk-odd-udp", "1000"):
            challenge = scanner.answers[await answered(scanner, scanner.ask("REGISTER", user))][0]
            nonce = re.search(rb'nonce="([^"]+)"', challenge)
            opaque = re.search(rb'opaque="([^"]+)"', challenge)
            assert nonce is not None
            assert opaque is not None
            given = (
                f'Digest username="{user}", realm="asterisk", nonce="{nonce[1].decode()}", uri="sip:x", '
                f'response="{"0" * 32}", opaque="{opaque[1].decode()}", algorithm=MD5'
            )
            asked = [scanner.ask("REGISTER", user, given) for _ in range(20)]
            for each in asked:
                assert (await scanner.said(each)).startswith(b"SIP/2.0 401")
    finally:
        scanner.close()
    shunned = f'{{"address": "{door.net}.67", "times": 10, "last": "'
    await eventually(lambda: shunned in door.place.server_log(), "a line for the firewall")


async def answered(scanner: Scanner, call_id: str) -> str:
    await scanner.said(call_id)
    return call_id


def busy_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def test_a_flood_costs_little_and_is_counted(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    """Thousands of questions from hundreds of addresses, while callers call."""
    place, count = door.place, 3000
    assert place.child is not None
    hosts = [f"{door.net}.{last}" for last in range(100, 250)] + [
        f"{door.net.rpartition('.')[0]}.{251 + third}.{last}" for third in range(2) for last in range(1, 121)
    ]
    assert len(hosts) > MAX_SECURITY_COUNTERS
    scanner = await Scanner(door.server).open(hosts)
    pids = {"Asterisk": door.pid, "the server": place.child.pid}
    used = {name: busy_seconds(pid) for name, pid in pids.items()}
    memory = {name: resident(pid) for name, pid in pids.items()}
    rows, invites = len(place.ledger()), len(invites_sent(door.capture))
    try:
        calling = asyncio.create_task(place.call(door.business, steps=(Answered(), UntilHangup())))
        began = time.monotonic()
        for number in range(count):
            scanner.ask(("REGISTER", "INVITE", "OPTIONS")[number % 3], str(100 + number))
            if number % 10 == 9:
                await asyncio.sleep(0.01)
        await eventually(lambda: len(scanner.answers) >= count, "an answer to everyone", 30.0)
        took = time.monotonic() - began
        seen = await calling
    finally:
        scanner.close()
    cost = {name: (busy_seconds(pid) - used[name]) / count * 1000 for name, pid in pids.items()}
    grown = {name: (resident(pid) - memory[name]) / 1e6 for name, pid in pids.items()}
    with capsys.disabled():
        print(f"\nscanner: {count / took:.0f} messages/s; ms each {cost}; MB grown {grown}")
    assert seen.call.record.disposition is Disposition.ANSWERED, "a caller during the flood"
    assert cost["Asterisk"] < 2.0
    assert cost["the server"] < 2.0
    assert max(grown.values()) < GROWTH_BYTES / 1e6
    assert len(place.ledger()) == rows + 1
    assert len(invites_sent(door.capture)) == invites + 1

    def counted() -> bool:
        return sum(place.status()["ami"]["security"].values()) >= count

    await eventually(counted, "everyone is counted")
    security = place.status()["ami"]["security"]
    assert len(security) <= MAX_SECURITY_COUNTERS + 16, "the addresses are the attacker's to choose"
    await door.alive()


async def test_nobody_is_reached_through_a_stranger(door: Door) -> None:
    """Not even with a route through us, or to an address of ours as seen from inside."""
    invites = len(invites_sent(door.capture))
    relays = [
        replace(Odd("relay", "", "refused"), start=f"{method} sip:+19005550100@192.0.2.9 SIP/2.0", add=add)
        for method in ("INVITE", "REFER", "OPTIONS", "MESSAGE")
        for add in ((), (f"Route: <sip:{door.server[0]}:{door.server[1]};lr>, <sip:192.0.2.9;lr>",))
    ]
    attempts = await send_all(door, relays, f"{door.net}.66", "UDP", 3000)
    assert not any(status < 400 for attempt in attempts for status in attempt.statuses)
    for attempt in attempts:
        await attempt.close()
    assert len(invites_sent(door.capture)) == invites
