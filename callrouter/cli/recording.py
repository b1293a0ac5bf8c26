"""``callrouter recording``"""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """Recordings: list, show, play, export, verify."""


@recording.command("list", examples="callrouter recording list\ncallrouter recording list --status suspect")
@click.option("--call", metavar="ID", help="Only this call's.")
@click.option("--status", type=click.Choice(["pending", "ok", "suspect", "missing", "empty"]), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 100000), default=50, show_default=True)
@pass_app
def list_(app: App, call: str | None, status: str | None, limit: int) -> None:
    """List recordings, newest first."""
    from callrouter.cli.call import recording_json

    chosen = app.read(lambda session: _chosen(session, call, status, limit))
    if app.json:
        output.emit([recording_json(each) for each in chosen])
    elif not chosen:
        any_at_all = app.read(lambda session: _chosen(session, None, None, 1))
        output.say("No recordings like that." if any_at_all else "No recordings yet.")
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


async def _chosen(session: AsyncSession, call: str | None, status: str | None, limit: int) -> list[StoredRecording]:
    """Recordings, newest first, or those of a call."""
    from callrouter.core.records import RecordingStatus
    from callrouter.store.calls import get_call
    from callrouter.store.recordings import list_recordings

    if call is None:
        return await list_recordings(session, status=RecordingStatus(status) if status else None, limit=limit)
    of_call = (await get_call(session, call)).recordings
    return [each for each in of_call if status in (None, each.status)][:limit]


async def some(session: AsyncSession, refs: tuple[str, ...]) -> list[StoredRecording]:
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
    found = app.read(lambda session: some(session, (id,)))
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


@recording.command("show", examples="callrouter recording show 1c29a7d0\ncallrouter recording show 1c29a7d0 --json")
@click.argument("id")
@pass_app
def show(app: App, id: str) -> None:  # noqa: A002 - what the help calls it
    """Show a recording, given its ID or its call's: what is stored of it, and its manifest."""
    from callrouter.cli.call import recording_json
    from callrouter.media import manifest

    found = app.read(lambda session: some(session, (id,)))[0]
    data = None
    if found.path is not None and found.manifest_sha256 is not None:
        data = manifest.read(manifest.inside(app.settings.recordings, found.path), found.manifest_sha256)
    try:
        told = None if data is None else manifest.decode(data)
    except ValueError:
        told = None
    if app.json:
        output.emit({**recording_json(found), "manifest": told})
        return
    output.fields(_facts(app, found))
    if told is not None and data is not None:
        output.say("\nManifest", bold=True)
        output.fields(_manifest_fields(told))
        if manifest.digest(data) != found.manifest_sha256:
            output.warn("the manifest is not the one that was stored: callrouter recording verify")
    elif found.manifest_sha256 is not None:
        output.warn("its manifest is gone, or cannot be read: callrouter recording verify")


def _facts(app: App, found: StoredRecording) -> list[tuple[str, object]]:
    levels = [f"{level:.0f} dBFS" for level in (found.left_dbfs, found.right_dbfs) if level is not None]
    return [
        ("recording", found.id),
        ("call", found.call_id),
        ("kind", found.kind),
        ("status", found.status + (f": {found.problem}" if found.problem else "")),
        ("file", app.settings.recordings / found.path if found.path else None),
        ("length", f"{found.seconds:.1f} s" if found.seconds else None),
        ("level", ", ".join(levels) or None),
        ("manifest", f"link {found.chain_seq}, {found.manifest_sha256}" if found.chain_seq else "none yet"),
    ]


def _consent(told: dict[str, Any]) -> str:
    return f"{told['response']} ({told['mode']} at {told['node']}, {told['at']}), script {told['script']}"


def _manifest_fields(told: dict[str, Any]) -> list[tuple[str, object]]:
    audio = told["audio"]
    gaps = [
        f"{gap['channel']}: {gap['seconds']:.1f} s"
        + ("" if gap["start"] is None else f" from {gap['start']:.1f} s")
        + f" ({gap['why']})"
        for gap in told["gaps"]
    ]
    return [
        ("link", told["seq"]),
        ("after", told["previous_sha256"]),
        ("began", told["started_at"]),
        ("ended", told["ended_at"]),
        ("audio", f"{audio['path']}, {output.size(audio['size_bytes'])}, {audio['seconds']:.1f} s, {audio['format']}"),
        ("sampled", f"{audio['sample_rate']} Hz, {audio['channels']} channel" + "s" * (audio["channels"] != 1)),
        ("SHA-256", audio["sha256"]),
        ("channels", ", ".join(f"{place}: {who}" for place, who in told["channel_map"].items())),
        ("gaps", "; ".join(gaps) or "none"),
        ("pauses", "; ".join(f"{p['seconds']} s from {p['start']} s, by {p['by']}" for p in told["pauses"]) or "none"),
        ("consent", _consent(told["consent"]) if told["consent"] else "nobody asked"),
        ("flow", told["flow"] or "none"),
        ("recorded", told["policy"]),
        ("problems", "; ".join(told["problems"]) or None),
        ("made by", told["tool"]),
    ]


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
    """Copy recordings out, by their IDs or their calls', or by company and time. Names carry no telephone number.

    The manifest goes with each, as .json; its SHA-256 is that of the file kept here, so of an exact copy only
    (--format flac or opus, as it is kept).
    """
    from callrouter.cli.call import wanted
    from callrouter.media.archive import export as copy
    from callrouter.store.calls import list_calls

    if bool(ids) == bool(company or since or until):
        raise InputError("which recordings?", hint="give their ids, or --company, --since, --until")
    blank = {"campaign": None, "number": None, "caller": None, "disposition": None, "test": None, "failsafe": False}
    chosen = wanted(app, {**blank, "company": company, "since": since, "until": until})

    async def work(session: AsyncSession) -> list[StoredRecording]:
        if ids:
            return await some(session, ids)
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


@recording.command(
    "verify",
    examples="""
callrouter recording verify
callrouter recording verify --since 7d
callrouter recording verify 1c29a7d0
callrouter recording verify --noted 1234:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
""",
)
@click.argument("ids", nargs=-1)
@click.option("--since", metavar="WHEN", help="Only what began since: 2026-11-21, or ago: 24h, 7d.")
@click.option("--noted", metavar="LINK:SHA256", help="A link as verify printed it once: it must still be there.")
@click.pass_context
@pass_app
def verify(app: App, ctx: click.Context, ids: tuple[str, ...], since: str | None, noted: str | None) -> None:
    """Read recordings and manifests, and compare them with the database and with each other: all, or those given.

    Finds what was changed, is missing, is extra, breaks the chain of manifests, or stands otherwise in the database.
    Exit 1 when something is found.
    """
    from callrouter.cli.call import moment
    from callrouter.cli.recording_verify import verify_recordings

    if ids and (since or noted):
        raise InputError("IDs or --since or --noted, not both")
    start = moment(since, UTC) if since else None
    if not verify_recordings(app, ids, start, noted):
        ctx.exit(1)
