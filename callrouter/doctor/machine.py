"""Checks of this machine: Python, directories, disk, clock, speech."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
import zoneinfo
from pathlib import Path

from callrouter.config import Settings
from callrouter.doctor.finding import Check, fail, ok, warn
from callrouter.errors import CallrouterError

MIN_PYTHON = (3, 11)
EARLIEST_CLOCK = 1_760_000_000.0
"""A clock before October 2025 was never set."""
HOME_FREE_MB = 500


def python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Check:
    shown = ".".join(map(str, version))
    if version[:2] < MIN_PYTHON:
        return fail("python", f"Python {shown} is too old", mend="install Python 3.11 or newer, then ./dev setup")
    return ok("python", f"Python {shown}")


def zone_data(now: float | None = None) -> Check:
    """The clock was set, and time zones are known."""
    at = time.time() if now is None else now
    if at < EARLIEST_CLOCK:
        date = time.strftime("%Y-%m-%d", time.gmtime(at))
        return fail("clock", f"the clock says {date}", cause="it was never set", mend="timedatectl set-ntp true")
    try:
        zoneinfo.ZoneInfo("America/New_York")
    except zoneinfo.ZoneInfoNotFoundError:
        return fail(
            "clock", "there are no time zones", cause="the zone data is not installed", mend="pip install tzdata"
        )
    return ok("clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at)))


def settings(file: Path | None) -> Check:
    """Where the settings come from; that they hold together is known."""
    if file is not None and file.exists():
        return ok("settings", f"read from {file}")
    return ok("settings", "all at their defaults, or from the environment")


def home(settings: Settings) -> Check:
    """Home exists and can be written."""
    directory = settings.home_dir
    if not directory.is_dir():
        return fail("home", f"{directory} does not exist", cause="not set up yet", mend="callrouter init")
    probe = directory / f".probe-{os.getpid()}"
    try:
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as exc:
        return fail(
            "home",
            f"{directory} cannot be written: {exc.strerror}",
            cause="another user owns it, or its disk is full or read-only",
            mend=f"chown -R {_user()} {directory}, or make room",
        )
    return ok("home", str(directory))


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def disk(settings: Settings) -> Check:
    """Room where the database and the journal grow."""
    try:
        free = shutil.disk_usage(_existing(settings.home_dir)).free // 1_000_000
    except OSError as exc:
        return fail("disk", f"{settings.home_dir}: {exc.strerror}")
    if free < HOME_FREE_MB // 10:
        return fail("disk", f"only {free} MB free for {settings.home_dir}", mend="make room: df -h, du -sh")
    if free < HOME_FREE_MB:
        return warn("disk", f"only {free} MB free for {settings.home_dir}", mend="make room: df -h, du -sh")
    return ok("disk", f"{free} MB free")


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def secrets(settings: Settings) -> Check:
    """Our passwords exist, nobody else can read them, and nobody can guess them."""
    from callrouter.asterisk.doors import refuse_weak
    from callrouter.asterisk.secrets import WEBHOOK_SECRET, read_secret

    directory = settings.secrets_dir
    missing = [name for name in ("ari-password", "ami-password") if not (directory / name).is_file()]
    if missing:
        return fail("secrets", f"{', '.join(missing)} missing in {directory}", mend="callrouter init")
    # The directory first: closed, it protects what is in it.
    for path, mode in ((directory, "700"), *((path, "600") for path in sorted(directory.iterdir()))):
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            return fail("secrets", f"{path} can be read by other users", mend=f"chmod {mode} {path}")
    for name in ("ari-password", "ami-password", WEBHOOK_SECRET):
        if name == WEBHOOK_SECRET and not (directory / name).exists():
            continue  # the server makes it
        try:
            refuse_weak(name, read_secret(directory, name).reveal(), directory / name)
        except CallrouterError as exc:
            return fail("secrets", exc.message, cause="it was set by hand", mend=exc.hint)
    return ok("secrets", f"{len(list(directory.iterdir()))} in {directory}, for this user only")


def doors(settings: Settings) -> Check:
    """Asterisk's control interfaces are for this machine alone, and its dialplan cannot run commands."""
    from callrouter.asterisk.doors import refuse_danger

    try:
        refuse_danger(settings)
    except CallrouterError as exc:
        return fail("doors", exc.message, mend=exc.hint)
    return ok("doors", f"ARI at {settings.ari_host} and AMI at {settings.ami_host}: this machine only")


def recordings(settings: Settings) -> Check:
    """Recordings can be made and kept."""
    from callrouter.media.store_health import check_store

    for path in (settings.recording_spool, settings.recordings):
        problem = check_store(path, settings.recording_min_free_mb)
        if problem is not None:
            mend = "callrouter init" if not path.exists() else "make room, or set recordings_dir to another disk"
            return fail("recordings", problem, cause="calls go on, but unrecorded", mend=mend)
    return ok("recordings", f"room in {settings.recordings}")


def speech(settings: Settings) -> Check:
    """Prompts given as text can be spoken."""
    from callrouter.errors import PromptError
    from callrouter.media.voices import speaker_of

    speaker = speaker_of(settings)
    try:
        for each in (speaker, *(speaker.in_language(language) for language in settings.piper_models)):
            each.speak("one")
    except PromptError as exc:
        return fail("speech", exc.message, cause="prompts given as text cannot be made", mend=exc.hint)
    return ok("speech", f"by {speaker.name}")


def server(settings: Settings, now: float | None = None) -> Check:
    """The server runs, and is well by its own account."""
    from callrouter.doctor.server import fresh_status

    found = fresh_status(settings, now)
    if found is None:
        return warn(
            "server",
            "callrouter is not running; calls are taken by the failsafe, if Asterisk runs",
            mend="callrouter up, or systemctl start callrouter",
        )
    wrong = [str(found.get(part, {}).get("problem")) for part in ("database", "recording_store", "journal")]
    wrong = [problem for problem in wrong if problem != "None"] + [str(each) for each in found.get("problems", [])]
    if wrong:
        return fail("server", "; ".join(wrong), mend="callrouter status")
    return ok("server", f"running (pid {found.get('pid')}), {found.get('calls', 0)} calls in progress")
