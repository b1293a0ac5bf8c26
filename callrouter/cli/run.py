"""``callrouter serve``, ``worker``, ``up`` and ``demo``: what runs in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Command

if TYPE_CHECKING:
    from callrouter.store.calls import CallRow


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    """Programs that are loaded stay: garbage is not looked for meanwhile, nor among them ever after. It makes a start,
    which callers may be waiting for, a tenth shorter."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@click.command(
    cls=Command,
    json=False,
    examples="""
callrouter serve
callrouter --home /var/lib/callrouter serve
""",
)
@pass_app
def serve(app: App) -> None:
    """Run the server against an Asterisk that runs already.

    It ends on SIGTERM: new calls then go to the failsafe, callers in menus get ten seconds, conversations go on.
    """
    with _loading():
        from callrouter.bootstrap import serve as run
        from callrouter.logs import configure_logging

    configure_logging(app.settings)
    asyncio.run(run(app.settings))


@click.command(cls=Command, json=False, examples="callrouter worker")
@pass_app
def worker(app: App) -> None:
    """Run the jobs that follow calls: recordings are joined, checked, compressed."""
    from callrouter.bootstrap import work
    from callrouter.logs import configure_logging

    configure_logging(app.settings)
    asyncio.run(work(app.settings))


@click.command(cls=Command, json=False, examples="callrouter up")
@pass_app
def up(app: App) -> None:
    """Run Asterisk, the server and the worker in the foreground, until Ctrl-C.

    Each is started again when it ends by itself.
    """
    from callrouter.logs import configure_logging
    from callrouter.runtime.foreground import run_all

    configure_logging(app.settings)
    asyncio.run(run_all(app.settings, output.say, app.config and app.config.absolute()))


@click.command(
    cls=Command,
    examples="""
callrouter demo
callrouter demo --keep
callrouter demo --json
""",
)
@click.option("--keep", is_flag=True, help="Leave all running after the calls, to be dialled from a softphone.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="The demonstration's own home [default: demo in home].",
)
@pass_app
def demo(app: App, keep: bool, directory: Path | None) -> None:
    """Place real calls through a small example business, and show what came of them.

    A simulated carrier sends SIP calls to a real Asterisk; simulated telephones answer and speak. Nothing leaves
    this machine.
    """
    import msgspec

    from callrouter.demo.run import run_demo
    from callrouter.logs import configure_logging

    home = (directory or app.settings.home_dir / "demo").absolute()
    quiet = app.settings if app.verbose else msgspec.structs.replace(app.settings, log_level="error")
    configure_logging(quiet)

    def show(rows: list[CallRow]) -> None:
        if app.json:
            output.emit(rows)
            return
        from rich.console import Console

        from callrouter.demo.table import call_table

        Console(width=None if output.coloured() else 130).print(call_table(rows))
        output.say(f"recordings: {home / 'recordings'}")

    asyncio.run(run_demo(home, lambda line: output.say(line, err=app.json), show, keep=keep))
