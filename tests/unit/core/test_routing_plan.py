"""The plan of a change against brute force: every quarter of an hour, class of caller and key, by what runs calls."""

from __future__ import annotations

import bisect
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core.branches import branch
from callrouter.core.clocks import DAY, midnight
from callrouter.core.flow import nodes as n
from callrouter.core.hours import is_open, open_spans
from callrouter.core.model import Member, Strategy, TargetGroup
from callrouter.core.routing import RoutingTable, build_table
from callrouter.core.routing_code.callers import CallerClass, classes
from callrouter.core.routing_code.plan import Difference, Plan, make_plan
from callrouter.core.routing_code.tables import NOTHING, WRONG
from callrouter.core.routing_code.windows import Period, merged, periods
from callrouter.core.simulate import ANY, Answer, Inputs, simulate
from callrouter.core.snapshot import ConfigSnapshot
from callrouter.core.state import Session
from tests.builders import DID, campaign, company, number, snapshot, table, target, trunk, version

MONDAY = datetime(2026, 11, 23, tzinfo=ZoneInfo("America/New_York")).timestamp()
QUARTER = 900.0
ANSWERS = (
    (),
    ((ANY, (Answer.BUSY,)),),
    (("ana", (Answer.FAILED,)), ("ben", (Answer.NO_ANSWER,))),
    (("ana", (Answer.NO_ANSWER,)), ("ben", (Answer.FAILED,))),
)
KEYS = ((), ("1",), ("2",), ("9",), ("", "2"), ("9", "2"), ("2", "2"), ("1", "1"))
ZONES = (
    ("Australia/Lord_Howe", "AU", "2027-04-04", "2026-10-04"),
    ("America/New_York", "US", "2026-11-01", "2027-03-14"),
    ("Europe/Dublin", "IE", "2026-10-25", "2027-03-28"),
    ("America/Santiago", "CL", "2027-04-04", "2026-09-06"),
)
"""With the dates on which the clocks are put back, and forward."""


Wrong = tuple[str, str, tuple[str, ...], bool]
Known = dict[tuple[int, CallerClass, float, tuple[str, ...]], list[object]]


def becomes(routing: RoutingTable, caller: CallerClass, at: float, keys: tuple[str, ...], known: Known) -> list[object]:
    """What becomes of such calls, whoever answers or does not: whom they ring, what is taken, how they are hung up."""
    place = (id(routing), caller, at, keys)
    if place in known:
        return known[place]
    found: list[object] = []
    asked = False
    for answers in ANSWERS:
        made = simulate(routing, DID, caller.caller, at, Inputs(keys, answers, history=caller.history(at)))
        dialled = [leg.endpoint for leg in made.record.legs]
        found.append((dialled, [ref.kind for ref in made.record.recordings], made.cause))
        asked = asked or bool({"menu", "more"} & {*made.record.path})
    known[place] = found
    if not asked:  # then it is all the same what is pressed
        known.update({(*place[:3], other): found for other in KEYS})
    return found


def claimed(found: Plan, label: str, keys: Sequence[str]) -> list[float]:
    """When, by a plan, such calls go elsewhere: begin, end, begin …"""
    spans = merged(
        span
        for change in found.changes
        for one in change.differences
        if (not one.callers or label in one.callers) and fits(one, keys)
        for span in one.spans
    )
    return [edge for span in spans for edge in span]


def fits(one: Difference, keys: Sequence[str]) -> bool:
    """In flows that ask each thing once, where a choice is a round."""
    for (alike, known, _), pressed in zip(one.choices, [*keys, "", "", ""], strict=False):
        if (pressed or NOTHING) not in alike and not (pressed and pressed not in known and WRONG in alike):
            return False
    return True


def disagreements(was: RoutingTable, will: RoutingTable, now: float, days: int) -> tuple[int, list[Wrong]]:
    """Where plan and calls disagree, of how many calls that go elsewhere."""
    found = make_plan(was, will, now, days)
    zone = will.entries[DID].company.timezone
    begin = midnight(zone, now)
    end = midnight(zone, begin + days * DAY + DAY / 2)
    callers = classes([was.entries[DID], will.entries[DID]])
    calls = list(itertools.product(callers, KEYS))
    claims = {call: claimed(found, call[0].label, call[1]) for call in calls}
    memory: dict[object, bool] = {}
    known: Known = {}
    elsewhere = 0
    wrong: list[Wrong] = []
    texts = {
        (node.open, node.timezone or zone)
        for side in (was, will)
        for node in side.entries[DID].flow.nodes.values()
        if isinstance(node, n.Hours)
    }
    for step in range(int((end - begin) / QUARTER)):
        at = begin + step * QUARTER
        # Hours alone tell moments apart; what calls come to is asked once for each way in which they stand.
        stand = tuple(is_open(text, of, at, will.entries[DID].company.country) for text, of in sorted(texts))
        for caller, keys in calls:
            cell = (stand, caller, keys)
            if cell not in memory:
                memory[cell] = becomes(was, caller, at, keys, known) != becomes(will, caller, at, keys, known)
            elsewhere += memory[cell]
            if memory[cell] != (bisect.bisect_right(claims[caller, keys], at) % 2 == 1):
                wrong.append((datetime.fromtimestamp(at, UTC).isoformat(), caller.label, keys, memory[cell]))
    return elsewhere, wrong


def a_flow(
    hours: str, opened: str, closed: str, options: str, exhausted: str, ana: str, first: str = "hours", days: int = 30
) -> str:
    return f"""
start: {first}
nodes:
  geo: {{type: geo, areas: [{{country: US, area_code: 212, next: {closed}}}, {{country: US, next: hours}}],
         on_other: {opened}, on_unknown: hours}}
  caller: {{type: caller, within_days: {days}, tags: vip, on_known: {opened}, on_first_time: hours,
           on_repeat: {exhausted}, on_other: hours, on_anonymous: {closed}}}
  hours: {{type: hours, open: "{hours}", on_open: {opened}, on_closed: {closed}}}
  menu: {{type: menu, prompt: "Hello.", max_tries: 1, options: {{{options}}}, on_exhausted: {exhausted}}}
  more: {{type: menu, prompt: "More.", max_tries: 1, options: {{2: ben}}, on_exhausted: vm}}
  ana: {{type: dial, target: ana, on_busy: {ana}, on_no_answer: vm, on_failed: {ana}}}
  ben: {{type: dial, target: ben, on_busy: vm, on_no_answer: bye, on_failed: vm}}
  vm: {{type: voicemail, greeting: "Speak.", on_failed: bye}}
  bye: {{type: hangup}}
  sorry: {{type: hangup, cause: busy}}
"""


places = st.sampled_from(["menu", "ana", "ben", "vm", "bye", "sorry"])
flows = st.builds(
    a_flow,
    st.sampled_from(["Mo-Fr 08:00-18:00; PH off", "Mo-Sa 08:00-12:00,13:00-18:00", "Mo-Fr 22:00-06:00", "24/7"]),
    places,
    places,
    st.sampled_from(["1: ana", "1: ana, 2: vm", "1: vm, 2: more", "2: ana", "1: ben, 9: more"]),
    st.sampled_from(["ana", "vm", "bye", "more"]),
    st.sampled_from(["ben", "vm", "bye"]),
    st.sampled_from(["hours", "geo", "caller"]),
    st.sampled_from([30, 90]),
)


@settings(max_examples=8, deadline=None)
@given(was=flows, will=flows)
def test_a_plan_tells_exactly_the_calls_that_go_elsewhere(was: str, will: str) -> None:
    before, after = table(was), table(will)
    assert before.entries[DID].problem is None
    assert disagreements(before, after, MONDAY + 2 * DAY, 4)[1] == []  # with Thanksgiving and a Saturday


CLOSED_AT_LUNCH = a_flow("Mo-Sa 01:30-02:10,12:00-12:30", "ana", "vm", "1: ben", "vm", "ben")
OPEN_LONGER = a_flow("Mo-Su 01:30-02:40,12:00-13:00; PH off", "ana", "vm", "1: ben", "vm", "ben")


@pytest.mark.parametrize("zone, country, back, forward", ZONES)
def test_a_plan_is_exact_where_clocks_change(zone: str, country: str, back: str, forward: str) -> None:
    """Also in the hour that comes twice, or in Lord Howe the half hour, and in the one that is left out."""
    of = company(timezone=zone, country=country)
    was, will = table(CLOSED_AT_LUNCH, of=of), table(OPEN_LONGER, of=of)
    for day in (back, forward):
        now = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(zone)).timestamp() - 2 * DAY
        elsewhere, wrong = disagreements(was, will, now, 5)
        assert elsewhere > 0
        assert wrong == []


@pytest.mark.parametrize("zone, country, back, forward", ZONES)
def test_what_is_said_of_times_is_when_it_is(zone: str, country: str, back: str, forward: str) -> None:
    """Weeks and dates, read again as times of the wall clock, are the stretches of time that they were made from."""
    begin = midnight(zone, datetime.fromisoformat(f"{min(back, forward)}T12:00+00:00").timestamp() - 40 * DAY)
    end = midnight(zone, begin + 400 * DAY + DAY / 2)
    for text in ("Mo-Fr 01:30-02:10; PH off", "Mo-Su 22:00-06:00", "Apr-Sep Sa 12:00-13:00; Oct-Mar Sa 10:00-11:00"):
        spans = open_spans(text, zone, begin, end, country)
        found = periods(spans, zone, begin, end)
        edges = [edge for span in spans for edge in span]
        at = begin
        while at < end:
            assert (bisect.bisect_right(edges, at) % 2 == 1) is by_words(found, at, zone), (text, at)
            at += QUARTER


def by_words(found: tuple[Period, ...], at: float, zone: str) -> bool:
    wall = datetime.fromtimestamp(at, ZoneInfo(zone))
    second = 3600 * wall.hour + 60 * wall.minute + wall.second
    period = next(each for each in found if each.first <= wall.date() <= each.last)
    pattern = dict(period.otherwise).get(wall.date(), period.week[wall.weekday()])
    return any(part.begin <= second < part.end and part.turn in (0, wall.fold + 1) for part in pattern)


def words(was: RoutingTable, will: RoutingTable, days: int = 400) -> list[str]:
    """What a plan says, sorted."""
    made = make_plan(was, will, MONDAY, days)
    told = [one.words() for change in made.changes for one in change.differences]
    return sorted([*told, *(one.words() for change in made.changes for one in change.attributes)])


def test_weekly_hours_are_told_as_such_with_their_exceptions() -> None:
    before = a_flow("Mo-Sa 08:00-18:00; PH off", "ana", "vm", "1: ben", "vm", "vm")
    after = a_flow("Mo-Fr 08:00-18:00; Sa 08:00-12:00,13:00-18:00; PH off", "ana", "vm", "1: ben", "vm", "vm")
    assert words(table(before), table(after)) == [
        "Saturdays 12:00–13:00: was Ana, then voicemail, will be voicemail",
    ]


def test_seasons_are_told_as_periods() -> None:
    before = a_flow("Mo-Fr 08:00-18:00", "ana", "vm", "1: ben", "vm", "vm")
    after = a_flow("Apr-Sep Mo-Fr 08:00-19:00; Oct-Mar Mo-Fr 08:00-18:00", "ana", "vm", "1: ben", "vm", "vm")
    assert words(table(before), table(after)) == [
        "2027-04-01 to 2027-09-30: Mon–Fri 18:00–19:00: was voicemail, will be Ana, then voicemail",
    ]


def test_callers_and_keys_are_told() -> None:
    before = a_flow("24/7", "menu", "vm", "1: ana, 2: vm", "vm", "vm", "geo")
    after = a_flow("24/7", "menu", "vm", "1: ben, 2: vm, 3: ana", "vm", "vm", "geo")
    who = "at any time, all but callers from US 212 who press"
    assert words(table(before), table(after)) == [
        f"{who} 1: was Ana, then voicemail, will be Ben (busy or failed: voicemail)",
        f"{who} 3: was voicemail, will be Ana, then voicemail",
        "without a server rings: was Ana, will be Ben, Ana",
    ]


SPLIT = """
start: split
nodes:
  split: {{type: split, branches: {{a: {a}, b: {b}}}}}
  a: {{type: dial, target: ana, on_busy: end, on_no_answer: end, on_failed: end}}
  b: {{type: dial, target: ben, on_busy: end, on_no_answer: end, on_failed: end}}
  end: {{type: hangup}}
"""


def test_chance_is_compared_by_percent_and_said_to_be_undecided() -> None:
    before = table(SPLIT.format(a=60, b=40))
    made = make_plan(before, table(SPLIT.format(a=50, b=50)), MONDAY)
    (difference,) = made.changes[0].differences
    assert (
        difference.words() == "at any time: was by chance 60 %: Ana; 40 %: Ben, will be by chance 50 %: Ana; 50 %: Ben"
    )
    assert made.undecided == ("desk/split: which callers fall on which branch; the percentages are compared",)
    assert make_plan(before, table(SPLIT.format(a=60, b=40)), MONDAY).changes == ()


def test_what_rings_another_telephone_goes_elsewhere_and_what_is_only_said_or_recorded_does_not() -> None:
    before = table(trunks=(trunk("a"),))
    moved = table(targets=(target("ana", sip_uri="sip:ana@192.0.2.99"),))
    assert words(before, moved) == ["at any time: was Ana (sip:ana@192.0.2.7), will be Ana (sip:ana@192.0.2.99)"]
    dressed = table(targets=(target("ana", whisper="Radio.", ring_seconds=10),), of=company(record=False))
    assert words(before, dressed) == [
        "recording of Ana: was yes, will be no",
        "ringing of Ana: was 25 s, will be 10 s",
        "whisper to Ana: was none, will be “Radio.”",
    ]
    assert not make_plan(before, dressed, MONDAY).elsewhere


def test_numbers_that_come_go_and_are_switched_off() -> None:
    other = "+12025550124"
    one, two = number(target="ana"), number(other, name="radio", target="ben")
    both = table(numbers=(one, two))
    assert words(table(numbers=(one,)), both) == ["at any time: was refused, the number is not ours, will be Ben"]
    assert words(both, table(numbers=(one,))) == ["at any time: was Ben, will be refused, the number is not ours"]
    off = table(numbers=(one, number(other, name="radio", target="ben", active=False)))
    assert words(both, off) == ["at any time: was Ben, will be refused, the number is switched off"]


def test_a_node_that_is_only_called_otherwise_changes_nothing() -> None:
    before = a_flow("Mo-Fr 08:00-18:00", "menu", "vm", "1: ana, 2: vm", "vm", "ben")
    after = before.replace("vm", "letterbox").replace("menu", "choose").replace("type: choose", "type: menu")
    assert words(table(before), table(after)) == []


GROUP = """
start: team
nodes:
  team: {type: dial, group: team, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""


def team(strategy: Strategy, *names: str, **changes: bool) -> RoutingTable:
    members = tuple(Member(name) for name in names)
    group = TargetGroup("group-1", "company-1", "team", "Team", strategy, members, **changes)
    return build_table(replace(snapshot(GROUP), groups=(group,)))


def test_groups_are_compared_by_whom_they_ring_and_how() -> None:
    in_order, at_once = team(Strategy.IN_ORDER, "ana", "ben"), team(Strategy.RING_ALL, "ana", "ben")
    assert in_order.entries[DID].problem is None
    assert words(in_order, team(Strategy.IN_ORDER, "ana")) == [
        "at any time: was Ana and Ben, will be Ana",
        "without a server rings: was Ana, Ben, will be Ana",
    ]
    (told,) = words(in_order, at_once)
    assert told == (
        "at any time: was Ana (sip:ana@192.0.2.7) and Ben (sip:ben@192.0.2.7) (in-order until one declines), "
        "will be Ana (sip:ana@192.0.2.7) and Ben (sip:ben@192.0.2.7) (ring-all until one declines)"
    )
    assert not make_plan(at_once, team(Strategy.RING_ALL, "ben", "ana"), MONDAY).elsewhere
    assert make_plan(in_order, team(Strategy.IN_ORDER, "ben", "ana"), MONDAY).elsewhere


def test_being_asked_for_consent_is_told() -> None:
    before = a_flow("24/7", "ana", "vm", "1: ana", "vm", "vm", "ask")
    ask = """nodes:
  ask: {type: consent, mode: opt_in, prompt: "May we record?", digit: 1, on_agreed: ana, on_refused: vm, on_failed: vm}
"""
    direct, asked = table(before.replace("start: ask", "start: hours")), table(before.replace("nodes:\n", ask))
    assert asked.entries[DID].problem is None
    will = "consent (agreed: Ana, then voicemail; refused or failed: voicemail)"
    assert words(direct, asked)[0] == f"at any time: was Ana, then voicemail, will be {will}"


def test_a_thousand_numbers_are_compared_in_seconds() -> None:
    """Of fifty companies, each with twenty flows of its own and different hours; of the processor's time."""
    before = build_table(many("12:00"))
    after = build_table(many("13:00"))
    begin = time.process_time()
    made = make_plan(before, after, MONDAY)
    spent = time.process_time() - begin
    assert made.numbers == 1000
    assert sum(len(change.numbers) for change in made.changes) == 1000
    assert spent < 8


def many(lunch: str) -> ConfigSnapshot:
    flows, numbers, companies, targets = [], [], [], []
    for owner in range(50):
        ident = f"company-{owner}"
        companies.append(company(id=ident, name=ident))
        targets += [target(name, id=f"{ident}/{name}", company_id=ident) for name in ("ana", "ben")]
        for one in range(20):
            hours = f"Mo-Fr 08:{one:02}-{lunch},14:00-18:00; PH off"
            text = a_flow(hours, "menu", "vm", "1: ana, 2: ben", "vm", "ben")
            flows.append(version(text, id=f"{ident}/{one}", company_id=ident, name=f"flow-{one}"))
            numbers.append(number(f"+1202555{owner:02}{one:02}", company_id=ident, flow=f"flow-{one}"))
    return ConfigSnapshot(1, tuple(companies), (campaign(),), (), tuple(targets), tuple(numbers), tuple(flows))


AREAS = """
start: geo
nodes:
  geo:
    type: geo
    areas: [{A}]
    on_other: end
  end: {type: hangup}
"""


def test_the_classes_of_callers_leave_nobody_out() -> None:
    """Whatever areas two flows name, within each other or beside: every number is treated as one of the classes."""
    one, other = (
        table(AREAS.replace("{A}", ", ".join(f"{{{area}, next: end}}" for area in areas)))
        for areas in (
            ("prefix: '+1212555'", "area_code: 212", "area_code: [201, '202']", "country: [US, CA]"),
            ("country: GB, area_code: '020'", "prefix: ['+44', '+352']", "country: US", "prefix: '+491'"),
        )
    )
    assert one.entries[DID].problem is None
    assert other.entries[DID].problem is None

    def ways(caller: str | None) -> tuple[str, ...]:
        return tuple(
            branch(Session("", entry=each.entries[DID], node="geo", caller=caller), node, MONDAY).what
            for each in (one, other)
            if isinstance(node := each.entries[DID].flow.nodes["geo"], n.Geo)
        )

    known = classes([one.entries[DID], other.entries[DID]])
    treated = {ways(each.caller) for each in known}
    chance = random.Random(1)
    begins = (
        "+1212555",
        "+1212",
        "+1201",
        "+1202",
        "+1646",
        "+1416",
        "+4420",
        "+44161",
        "+352",
        "+4917",
        "+4930",
        "+33",
    )
    for begin in begins:
        for _ in range(50):
            caller = begin + "".join(chance.choice("0123456789") for _ in range(12 - len(begin)))
            if phonenumbers.is_valid_number(phonenumbers.parse(caller)):
                assert ways(caller) in treated, caller
    assert ways(None) in treated
    assert len({each.label for each in known}) == len(known)
