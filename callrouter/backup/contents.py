"""What belongs into a backup, and where it lies. The names of members are fixed; the places depend on the settings."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from callrouter.config import Settings
from callrouter.store.snapshot_file import SNAPSHOT_FILE

SETTINGS = "settings/callrouter.toml"
DATABASE_PREFIX = "database/"
DATABASE = {"sqlite": "database/callrouter.db", "postgresql": "database/postgresql.dump"}
JOURNAL = "journal/"
SECRETS = "secrets/"
RECORDINGS = "recordings/"
DEFAULT_KEY = "backup-key"
"""In the secrets directory."""
MANIFEST_PART = ".json.part"
"""A recording's manifest that the database may know already."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory some of whose files are members."""

    prefix: str
    """Of the members' names; ends in "/"."""
    directory: Path
    patterns: tuple[str, ...] = ("*",)
    pack: bool = True
    """Whether its files get smaller by compression."""
    lines: bool = False
    """Whether somebody appends lines to its files: only whole ones are taken."""
    kept: bool = False
    """Whether a file that is there stays: it is newer, or never changes. What is not kept is replaced as a whole."""

    def files(self) -> Iterator[tuple[str, Path, int]]:
        """(member's name, path, size), in order; hidden files are somebody's work in progress."""
        for path in sorted(path for pattern in self.patterns for path in self.directory.glob(pattern)):
            inside = path.relative_to(self.directory)
            if any(part.startswith(".") for part in inside.parts) and not path.name.endswith(MANIFEST_PART):
                continue
            with suppress(FileNotFoundError):
                facts = path.lstat()
                if stat.S_ISREG(facts.st_mode):
                    yield self.prefix + inside.as_posix(), path, facts.st_size


def moving(settings: Settings, database: Path | None) -> list[Tree]:
    """What is taken in a way of its own because it changes meanwhile, and the settings.

    :param database: the SQLite file
    """
    found = [
        Tree("settings/", settings.home_dir, ("callrouter.toml",)),
        Tree(JOURNAL, settings.journal_dir, ("id", "*.jsonl")),
    ]
    if database is not None:
        beside = tuple(database.name + end for end in ("", "-wal", "-shm", "-journal"))
        found.append(Tree(DATABASE_PREFIX, database.parent, beside))
    return found


def small(settings: Settings) -> list[Tree]:
    """Small things that are always in a backup."""
    events = settings.channel_events_path
    return [
        Tree(SECRETS, settings.secrets_dir, ("**/*",)),
        Tree("tls/", settings.home_dir / "tls", ("**/*",)),
        Tree("prompts/originals/", settings.prompts_dir / "originals", ("**/*",), pack=False),
        Tree("failsafe/", settings.failsafe_dir, ("*.conf",)),
        Tree("routing/", settings.home_dir, (SNAPSHOT_FILE,)),
        # Behind the database: a call that ended after its moment is then closed from here, not given up.
        Tree("ledger/cdr/", settings.ledger_path.parent, (f"{settings.ledger_path.name}*",), lines=True, kept=True),
        Tree("ledger/cel/", events.parent, (f"{events.name}*",), lines=True, kept=True),
    ]


def sound(settings: Settings) -> list[Tree]:
    """Raw recordings, then finished ones with what lies beside them: what is finished in between is in both, and never
    in none."""
    return [
        Tree("spool/", settings.recording_spool, ("**/*",), kept=True),
        Tree(RECORDINGS, settings.recordings, ("**/*",), pack=False, kept=True),
    ]
