"""``callrouter company``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.cli.options import changes_of, confirm, why_option, yes_option

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.core.model import Company


@click.group(cls=Group)
def company() -> None:
    """Companies, whose calls and numbers are kept apart."""


@company.command(
    "add",
    examples="""
callrouter company add acme --title "Acme Plumbing" --timezone America/New_York
callrouter company add blume --timezone Europe/Berlin --country DE --currency EUR --no-record
""",
)
@click.argument("name")
@click.option("--timezone", required=True, metavar="ZONE", help="IANA zone, like America/New_York.")
@click.option("--title", default="", help="For people to read; made from the name when left out.")
@click.option("--country", metavar="CC", help="Assumed for its numbers written without + [default: the setting].")
@click.option("--currency", default="USD", show_default=True, metavar="CUR", help="ISO 4217.")
@click.option("--record/--no-record", default=True, show_default=True, help="Record its conversations.")
@why_option
@pass_app
def add(app: App, country: str | None, **given: Any) -> None:
    """Add a company. NAME is short: lower-case letters, digits, hyphens."""
    from callrouter.store.config import add_company

    given["country"] = country or app.settings.country
    added = app.write(lambda session: add_company(session, who=app.who, **given))
    output.changed(app, f"company {added.name} added", added)


@company.command("list", examples="callrouter company list --json")
@pass_app
def list_(app: App) -> None:
    """List the companies."""
    from callrouter.store.config import list_companies

    found = app.read(list_companies)
    if app.json:
        output.emit(found)
    elif not found:
        output.say("No companies yet. Add one: callrouter company add NAME --timezone America/New_York")
    else:
        output.table(
            ("name", "title", "timezone", "country", "currency", "records"),
            [(c.name, c.title, c.timezone, c.country, c.currency, output.yes_no(c.record)) for c in found],
        )


@company.command("show", examples="callrouter company show acme")
@click.argument("name")
@pass_app
def show(app: App, name: str) -> None:
    """Show a company and what belongs to it."""
    found, counts = app.read(lambda session: _with_counts(session, name))
    if app.json:
        output.emit({**output.plain(found), "counts": counts})
        return
    output.fields(
        [
            ("name", found.name),
            ("title", found.title),
            ("timezone", found.timezone),
            ("country", found.country),
            ("currency", found.currency),
            ("records calls", output.yes_no(found.record)),
            *counts.items(),
        ]
    )


@company.command("edit", examples="callrouter company edit acme --timezone America/Chicago --why 'moved'")
@click.argument("name")
@click.option("--name", "new_name", metavar="NAME", help="Another name.")
@click.option("--title")
@click.option("--timezone", metavar="ZONE", help="IANA zone.")
@click.option("--country", metavar="CC")
@click.option("--currency", metavar="CUR")
@click.option("--record/--no-record", default=None)
@why_option
@pass_app
def edit(app: App, name: str, new_name: str | None, why: str, **given: Any) -> None:
    """Change a company; only what is given changes."""
    from callrouter.store.config import edit_company

    changes = changes_of({"name": new_name, **given})
    after = app.write(lambda session: edit_company(session, name, changes, who=app.who, why=why))
    output.changed(app, f"company {after.name} changed", after)


@company.command("rm", examples="callrouter company rm acme --yes")
@click.argument("name")
@yes_option
@why_option
@pass_app
def rm(app: App, name: str, yes: bool, why: str) -> None:
    """Remove a company that owns nothing and never had a call."""
    from callrouter.store.config import get_company, remove_company

    app.read(lambda session: get_company(session, name))
    confirm(f"Remove company {name}?", yes=yes)
    app.write(lambda session: remove_company(session, name, who=app.who, why=why))
    output.removed(app, f"company {name}")


async def _with_counts(session: AsyncSession, name: str) -> tuple[Company, dict[str, int]]:
    from callrouter.store import config as store

    found = await store.get_company(session, name)
    counts = {
        "numbers": len(await store.list_numbers(session, name)),
        "campaigns": len(await store.list_campaigns(session, name)),
        "targets": len(await store.list_targets(session, name)),
        "flows": len(await store.list_flows(session, name)),
        "prompts": len(await store.list_prompts(session, name)),
    }
    return found, counts
