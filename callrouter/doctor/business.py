"""Checks of the database and of what is configured in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from callrouter.config import Settings
from callrouter.doctor.finding import Check, fail, ok, warn
from callrouter.errors import CallrouterError, FlowError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.core.flow.link import Flows
    from callrouter.core.model import FlowVersion, Trunk

T = TypeVar("T")

BACKLOG_BYTES = 1_000_000
"""More of the journal than this waiting for the database means that it is stuck."""


async def read(settings: Settings, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    from callrouter.store.database import Database

    found = Database(settings.database)
    try:
        async with found.session(read_only=True) as session:
            return await work(session)
    finally:
        await found.dispose()


async def trunks_of(settings: Settings) -> list[Trunk]:
    """:raises DatabaseError: the database cannot be read"""
    from callrouter.store.config import list_trunks

    return await read(settings, list_trunks)


async def database(settings: Settings) -> Check:
    """The database is there, readable and of this version."""
    from callrouter.store.database import Database

    try:
        found = Database(settings.database)
        try:
            async with asyncio.timeout(10):
                state = await found.check()
            if not state.ok:
                error = state.error(found.shown)
                return fail("database", error.message, mend=error.hint)
            return ok("database", f"{found.shown}, revision {state.revision}")
        finally:
            await found.dispose()
    except TimeoutError:
        return fail("database", "it did not answer within 10 s", mend="look at the database server and database_url")
    except CallrouterError as exc:
        return fail("database", exc.message, mend=exc.hint)


async def journal(settings: Settings) -> Check:
    """What calls left in the journal has reached the database."""
    from callrouter.doctor.server import fresh_status
    from callrouter.store.journal import segments

    running = fresh_status(settings)
    if running is not None:
        pending = int(running.get("journal", {}).get("pending") or 0)
        problem = running.get("journal", {}).get("problem")
        if problem:
            return fail("journal", str(problem), cause="calls go on and are kept in memory", mend="look at the disk")
        if pending > BACKLOG_BYTES:
            return fail(
                "journal",
                f"{pending} bytes wait for the database",
                cause="the database does not take them: locked, full or away",
                mend="callrouter db check",
            )
        return ok("journal", "drained" if not pending else f"{pending} bytes on their way")
    kept = await asyncio.to_thread(segments, settings.journal_dir)
    size = sum(path.stat().st_size for _, path in kept if path.exists())
    if len(kept) > 1:
        return warn(
            "journal",
            f"{len(kept)} segments ({size} bytes) wait",
            cause="the server was stopped before it had stored them",
            mend="callrouter serve stores them",
        )
    return ok("journal", "nothing left behind")


async def numbers(settings: Settings) -> list[Check]:
    """Every number is answered, now and when the server is away."""
    from callrouter.store.config import load_config

    try:
        config = await read(settings, load_config)
    except CallrouterError:
        return []  # the database's own check says so
    if not config.numbers:
        return [
            warn("numbers", "there is no tracking number yet", mend="callrouter number add +12025550100 --flow NAME")
        ]
    from callrouter.core.routing import build_table

    table = build_table(config)
    found = []
    for entry in table.entries.values():
        edit = f"callrouter number edit {entry.number.e164}"
        if entry.problem is not None:
            found.append(
                fail(f"number {entry.number.e164}", entry.problem, mend=f"callrouter flow edit {entry.number.flow}")
            )
        elif not entry.backups:
            found.append(
                warn(
                    f"number {entry.number.e164}",
                    "nobody rings when the server is away",
                    cause="it has no backup, and its flow dials nobody",
                    mend=f"{edit} --backup TARGET",
                )
            )
    companies = {company.id: company.name for company in config.companies}
    parsed = {company_id: _parsed(config.flows, company_id) for company_id in companies}
    for flow in config.flows:
        found += _flow(
            companies[flow.company_id],
            flow,
            parsed[flow.company_id],
            [target.name for target in config.targets if target.company_id == flow.company_id],
            [name for company_id, name, _ in config.prompts if company_id == flow.company_id],
            [group.name for group in config.groups if group.company_id == flow.company_id],
            settings,
        )
    return found or [ok("numbers", f"{len(config.numbers)}, all answered")]


def _parsed(versions: Iterable[FlowVersion], company_id: str) -> Flows:
    """Those of a company's flows that can be read."""
    from callrouter.core.flow.link import together
    from callrouter.core.flow.parse import parse_flow

    found = []
    for version in versions:
        if version.company_id == company_id:
            with contextlib.suppress(FlowError):
                found.append(parse_flow(version.text, version.name))
    return together(found)


def _flow(
    company: str,
    flow: FlowVersion,
    flows: Flows,
    targets: list[str],
    prompts: list[str],
    groups: list[str],
    settings: Settings,
) -> list[Check]:
    from callrouter.core.flow.check import check_flow
    from callrouter.core.flow.parse import parse_flow
    from callrouter.core.flow.urls import parse_hosts

    name = f"{company}/{flow.name}"
    try:
        parsed, hosts = parse_flow(flow.text, flow.name), parse_hosts(settings.webhook_hosts)
        findings = check_flow(parsed, targets, prompts, groups, others=flows, hosts=hosts)
    except FlowError as exc:
        return [fail(f"flow {name}", exc.message, mend=f"callrouter flow edit {name}")]
    made = {"error": fail, "warning": warn}
    return [
        made[each.severity](
            f"flow {name}",
            f"node {each.node!r} {each.message}" if each.node else each.message,
            mend=f"callrouter flow edit {name}",
        )
        for each in findings
    ]
