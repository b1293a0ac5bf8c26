"""``callrouter call pause`` and ``callrouter call resume``

The server listens on Asterisk's manager interface anyway: the wish goes there, and its answer is in the call's log.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import click

from callrouter.cli import interrupt, output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Command
from callrouter.errors import ConflictError, ServiceError

if TYPE_CHECKING:
    from callrouter.core.cdr import LogItem
    from callrouter.store.database import Database

ANSWER_SECONDS = 5.0
LOOK_SECONDS = 0.1


@click.command("pause", cls=Command, examples="callrouter call pause 1c29a7d0")
@click.argument("id")
@pass_app
def pause(app: App, id: str) -> None:  # noqa: A002 - what the help calls it
    """Pause the recording of the conversation of call ID.

    Silence is recorded instead, of the same length. It goes on by itself after the company's --pause-seconds.
    """
    _ask(app, id, on=True)


@click.command("resume", cls=Command, examples="callrouter call resume 1c29a7d0")
@click.argument("id")
@pass_app
def resume(app: App, id: str) -> None:  # noqa: A002 - what the help calls it
    """Resume the recording of the conversation of call ID."""
    _ask(app, id, on=False)


def _ask(app: App, ref: str, *, on: bool) -> None:
    with app.quiet():
        call_id, done = interrupt.run(lambda: _asked(app, ref, on))
    words = f"the recording of call {call_id} {'is paused' if on else 'goes on'}"
    if app.json:
        output.emit({"call": call_id, "paused": on, "changed": done})
    else:
        output.say(words if done else f"{words} already")


async def _asked(app: App, ref: str, on: bool) -> tuple[str, bool]:
    """The call's id, and whether anything had to be done.

    :raises ConflictError: no conversation of it is being recorded
    :raises ServiceError: the server does not answer
    :raises NotFoundError, InputError: as ``get_call``
    :raises AmiError: Asterisk cannot be asked
    """
    from callrouter.doctor.asterisk import open_ami
    from callrouter.store.calls import get_call

    async with app.database() as database:
        async with database.session(read_only=True) as session:
            call = (await get_call(session, ref)).record
        if call.ended_at is not None:
            raise ConflictError(f"call {call.id} is over", hint="callrouter call list --disposition in-progress")
        before = await _log(database, call.id)
        if _is_paused(before) is on:
            return call.id, False
        async with open_ami(app.settings) as ami:
            await ami.ask_pause(call.id, on)
        so, until = False, time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < until:
            await asyncio.sleep(LOOK_SECONDS)
            later = (await _log(database, call.id))[len(before) :]
            if refusal := _refusal(later):
                raise ConflictError(f"call {call.id}: {refusal}", hint=f"callrouter call show {call.id}")
            # What Asterisk refuses is taken back at once: only what lasts counts.
            so, was = _is_paused([*before, *later]) is on, so
            if so and was:
                return call.id, True
    raise ServiceError(f"the server did not answer within {ANSWER_SECONDS:g} s", hint="callrouter status")


async def _log(database: Database, call_id: str) -> list[LogItem]:
    from callrouter.store.calls import call_log
    from callrouter.store.codec import items

    async with database.session(read_only=True) as session:
        return items(await call_log(session, call_id))


def _is_paused(log: list[LogItem]) -> bool:
    from callrouter.core import notes as note

    paused = False
    for item in log:
        if isinstance(item, note.RecordingPaused | note.RecordingResumed):
            paused = isinstance(item, note.RecordingPaused)
    return paused


def _refusal(log: list[LogItem]) -> str | None:
    from callrouter.core import notes as note
    from callrouter.core.pausing import REFUSED

    return next((item.why for item in log if isinstance(item, note.Decided) and item.what == REFUSED), None)
