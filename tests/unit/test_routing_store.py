"""Routings in the database: applied in one transaction, taken back, and as they were at any version."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.cli.routing_text import plan_back
from callrouter.core.routing_code.change import Change, changes
from callrouter.core.routing_code.fields import SECTIONS, Key, Routing, complete
from callrouter.errors import CallrouterError, ConflictError, FlowError, NotFoundError
from callrouter.store import config as store
from callrouter.store.database import Database
from callrouter.store.routing_code import apply_changes, current_routing, routing_at
from tests.random_routings import routings
from tests.unit.cli_home import upgraded

__all__ = ["upgraded"]


@pytest.fixture
def database(upgraded: Path, tmp_path: Path) -> Database:
    shutil.copy(upgraded, tmp_path / "callrouter.db")
    return Database(f"sqlite+aiosqlite:///{tmp_path / 'callrouter.db'}")


def plan(before: Routing, after: Routing) -> list[Change]:
    companies = {key.name for key in (*before, *after) if key.kind == "company"}
    covers = {("trunk", ""), *((kind, name) for kind in SECTIONS.values() for name in companies)}
    return changes(before, after, covers)


class Undone(Exception):
    pass


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(routings(), routings())
def test_any_routing_can_follow_any_and_be_restored_exactly(database, first, second):
    async def work() -> None:
        async with database.session() as session:
            await apply_changes(session, plan({}, first), who="a", why="first")
            version, held = await current_routing(session)
            assert held == first
            assert plan(held, first) == [], "what is exported and applied changes nothing"
            await apply_changes(session, plan(held, second), who="b", why="second")
            _, now = await current_routing(session)
            assert {key: values for key, values in now.items() if key in second} == second
            past = await routing_at(session, version)
            assert past.routing == first
            assert past.doubts == ()
            at, planned, _ = await plan_back(session, version)
            assert at == await store.config_version(session)
            await apply_changes(session, planned, who="c", why="back")
            _, restored = await current_routing(session)
            stay = {key: values for key, values in now.items() if key.kind == "company" and key not in first}
            assert restored == {**stay, **first}
            raise Undone

    async def run() -> None:
        with pytest.raises(Undone):
            await work()
        await database.dispose()

    asyncio.run(run())


async def made(session: AsyncSession) -> None:
    await store.add_company(session, name="acme", timezone="UTC", who="a")
    await store.add_campaign(session, "acme", name="radio", source="radio", medium="offline", who="a")
    await store.add_target(session, "acme", name="ana", sip_uri="sip:ana@192.0.2.7", who="a")
    await store.add_number(session, "acme", number="+12025550101", name="one", campaign="radio", target="ana", who="a")


def run(database: Database, work) -> None:
    async def inside() -> None:
        async with database.session() as session:
            await work(session)
        await database.dispose()

    asyncio.run(inside())


def test_what_was_renamed_is_called_as_before_and_is_the_same_thing(database):
    async def work(session: AsyncSession) -> None:
        await made(session)
        version, before = await current_routing(session)
        (campaign,) = await store.list_campaigns(session)
        await store.edit_campaign(session, "radio", {"name": "spring"}, who="b")
        await store.edit_company(session, "acme", {"name": "apex"}, who="b")
        await store.edit_number(session, "one", {"number": "+12025550109"}, who="b")
        _, planned, stays = await plan_back(session, version)
        assert stays == []
        await apply_changes(session, planned, who="c", why="")
        assert (await current_routing(session))[1] == before
        assert await store.list_campaigns(session) == [campaign], "calls are attributed to the same campaign"

    run(database, work)


ONE = """\
start: ask
nodes:
  ask: {type: menu, prompt: Press 1., options: {1: on}, on_exhausted: bye}
  on: {type: goto_flow, flow: two, node: begin}
  bye: {type: hangup}
"""
TWO = """\
start: begin
nodes:
  begin: {type: dial, target: ana, on_busy: back, on_no_answer: back, on_failed: back}
  back: {type: goto_flow, flow: one}
"""


def with_flows(**texts: str) -> Routing:
    found = {Key("flow", "acme", name): {"text": text} for name, text in texts.items()}
    return {key: complete(key.kind, values) for key, values in found.items()}


def test_flows_that_go_on_in_each_other_are_applied_edited_removed_and_restored_together(database):
    async def edited(session: AsyncSession) -> None:
        await made(session)

        async def apply(one: str, two: str, *, backwards: bool = False) -> list[str]:
            _, now = await current_routing(session)
            rest = {key: values for key, values in now.items() if key.kind != "flow"}
            planned = plan(now, {**rest, **with_flows(one=one, two=two)})
            await apply_changes(session, reversed(planned) if backwards else planned, who="b", why="")
            return [change.what for change in planned]

        start = [text.replace("begin", "start") for text in (ONE, TWO)]
        assert await apply(ONE, TWO) == ["add", "add"]
        assert await apply(*start) == ["edit", "edit"]
        assert await apply(ONE, TWO, backwards=True) == ["edit", "edit"]
        with pytest.raises(FlowError, match="goes on at 'begin', which is no node of flow two"):
            await apply(ONE, start[1])
        raise Undone

    async def restored(session: AsyncSession) -> None:
        await made(session)
        version, before = await current_routing(session)
        await apply_changes(session, plan(before, {**before, **with_flows(two=TWO, one=ONE)}), who="b", why="")
        both, with_both = await current_routing(session)
        for name in ("one", "two"):
            with pytest.raises(ConflictError, match="in use by flow"):
                await store.remove_flow(session, name, who="b")
            with pytest.raises(ConflictError, match="goes on in it by name"):
                await store.edit_flow(session, name, {"name": "other"}, who="b")
        _, planned, _ = await plan_back(session, version)
        assert [change.what for change in planned] == ["remove", "remove"]
        await apply_changes(session, planned, who="c", why="back")
        assert (await current_routing(session))[1] == before
        _, planned, _ = await plan_back(session, both)
        await apply_changes(session, planned, who="c", why="and forth")
        assert (await current_routing(session))[1] == with_both
        _, now = await current_routing(session)
        alone = [change for change in plan(now, before) if change.key.name == "two"]
        with pytest.raises(FlowError, match="flow 'one', node 'on': goes on in 'two', which is no flow"):
            await apply_changes(session, alone, who="d", why="")

    with pytest.raises(Undone):
        run(database, edited)
    run(database, restored)


def test_prompts_and_what_the_log_does_not_know_are_told(database):
    async def work(session: AsyncSession) -> None:
        await made(session)
        version = await store.config_version(session)
        await store.add_prompt(session, "acme", name="p", filename="p.wav", sha256="0" * 64, seconds=1, who="a")
        await store.edit_target(session, "ana", {"ring_seconds": 9}, who="a")
        from sqlalchemy import text

        await session.execute(text("UPDATE target SET ring_seconds = 44"))
        session.expire_all()
        doubts = (await routing_at(session, version)).doubts
        assert any("prompt" in doubt and "stays as it is" in doubt for doubt in doubts)
        assert any("edit target acme/ana: what is in force is not what it left behind" in doubt for doubt in doubts)
        with pytest.raises(NotFoundError):
            await routing_at(session, 999)

    run(database, work)


def test_what_is_in_use_is_not_removed(database):
    key = Key("target", "acme", "ana")

    async def work(session: AsyncSession) -> None:
        await made(session)

        def explain(change: Change, exc: CallrouterError) -> CallrouterError:
            return ConflictError(f"at {change.key}: {exc.message}")

        with pytest.raises(ConflictError, match=r"at target acme/ana: .* in use by number one"):
            await apply_changes(session, [Change("remove", key, {}, {})], who="a", why="", explain=explain)
        assert (await store.get_target(session, "ana")).name == "ana"

    run(database, work)
