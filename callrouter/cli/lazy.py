"""Commands that are imported when they are called, and options that every command takes."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from callrouter.cli.context import App


def _set(name: str) -> Any:
    def store(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.ensure_object(App), name, value)

    return store


def global_options(*, hidden: bool) -> list[click.Option]:
    """--json, --home, --config and -v, taken at every level; ``hidden`` keeps all but --json out of the help."""
    return [
        click.Option(
            ["--json"], is_flag=True, expose_value=False, callback=_set("json"), help="Print JSON, for programs."
        ),
        click.Option(
            ["--home"],
            metavar="DIR",
            expose_value=False,
            callback=_set("home"),
            hidden=hidden,
            help="Directory of everything this installation writes [env: CALLROUTER_HOME; default: var].",
        ),
        click.Option(
            ["--config"],
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            expose_value=False,
            callback=_set("config"),
            hidden=hidden,
            help="Settings file [env: CALLROUTER_CONFIG; default: callrouter.toml in home].",
        ),
        click.Option(
            ["-v", "--verbose"],
            count=True,
            expose_value=False,
            callback=_set("verbose"),
            hidden=hidden,
            help="Say more; with an unexpected error, show where it happened.",
        ),
    ]


class Command(click.Command):
    """A command with the global options, and examples below its help.

    :param examples: lines of shell, comments allowed
    :param json: False for a command that prints nothing a program would read
    """

    def __init__(self, *args: Any, examples: str = "", json: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples.strip()
        options = global_options(hidden=True)
        own = {name for param in self.params for name in param.opts}
        self.params += [o for o in options[0 if json else 1 :] if not own & set(o.opts)]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")


class Group(click.Group):
    """A group whose commands are imported when they are called.

    :param lazy: name → ("module:attribute", short help)
    """

    command_class = Command

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})
        self.params += global_options(hidden=True)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(dict.fromkeys([*self.lazy, *self.commands]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        if cmd_name not in self.lazy:
            return None
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        self.add_command(command, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in self.list_commands(ctx) or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        near = get_close_matches(name, self.list_commands(ctx), n=3, cutoff=0.5)
        did = f" Did you mean {' or '.join(near)}?" if near else ""
        raise click.UsageError(f"There is no command {name!r}.{did}", ctx)

    def summary(self, ctx: click.Context, name: str) -> str:
        """A command's line in the group's help, without importing it."""
        if name in self.lazy:
            return self.lazy[name][1]
        command = self.get_command(ctx, name)
        return command.get_short_help_str(limit=80) if command else ""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self.summary(ctx, name)) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        found = [CompletionItem(name, help=self.summary(ctx, name)) for name in names]
        return found + click.Command.shell_complete(self, ctx, incomplete)


Group.group_class = Group
