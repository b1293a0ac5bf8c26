"""``callrouter routing``"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.cli.options import confirm, why_option, yes_option
from callrouter.errors import CallrouterError, ConflictError, FlowError, NotFoundError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.cli.routing_text import Seen
    from callrouter.core.routing_code.change import Change
    from callrouter.core.snapshot import ConfigSnapshot
    from callrouter.store.changes import ConfigChange
    from callrouter.store.routing_code import Past


@click.group(
    cls=Group,
    lazy={"plan": ("callrouter.cli.routing_plan:plan", "Say which calls a routing FILE would send elsewhere.")},
)
def routing() -> None:
    """Routing as code: export, check, plan, apply, history, rollback."""


@routing.command(
    "export",
    examples="""
callrouter routing export > routing.yaml
callrouter routing export --company acme --output acme.yaml
""",
)
@click.option("--company", metavar="NAME", help="Only this company, without trunks.")
@click.option("--output", "-o", "target", type=click.Path(dir_okay=False, path_type=Path), help="Write it to a file.")
@pass_app
def export(app: App, company: str | None, target: Path | None) -> None:
    """Write the routing in force as YAML: trunks, companies, campaigns, targets, flows, numbers. Never a password."""
    from callrouter.core.routing_code.write import write_routing
    from callrouter.store.config import get_company
    from callrouter.store.routing_code import current_routing

    async def work(session: AsyncSession) -> tuple[int, str]:
        version, found = await current_routing(session)
        if company is not None:
            await get_company(session, company)
            mine = {key for key in found if company == (key.name if key.kind == "company" else key.company)}
            found = {key: values for key, values in found.items() if key in mine}
        return version, write_routing(found, version)

    version, text = app.read(work)
    if target is not None:
        from callrouter.cli.files import write_whole

        write_whole(target, text)
    if app.json:
        output.emit({"version": version, "file": target, "routing": text})
    elif target is not None:
        output.say(f"{target} written: configuration {version}")
    else:
        click.echo(text, nl=False)


@routing.command("schema", examples="callrouter routing schema > routing.schema.json")
@pass_app
def schema(app: App) -> None:  # noqa: ARG001
    """Print the JSON Schema of a routing file, for editors."""
    from callrouter.core.routing_code.write import schema as made

    output.emit(made())


@routing.command(
    "check",
    examples="""
callrouter routing check routing.yaml
callrouter routing check routing.yaml --alone    # without a database, as in a pipeline
""",
)
@click.argument("file")
@click.option("--alone", is_flag=True, help="Ask no database: the file has to hold everything that it names.")
@click.pass_context
@pass_app
def check(app: App, ctx: click.Context, file: str, alone: bool) -> None:
    """Prove a routing FILE (- for standard input) without putting it in force. Exit 1 on errors.

    Every node of a flow is reached, every path ends, everything named is there, every target can be dialled, none is
    one of our own numbers, and no opening hours change while the clocks do. It is also tried on the database, and
    taken back.
    """
    from callrouter.cli import routing_text
    from callrouter.cli.flow_text import read_text, report

    text = read_text(file)
    try:
        seen = routing_text.look(app, text, alone=alone)
    except FlowError as exc:
        seen = routing_text.Seen(None, [routing_text.place_of_error(exc)], [])
    if app.json:
        found = [place._asdict() for place in seen.places]
        output.emit({"ok": not seen.errors, "findings": found, "changes": [w for c in seen.planned for w in c.words()]})
    else:
        report(seen.places)
        if not seen.places:
            output.say(f"{file}: nothing is wrong", fg="green")
        if not seen.errors and not alone:
            count = len(seen.planned)
            what = f"{count} change{'' if count == 1 else 's'}" if count else "no change"
            output.say(f"it would make {what}" + (f"; callrouter routing apply {file} --dry-run" if count else ""))
    if seen.errors:
        ctx.exit(1)


@routing.command(
    "apply",
    examples="""
callrouter routing apply routing.yaml --dry-run
callrouter routing apply routing.yaml --why "autumn campaign"
""",
)
@click.argument("file")
@click.option("--dry-run", is_flag=True, help="Say what it would change, and change nothing.")
@yes_option
@why_option
@pass_app
def apply(app: App, file: str, dry_run: bool, yes: bool, why: str) -> None:
    """Put a routing FILE (- for standard input) in force, in one transaction: all of it or nothing.

    Refused with exit 4 when somebody changed since the file was made what it would change. What the file leaves out
    of a list that it has is removed, after asking.
    """
    from callrouter.cli import routing_text
    from callrouter.cli.flow_text import read_text

    text = read_text(file)
    seen = routing_text.look(app, text, trial=dry_run)
    routing_text.require_right(seen)
    assert seen.document is not None
    told = [line for change in seen.planned for line in change.words()]
    if dry_run or not seen.planned:
        _report(app, told, seen, applied=False)
        return
    if not app.json:
        for line in told:
            output.say(output.safe(line))
    gone = [str(change.key) for change in seen.planned if change.what == "remove"]
    if gone:
        confirm(f"Remove {', '.join(gone[:8])}{f' and {len(gone) - 8} more' if len(gone) > 8 else ''}?", yes=yes)
    document, planned, base = seen.document, seen.planned, seen.version
    reason = f"{'standard input' if file == '-' else Path(file).name}{f': {why}' if why else ''}"

    async def work(session: AsyncSession) -> int:
        from callrouter.store.config import config_version, lock_config
        from callrouter.store.routing_code import apply_changes

        # What was shown and agreed to is done, or nothing.
        await lock_config(session, base)
        await apply_changes(session, planned, who=app.who, why=reason, explain=routing_text.placed(document))
        return await config_version(session)

    seen = seen._replace(version=app.write(work))
    _mark(file, text, seen)
    _report(app, told, seen, applied=True)


def _mark(file: str, text: str, seen: Seen) -> None:
    """Write into the file which configuration it is now."""
    from callrouter.cli.files import write_whole

    document = seen.document
    if file == "-" or document is None or document.version is None or document.version_place is None:
        return
    lines = text.split("\n")
    line, column = document.version_place
    lines[line - 1] = lines[line - 1][: column - 1] + re.sub(r"^\S+", str(seen.version), lines[line - 1][column - 1 :])
    try:
        write_whole(Path(file), "\n".join(lines))
    except CallrouterError as exc:
        output.warn(f"{exc.message}; write version: {seen.version} into it yourself")


def _report(app: App, told: list[str], seen: Seen, *, applied: bool) -> None:
    if app.json:
        places = [place._asdict() for place in seen.places]
        output.emit({"applied": applied, "version": seen.version, "changes": told, "findings": places})
        return
    from callrouter.cli.flow_text import report

    report(seen.places, err=True)
    if applied:
        output.say(f"configuration {seen.version} in force: {app.when()}")
    elif not told:
        output.say(f"nothing to change: configuration {seen.version} is what the file says")
    else:
        for line in told:
            output.say(output.safe(line))
        output.say("nothing was changed")


@routing.command("history", examples="callrouter routing history\ncallrouter routing history --limit 200 --json")
@click.option("--limit", type=click.IntRange(1, 100_000), default=30, show_default=True, help="So many, newest first.")
@pass_app
def history(app: App, limit: int) -> None:
    """List the versions of the configuration, newest first: when, who, what and why."""
    from callrouter.store.config import list_changes

    found = app.read(lambda session: list_changes(session, limit))
    if app.json:
        names = ("version", "at", "who", "what", "why")
        output.emit([{name: getattr(each, name) for name in names} for each in found])
    elif not found:
        output.say("Nothing was configured yet.")
    else:
        rows = [(e.version, e.at.strftime("%Y-%m-%d %H:%M:%S"), e.who, e.what, e.why) for e in found]
        output.table(("version", "at (UTC)", "who", "what", "why"), rows, right=("version",))


@routing.command(
    "show",
    examples="""
callrouter routing show 42
callrouter routing show 42 --whole > routing-42.yaml
""",
)
@click.argument("version", type=click.IntRange(0))
@click.option("--whole", is_flag=True, help="The whole routing as it was then, as a routing file.")
@pass_app
def show(app: App, version: int, whole: bool) -> None:
    """Show what a VERSION changed, or the whole routing as it was then."""
    from callrouter.core.routing_code.write import write_routing
    from callrouter.store.config import config_version, list_changes
    from callrouter.store.routing_code import routing_at

    async def work(session: AsyncSession) -> tuple[Past, ConfigChange | None]:
        past = await routing_at(session, version)
        near = await list_changes(session, await config_version(session) - version + 1)
        return past, next((each for each in near if each.version == version), None)

    past, change = app.read(work)
    if whole:
        text = write_routing(past.routing, None)
        if app.json:
            output.emit({"version": version, "routing": text, "doubts": past.doubts})
            return
        for doubt in past.doubts:
            output.warn(output.safe(doubt))
        click.echo(output.safe(text, lines=True) if sys.stdout.isatty() else text, nl=False)
        return
    if change is None:
        raise NotFoundError(f"version {version} was no change", hint="callrouter routing history lists them")
    if app.json:
        output.emit(change)
        return
    output.fields(
        [
            ("version", change.version),
            ("at", change.at.strftime("%Y-%m-%d %H:%M:%S UTC")),
            ("who", change.who),
            ("what", change.what),
            ("why", change.why or None),
        ]
    )
    before, after = dict(change.before or {}), dict(change.after or {})
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    rows = [(name, _cell(before.get(name)), _cell(after.get(name))) for name in names if not name.endswith("id")]
    if rows:
        output.say()
        output.table(("field", "before", "after"), rows)


def _cell(value: Any) -> str:
    text = ", ".join(str(each) for each in value) if isinstance(value, list) else "" if value is None else str(value)
    return text if "\n" not in text else f"{len(text.splitlines())} lines"


@routing.command(
    "rollback",
    examples="""
callrouter routing rollback 42 --dry-run
callrouter routing rollback 42 --why "the new menu lost calls"
""",
)
@click.argument("version", type=click.IntRange(0))
@click.option("--dry-run", is_flag=True, help="Say what it would change, and change nothing.")
@yes_option
@why_option
@pass_app
def rollback(app: App, version: int, dry_run: bool, yes: bool, why: str) -> None:
    """Make the routing what it was at a VERSION, as new versions. Prompts, passwords and companies made since stay."""
    from callrouter.cli import routing_text
    from callrouter.store.config import config_version, lock_config
    from callrouter.store.routing_code import apply_changes

    now, planned, stays = app.read(lambda session: routing_text.plan_back(session, version))
    told = [line for change in planned for line in change.words()]
    if not app.json:
        for line in stays:
            output.warn(output.safe(line))
        for line in told:
            output.say(output.safe(line))
    done: int | None = None
    if planned and not dry_run:
        confirm(f"Go back to version {version}?", yes=yes)
        reason = f"rollback to {version}{f': {why}' if why else ''}"

        async def work(session: AsyncSession) -> int:
            await lock_config(session, now)
            await apply_changes(session, planned, who=app.who, why=reason, explain=_not_back(version))
            return await config_version(session)

        done = app.write(work)
    if app.json:
        output.emit({"applied": done is not None, "version": done or now, "changes": told, "stays": stays})
    elif done is not None:
        output.say(f"configuration {done} is what {version} was: {app.when()}")
    else:
        output.say("nothing was changed" if planned else f"nothing to change: the routing is what it was at {version}")


def _not_back(version: int) -> Any:
    def explain(change: Change, exc: CallrouterError) -> CallrouterError:
        message = f"version {version} cannot be restored: {change.what} {change.key}: {exc.message}"
        return ConflictError(message, hint=exc.hint)

    return explain


def proposed(app: App, file: str) -> ConfigSnapshot:
    """The routing that a file would put in force.

    :raises FlowError: something is wrong with it
    """
    from callrouter.cli import routing_text
    from callrouter.cli.flow_text import read_text
    from callrouter.core.routing_code.fields import to_snapshot

    seen = routing_text.look(app, read_text(file), alone=True)
    routing_text.require_right(seen)
    return to_snapshot(routing_text.with_titles(seen.routing), seen.version)
