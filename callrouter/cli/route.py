"""``callrouter route``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.cli.options import owner_option
from callrouter.errors import InputError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.core.flow.nodes import Flow
    from callrouter.core.model import TrackingNumber
    from callrouter.core.records import Reply
    from callrouter.core.routing import RoutingTable
    from callrouter.core.simulate import Answer, Simulation


@click.group(
    cls=Group,
    lazy={"replay": ("callrouter.cli.route_replay:replay", "Run stored calls again, also by another routing.")},
)
def route() -> None:
    """Where calls would go, and why."""


@route.command(
    "explain",
    examples="""
callrouter route explain +12025550101
callrouter route explain +12025550101 --from +13125550199 --at "Sat 18:05"
callrouter route explain spring-radio --digits 1,-,2 --answer ana=busy --answer ben=no-answer
callrouter route explain spring-radio --answer no-answer --message 0
callrouter route explain spring-radio --last-call 12 --tagged vip
callrouter route explain spring-radio --webhook crm=vip
""",
)
@click.argument("number")
@owner_option
@click.option("--from", "caller", metavar="NUMBER", default="+12025550199", help='The caller; "": withheld.')
@click.option("--first-time", is_flag=True, help="It is the caller's first call; so without any of these.")
@click.option("--last-call", type=click.FloatRange(0, 3650), metavar="DAYS", help="Their last call came DAYS ago.")
@click.option("--tagged", multiple=True, metavar="TAG", help="An earlier call of theirs bears this tag.")
@click.option("--at", metavar="TIME", default="now", help='"Sat 18:05", "18:05", ISO 8601; in the company\'s zone.')
@click.option(
    "--digits",
    metavar="KEYS",
    default="",
    help="Keys for each round of a menu or gather; - presses nothing: 1,-,60614.",
)
@click.option(
    "--answer",
    "answers",
    multiple=True,
    metavar="[TARGET=]WHAT",
    help="answered (else so), busy, no-answer, declined, failed, trunk-failed, trunk-silent, caller-leaves, "
    "caller-gives-up; without TARGET of all others; given again for a target: at its next ringing.",
)
@click.option(
    "--webhook",
    "webhooks",
    multiple=True,
    metavar="[NODE=]WHAT",
    help="What a web service answers: one of the node's branches, next (else so), timeout, failed; given again for a "
    "node: at its next asking.",
)
@click.option("--message", type=click.FloatRange(0, 3600), default=12.0, help="Seconds that a message lasts.")
@click.option("--talk", type=click.FloatRange(1, 86400), default=60.0, help="Seconds that a conversation lasts.")
@click.option("--trunk-down", "down", multiple=True, metavar="NAME", help="A trunk that is known to be down.")
@pass_app
def explain(
    app: App, number: str, company: str | None, caller: str, at: str, down: tuple[str, ...], **given: Any
) -> None:
    """Say what becomes of a call to NUMBER, without making one: every node, decision and reason.

    The call is run by what runs real calls, with a caller and destinations that do as the options say.
    """
    import time

    from callrouter.core import phone
    from callrouter.core.flow.earlier import Earlier
    from callrouter.core.moment import parse_moment
    from callrouter.core.routing import build_table
    from callrouter.core.simulate import Inputs, simulate
    from callrouter.store.config import get_number, load_config

    async def work(session: AsyncSession) -> tuple[TrackingNumber, RoutingTable]:
        return await get_number(session, number, company), build_table(await load_config(session))

    found, table = app.read(work)
    entry = table.entries[found.e164]
    earlier = given["last_call"] is not None or given["tagged"]
    if given["first_time"] and earlier:
        raise click.UsageError("--first-time says that there was no call before: leave out --last-call and --tagged.")
    before = Earlier(int(bool(earlier)), given["last_call"] if given["last_call"] is not None else 1.0, given["tagged"])
    moment = parse_moment(at, entry.company.timezone, time.time())
    inputs = Inputs(
        history=before.history(moment),
        digits=keys_of(given["digits"]),
        answers=answers_of(given["answers"]),
        talk_seconds=given["talk"],
        message_seconds=given["message"],
        trunks_down=tuple((name, "so it was said") for name in down),
        webhooks=replies_of(entry.flow, given["webhooks"]),
    )
    for target, _ in inputs.answers:
        require_target(target, tuple(entry.destinations))
    who = phone.normalize(caller, entry.company.country) if caller.strip() else None
    made = simulate(table, found.e164, who, moment, inputs)
    if app.json:
        output.emit(simulation_json(made))
    else:
        print_simulation(made, entry.company.timezone, found.name)


def keys_of(text: str) -> tuple[str, ...]:
    """``1,-,60614``: keys for each round, where "-" presses nothing.

    :raises InputError: no key of a telephone
    """
    from callrouter.core.flow.parse import are_keys

    keys = tuple(key.strip() for key in text.split(",")) if text.strip() else ()
    for key in keys:
        if key != "-" and not are_keys(key):
            raise InputError(f"{key!r} is no key of a telephone", hint="0-9, * or #; - for nothing: --digits 1,-,2")
    return tuple("" if key == "-" else key for key in keys)


def answers_of(given: tuple[str, ...]) -> tuple[tuple[str, tuple[Answer, ...]], ...]:
    """``ana=busy``, ``no-answer``: what targets do.

    :raises InputError: nothing that a target can do
    """
    from callrouter.core.flow.source import suggest
    from callrouter.core.simulate import ANY, Answer

    found: dict[str, tuple[Answer, ...]] = {}
    for text in given:
        target, equals, what = text.rpartition("=")
        if what not in list(Answer):
            raise InputError(
                f"{what!r} is nothing that a target does", hint=suggest(what, [str(one) for one in Answer])
            )
        name = target.strip() if equals else ANY
        found[name] = (*found.get(name, ()), Answer(what))
    return tuple(found.items())


def replies_of(flow: Flow, given: tuple[str, ...]) -> tuple[tuple[str, tuple[Reply, ...]], ...]:
    """``crm=vip``, ``timeout``: what web services answer.

    :raises InputError: no such node, or nothing that it could be answered
    """
    from callrouter.core.flow.replied import reply_of
    from callrouter.core.simulate import ANY

    found: dict[str, tuple[Reply, ...]] = {}
    for text in given:
        node, equals, word = text.rpartition("=")
        name = node.strip() if equals else ANY
        found[name] = (*found.get(name, ()), reply_of(flow, node.strip() if equals else None, word.strip()))
    return tuple(found.items())


def require_target(name: str, known: tuple[str, ...]) -> None:
    """:raises InputError: it is none of the company's targets"""
    from callrouter.core.flow.source import suggest
    from callrouter.core.simulate import ANY

    if name != ANY and name not in known:
        raise InputError(f"there is no target {name!r} that could be rung", hint=suggest(name, sorted(known)))


def simulation_json(made: Simulation) -> dict[str, Any]:
    record = made.record
    return {
        "number": record.did,
        "caller": record.caller,
        "at": output.iso(record.started_at),
        "disposition": record.disposition,
        "reason": record.reason,
        "answered_by": record.answered_by,
        "cause": record.cause,
        "handled_by": record.handled_by,
        "config_version": record.config_version,
        "path": record.path,
        "tags": record.tags,
        "values": dict(record.values),
        "language": record.language,
        "rung": made.rung,
        "heard": made.heard,
        "recordings": [ref.kind for ref in record.recordings],
        "complete": made.complete,
        "trace": [{**output.plain(step), "at": output.iso(step.at)} for step in record.trace],
        "steps": made.lines(),
    }


def print_simulation(made: Simulation, timezone: str, number: str) -> None:
    """A simulated call for people."""
    from callrouter.core.hours import local_time
    from callrouter.core.simulated_lines import Kind

    record = made.record
    when = f"{output.iso(record.started_at, _zone(timezone)) or ''}"[:19].replace("T", " ")
    output.fields(
        [
            ("dialled", f"{record.did} ({number})"),
            ("caller", record.caller or "withheld"),
            ("at", f"{when}, {local_time(timezone, record.started_at)}"),
        ]
    )
    output.say()
    rows = []
    for line in made.lines():
        if line.kind is Kind.HEARS:
            rows.append((f"{line.seconds:.0f} s", "", f"caller hears {line.what}", line.why))
        else:
            rows.append((f"{line.seconds:.0f} s", line.path, line.what, line.why))
    output.table(("after", "where", "what", "why"), rows, right=("after",))
    output.say()
    kept = ", ".join(str(ref.kind) for ref in record.recordings)
    output.fields(
        [
            ("ends", f"{record.disposition}: {record.reason}"),
            ("path", " → ".join(record.path) or None),
            ("rung", ", ".join(made.rung) or "nobody"),
            ("tags", ", ".join(record.tags) or None),
            ("values", ", ".join(f"{name} = {value}" for name, value in record.values) or None),
            ("language", record.language),
            ("to be recorded", kept or "nothing"),
        ]
    )
    if not made.complete:
        output.warn("the simulation was cut off: this call does not end by itself")


def _zone(name: str) -> Any:
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)
