"""``callrouter config``"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.errors import NotFoundError

if TYPE_CHECKING:
    from pathlib import Path


class Setting(NamedTuple):
    """A setting in force."""

    name: str
    value: Any
    default: Any
    source: str
    """"default", "file", "environment" or "option"."""
    description: str


@click.group(cls=Group)
def config() -> None:
    """Settings in force, and where they come from."""


@config.command("list", examples="callrouter config list\ncallrouter config list --changed")
@click.option("--changed", is_flag=True, help="Only those that are not at their default.")
@pass_app
def list_(app: App, changed: bool) -> None:
    """List all settings with their values and where each comes from. Passwords are not settings: see home/secrets."""
    found = [each for each in settings_in_force(app) if not changed or each.source != "default"]
    if app.json:
        output.emit([{**each._asdict(), "value": _masked(each)} for each in found])
    elif not found:
        output.say("All settings are at their defaults.")
    else:
        rows = [(each.name, _shown(_masked(each)), each.source) for each in found]
        output.table(("setting", "value", "from"), rows)
        output.say(f"\nsettings file: {settings_file(app)}")


@config.command("show", examples="callrouter config show sip_port")
@click.argument("name")
@pass_app
def show(app: App, name: str) -> None:
    """Show one setting: its value, its default and what it is for."""
    from callrouter.core.flow.source import suggest

    found = {each.name: each for each in settings_in_force(app)}
    setting = found.get(name.replace("-", "_"))
    if setting is None:
        raise NotFoundError(f"there is no setting {name!r}", hint=suggest(name, list(found)))
    if app.json:
        output.emit({**setting._asdict(), "value": _masked(setting)})
        return
    output.fields(
        [
            ("setting", setting.name),
            ("value", _shown(_masked(setting))),
            ("default", _shown(setting.default)),
            ("from", setting.source),
            ("meaning", setting.description),
            ("environment", f"CALLROUTER_{setting.name.upper()}"),
        ]
    )


def settings_file(app: App) -> Path:
    """Where the settings file is, or would be."""
    from pathlib import Path

    if app.config is not None:
        return app.config
    return Path(os.environ.get("CALLROUTER_CONFIG") or app.settings.home_dir / "callrouter.toml")


def settings_in_force(app: App) -> list[Setting]:
    """All settings, with where each value comes from."""
    import tomllib

    from callrouter.cli.reference import describe_settings

    file = settings_file(app)
    in_file = set(tomllib.loads(file.read_text("utf-8"))) if file.exists() else set()
    found = []
    for described in describe_settings():
        name = described.name
        if name == "home" and app.home:
            source = "option"
        elif f"CALLROUTER_{name.upper()}" in os.environ:
            source = "environment"
        elif name in in_file:
            source = "file"
        else:
            source = "default"
        value = str(app.settings.home_dir) if name == "home" else getattr(app.settings, name)
        found.append(Setting(name, value, described.default, source, described.description))
    return found


def _masked(setting: Setting) -> Any:
    if setting.name == "database_url" and setting.value:
        from callrouter.store.database import locate

        return locate(setting.value).render_as_string(hide_password=True)
    return setting.value


def _shown(value: Any) -> str:
    return output.yes_no(value) if isinstance(value, bool) else str(value) or "(empty)"
