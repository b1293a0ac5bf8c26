# ruff: noqa: E501 (the table of refusals reads best with one refusal a line)
"""The configuration in the database: changes, refusals, the audit log; on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from callrouter.core import events as e
from callrouter.core.model import CallerIdMode
from callrouter.core.routing import build_table
from callrouter.errors import CallrouterError, ConflictError, FlowError, InputError, NotFoundError
from callrouter.runtime.recovery import begun_with, rebuild
from callrouter.store import config
from callrouter.store.config import ConfigSnapshot
from callrouter.store.database import Database
from tests.builders import CALL, T0, arrived, run

FLOW = """
start: ring
nodes:
  ring: {type: dial, target: desk, on_busy: bye, on_no_answer: bye, on_failed: bye}
  bye: {type: hangup}
"""
WHO: dict[str, Any] = {"who": "ana"}


@pytest.fixture
async def filled(database: Database) -> Database:
    async with database.session() as s:
        await config.add_company(s, name="acme", timezone="America/New_York", **WHO)
        await config.add_company(s, name="berliner", timezone="Europe/Berlin", country="DE", currency="EUR", **WHO)
        await config.add_trunk(s, name="carrier", host="sip.example.com", **WHO)
        await config.add_target(s, "acme", name="desk", number="(202) 555-0123", trunk="carrier", **WHO)
        await config.add_target(s, "berliner", name="desk", sip_uri="sip:desk@192.0.2.10:5070", **WHO)
        await config.add_campaign(s, "acme", name="radio", source="radio", medium="offline", **WHO)
        await config.add_flow(s, "acme", name="front", text=FLOW, **WHO)
        await config.add_number(
            s, "acme", number="202 555 0100", name="spring", campaign="radio", flow="front", backup="desk", **WHO
        )
        await config.add_number(s, "berliner", number="030 901820", name="plakat", target="desk", **WHO)
    return database


async def change(database: Database, work: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    async with database.session() as session:
        return await work(session, *args, **{**WHO, **kwargs})


async def look(database: Database, work: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    async with database.session(read_only=True) as session:
        return await work(session, *args, **kwargs)


async def test_what_was_added_is_loaded_as_one_snapshot(filled: Database) -> None:
    loaded: ConfigSnapshot = await look(filled, config.load_config)
    assert [company.name for company in loaded.companies] == ["acme", "berliner"]
    assert loaded.version == 1 + 9
    spring = next(number for number in loaded.numbers if number.name == "spring")
    assert (spring.e164, spring.flow, spring.target, spring.backup) == ("+12025550100", "front", None, "desk")
    assert spring.campaign_id == loaded.campaigns[0].id
    assert {target.number or target.sip_uri for target in loaded.targets} == {
        "+12025550123",
        "sip:desk@192.0.2.10:5070",
    }
    assert next(number.e164 for number in loaded.numbers if number.name == "plakat") == "+4930901820"
    assert [(flow.name, flow.version) for flow in loaded.flows] == [("front", 1)]


async def test_a_snapshot_takes_as_many_queries_for_much_as_for_little(filled: Database) -> None:
    count = 0

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1

    event.listen(filled.engine.sync_engine, "before_cursor_execute", counted)
    await look(filled, config.load_config)
    before, count = count, 0
    for number in range(20):
        await change(filled, config.add_target, "acme", name=f"t{number}", sip_uri=f"sip:t{number}@192.0.2.1")
        await change(
            filled, config.add_number, "acme", number=f"+1202555{1000 + number}", name=f"n{number}", target="desk"
        )
    count = 0
    await look(filled, config.load_config)
    assert count == before
    count = 0
    await look(filled, config.config_version)
    assert count <= 2


async def test_every_change_moves_the_version_and_is_in_the_audit_log(filled: Database) -> None:
    before = await look(filled, config.config_version)
    await change(filled, config.edit_number, "spring", {"active": False}, who="bo", why="lease ended")
    assert await look(filled, config.config_version) == before + 1
    last = (await look(filled, config.list_changes, limit=1))[0]
    assert (last.version, last.who, last.why) == (before + 1, "bo", "lease ended")
    assert last.what == "edit number acme/spring +12025550100"
    assert (last.before["active"], last.after["active"]) == (True, False)


async def test_a_change_that_fails_leaves_no_trace(filled: Database) -> None:
    before = await look(filled, config.load_config)

    async def add_then_fail() -> None:
        async with filled.session() as session:
            await config.add_company(session, name="third", timezone="UTC", **WHO)
            await config.add_company(session, name="acme", timezone="UTC", **WHO)

    with pytest.raises(ConflictError):
        await add_then_fail()
    assert await look(filled, config.load_config) == before


async def test_two_changes_at_once_are_both_kept(filled: Database) -> None:
    before = await look(filled, config.config_version)
    await asyncio.gather(
        *(change(filled, config.add_company, name=f"c{number}", timezone="UTC") for number in range(8))
    )
    assert await look(filled, config.config_version) == before + 8


async def test_the_same_number_added_twice_at_once_is_kept_once(filled: Database) -> None:
    async def add(name: str) -> Any:
        return await change(filled, config.add_number, "acme", number="+12025550177", name=name, target="desk")

    results = await asyncio.gather(*(add(f"n{number}") for number in range(4)), return_exceptions=True)
    assert sum(isinstance(result, ConflictError) for result in results) == 3


async def test_a_change_prepared_on_an_older_version_is_refused(filled: Database) -> None:
    seen = await look(filled, config.config_version)
    await change(filled, config.edit_company, "acme", {"record": False})

    async def late() -> None:
        async with filled.session() as session:
            await config.lock_config(session, seen)

    with pytest.raises(ConflictError, match="changed meanwhile"):
        await late()


C = "acme"
REFUSALS: list[tuple[str, Callable[..., Awaitable[Any]], tuple[Any, ...], dict[str, Any], type[CallrouterError], str, str]] = [
    ("company taken", config.add_company, (), {"name": C, "timezone": "UTC"}, ConflictError, "already", "another name"),
    ("bad slug", config.add_company, (), {"name": "Acme Inc.", "timezone": "UTC"}, InputError, "name", "'acme-inc'"),
    ("zone", config.add_company, (), {"name": "x", "timezone": "america/new york"}, InputError, "zone", "America/New_York"),
    ("offset", config.add_company, (), {"name": "x", "timezone": "+02:00"}, InputError, "zone", "Europe/Berlin"),
    ("country", config.add_company, (), {"name": "x", "timezone": "UTC", "country": "USA"}, InputError, "country", "US"),
    ("currency", config.add_company, (), {"name": "x", "timezone": "UTC", "currency": "€"}, InputError, "currency", "USD"),
    ("company used", config.remove_company, (C,), {}, ConflictError, "number spring, target desk, flow front", ""),
    ("no company", config.get_company, ("acmee",), {}, NotFoundError, "acmee", "acme"),
    ("campaign used", config.remove_campaign, ("radio",), {}, ConflictError, r"spring \(\+12025550100\)", ""),
    ("campaign taken", config.add_campaign, (C,), {"name": "radio", "source": "a", "medium": "b"}, ConflictError, "radio", ""),
    ("no source", config.add_campaign, (C,), {"name": "tv", "source": " ", "medium": "b"}, InputError, "source", ""),
    ("no campaign", config.get_campaign, ("rodio",), {}, NotFoundError, "rodio", "radio"),
    ("trunk used", config.remove_trunk, ("carrier",), {}, ConflictError, "target acme/desk", ""),
    ("trunk taken", config.add_trunk, (), {"name": "carrier", "host": "h"}, ConflictError, "carrier", ""),
    ("host", config.add_trunk, (), {"name": "x", "host": "sip:h:5060"}, InputError, "host name", ""),
    ("address", config.add_trunk, (), {"name": "x", "host": "300.1.1.1"}, InputError, "address", ""),
    ("injection", config.add_trunk, (), {"name": "x", "host": "h\n[evil]"}, InputError, "host name", ""),
    ("user", config.add_trunk, (), {"name": "x", "host": "h", "username": "a\nb=c"}, InputError, "user name", ""),
    ("registers", config.add_trunk, (), {"name": "x", "host": "h", "registers": True}, InputError, "user name", ""),
    ("fixed id", config.add_trunk, (), {"name": "x", "host": "h", "caller_id": "fixed"}, InputError, "number", "--fixed"),
    ("transport", config.add_trunk, (), {"name": "x", "host": "h", "transport": "sctp"}, InputError, "sctp", "udp"),
    ("mode", config.add_trunk, (), {"name": "x", "host": "h", "caller_id": "none"}, InputError, "caller-id", "fixed"),
    ("port", config.add_trunk, (), {"name": "x", "host": "h", "port": 70000}, InputError, "70000", ""),
    ("trunk name", config.edit_trunk, ("carrier", {"name": "other"}), {}, InputError, "name", ""),
    ("both", config.add_target, (C,), {"name": "x", "number": "2025550123", "sip_uri": "sip:a@b"}, InputError, "both", ""),
    ("nowhere", config.add_target, (C,), {"name": "x"}, InputError, "nowhere", ""),
    ("no trunk", config.add_target, (C,), {"name": "x", "number": "2025550123"}, InputError, "no trunk", "--trunk"),
    ("which trunk", config.add_target, (C,), {"name": "x", "number": "2025550123", "trunk": "carier"}, NotFoundError, "carier", "carrier"),
    ("uri", config.add_target, (C,), {"name": "x", "sip_uri": "sip:host"}, InputError, "SIP URI", ""),
    ("uri trick", config.add_target, (C,), {"name": "x", "sip_uri": "sip:a@b,PJSIP/c"}, InputError, "host name", ""),
    ("ring", config.add_target, (C,), {"name": "x", "sip_uri": "sip:a@b", "ring_seconds": 0}, InputError, "range", ""),
    ("digits", config.add_target, (C,), {"name": "x", "number": "call me", "trunk": "carrier"}, InputError, "not a tele", ""),
    ("target used", config.remove_target, ("acme/desk",), {}, ConflictError, r"as backup\), flow front", ""),
    ("target named", config.edit_target, ("acme/desk", {"name": "x"}), {}, ConflictError, "front", ""),
    ("which one", config.get_target, ("desk",), {}, InputError, "several", "acme/desk or berliner/desk"),
    ("taken", config.add_number, ("berliner",), {"number": "+12025550100", "name": "x", "target": "desk"}, ConflictError, "'spring' of company 'acme'", ""),
    ("name taken", config.add_number, (C,), {"number": "+12025550188", "name": "spring", "target": "desk"}, ConflictError, "spring", ""),
    ("unparseable", config.add_number, (C,), {"number": "12345", "name": "x", "target": "desk"}, InputError, "12345", "country code"),
    ("no way", config.add_number, (C,), {"number": "+12025550188", "name": "x"}, InputError, "neither", "--flow"),
    ("two ways", config.add_number, (C,), {"number": "+12025550188", "name": "x", "flow": "front", "target": "desk"}, InputError, "both", ""),
    ("other's", config.add_number, ("berliner",), {"number": "+493012345", "name": "x", "flow": "front"}, NotFoundError, "front", "none yet"),
    ("no number", config.get_number, ("+12025550101",), {}, NotFoundError, "no number", "+12025550100"),
    ("field", config.edit_number, ("spring", {"colour": "red"}), {}, InputError, "colour", "campaign"),
    ("nothing", config.edit_company, (C, {}), {}, InputError, "nothing to change", ""),
    ("flow used", config.remove_flow, ("front",), {}, ConflictError, "number spring", ""),
    ("flow taken", config.add_flow, (C,), {"name": "front", "text": FLOW}, ConflictError, "front", ""),
    ("missing target", config.add_flow, ("berliner",), {"name": "f", "text": FLOW.replace("desk", "dsk")}, FlowError, "'dsk'", "desk"),
    ("bad flow", config.edit_flow, ("front", {"text": "start: ["}), {}, FlowError, "line", ""),
    ("version", config.get_flow, ("front",), {"version": 7}, NotFoundError, "version 7", "1 to 1"),
]  # fmt: skip


@pytest.mark.parametrize("work,args,kwargs,error,says,hint", [r[1:] for r in REFUSALS], ids=[r[0] for r in REFUSALS])
async def test_refused_with_a_reason(
    filled: Database,
    work: Callable[..., Awaitable[Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    error: type[CallrouterError],
    says: str,
    hint: str,
) -> None:
    before = await look(filled, config.load_config)
    do = look if work.__name__.startswith("get_") else change
    with pytest.raises(error, match=says) as caught:
        await do(filled, work, *args, **kwargs)
    assert hint in (caught.value.hint or "")
    assert await look(filled, config.load_config) == before


async def test_a_number_is_found_by_any_spelling_and_by_name(filled: Database) -> None:
    for ref in ("+12025550100", "(202) 555-0100", "spring", "acme/spring"):
        assert (await look(filled, config.get_number, ref)).e164 == "+12025550100"


async def test_giving_a_number_a_target_takes_its_flow_away(filled: Database) -> None:
    number = await change(filled, config.edit_number, "spring", {"target": "desk"})
    assert (number.flow, number.target) == (None, "desk")
    number = await change(filled, config.edit_number, "spring", {"flow": "front"})
    assert (number.flow, number.target) == ("front", None)
    assert await look(filled, config.get_number, "spring") == number


async def test_giving_a_target_a_sip_uri_takes_its_number_away(filled: Database) -> None:
    target = await change(filled, config.edit_target, "acme/desk", {"sip_uri": "sip:front@192.0.2.1"})
    assert (target.number, target.trunk, target.sip_uri) == (None, None, "sip:front@192.0.2.1")
    assert await look(filled, config.get_target, "acme/desk") == target


async def test_a_trunk_keeps_what_it_was_given(filled: Database) -> None:
    trunk = await change(
        filled,
        config.add_trunk,
        name="full",
        host="2001:db8::1",
        preset="twilio",
        port=5061,
        transport="tls",
        match=["192.0.2.0/24", "198.51.100.7", "sip.example.com"],
        registers=True,
        username="user",
        codecs=["ULAW", "g722"],
        caller_id=CallerIdMode.FIXED,
        fixed_caller_id="202 555 0199",
        number_format="national",
        qualify_seconds=0,
    )
    assert trunk.fixed_caller_id == "+12025550199"
    assert trunk.codecs == ("ulaw", "g722")
    assert await look(filled, config.get_trunk, "full") == trunk
    edited = await change(filled, config.edit_trunk, "full", {"port": 5060})
    assert edited == replace(trunk, port=5060)


async def test_a_flow_keeps_all_its_versions(filled: Database) -> None:
    first = await look(filled, config.get_flow, "front")
    version = await look(filled, config.config_version)
    assert await change(filled, config.edit_flow, "front", {"text": FLOW}) == first
    assert await look(filled, config.config_version) == version
    second = await change(filled, config.edit_flow, "front", {"text": FLOW + "title: Front\n"}, why="a title")
    assert (second.version, second.flow_id) == (2, first.flow_id)
    assert [v.flow.version for v in await look(filled, config.flow_versions, "front")] == [2, 1]
    assert await look(filled, config.get_flow, "front", version=1) == first
    assert (await look(filled, config.load_config)).flows == (second,)


MENU = """
start: ask
nodes:
  ask: {type: menu, prompt: Press 1., options: {1: on}, on_exhausted: bye}
  on: {type: goto_flow, flow: night}
  bye: {type: hangup}
"""


async def test_a_call_is_rebuilt_with_the_versions_of_all_flows_that_it_began_with(filled: Database) -> None:
    night = await change(filled, config.add_flow, "acme", name="night", text=FLOW)
    await change(filled, config.edit_flow, "front", {"text": MENU})
    before = build_table(await look(filled, config.load_config))
    (did,) = [did for did, entry in before.entries.items() if entry.number.name == "spring"]
    call = run(before, [arrived(did=did), e.Digit(T0 + 1, "1")])
    assert (call.session.node, call.session.path) == ("night/ring", "night@1/ring")

    await change(filled, config.edit_flow, "night", {"text": FLOW.replace("start: ring", "start: bye")})
    only_night = build_table(await look(filled, config.load_config))
    # Both are another flow's now, and the first one's jump is gone: its old texts name the old names.
    await change(filled, config.edit_flow, "front", {"text": FLOW})
    await change(filled, config.edit_flow, "night", {"name": "late"})
    await change(filled, config.edit_flow, "front", {"name": "desk"})
    moved = build_table(await look(filled, config.load_config))
    for now in (only_night, moved):
        assert now.entries[did].flow_versions != before.entries[did].flow_versions
        find = await begun_with({CALL: call.log}, now, None, filled)
        then, same = find(call.log)
        assert same
        session, _ = rebuild(CALL, call.log, then)
        assert (session.wait, session.node) == (call.session.wait, "night/ring")
        assert session.path == "night@1/ring"
        assert then.entries[did].linked[1].version_id == night.id
        find = await begun_with({CALL: call.log}, now, None, None)
        assert find(call.log) == (now, False), "without the database there are no texts"


async def test_a_removed_flow_gives_its_name_free_and_keeps_its_text(filled: Database) -> None:
    first = await look(filled, config.get_flow, "front")
    await change(filled, config.edit_number, "spring", {"target": "desk"})
    await change(filled, config.remove_flow, "front")
    assert await look(filled, config.list_flows) == []
    again = await change(filled, config.add_flow, "acme", name="front", text=FLOW)
    assert again.flow_id != first.flow_id
    assert await look(filled, config.get_flow_version, first.id) == first


async def test_a_removed_campaign_gives_its_name_free(filled: Database) -> None:
    await change(filled, config.edit_number, "spring", {"campaign": None})
    await change(filled, config.remove_campaign, "radio")
    assert await look(filled, config.list_campaigns) == []
    await change(filled, config.add_campaign, "acme", name="radio", source="radio", medium="offline")


async def test_a_prompt_that_a_flow_plays_cannot_be_removed(filled: Database) -> None:
    prompt = await change(
        filled, config.add_prompt, "acme", name="hello", filename="/tmp/Hello.wav", sha256="a" * 64, seconds=2.5
    )
    assert prompt.filename == "Hello.wav"
    text = """
start: hi
nodes:
  hi: {type: play, prompt: {file: hello}, next: bye, on_failed: bye}
  bye: {type: hangup}
"""
    await change(filled, config.add_flow, "acme", name="greet", text=text)
    with pytest.raises(ConflictError, match="flow greet"):
        await change(filled, config.remove_prompt, "hello")
    loaded = await look(filled, config.load_config)
    assert loaded.prompts == ((prompt.company_id, "hello", "a" * 64),)
    await change(filled, config.edit_prompt, "hello", {"sha256": "b" * 64})
    await change(filled, config.remove_flow, "greet")
    await change(filled, config.remove_prompt, "hello")
    assert await look(filled, config.list_prompts) == []


async def test_everything_can_be_taken_away_again_in_order(filled: Database) -> None:
    for number in ("spring", "plakat"):
        await change(filled, config.remove_number, number)
    await change(filled, config.remove_target, "desk", company="berliner")
    await change(filled, config.remove_company, "berliner")
    await change(filled, config.remove_flow, "front")
    await change(filled, config.remove_target, "desk")
    await change(filled, config.remove_trunk, "carrier")
    await change(filled, config.remove_campaign, "radio")
    with pytest.raises(ConflictError, match="kept for the record"):
        await change(filled, config.remove_company, "acme")
