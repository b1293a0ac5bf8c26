"""``callrouter call``"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.cli.options import of_option
from callrouter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.core.records import Consent
    from callrouter.store.calls import CallFilter, CallRow, StoredCall
    from callrouter.store.recordings import StoredRecording

EMPTY = "No calls yet. Place one: callrouter call test +12025550100"


@click.group(
    cls=Group,
    lazy={
        "test": ("callrouter.cli.calltest:test", "Place a real test call to NUMBER, and show what became of it."),
        "pause": ("callrouter.cli.call_pause:pause", "Pause the recording of the conversation of call ID."),
        "resume": ("callrouter.cli.call_pause:resume", "Resume the recording of the conversation of call ID."),
    },
)
def call() -> None:
    """Calls: list them, follow them, see why they went where."""


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose calls."""
    for option in reversed(
        [
            of_option,
            click.option("--campaign", metavar="NAME", help="Only calls it earned."),
            click.option("--number", metavar="NUMBER", help="Only calls to this tracking number, or its name."),
            click.option("--caller", metavar="NUMBER", help="Only calls from this number."),
            click.option("--disposition", metavar="WORD", help="answered, voicemail, busy … or in-progress."),
            click.option("--since", metavar="WHEN", help="2026-11-21, 2026-11-21T18:00+01:00, or ago: 90m, 24h, 7d."),
            click.option("--until", metavar="WHEN", help="Only calls before it."),
            click.option("--test/--no-test", default=None, help="Only test calls, or none of them."),
            click.option("--failsafe", is_flag=True, help="Only calls that Asterisk handled without the server."),
        ]
    ):
        command = option(command)
    return command


def wanted(app: App, given: dict[str, Any]) -> CallFilter:
    """The filter that the options of :func:`filters` make."""
    from callrouter.store.calls import CallFilter

    failsafe = given.pop("failsafe")
    since, until = given.pop("since"), given.pop("until")
    zone = zone_of(app, given["company"])
    return CallFilter(
        **given,
        since=moment(since, zone) if since else None,
        until=moment(until, zone) if until else None,
        handled_by="failsafe" if failsafe else None,
    )


def zone_of(app: App, company: str | None) -> tzinfo:
    """A company's zone; UTC without one."""
    if company is None:
        return UTC
    from zoneinfo import ZoneInfo

    from callrouter.store.config import get_company

    return ZoneInfo(app.read(lambda session: get_company(session, company)).timezone)


def moment(text: str, zone: tzinfo, now: datetime | None = None) -> datetime:
    """A point in time: ISO 8601 (in ``zone`` when it has none), or so long ago: ``90m``, ``24h``, ``7d``.

    :raises InputError: it is neither
    """
    from callrouter.core.moment import span

    if (length := span(text)) is not None:
        return (now or datetime.now(UTC)) - length
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InputError(
            f"{text!r} is no time",
            hint="like 2026-11-21, 2026-11-21T18:00, 2026-11-21T18:00+01:00, or 24h for a day ago",
        ) from exc
    return found if found.tzinfo else found.replace(tzinfo=zone)


@call.command(
    "list",
    examples="""
callrouter call list
callrouter call list --company acme --since 7d --disposition no-answer
callrouter call list --campaign spring-radio --limit 500 --json
""",
)
@filters
@click.option("--limit", type=click.IntRange(1, 10000), default=50, show_default=True)
@click.option("--before", metavar="ID", help="Only calls older than this one: the last of one page asks for the next.")
@pass_app
def list_(app: App, limit: int, before: str | None, **given: Any) -> None:
    """List calls, newest first; times are in the company's zone."""
    from callrouter.store.calls import list_calls

    chosen = wanted(app, given)

    async def work(session: AsyncSession) -> tuple[list[CallRow], dict[str, tzinfo]]:
        return await list_calls(session, chosen, limit, before), await company_zones(session)

    found, zones = app.read(work)
    if app.json:
        output.emit([call_json(row) for row in found])
    elif not found:
        output.say(EMPTY if chosen == type(chosen)() and before is None else "No calls like that.")
    else:
        print_calls(found, zones)


async def company_zones(session: AsyncSession) -> dict[str, tzinfo]:
    from zoneinfo import ZoneInfo

    from callrouter.store.config import list_companies

    return {company.name: ZoneInfo(company.timezone) for company in await list_companies(session)}


def print_calls(found: list[CallRow], zones: dict[str, tzinfo]) -> None:
    """Calls as a table of at most 100 columns."""
    columns = ("id", "time", "caller", "number", "campaign", "disposition", "who", "ring", "talk", "rec")
    whole = ("id", "time", "caller", "number", "disposition", "ring", "talk")
    output.table(columns, [call_cells(row, zones) for row in found], right=("ring", "talk"), whole=whole)
    if any(row.test for row in found):
        output.say("* a test call")


def call_cells(row: CallRow, zones: dict[str, tzinfo]) -> tuple[object, ...]:
    at = datetime.fromtimestamp(row.started_at, zones.get(row.company or "", UTC))
    return (
        row.id[-8:],
        at.strftime("%m-%d %H:%M"),
        row.caller or "withheld",
        row.did,
        row.campaign,
        (row.disposition or "in progress") + ("*" if row.test else ""),
        row.answered_by,
        output.seconds(row.ring_seconds),
        output.seconds(row.talk_seconds),
        _recording_word(row.recordings, row.recording_problem),
    )


def _recording_word(recordings: tuple[StoredRecording, ...], problem: str | None) -> str:
    if not recordings:
        return "failed" if problem else ""
    return ", ".join(dict.fromkeys(recording.status.value for recording in recordings))


def call_json(row: CallRow) -> dict[str, Any]:
    """A call's row for programs: times in ISO 8601, the rest as it is stored."""
    shown: dict[str, Any] = output.plain(row)
    shown |= {name: output.iso(getattr(row, name)) for name in ("started_at", "answered_at", "ended_at")}
    shown["recordings"] = [recording_json(recording) for recording in row.recordings]
    shown["duration"] = row.duration
    shown["values"] = dict(row.values)
    shown["consent"] = consent_json(row.consent)
    return shown


def consent_json(consent: Consent | None) -> dict[str, Any] | None:
    return {**output.plain(consent), "at": output.iso(consent.at)} if consent is not None else None


def recording_json(recording: StoredRecording) -> dict[str, Any]:
    pauses = [{"begin": output.iso(one.begin), "end": output.iso(one.end), "by": one.by} for one in recording.pauses]
    return {**output.plain(recording), "started_at": output.iso(recording.started_at), "pauses": pauses}


@call.command(
    "show",
    examples="""
callrouter call show 1c29a7d0                     # the last characters of the id will do
callrouter call show 01a2005a-cc59-7371-9b59-38589a7e049b --json
""",
)
@click.argument("id")
@pass_app
def show(app: App, id: str) -> None:  # noqa: A002 - what the help calls it
    """Show a call: its record, its legs, its recordings, and each decision with its reason."""
    from callrouter.store.calls import get_call

    async def work(session: AsyncSession) -> tuple[StoredCall, dict[str, tzinfo]]:
        return await get_call(session, id), await company_zones(session)

    found, zones = app.read(work)
    if app.json:
        from callrouter.cli.call_show import stored_json

        output.emit(stored_json(found))
    else:
        from callrouter.cli.call_show import print_call

        print_call(found, zones.get(found.company or "", UTC), app.settings.recordings)


@call.command("tail", examples="callrouter call tail\ncallrouter call tail --company acme --json | jq .disposition")
@filters
@click.option("--lines", "-n", type=click.IntRange(0, 1000), default=10, show_default=True, help="Begin with so many.")
@click.option("--once", is_flag=True, hidden=True, help="Look once, then end (for tests).")
@pass_app
def tail(app: App, lines: int, once: bool, **given: Any) -> None:
    """Follow calls: a line when one begins, and one when it ends. Ctrl-C ends it.

    With --json one object a line.
    """
    from callrouter.cli.call_show import follow
    from callrouter.cli.interrupt import run

    chosen = wanted(app, given)
    run(lambda: follow(app, chosen, lines, once=once))
