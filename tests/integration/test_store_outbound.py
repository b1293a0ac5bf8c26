"""Legs over trunks, counted from the database and from the journal; on SQLite and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.disposition import LegResult
from callrouter.core.records import CallRecord, Leg
from callrouter.store import config
from callrouter.store.call_save import save_call
from callrouter.store.calls import get_call
from callrouter.store.database import Database
from callrouter.store.journal import Journal
from callrouter.store.outbound import journal_legs, outbound_legs

T = 1_800_000_000.0


def leg(name: str, at: float, **changes: object) -> Leg:
    plain = Leg(name, 1, None, "cell", "PJSIP/+1@trunk-a", at, None, None, at + 30, 16, LegResult.NO_ANSWER, trunk="a")
    return replace(plain, **changes)  # type: ignore[arg-type]


async def test_legs_over_trunks_are_found(database: Database) -> None:
    async with database.session() as session:
        company = await config.add_company(session, name="acme", timezone="UTC", currency="EUR", who="t")
        call = CallRecord("c1", "1.1", None, "+1", None, None, None, T, company_id=company.id)
        legs = (
            leg("l1", T + 1, cost_micros=5000),
            leg("l2", T + 2, seq=2, trunk=None),
            leg("l3", T + 3, seq=3, ended_at=None, result=None, cause=None),
        )
        await save_call(session, replace(call, legs=legs))
        await save_call(session, CallRecord("c2", "1.2", None, "+1", None, None, None, T, legs=(leg("l4", T + 1),)))
        old = replace(call, id="c3", uniqueid="1.3", started_at=T - 9000, legs=(leg("l5", T - 9000),))
        await save_call(session, old)
    async with database.session(read_only=True) as session:
        found = await outbound_legs(session, T - 60)
        assert [(one.id, one.company_id, one.started_at, one.cost) for one in found] == [
            ("l1", company.id, T + 1, 5000),
            ("l3", company.id, T + 3, 0),
        ]
        assert [one.id for one in await outbound_legs(session, T - 60, T + 2.5)] == ["l1", "l3"], "l1 ended since"
        assert [one.id for one in await outbound_legs(session, T - 60, T + 40)] == []
        stored = await get_call(session, "c1")
    assert [(one.trunk, one.cost_micros) for one in stored.record.legs] == [("a", 5000), (None, None), ("a", None)]
    assert (stored.record.cost_micros, stored.currency) == (5000, "EUR")


def test_the_journal_alone_knows_them_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    planned = note.LegPlanned(T + 1, "d", "l1", "t", "cell", "PJSIP/+1@trunk-a", 25, "so", trunk="a", rate=60_000)
    for entry in (
        e.CallArrived(T, "c1", "1.1", "+12025550100", None, None, None),
        note.Routed(T, "ours", company_id="k1"),
        planned,
        e.LegAnswered(T + 5, "l1"),
        e.CallerHungUp(T + 15),
    ):
        journal.append("c1", entry)
    journal.append("c2", e.CallArrived(T, "c2", "1.2", "+12025550100", None, None, None))
    journal.append("c2", note.Routed(T, "ours", company_id="k1"))
    journal.append("c2", replace(planned, leg_id="l2", trunk=None))
    journal.append("c2", replace(planned, leg_id="l3"))
    journal.append("c2", e.DialRefused(T + 1, "l3", "calls", "too many"))
    journal.close()
    assert [(one.id, one.company_id, one.started_at, one.cost) for one in journal_legs(tmp_path)] == [
        ("l1", "k1", T + 1, 10_000)
    ]
