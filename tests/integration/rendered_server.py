"""A real Asterisk on the rendered configuration, and a simulated carrier that calls it."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from callrouter.asterisk.failsafe import FailsafeDestination, FailsafeEntry, write_failsafe
from callrouter.asterisk.install import AsteriskInstall, find_asterisk
from callrouter.asterisk.ledger import LedgerRow, read_ledger
from callrouter.asterisk.process import AsteriskProcess
from callrouter.asterisk.render import FAILSAFE_FILE, make_directories, render, write_config
from callrouter.asterisk.secrets import load_secrets
from callrouter.config import Settings, load_settings
from callrouter.core.model import Trunk
from callrouter.testing.carrier import SimulatedCarrier
from callrouter.testing.carrier_script import Phone, answer, busy, no_answer
from tests.fixtures.own_settings import free_port
from tests.waiting import eventually

DID = "+12025550101"
BUSY_FIRST = "+12025550102"
NEVER = "+12025550103"


@dataclass
class Place:
    """A server under test and the carrier that calls it."""

    settings: Settings
    install: AsteriskInstall
    asterisk: AsteriskProcess
    carrier: SimulatedCarrier

    def rows(self) -> list[LedgerRow]:
        return [row for row, _ in read_ledger(self.settings.ledger_path)]

    async def row(self, count: int) -> LedgerRow:
        """The ``count``-th row of the ledger, when it is there."""
        await eventually(lambda: len(self.rows()) >= count, f"row {count} of the ledger", 10)
        return self.rows()[count - 1]

    async def idle(self) -> None:
        async def none_left() -> bool:
            return "0 active channels" in await self.asterisk.rx("core show channels count")

        await eventually(none_left, "no channel left", 10)

    def trouble(self) -> list[str]:
        """What Asterisk complained of, but for the controller that is meant to be absent here."""
        log = (self.settings.asterisk_dir / "log" / "messages").read_text("utf-8")
        return [
            line
            for line in log.splitlines()
            if ("ERROR" in line or "WARNING" in line) and "not claimed within" not in line
        ]


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path: Asterisk's control socket has room for 107 characters."""
    path = Path(tempfile.mkdtemp(prefix="cr-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def settings(home: Path) -> Settings:
    net = f"127.{random.randint(64, 250)}.{random.randint(1, 250)}"
    server = f"{net}.1"
    rtp = random.randrange(20000, 40000, 2)
    return load_settings(
        environ={},
        home=str(home),
        sip_bind=server,
        sip_port=free_port(server, socket.SOCK_DGRAM),
        ari_host=server,
        ari_port=free_port(server, socket.SOCK_STREAM),
        ami_host=server,
        ami_port=free_port(server, socket.SOCK_STREAM),
        simulator_address=f"{net}.9",
        rtp_start=rtp,
        rtp_end=rtp + 400,
        failsafe_claim_ms=200,
    )


def trunk(name: str, **values: Any) -> Trunk:
    plain = Trunk(id=name, name=name, preset="generic-ip", host="127.3.3.3", qualify_seconds=0)
    return dataclasses.replace(plain, **values)


@pytest.fixture
async def place(settings: Settings, home: Path) -> AsyncIterator[Place]:
    install = find_asterisk(load_settings())
    make_directories(settings)
    assert write_config(render(settings, install, [], load_secrets(settings)), settings.asterisk_etc_dir)
    asterisk = AsteriskProcess(install, settings.asterisk_etc_dir / "asterisk.conf", home / "out.log")
    phones = [
        Phone("front", answer(after=0.5, speak="tone:700")),
        Phone("engaged", busy()),
        Phone("never", no_answer()),
    ]
    carrier = SimulatedCarrier(
        install,
        home / "carrier",
        address=settings.simulator_address,
        server=(settings.sip_bind, settings.sip_port),
        phones=phones,
    )
    try:
        await asyncio.gather(asterisk.start(), carrier.start())

        def dest(phone: str, ring: int, **more: Any) -> FailsafeDestination:
            return FailsafeDestination(f"PJSIP/callrouter-uri/{carrier.uri(phone)}", ring, **more)

        write_failsafe(
            settings.failsafe_dir / FAILSAFE_FILE,
            [
                FailsafeEntry(DID, (dest("front", 20),), number_id="n1", campaign_id="c1", company_id="k1"),
                FailsafeEntry(
                    BUSY_FIRST,
                    (
                        dest("engaged", 5, caller_id=DID),
                        dest("never", 1, caller_id=DID, place=2),
                        dest("front", 20, caller_id=DID, place=3),
                    ),
                ),
                FailsafeEntry(NEVER, (dest("never", 20),)),
            ],
        )
        yield Place(settings, install, asterisk, carrier)
    finally:
        await carrier.stop()
        await asterisk.stop()


class Older:
    """An Asterisk before StasisBroadcast and the faster ledger."""

    def __init__(self, install: AsteriskInstall) -> None:
        self.modules_dir, self.data_dir, self._install = install.modules_dir, install.data_dir, install

    def has_module(self, name: str) -> bool:
        return "broadcast" not in name and name != "res_cdrel_custom" and self._install.has_module(name)


def as_dict(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


def pitch(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * 8000 / len(samples))
