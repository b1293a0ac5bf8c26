"""``callrouter recording verify``: prints what is wrong while it looks."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from callrouter.cli import interrupt, output
from callrouter.cli.context import App
from callrouter.errors import InputError

if TYPE_CHECKING:
    from callrouter.jobs.verify_recordings import Progress
    from callrouter.media.manifest import Link
    from callrouter.media.verification import Finding

MOST = 1000
"""So many findings are told with all their words; the others are counted."""
PROGRESS_SECONDS = 1.0


def verify_recordings(app: App, ids: tuple[str, ...], since: datetime | None, noted: str | None) -> bool:
    """Look at recordings and say what is wrong.

    :param ids: only these recordings or calls; none: all
    :returns: whether all is well
    """
    from callrouter.jobs.verify_recordings import Progress

    told: list[Finding] = []
    counts: dict[str, int] = {}
    progress, link = Progress(), _link(noted)
    shown = _Shown()

    async def run() -> None:
        async for finding in _findings(app, ids, since, link, progress, lambda: shown.update(progress)):
            counts[finding.fault] = counts.get(finding.fault, 0) + 1
            shown.clear()
            if len(told) < MOST:
                told.append(finding)
                if not app.json:
                    output.say(f"{finding.fault}: {output.safe(finding.where)}: {output.safe(finding.what)}", fg="red")
        shown.clear()

    interrupt.run(run)
    if app.json:
        output.emit(_as_json(told, counts, progress))
    else:
        _summary(app, told, counts, progress)
    return not counts


async def _findings(
    app: App,
    ids: tuple[str, ...],
    since: datetime | None,
    noted: Link | None,
    progress: Progress,
    tell: Callable[[], None],
) -> AsyncIterator[Finding]:
    from callrouter.cli.recording import some
    from callrouter.jobs.verify_recordings import check_some, verify_all

    async with app.database() as database:
        if ids:
            async with database.session(read_only=True) as session:
                rows = await some(session, ids)
            for finding in check_some(app.settings.recordings, rows):
                yield finding
            progress.checked = sum(row.path is not None for row in rows)
            return
        spool = app.settings.recording_spool if since is None else None
        async for finding in verify_all(database, app.settings.recordings, progress, since, noted, tell, spool):
            yield finding


def _link(noted: str | None) -> Link | None:
    from callrouter.media.manifest import Link

    if noted is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,8}):([0-9a-f]{64})", noted.strip().lower())
    if found is None:
        raise InputError(f"{noted!r} is no link", hint="as verify prints it: 1234:9f86d081…, number and SHA-256")
    return Link(int(found[1]), found[2])


def _as_json(told: list[Finding], counts: dict[str, int], progress: Progress) -> dict[str, Any]:
    from callrouter.media.verification import Fault

    head = progress.head
    return {
        "clean": not counts,
        "checked": progress.checked,
        "without_manifest": progress.unlinked,
        "files": progress.files,
        "head": {"seq": head.seq, "sha256": head.sha256} if head else None,
        **{str(fault): [finding.where for finding in told if finding.fault is fault] for fault in Fault},
        "found": counts,
        "findings": told,
    }


def _summary(app: App, told: list[Finding], counts: dict[str, int], progress: Progress) -> None:
    total = sum(counts.values())
    if total > len(told):
        output.say(f"… and {total - len(told)} more")
    if progress.unlinked:
        output.say(f"{progress.unlinked} from before there were manifests; callrouter worker makes theirs")
    for do in dict.fromkeys(finding.do for finding in told):
        where = [finding.where for finding in told if finding.do == do]
        output.say(f"to do: {do} ({output.safe(', '.join(where[:3]))}{' …' if len(where) > 3 else ''})")
    found = ", ".join(f"{count} {fault}" for fault, count in counts.items()) or "all as stored"
    output.say(f"{progress.checked} recordings looked at in {app.settings.recordings}: {found}")
    if progress.head is not None:
        output.say(f"newest link: {progress.head.seq}:{progress.head.sha256}")


class _Shown:
    """How far it is, on a terminal, in a line that is written over."""

    def __init__(self) -> None:
        self._wide = 0
        self._at = time.monotonic()
        self._on = sys.stderr.isatty()

    def update(self, progress: Progress) -> None:
        if not self._on or time.monotonic() - self._at < PROGRESS_SECONDS:
            return
        self._at = time.monotonic()
        text = f"{progress.checked} of {progress.of} recordings, {progress.files} files"
        self._wide = len(text)
        print(f"\r{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._wide:
            print(f"\r{' ' * self._wide}\r", end="", file=sys.stderr, flush=True)
            self._wide = 0
