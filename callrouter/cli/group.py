"""``callrouter group``"""

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
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.core.model import Member, TargetGroup

STRATEGIES = ("in-order", "round-robin", "weighted", "tiers", "least-recent", "longest-idle", "ring-all")

member_option = click.option(
    "--member",
    "members",
    metavar="TARGET[:ring=S,weight=N,tier=N]",
    multiple=True,
    help="A target of the company; repeat it, in order.",
)


@click.group(cls=Group)
def group() -> None:
    """Groups: targets that are rung for each other."""


@group.command(
    "add",
    examples="""
callrouter group add sales --company acme --member ana --member bob --member carl
callrouter group add desk --company acme --strategy ring-all --member ana --member bob
callrouter group add oncall --company acme --strategy tiers --member ana --member bob:tier=2,ring=40
callrouter group add leads --company acme --strategy weighted --member ana:weight=3 --member bob
""",
)
@click.argument("name")
@new_owner_option
@member_option
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="in-order",
    show_default=True,
    help="Whom a call rings, and in which order.",
)
@click.option("--title", default="", help="For people to read; made from the name when left out.")
@click.option(
    "--stop-on-declined/--no-stop-on-declined",
    default=True,
    show_default=True,
    help="A member that refuses a call (603) refuses it for all.",
)
@click.option(
    "--stop-on-busy/--no-stop-on-busy", default=False, show_default=True, help="A busy member makes the group busy."
)
@why_option
@pass_app
def add(app: App, company: str | None, members: tuple[str, ...], **given: Any) -> None:
    """Add a group of targets. A flow rings it with group: NAME in a dial node."""
    from callrouter.store.config import add_group

    parsed = _parsed(members)

    async def work(session: AsyncSession) -> tuple[TargetGroup, str]:
        owner = await only_company(session, company)
        return await add_group(session, owner, members=parsed, who=app.who, **given), owner

    added, owner = app.write(work)
    output.changed(app, f"group {owner}/{added.name} added", {**output.plain(added), "company": owner})


@group.command("list", examples="callrouter group list --company acme")
@of_option
@pass_app
def list_(app: App, company: str | None) -> None:
    """List the groups."""
    from callrouter.store.config import list_companies, list_groups

    async def work(session: AsyncSession) -> tuple[list[TargetGroup], dict[str, str]]:
        names = {c.id: c.name for c in await list_companies(session)}
        return await list_groups(session, company), names

    found, names = app.read(work)
    if app.json:
        output.emit([{**output.plain(one), "company": names[one.company_id]} for one in found])
    elif not found:
        output.say("No groups yet. Add one: callrouter group add sales --company NAME --member ana --member bob")
    else:
        output.table(
            ("company", "name", "title", "strategy", "members"),
            [(names[one.company_id], one.name, one.title, one.strategy, _shown(one.members)) for one in found],
        )


@group.command("show", examples="callrouter group show acme/sales")
@click.argument("name")
@owner_option
@pass_app
def show(app: App, name: str, company: str | None) -> None:
    """Show a group."""
    from callrouter.store.config import get_group, list_companies

    async def work(session: AsyncSession) -> tuple[TargetGroup, str]:
        found = await get_group(session, name, company)
        return found, next(c.name for c in await list_companies(session) if c.id == found.company_id)

    found, owner = app.read(work)
    if app.json:
        output.emit({**output.plain(found), "company": owner})
        return
    output.fields(
        [
            ("name", found.name),
            ("company", owner),
            ("title", found.title),
            ("strategy", found.strategy),
            ("members", _shown(found.members)),
            ("a member that declines", "declines for all" if found.stop_on_declined else "the next one rings"),
            ("a busy member", "makes the group busy" if found.stop_on_busy else "the next one rings"),
        ]
    )


@group.command(
    "edit",
    examples="""
callrouter group edit acme/sales --member ana --member carl    # these two from now on
callrouter group edit acme/sales --strategy round-robin
""",
)
@click.argument("name")
@owner_option
@click.option("--name", "new_name", metavar="NAME", help="Another name; refused while flows mention the old one.")
@member_option
@click.option("--strategy", type=click.Choice(STRATEGIES))
@click.option("--title")
@click.option("--stop-on-declined/--no-stop-on-declined", default=None)
@click.option("--stop-on-busy/--no-stop-on-busy", default=None)
@why_option
@pass_app
def edit(
    app: App, name: str, company: str | None, new_name: str | None, members: tuple[str, ...], why: str, **given: Any
) -> None:
    """Change a group; only what is given changes. The members given are all that it has then."""
    from callrouter.store.config import edit_group

    changes = changes_of({"name": new_name, "members": _parsed(members) or None, **given})
    after = app.write(lambda s: edit_group(s, name, changes, company=company, who=app.who, why=why))
    output.changed(app, f"group {after.name} changed", after)


@group.command("rm", examples="callrouter group rm acme/sales --yes")
@click.argument("name")
@owner_option
@yes_option
@why_option
@pass_app
def rm(app: App, name: str, company: str | None, yes: bool, why: str) -> None:
    """Remove a group that no flow rings. Its targets stay."""
    from callrouter.store.config import get_group, remove_group

    app.read(lambda session: get_group(session, name, company))
    confirm(f"Remove group {name}?", yes=yes)
    app.write(lambda session: remove_group(session, name, company=company, who=app.who, why=why))
    output.removed(app, f"group {name}")


def _parsed(members: tuple[str, ...]) -> tuple[Member, ...]:
    from callrouter.core.groups import parse_member

    return tuple(parse_member(text) for text in members)


def _shown(members: Sequence[Member]) -> str:
    from callrouter.core.groups import member_text

    return ", ".join(member_text(one) for one in members)
