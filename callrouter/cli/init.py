"""``callrouter init``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Command
from callrouter.errors import AsteriskError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command(
    cls=Command,
    examples="""
callrouter init
callrouter --home /var/lib/callrouter init
""",
)
@pass_app
def init(app: App) -> None:
    """Set up this installation, or complete it: home, passwords, settings file, database, Asterisk's configuration.

    What is there already stays as it is; running it again does no harm.
    """
    steps = []
    for what, did in _steps(app):
        steps.append({"what": what, "did": did})
        if not app.json:
            output.say(f"{what}: {output.safe(did)}")
    following = [
        "callrouter doctor",
        "callrouter company add NAME --timezone America/New_York",
        "callrouter trunk presets",
        "callrouter up",
    ]
    if app.json:
        output.emit({"home": app.settings.home_dir, "steps": steps, "next": following})
    else:
        output.say("\nNext:\n" + "\n".join(f"  {each}" for each in following))


def _steps(app: App) -> Iterator[tuple[str, str]]:
    from callrouter.asterisk.render import make_directories
    from callrouter.cli.config import settings_file
    from callrouter.cli.db import upgrade_database
    from callrouter.cli.files import write_whole
    from callrouter.cli.reference import settings_sample

    settings = app.settings
    directory = settings.home_dir
    there = directory.is_dir()
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        raise ConfigError(f"{directory} cannot be made: {exc.strerror}", hint="choose another --home") from exc
    yield "home", f"{directory} {'is there' if there else 'made'}"

    from callrouter.asterisk.secrets import load_secrets, webhook_secret

    new = not (settings.secrets_dir / "ari-password").exists()
    load_secrets(settings)
    webhook_secret(settings)
    yield "passwords", f"{settings.secrets_dir} {'made, for this user only' if new else 'are there'}"

    file = settings_file(app)
    if file.exists():
        yield "settings", f"{file} is there"
    else:
        write_whole(file, settings_sample())
        yield "settings", f"{file} written; all in it is commented out"

    name, upgrade = upgrade_database(app)
    done = "is up to date" if upgrade.before == upgrade.after else f"brought to revision {upgrade.after}"
    yield "database", f"{name} {done}"

    make_directories(settings)
    settings.recordings.mkdir(parents=True, exist_ok=True)
    yield "recordings", f"{settings.recordings} is there"

    from callrouter.cli.asterisk import render_configuration

    try:
        render = render_configuration(app)
    except AsteriskError as exc:
        yield "asterisk", f"not rendered: {exc.message}" + (f" ({exc.hint})" if exc.hint else "")
    else:
        done = "rendered" if render.changed else "is up to date"
        yield "asterisk", f"Asterisk {render.version}; {settings.asterisk_etc_dir} {done}"
