"""``callrouter recording``"""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.errors import InputError, NotFoundError, ServiceError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.store.recordings import StoredRecording

PLAYERS = (
    ("ffplay", ("-nodisp", "-autoexit", "-loglevel", "error"), (".flac", ".opus")),
    ("play", ("-q",), (".flac", ".opus")),
    ("mpv", ("--no-video", "--really-quiet"), (".flac", ".opus")),
    ("vlc", ("--intf", "dummy", "--play-and-exit"), (".flac", ".opus")),
    ("aplay", ("-q",), (".wav",)),
)
"""Program, its options, and what it can play; the first one found is taken."""


@click.group(cls=Group)
def recording() -> None:
    """Recordings: list, play, export, verify."""


@recording.command("list", examples="callrouter recording list\ncallrouter recording list --status suspect")
@click.option("--call", metavar="ID", help="Only this call's.")
@click.option("--status", type=click.Choice(["pending", "ok", "suspect", "missing"]), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 100000), default=50, show_default=True)
@pass_app
def list_(app: App, call: str | None, status: str | None, limit: int) -> None:
    """List recordings, newest first."""
    from callrouter.cli.call import recording_json

    found = app.read(lambda session: _chosen(session, call))
    chosen = [each for each in found if status in (None, each.status)][:limit]
    if app.json:
        output.emit([recording_json(each) for each in chosen])
    elif not chosen:
        output.say("No recordings yet." if not found else "No recordings like that.")
    else:
        output.table(
            ("id", "call", "began (UTC)", "kind", "length", "size", "status", "problem"),
            [
                (
                    each.id[-8:],
                    each.call_id[-8:],
                    datetime.fromtimestamp(each.started_at, UTC).strftime("%Y-%m-%d %H:%M"),
                    each.kind,
                    output.seconds(each.seconds),
                    output.size(each.size_bytes),
                    each.status,
                    each.problem,
                )
                for each in chosen
            ],
            right=("length", "size"),
        )


async def _chosen(session: AsyncSession, call: str | None) -> list[StoredRecording]:
    """All recordings, newest first, or those of a call."""
    from callrouter.store.calls import get_call
    from callrouter.store.recordings import list_recordings

    if call is not None:
        return list((await get_call(session, call)).recordings)
    return await list_recordings(session, limit=None)


async def _some(session: AsyncSession, refs: tuple[str, ...]) -> list[StoredRecording]:
    """Recordings by their ids, or by their calls' ids."""
    from callrouter.store.calls import get_call
    from callrouter.store.recordings import get_recording

    found: list[StoredRecording] = []
    for ref in refs:
        try:
            found.append(await get_recording(session, ref))
        except NotFoundError:
            of_call = (await get_call(session, ref)).recordings
            if not of_call:
                raise NotFoundError(f"call {ref} has no recording", hint=f"callrouter call show {ref}") from None
            found += of_call
    return found


@recording.command("play", examples="callrouter recording play 1c29a7d0")
@click.argument("id")
@pass_app
def play(app: App, id: str) -> None:  # noqa: A002 - what the help calls it
    """Play a recording, given its ID or its call's, with a player that is installed."""
    found = app.read(lambda session: _some(session, (id,)))
    path = _file(app, found[0])
    program = next(
        ((where, options) for name, options, can in PLAYERS if path.suffix in can and (where := shutil.which(name))),
        None,
    )
    if app.json:
        output.emit({"file": path, "player": program[0] if program else None})
        return
    if program is None:
        output.say(str(path))
        output.say("hint: install ffmpeg or sox to hear it here (apt-get install sox)", err=True)
        return
    output.say(f"{path} (left: caller, right: business)" if found[0].kind == "conversation" else str(path), err=True)
    done = subprocess.run([program[0], *program[1], str(path)], check=False)
    if done.returncode:
        raise ServiceError(f"{program[0]} could not play {path} (exit {done.returncode})")


def _file(app: App, found: StoredRecording) -> Path:
    if found.path is None:
        raise NotFoundError(
            f"recording {found.id} has no file: {found.problem or f'it is {found.status}'}",
            hint="callrouter worker finishes what is pending",
        )
    path = app.settings.recordings / found.path
    if not path.is_file():
        raise NotFoundError(f"{path} is gone", hint="callrouter recording verify looks at all of them")
    return path


@recording.command(
    "export",
    examples="""
callrouter recording export 1c29a7d0 --to /tmp/for-the-lawyer --format wav
callrouter recording export --company acme --since 2026-11-01 --to ./november --format mp3
""",
)
@click.argument("ids", nargs=-1)
@click.option("--to", "target", type=click.Path(file_okay=False, path_type=Path), required=True, help="Directory.")
@click.option("--format", "style", type=click.Choice(["wav", "flac", "opus", "mp3"]), default="wav", show_default=True)
@click.option("--company", metavar="NAME", help="All of this company's calls.")
@click.option("--since", metavar="WHEN", help="All of calls since: 2026-11-21, or ago: 24h, 7d.")
@click.option("--until", metavar="WHEN", help="All of calls before.")
@pass_app
def export(
    app: App,
    ids: tuple[str, ...],
    target: Path,
    style: str,
    company: str | None,
    since: str | None,
    until: str | None,
) -> None:
    """Copy recordings out, by their IDs or their calls', or by company and time. Names carry no telephone number."""
    from callrouter.cli.call import wanted
    from callrouter.media.archive import export as copy
    from callrouter.store.calls import list_calls

    if bool(ids) == bool(company or since or until):
        raise InputError("which recordings?", hint="give their ids, or --company, --since, --until")
    blank = {"campaign": None, "number": None, "caller": None, "disposition": None, "test": None, "failsafe": False}
    chosen = wanted(app, {**blank, "company": company, "since": since, "until": until})

    async def work(session: AsyncSession) -> list[StoredRecording]:
        if ids:
            return await _some(session, ids)
        rows = await list_calls(session, chosen, 1_000_000)
        return [each for row in rows for each in row.recordings if each.path is not None]

    written = copy(app.settings.recordings, app.read(work), target, style)
    if app.json:
        output.emit([str(path) for path in written])
    elif not written:
        output.say("No recordings like that.")
    else:
        for path in written:
            output.say(str(path))


@recording.command("verify", examples="callrouter recording verify\ncallrouter recording verify 1c29a7d0")
@click.argument("ids", nargs=-1)
@click.pass_context
@pass_app
def verify(app: App, ctx: click.Context, ids: tuple[str, ...]) -> None:
    """Read finished recordings and compare them with what was stored: all, or those given. Exit 1 when one differs."""
    from callrouter.media.archive import verify as compare

    rows = app.read(lambda session: _some(session, ids) if ids else _chosen(session, None))
    report = compare(app.settings.recordings, rows, find_extra=not ids)
    if app.json:
        output.emit({**output.plain(report), "clean": report.clean})
    else:
        output.say(f"{report.ok} as stored, in {app.settings.recordings}")
        for word, paths in (("changed", report.changed), ("missing", report.missing), ("extra", report.extra)):
            for path in paths:
                output.say(f"{word}: {output.safe(path)}", fg="red")
    if not report.clean:
        ctx.exit(1)
