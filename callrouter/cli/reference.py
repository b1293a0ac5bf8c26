"""The reference pages of the command line and of the settings, made from the commands and settings themselves.

``python -m callrouter.cli.reference --write`` writes them into docs/reference; a test fails when they are stale.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from callrouter.cli.lazy import Command

MADE = "<!-- Made by `python -m callrouter.cli.reference --write`. Do not edit. -->"


class SettingReference(NamedTuple):
    """A setting as the reference tells it."""

    name: str
    kind: str
    default: Any
    description: str


def describe_settings() -> list[SettingReference]:
    """All settings in their order, from the annotations of :class:`callrouter.config.Settings`."""
    import msgspec

    from callrouter.config import Settings

    found = []
    for field in msgspec.inspect.type_info(Settings).fields:  # type: ignore[attr-defined]
        outer = field.type
        description = (getattr(outer, "extra_json_schema", None) or {}).get("description", "")
        inner = outer.type if isinstance(outer, msgspec.inspect.Metadata) else outer
        found.append(SettingReference(field.encode_name, _kind(inner), field.default, description))
    return found


def _kind(kind: Any) -> str:
    import msgspec

    match kind:
        case msgspec.inspect.Metadata():
            return _kind(kind.type)
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.LiteralType():
            return " or ".join(f"`{value}`" for value in kind.values)
        case msgspec.inspect.IntType():
            if kind.ge is not None and kind.le is not None:
                return f"{kind.ge} to {kind.le}"
            return f"{kind.ge} or more" if kind.ge is not None else "whole number"
    return "text"


def commands(
    command: click.Command | None = None, parents: tuple[str, ...] = (), ctx: click.Context | None = None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command in the order of the help, groups before their members: its path, itself, its context."""
    if command is None:
        from callrouter.cli.app import root

        command = root
    name = parents[-1] if parents else "callrouter"
    ctx = click.Context(command, info_name=name, parent=ctx, max_content_width=100, terminal_width=100)
    yield " ".join(("callrouter", *parents)), command, ctx
    if isinstance(command, click.Group):
        for each in command.list_commands(ctx):
            member = command.get_command(ctx, each)
            if member is not None and not member.hidden:
                yield from commands(member, (*parents, each), ctx)


def render_cli_reference() -> str:
    """docs/reference/cli.md"""
    parts = [
        MADE,
        "# Commands",
        (
            "Every command takes `--json`, `--home DIR`, `--config FILE`, `-v` and `--help`, before or after its name. "
            "Every change takes `--why TEXT` and is logged with who made it (`CALLROUTER_USER`, else the login name)."
        ),
        (
            "Exit codes: 0 well, 1 a check failed or nothing was found, 2 wrong usage or input, 3 something needed "
            "does not answer, 4 taken or in use, 70 a fault of callrouter, 130 interrupted. Errors go to standard "
            'error; with `--json` as `{"error": …, "hint": …, "code": …}`.'
        ),
    ]
    for path, command, ctx in commands():
        parts.append(f"{'##' if path.count(' ') <= 1 else '###'} {path}")
        parts.append(inspect.cleandoc(command.help or ""))
        if isinstance(command, click.Group):
            if path.count(" ") >= 1:
                continue
            rows = [(name, command.get_command(ctx, name)) for name in command.list_commands(ctx)]
            parts.append("\n".join(f"- `{name}`: {each.get_short_help_str(200)}" for name, each in rows if each))
            parts.append(_options(command, ctx))
            continue
        usage = " ".join(command.collect_usage_pieces(ctx))
        parts.append(f"```\n{path} {usage}\n```")
        parts.append(_options(command, ctx))
        if isinstance(command, Command) and command.examples:
            lines = "\n".join(line.strip() for line in command.examples.splitlines())
            parts.append(f"```sh\n{lines}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def _options(command: click.Command, ctx: click.Context) -> str:
    rows = []
    for param in command.get_params(ctx):
        if not isinstance(param, click.Option) or param.hidden or "--help" in param.opts:
            continue
        if param.opts == ["--json"] and command.name != "callrouter":
            continue
        record = param.get_help_record(ctx)
        if record is not None:
            rows.append(f"- `{record[0]}`: {record[1]}" if record[1] else f"- `{record[0]}`")
    return "\n".join(rows)


def render_settings_reference() -> str:
    """docs/reference/settings.md"""
    parts = [
        MADE,
        "# Settings",
        (
            "A setting stands in `callrouter.toml` in home (or in the file that `--config` or `CALLROUTER_CONFIG` "
            "names), or in the environment as `CALLROUTER_` and its name in capitals, which wins over the file. "
            "`callrouter config list` shows what is in force and where it comes from. Passwords are no settings: "
            "they are files in `home/secrets`."
        ),
    ]
    for each in describe_settings():
        default = str(each.default).lower() if isinstance(each.default, bool) else each.default
        shown = "empty" if default == "" else f"`{default}`"
        parts.append(f"## {each.name}\n\n{each.description or 'A port.'}\n\n{each.kind}; default: {shown}")
    return "\n\n".join(parts) + "\n"


def settings_sample() -> str:
    """A settings file with every setting commented out at its default."""
    lines = [
        "# Settings of callrouter. What is commented out is at its default.",
        "# The environment wins: CALLROUTER_SIP_PORT=5080. `callrouter config list` shows what is in force.",
    ]
    for each in describe_settings():
        if each.name == "home":  # this file is looked for in home
            continue
        default = str(each.default).lower() if isinstance(each.default, bool) else each.default
        shown = f'"{default}"' if isinstance(default, str) and not isinstance(each.default, bool) else default
        kind = "" if each.kind == "text" else f" ({each.kind.replace('`', '')})"
        lines += ["", f"# {each.description}{kind}", f"# {each.name} = {shown}"]
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """File name in docs/reference → text."""
    return {"cli.md": render_cli_reference(), "settings.md": render_settings_reference()}


def main(arguments: list[str]) -> int:
    """For maintainers: ``--write`` writes the pages; without it says whether they are up to date."""
    directory = Path(__file__).resolve().parents[2] / "docs" / "reference"
    stale = []
    for name, text in pages().items():
        path = directory / name
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale.append(name)
        if "--write" in arguments:
            directory.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    verb = "written" if "--write" in arguments else "stale"
    print(f"{verb}: {', '.join(stale)}" if stale else "up to date")
    return 1 if stale and "--write" not in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
