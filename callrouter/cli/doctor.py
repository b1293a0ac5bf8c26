"""``callrouter doctor``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Command

if TYPE_CHECKING:
    from pathlib import Path

    from callrouter.doctor.finding import Check

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(
    cls=Command, examples="callrouter doctor\ncallrouter doctor --json | jq '.checks[] | select(.state != \"ok\")'"
)
@click.pass_context
@pass_app
def doctor(app: App, ctx: click.Context) -> None:
    """Look for what is wrong, and say how to mend it. Exit 1 when a check failed."""
    from callrouter.cli.interrupt import run as run_to_end
    from callrouter.doctor import examine

    async def run() -> list[Check]:
        found = []
        async for check in examine(lambda: app.settings, _settings_file(app)):
            found.append(check)
            if not app.json:
                print_check(check)
        return found

    with app.quiet():
        checks = run_to_end(run)
    counts = {state: sum(check.state == state for check in checks) for state in COLOURS}
    if app.json:
        output.emit({"ok": not counts["fail"], "counts": counts, "checks": checks})
    else:
        output.say(f"\n{counts['ok']} well, {counts['warn']} to look at, {counts['fail']} failed")
    if counts["fail"]:
        ctx.exit(1)


def _settings_file(app: App) -> Path | None:
    from callrouter.cli.config import settings_file
    from callrouter.errors import ConfigError

    try:
        return settings_file(app)
    except ConfigError:
        return None


def print_check(check: Check) -> None:
    """A check on a line, and its cause and mending below."""
    word = click.style(f"{check.state:<4}", fg=COLOURS[check.state]) if output.coloured() else f"{check.state:<4}"
    output.say(f"{word}  {check.name}: {output.safe(check.detail, lines=True)}")
    if check.cause:
        output.say(f"      likely cause: {output.safe(check.cause)}")
    if check.mend:
        output.say(f"      mend: {output.safe(check.mend)}")
