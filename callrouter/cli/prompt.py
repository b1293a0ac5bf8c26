"""``callrouter prompt``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.cli.options import (
    confirm,
    new_owner_option,
    of_option,
    only_company,
    owner_option,
    why_option,
    yes_option,
)
from callrouter.cli.prompt_record import record

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.media.prompts import Upload
    from callrouter.store.config import UploadedPrompt

file_argument = click.argument("file", type=click.Path(path_type=Path))


@click.group(cls=Group)
def prompt() -> None:
    """Prompts: sound files that flows play."""


@prompt.command("add", examples="callrouter prompt add welcome welcome.wav --company acme")
@click.argument("name")
@file_argument
@new_owner_option
@why_option
@pass_app
def add(app: App, name: str, file: Path, company: str | None, why: str) -> None:
    """Upload a sound FILE (WAV, FLAC, Ogg, MP3); flows play it as {file: NAME}."""
    from callrouter.store.config import add_prompt, get_company

    async def owner_of(session: AsyncSession) -> str:
        return (await get_company(session, await only_company(session, company))).name

    owner = app.read(owner_of)
    taken = _take(app, file)
    added = app.write(
        lambda s: add_prompt(
            s, owner, name=name, filename=file.name, sha256=taken.sha256, seconds=taken.seconds, who=app.who, why=why
        )
    )
    what = f"prompt {owner}/{added.name} ({added.seconds:.1f} s) added"
    output.changed(app, what, {**output.plain(added), "company": owner})


def _take(app: App, file: Path) -> Upload:
    """Convert a sound file and keep it.

    :raises PromptError: it is no audio
    """
    from callrouter.media.voices import prompt_library

    return prompt_library(app.settings).take_upload(file)


prompt.add_command(record)


@prompt.command("list", examples="callrouter prompt list --company acme")
@of_option
@pass_app
def list_(app: App, company: str | None) -> None:
    """List the uploaded prompts."""
    from callrouter.store.config import list_companies, list_prompts

    async def work(session: AsyncSession) -> tuple[list[UploadedPrompt], dict[str, str]]:
        names = {c.id: c.name for c in await list_companies(session)}
        return await list_prompts(session, company), names

    found, names = app.read(work)
    if app.json:
        output.emit([{**output.plain(p), "company": names[p.company_id]} for p in found])
    elif not found:
        output.say("No prompts yet: flows speak their texts. Upload one: callrouter prompt add welcome welcome.wav")
    else:
        rows = [(names[p.company_id], p.name, p.filename, f"{p.seconds:.1f}", p.sha256[:12]) for p in found]
        output.table(("company", "name", "file", "seconds", "sha-256"), rows, right=("seconds",))


@prompt.command("show", examples="callrouter prompt show acme/welcome")
@click.argument("name")
@owner_option
@pass_app
def show(app: App, name: str, company: str | None) -> None:
    """Show an uploaded prompt."""
    from callrouter.store.config import get_prompt

    found = app.read(lambda session: get_prompt(session, name, company))
    original = app.settings.prompts_dir / "originals" / found.sha256
    if app.json:
        output.emit({**output.plain(found), "original": original if original.exists() else None})
        return
    output.fields(
        [
            ("name", found.name),
            ("file", found.filename),
            ("length", f"{found.seconds:.1f} s"),
            ("SHA-256", found.sha256),
            ("kept as", original if original.exists() else f"{original} (it is gone: upload it again)"),
        ]
    )


@prompt.command("edit", examples="callrouter prompt edit acme/welcome new-welcome.wav --why 'new opening hours'")
@click.argument("name")
@file_argument
@owner_option
@why_option
@pass_app
def edit(app: App, name: str, file: Path, company: str | None, why: str) -> None:
    """Put another sound FILE in a prompt's place."""
    from callrouter.store.config import edit_prompt, get_prompt

    app.read(lambda session: get_prompt(session, name, company))
    taken = _take(app, file)
    changes = {"filename": file.name, "sha256": taken.sha256, "seconds": taken.seconds}
    after = app.write(lambda s: edit_prompt(s, name, changes, company=company, who=app.who, why=why))
    output.changed(app, f"prompt {after.name} changed", after)


@prompt.command("rm", examples="callrouter prompt rm acme/welcome --yes")
@click.argument("name")
@owner_option
@yes_option
@why_option
@pass_app
def rm(app: App, name: str, company: str | None, yes: bool, why: str) -> None:
    """Remove a prompt that no flow plays."""
    from callrouter.store.config import get_prompt, remove_prompt

    app.read(lambda session: get_prompt(session, name, company))
    confirm(f"Remove prompt {name}?", yes=yes)
    app.write(lambda session: remove_prompt(session, name, company=company, who=app.who, why=why))
    output.removed(app, f"prompt {name}")
