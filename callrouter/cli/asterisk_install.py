"""Adding callrouter to an Asterisk that somebody runs already, and taking it out again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from callrouter.cli import output
from callrouter.cli.options import confirm

if TYPE_CHECKING:
    from callrouter.asterisk.coexist import InstallPlan
    from callrouter.asterisk.install import AsteriskInstall
    from callrouter.cli.context import App


def plan_for(app: App, etc: Path, install: AsteriskInstall) -> InstallPlan:
    """What would be written into their configuration directory.

    :raises ConfigError, ConflictError: it cannot be added there
    """
    from callrouter.asterisk.coexist import plan_install
    from callrouter.asterisk.secrets import load_secrets
    from callrouter.store.config import list_trunks

    trunks = app.read(list_trunks)
    return plan_install(app.settings, install, etc, trunks, load_secrets(app.settings, trunks))


def run_install(app: App, etc: Path, *, dry_run: bool, yes: bool, remove: bool) -> None:
    """Show the plan, ask, carry it out."""
    from callrouter.asterisk.coexist import apply, plan_uninstall
    from callrouter.asterisk.install import find_asterisk

    plan = plan_uninstall(etc) if remove else plan_for(app, etc, find_asterisk(app.settings))
    lines = plan.describe()
    if not app.json:
        for line in lines:
            output.say(output.safe(line))
    done = False
    if not dry_run and not plan.empty:
        confirm(f"Do this in {etc}?", yes=yes)
        done = apply(plan)
    if app.json:
        output.emit({"directory": etc, "plan": lines, "done": done})
    elif done:
        output.say(f"\ndone; now: asterisk -rx 'core reload', and set asterisk_etc = \"{etc}\" in callrouter.toml")
