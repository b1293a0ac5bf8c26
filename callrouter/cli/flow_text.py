"""A flow's text on its way in: read, checked with places, edited until it holds together."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import click

from callrouter.cli import output
from callrouter.errors import FlowError, InputError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.cli.context import App
    from callrouter.core.flow.nodes import Flow
    from callrouter.core.flow.urls import Hosts

T = TypeVar("T")

SAMPLE = """\
title: {title}
start: greet
nodes:
  greet:
    type: menu
    prompt: Thank you for calling. For sales, press 1. To leave a message, press 2.
    options: {{1: sales, 2: message}}
    on_exhausted: sales
  sales: {{type: dial, target: {target}, on_busy: message, on_no_answer: message, on_failed: message}}
  message: {{type: voicemail, greeting: Please leave a message after the tone., on_failed: bye}}
  bye: {{type: hangup}}
"""


class Place(NamedTuple):
    """Something that is wrong with a flow, and where in its text."""

    severity: str
    """"error" or "warning"."""
    message: str
    hint: str | None = None
    node: str | None = None
    line: int | None = None
    column: int | None = None

    def text(self) -> str:
        where = f"line {self.line}, column {self.column}: " if self.line else ""
        node = f"node {self.node!r} " if self.node else ""
        return f"{where}{node}{self.message}"


class Inspected(NamedTuple):
    """A flow's text, parsed as far as it could be."""

    flow: Flow | None
    places: list[Place]

    @property
    def errors(self) -> list[Place]:
        return [place for place in self.places if place.severity == "error"]


def webhook_hosts(app: App) -> Hosts:
    """Web services that the settings allow to be asked."""
    from callrouter.core.flow.urls import parse_hosts

    return parse_hosts(app.settings.webhook_hosts)


async def inspect(session: AsyncSession, company: str, name: str, text: str, hosts: Hosts) -> Inspected:
    """Everything that is wrong with a text, held against what the company has.

    :param hosts: web services that the settings allow to be asked
    :raises NotFoundError: no such company
    """
    from callrouter.core.flow.check import check_flow
    from callrouter.core.flow.link import together
    from callrouter.core.flow.parse import parse_flow
    from callrouter.store.config import get_company, list_groups, list_prompts, list_targets, read_flows

    await get_company(session, company)
    try:
        flow = parse_flow(text, name)
    except FlowError as exc:
        message = exc.message.removeprefix(f"line {exc.line}, column {exc.column}: ")
        return Inspected(None, [Place("error", message, exc.hint, line=exc.line, column=exc.column)])
    targets = [target.name for target in await list_targets(session, company)]
    groups = [group.name for group in await list_groups(session, company)]
    prompts = [prompt.name for prompt in await list_prompts(session, company)]
    others = together((await read_flows(session, company)).values())
    places = []
    for found in check_flow(flow, targets, prompts, groups, others=others, hosts=hosts):
        line, column = place_of(text, found.node, found.message)
        places.append(Place(found.severity, found.message, found.hint, found.node or None, line, column))
    return Inspected(flow, places)


def place_of(text: str, node: str, message: str) -> tuple[int | None, int | None]:
    """Line and column of what a message about a node quotes, else of the node's name."""
    import yaml

    from callrouter.core.flow.source import compose

    def mapping(value: yaml.Node | None, key: str) -> tuple[yaml.Node | None, yaml.Node | None]:
        pairs = value.value if isinstance(value, yaml.MappingNode) else []
        return next(((k, v) for k, v in pairs if k.value == key), (None, None))

    def scalars(value: yaml.Node) -> list[yaml.ScalarNode]:
        if isinstance(value, yaml.ScalarNode):
            return [value]
        parts = value.value if isinstance(value, yaml.SequenceNode) else [v for _, v in value.value]
        return [found for part in parts for found in scalars(part)]

    _, nodes = mapping(compose(text), "nodes")
    key, body = mapping(nodes, node)
    if key is None or body is None:
        return None, None
    # The whole quotation is looked for first: "dials 'ana', which is no target" is about the value ana.
    quoted = next((s for s in scalars(body) if s.value and f"{s.value!r}" in message), None)
    mark = (quoted or key).start_mark
    return mark.line + 1, mark.column + 1


def report(places: list[Place], *, err: bool = False) -> None:
    """Print what is wrong, one thing a line."""
    for place in places:
        colour = "red" if place.severity == "error" else "yellow"
        output.say(output.safe(f"{place.severity}: {place.text()}"), err=err, fg=colour)
        if place.hint:
            output.say(output.safe(f"  hint: {place.hint}"), err=err)


def refusal(places: list[Place]) -> FlowError:
    """Errors as one exception; the first one gives line and column."""
    first, others = places[0], places[1:]
    more = "".join(f"\n       {place.text()}" for place in others)
    node = f"node {first.node!r} " if first.node else ""
    return FlowError(node + first.message + more, line=first.line, column=first.column, hint=first.hint)


def read_text(file: str) -> str:
    """The text of a file, or of standard input for ``-``.

    :raises InputError: unreadable, or not UTF-8
    """
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise InputError(f"{file}: {reason}", hint="give a YAML file, or - for standard input") from exc


def edit_until_right(name: str, text: str, save: Callable[[str], T]) -> T | None:
    """Open the text in the editor, and again for as long as ``save`` refuses it and the person goes on.

    :param save: takes the text; raises FlowError when it does not hold together
    :returns: what ``save`` gave; None when nothing was changed or the person gave up
    :raises InputError: there is no editor to open
    """
    if not sys.stdin.isatty() and not (os.environ.get("EDITOR") or os.environ.get("VISUAL")):
        raise InputError("there is no terminal to edit on", hint="give a file, or - for standard input")
    before = text
    while True:
        edited = click.edit(text, extension=".yaml", require_save=False)
        if edited is None or (edited.strip() == before.strip() and text == before):
            return None
        text = edited
        try:
            return save(text)
        except FlowError as exc:
            output.say(output.safe(f"error: {exc.message}", lines=True), err=True, fg="red")
            if exc.hint:
                output.say(output.safe(f"hint: {exc.hint}"), err=True)
        try:
            again = click.confirm("Edit again?", default=True, err=True)
        except click.Abort:
            _keep(name, text)
            raise
        if not again:
            _keep(name, text)
            return None


def _keep(name: str, text: str) -> None:
    handle, kept = tempfile.mkstemp(prefix=f"{name}-", suffix=".yaml")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    output.say(f"Nothing was saved; your text is in {kept}", err=True)
