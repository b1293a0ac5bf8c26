"""``callrouter reconcile``"""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Command
from callrouter.core.carrier_list import CarrierFormat, read_carrier_list
from callrouter.core.reconcile import MEANING, CarrierCall, Kind, Tolerance
from callrouter.errors import AriError, CallrouterError, InputError

if TYPE_CHECKING:
    from callrouter.runtime.reconciliation import Wanted
    from callrouter.store.reconciliation import Run

SINCE = "3d"


@click.command(
    cls=Command,
    examples="""
callrouter reconcile
callrouter reconcile --since 7d --dry-run
callrouter reconcile --carrier november.csv --trunk carrier --zone America/New_York
callrouter reconcile --carrier list.csv --columns "did=Called No,seconds=Secs" --time-format "%d/%m/%Y %H:%M:%S"
callrouter reconcile --last --json
""",
)
@click.option("--since", metavar="WHEN", help="Calls that began since: 2026-11-21, or ago: 24h, 7d [default: 3d].")
@click.option("--until", metavar="WHEN", help="Only calls that began before it.")
@click.option(
    "--carrier", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The carrier's CSV."
)
@click.option("--trunk", metavar="NAME", help="The trunk whose list that is; else it is compared with all calls.")
@click.option(
    "--columns", metavar="FIELD=NAME,…", default="", help="Its columns: did, start, seconds, caller, call_id."
)
@click.option("--zone", metavar="ZONE", default="UTC", show_default=True, help="Of its times that name none.")
@click.option(
    "--time-format", metavar="FORMAT", default="", help="Of its times, as strptime; else ISO 8601 or seconds."
)
@click.option("--country", metavar="CC", help="Of its numbers without + [default: the country setting].")
@click.option("--start-tolerance", type=float, default=5.0, show_default=True, help="Seconds two clocks may differ.")
@click.option("--tolerance", type=float, default=2.0, show_default=True, help="Seconds two durations may differ.")
@click.option("--settle", type=float, default=30.0, show_default=True, help="Seconds a call must have been over.")
@click.option("--dry-run", is_flag=True, help="Mend nothing, and keep no result.")
@click.option("--last", is_flag=True, help="Show the last result instead.")
@click.pass_context
@pass_app
def reconcile(app: App, ctx: click.Context, last: bool, **given: Any) -> None:
    """Compare all records of calls; mend what is certain.

    They are the database, the logs, Asterisk's CDRs and channel events, and the carrier's list. What is certain: a call
    that only Asterisk has is taken in, a call that is open without a channel is closed, a row is folded anew from its
    log, a recording that waits for nobody is finished. All else is listed. Calls in progress are no findings. Safe
    while calls run. Exit 1 when something is left unexplained.
    """
    run = _last(app) if last else _compare(app, given)
    if run is None:
        if app.json:
            output.emit(None)
        else:
            output.say("Nothing was compared yet: callrouter reconcile does it now.")
        ctx.exit(1)
    if app.json:
        output.emit(_json(run))
    else:
        _print(run)
    if run.counts.get("unexplained"):
        ctx.exit(1)


def _last(app: App) -> Run | None:
    from callrouter.store.reconciliation import last_run

    return app.read(last_run)


def _compare(app: App, given: dict[str, Any]) -> Run:
    from callrouter.cli import interrupt
    from callrouter.runtime.reconciliation import compare

    wanted = _wanted(app, given)

    async def work() -> Run:
        live = await _live(app)
        if live is None and not app.json:
            output.say("Asterisk does not answer: calls without an end are taken as in progress.", err=True)
        async with app.database() as database:
            return await compare(app.settings, database, live, wanted)

    with app.quiet():
        return interrupt.run(work)


def _wanted(app: App, given: dict[str, Any]) -> Wanted:
    from callrouter.cli.call import moment
    from callrouter.runtime.reconciliation import Wanted

    now = time.time()
    tolerance = Tolerance(given["start_tolerance"], given["tolerance"], given["settle"])
    carrier = _carrier(app, given)
    since = moment(given["since"], UTC).timestamp() if given["since"] else None
    until = moment(given["until"], UTC).timestamp() if given["until"] else now
    if carrier is not None:
        if since is None:
            since = min((line.start for line in carrier), default=now) - tolerance.start_seconds
        carrier = tuple(line for line in carrier if since <= line.start < until)
    if since is None:
        since = moment(SINCE, UTC).timestamp()
    if since >= until:
        raise InputError("--since is not before --until")
    return Wanted(since, until, carrier, given["trunk"], tolerance, repair=not given["dry_run"])


def _carrier(app: App, given: dict[str, Any]) -> tuple[CarrierCall, ...] | None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    path: Path | None = given["carrier"]
    if path is None:
        for option in ("trunk", "columns", "time_format", "country"):
            if given[option]:
                raise InputError(
                    f"--{option.replace('_', '-')} is about the carrier's list", hint="give --carrier FILE"
                )
        return None
    columns: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in given["columns"].split(","))):
        field, sign, name = part.partition("=")
        if not sign:
            raise InputError(f"--columns: {part!r} is no FIELD=NAME")
        columns[field.strip()] = name.strip()
    try:
        zone = ZoneInfo(given["zone"])
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise InputError(f"{given['zone']!r} is no time zone", hint="like America/New_York") from exc
    form = CarrierFormat(columns, zone, given["time_format"], given["country"] or app.settings.country)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        text = path.read_text("latin-1")
    try:
        return read_carrier_list(text.splitlines(keepends=True), form)
    except InputError as exc:
        raise InputError(f"{path}: {exc.message}", hint=exc.hint) from exc


async def _live(app: App) -> set[str] | None:
    """Unique ids of Asterisk's channels; None when it does not answer."""
    from callrouter.asterisk.ari import AriClient
    from callrouter.asterisk.secrets import load_secrets

    settings = app.settings
    try:
        password = load_secrets(settings).ari.reveal()
        async with AriClient(f"http://{settings.ari_host}:{settings.ari_port}", settings.ari_user, password) as ari:
            return {channel.id for channel in await ari.channels()}
    except (AriError, CallrouterError):
        return None


def _json(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "started_at": output.iso(run.started_at.timestamp()),
        "since": output.iso(run.since.timestamp()),
        "until": output.iso(run.until.timestamp()),
        "sources": list(run.sources),
        "counts": run.counts,
        "findings": [{**one, "at": output.iso(one.get("at"))} for one in run.findings],
    }


def _print(run: Run) -> None:
    counts = run.counts
    output.say(
        f"{counts.get('compared', 0)} calls compared from {run.since:%Y-%m-%d %H:%M} to {run.until:%Y-%m-%d %H:%M} UTC "
        f"({', '.join(run.sources)}); {counts.get('same', 0)} the same everywhere, "
        f"{counts.get('in_progress', 0)} in progress."
    )
    if not run.findings:
        output.say("Nothing to explain.")
        return
    output.table(
        ("began (UTC)", "finding", "call", "what", ""),
        [
            (
                datetime.fromtimestamp(one["at"], UTC).strftime("%m-%d %H:%M:%S") if one.get("at") else None,
                one["kind"],
                _which(one),
                output.safe(str(one["detail"])),
                "mended" if one["repaired"] else "",
            )
            for one in run.findings
        ],
        whole=("call",),
    )
    kinds = Counter(str(one["kind"]) for one in run.findings)
    for kind, count in sorted(kinds.items()):
        known = kind in Kind.__members__.values()
        output.say(f"{kind} ({count}): {MEANING[Kind(kind)] if known else 'of another version'}")
    left = counts.get("unexplained", 0)
    output.say(f"{len(run.findings) - left} mended, {left} unexplained.", fg="red" if left else None)


def _which(one: dict[str, Any]) -> str:
    if one.get("call"):
        return str(one["call"])[-8:]
    if one.get("uniqueid"):
        return str(one["uniqueid"])
    return f"line {one['line']}" if one.get("line") else ""
