"""``callrouter flow``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.cli.options import (
    confirm,
    new_owner_option,
    of_option,
    only_company,
    owner_option,
    why_option,
    yes_option,
)
from callrouter.errors import ConflictError, FlowError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.cli.flow_text import Inspected, Place
    from callrouter.core.flow.nodes import Flow
    from callrouter.core.model import FlowVersion


@click.group(cls=Group, lazy={"test": ("callrouter.cli.flow_test:test", "Try your own expectations of the routing.")})
def flow() -> None:
    """Flows: menus, opening hours, whom to ring, voicemail."""


@flow.command(
    "add",
    examples="""
callrouter flow add front-desk --company acme front-desk.yaml
callrouter flow add front-desk --company acme    # opens $EDITOR on a sample
""",
)
@click.argument("name")
@click.argument("file", required=False)
@new_owner_option
@why_option
@pass_app
def add(app: App, name: str, file: str | None, company: str | None, why: str) -> None:
    """Add a flow from a YAML FILE, from standard input (-), or from the editor."""
    from callrouter.cli import flow_text
    from callrouter.store import config as store

    def save(text: str) -> tuple[FlowVersion, str, list[Place]]:
        hosts = flow_text.webhook_hosts(app)

        async def work(session: AsyncSession) -> tuple[FlowVersion, str, list[Place]]:
            owner = await only_company(session, company)
            seen = await flow_text.inspect(session, owner, name, text, hosts)
            if seen.errors:
                raise flow_text.refusal(seen.errors)
            return await store.add_flow(session, owner, name=name, text=text, who=app.who, why=why), owner, seen.places

        return app.write(work)

    if file is not None:
        saved = save(flow_text.read_text(file))
    else:
        found = flow_text.edit_until_right(name, app.read(lambda session: _sample(session, company, name)), save)
        if found is None:
            raise click.exceptions.Exit(1)
        saved = found
    version, owner, places = saved
    flow_text.report(places, err=True)
    output.changed(app, f"flow {owner}/{version.name} added", {**output.plain(version), "company": owner})


async def _sample(session: AsyncSession, company: str | None, name: str) -> str:
    from callrouter.cli.flow_text import SAMPLE
    from callrouter.store.config import list_targets

    targets = await list_targets(session, await only_company(session, company))
    return SAMPLE.format(title=name.replace("-", " ").capitalize(), target=targets[0].name if targets else "TARGET")


@flow.command("list", examples="callrouter flow list --company acme")
@of_option
@pass_app
def list_(app: App, company: str | None) -> None:
    """List the flows, with their newest version and the numbers they answer."""
    from callrouter.store import config as store

    async def work(session: AsyncSession) -> tuple[list[FlowVersion], dict[str, str], dict[tuple[str, str], list[str]]]:
        names = {c.id: c.name for c in await store.list_companies(session)}
        answered: dict[tuple[str, str], list[str]] = {}
        for number in await store.list_numbers(session, company):
            answered.setdefault((number.company_id, number.flow or ""), []).append(number.e164)
        return await store.list_flows(session, company), names, answered

    found, names, answered = app.read(work)
    rows = [(names[f.company_id], f.name, f.version, answered.get((f.company_id, f.name), [])) for f in found]
    if app.json:
        output.emit([dict(zip(("company", "name", "version", "numbers"), row, strict=True)) for row in rows])
    elif not found:
        output.say("No flows yet. Add one: callrouter flow add front-desk FILE")
    else:
        shown = [(company, name, version, ", ".join(numbers)) for company, name, version, numbers in rows]
        output.table(("company", "name", "version", "answers"), shown, right=("version",))


@flow.command("show", examples="callrouter flow show acme/front-desk > front-desk.yaml")
@click.argument("name")
@owner_option
@click.option("--version", type=int, metavar="N", help="An older version.")
@pass_app
def show(app: App, name: str, company: str | None, version: int | None) -> None:
    """Print a flow's text."""
    found = app.read(lambda session: _get(session, name, company, version))
    if app.json:
        output.emit(found)
    else:
        text = found.text if found.text.endswith("\n") else found.text + "\n"
        click.echo(output.safe(text, lines=True) if sys.stdout.isatty() else text, nl=False)


async def _get(session: AsyncSession, name: str, company: str | None, version: int | None) -> FlowVersion:
    from callrouter.store.config import get_flow

    return await get_flow(session, name, company, version=version)


@flow.command(
    "edit",
    examples="""
callrouter flow edit acme/front-desk                     # opens $EDITOR
callrouter flow edit acme/front-desk new.yaml --why "longer menu"
callrouter flow edit acme/front-desk --name reception
""",
)
@click.argument("name")
@click.argument("file", required=False)
@owner_option
@click.option("--name", "new_name", metavar="NAME", help="Another name; the text stays.")
@why_option
@pass_app
def edit(app: App, name: str, file: str | None, company: str | None, new_name: str | None, why: str) -> None:
    """Save a new version of a flow. Calls in progress stay on theirs; a text that does not hold together is refused."""
    from callrouter.cli import flow_text
    from callrouter.store import config as store

    if new_name is not None and file is None:
        changes = {"name": new_name}
        renamed = app.write(lambda s: store.edit_flow(s, name, changes, company=company, who=app.who, why=why))
        output.changed(app, f"flow {name} is now called {renamed.name}", renamed)
        return
    base = app.read(lambda session: store.get_flow(session, name, company))

    def save(text: str) -> tuple[FlowVersion, list[Place]]:
        hosts = flow_text.webhook_hosts(app)

        async def work(session: AsyncSession) -> tuple[FlowVersion, list[Place]]:
            newest = await store.get_flow(session, name, company)
            if newest.version != base.version:
                raise ConflictError(
                    f"flow {name!r} was changed meanwhile (version {newest.version}, yours was {base.version})",
                    hint=f"callrouter flow versions {name}",
                )
            owner = await _owner_of(session, newest)
            seen = await flow_text.inspect(session, owner, newest.name, text, hosts)
            if seen.errors:
                raise flow_text.refusal(seen.errors)
            changes = {"text": text, **({"name": new_name} if new_name else {})}
            return await store.edit_flow(session, name, changes, company=company, who=app.who, why=why), seen.places

        return app.write(work)

    if file is not None:
        version, places = save(flow_text.read_text(file))
    else:
        found = flow_text.edit_until_right(base.name, base.text, save)
        if found is None:
            output.say("Nothing was changed.", err=True)
            return
        version, places = found
    flow_text.report(places, err=True)
    if version.version == base.version and version.name == base.name and not app.json:
        output.say(f"flow {version.name} is as it was (version {version.version})")
    else:
        output.changed(app, f"flow {version.name} saved as version {version.version}", version)


async def _beside(session: AsyncSession, version: FlowVersion | None, company: str | None) -> dict[str, Flow]:
    """The saved flows of the company that a flow is of; of one in a file (None), of the one that was named."""
    from callrouter.store.config import read_flows

    owner = await only_company(session, company) if version is None else await _owner_of(session, version)
    return await read_flows(session, owner)


async def _owner_of(session: AsyncSession, version: FlowVersion) -> str:
    from callrouter.store.config import list_companies

    return next(c.name for c in await list_companies(session) if c.id == version.company_id)


@flow.command("rm", examples="callrouter flow rm acme/front-desk --yes")
@click.argument("name")
@owner_option
@yes_option
@why_option
@pass_app
def rm(app: App, name: str, company: str | None, yes: bool, why: str) -> None:
    """Remove a flow that answers no number and that no other one goes on in; its versions are kept for the calls that
    went through them."""
    from callrouter.store.config import get_flow, remove_flow

    app.read(lambda session: get_flow(session, name, company))
    confirm(f"Remove flow {name}?", yes=yes)
    app.write(lambda session: remove_flow(session, name, company=company, who=app.who, why=why))
    output.removed(app, f"flow {name}")


@flow.command("versions", examples="callrouter flow versions acme/front-desk")
@click.argument("name")
@owner_option
@pass_app
def versions(app: App, name: str, company: str | None) -> None:
    """List the versions of a flow, newest first: when, by whom and why."""
    from callrouter.store.config import flow_versions

    found = app.read(lambda session: flow_versions(session, name, company))
    if app.json:
        output.emit(
            [{"version": v.flow.version, "at": v.at, "who": v.who, "why": v.why, "id": v.flow.id} for v in found]
        )
        return
    rows = [(v.flow.version, v.at.strftime("%Y-%m-%d %H:%M UTC"), v.who, v.why) for v in found]
    output.table(("version", "saved", "by", "why"), rows, right=("version",))


@flow.command(
    "check",
    examples="""
callrouter flow check front-desk.yaml --company acme
callrouter flow check acme/front-desk
""",
)
@click.argument("flow")
@owner_option
@click.pass_context
@pass_app
def check(app: App, ctx: click.Context, flow: str, company: str | None) -> None:
    """Say what is wrong with a flow: a FILE (or - for standard input), or one that is saved. Exit 1 on errors."""
    from callrouter.cli import flow_text
    from callrouter.cli.flow_text import read_text

    text = read_text(flow) if flow == "-" or Path(flow).is_file() or flow.endswith((".yaml", ".yml")) else None

    hosts = flow_text.webhook_hosts(app)

    async def work(session: AsyncSession) -> Inspected:
        if text is not None:
            name = "flow" if flow == "-" else Path(flow).stem
            return await flow_text.inspect(session, await only_company(session, company), name, text, hosts)
        saved = await _get(session, flow, company, None)
        return await flow_text.inspect(session, await _owner_of(session, saved), saved.name, saved.text, hosts)

    seen = app.read(work)
    if app.json:
        output.emit({"ok": not seen.errors, "findings": [place._asdict() for place in seen.places]})
    else:
        flow_text.report(seen.places)
        if not seen.places:
            output.say(f"{flow}: nothing is wrong", fg="green")
    if seen.errors:
        ctx.exit(1)


@flow.command(
    "draw",
    examples="""
callrouter flow draw acme/front-desk
callrouter flow draw acme/front-desk --format svg --output front-desk.svg
callrouter flow draw front-desk.yaml --format mermaid
callrouter flow draw acme/front-desk --follow
""",
)
@click.argument("flow")
@owner_option
@click.option("--format", "style", type=click.Choice(["text", "mermaid", "svg"]), default="text", show_default=True)
@click.option("--version", type=int, metavar="N", help="An older version.")
@click.option("--follow", is_flag=True, help="With the saved flows that it goes on in; else each is one box.")
@click.option("--output", "-o", "target", type=click.Path(dir_okay=False, path_type=Path), help="Write it to a file.")
@pass_app
def draw(
    app: App, flow: str, company: str | None, style: str, version: int | None, follow: bool, target: Path | None
) -> None:
    """Draw a flow, a saved one or a FILE, as an indented text, a Mermaid flowchart or an SVG picture."""
    from callrouter.cli.flow_text import read_text
    from callrouter.core.flow.draw import as_mermaid, as_text
    from callrouter.core.flow.parse import parse_flow
    from callrouter.core.flow.svg import as_svg

    if flow == "-" or Path(flow).is_file() or flow.endswith((".yaml", ".yml")):
        saved = None
        parsed = parse_flow(read_text(flow), "flow" if flow == "-" else Path(flow).stem)
    else:
        saved = app.read(lambda session: _get(session, flow, company, version))
        try:
            parsed = parse_flow(saved.text, saved.name)
        except FlowError as exc:
            raise FlowError(f"flow {saved.name} version {saved.version}: {exc.message}", hint=exc.hint) from exc
    if follow:
        from callrouter.core.flow.link import link

        parsed = link(parsed, app.read(lambda session: _beside(session, saved, company)))
    drawn = {"text": as_text, "mermaid": as_mermaid, "svg": as_svg}[style](parsed)
    if target is not None:
        from callrouter.cli.files import write_whole

        write_whole(target, drawn)
    if app.json:
        output.emit({"flow": parsed.name, "format": style, "drawing": drawn, "file": target})
    elif target is not None:
        output.say(f"{target} written")
    else:
        click.echo(drawn if style != "text" else output.safe(drawn, lines=True), nl=False)
