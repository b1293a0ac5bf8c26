"""Flows and their versions, and the uploaded prompts they play."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core.flow.nodes import Dial, Flow, GotoFlow
from callrouter.core.model import FlowVersion
from callrouter.errors import CallrouterError, FlowError, InputError, NotFoundError
from callrouter.store import changes as common
from callrouter.store.models import (
    CompanyRow,
    FlowRow,
    FlowVersionRow,
    PromptRow,
    TargetRow,
    TrackingNumberRow,
)
from callrouter.store.models_groups import TargetGroupRow
from callrouter.store.types import now


@dataclass(frozen=True, slots=True)
class SavedVersion:
    """A version of a flow and who saved it."""

    flow: FlowVersion
    at: datetime
    who: str
    why: str


@dataclass(frozen=True, slots=True)
class UploadedPrompt:
    """A recording that flows may play by name."""

    id: str
    company_id: str
    name: str
    filename: str
    """As it was called where it came from."""
    sha256: str
    """Of the file that was uploaded."""
    seconds: float


def flow_value(row: FlowRow, version: FlowVersionRow) -> FlowVersion:
    return FlowVersion(version.id, row.id, row.company_id, row.name, version.version, version.text)


def prompt_value(row: PromptRow) -> UploadedPrompt:
    return UploadedPrompt(row.id, row.company_id, row.name, row.filename, row.sha256, row.seconds)


async def add_flow(
    session: AsyncSession, company: str, *, name: str, text: str, who: str, why: str = "", check: bool = True
) -> FlowVersion:
    """Add a flow: its version 1.

    :param text: YAML
    :param check: False: the caller holds it against what the company has, when all is there (:func:`check_flows`)
    :raises FlowError: the text does not hold together, or names a target, prompt or flow that the company does not have
    :raises InputError: the name is no slug
    :raises NotFoundError: no such company
    :raises ConflictError: the company has a flow of that name
    """
    owner = await common.company_row(session, company)
    common.slug("flow", name)
    await common.require_free(session, FlowRow, "flow", owner, name)
    if check:
        await check_flow(session, company, name, text)
    row = FlowRow(company_id=owner.id, name=name, newest=1)
    common.stamp(row, who)
    session.add(row)
    await session.flush()
    version = FlowVersionRow(flow_id=row.id, version=1, text=text, created_by=who, why=why)
    session.add(version)
    await session.flush()
    value = flow_value(row, version)
    await common.record_change(session, f"add flow {company}/{name}", who=who, why=why, after=value)
    return value


async def list_flows(session: AsyncSession, company: str | None = None) -> list[FlowVersion]:
    """The newest version of each flow, by company and name.

    :raises NotFoundError: no such company
    """
    statement = _newest().join(CompanyRow, CompanyRow.id == FlowRow.company_id).order_by(CompanyRow.name, FlowRow.name)
    if company is not None:
        statement = statement.where(FlowRow.company_id == (await common.company_row(session, company)).id)
    return [flow_value(row, version) for row, version in await session.execute(statement)]


async def get_flow(
    session: AsyncSession, name: str, company: str | None = None, *, version: int | None = None
) -> FlowVersion:
    """A flow's text.

    :param name: the name, or "company/name"; the company may be left out when only one has such a flow
    :param version: None: the newest
    :raises NotFoundError: no such flow, company or version
    :raises InputError: several companies have one of that name
    """
    row, _ = await common.owned_row(session, FlowRow, "flow", company, name)
    return flow_value(row, await _version(session, row, version))


async def flow_versions(session: AsyncSession, name: str, company: str | None = None) -> list[SavedVersion]:
    """All versions of a flow, newest first.

    :raises NotFoundError, InputError: as :func:`get_flow`
    """
    row, _ = await common.owned_row(session, FlowRow, "flow", company, name)
    found = await session.scalars(
        select(FlowVersionRow).where(FlowVersionRow.flow_id == row.id).order_by(FlowVersionRow.version.desc())
    )
    return [SavedVersion(flow_value(row, each), each.created_at, each.created_by, each.why) for each in found]


async def get_flow_version(session: AsyncSession, version_id: str) -> FlowVersion | None:
    """The version that a call went through, by its id; also of a flow that was removed since."""
    statement = select(FlowRow, FlowVersionRow).join(FlowVersionRow, FlowVersionRow.flow_id == FlowRow.id)
    found = (await session.execute(statement.where(FlowVersionRow.id == version_id))).first()
    return flow_value(found[0], found[1]) if found else None


async def edit_flow(
    session: AsyncSession,
    name: str,
    changes: Mapping[str, Any],
    *,
    company: str | None = None,
    who: str,
    why: str = "",
    check: bool = True,
) -> FlowVersion:
    """Save a new text as the flow's next version, or change its name. The same text again makes no new version.

    :param changes: any of name, text
    :param check: as for :func:`add_flow`
    :raises FlowError: as :func:`add_flow`
    :raises InputError, NotFoundError: as :func:`get_flow`
    :raises ConflictError: the new name is taken, or other flows go on in this one
    """
    row, owner = await common.owned_row(session, FlowRow, "flow", company, name)
    version = await _version(session, row, None)
    before = flow_value(row, version)
    values = common.merged("flow", {"name": row.name, "text": version.text}, changes)
    new_name = common.slug("flow", values["name"])
    if new_name == row.name and values["text"] == version.text:
        return before
    if new_name != row.name:
        await common.require_free(session, FlowRow, "flow", owner, new_name)
        flows = await flows_using(session, owner, flow=row.name) if check else []
        if values["text"] != version.text:
            flows = [flow for flow in flows if flow != row.name]
        if flows:
            raise common.keeps_its_name("flow", row.name, flows, "goes on in")
        row.name = new_name
    if values["text"] != version.text:
        if check:
            await check_flow(session, owner.name, new_name, values["text"])
        row.newest = version.version + 1
        version = FlowVersionRow(flow_id=row.id, version=row.newest, text=values["text"], created_by=who, why=why)
        session.add(version)
    common.stamp(row, who)
    await session.flush()
    after = flow_value(row, version)
    what = f"edit flow {owner.name}/{before.name}"
    await common.record_change(session, what, who=who, why=why, before=before, after=after)
    return after


async def remove_flow(
    session: AsyncSession, name: str, *, company: str | None = None, who: str, why: str = "", check: bool = True
) -> None:
    """Remove a flow. Its versions are kept for the calls that went through them.

    :param check: as for :func:`add_flow`
    :raises NotFoundError, InputError: as :func:`get_flow`
    :raises ConflictError: numbers are answered by it, or flows go on in it; the message names them
    """
    row, owner = await common.owned_row(session, FlowRow, "flow", company, name)
    used = select(TrackingNumberRow).where(TrackingNumberRow.flow_id == row.id).order_by(TrackingNumberRow.name)
    uses = [f"number {number.name} ({number.e164})" for number in await session.scalars(used)]
    if check:
        using = await flows_using(session, owner, flow=row.name)
        uses += [f"flow {flow}" for flow in using if flow != row.name]
    if uses:
        raise common.in_use("flow", row.name, uses)
    before = flow_value(row, await _version(session, row, None))
    row.removed_at = now()
    common.stamp(row, who)
    await session.flush()
    await common.record_change(session, f"remove flow {owner.name}/{row.name}", who=who, why=why, before=before)


async def check_flow(session: AsyncSession, company: str, name: str, text: str) -> Flow:
    """Parse a flow and hold it against what the company has, the flows that go on in it among it; nothing is saved.

    :raises FlowError: the text does not hold together, or names a target, prompt or flow that the company does not have
    :raises NotFoundError: no such company
    """
    # Only flows need a YAML parser: everything else loads faster without.
    from callrouter.core.flow.parse import parse_flow

    owner = await common.company_row(session, company)
    flow = parse_flow(text, name)
    await _require_whole(session, owner, [flow], await read_flows(session, company))
    return flow


async def check_flows(session: AsyncSession, company: str, names: Collection[str]) -> None:
    """Hold flows, and those that go on in them, against what the company has.

    :param names: of flows that were changed; some may be gone
    :raises FlowError: as :func:`check_flow`; the first flow that something is wrong with
    :raises NotFoundError: no such company
    """
    from callrouter.core.flow.link import gotos

    owner = await common.company_row(session, company)
    flows = await read_flows(session, company, names)
    concerned = [
        flow for name, flow in flows.items() if name in names or any(node.flow in names for _, node in gotos(flow))
    ]
    await _require_whole(session, owner, concerned, flows)


async def read_flows(session: AsyncSession, company: str, needed: Collection[str] = ()) -> dict[str, Flow]:
    """The newest versions of a company's flows, by name; without those that were saved by a version that knew other
    nodes.

    :param needed: names of flows that are not left out
    :raises FlowError: one of ``needed`` cannot be read
    :raises NotFoundError: no such company
    """
    from callrouter.core.flow.parse import parse_flow

    found = {}
    for version in await list_flows(session, company):
        try:
            found[version.name] = parse_flow(version.text, version.name)
        except FlowError:
            if version.name in needed:
                raise
    return found


async def _require_whole(
    session: AsyncSession, owner: CompanyRow, checked: Iterable[Flow], flows: Mapping[str, Flow]
) -> None:
    """:raises FlowError: something is wrong with one of ``checked``"""
    from callrouter.core.flow.check import check_flow as findings_of
    from callrouter.core.flow.link import together

    others = together(flows.values())
    targets = set(await session.scalars(select(TargetRow.name).where(TargetRow.company_id == owner.id)))
    groups = set(await session.scalars(select(TargetGroupRow.name).where(TargetGroupRow.company_id == owner.id)))
    prompts = set(await session.scalars(select(PromptRow.name).where(PromptRow.company_id == owner.id)))
    for flow in checked:
        errors = [
            each for each in findings_of(flow, targets, prompts, groups, others=others) if each.severity == "error"
        ]
        if errors:
            more = f" (and {len(errors) - 1} more; callrouter flow check shows all)" if len(errors) > 1 else ""
            node = f", node {errors[0].node!r}" if errors[0].node else ""
            raise FlowError(f"flow {flow.name!r}{node}: {errors[0].message}{more}", hint=errors[0].hint)


async def flows_using(
    session: AsyncSession,
    owner: CompanyRow,
    *,
    target: str | None = None,
    group: str | None = None,
    prompt: str | None = None,
    flow: str | None = None,
) -> list[str]:
    """Names of the company's flows whose newest version rings ``target`` or ``group``, plays ``prompt``, or goes on in
    ``flow``."""
    from callrouter.core.flow.parse import parse_flow

    given = {"target": target, "group": group, "prompt": prompt, "flow": flow}
    wanted = next((noun, name) for noun, name in given.items() if name is not None)
    using = []
    for row, version in await session.execute(_newest().where(FlowRow.company_id == owner.id).order_by(FlowRow.name)):
        try:
            parsed = parse_flow(version.text, row.name)
        except CallrouterError:
            # Saved by a version that knew other nodes: whether it needs this cannot be told, so it counts as a use.
            using.append(row.name)
            continue
        if wanted in _references(parsed):
            using.append(row.name)
    return using


async def add_prompt(
    session: AsyncSession,
    company: str,
    *,
    name: str,
    filename: str,
    sha256: str,
    seconds: float,
    who: str,
    why: str = "",
) -> UploadedPrompt:
    """Note an uploaded prompt; the audio itself is converted and kept elsewhere.

    :raises InputError: the name is no slug
    :raises NotFoundError: no such company
    :raises ConflictError: the company has a prompt of that name
    """
    owner = await common.company_row(session, company)
    common.slug("prompt", name)
    await common.require_free(session, PromptRow, "prompt", owner, name)
    row = PromptRow(company_id=owner.id, name=name, **_prompt_values(filename, sha256, seconds))
    common.stamp(row, who)
    session.add(row)
    await session.flush()
    value = prompt_value(row)
    await common.record_change(session, f"add prompt {company}/{name}", who=who, why=why, after=value)
    return value


async def list_prompts(session: AsyncSession, company: str | None = None) -> list[UploadedPrompt]:
    """By company and name.

    :raises NotFoundError: no such company
    """
    statement = (
        select(PromptRow)
        .join(CompanyRow, CompanyRow.id == PromptRow.company_id)
        .order_by(CompanyRow.name, PromptRow.name)
    )
    if company is not None:
        statement = statement.where(PromptRow.company_id == (await common.company_row(session, company)).id)
    return [prompt_value(row) for row in await session.scalars(statement)]


async def get_prompt(session: AsyncSession, name: str, company: str | None = None) -> UploadedPrompt:
    """:raises NotFoundError, InputError: as :func:`get_flow`"""
    return prompt_value((await common.owned_row(session, PromptRow, "prompt", company, name))[0])


async def edit_prompt(
    session: AsyncSession,
    name: str,
    changes: Mapping[str, Any],
    *,
    company: str | None = None,
    who: str,
    why: str = "",
) -> UploadedPrompt:
    """Put another upload under a prompt's name.

    :param changes: any of filename, sha256, seconds
    :raises NotFoundError, InputError: as :func:`get_flow`
    """
    row, owner = await common.owned_row(session, PromptRow, "prompt", company, name)
    before = prompt_value(row)
    current = {"filename": row.filename, "sha256": row.sha256, "seconds": row.seconds}
    values = _prompt_values(**common.merged("prompt", current, changes))
    for key, value in values.items():
        setattr(row, key, value)
    common.stamp(row, who)
    await session.flush()
    after = prompt_value(row)
    what = f"edit prompt {owner.name}/{row.name}"
    await common.record_change(session, what, who=who, why=why, before=before, after=after)
    return after


async def remove_prompt(
    session: AsyncSession, name: str, *, company: str | None = None, who: str, why: str = ""
) -> None:
    """Remove a prompt.

    :raises NotFoundError, InputError: as :func:`get_flow`
    :raises ConflictError: flows play it; the message names them
    """
    row, owner = await common.owned_row(session, PromptRow, "prompt", company, name)
    uses = [f"flow {flow}" for flow in await flows_using(session, owner, prompt=row.name)]
    if uses:
        raise common.in_use("prompt", row.name, uses)
    before = prompt_value(row)
    await session.delete(row)
    await session.flush()
    await common.record_change(session, f"remove prompt {owner.name}/{before.name}", who=who, why=why, before=before)


def _newest() -> Any:
    return (
        select(FlowRow, FlowVersionRow)
        .join(FlowVersionRow, (FlowVersionRow.flow_id == FlowRow.id) & (FlowVersionRow.version == FlowRow.newest))
        .where(FlowRow.removed_at.is_(None))
    )


async def _version(session: AsyncSession, row: FlowRow, number: int | None) -> FlowVersionRow:
    found = await session.scalar(
        select(FlowVersionRow).where(
            FlowVersionRow.flow_id == row.id, FlowVersionRow.version == (row.newest if number is None else number)
        )
    )
    if found is None:
        raise NotFoundError(f"flow {row.name!r} has no version {number}", hint=f"it has 1 to {row.newest}")
    return found


def _references(flow: Flow) -> Iterator[tuple[str, str]]:
    """("target", "group", "prompt" or "flow", name) of everything outside of its text that a flow needs."""
    from callrouter.core.flow.check import prompts_of

    for node in flow.nodes.values():
        if isinstance(node, Dial):
            yield ("target" if node.group is None else "group"), node.rings
        elif isinstance(node, GotoFlow):
            yield "flow", node.flow
        for prompt in prompts_of(node):
            if prompt.file:
                yield "prompt", prompt.file


def _prompt_values(filename: str, sha256: str, seconds: float) -> dict[str, Any]:
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise InputError(f"{sha256!r} is no SHA-256")
    if not seconds > 0:
        raise InputError(f"{filename} holds no audio")
    return {"filename": PurePath(filename).name[:200], "sha256": sha256, "seconds": float(seconds)}
