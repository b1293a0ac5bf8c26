"""``callrouter hours``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.cli.options import of_option, why_option

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.core.model import HoursOverride

flow_option = click.option("--flow", metavar="NAME", help="Only this flow's hours; else all of the company.")


@click.group(cls=Group)
def hours() -> None:
    """Opening hours: close early or open late, for a time."""


@hours.command(
    "override",
    examples="""
callrouter hours override acme closed --until "Mon 08:00" --reason "snow"
callrouter hours override acme open --until 20:00 --flow front-desk
callrouter hours override acme closed --until 2h --reason "fire drill"
""",
)
@click.argument("company")
@click.argument("state", type=click.Choice(["open", "closed"]))
@click.option(
    "--until",
    required=True,
    metavar="TIME",
    help='When the hours count again: "Mon 08:00", "18:05", ISO 8601, or so long from now: 2h; in the company\'s zone.',
)
@flow_option
@click.option("--reason", metavar="TEXT", default="", help="Stands in the calls' traces and in the audit log.")
@pass_app
def override(app: App, company: str, state: str, until: str, flow: str | None, reason: str) -> None:
    """Have every hours node of COMPANY say open or closed, whatever the time.

    In force at once, for calls that come from then on; over by itself. Another override of the same takes its place.
    """
    import time

    from callrouter.core.hours import moment_text
    from callrouter.core.moment import parse_moment
    from callrouter.store.config import get_company
    from callrouter.store.hours import override_hours

    async def work(session: AsyncSession) -> tuple[HoursOverride, str]:
        zone = (await get_company(session, company)).timezone
        moment = parse_moment(until, zone, time.time())
        return await override_hours(session, company, state, moment, flow=flow, reason=reason, who=app.who), zone

    made, zone = app.write(work)
    what = f"{_whose(company, made.flow)} {'is' if made.flow is None else 'counts as'} {made.state}"
    output.changed(app, f"{what} until {moment_text(zone, made.until)}", _plain(made, company))


@hours.command("list", examples="callrouter hours list --company acme")
@of_option
@pass_app
def list_(app: App, company: str | None) -> None:
    """List the overrides that are in force."""
    from callrouter.core.hours import moment_text
    from callrouter.store.hours import list_overrides

    found = app.read(lambda session: list_overrides(session, company))
    if app.json:
        output.emit([{**_plain(each.override, each.company), "by": each.created_by} for each in found])
    elif not found:
        output.say("Nothing is overridden: all opening hours count as the flows have them.")
    else:
        rows = [
            (
                each.company,
                each.override.flow or "all",
                each.override.state,
                moment_text(each.timezone, each.override.until),
                each.override.reason,
                each.created_by,
            )
            for each in found
        ]
        output.table(("company", "flow", "state", "until", "reason", "by"), rows)


@hours.command("clear", examples="callrouter hours clear acme --why 'the snow is gone'")
@click.argument("company")
@flow_option
@why_option
@pass_app
def clear(app: App, company: str, flow: str | None, why: str) -> None:
    """Let the hours of COMPANY count again before the override is over."""
    from callrouter.store.hours import clear_hours

    gone = app.write(lambda session: clear_hours(session, company, flow=flow, who=app.who, why=why))
    output.changed(app, f"the hours of {_whose(company, flow)} count again", _plain(gone, company))


def _whose(company: str, flow: str | None) -> str:
    return f"flow {company}/{flow}" if flow else company


def _plain(override: HoursOverride, company: str) -> dict[str, Any]:
    return {**output.plain(override), "until": output.iso(override.until), "company": company}
