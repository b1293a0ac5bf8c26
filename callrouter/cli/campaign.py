"""``callrouter campaign``"""

from __future__ import annotations

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
    why_option,
    yes_option,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.core.model import Campaign


@click.group(cls=Group)
def campaign() -> None:
    """Campaigns, which calls are attributed to."""


@campaign.command(
    "add",
    examples="""
callrouter campaign add spring-radio --company acme --source radio --medium offline
callrouter campaign add pipes-ppc --company acme --source google --medium cpc --title "Search: pipes"
""",
)
@click.argument("name")
@new_owner_option
@click.option("--source", required=True, help="Where its leads come from: billboard, google, radio …")
@click.option("--medium", required=True, help="How: offline, cpc, organic, referral …")
@click.option("--title", default="", help="For people to read; made from the name when left out.")
@why_option
@pass_app
def add(app: App, company: str | None, **given: Any) -> None:
    """Add a campaign to a company."""
    from callrouter.store.config import add_campaign

    async def work(session: AsyncSession) -> tuple[Campaign, str]:
        owner = await only_company(session, company)
        return await add_campaign(session, owner, who=app.who, **given), owner

    added, owner = app.write(work)
    output.changed(app, f"campaign {owner}/{added.name} added", {**output.plain(added), "company": owner})


@campaign.command("list", examples="callrouter campaign list --company acme")
@of_option
@pass_app
def list_(app: App, company: str | None) -> None:
    """List the campaigns."""
    from callrouter.store.config import list_campaigns, list_companies

    async def work(session: AsyncSession) -> tuple[list[Campaign], dict[str, str]]:
        names = {c.id: c.name for c in await list_companies(session)}
        return await list_campaigns(session, company), names

    found, names = app.read(work)
    if app.json:
        output.emit([{**output.plain(c), "company": names[c.company_id]} for c in found])
    elif not found:
        output.say("No campaigns yet. Add one: callrouter campaign add spring-radio --source radio --medium offline")
    else:
        output.table(
            ("company", "name", "title", "source", "medium"),
            [(names[c.company_id], c.name, c.title, c.source, c.medium) for c in found],
        )


@campaign.command("show", examples="callrouter campaign show acme/spring-radio")
@click.argument("name")
@owner_option
@pass_app
def show(app: App, name: str, company: str | None) -> None:
    """Show a campaign, and the numbers that stand for it."""
    from callrouter.store import config as store

    async def work(session: AsyncSession) -> tuple[Campaign, str, list[str]]:
        found = await store.get_campaign(session, name, company)
        owner = next(c.name for c in await store.list_companies(session) if c.id == found.company_id)
        numbers = await store.list_numbers(session, owner, campaign=found.name)
        return found, owner, [number.e164 for number in numbers]

    found, owner, numbers = app.read(work)
    if app.json:
        output.emit({**output.plain(found), "company": owner, "numbers": numbers})
        return
    output.fields(
        [
            ("name", found.name),
            ("company", owner),
            ("title", found.title),
            ("source", found.source),
            ("medium", found.medium),
            ("numbers", ", ".join(numbers) or "none"),
        ]
    )


@campaign.command("edit", examples="callrouter campaign edit acme/spring-radio --title 'Radio, spring 2027'")
@click.argument("name")
@owner_option
@click.option("--name", "new_name", metavar="NAME", help="Another name.")
@click.option("--title")
@click.option("--source")
@click.option("--medium")
@why_option
@pass_app
def edit(app: App, name: str, company: str | None, new_name: str | None, why: str, **given: Any) -> None:
    """Change a campaign; calls it earned before keep the source and medium they had."""
    from callrouter.store.config import edit_campaign

    changes = changes_of({"name": new_name, **given})
    after = app.write(lambda s: edit_campaign(s, name, changes, company=company, who=app.who, why=why))
    output.changed(app, f"campaign {after.name} changed", after)


@campaign.command("rm", examples="callrouter campaign rm acme/spring-radio --why 'it is over'")
@click.argument("name")
@owner_option
@yes_option
@why_option
@pass_app
def rm(app: App, name: str, company: str | None, yes: bool, why: str) -> None:
    """Remove a campaign that no number stands for; its calls keep its name."""
    from callrouter.store.config import get_campaign, remove_campaign

    app.read(lambda session: get_campaign(session, name, company))
    confirm(f"Remove campaign {name}?", yes=yes)
    app.write(lambda session: remove_campaign(session, name, company=company, who=app.who, why=why))
    output.removed(app, f"campaign {name}")
