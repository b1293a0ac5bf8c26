"""``callrouter target``"""

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
    record_option,
    why_option,
    yes_option,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.core.model import Target


premium_option = click.option(
    "--allow-premium",
    is_flag=True,
    help="Let the company dial --number though it is of a premium-rate, satellite or such range.",
)


@click.group(cls=Group)
def target() -> None:
    """Targets: the business lines that ring."""


@target.command(
    "add",
    examples="""
callrouter target add ana --company acme --sip-uri sip:ana@192.0.2.10
callrouter target add bob --company acme --number "202 555 0142" --trunk main --ring-seconds 20
callrouter target add sales --company acme --sip-uri sip:100@pbx.example --whisper "Call from {campaign}"
""",
)
@click.argument("name")
@new_owner_option
@click.option("--sip-uri", metavar="URI", help="Rung directly: sip:user@host[:port].")
@click.option("--number", help="Rung through a trunk; needs --trunk.")
@click.option("--trunk", metavar="NAME", help="The trunk that --number is dialled through.")
@click.option("--title", default="", help="For people to read; made from the name when left out.")
@click.option("--ring-seconds", type=int, default=25, show_default=True, help="How long it rings.")
@click.option("--whisper", metavar="TEXT", help="Said to the business first; may hold {campaign}, {number}, {company}.")
@record_option("inherit", "Recording: comes before the company's word.")
@premium_option
@why_option
@pass_app
def add(app: App, company: str | None, **given: Any) -> None:
    """Add a business line: a SIP URI, or a number and the trunk to it."""
    from callrouter.store.config import add_target

    _check_whisper(given["whisper"])

    async def work(session: AsyncSession) -> tuple[Target, str]:
        owner = await only_company(session, company)
        return await add_target(session, owner, who=app.who, **given), owner

    added, owner = app.write(work)
    output.changed(app, f"target {owner}/{added.name} added", {**output.plain(added), "company": owner})


def _check_whisper(text: str | None) -> None:
    if text:
        from callrouter.core.flow.text import check

        check(text)


@target.command("list", examples="callrouter target list --company acme")
@of_option
@pass_app
def list_(app: App, company: str | None) -> None:
    """List the targets."""
    from callrouter.store.config import list_companies, list_targets

    async def work(session: AsyncSession) -> tuple[list[Target], dict[str, str]]:
        names = {c.id: c.name for c in await list_companies(session)}
        return await list_targets(session, company), names

    found, names = app.read(work)
    if app.json:
        output.emit([{**output.plain(t), "company": names[t.company_id]} for t in found])
    elif not found:
        output.say("No targets yet. Add one: callrouter target add ana --company NAME --sip-uri sip:ana@192.0.2.10")
    else:
        output.table(
            ("company", "name", "title", "rings", "seconds", "whisper"),
            [(names[t.company_id], t.name, t.title, _rings(t), t.ring_seconds, t.whisper) for t in found],
            right=("seconds",),
        )


def _rings(target: Target) -> str:
    return target.sip_uri or f"{target.number} via {target.trunk}"


@target.command("show", examples="callrouter target show acme/ana")
@click.argument("name")
@owner_option
@pass_app
def show(app: App, name: str, company: str | None) -> None:
    """Show a target, and the numbers that ring it."""
    from callrouter.store import config as store

    async def work(session: AsyncSession) -> tuple[Target, str, list[str]]:
        found = await store.get_target(session, name, company)
        owner = next(c.name for c in await store.list_companies(session) if c.id == found.company_id)
        numbers = await store.list_numbers(session, owner)
        return found, owner, [n.e164 for n in numbers if found.name in (n.target, n.backup)]

    found, owner, numbers = app.read(work)
    if app.json:
        output.emit({**output.plain(found), "company": owner, "numbers": numbers})
        return
    output.fields(
        [
            ("name", found.name),
            ("company", owner),
            ("title", found.title),
            ("rings", _rings(found)),
            ("ring seconds", found.ring_seconds),
            ("whisper", found.whisper or "none"),
            ("record", found.record),
            ("numbers", ", ".join(numbers) or "none directly"),
        ]
    )


@target.command(
    "edit",
    examples="""
callrouter target edit acme/ana --sip-uri sip:ana@192.0.2.20
callrouter target edit acme/ana --whisper ""    # no whisper any more
""",
)
@click.argument("name")
@owner_option
@click.option("--name", "new_name", metavar="NAME", help="Another name; refused while flows mention the old one.")
@click.option("--sip-uri", metavar="URI", help="Drops number and trunk.")
@click.option("--number", help="Drops the SIP URI.")
@click.option("--trunk", metavar="NAME")
@click.option("--title")
@click.option("--ring-seconds", type=int)
@click.option("--whisper", metavar="TEXT", help='"" for none.')
@record_option(None, "Recording: comes before the company's word.")
@premium_option
@why_option
@pass_app
def edit(
    app: App, name: str, company: str | None, new_name: str | None, allow_premium: bool, why: str, **given: Any
) -> None:
    """Change a target; only what is given changes."""
    from callrouter.store.config import edit_target

    changes = changes_of({"name": new_name, "allow_premium": allow_premium or None, **given})
    changes.pop("allow_premium", None)
    _check_whisper(changes.get("whisper"))
    after = app.write(
        lambda s: edit_target(s, name, changes, company=company, allow_premium=allow_premium, who=app.who, why=why)
    )
    output.changed(app, f"target {after.name} changed", after)


@target.command("rm", examples="callrouter target rm acme/ana --yes")
@click.argument("name")
@owner_option
@yes_option
@why_option
@pass_app
def rm(app: App, name: str, company: str | None, yes: bool, why: str) -> None:
    """Remove a target that no number and no flow rings."""
    from callrouter.store.config import get_target, remove_target

    app.read(lambda session: get_target(session, name, company))
    confirm(f"Remove target {name}?", yes=yes)
    app.write(lambda session: remove_target(session, name, company=company, who=app.who, why=why))
    output.removed(app, f"target {name}")
