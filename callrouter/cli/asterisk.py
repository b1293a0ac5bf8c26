"""``callrouter asterisk``"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.cli.options import yes_option
from callrouter.errors import AmiError, AsteriskError

if TYPE_CHECKING:
    from callrouter.asterisk.install import AsteriskInstall
    from callrouter.asterisk.log import LogLine
    from callrouter.config import Settings

RESTART = ("asterisk.conf", "modules.conf", "http.conf", "ari.conf", "manager.conf", "rtp.conf")
LOG_SECONDS = 2.0


class Rendered(NamedTuple):
    """A configuration in place."""

    install: AsteriskInstall
    version: str
    changed: list[str]
    """Names of the files that are new or other than before."""


@click.group(cls=Group)
def asterisk() -> None:
    """Asterisk: its configuration and its state."""


def render_configuration(app: App, *, write: bool = True) -> Rendered:
    """Render Asterisk's configuration out of settings and database, check it, and put it in place.

    :raises AsteriskError: there is no Asterisk to render for
    :raises ConfigError: what was rendered does not hold together; what is in place stays
    """
    from callrouter.asterisk.install import find_asterisk
    from callrouter.asterisk.render import make_directories, render, write_config
    from callrouter.asterisk.secrets import load_secrets
    from callrouter.asterisk.validate import validate
    from callrouter.doctor.asterisk import changed_files
    from callrouter.store.config import list_trunks

    settings = app.settings
    install = find_asterisk(settings)
    trunks = app.read(list_trunks)
    if settings.asterisk_etc:
        return _render_among_theirs(app, install, write=write)
    files = render(settings, install, trunks, load_secrets(settings, trunks))
    validate(files)
    stale = changed_files(settings, files)
    changed = sorted(files) if stale is None else stale
    if write:
        make_directories(settings)
        write_config(files, settings.asterisk_etc_dir)
    return Rendered(install, install.version_text, changed)


def _render_among_theirs(app: App, install: AsteriskInstall, *, write: bool) -> Rendered:
    """In somebody's own Asterisk only our directory and our includes are ever written."""
    from callrouter.asterisk.coexist import apply
    from callrouter.cli.asterisk_install import plan_for

    plan = plan_for(app, app.settings.asterisk_etc_dir, install)
    changed = [] if plan.empty else [line for line in plan.describe() if not line.startswith("note: ")]
    if write:
        apply(plan)
    return Rendered(install, install.version_text, changed)


@asterisk.command("render", examples="callrouter asterisk render\ncallrouter asterisk render --check")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 when what is in place is not up to date.")
@click.pass_context
@pass_app
def render(app: App, ctx: click.Context, check: bool) -> None:
    """Render Asterisk's configuration out of settings and database, validate it, and put it in place.

    Asterisk reads it at its start, or on callrouter asterisk reload. The one before is kept in etc.good.
    """
    done = render_configuration(app, write=not check)
    directory = app.settings.asterisk_etc_dir
    if app.json:
        output.emit({"directory": directory, "asterisk": done.version, "changed": done.changed, "written": not check})
    elif not done.changed:
        output.say(f"{directory} is up to date (Asterisk {done.version})")
    else:
        verb = "would change" if check else "written"
        output.say(f"{directory}: {', '.join(done.changed)} {verb}")
        if not check:
            output.say("in force after: callrouter asterisk reload")
    if check and done.changed:
        ctx.exit(1)


def reload_asterisk(app: App) -> tuple[Rendered, list[LogLine]]:
    """Render, then reload what can be without dropping a call; with what Asterisk's log said to it.

    :raises AmiError: Asterisk is not running, or refuses us
    """
    from callrouter.asterisk.apply import reload as read_anew
    from callrouter.asterisk.log import messages_path
    from callrouter.cli.interrupt import run as run_to_end
    from callrouter.doctor.asterisk import open_ami
    from callrouter.store.config import list_trunks

    done, trunks = render_configuration(app), app.read(list_trunks)
    log = messages_path(app.settings)
    start = log.stat().st_size if log.exists() else 0

    async def run() -> None:
        async with open_ami(app.settings) as ami:
            await read_anew(ami, trunks)

    with app.quiet():
        run_to_end(run)
    return done, _logged(log, start)


def _logged(log: Path, start: int) -> list[LogLine]:
    """Errors and warnings in Asterisk's log since ``start``; waits until it has been quiet for a moment."""
    from callrouter.asterisk.log import read_log

    deadline, size = time.monotonic() + LOG_SECONDS, -1
    while log.exists() and log.stat().st_size != size and time.monotonic() < deadline:
        size = log.stat().st_size
        time.sleep(0.3)
    return [line for line in read_log(log, start) if line.level in ("ERROR", "WARNING")]


@asterisk.command("reload", examples="callrouter asterisk reload")
@click.pass_context
@pass_app
def reload(app: App, ctx: click.Context) -> None:
    """Render the configuration and have Asterisk read it, without dropping a call.

    Exit 1 when Asterisk's log shows errors afterwards.
    """
    done, lines = reload_asterisk(app)
    errors = [line for line in lines if line.level == "ERROR"]
    from callrouter.asterisk.apply import RELOADED

    restart = sorted(set(done.changed) & set(RESTART))
    if app.json:
        told = [str(line) for line in lines]
        output.emit({"changed": done.changed, "reloaded": RELOADED, "log": told, "needs_restart": restart})
    else:
        output.say(f"reloaded; {', '.join(done.changed) or 'no file'} changed")
        for line in lines:
            output.say(output.safe(str(line)), fg="red" if line in errors else "yellow")
        if restart:
            output.warn(f"{', '.join(restart)} counts only after a restart of Asterisk")
        if errors:
            output.say("hint: the configuration before is in etc.good", err=True)
    if errors:
        ctx.exit(1)


@asterisk.command("status", examples="callrouter asterisk status --json")
@pass_app
def status(app: App) -> None:
    """Show the running Asterisk: version, uptime, channels, modules, the configuration in force."""
    from callrouter.cli.interrupt import run as run_to_end

    with app.quiet():
        found = run_to_end(lambda: _status(app.settings))
    found["config_version"] = (app.status or {}).get("config_version")
    if app.json:
        output.emit(found)
        return
    output.fields(
        [
            ("asterisk", f"{found['version']} at {app.settings.ari_host}:{app.settings.ari_port}"),
            ("advice", found["advisory"]),
            ("up since", found["started_at"]),
            ("last reload", found["reloaded_at"]),
            ("channels", found["channels"]),
            ("modules", f"{found['modules']} running" if found["modules"] is not None else None),
            ("AMI", found["ami"]),
            ("configuration", f"version {found['config_version']}" if found["config_version"] else "no server runs"),
        ]
    )


async def _status(settings: Settings) -> dict[str, Any]:
    from callrouter.asterisk.ari import AriClient
    from callrouter.asterisk.install import advisory, parse_version
    from callrouter.asterisk.secrets import read_secret
    from callrouter.doctor.asterisk import open_ami

    password = read_secret(settings.secrets_dir, "ari-password").reveal()
    async with AriClient(f"http://{settings.ari_host}:{settings.ari_port}", settings.ari_user, password) as ari:
        info = await ari.info()
        channels = await ari.channels()
        modules = await ari.request("GET", "asterisk/modules")
    try:
        async with open_ami(settings) as ami:
            await ami.ping()
            manager = "connected"
    except AmiError as exc:
        manager = exc.message
    try:
        advice = advisory(parse_version(f"Asterisk {info.version}"))
    except AsteriskError:
        advice = None
    state = info.status
    return {
        "version": info.version,
        "advisory": advice,
        "started_at": output.iso(datetime.fromtimestamp(state.startup_time, UTC)) if state else None,
        "reloaded_at": output.iso(datetime.fromtimestamp(state.last_reload_time, UTC)) if state else None,
        "channels": len(channels),
        "modules": sum(module.get("status") == "Running" for module in modules) if modules else None,
        "ami": manager,
    }


@asterisk.command(
    "install",
    examples="""
callrouter asterisk install --dry-run
callrouter asterisk install --etc /etc/asterisk
""",
)
@click.option(
    "--etc", type=click.Path(file_okay=False, path_type=Path), default=Path("/etc/asterisk"), show_default=True
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--remove", is_flag=True, help="Take callrouter out again.")
@yes_option
@pass_app
def install(app: App, etc: Path, dry_run: bool, remove: bool, yes: bool) -> None:
    """Add callrouter to an Asterisk that runs already: our files as includes, theirs never overwritten."""
    from callrouter.cli.asterisk_install import run_install

    run_install(app, etc, dry_run=dry_run, yes=yes, remove=remove)


@asterisk.command("run", json=False, examples="callrouter asterisk run\ncallrouter asterisk run --no-render")
@click.option("--render/--no-render", "fresh", default=True, show_default=True, help="Render the configuration first.")
@pass_app
def run(app: App, fresh: bool) -> NoReturn:
    """Run Asterisk in the foreground on our configuration, for systemd and containers."""
    from callrouter.asterisk.install import find_asterisk
    from callrouter.asterisk.ports import require_free_ports
    from callrouter.errors import ConfigError, DatabaseError

    conf = app.settings.asterisk_etc_dir / "asterisk.conf"
    if fresh:
        try:
            render_configuration(app)
        except DatabaseError as exc:
            # Without Asterisk there are no calls at all; what is in place was right when it was last rendered.
            if not conf.is_file():
                raise
            output.warn(f"Asterisk runs on the configuration that is in place: {exc.message}")
    if not conf.is_file():
        raise ConfigError(f"{conf} is not there", hint="callrouter asterisk render")
    require_free_ports(app.settings)
    command = find_asterisk(app.settings).command("-C", str(conf), "-f")
    sys.stdout.flush()
    sys.stderr.flush()
    # Becoming it keeps the process id: what supervises us supervises Asterisk.
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted
