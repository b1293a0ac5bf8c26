"""Who calls, and who may: what trunks say of callers, and who is refused; on real Asterisk."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callrouter.core.disposition import Disposition
from callrouter.store import config
from callrouter.store.calls import StoredCall
from callrouter.testing.carrier import SimulatedCarrier
from callrouter.testing.carrier_legs import CallResult
from callrouter.testing.carrier_script import Answered, CallScript, Hangup, Wait, answer
from tests.fixtures.installation import Business, Installation, Seen, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

FIRM = "+13125550166"
"""What the carrier asserts."""
SHOWN = "+12125550100"
"""What the caller's own From says."""
ASSERTED = {
    "P-Asserted-Identity": f'"Firm" <sip:{FIRM};verstat=TN-Validation-Passed-B@carrier.example>',
    "Diversion": "<sip:+12025550177@carrier.example>;reason=no-answer;counter=1",
}
EARLIER = """
start: who
nodes:
  who:
    type: caller
    on_first_time: customer
    on_repeat: end
    tags: [customer]
    on_known: known
    on_unknown: end
  customer: {type: tag, tags: [customer], next: new}
  new: {type: dial, target: new, on_busy: end, on_no_answer: end, on_failed: end}
  known: {type: dial, target: known, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""
TALK = (Answered(), Wait(1.0), Hangup())


async def asserted(place: Installation, carrier: SimulatedCarrier, business: Business, **script: object) -> CallResult:
    given: dict[str, object] = {"did": business.did, "caller": SHOWN, "steps": TALK, "max_seconds": 20.0}
    return await carrier.place(CallScript(**(given | script)))  # type: ignore[arg-type]


async def check_identity(place: Installation, carrier: SimulatedCarrier) -> None:
    """The same headers over a trunk that is trusted and over one that is not; and a number that is withheld."""
    trusting = await place.business({"desk": answer()})
    stranger = await place.business({"desk": answer()})
    private = await place.business({"desk": answer()})
    results = await asyncio.gather(
        asserted(place, carrier, trusting, headers=ASSERTED),
        place.place(stranger, caller=SHOWN, headers=ASSERTED, steps=TALK),
        asserted(place, carrier, private, headers={**ASSERTED, "Privacy": "id"}),
    )
    believed: Seen = await place.seen(trusting, results[0], FIRM)
    record = believed.call.record
    assert (record.caller, record.caller_name, record.trunk) == (FIRM, "Firm", "asserting")
    assert (record.verstat, record.privacy) == ("TN-Validation-Passed-B", None)
    assert record.diverted_from == "+12025550177 (no-answer)"
    assert believed.ledger.caller == FIRM
    assert believed.phone.from_number == FIRM
    # Anybody may write these headers: over a trunk that is not trusted From counts, and no verdict is taken over.
    forged = await place.seen(stranger, results[1], SHOWN)
    assert (forged.call.record.caller, forged.call.record.verstat) == (SHOWN, None)
    assert forged.phone.from_number == SHOWN
    withheld = await place.seen(private, results[2], None)
    record = withheld.call.record
    assert (record.caller, record.caller_name, record.privacy) == (None, None, "id")
    assert (withheld.ledger.caller, record.disposition) == ("", Disposition.ANSWERED)
    # Neither number reaches the business, in no header.
    assert not [line for line in withheld.phone.headers.items() if FIRM in line[1] or SHOWN in line[1]]


async def check_blocked(place: Installation) -> None:
    """By number and by prefix, with a server and without one; nobody else is."""
    business = await place.business({"desk": answer()})
    async with place.database.session() as session:
        await config.add_block(session, pattern="+13245550111", reason="robocaller", who="tests")
        await config.add_block(session, pattern="+1323*", company=business.company, cause="busy", who="tests")
    await place.in_force()
    tried = {"+13245550111": (403, "robocaller"), "+13235550122": (486, "(+1323*)")}
    for caller, (status, why) in tried.items():
        result = await place.place(business, caller=caller, steps=TALK)
        assert (result.sip_status, result.answered) == (status, False)
        blocked = await place.seen(business, result, caller)
        assert (blocked.call.record.disposition, blocked.call.company) == (Disposition.BLOCKED, business.company)
        assert why in blocked.call.record.reason
        assert not blocked.phones["desk"]
    assert await place.end_child() == 0
    for caller, status in (("+13245550111", 403), ("+13235550133", 486), ("+13255550144", 200)):
        result = await place.place(business, caller=caller, steps=TALK)
        assert result.sip_status == status, caller
    await place.spawn_server()
    [blocked_alone] = await place.records_of(business.did, "+13235550133")
    assert (blocked_alone.record.disposition, blocked_alone.record.handled_by) == (Disposition.BLOCKED, "failsafe")
    [let_in] = await place.records_of(business.did, "+13255550144")
    assert let_in.record.disposition is Disposition.ANSWERED


async def check_earlier_calls(place: Installation) -> None:
    """A first call, then one of somebody who is known, also after a restart; then one too many."""
    business = await place.business({"new": answer(), "known": answer()}, flow=EARLIER)
    caller = place.caller()

    async def calls(count: int, **more: Any) -> StoredCall:
        await place.place(business, caller=caller, steps=TALK, **more)
        return (await place.records_of(business.did, caller, count))[-1]

    first = await calls(1)
    assert (first.record.path, first.record.answered_by) == (("who", "customer", "new"), "new")
    second = await calls(2)
    assert (second.record.path, second.record.answered_by) == (("who", "known"), "known")
    assert "an earlier call has the tag 'customer'" in [step.why for step in second.record.trace]
    assert await place.end_child() == 0
    await place.spawn_server()
    third = await calls(3)
    assert third.record.path == ("who", "known")
    async with place.database.session() as session:
        await config.edit_company(session, business.company, {"max_calls_per_caller": 3}, who="tests")
    await place.in_force()
    result = await place.place(business, caller=caller, steps=TALK)
    assert result.sip_status == 403
    fourth = (await place.records_of(business.did, caller, 4))[-1].record
    assert (fourth.disposition, fourth.path) == (Disposition.BLOCKED, ())
    assert fourth.reason == "3 calls before this one in 1 hour; at most 3 are taken"


async def test_callers() -> None:
    async with installation() as place:
        settings = place.settings
        carrier = SimulatedCarrier(
            place.install,
            settings.home_dir / "asserting",
            address=settings.simulator_address.rpartition(".")[0] + ".40",
            server=(settings.sip_bind, settings.sip_port),
            name="asserting",
        )
        async with carrier:
            await place.spawn_server()
            async with place.database.session() as session:
                await config.add_trunk(
                    session, name="asserting", host=carrier.address, port=carrier.sip_port, qualify_seconds=0,
                    trust_identity=True, who="tests",
                )  # fmt: skip
            await place.in_force()
            await check_identity(place, carrier)
            await check_blocked(place)
            await check_earlier_calls(place)
            assert await place.end_child() == 0
            assert "Traceback" not in place.server_log()
