"""``callrouter backup``"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.errors import ArchiveError, InputError

if TYPE_CHECKING:
    from callrouter.backup.archive import Manifest, Progress
    from callrouter.backup.keys import Head, Lock

SECONDS = 0.2
"""Between two words about progress."""

FILE = click.Path(dir_okay=False, path_type=Path)


def lock_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--key-file and --passphrase-file."""
    function = click.option(
        "--passphrase-file", type=FILE, metavar="FILE", help="Passphrase instead of a key: its first line."
    )(function)
    return click.option("--key-file", type=FILE, metavar="FILE", help="Key [default: secrets/backup-key in home].")(
        function
    )


@click.group(cls=Group)
def backup() -> None:
    """Backups: all that cannot be made again, in one encrypted file."""


@backup.command(
    "create",
    examples="""
callrouter backup create
callrouter backup create /mnt/backup --recordings
callrouter backup create /mnt/backup/monday.backup --passphrase-file /etc/callrouter/passphrase
""",
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--recordings", is_flag=True, help="Recordings too, finished and unfinished.")
@lock_options
@pass_app
def create(app: App, file: Path | None, recordings: bool, key_file: Path | None, passphrase_file: Path | None) -> None:
    """Write a backup to FILE, or into a directory, while calls run. Nothing is overwritten.

    In it: database, journal, settings, secrets, uploaded prompts, failsafe file, routing snapshot, Asterisk's own
    record of calls.
    """
    from datetime import UTC, datetime

    from callrouter.backup.create import create as write
    from callrouter.backup.create import default_name
    from callrouter.cli.config import settings_file

    target = file or Path()
    if target.is_dir():
        target = target / default_name(datetime.now(UTC))
    target = target.absolute()
    own = _default_key(app)
    if key_file is None and passphrase_file is None and not own.exists():
        from callrouter.backup.keys import make_key_file

        key = make_key_file(own)
        output.warn(f"made key {key.id} in {own}. Keep a copy elsewhere: without it no backup can be opened.")
    lock = _lock(app, key_file, passphrase_file)
    with _progress(app) as progress:
        made = write(app.settings, settings_file(app), target, lock, recordings=recordings, progress=progress)
    size = target.stat().st_size
    if app.json:
        output.emit({"file": target, "bytes": size, "key": lock.id or None, **_manifest_json(made)})
    else:
        output.say(f"{target} ({output.size(size)}, {_locked(lock.id)})")
        if not recordings:
            output.say("without recordings; --recordings takes them too")


@backup.command("verify", examples="callrouter backup verify monday.backup --key-file /media/stick/backup-key")
@click.argument("file", type=FILE)
@lock_options
@pass_app
def verify(app: App, file: Path, key_file: Path | None, passphrase_file: Path | None) -> None:
    """Read all of a backup and check every byte of it. Exit 1 when it is damaged or cut off."""
    from callrouter.backup.archive import ArchiveReader, open_archive

    with open_archive(file) as opened, _named(file), _progress(app) as progress:
        reader = ArchiveReader(opened, _lock_of(app, file, key_file, passphrase_file))
        reader.verify(progress)
    manifest = reader.manifest
    if app.json:
        output.emit({"file": file, "ok": True, **_manifest_json(manifest)})
    else:
        output.say(f"{file} is whole: {len(manifest.members)} files, {output.size(manifest.size)}")


@backup.command("show", examples="callrouter backup show monday.backup\ncallrouter backup show monday.backup --json")
@click.argument("file", type=FILE)
@lock_options
@pass_app
def show(app: App, file: Path, key_file: Path | None, passphrase_file: Path | None) -> None:
    """List what a backup holds. Quick: only its end is read."""
    import msgspec

    from callrouter.backup.archive import ArchiveReader, open_archive

    with open_archive(file) as opened, _named(file):
        reader = ArchiveReader(opened, _lock_of(app, file, key_file, passphrase_file))
    manifest, head = reader.manifest, reader.head
    if app.json:
        members = msgspec.to_builtins(manifest.members)
        output.emit({"file": file, "key": head.key_id or None, **_manifest_json(manifest), "members": members})
        return
    output.fields(
        [
            ("made", f"{manifest.created_at} by callrouter {manifest.callrouter}"),
            ("locked", _locked(head.key_id)),
            ("database", f"{manifest.database}, schema {manifest.revision}"),
            ("recordings", output.yes_no(manifest.recordings)),
            ("size", output.size(manifest.size)),
        ]
    )
    output.say()
    output.table(
        ("file", "size", "sha256"),
        [(one.name, output.size(one.size), one.sha256[:16]) for one in manifest.members],
        right=("size",),
    )


@backup.command(
    "restore",
    examples="""
callrouter backup restore monday.backup --home /var/lib/callrouter --key-file /media/stick/backup-key
callrouter backup restore monday.backup --force
""",
)
@click.argument("file", type=FILE)
@click.option("--force", is_flag=True, help="Set aside what is in home and database.")
@lock_options
@pass_app
def restore(app: App, file: Path, force: bool, key_file: Path | None, passphrase_file: Path | None) -> None:
    """Restore a backup into home (--home), and bring its database up to date.

    All of it is unpacked and checked first: a backup that is damaged, or a full disk, changes nothing. The server and
    the worker must not run. With --force what is there is kept, in a directory before-restore-… (in PostgreSQL in a
    schema before_restore_…).
    """
    from callrouter.backup.contents import DEFAULT_KEY
    from callrouter.backup.restore import restore as put_back

    home = Path(app.home or os.environ.get("CALLROUTER_HOME") or "var").expanduser().absolute()
    config = app.config or (Path(found) if (found := os.environ.get("CALLROUTER_CONFIG")) else None)
    lock = _lock_of(app, file, key_file, passphrase_file, default=home / "secrets" / DEFAULT_KEY)
    with _named(file), _progress(app) as progress:
        done = put_back(file, lock, home, config=config, force=force, progress=progress)
    following = ["callrouter asterisk render", "callrouter doctor", "callrouter up"]
    if done.manifest.recordings:
        following.insert(1, "callrouter recording verify")
    if app.json:
        output.emit(
            {
                "home": home,
                "revision": done.revision,
                "aside": done.aside,
                "kept": done.kept,
                **_manifest_json(done.manifest),
                "next": following,
            }
        )
        return
    output.say(f"{home}: as of {done.manifest.created_at}, {len(done.manifest.members)} files")
    if done.revision != done.manifest.revision:
        output.say(f"database: schema {done.manifest.revision} → {done.revision}")
    for place in done.aside:
        output.say(f"what was there before: {place}")
    for path in done.kept:
        output.warn(f"{path} was there already and is not as in the backup; it was left alone")
    if not done.manifest.recordings:
        output.say("without recordings: the backup has none")
    output.say("\nNext:\n" + "\n".join(f"  {each}" for each in following))


@backup.command("key", examples="callrouter backup key\ncallrouter backup key /media/stick/backup-key")
@click.argument("file", required=False, type=FILE)
@pass_app
def key(app: App, file: Path | None) -> None:
    """Make a key that backups are locked with, or say which one FILE holds."""
    from callrouter.backup.keys import make_key_file, read_key_file

    path = (file or _default_key(app)).absolute()
    made = not path.exists()
    found = make_key_file(path) if made else read_key_file(path)
    if app.json:
        output.emit({"file": path, "key": found.id, "made": made})
    else:
        output.say(f"{path}: key {found.id}{', made' if made else ''}")
        output.say("Keep a copy elsewhere: without it no backup that it locked can be opened.")


# -- keys --------------------------------------------------------------------------------------------------------------


def _default_key(app: App) -> Path:
    from callrouter.backup.contents import DEFAULT_KEY

    return app.settings.secrets_dir / DEFAULT_KEY


def _lock(app: App, key_file: Path | None, passphrase_file: Path | None, default: Path | None = None) -> Lock:
    from callrouter.backup.keys import read_key_file, read_passphrase_file

    if key_file and passphrase_file:
        raise click.UsageError("Give --key-file or --passphrase-file, not both.")
    if passphrase_file:
        return read_passphrase_file(passphrase_file)
    return read_key_file(key_file or default or _default_key(app))


def _lock_of(
    app: App, file: Path, key_file: Path | None, passphrase_file: Path | None, default: Path | None = None
) -> Lock:
    """What was given to open a backup; when nothing was, what its head says is wanted."""
    with _named(file):
        head = _head(file)
    if not key_file and not passphrase_file and head.lock == "passphrase":
        raise InputError(f"{file} is locked with a passphrase", hint="give --passphrase-file")
    return _lock(app, key_file, passphrase_file, default)


def _head(file: Path) -> Head:
    from callrouter.backup.archive import peek

    return peek(file)


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Faults of a backup say which."""
    try:
        yield
    except ArchiveError as exc:
        raise ArchiveError(f"{file}: {exc.message}", hint=exc.hint) from exc
    except InputError as exc:
        if str(file) in exc.message:
            raise
        raise InputError(f"{file}: {exc.message}", hint=exc.hint) from exc


# -- showing -----------------------------------------------------------------------------------------------------------


def _manifest_json(manifest: Manifest) -> dict[str, Any]:
    return {
        "created_at": manifest.created_at,
        "callrouter": manifest.callrouter,
        "database": manifest.database,
        "schema": manifest.revision,
        "recordings": manifest.recordings,
        "files": len(manifest.members),
        "content_bytes": manifest.size,
    }


def _locked(key_id: str) -> str:
    return f"locked with key {key_id}" if key_id else "locked with a passphrase"


@contextmanager
def _progress(app: App) -> Iterator[Progress]:
    """A line on the terminal that says how far it is."""
    shown = not app.json and sys.stderr.isatty()
    last = 0.0

    def progress(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if shown and now - last >= SECONDS:
            last = now
            part = f"{100 * done // total} % of {output.size(total)}" if total else output.size(done) if done else ""
            click.echo(f"\r\x1b[K{what} {part}", err=True, nl=False)

    try:
        yield progress
    finally:
        if shown:
            click.echo("\r\x1b[K", err=True, nl=False)
