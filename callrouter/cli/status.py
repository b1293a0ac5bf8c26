"""``callrouter status``"""

from __future__ import annotations

import time
from typing import Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Command
from callrouter.errors import ServiceError


@click.command(cls=Command, examples="callrouter status\ncallrouter status --json | jq .calls")
@click.pass_context
@pass_app
def status(app: App, ctx: click.Context) -> None:
    """Show what the running server is doing. Exit 3 when it does not run, 1 when something is wrong with it."""
    from callrouter.doctor.server import read_status

    found = app.status
    if found is None:
        last = read_status(app.settings)
        ago = f"; it was last seen {_ago(time.time() - float(last['at']))} ago" if last else ""
        raise ServiceError(
            f"callrouter is not running in {app.settings.home_dir}{ago}", hint="callrouter up, or callrouter doctor"
        )
    wrong = problems(found)
    if app.json:
        times = {name: output.iso(found.get(name)) for name in ("at", "started_at", "config_kept_at")}
        output.emit({**found, **times})
    else:
        _print(found, wrong)
    if wrong:
        ctx.exit(1)


def problems(found: dict[str, Any]) -> list[str]:
    """What is wrong by the server's own account."""
    ari, ami = found.get("ari") or {}, found.get("ami") or {}
    wrong = []
    if ari.get("state") != "connected":
        wrong.append(f"ARI: {ari.get('error') or ari.get('state') or 'unknown'}")
    if not ami.get("connected"):
        wrong.append(f"AMI: {ami.get('error') or 'not connected'}")
    for part, name in (("database", "database"), ("journal", "journal"), ("recording_store", "recordings")):
        if problem := (found.get(part) or {}).get("problem"):
            wrong.append(f"{name}: {problem}")
    wrong += [f"outbound: {_alarm(each)}" for each in found.get("alarms") or []]
    return wrong + [str(each) for each in found.get("problems") or []]


def _print(found: dict[str, Any], wrong: list[str]) -> None:
    from callrouter.cli.trunk import state_words

    ami = found.get("ami") or {}
    pending = (found.get("journal") or {}).get("pending") or 0
    output.fields(
        [
            ("server", f"running, version {found.get('version')}, pid {found.get('pid')}"),
            ("up for", _ago(time.time() - float(found["started_at"])) if found.get("started_at") else None),
            ("calls", f"{found.get('calls', 0)} in progress, {found.get('total', 0)} since the start"),
            ("over trunks", found.get("outbound_calls")),
            ("channels", ami.get("channels")),
            ("configuration", _configuration(found)),
            ("reconciled", _reconciled(found.get("reconciliation"))),
            ("ARI", (found.get("ari") or {}).get("state")),
            ("AMI", "connected" if ami.get("connected") else "not connected"),
            ("journal", f"{pending} bytes on their way to the database" if pending else "drained"),
        ]
    )
    trunks = ami.get("trunks") or {}
    if trunks:
        output.say("\nTrunks", bold=True)
        output.table(("name", "state"), [(name, state_words(state)) for name, state in sorted(trunks.items())])
    security = ami.get("security") or {}
    if security:
        output.say("\nTurned away", bold=True)
        rows = sorted(security.items(), key=lambda pair: -int(pair[1]))[:10]
        output.table(("what", "times"), rows, right=("times",))
    if wrong:
        output.say("\nProblems", bold=True)
        for each in wrong:
            output.say(output.safe(f"  {each}"), fg="red")


def _reconciled(last: dict[str, Any] | None) -> str:
    if not last:
        return "not since the start"
    open_ = last["unexplained"]
    what = f"{open_} unexplained (callrouter reconcile --last)" if open_ else "all explained"
    return f"{last['compared']} calls, {what}, {_ago(time.time() - float(last['at']))} ago"


def _alarm(alarm: dict[str, Any]) -> str:
    count, last = int(alarm.get("count") or 0), alarm.get("last")
    ago = f", the last {_ago(time.time() - float(last))} ago" if last else ""
    times = f"{count} call{'s' if count != 1 else ''}"
    return f"{alarm.get('company')}: {alarm.get('cap')} kept {times} from being dialled{ago}: {alarm.get('reason')}"


def _configuration(found: dict[str, Any]) -> str:
    text = f"version {found.get('config_version')}"
    if kept_at := found.get("config_kept_at"):
        text += f", as the database had it at {output.iso(kept_at)}"
    return text


def _ago(seconds: float) -> str:
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
