"""Options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from callrouter.errors import InputError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

F = TypeVar("F", bound=Callable[..., Any])

why_option = click.option("--why", metavar="TEXT", default="", help="Why you change it; kept in the audit log.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
owner_option = click.option("--company", metavar="NAME", help="Whose; needed when several companies have that name.")
of_option = click.option("--company", metavar="NAME", help="Only this company's.")
new_owner_option = click.option("--company", metavar="NAME", help="Whose; may be left out when there is only one.")


def record_option(default: str | None, helped: str) -> Callable[[F], F]:
    """``--record``: what one part of the routing says of recording."""
    words = click.Choice(["force", "never", "inherit"])
    return click.option(
        "--record",
        type=words,
        is_flag=False,
        flag_value="force",  # as it was said before there were three words
        default=default,
        show_default=default is not None,
        help=helped,
    )


def changes_of(given: dict[str, Any]) -> dict[str, Any]:
    """The options of an ``edit`` that were given.

    :raises UsageError: none was
    """
    changes = {key: value for key, value in given.items() if value is not None and value != ()}
    if not changes:
        raise click.UsageError("Nothing to change: give at least one option.")
    return changes


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is gone.

    :raises InputError: there is nobody to ask
    :raises Exit: the answer was no
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError(f"{question} There is no terminal to ask on", hint="add --yes")
    if not click.confirm(question, err=True):
        click.echo("Nothing was changed.", err=True)
        raise click.exceptions.Exit(1)


async def only_company(session: AsyncSession, given: str | None) -> str:
    """The company a new thing belongs to: the one that was named, else the only one there is.

    :raises InputError: there are none or several, and none was named
    """
    if given:
        return given
    from callrouter.store.config import list_companies

    names = [company.name for company in await list_companies(session)]
    if len(names) == 1:
        return names[0]
    if not names:
        raise InputError("there is no company yet", hint="callrouter company add NAME --timezone America/New_York")
    raise InputError("which company's?", hint="give --company " + " or --company ".join(names[:5]))
