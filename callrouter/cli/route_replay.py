"""``callrouter route replay``"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Command

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.core.records import CallRecord
    from callrouter.core.replay import Replayed
    from callrouter.core.routing import RoutingTable


@click.command(
    "replay",
    cls=Command,
    examples="""
callrouter route replay --since 30d --against routing.yaml
callrouter route replay --since 7d --number spring-radio
callrouter route replay --since 24h --against routing.yaml --json
""",
)
@click.option("--since", metavar="WHEN", default="30d", show_default=True, help="2026-11-21, or ago: 90m, 24h, 30d.")
@click.option("--until", metavar="WHEN", help="Only calls before it.")
@click.option("--against", "file", metavar="FILE", help="By a routing file; else by the routing in force.")
@click.option("--number", metavar="NUMBER", help="Only calls to this tracking number, or its name.")
@click.option("--company", metavar="NAME", help="Only calls of this company.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=100_000, show_default=True, help="At most so many.")
@click.option("--show", type=click.IntRange(0, 100_000), default=20, show_default=True, help="List so many of them.")
@pass_app
def replay(
    app: App, since: str, until: str | None, file: str | None, number: str | None, company: str | None, **given: Any
) -> None:
    """Run stored calls again, and say which would have gone elsewhere, been missed, or hit a limit.

    Each call has the arrival, the caller and the keys that it had, and each target does what it did then. Without
    --against this shows that the routing in force does with calls what it did.
    """
    from callrouter.cli.call import moment, zone_of
    from callrouter.core import replay as again
    from callrouter.core.routing import build_table
    from callrouter.store.calls import CallFilter
    from callrouter.store.config import load_config
    from callrouter.store.replay import stored_logs

    zone = zone_of(app, company)
    wanted = CallFilter(
        company=company,
        number=number,
        since=moment(since, zone),
        until=moment(until, zone) if until else None,
    )
    proposed = _proposed(app, file) if file is not None else None

    async def work(session: AsyncSession) -> tuple[RoutingTable, list[Replayed]]:
        table = proposed or build_table(await load_config(session))
        return table, [
            again.replay(table, row.id, log) async for row, log in stored_logs(session, wanted, given["limit"])
        ]

    table, found = app.read(work)
    found = again.with_caps(found, table)
    if app.json:
        output.emit(_json(found))
    else:
        _print(found, given["show"], None if file else table.version)


def _proposed(app: App, file: str) -> RoutingTable:
    """The table of a routing file; block lists, which are no matter of such files, are those in force."""
    from dataclasses import replace

    from callrouter.cli import routing_text
    from callrouter.cli.flow_text import read_text
    from callrouter.core.routing import build_table
    from callrouter.core.routing_code.fields import to_snapshot
    from callrouter.store.config import load_config

    seen = routing_text.look(app, read_text(file), trial=False)
    routing_text.require_right(seen)
    snapshot = to_snapshot(routing_text.with_titles(seen.routing), seen.version)
    present = app.read(load_config)
    # There, names are the ids.
    names = {company.id: company.name for company in present.companies}
    blocks = (replace(each, company_id=each.company_id and names[each.company_id]) for each in present.blocks)
    return build_table(replace(snapshot, blocks=tuple(blocks)))


def _print(found: list[Replayed], show: int, version: int | None) -> None:
    from callrouter.core.replay import Verdict

    if not found:
        output.say("There are no calls to be run again in that time.")
        return
    other = [one for one in found if one.verdict in (Verdict.ELSEWHERE, Verdict.MISSED) or one.cap]
    rows = [(*_row(one), "; ".join([*one.doubts, *([f"limit: {one.cap}"] if one.cap else [])])) for one in other[:show]]
    if rows:
        output.table(("call", "at (UTC)", "number", "then", "now", "note"), rows)
        if len(other) > show:
            output.say(f"… and {len(other) - show} more; --show {len(other)}")
        output.say()
    counts = Counter(one.verdict for one in found)
    lines: list[tuple[str, object]] = [(str(verdict), counts[verdict] or None) for verdict in Verdict]
    lines.append(("would hit a limit", sum(bool(one.cap) for one in found) or None))
    output.fields([("calls", len(found)), *lines])
    doubts = Counter(doubt for one in found for doubt in one.doubts)
    for doubt, count in doubts.most_common():
        output.say(f"  {count} × {doubt}")
    if version is None:
        return
    older = sum(1 for one in other if one.then is not None and one.then.config_version != version)
    if older:
        output.say(f"{older} of those that went another way began under an earlier configuration than {version}")
    if fresh := [one for one in other if one.then is not None and one.then.config_version == version and one.certain]:
        output.warn(f"{len(fresh)} began under this very configuration: the same inputs should have gone the same way")


def _row(one: Replayed) -> tuple[str, ...]:
    then = one.then
    began = (output.iso(then.started_at) or "")[:19].replace("T", " ") if then else ""
    return one.call_id[-8:], began, then.did if then else "", _told(then), _told(one.again)


def _told(record: CallRecord | None) -> str:
    if record is None:
        return ""
    rung = ", ".join(leg.target for leg in record.legs)
    return f"{record.disposition}{f' ({rung})' if rung else ''}"


def _json(found: list[Replayed]) -> dict[str, Any]:
    from callrouter.core.replay import Verdict

    return {
        "calls": len(found),
        "counts": {str(verdict): sum(one.verdict is verdict for one in found) for verdict in Verdict},
        "doubts": dict(Counter(str(doubt) for one in found for doubt in one.doubts)),
        "limits": dict(Counter(one.cap for one in found if one.cap)),
        "differences": [
            {
                "call": one.call_id,
                "verdict": one.verdict,
                "doubts": one.doubts,
                "limit": one.cap or None,
                "then": _side(one.then),
                "now": _side(one.again),
            }
            for one in found
            if one.verdict is not Verdict.SAME or one.cap
        ],
    }


def _side(record: CallRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {
        "at": output.iso(record.started_at),
        "number": record.did,
        "disposition": record.disposition,
        "reason": record.reason,
        "rung": [leg.target for leg in record.legs],
        "path": record.path,
        "config_version": record.config_version,
    }
