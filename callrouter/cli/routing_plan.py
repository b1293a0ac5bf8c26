"""``callrouter routing plan``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Command

if TYPE_CHECKING:
    from callrouter.core.routing_code.plan import Change, Difference, Plan

NUMBERS = 3
"""So many are named of those that change alike."""


@click.command(
    "plan",
    cls=Command,
    examples="""
callrouter routing plan routing.yaml
callrouter routing plan routing.yaml --exit-code    # exit 1 when anything changes, as git diff
callrouter routing plan routing.yaml --days 30 --json
""",
)
@click.argument("file")
@click.option(
    "--days",
    type=click.IntRange(1, 3660),
    default=400,
    show_default=True,
    help="How far ahead opening hours are compared, from today on.",
)
@click.option("--exit-code", is_flag=True, help="Exit 1 when anything changes for a number.")
@click.pass_context
@pass_app
def plan(app: App, ctx: click.Context, file: str, days: int, exit_code: bool) -> None:
    """Say which calls a routing FILE (- for standard input) would send elsewhere: numbers, callers, times.

    What is in force and what the file says are compared as tables: the week and its exceptions, cut where opening
    hours begin or end, by the callers and keys that flows tell apart. Nothing is changed.
    """
    import time

    from callrouter.cli import routing_text
    from callrouter.cli.flow_text import read_text, report
    from callrouter.core.routing import build_table
    from callrouter.core.routing_code.fields import to_snapshot
    from callrouter.core.routing_code.plan import make_plan

    seen = routing_text.look(app, read_text(file), trial=False)
    routing_text.require_right(seen)
    was = build_table(to_snapshot(seen.current, seen.version))
    will = build_table(to_snapshot(routing_text.with_titles(seen.routing), seen.version))
    made = make_plan(was, will, time.time(), days)
    if app.json:
        output.emit(_json(made))
    else:
        report(seen.places, err=True)
        _print(made)
    if exit_code and made.changes:
        ctx.exit(1)


def _print(made: Plan) -> None:
    changed = sum(len(change.numbers) for change in made.changes)
    elsewhere = sum(len(change.numbers) for change in made.changes if change.differences)
    for change in made.changes:
        output.say(output.safe(f"{_named(change)}:"), bold=True)
        for difference in change.differences:
            output.say(output.safe(f"  {difference.words()}"))
        for attribute in change.attributes:
            output.say(output.safe(f"  {attribute.words()}"))
        output.say()
    for each in made.undecided:
        output.say(output.safe(f"not decided: {each}"))
    what = "no call goes elsewhere" if not elsewhere else f"{_count(elsewhere)} answered otherwise than now"
    rest = f"; {_count(changed - elsewhere)} changed in something else" if changed > elsewhere else ""
    output.say(f"{what}{rest} ({_count(made.numbers)} compared, {made.days} days ahead)")


def _count(numbers: int) -> str:
    return f"{numbers} number{'' if numbers == 1 else 's'}"


def _named(change: Change) -> str:
    """``spring-radio (+1 512 555 0101), billboard (+1 …) and 10 more``"""
    named = [f"{name} ({e164})" for e164, name in change.numbers[:NUMBERS]]
    more = len(change.numbers) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _json(made: Plan) -> dict[str, Any]:
    return {
        "elsewhere": made.elsewhere,
        "numbers_compared": made.numbers,
        "from": output.iso(made.begin),
        "days": made.days,
        "changes": [
            {
                "numbers": [{"number": e164, "name": name} for e164, name in change.numbers],
                "outcomes": [_difference(each) for each in change.differences],
                "attributes": [each._asdict() for each in change.attributes],
            }
            for change in made.changes
        ],
        "undecided": made.undecided,
    }


def _difference(each: Difference) -> dict[str, Any]:
    return {
        "words": each.words(),
        "callers": each.callers,
        "keys": [choice.alike for choice in each.choices if not choice.webhook],
        "webhooks": [{"node": one.webhook, "answers": one.alike} for one in each.choices if one.webhook],
        "was": each.was,
        "will": each.will,
        "when": each.when,
        "periods": [
            {
                "first": period.first.isoformat(),
                "last": period.last.isoformat(),
                "week": [_parts(pattern) for pattern in period.week],
                "otherwise": {day.isoformat(): _parts(pattern) for day, pattern in period.otherwise},
            }
            for period in each.periods
        ],
        "next": output.iso(each.spans[0][0]),
    }


def _parts(pattern: Any) -> list[str]:
    from callrouter.core.routing_code.windows import clock_times

    return [clock_times((part,)) for part in pattern]
