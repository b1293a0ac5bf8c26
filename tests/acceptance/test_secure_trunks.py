"""Trunks over TLS with SRTP, against a carrier that speaks nothing else; and what comes without is refused."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio

from callrouter.asterisk.tls import self_signed, tls_files
from callrouter.core.disposition import Disposition
from callrouter.doctor.asterisk import open_ami
from callrouter.doctor.trunks import trunk as look
from callrouter.store import config
from callrouter.testing import sipp
from callrouter.testing.audio import tone_present
from callrouter.testing.carrier import SimulatedCarrier
from callrouter.testing.carrier_conf import CarrierTls
from callrouter.testing.carrier_script import Answered, CallScript, Hangup, Phone, Wait
from callrouter.testing.sipp import SippResult, run_sipp
from tests.acceptance.conversations import check_recording, speaking
from tests.fixtures.installation import BUSINESS_HZ, CALLER_HZ, Business, Installation, Seen, eventually, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

SIGNALLING, MEDIA = "CHANNEL(pjsip,secure)", "CHANNEL(rtp,secure)"
TALK = (Answered(), Wait(2.0), Hangup())


@dataclass
class Secure:
    """:param carriers: by trunk"""

    place: Installation
    carriers: dict[str, SimulatedCarrier]

    async def require(self, trunk: str, secure_only: bool) -> None:
        """Have a trunk refuse what comes without TLS, or take it; in force in Asterisk on return."""
        async with self.place.database.session() as session:
            await config.edit_trunk(session, trunk, {"secure_only": secure_only}, who="tests", why="the other way")
        await self.in_force(trunk, secure_only)

    async def in_force(self, trunk: str, secure_only: bool) -> None:
        async def loaded() -> bool:
            return ("cr-secure-only" in await self.place.asterisk.rx(f"dialplan show cr-trunk-{trunk}")) is secure_only

        await eventually(loaded, f"trunk {trunk} with secure_only {secure_only}")

    async def call(self, trunk: str, business: Business, **script: Any) -> Seen:
        """A call that comes in and goes out over one trunk, from all sides."""
        place, carrier = self.place, self.carriers[trunk]
        await carrier.add_phone(Phone(business.phones["desk"], speaking()))
        caller = place.caller()
        result = await carrier.place(
            CallScript(did=business.did, caller=caller, speak=f"tone:{CALLER_HZ}", max_seconds=30, steps=TALK, **script)
        )
        [call] = await place.records_of(business.did, caller)
        phones = await carrier.wait_phone_calls(business.phones["desk"], 1)
        return Seen(result, {"desk": phones}, call, await place.ledger_of(call.record.uniqueid))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def secure() -> AsyncIterator[Secure]:
    """Four trunks: SDES, DTLS, TLS only; and one whose carrier shows a stranger's certificate and offers no keys."""
    media: dict[str, Literal["no", "sdes", "dtls"]] = {"sdes": "sdes", "dtls": "dtls", "signalling": "no", "odd": "no"}
    async with installation(sip_tls_ca="providers.pem") as place:
        settings = place.settings
        net = settings.simulator_address.rpartition(".")[0]
        carriers, trusted = {}, b""
        for order, (name, kind) in enumerate(media.items(), 41):
            directory = settings.home_dir / f"carrier-{name}"
            directory.mkdir()
            certificate, key = self_signed([f"{net}.{order}"])
            (directory / "certificate.pem").write_bytes(certificate)
            (directory / "key.pem").write_bytes(key)
            trusted += certificate if name != "odd" else b""
            carriers[name] = SimulatedCarrier(
                place.install,
                directory,
                address=f"{net}.{order}",
                server=(settings.sip_bind, settings.sip_tls_port),
                name=name,
                tls=CarrierTls(directory / "certificate.pem", directory / "key.pem", kind),
            )
        (settings.home_dir / "providers.pem").write_bytes(trusted)
        try:
            await asyncio.gather(*(carrier.start() for carrier in carriers.values()))
            await place.start_server()
            for name, carrier in carriers.items():
                async with place.database.session() as session:
                    await config.add_trunk(
                        session,
                        name=name,
                        host=carrier.address,
                        port=carrier.tls_port,
                        transport="tls",
                        media_encryption="sdes" if name == "odd" else {"no": "none"}.get(media[name], media[name]),
                        secure_only=True,
                        qualify_seconds=1,
                        who="tests",
                    )
            made = Secure(place, carriers)
            await asyncio.gather(*(made.in_force(name, True) for name in carriers))
            yield made
        finally:
            await asyncio.gather(*(carrier.stop() for carrier in carriers.values()))


@pytest.mark.parametrize("name", ["sdes", "dtls", "signalling"])
async def test_a_call_in_and_out(secure: Secure, name: str) -> None:
    """Set up while Asterisk runs: neither the transport nor the module for SRTP was there at its start."""
    business = await secure.place.business({"desk": speaking()}, trunk=name)
    calling = asyncio.create_task(secure.call(name, business))
    protected: list[dict[str, str]] = []

    async def both_legs_talk() -> bool:
        async with secure.place.ari() as ari:
            legs = [leg.id for leg in await ari.channels() if leg.state == "Up"]
            protected[:] = [await ari.get_variables(leg, [SIGNALLING, MEDIA]) for leg in legs]
        return len(legs) == 2

    await eventually(both_legs_talk, "both legs talk")
    seen = await calling
    assert protected == [{SIGNALLING: "1", MEDIA: "0" if name == "signalling" else "1"}] * 2
    assert seen.caller.answered
    assert (seen.call.record.disposition, seen.call.record.trunk) == (Disposition.ANSWERED, name)
    assert seen.caller.heard is not None
    assert tone_present(seen.caller.heard, BUSINESS_HZ)
    assert seen.phone.heard is not None
    assert tone_present(seen.phone.heard, CALLER_HZ)
    check_recording(secure.place, seen)


async def invite(secure: Secure, trunk: str, did: str, contact: str = "", extra: str = "X-Probe: yes") -> SippResult:
    """An INVITE over UDP, without keys, from the address of a trunk's carrier; hung up when answered."""
    settings, carrier = secure.place.settings, secure.carriers[trunk]
    scenario = (Path(sipp.__file__).parent / "sipp" / "uac_invite_only.xml").read_text()
    file = settings.home_dir / "invite.xml"
    file.write_text(
        scenario.replace("sip:probe@[local_ip]:[local_port]", contact or "sip:probe@[local_ip]:[local_port]")
    )
    keys = {
        "uri_user": did,
        "from_header": f"<sip:{secure.place.caller()}@{carrier.address}>",
        "to_header": f"<sip:{did}@{settings.sip_bind}>",
        "extra": extra,
    }
    remote = (settings.sip_bind, settings.sip_port)
    return await run_sipp(file, remote, local_ip=carrier.address, keys=keys, talk_seconds=0.5, timeout=20)


async def test_what_comes_in_plaintext_gets_no_service(secure: Secure) -> None:
    """Nor does one that says it were secure. It leaves no call and no row in the ledger, but a line in the log."""
    place, address = secure.place, secure.carriers["signalling"].address
    business = await place.business({"desk": speaking()})
    rows = len(place.ledger())
    lies = {"contact": f"sip:probe@{address}:5061;transport=tls", "extra": f"Record-Route: <sips:{address};lr>"}
    for more in ({}, {"contact": lies["contact"]}, lies):
        refused = await invite(secure, "signalling", business.did, **more)
        assert list(refused.final_status.values()) == [403], more
    log = (place.settings.asterisk_dir / "log" / "messages").read_text()
    assert f"trunk signalling: a call from {address}" in log
    assert "came without TLS and was refused" in log
    await secure.require("signalling", False)
    try:
        taken = await invite(secure, "signalling", business.did)
        assert list(taken.final_status.values()) == [200], "where it is not required, it is not refused"
        await place.records_of(business.did, count=1)
        assert len(place.ledger()) == rows + 1
    finally:
        await secure.require("signalling", True)


async def test_an_offer_without_keys_is_refused(secure: Secure) -> None:
    place = secure.place
    business = await place.business({"desk": speaking()})
    rows = len(place.ledger())
    over_udp = await invite(secure, "sdes", business.did)
    assert list(over_udp.final_status.values()) == [488]
    over_tls = await secure.carriers["odd"].place(CallScript(did=business.did, caller=place.caller()))
    assert over_tls.sip_status == 488
    assert len(place.ledger()) == rows


async def test_a_renewed_certificate_is_taken_up_by_a_reload(secure: Secure) -> None:
    settings = secure.place.settings
    where = (settings.sip_bind, settings.sip_tls_port)
    files = tls_files(settings)
    before = await asyncio.to_thread(ssl.get_server_certificate, where)
    assert before == files.certificate.read_text()
    certificate, key = self_signed([settings.sip_bind])
    files.certificate.write_bytes(certificate)
    files.key.write_bytes(key)
    await secure.place.asterisk.rx("module reload res_pjsip.so")

    async def shown() -> bool:
        return (await asyncio.to_thread(ssl.get_server_certificate, where)).encode() == certificate

    await eventually(shown, "the new certificate is shown")


async def test_a_strangers_certificate_is_not_trusted(secure: Secure) -> None:
    """Nothing goes out over such a trunk; the doctor says why."""
    place = secure.place
    async with place.database.session() as session:
        trunk = await config.get_trunk(session, "odd")
    async with open_ami(place.settings) as ami:

        async def unreachable() -> bool:
            return (await ami.contacts(["trunk-odd"]))[0].status == "Unreachable"

        await eventually(unreachable, "the trunk is unreachable")
        found = await look(place.settings, ami, trunk)
    assert (found.state, found.detail) == (
        "fail",
        f"no connection to {trunk.host} over TLS: the certificate is untrusted",
    )
    assert "sip_tls_ca" in (found.mend or "")
    business = await place.business({"desk": speaking()}, trunk="odd")
    seen = await place.call(business)
    assert not seen.caller.answered
    assert seen.call.record.disposition is Disposition.FAILED
    assert await secure.carriers["odd"].phone_calls() == []


async def test_it_stands_after_a_restart_of_asterisk(secure: Secure) -> None:
    place = secure.place
    await place.asterisk.stop()
    await place.asterisk.start()
    server = place.server
    assert server is not None
    await eventually(lambda: server.stream.connected, "the server's event socket")
    seen = await secure.call("sdes", await place.business({"desk": speaking()}, trunk="sdes"))
    assert seen.call.record.disposition is Disposition.ANSWERED
    assert seen.call.record.handled_by == "controller"
    check_recording(place, seen)
