"""Trunks that register, with a registrar of real SIP: set up, looked at and mended as an admin does."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from callrouter.core.disposition import Disposition
from callrouter.testing.carrier import SimulatedCarrier
from callrouter.testing.carrier_script import Answered, CallScript, Hangup, Phone, Wait
from tests.acceptance.conversations import speaking
from tests.fixtures.installation import Installation, eventually, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

MAIN, OTHER = "acme100", "acme200"
PASSWORDS = {MAIN: "right; and #proper", OTHER: "another"}


@dataclass
class Registered:
    place: Installation
    registrar: SimulatedCarrier

    async def cli(self, *words: object, stdin: str = "") -> tuple[int, str]:
        """Run a command: its exit status and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "callrouter", "--home", str(self.place.settings.home_dir), *map(str, words)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate(stdin.encode())
        return process.returncode or 0, out.decode()

    async def add(self, name: str, user: str, password: str, transport: str) -> None:
        words = ("--host", self.registrar.address, "--port", self.registrar.sip_port, "--transport", transport)
        more = ("--did-source", "request-uri", "--qualify-seconds", 0, "--username", user, "--password-stdin")
        code, said = await self.cli(
            "trunk", "add", name, "--preset", "generic-registration", *words, *more, stdin=password
        )
        assert code == 0, said

    def registration(self, name: str) -> str:
        state: dict[str, Any] = self.place.status().get("ami", {}).get("trunks", {}).get(name) or {}
        return str(state.get("registration"))

    async def becomes(self, name: str, word: str, seconds: float = 30.0) -> None:
        try:
            await eventually(lambda: self.registration(name) == word, f"trunk {name} is {word}", seconds)
        except AssertionError as exc:
            raise AssertionError(f"{exc}: it is {self.registration(name)}") from None


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registered() -> AsyncIterator[Registered]:
    async with installation() as place:
        settings = place.settings
        registrar = SimulatedCarrier(
            place.install,
            settings.home_dir / "registrar",
            address=settings.simulator_address.rpartition(".")[0] + ".40",
            server=(settings.sip_bind, settings.sip_port),
            name="registrar",
            accounts=PASSWORDS,
        )
        async with registrar:
            await place.spawn_server()
            made = Registered(place, registrar)
            await made.add("main", MAIN, PASSWORDS[MAIN], "tcp")
            await made.becomes("main", "Registered")
            yield made


async def test_it_is_shown(registered: Registered) -> None:
    for words in (("status",), ("trunk", "show", "main")):
        code, said = await registered.cli(*words)
        assert code == 0, said
        assert "Registered" in said
    code, said = await registered.cli("trunk", "test", "main", "--json")
    assert code == 0
    assert json.loads(said)["state"] == "ok"
    assert "registered" in json.loads(said)["detail"]


async def test_calls_in_and_out_over_it(registered: Registered) -> None:
    """Calls in come without a password and are known by their address; calls out prove ours."""
    place, registrar = registered.place, registered.registrar
    business = await place.business({"desk": speaking()}, trunk="main")
    await registrar.add_phone(Phone(business.phones["desk"], speaking()))
    caller = place.caller()
    result = await registrar.place(CallScript(did=business.did, caller=caller, steps=(Answered(), Wait(1.5), Hangup())))
    assert result.answered
    [phone] = await registrar.wait_phone_calls(business.phones["desk"], 1)
    assert phone.answered
    assert f'username="{MAIN}"' in phone.header("Authorization")
    [call] = await place.records_of(business.did, caller)
    assert (call.record.trunk, call.record.disposition) == ("main", Disposition.ANSWERED)


async def test_a_wrong_password_is_told_and_its_correction_tried_at_once(registered: Registered) -> None:
    await registered.add("other", OTHER, "wrong", "udp")
    await registered.becomes("other", "Rejected")
    code, said = await registered.cli("trunk", "test", "other")
    assert code == 1
    assert f"rejects our registration as {OTHER} (401)" in said
    assert "likely cause: wrong user name or password" in said
    assert "callrouter trunk secret other" in said
    code, said = await registered.cli("trunk", "secret", "other", "--stdin", stdin=PASSWORDS[OTHER])
    assert (code, said) == (0, "password of trunk other stored: in force\n")
    await registered.becomes("other", "Registered", 10.0)
    assert (await registered.cli("trunk", "test", "other"))[0] == 0


async def test_a_registrar_that_goes_away_and_comes_back(registered: Registered) -> None:
    await registered.registrar.stop()
    await registered.becomes("main", "Rejected")
    code, said = await registered.cli("trunk", "test", "main")
    assert code == 1
    assert f"not registered with {registered.registrar.address}: it does not answer" in said
    assert "password" not in said, "it is not the password's fault"
    await registered.registrar.start()
    await registered.becomes("main", "Registered")
