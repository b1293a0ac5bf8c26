"""The exception family.

CallrouterError                     anything we raise on purpose; carries a hint and an exit code
├── InputError                (2)   what a person gave us is wrong: a number, a flow, an option
│   ├── FlowError             (2)   a flow's text does not hold together; points at line and column
│   └── PromptError           (2)   a prompt that is no audio, or text that cannot be spoken
├── NotFoundError             (1)   no such company, number, call …
├── ConflictError             (4)   taken already, still in use, changed meanwhile
├── ArchiveError              (1)   a backup is damaged, cut off, or of another format
├── ConfigError               (2)   settings or rendered configuration are wrong
└── ServiceError              (3)   something we need does not answer
    ├── AsteriskError         (3)   Asterisk is absent, too old, refuses us
    │   ├── AriError          (3)   a REST request failed; carries the HTTP status
    │   └── AmiError          (3)   the manager interface refused or timed out
    ├── DatabaseError         (3)   the database is absent, locked, full
    │   └── SchemaError       (3)   it answers, and is of another version
    └── NotYetError           (3)   too early: what is waited for is still being made

The number is the process exit code the CLI ends with.
"""

from __future__ import annotations


class CallrouterError(Exception):
    """Base of all errors raised on purpose.

    :param message: what is wrong, and where
    :param hint: what to do about it, often a command to run
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(CallrouterError):
    """What a person gave us is wrong."""

    exit_code = 2


class FlowError(InputError):
    """A flow does not hold together.

    :param line: 1-based line in the flow's text, when known
    :param column: 1-based column, when known
    """

    def __init__(
        self, message: str, *, line: int | None = None, column: int | None = None, hint: str | None = None
    ) -> None:
        where = f"line {line}, column {column}: " if line is not None else ""
        super().__init__(f"{where}{message}", hint=hint)
        self.line = line
        self.column = column


class PromptError(InputError):
    """A prompt file is no audio, or a text cannot be spoken."""


class NotFoundError(CallrouterError):
    """No such thing."""

    exit_code = 1


class ConflictError(CallrouterError):
    """Taken already, still in use, or changed by somebody else meanwhile."""

    exit_code = 4


class ArchiveError(CallrouterError):
    """A backup cannot be used: it is damaged, cut off, or of a format or schema this program does not know."""

    exit_code = 1


class ConfigError(CallrouterError):
    """Settings, or configuration rendered from them, are wrong."""

    exit_code = 2


class ServiceError(CallrouterError):
    """Something we depend on does not answer."""

    exit_code = 3


class AsteriskError(ServiceError):
    """Asterisk is absent, too old, or refuses us."""


class AriError(AsteriskError):
    """A REST request to Asterisk failed.

    :param status: the HTTP status code; 0 when no answer came
    """

    def __init__(self, message: str, *, status: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status

    @property
    def gone(self) -> bool:
        """True when the channel (or other object) no longer exists: an everyday outcome, not a fault."""
        return self.status in (404, 409, 410)


class AmiError(AsteriskError):
    """The manager interface refused an action or did not answer in time."""


class DatabaseError(ServiceError):
    """The database is absent, does not answer, is locked, full, damaged."""


class SchemaError(DatabaseError):
    """The database answers, but is not set up, half-migrated, or of an older or newer version."""


class NotYetError(ServiceError):
    """Too early: what is waited for is still being made. Try again a little later."""
