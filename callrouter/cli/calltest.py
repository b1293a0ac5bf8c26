"""``callrouter call test``: a real call through the real path, from the simulated carrier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Command

if TYPE_CHECKING:
    from callrouter.store.calls import CallRow
    from callrouter.testing.carrier_legs import CallResult
    from callrouter.testing.carrier_script import Step

RECORD_SECONDS = 30.0
"""How long the call's record may take to reach the database."""


@click.command(
    "test",
    cls=Command,
    examples="""
callrouter call test +12025550101
callrouter call test +12025550101 --digits 1 --stay 20
callrouter call test +12025550101 --from +13235550119 --digits 2,1 --json
""",
)
@click.argument("number")
@click.option("--from", "caller", default="+12125550123", show_default=True, metavar="NUMBER", help="Caller's number.")
@click.option("--name", help="Caller's name.")
@click.option("--anonymous", is_flag=True, help="Withhold the caller's number.")
@click.option("--digits", metavar="1,2", help="Keys to press; a comma waits (see --wait).")
@click.option("--wait", default=3.0, show_default=True, metavar="SECONDS", help="Before each group of keys.")
@click.option("--stay", default=60.0, show_default=True, metavar="SECONDS", help="Hang up after so long.")
@click.option("--ring", default=60.0, show_default=True, metavar="SECONDS", help="Give up after so long unanswered.")
@pass_app
def test(app: App, /, number: str, **given: Any) -> None:
    """Place a real test call to NUMBER, and show what became of it.

    The business line really rings. The call is marked as a test. The server must be running.
    """
    import asyncio

    from callrouter.core.phone import normalize
    from callrouter.errors import ConfigError

    if not app.settings.simulator:
        raise ConfigError("test calls are switched off", hint="set simulator = true, then callrouter asterisk render")
    did = normalize(number, app.settings.country)
    result, row = asyncio.run(_place(app, did, **given))
    if app.json:
        output.emit({"result": result, "call": row})
    else:
        _show(result, row)
    raise SystemExit(0 if row is not None else 1)


async def _place(
    app: App,
    did: str,
    caller: str,
    name: str | None,
    anonymous: bool,
    digits: str | None,
    wait: float,
    stay: float,
    ring: float,
) -> tuple[CallResult, CallRow | None]:
    from callrouter.asterisk.install import find_asterisk
    from callrouter.testing.carrier import SimulatedCarrier
    from callrouter.testing.carrier_script import CallScript

    settings = app.settings
    output.say(f"calling {did} from {'a withheld number' if anonymous else caller} …", err=True)
    async with SimulatedCarrier(
        find_asterisk(settings),
        settings.home_dir / "testcalls",
        address=settings.simulator_address,
        server=(settings.sip_bind, settings.sip_port),
    ) as carrier:
        script = CallScript(
            did=did,
            caller=caller,
            caller_name=name,
            anonymous=anonymous,
            steps=_steps(digits, wait),
            max_seconds=stay,
            ring_timeout=ring,
        )
        result = await carrier.place(script)
    return result, await _record(app, did, result)


def _steps(digits: str | None, wait: float) -> tuple[Step, ...]:
    from callrouter.testing.carrier_script import Digits, UntilHangup, Wait

    steps: list[Step] = []
    for group in (digits or "").split(","):
        if group.strip():
            steps += [Wait(wait), Digits(group.strip())]
    return (*steps, UntilHangup())


async def _record(app: App, did: str, result: CallResult) -> CallRow | None:
    """The call as it was stored; waits a little for it."""
    import asyncio
    import time
    from datetime import UTC, datetime

    from callrouter.store.calls import CallFilter, list_calls

    since = datetime.fromtimestamp(result.started - 2, UTC)
    deadline = time.monotonic() + RECORD_SECONDS
    async with app.database() as database:
        while True:
            async with database.session(read_only=True) as session:
                rows = await list_calls(session, CallFilter(number=did, since=since, test=True), limit=1)
            if (rows and rows[0].disposition is not None) or time.monotonic() > deadline:
                return rows[0] if rows else None
            await asyncio.sleep(0.3)


def _show(result: CallResult, row: CallRow | None) -> None:
    if result.answered:
        output.say(f"answered; stayed {result.talk_seconds:.1f} s; heard: {result.heard}")
    else:
        output.say(f"not answered: SIP {result.sip_status} {result.cause_text}")
    if row is None:
        output.say("no record of the call came: is the server running? callrouter status", err=True)
        return
    output.say(f"call {row.id}: {row.disposition}, {output.safe(row.reason)}")
    output.say(f"path: {' → '.join(row.path)}")
    output.say(f"more: callrouter call show {row.id}")
