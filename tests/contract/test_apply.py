"""How Asterisk is told of changed trunks."""

from __future__ import annotations

import dataclasses

from callrouter.asterisk.ami import Ami
from callrouter.asterisk.apply import RELOADED, reload
from callrouter.core.model import MediaEncryption, Trunk
from callrouter.testing.fake_ami import FakeAmi

PLAIN = Trunk(id="1", name="isp", preset="generic-ip", host="192.0.2.1")
SECURE = dataclasses.replace(PLAIN, transport="tls", media_encryption=MediaEncryption.SDES)
OK = "Response: Success\nMessage: done"


async def told(trunk: Trunk, *, loaded: bool, registration: str) -> list[str]:
    """What was asked of an Asterisk, in order."""
    async with FakeAmi() as server:
        for action in ("Reload", "ModuleLoad", "PJSIPRegister"):
            server.reply(action, OK)
        server.reply("ModuleCheck", OK if loaded else "Response: Error\nMessage: Module not loaded")
        server.reply(
            "PJSIPShowRegistrationsOutbound",
            "Response: Success\nEventList: start\nMessage: Following are Events for each Outbound registration",
            f"Event: OutboundRegistrationDetail\nObjectName: trunk-isp\nStatus: {registration}\nNextReg: 0",
            "Event: OutboundRegistrationDetailComplete\nEventList: Complete\nListItems: 1",
        )
        async with Ami("127.0.0.1", server.port, server.user, server.secret) as ami:
            before = len(server.actions)
            await reload(ami, [trunk])
        wanted = ("Reload", "ModuleCheck", "ModuleLoad", "PJSIPRegister")
        return [
            " ".join(filter(None, (each["Action"], each.get("Module") or each.get("Registration"))))
            for each in server.actions[before:]
            if each["Action"] in wanted
        ]


RELOADS = [f"Reload {module}" for module in RELOADED]


async def test_nothing_more_than_a_reload_for_a_plain_trunk() -> None:
    assert await told(PLAIN, loaded=False, registration="Registered") == RELOADS


async def test_the_first_trunk_with_srtp_has_its_module_loaded_before() -> None:
    wanted = ["ModuleCheck res_srtp.so", "ModuleLoad res_srtp.so", *RELOADS]
    assert await told(SECURE, loaded=False, registration="Unregistered") == wanted
    assert await told(SECURE, loaded=True, registration="Unregistered") == [wanted[0], *RELOADS]


async def test_a_rejected_registration_is_tried_again_at_once() -> None:
    assert await told(PLAIN, loaded=False, registration="Rejected") == [*RELOADS, "PJSIPRegister trunk-isp"]
