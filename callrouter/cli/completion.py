"""``callrouter completion``"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from callrouter.cli.lazy import Command
from callrouter.errors import InputError


@click.command(
    cls=Command,
    json=False,
    examples="""
callrouter completion bash > ~/.local/share/bash-completion/completions/callrouter
callrouter completion zsh > "${fpath[1]}/_callrouter"
callrouter completion fish > ~/.config/fish/completions/callrouter.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script for completion in bash, zsh or fish: commands, options, choices."""
    found = get_completion_class(shell)
    if found is None:
        raise InputError(f"there is no completion for {shell}")
    made = found(ctx.find_root().command, {}, "callrouter", "_CALLROUTER_COMPLETE")
    # source() of bash would run bash to ask for its version, which may be absent here.
    click.echo(made.source_template % made.source_vars())
