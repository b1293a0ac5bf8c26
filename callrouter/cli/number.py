"""``callrouter number``"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.cli.options import (
    changes_of,
    confirm,
    new_owner_option,
    of_option,
    only_company,
    owner_option,
    record_option,
    why_option,
    yes_option,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.core.model import TrackingNumber


@click.group(cls=Group)
def number() -> None:
    """Tracking numbers, and what answers them."""


@number.command(
    "add",
    examples="""
callrouter number add +12025550100 --company acme --campaign spring-radio --flow front-desk
callrouter number add "(202) 555-0101" --company acme --target ana --backup bob
""",
)
@click.argument("number")
@new_owner_option
@click.option("--name", help="Short name [default: the campaign's, if it is free, else the digits].")
@click.option("--campaign", metavar="NAME", help="The campaign it stands for.")
@click.option("--flow", metavar="NAME", help="The flow that answers it.")
@click.option("--target", metavar="NAME", help="The target that rings at once, without a flow.")
@click.option("--backup", metavar="NAME", help="The target that rings when the server is away.")
@click.option("--active/--inactive", default=True, help="Inactive: calls are refused.")
@record_option("inherit", "Recording: comes before the flow's, the target's and the company's word.")
@why_option
@pass_app
def add(app: App, number: str, company: str | None, name: str | None, **given: Any) -> None:
    """Add a tracking number. One of --flow and --target answers it."""
    from callrouter.store.config import add_number

    async def work(session: AsyncSession) -> tuple[TrackingNumber, str]:
        owner = await only_company(session, company)
        wanted = name or await _free_name(session, owner, number, given["campaign"])
        return await add_number(session, owner, number=number, name=wanted, who=app.who, **given), owner

    added, owner = app.write(work)
    output.changed(app, f"number {added.e164} added as {owner}/{added.name}", {**output.plain(added), "company": owner})


async def _free_name(session: AsyncSession, company: str, number: str, campaign: str | None) -> str:
    from callrouter.store.config import list_numbers

    taken = {each.name for each in await list_numbers(session, company)}
    digits = re.sub(r"\D", "", number) or "number"
    return campaign if campaign and campaign not in taken else digits


async def _listing(
    session: AsyncSession, company: str | None, campaign: str | None
) -> tuple[list[TrackingNumber], dict[str, str], dict[str, str]]:
    from callrouter.store import config as store

    companies = {c.id: c.name for c in await store.list_companies(session)}
    campaigns = {c.id: c.name for c in await store.list_campaigns(session)}
    return await store.list_numbers(session, company, campaign=campaign), companies, campaigns


@number.command("list", examples="callrouter number list --company acme\ncallrouter number list --campaign radio")
@of_option
@click.option("--campaign", metavar="NAME", help="Only those of this campaign.")
@pass_app
def list_(app: App, company: str | None, campaign: str | None) -> None:
    """List the tracking numbers."""
    found, companies, campaigns = app.read(lambda session: _listing(session, company, campaign))
    if app.json:
        output.emit([_json(n, companies, campaigns) for n in found])
    elif not found:
        output.say("No numbers yet. Add one: callrouter number add +12025550100 --company NAME --flow NAME")
    else:
        output.table(
            ("number", "company", "name", "campaign", "answered by", "backup", "active"),
            [
                (
                    n.e164,
                    companies[n.company_id],
                    n.name,
                    campaigns.get(n.campaign_id or ""),
                    _answer(n),
                    n.backup,
                    output.yes_no(n.active),
                )
                for n in found
            ],
        )


def _answer(number: TrackingNumber) -> str:
    return f"flow {number.flow}" if number.flow else f"target {number.target}"


def _json(number: TrackingNumber, companies: dict[str, str], campaigns: dict[str, str]) -> dict[str, Any]:
    return {
        **output.plain(number),
        "company": companies[number.company_id],
        "campaign": campaigns.get(number.campaign_id or ""),
    }


@number.command("show", examples="callrouter number show +12025550100\ncallrouter number show acme/spring-radio")
@click.argument("number")
@owner_option
@pass_app
def show(app: App, number: str, company: str | None) -> None:
    """Show a tracking number, by its digits in any spelling or its name."""
    from callrouter.core.flow.link import led_to
    from callrouter.core.phone import pretty
    from callrouter.store.config import get_number, read_flows

    async def work(session: AsyncSession) -> tuple[TrackingNumber, dict[str, str], dict[str, str], tuple[str, ...]]:
        found = await get_number(session, number, company)
        _, companies, campaigns = await _listing(session, None, None)
        flows = await read_flows(session, companies[found.company_id]) if found.flow else {}
        return found, companies, campaigns, led_to(found.flow or "", flows)

    found, companies, campaigns, further = app.read(work)
    if app.json:
        output.emit({**_json(found, companies, campaigns), "goes_on_in": further})
        return
    output.fields(
        [
            ("number", f"{found.e164} ({pretty(found.e164)})"),
            ("name", found.name),
            ("company", companies[found.company_id]),
            ("campaign", campaigns.get(found.campaign_id or "", "none")),
            ("answered by", _answer(found)),
            *([("goes on in", ", ".join(f"flow {flow}" for flow in further))] if further else []),
            ("backup", found.backup or "the target, or the first one the flow dials"),
            ("active", output.yes_no(found.active)),
            ("record", found.record),
        ]
    )


@number.command(
    "edit",
    examples="""
callrouter number edit +12025550100 --flow after-storm --why "storm damage hotline"
callrouter number edit acme/spring-radio --backup ""    # "" takes a campaign or backup away
""",
)
@click.argument("number")
@owner_option
@click.option("--number", "new_number", metavar="NUMBER", help="Another DID.")
@click.option("--name", help="Another name.")
@click.option("--campaign", metavar="NAME", help='The campaign it stands for; "" for none.')
@click.option("--flow", metavar="NAME", help="The flow that answers it; drops the target.")
@click.option("--target", metavar="NAME", help="The target that rings at once; drops the flow.")
@click.option("--backup", metavar="NAME", help='The target that rings when the server is away; "" for none.')
@click.option("--active/--inactive", default=None, help="Inactive: calls are refused.")
@record_option(None, "Recording: comes before the flow's, the target's and the company's word.")
@why_option
@pass_app
def edit(app: App, number: str, company: str | None, new_number: str | None, why: str, **given: Any) -> None:
    """Change a tracking number; calls in progress are not touched."""
    from callrouter.store.config import edit_number

    changes = changes_of({"number": new_number, **given})
    after = app.write(lambda s: edit_number(s, number, changes, company=company, who=app.who, why=why))
    output.changed(app, f"number {after.e164} changed", after)


@number.command("rm", examples="callrouter number rm +12025550100 --why 'given back to the provider'")
@click.argument("number")
@owner_option
@yes_option
@why_option
@pass_app
def rm(app: App, number: str, company: str | None, yes: bool, why: str) -> None:
    """Remove a tracking number; its calls keep their campaign."""
    from callrouter.store.config import get_number, remove_number

    found = app.read(lambda session: get_number(session, number, company))
    confirm(f"Remove number {found.e164} ({found.name})?", yes=yes)
    app.write(lambda session: remove_number(session, number, company=company, who=app.who, why=why))
    output.removed(app, f"number {found.e164}")
