"""``callrouter flow test``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from callrouter.core.flow.expect import Case, Outcome


@click.command(
    "test",
    cls=Command,
    examples="""
callrouter flow test front-desk.tests.yaml
callrouter flow test front-desk.tests.yaml --trace
callrouter flow test front-desk.tests.yaml --json
""",
)
@click.argument("file")
@click.option("--routing", "routing_file", metavar="FILE", help="Try a routing file instead of what is in force.")
@click.option("--trace", "trace", is_flag=True, help="Show the whole trace of what is otherwise than expected.")
@click.pass_context
@pass_app
def test(app: App, ctx: click.Context, file: str, routing_file: str | None, trace: bool) -> None:
    """Try your own expectations of the routing, from a YAML FILE (- for standard input). Exit 1 when one does not hold.

    A flow that a test names with .yaml is read from that file, beside FILE, and need not be saved.
    """
    import time

    from callrouter.cli.flow_text import read_text
    from callrouter.core.flow.expect import parse_cases, run_cases
    from callrouter.store.config import load_config

    cases = parse_cases(read_text(file))
    texts = _texts(cases, Path() if file == "-" else Path(file).parent)
    if routing_file is None:
        snapshot = app.read(load_config)
    else:
        from callrouter.cli.routing import proposed

        snapshot = proposed(app, routing_file)
    outcomes = run_cases(cases, snapshot, time.time(), texts)
    failed = [outcome for outcome in outcomes if not outcome.ok]
    if app.json:
        output.emit({"ok": not failed, "tests": [_json(outcome) for outcome in outcomes]})
    else:
        _print(outcomes, trace=trace)
    if failed:
        ctx.exit(1)


def _texts(cases: Sequence[Case], beside: Path) -> dict[str, str]:
    """The flows that are named as files."""
    from callrouter.cli.flow_text import read_text

    names = {case.flow: case for case in cases if case.flow and case.flow.endswith((".yaml", ".yml"))}
    return {name: read_text(str(beside / name)) for name in names}


def _json(outcome: Outcome) -> dict[str, Any]:
    from callrouter.cli.route import simulation_json

    return {
        "name": outcome.case.name,
        "line": outcome.case.place[0],
        "ok": outcome.ok,
        "differences": outcome.differences,
        "call": simulation_json(outcome.simulation),
    }


def _print(outcomes: Sequence[Outcome], *, trace: bool) -> None:
    for outcome in outcomes:
        word, colour = ("ok", "green") if outcome.ok else ("FAILED", "red")
        output.say(f"{word:<6}  {output.safe(outcome.case.name)}", fg=colour)
        if outcome.ok:
            continue
        output.say(f"        line {outcome.case.place[0]}")
        for each in outcome.differences:
            output.say(output.safe(f"        {each.what}"))
            output.say(output.safe(f"          - expected: {each.wanted}"), fg="green")
            output.say(output.safe(f"          + got:      {each.got}"), fg="red")
        if trace:
            for line in outcome.simulation.lines():
                output.say(
                    output.safe(f"        {line.seconds:4.0f} s  {line.path:<24}  {line.what}  {line.why}".rstrip())
                )
        else:
            output.say(output.safe(f"        path: {' → '.join(outcome.simulation.record.path)}"))
    failed = sum(not outcome.ok for outcome in outcomes)
    output.say()
    output.say(f"{len(outcomes) - failed} of {len(outcomes)} hold" + (f", {failed} do not" if failed else ""))
