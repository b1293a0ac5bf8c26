"""A routing file on its way in: read, compared with what is in force, proven, tried."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from callrouter.cli.flow_text import Place, place_of
from callrouter.errors import CallrouterError, ConflictError, FlowError, InputError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.cli.context import App
    from callrouter.core.routing_code.change import Change
    from callrouter.core.routing_code.check import Problem
    from callrouter.core.routing_code.fields import Routing
    from callrouter.core.routing_code.read import Document


class Seen(NamedTuple):
    """What there is to say of a routing file."""

    document: Document | None
    """None: it could not be read."""
    places: list[Place]
    planned: list[Change]
    routing: Routing = MappingProxyType({})
    """The whole, as it would be."""
    version: int = 0
    """The configuration that it was compared with."""
    current: Routing = MappingProxyType({})
    """The whole, as it is."""

    @property
    def errors(self) -> list[Place]:
        return [place for place in self.places if place.severity == "error"]


class _TakenBack(Exception):
    """Ends a transaction that was only tried."""


def look(app: App, text: str, *, alone: bool = False, trial: bool = True) -> Seen:
    """Read a routing file, and say what is wrong with it and what it would change. Nothing is changed.

    :param alone: without the database
    :param trial: make the changes and take them back, so that whatever refuses them is told
    :raises FlowError: it cannot be read
    :raises ConflictError: somebody changed what it would change since it was made
    """
    from callrouter.core.routing_code.change import changes
    from callrouter.core.routing_code.read import read_routing

    document = read_routing(text)
    if alone:
        planned = changes({}, document.routing, document.covers)
        return _proven(app, document, {}, planned, None, 0)
    version, current, prompts = app.read(lambda session: _in_force(session, document))
    planned = changes(current, document.routing, document.covers)
    seen = _proven(app, document, current, planned, prompts, version)
    seen = seen._replace(places=[*seen.places, *_trunks(app, document, planned, seen.routing)])
    if seen.errors or not planned or not trial:
        return seen
    refusal = _try(app, document, planned, version)
    return seen._replace(places=[place_of_error(refusal), *seen.places]) if refusal else seen


async def _in_force(session: AsyncSession, document: Document) -> tuple[int, Routing, Mapping[str, set[str]]]:
    """
    :raises ConflictError: what the file would change was changed since it was made
    """
    from callrouter.core.routing_code.change import changes, conflicts
    from callrouter.store.config import list_companies, list_prompts
    from callrouter.store.routing_code import current_routing, routing_at

    version, current = await current_routing(session)
    if document.version is not None and document.version > version:
        raise ConflictError(
            f"the file was made from configuration {document.version}; this installation is at {version}",
            hint="it is of another installation, or of before a restored backup: export anew, or take version: out",
        )
    if document.version is not None and document.version < version:
        past = await routing_at(session, document.version)
        planned = changes(current, document.routing, document.covers)
        if found := conflicts(past.routing, current, planned):
            listed = "".join(f"\n       {conflict.words()}" for conflict in found[:20])
            raise ConflictError(
                f"since configuration {document.version}, from which the file was made, others changed what it would "
                f"change (now {version}):{listed}",
                hint=f"callrouter routing export shows what is in force; take it over, and write version: {version}",
            )
    names = {company.id: company.name for company in await list_companies(session)}
    prompts: dict[str, set[str]] = {}
    for prompt in await list_prompts(session):
        prompts.setdefault(names[prompt.company_id], set()).add(prompt.name)
    return version, current, prompts


def _proven(
    app: App,
    document: Document,
    current: Routing,
    planned: list[Change],
    prompts: Mapping[str, set[str]] | None,
    version: int,
) -> Seen:
    from callrouter.cli.flow_text import webhook_hosts
    from callrouter.core.routing_code.change import outcome
    from callrouter.core.routing_code.check import check_routing

    routing = outcome(current, planned)
    known = _all_prompts(routing) if prompts is None else prompts
    found = check_routing(routing, known, time.time(), webhook_hosts(app))
    # What the file says nothing of is not its matter, but where it breaks what was whole.
    mine = [each for each in found if document.place(each.key) is not None or each.severity == "error"]
    return Seen(document, [_place(document, each) for each in mine], planned, routing, version, current)


def _trunks(app: App, document: Document, planned: list[Change], routing: Routing) -> list[Place]:
    """Trunks that Asterisk's configuration could not hold, or that have a password to be given, or one to be kept."""
    from callrouter.asterisk.secrets import trunk_secret_name
    from callrouter.asterisk.trunk_values import check_trunk
    from callrouter.core.routing_code.fields import to_snapshot

    found = []
    trunks = {trunk.name: trunk for trunk in to_snapshot(routing, 0).trunks}
    for change in planned:
        name = change.key.name
        if change.key.kind != "trunk":
            continue
        line, column = document.place(change.key) or (None, None)
        stored = (app.settings.secrets_dir / trunk_secret_name(name)).is_file()
        if change.what == "remove":
            told = f"trunk {name} is removed; its password stays in {app.settings.secrets_dir}"
            found += [Place("warning", told, "remove it by hand, should the trunk not come back")] if stored else []
            continue
        try:
            check_trunk(trunks[name], app.settings)
        except CallrouterError as exc:
            found.append(Place("error", exc.message, exc.hint, line=line, column=column))
        if trunks[name].username and not stored:
            told = f"trunk {name}: its password is not stored yet"
            found.append(Place("warning", told, f"callrouter trunk secret {name}", line=line, column=column))
    return found


def _all_prompts(routing: Routing) -> dict[str, set[str]]:
    """Without a database every prompt that is named is taken to be there."""
    from callrouter.core.flow.check import prompts_of
    from callrouter.core.flow.parse import parse_flow

    found: dict[str, set[str]] = {}
    for key, values in routing.items():
        if key.kind == "flow":
            for node in parse_flow(values["text"], key.name).nodes.values():
                found.setdefault(key.company, set()).update(p.file for p in prompts_of(node) if p.file)
    return found


def _place(document: Document, problem: Problem) -> Place:
    line, column = document.place(problem.key, problem.field) or (None, None)
    start = document.texts.get(problem.key)
    if problem.node is not None and start is not None:
        text = str(document.routing[problem.key]["text"])
        at_line, at_column = place_of(text, problem.node, problem.message)
        if at_line is not None and at_column is not None:
            line, column = start[0] + at_line - 1, start[1] + at_column
    about = f"{problem.key}, node {problem.node!r}" if problem.node else str(problem.key)
    return Place(problem.severity, f"{about}: {problem.message}", problem.hint, line=line, column=column)


def _try(app: App, document: Document, planned: list[Change], version: int) -> CallrouterError | None:
    """Make the changes and take them back: what refuses them, if anything does."""
    from callrouter.store.config import lock_config
    from callrouter.store.routing_code import apply_changes

    async def work(session: AsyncSession) -> None:
        await lock_config(session, version)
        await apply_changes(session, planned, who=app.who, why="", explain=placed(document))
        raise _TakenBack

    try:
        app.write(work)
    except _TakenBack:
        return None
    except (InputError, ConflictError) as exc:
        return exc
    return None


def placed(document: Document) -> Callable[[Change, CallrouterError], CallrouterError]:
    """Says of a refused change where in the file it comes from."""

    def explain(change: Change, exc: CallrouterError) -> CallrouterError:
        place = document.place(change.key)
        where = f"line {place[0]}, column {place[1]}: " if place else ""
        message = f"{where}{change.what} {change.key}: {exc.message}"
        return (ConflictError if exc.exit_code == 4 else InputError)(message, hint=exc.hint)

    return explain


def place_of_error(exc: CallrouterError) -> Place:
    """An error as something that is wrong in a text."""
    line, column = (exc.line, exc.column) if isinstance(exc, FlowError) else (None, None)
    message = exc.message.removeprefix(f"line {line}, column {column}: ")
    return Place("error", message, exc.hint, line=line, column=column)


def with_titles(routing: Routing) -> Routing:
    """A routing as it will be: spoken texts may hold titles, and those that a file leaves out are made."""
    from callrouter.store.companies import titled

    return {key: {"title": titled(key.name), **values} for key, values in routing.items()}


def require_right(seen: Seen) -> None:
    """:raises FlowError: something is wrong; the first thing gives line and column"""
    from callrouter.cli.flow_text import refusal

    if seen.errors:
        raise refusal(seen.errors)


async def plan_back(session: AsyncSession, version: int) -> tuple[int, list[Change], list[str]]:
    """What makes the routing what it was at a version: (version now, changes, what stays as it is).

    :raises NotFoundError: there was no such version
    """
    from callrouter.core.routing_code.change import changes
    from callrouter.core.routing_code.fields import SECTIONS
    from callrouter.store.routing_code import current_routing, routing_at

    now, current = await current_routing(session)
    past = await routing_at(session, version)
    stays = list(past.doubts)
    companies = {key.name for key in (*current, *past.routing) if key.kind == "company"}
    covers = {("trunk", ""), *((kind, name) for kind in SECTIONS.values() for name in companies)}
    planned = changes(current, past.routing, covers, past.renamed)
    renamed = {key.name for key, _ in past.renamed if key.kind == "company"}
    stays += [
        f"company {key.name} was made since: it stays, without numbers, targets, flows and campaigns"
        for key in current
        if key.kind == "company" and key not in past.routing and key.name not in renamed
    ]
    return now, planned, stays
