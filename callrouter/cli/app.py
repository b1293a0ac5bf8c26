"""The root of the command line: the table of commands, and what becomes of errors."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Any

import click

from callrouter.cli.context import App
from callrouter.cli.interrupt import INTERRUPTED, told
from callrouter.cli.lazy import Group, global_options
from callrouter.cli.output import dump, safe, say
from callrouter.errors import CallrouterError, ServiceError

BUG = 70
"""EX_SOFTWARE of sysexits.h."""
DISK = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or have the quota raised",
    errno.EROFS: "make the file system writable",
    errno.EIO: "look at the disk: dmesg tells more",
    errno.EACCES: "make it writable for this user",
    errno.EPERM: "make it writable for this user",
}
"""What a disk may refuse wherever something is written: no fault of ours."""

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("callrouter.cli.init:init", "Set up this installation, or complete it."),
    "doctor": ("callrouter.cli.doctor:doctor", "Look for what is wrong, and say how to mend it."),
    "status": ("callrouter.cli.status:status", "Show what the running server is doing."),
    "up": ("callrouter.cli.run:up", "Run Asterisk, the server and the worker in the foreground."),
    "serve": ("callrouter.cli.run:serve", "Run the server against an Asterisk that runs already."),
    "worker": ("callrouter.cli.run:worker", "Run the jobs that follow calls."),
    "demo": ("callrouter.cli.run:demo", "Place real calls through a small example business."),
    "company": ("callrouter.cli.company:company", "Companies, whose calls and numbers are kept apart."),
    "campaign": ("callrouter.cli.campaign:campaign", "Campaigns, which calls are attributed to."),
    "number": ("callrouter.cli.number:number", "Tracking numbers, and what answers them."),
    "target": ("callrouter.cli.target:target", "Targets: the business lines that ring."),
    "group": ("callrouter.cli.group:group", "Groups: targets that are rung for each other."),
    "flow": ("callrouter.cli.flow:flow", "Flows: menus, opening hours, whom to ring, voicemail."),
    "webhook": ("callrouter.cli.webhook:webhook", "Web services that flows ask: what questions are signed with."),
    "hours": ("callrouter.cli.hours:hours", "Opening hours: close early or open late, for a time."),
    "route": ("callrouter.cli.route:route", "Where calls would go, and why."),
    "routing": ("callrouter.cli.routing:routing", "Routing as code: export, check, plan, apply, history, rollback."),
    "trunk": ("callrouter.cli.trunk:trunk", "Trunks: SIP connections to providers."),
    "block": ("callrouter.cli.block:block", "Block lists: callers who are refused."),
    "prompt": ("callrouter.cli.prompt:prompt", "Prompts: sound files that flows play."),
    "call": ("callrouter.cli.call:call", "Calls: list them, follow them, see why they went where."),
    "reconcile": ("callrouter.cli.reconcile:reconcile", "Compare all records of calls; mend what is certain."),
    "recording": ("callrouter.cli.recording:recording", "Recordings: list, show, play, export, verify."),
    "asterisk": ("callrouter.cli.asterisk:asterisk", "Asterisk: its configuration and its state."),
    "db": ("callrouter.cli.db:db", "The database's schema."),
    "backup": ("callrouter.cli.backup:backup", "Backups: all that cannot be made again, in one encrypted file."),
    "config": ("callrouter.cli.config:config", "Settings in force, and where they come from."),
    "completion": ("callrouter.cli.completion:completion", "Print the script for completion in bash, zsh or fish."),
}


class Root(Group):
    """Runs a command and turns whatever it raises into words and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = "callrouter",
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
            sys.exit(code if isinstance(code, int) else 0)
        except click.exceptions.NoArgsIsHelpError as exc:
            exc.show()
            sys.exit(exc.exit_code)
        except click.ClickException as exc:
            sys.exit(_refuse(given, exc.format_message(), _usage_hint(exc), exc.exit_code))
        except CallrouterError as exc:
            sys.exit(_refuse(given, exc.message, exc.hint, exc.exit_code))
        except (click.Abort, KeyboardInterrupt):
            say(told(given), err=True)
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # Whoever read our output has enough. Nothing more is written, at exit neither.
            _silence()
            sys.exit(1)
        except Exception as exc:
            if isinstance(exc, OSError) and exc.errno in DISK:
                sys.exit(_refuse(given, _of_the_disk(exc), DISK[exc.errno], ServiceError.exit_code))
            if any(arg in ("-v", "--verbose", "-vv") for arg in given):
                raise
            what = f"this is a fault of callrouter: {type(exc).__name__}: {exc}"
            sys.exit(_refuse(given, what, "run it again with -v to see where, and please report it", BUG))


def _refuse(given: Sequence[str], message: str, hint: str | None, code: int) -> int:
    before = given[: given.index("--")] if "--" in given else given
    if "--json" in before:
        click.echo(dump({"error": message, "hint": hint, "code": code}, indent=None), err=True)
    else:
        say(f"error: {safe(message, lines=True)}", err=True, fg="red")
        if hint:
            say(f"hint: {safe(hint, lines=True)}", err=True)
    return code


def _of_the_disk(exc: OSError) -> str:
    where = exc.filename2 or exc.filename
    return f"{where}: {exc.strerror}" if where is not None else str(exc.strerror)


def _usage_hint(exc: click.ClickException) -> str | None:
    ctx = getattr(exc, "ctx", None)
    return f"{ctx.command_path} --help" if ctx is not None else None


def _silence() -> None:
    import os

    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(nowhere, stream.fileno())
        except (OSError, ValueError):
            continue


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"callrouter {version('callrouter')}")
        ctx.exit()


@click.group(
    cls=Root,
    name="callrouter",
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "obj": None},
    epilog="Begin with: callrouter init, then callrouter doctor. Every command has --help with examples.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
@click.pass_context
def root(ctx: click.Context) -> None:
    """A self-hosted call-tracking telephone server on Asterisk."""
    ctx.ensure_object(App)


# At the root all of them are shown.
_shown = {option.name: option for option in global_options(hidden=False)}
root.params = [_shown.get(param.name, param) if isinstance(param, click.Option) else param for param in root.params]
