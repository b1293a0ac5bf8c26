"""``callrouter prompt record``: a prompt spoken into a telephone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from callrouter.cli import interrupt, output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Command
from callrouter.cli.options import new_owner_option, only_company, why_option

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.media.prompts import PromptLibrary

MAX_SECONDS = 600


class _Wanted(NamedTuple):
    company: str
    endpoint: str
    target: str
    replaces: bool


@click.command(
    "record",
    cls=Command,
    examples="""
callrouter prompt record welcome --target ana
callrouter prompt record acme-welcome --company acme --target front-desk --replace --why 'new opening hours'
""",
)
@click.argument("name")
@click.option("--target", required=True, metavar="TARGET", help="Whose telephone rings; one with a SIP URI.")
@click.option("--replace", is_flag=True, help="In the place of the prompt that has this name.")
@click.option(
    "--seconds",
    type=click.IntRange(1, MAX_SECONDS),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="Longest recording.",
)
@click.option(
    "--ring",
    type=click.IntRange(5, 120),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="Give up after so long unanswered.",
)
@new_owner_option
@why_option
@pass_app
def record(
    app: App, name: str, target: str, replace: bool, seconds: int, ring: int, company: str | None, why: str
) -> None:
    """Record a prompt by telephone; flows play it as {file: NAME}.

    TARGET rings. Who answers speaks after the tone and presses pound, hears the recording, and keeps it by 1 or by
    hanging up, or records again by 2. Asterisk must be running.
    """
    from callrouter.media.voices import prompt_library
    from callrouter.store.config import add_prompt, edit_prompt

    wanted = app.read(lambda session: _wanted(session, name, target, company, replace=replace))
    library = prompt_library(app.settings)
    output.say(f"ringing {wanted.target} …", err=True)
    with app.quiet():
        sound = interrupt.run(lambda: _recorded(app, library, wanted, seconds, ring))
    sha256, length = library.take_upload(sound, "the recording")
    filename = f"{name}.wav"
    if wanted.replaces:
        given = {"filename": filename, "sha256": sha256, "seconds": length}
        kept = app.write(lambda s: edit_prompt(s, name, given, company=wanted.company, who=app.who, why=why))
    else:
        kept = app.write(
            lambda s: add_prompt(
                s, wanted.company, name=name, filename=filename, sha256=sha256, seconds=length, who=app.who, why=why
            )
        )
    what = f"prompt {wanted.company}/{kept.name} ({kept.seconds:.1f} s) {'changed' if wanted.replaces else 'added'}"
    output.changed(app, what, {**output.plain(kept), "company": wanted.company})


async def _wanted(session: AsyncSession, name: str, target: str, company: str | None, *, replace: bool) -> _Wanted:
    """Everything that can be refused before a telephone rings.

    :raises InputError: the name is no slug
    :raises ConflictError: the name is taken, or the target's telephone would have to be reached over a trunk
    :raises NotFoundError: there is no such prompt to replace, or no such target
    """
    from callrouter.core.dialstring import dial_string
    from callrouter.errors import ConflictError
    from callrouter.store.changes import slug
    from callrouter.store.config import get_company, get_prompt, get_target, list_prompts

    owner = (await get_company(session, await only_company(session, company))).name
    slug("prompt", name)
    if replace:
        await get_prompt(session, name, owner)
    elif any(each.name == name for each in await list_prompts(session, owner)):
        raise ConflictError(f"there is a prompt {name!r} already", hint="give --replace to record it anew")
    found = await get_target(session, target, owner)
    if found.sip_uri is None:
        raise ConflictError(
            f"target {found.name!r} is reached over a trunk; only a telephone with a SIP URI is rung for a recording",
            hint="take another target, or upload a file: callrouter prompt add",
        )
    return _Wanted(owner, dial_string(found, None), found.name, replace)


async def _recorded(app: App, library: PromptLibrary, wanted: _Wanted, seconds: int, ring: int) -> bytes:
    import asyncio
    from uuid import uuid4

    from callrouter.asterisk.ari import AriClient
    from callrouter.asterisk.prompt_call import ASK, CHECK, PromptCall, record_by_telephone
    from callrouter.asterisk.secrets import read_secret
    from callrouter.media.beep import beep

    settings = app.settings
    ask, check = await _said(library, ASK), await _said(library, CHECK)
    tone = await asyncio.to_thread(beep, library.directory)
    ident = f"prompt-{uuid4().hex}"
    call = PromptCall(ident, wanted.endpoint, settings.recording_spool / ident, ask, tone, check, seconds, ring)
    password = read_secret(settings.secrets_dir, "ari-password").reveal()
    async with AriClient(f"http://{settings.ari_host}:{settings.ari_port}", settings.ari_user, password) as ari:
        return await record_by_telephone(ari, call, lambda line: output.say(line, err=True))


async def _said(library: PromptLibrary, text: str) -> Path:
    """A text as Asterisk plays it.

    :raises PromptError: it cannot be spoken here
    """
    from callrouter.core.flow.nodes import Prompt
    from callrouter.errors import PromptError

    prompt = Prompt(text=text, language="en")
    report = await library.render([(None, prompt)])
    path = library.path_for(prompt)
    if path is None:
        raise PromptError(f"the instructions cannot be spoken: {', '.join(why for _, _, why in report.failed)}")
    return path
