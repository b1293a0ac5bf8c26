"""``callrouter db``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group

if TYPE_CHECKING:
    from callrouter.store.migrate import SchemaState, Upgrade


@click.group(cls=Group)
def db() -> None:
    """The database's schema."""


@db.command("upgrade", examples="callrouter db upgrade")
@click.option("--no-backup", is_flag=True, help="Do not copy the database first: you have a backup of your own.")
@pass_app
def upgrade(app: App, no_backup: bool) -> None:
    """Bring the schema up to date. A database that needs it is copied first: SQLite beside itself, PostgreSQL into home
    (by pg_dump)."""
    from callrouter.store.postgres_tools import ToolsMissing

    try:
        name, done = upgrade_database(app, keep=not no_backup)
    except ToolsMissing as exc:
        raise ToolsMissing(exc.message, hint=f"{exc.hint}; or make a copy yourself and add --no-backup") from exc
    if app.json:
        output.emit({"database": name, **output.plain(done)})
    elif done.before == done.after:
        output.say(f"{name} is up to date (revision {done.after})")
    else:
        output.say(f"{name}: revision {done.before or 'none'} → {done.after}")
        if done.backup:
            output.say(f"as it was before: {done.backup}")


def upgrade_database(app: App, *, keep: bool = True) -> tuple[str, Upgrade]:
    """Bring the schema up to date; the database's name for people, and what was done.

    :param keep: keep a copy of a database that is changed
    :raises DatabaseError: newer, half-applied, not writable …
    """
    from callrouter.cli.interrupt import run as run_to_end
    from callrouter.store.database import Database

    async def run() -> tuple[str, Upgrade]:
        database = Database(app.settings.database)
        try:
            return database.shown, await database.upgrade(keep=keep, copies=app.settings.home_dir)
        finally:
            await database.dispose()

    return run_to_end(run)


@db.command("check", examples="callrouter db check && callrouter serve")
@click.pass_context
@pass_app
def check(app: App, ctx: click.Context) -> None:
    """Say how the database stands to this program; exit 1 when it needs something."""
    from callrouter.cli.interrupt import run as run_to_end
    from callrouter.store.database import Database

    async def run() -> tuple[str, SchemaState]:
        database = Database(app.settings.database)
        try:
            return database.shown, await database.check()
        finally:
            await database.dispose()

    name, state = run_to_end(run)
    if app.json:
        output.emit({"database": name, "ok": state.ok, **output.plain(state)})
    elif state.ok:
        output.say(f"{name} is up to date (revision {state.revision})")
    else:
        error = state.error(name)
        output.say(error.message, fg="red")
        output.say(f"hint: {error.hint}")
    if not state.ok:
        ctx.exit(1)
