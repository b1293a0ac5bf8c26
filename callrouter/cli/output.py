"""Printing: tables, fields and JSON. Whatever callers or providers sent is shown without its control characters."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from callrouter.cli.context import App

WIDTH = 100
"""Columns of a table that is not on a terminal."""
_HIDDEN = re.compile(r"[^\x20-\x7e]")


def safe(text: object, *, lines: bool = False) -> str:
    """Text that does nothing to a terminal: unprintable characters (and what turns the line round) are escaped.

    :param lines: keep line breaks
    """

    def shown(match: re.Match[str]) -> str:
        char = match[0]
        if char.isprintable() or (lines and char == "\n"):
            return char
        return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"

    return _HIDDEN.sub(shown, str(text))


def coloured(err: bool = False) -> bool:
    """Colour only on a terminal, and not when NO_COLOR (https://no-color.org) is set."""
    return (sys.stderr if err else sys.stdout).isatty() and not os.environ.get("NO_COLOR")


def say(text: str = "", *, err: bool = False, **style: Any) -> None:
    """A line for people."""
    click.echo(click.style(text, **style) if style and coloured(err) else text, err=err)


def warn(text: str) -> None:
    say(f"warning: {text}", err=True, fg="yellow")


# -- JSON --------------------------------------------------------------------------------------------------------------


def iso(at: float | datetime | None, zone: Any = UTC) -> str | None:
    """ISO 8601 with offset: ``2026-11-21T18:05:00.250+00:00``.

    :param at: seconds since the epoch, or an aware datetime
    """
    if at is None:
        return None
    moment = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    return moment.astimezone(zone).isoformat(timespec="milliseconds")


def plain(value: Any) -> Any:
    """Dataclasses, enums, datetimes and paths as what JSON knows."""
    import dataclasses
    import enum
    import pathlib

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    match value:
        case enum.Enum():
            return value.value
        case datetime():
            return iso(value)
        case pathlib.PurePath():
            return str(value)
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
    return value


def dump(value: Any, *, indent: int | None = 2) -> str:
    """JSON, with escapes for what a terminal must not get to see."""
    text = json.dumps(plain(value), indent=indent, ensure_ascii=False)
    return _HIDDEN.sub(lambda m: m[0] if m[0].isprintable() or m[0] == "\n" else json.dumps(m[0])[1:-1], text)


def emit(value: Any, *, indent: int | None = 2) -> None:
    click.echo(dump(value, indent=indent))


# -- tables ------------------------------------------------------------------------------------------------------------


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """A table that fits the terminal, 100 columns elsewhere. None is shown as an empty cell.

    :param right: names of columns of figures
    :param whole: names of columns whose cells are never broken: telephone numbers, words to search for
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    gap = 1 if len(columns) > 8 else 2
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    for column in columns:
        drawn.add_column(
            column.upper(),
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column in whole,
        )
    for row in rows:
        drawn.add_row(*(Text("" if cell is None else safe(cell)) for cell in row))
    on_terminal = sys.stdout.isatty()
    console = Console(
        file=sys.stdout,
        width=None if on_terminal else WIDTH,
        no_color=not coloured(),
        force_terminal=None if on_terminal else False,
        highlight=False,
        soft_wrap=False,
    )
    with console.capture() as captured:
        console.print(drawn)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """``name: value`` lines, values in one column; None is left out."""
    shown = [(name, value) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        first, *more = _wrapped(safe(value), _width() - width - 3)
        say(f"{name + ':':<{width + 1}}  {first}")
        for line in more:
            say(" " * (width + 3) + line)


def paragraph(text: str) -> None:
    """Text broken into lines that fit."""
    for line in _wrapped(safe(text), _width()):
        say(line)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False) or [""]


def _width() -> int:
    return shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH


def yes_no(value: bool) -> str:
    return "yes" if value else "no"


def seconds(value: float | None) -> str:
    """``75`` → ``1:15``; empty for nothing."""
    if not value:
        return ""
    whole = round(value)
    return f"{whole // 60}:{whole % 60:02d}"


def size(count: int | None) -> str:
    """Bytes for people: ``1.2 MB``."""
    if count is None:
        return ""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


# -- changes -----------------------------------------------------------------------------------------------------------


def changed(app: App, what: str, value: Any) -> None:
    """Say what was changed, and when it counts; as JSON the thing as it is now."""
    if app.json:
        emit(value)
    else:
        say(f"{safe(what)}: {app.when()}")


def removed(app: App, what: str) -> None:
    """Say what was removed."""
    if app.json:
        emit({"removed": what})
    else:
        say(f"{safe(what)} removed: {app.when()}")
