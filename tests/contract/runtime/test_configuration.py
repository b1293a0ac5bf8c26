"""The routing in force follows the database, whole or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from callrouter.asterisk.render import FAILSAFE_FILE
from callrouter.config import Settings, load_settings
from callrouter.core.model import Trunk
from callrouter.core.routing import RouteToFlow, decide
from callrouter.errors import ConfigError, DatabaseError
from callrouter.media.prompts import PromptLibrary
from callrouter.runtime.configuration import Configuration
from callrouter.store import config
from callrouter.store.database import Database
from tests.contract.runtime.support import Tone, until

DID = "+12025550123"
FLOW = """
start: hi
nodes:
  hi: {type: play, prompt: Hello, next: ring, on_failed: ring}
  ring: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye, whisper: 'A call for {campaign}'}
  bye: {type: hangup}
"""
WHO: dict[str, Any] = {"who": "test"}


class Trunks:
    """Where trunks are applied."""

    def __init__(self) -> None:
        self.applied: list[list[str]] = []
        self.fault: Exception | None = None

    async def __call__(self, trunks: tuple[Trunk, ...]) -> None:
        if self.fault is not None:
            raise self.fault
        self.applied.append([trunk.name for trunk in trunks])


async def change(database: Database, work: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    async with database.session() as session:
        return await work(session, *args, **{**WHO, **kwargs})


@pytest.fixture
async def filled(database: Database) -> Database:
    await change(database, config.add_company, name="acme", timezone="America/New_York")
    await change(database, config.add_trunk, name="carrier", host="sip.example.com")
    await change(database, config.add_target, "acme", name="ana", sip_uri="sip:ana@192.0.2.7", ring_seconds=20)
    await change(database, config.add_target, "acme", name="ben", number="+13125550100", trunk="carrier")
    await change(database, config.add_campaign, "acme", name="radio", source="radio", medium="offline")
    await change(database, config.add_flow, "acme", name="desk", text=FLOW)
    await change(
        database, config.add_number, "acme", number=DID, name="billboard", campaign="radio", flow="desk", backup="ben"
    )
    return database


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(environ={}, home=str(tmp_path))


@pytest.fixture
def trunks() -> Trunks:
    return Trunks()


@pytest.fixture
def configuration(settings: Settings, filled: Database, trunks: Trunks) -> Configuration:
    return Configuration(settings, filled, PromptLibrary(settings.prompts_dir, Tone()), trunks)


@asynccontextmanager
async def watched(configuration: Configuration) -> AsyncIterator[asyncio.Task[None]]:
    await configuration.load()
    task = asyncio.create_task(configuration.watch())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def failsafe(settings: Settings) -> str:
    return (settings.failsafe_dir / FAILSAFE_FILE).read_text("utf-8")


async def test_everything_a_call_needs_is_ready_when_the_table_is(
    configuration: Configuration, settings: Settings, trunks: Trunks
) -> None:
    table = await configuration.load()
    assert configuration.table is table
    assert configuration.problems == ()
    assert len(list(settings.prompts_dir.glob("*.ulaw"))) == 2, "the prompt and the whisper"
    assert trunks.applied == [["carrier"]]
    text = failsafe(settings)
    entry = table.entries[DID]
    assert f"[{DID}]\ndid = {DID}\n" in text
    assert "[12025550123]" in text
    assert "[2025550123]" in text
    for line in (
        "label = billboard",
        f"number = {entry.number.id}",
        f"campaign = {entry.number.campaign_id}",
        f"company = {entry.company.id}",
        "record1 = yes",
        "dest1 = PJSIP/+13125550100@trunk-carrier",
        "ring1 = 25",
        "dest2 = PJSIP/callrouter-uri/sip:ana@192.0.2.7",
        "ring2 = 20",
    ):
        assert f"\n{line}\n" in text, line
    assert (settings.failsafe_dir / FAILSAFE_FILE).stat().st_mode & 0o777 == 0o600


async def test_a_change_is_live_within_a_second_and_all_at_once(
    configuration: Configuration, filled: Database, settings: Settings
) -> None:
    async with watched(configuration):
        old = configuration.table
        assert old is not None
        await change(filled, config.add_number, "acme", number="+12025550199", name="flyer", target="ana")
        committed = time.monotonic()
        await until(lambda: configuration.table is not old, "the new table")
        assert time.monotonic() - committed < 1.0
        assert configuration.table is not None
        assert set(configuration.table.entries) == {DID, "+12025550199"}
        assert configuration.table.version == old.version + 1
        assert "[+12025550199]" in failsafe(settings)
        assert set(old.entries) == {DID}, "who uses the old one is not disturbed"


async def test_a_flow_that_is_broken_rings_the_backup_and_is_told(
    configuration: Configuration, filled: Database, settings: Settings
) -> None:
    from sqlalchemy import update

    from callrouter.store.models import FlowVersionRow

    async with filled.session() as session:
        await session.execute(update(FlowVersionRow).values(text="start: nowhere\nnodes: {}\n"))
    table = await configuration.load()
    (problem,) = configuration.problems
    assert problem.where == DID
    assert "desk@1 does not hold together" in problem.message
    decision = decide(table, DID)
    assert isinstance(decision, RouteToFlow)
    assert decision.entry.backups[0].target.name == "ben"
    assert "dest1 = PJSIP/+13125550100@trunk-carrier" in failsafe(settings)


async def test_a_prompt_that_cannot_be_made_is_told_and_calls_go_on(
    configuration: Configuration, filled: Database
) -> None:
    await change(filled, config.edit_flow, "desk", {"text": FLOW.replace("prompt: Hello", "prompt: '...'")})
    table = await configuration.load()
    assert [problem.where for problem in configuration.problems] == ["prompt"]
    assert table.entries[DID].problem is None


async def test_a_failsafe_file_that_cannot_be_written_is_told(configuration: Configuration, settings: Settings) -> None:
    settings.failsafe_dir.write_text("in the way")
    table = await configuration.load()
    assert [problem.where for problem in configuration.problems] == ["failsafe"]
    assert configuration.table is table


async def test_numbers_that_are_off_or_have_nobody_to_ring_are_not_in_the_failsafe(
    configuration: Configuration, filled: Database, settings: Settings
) -> None:
    await change(filled, config.edit_number, DID, {"active": False})
    await configuration.load()
    assert "[" not in failsafe(settings)


async def test_while_the_database_is_away_the_old_table_stays_and_then_the_new_one_comes(
    configuration: Configuration, filled: Database, settings: Settings
) -> None:
    assert filled.path is not None
    away = filled.path.with_name("away.db")
    async with watched(configuration) as task:
        table = configuration.table
        await change(filled, config.edit_target, "ana", {"ring_seconds": 33})
        await until(lambda: configuration.table is not table, "the change")
        table = configuration.table
        filled.path.rename(away)
        with pytest.raises(DatabaseError):
            await configuration.load()
        assert configuration.table is table
        assert not task.done()
        away.rename(filled.path)
        await change(filled, config.edit_target, "ana", {"ring_seconds": 34})
        await until(lambda: configuration.table is not table, "the change after the trouble")
        assert "ring2 = 34" in failsafe(settings)


async def test_trunks_that_did_not_change_are_not_applied_again(
    configuration: Configuration, filled: Database, trunks: Trunks
) -> None:
    await configuration.load()
    await change(filled, config.add_target, "acme", name="cy", sip_uri="sip:cy@192.0.2.8")
    await configuration.load()
    assert trunks.applied == [["carrier"]]
    await change(filled, config.add_trunk, name="second", host="sip2.example.com")
    await configuration.load()
    assert trunks.applied == [["carrier"], ["carrier", "second"]]


@pytest.mark.parametrize("fault", [ConfigError("no Asterisk found"), PermissionError(13, "Permission denied")])
async def test_trunks_that_cannot_be_applied_are_told_and_tried_again(
    configuration: Configuration, trunks: Trunks, fault: Exception
) -> None:
    trunks.fault = fault
    table = await configuration.load()
    assert [problem.where for problem in configuration.problems] == ["trunks"]
    assert configuration.table is table
    trunks.fault = None
    await configuration.load()
    assert configuration.problems == ()
    assert trunks.applied == [["carrier"]]
