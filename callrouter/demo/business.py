"""Two companies in different time zones, with campaigns, numbers, flows and business lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.resources import resource_dir
from callrouter.store import config
from callrouter.testing.carrier import SimulatedCarrier
from callrouter.testing.carrier_script import (
    Behaviour,
    CallScript,
    Digits,
    Hangup,
    Phone,
    UntilHangup,
    Wait,
    answer,
    busy,
    no_answer,
)

WHO = "demo"
WHY = "the demonstration's business"

MENU_NUMBER = "+12025550101"


@dataclass(frozen=True, slots=True)
class Line:
    """A business line and how its simulated phone behaves."""

    company: str
    name: str
    title: str
    behaviour: Behaviour
    ring_seconds: int = 20
    whisper: str | None = None


LINES = (
    Line("harbor-dental", "reception", "Reception", answer(after=1.5, hang_up_after=6.0)),
    Line(
        "harbor-dental",
        "dr-lee",
        "Dr. Lee's office",
        answer(after=2.5, hang_up_after=5.0),
        whisper="Call from {campaign}.",
    ),
    Line("harbor-dental", "billing-desk", "Billing desk", no_answer(), ring_seconds=6),
    Line("westside-plumbing", "dispatch", "Dispatch", busy()),
    Line("westside-plumbing", "on-call", "On-call plumber", busy()),
)


@dataclass(frozen=True, slots=True)
class DemoCall:
    """One call of the demonstration, and what it shows."""

    shows: str
    script: CallScript


CALLS = (
    DemoCall(
        "answered through the menu",
        CallScript(
            did="+12025550101",
            caller="+12125550142",
            caller_name="Maria Alvarez",
            steps=(Wait(2.5), Digits("1"), UntilHangup()),
            max_seconds=40,
        ),
    ),
    DemoCall(
        "answered, straight through",
        CallScript(did="+12025550102", caller="+17035550188", caller_name="Sam Okafor", max_seconds=40),
    ),
    DemoCall(
        "busy",
        CallScript(did="+13105550111", caller="+13235550119", caller_name="Wei Chen", max_seconds=40),
    ),
    DemoCall(
        "not answered",
        CallScript(did="+12025550103", caller="+14105550176", caller_name="Zoë Baker", max_seconds=40),
    ),
    DemoCall(
        "hung up in the menu",
        CallScript(did="+12025550104", caller="+12025550199", steps=(Wait(3.0), Hangup()), max_seconds=40),
    ),
)


async def load_business(session: AsyncSession, carrier: SimulatedCarrier) -> bool:
    """Put the business into the database, once; False when it was there already.

    The phones' addresses are brought up to date every time: the carrier's port may differ from run to run.
    """
    uris = {line.name: carrier.uri(line.name) for line in LINES}
    if await config.list_companies(session):
        for phone in await config.list_targets(session):
            if phone.name in uris and phone.sip_uri != uris[phone.name]:
                await config.edit_target(
                    session, phone.name, {"sip_uri": uris[phone.name]}, who=WHO, why="the simulated phones moved"
                )
        return False
    said: dict[str, Any] = {"who": WHO, "why": WHY}
    await config.add_trunk(session, name="softphone", host="127.0.0.1", preset="generic-ip", qualify_seconds=0, **said)
    await config.add_company(session, name="harbor-dental", title="Harbor Dental", timezone="America/New_York", **said)
    await config.add_company(
        session, name="westside-plumbing", title="Westside Plumbing", timezone="America/Los_Angeles", **said
    )
    for company, name, title, source, medium in (
        ("harbor-dental", "billboard-i95", "the billboard on I 95", "billboard", "offline"),
        ("harbor-dental", "spring-radio", "the spring radio spot", "radio", "offline"),
        ("westside-plumbing", "search-emergency", "the search ad for emergencies", "google", "cpc"),
    ):
        await config.add_campaign(session, company, name=name, title=title, source=source, medium=medium, **said)
    for line in LINES:
        await config.add_target(
            session,
            line.company,
            name=line.name,
            title=line.title,
            sip_uri=uris[line.name],
            ring_seconds=line.ring_seconds,
            whisper=line.whisper,
            **said,
        )
    flows = resource_dir("dialplans") / "flows"
    for company, name in (("harbor-dental", "front-desk"), ("westside-plumbing", "emergency")):
        await config.add_flow(session, company, name=name, text=(flows / f"{name}.yaml").read_text("utf-8"), **said)
    for company, number, name, campaign, flow, target in (
        ("harbor-dental", MENU_NUMBER, "billboard-line", "billboard-i95", "front-desk", None),
        ("harbor-dental", "+12025550102", "radio-line", "spring-radio", None, "dr-lee"),
        ("harbor-dental", "+12025550103", "statement-line", None, None, "billing-desk"),
        ("harbor-dental", "+12025550104", "radio-evening-line", "spring-radio", "front-desk", None),
        ("westside-plumbing", "+13105550111", "search-line", "search-emergency", "emergency", None),
    ):
        await config.add_number(
            session, company, number=number, name=name, campaign=campaign, flow=flow, target=target, **said
        )
    return True


def phones() -> list[Phone]:
    """The simulated phones of the business lines."""
    return [Phone(line.name, line.behaviour) for line in LINES]
