"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    WARN = "warn"
    """Calls work, but something is not as it should be."""
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what was found."""

    name: str
    state: State
    detail: str
    cause: str | None = None
    """The likely cause."""
    mend: str | None = None
    """The command that mends it, or what to do."""


def ok(name: str, detail: str) -> Check:
    return Check(name, State.OK, detail)


def warn(name: str, detail: str, *, cause: str | None = None, mend: str | None = None) -> Check:
    return Check(name, State.WARN, detail, cause, mend)


def fail(name: str, detail: str, *, cause: str | None = None, mend: str | None = None) -> Check:
    return Check(name, State.FAIL, detail, cause, mend)
