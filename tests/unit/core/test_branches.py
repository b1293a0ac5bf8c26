"""Nodes that branch and ask nobody: by percentages, by the caller's area."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callrouter.core.branches import geo, point, split
from callrouter.core.failsafe_plan import at_moment
from callrouter.core.flow import nodes as n
from callrouter.core.flow.check import check_flow
from callrouter.core.flow.draw import as_text
from callrouter.core.flow.parse import parse_flow
from callrouter.core.simulate import simulate
from callrouter.errors import FlowError
from tests import builders as b
from tests.builders import CALLER, DID, T0, arrived, run, table
from tests.call_scripts import flow, gone, shown

SPLIT = flow(
    "share",
    "share: {type: split, branches: {ana: 70, ben: 30}}",
    "ana: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye}",
    "ben: {type: dial, target: ben, on_busy: bye, on_no_answer: bye, on_failed: bye}",
)
GEO = flow(
    "where",
    "where: {type: geo, areas: [{area_code: ['312', '773'], next: ana}, {country: [GB, DE], next: ben}, "
    "{prefix: '+1202', next: ben}], on_other: other, on_unknown: unknown}",
    "ana: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye}",
    "ben: {type: dial, target: ben, on_busy: bye, on_no_answer: bye, on_failed: bye}",
    "other: {type: hangup, cause: rejected}",
    "unknown: {type: voicemail, on_failed: bye}",
)
NODE = n.Split((("ana", 70), ("ben", 30)))


# -- split -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "caller, call, goes, what, why",
    [
        ("+13125550101", "c", "ana", "70 %", "the caller's number falls on 30, which is in 1 to 70"),
        ("+13125550102", "c", "ana", "70 %", "the caller's number falls on 46, which is in 1 to 70"),
        ("+13125550103", "c", "ben", "30 %", "the caller's number falls on 79, which is in 71 to 100"),
        (None, "c", "ana", "70 %", "without a number, the call falls on"),
        ("110", "c", "ana", "70 %", "the caller's number falls on"),
    ],
)
def test_a_caller_is_sent_by_the_hash_of_the_number(caller, call, goes, what, why):
    result = run(table(SPLIT), [replace(arrived(caller=caller), call_id=call)])
    assert result.path == ["share", goes]
    assert shown(result) == [f"dial l1 {goes} 25"]
    (said,) = result.reasons(what)
    assert said.startswith(why)
    assert (result.record.trace[2].path, result.record.trace[2].what) == ("desk@3/share", what)


def test_the_algorithm_is_the_documented_one():
    """printf 'desk/share\\0+13125550101' | sha256sum gives 4adb207dc7bae3bc…, 29.2 hundredths of what it can give."""
    assert 0x4ADB207DC7BAE3BC * 100 // 2**64 == 29
    assert point("desk/share", "+13125550101") == 29
    assert point("desk/share", "+13125550103") == 0xC91ED992CE46DD1F * 100 // 2**64 == 78


@given(st.text(max_size=20), st.none() | st.text(min_size=1, max_size=15), st.text(min_size=1))
def test_the_same_caller_always_takes_the_same_branch(salt, caller, call):
    first = split(NODE, salt, caller, call)
    assert first == split(NODE, salt, caller, call)
    assert first.to in ("ana", "ben")
    if caller:
        assert first == split(NODE, salt, caller, call + "x")


def test_callers_are_spread_as_the_percentages_say():
    node = n.Split((("a", 50), ("b", 1), ("c", 49)))
    numbers = [f"+1312555{index:04}" for index in range(10_000)]
    found = Counter(split(node, "desk/share", number, "c").to for number in numbers)
    assert abs(found["a"] - 5000) < 200
    assert abs(found["b"] - 100) < 40
    assert abs(found["c"] - 4900) < 200
    withheld = Counter(split(NODE, "desk/share", None, f"call-{index}").to for index in range(2000))
    assert abs(withheld["ana"] - 1400) < 100


def test_a_change_of_percentages_moves_no_more_callers_than_it_must():
    numbers = [f"+1312555{index:04}" for index in range(2000)]
    before = {number: split(NODE, "x", number, "c").to for number in numbers}
    wider = n.Split((("ana", 80), ("ben", 20)))
    moved = [number for number in numbers if split(wider, "x", number, "c").to != before[number]]
    assert 100 < len(moved) < 300
    assert {before[number] for number in moved} == {"ben"}


def test_two_splits_do_not_send_the_same_callers_the_same_way():
    numbers = [f"+1312555{index:04}" for index in range(1000)]
    alike = sum(split(NODE, "desk/a", one, "c").to == split(NODE, "desk/b", one, "c").to for one in numbers)
    assert 500 < alike < 660  # 0.7² + 0.3² = 58 %


# -- geo ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "caller, path, what, why",
    [
        ("+13125550199", ["where", "ana"], "312/773", "+13125550199 is a number there"),
        ("+17735550199", ["where", "ana"], "312/773", "is a number there"),
        ("+442079460018", ["where", "ben"], "GB, DE", "is a number there"),
        ("+4915112345678", ["where", "ben"], "GB, DE", "is a number there"),
        ("+12025550199", ["where", "ben"], "+1202", "is a number there"),
        ("+12125550199", ["where", "other"], "other", "+12125550199 is in US, and in none of the areas"),
        ("+14165550199", ["where", "other"], "other", "is in CA, and in none"),
        ("+390612345678", ["where", "other"], "other", "is in IT"),
        ("+8835100123456", ["where", "other"], "other", "is of no known country"),
        (None, ["where", "unknown"], "unknown", "the caller's number is withheld"),
        ("110", ["where", "unknown"], "unknown", "110 is a number of no country"),
    ],
)
def test_a_caller_is_sent_by_the_area_of_the_number(caller, path, what, why):
    result = run(table(GEO), [arrived(caller=caller)])
    assert result.path == path
    assert any(why in said for said in result.reasons(what))


@pytest.mark.parametrize(
    "area, caller, country, inside",
    [
        ({"countries": ("GB",), "codes": ("020",)}, "+442079460018", "US", True),
        ({"countries": ("GB",), "codes": ("20",)}, "+442079460018", "US", True),
        ({"countries": ("GB",), "codes": ("0",)}, "+442079460018", "US", False),
        ({"countries": ("IT",), "codes": ("06",)}, "+390612345678", "US", True),
        ({"countries": ("IT",), "codes": ("6",)}, "+390612345678", "US", False),
        ({"countries": ("US", "CA"), "codes": ("416", "212")}, "+14165550199", "US", True),
        ({"countries": ("US",), "codes": ("416",)}, "+14165550199", "US", False),
        ({"codes": ("212",)}, "+12125550199", "US", True),
        ({"codes": ("212",)}, "+12125550199", "GB", False),
        ({"codes": ("20",)}, "+442079460018", "GB", True),
        ({"countries": ("US",)}, "+14165550199", "US", False),
        ({"prefixes": ("+1",)}, "+14165550199", "US", True),
        ({"countries": ("US",), "prefixes": ("+44",)}, "+442079460018", "US", True),
        ({"prefixes": ("+4420", "+4421")}, "+442179460018", "US", True),
    ],
)
def test_areas(area, caller, country, inside):
    node = n.Geo((n.Area("in", **area),), "out", "out")
    assert (geo(node, caller, country).to == "in") is inside


def test_the_first_area_counts():
    node = n.Geo((n.Area("one", codes=("312",)), n.Area("two", countries=("US",))), "out", "out")
    assert geo(node, CALLER, "US").to == "one"
    assert geo(replace(node, areas=node.areas[::-1]), CALLER, "US").to == "two"


def test_without_on_unknown_a_withheld_number_takes_on_other():
    node = parse_flow(GEO.replace(", on_unknown: unknown", ""), "desk").nodes["where"]
    assert isinstance(node, n.Geo)
    assert node.on_unknown == "other"


# -- both --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, line, says, hint",
    [
        (SPLIT.replace("30", "20"), 3, "the branches are 90 percent together, not 100", None),
        (SPLIT.replace("30", "0"), 3, "the percentage of ben must be a whole number from 1 to 100", None),
        (SPLIT.replace("ben: 30", "anna: 30"), 3, "goes to 'anna', which is no node", "did you mean 'ana'?"),
        (SPLIT.replace("{ana: 70, ben: 30}", "{}"), 3, "the branches are 0 percent", None),
        (GEO.replace("GB, DE", "UK"), 3, "'UK' is no country", "did you mean 'GB'?"),
        (GEO.replace("GB, DE", "XX"), 3, "'XX' is no country", "two letters"),
        (GEO.replace("+1202", "1202"), 3, "'1202' is no prefix", "with country code"),
        (GEO.replace("'312'", "'31-2'"), 3, "'31-2' is no area code", "digits"),
        (GEO.replace("country: [GB, DE], ", ""), 3, "an area needs country, area_code or prefix", "for example"),
        (GEO.replace("'+1202', next: ben", "'+1202', next: bern"), 3, "goes to 'bern', which is no node", "'ben'"),
        (GEO.replace("area_code", "area_codes"), 3, "an area has no field 'area_codes'", "did you mean 'area_code'?"),
    ],
)
def test_what_is_refused(text, line, says, hint):
    with pytest.raises(FlowError) as refused:
        parse_flow(text, "desk")
    assert says in refused.value.message
    assert (refused.value.line, hint in str(refused.value.hint) if hint else True) == (line, True)


@pytest.mark.parametrize(
    "areas, hidden",
    [
        ("[{country: US, next: ana}, {country: US, area_code: 212, next: ben}]", "'US 212' is never taken: 'US'"),
        ("[{prefix: '+1', next: ana}, {prefix: ['+1212', '+13'], next: ben}]", "'+1212, +13' is never taken: '+1'"),
        ("[{area_code: 2, next: ana}, {area_code: 212, next: ben}]", "'212' is never taken"),
        ("[{country: US, area_code: 212, next: ben}, {country: US, next: ana}]", ""),
        ("[{prefix: '+1212', next: ana}, {prefix: ['+1212', '+13'], next: ben}]", ""),
        ("[{area_code: 212, next: ana}, {country: GB, area_code: 212, next: ben}]", ""),
        ("[{country: GB, next: ana}, {country: GB, prefix: '+1', next: ben}]", ""),
        ("[{country: GB, next: ana}, {prefix: '+44', next: ben}]", ""),
    ],
)
def test_an_area_that_an_earlier_one_has_is_warned_of(areas, hidden):
    start, end = GEO.index("[{"), GEO.index("}],") + 2
    text = GEO[:start] + areas + GEO[end:]
    found = [one.message for one in check_flow(parse_flow(text, "desk"), ["ana", "ben"], [])]
    assert [message for message in found if "never taken" in message] == [m for m in found if hidden and hidden in m]
    assert bool(hidden) == any("never taken" in message for message in found)


def test_a_circle_through_a_branch_has_no_end():
    text = flow("a", "a: {type: split, branches: {b: 50, bye: 50}}", "b: {type: geo, areas: [{country: US, next: a}], "
                "on_other: bye}")  # fmt: skip
    found = check_flow(parse_flow(text, "desk"), [], [])
    assert any("a → b → a goes round without end" in one.message for one in found)


def test_they_are_drawn():
    assert as_text(parse_flow(SPLIT, "desk")).startswith(
        "share: split 70 % / 30 %\n  70 % → ana: dial ana\n    answered → hang up\n"
    )
    drawn = as_text(parse_flow(GEO, "desk"))
    assert drawn.startswith("where: geo 3 areas\n  312/773 → ana: dial ana\n")
    assert "  GB, DE → ben: dial ben\n" in drawn
    assert "  other → other: hang up (rejected)\n  unknown → unknown: voicemail" in drawn


def test_a_simulated_call_takes_the_branch_of_the_real_one():
    made = simulate(table(GEO), DID, "+442079460018", T0)
    real = run(table(GEO), [arrived(caller="+442079460018"), gone(5)])
    assert made.record.path == ("where", "ben")
    assert made.record.path == real.record.path


# -- without a controller ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, said, rung",
    [
        (SPLIT, [], ["ana", "ben"]),
        (SPLIT.replace("ana: 70, ben: 30", "ana: 20, ben: 80"), [], ["ben", "ana"]),
        # Nobody knows whom the caller would have reached: all who could be are rung.
        (GEO, [], ["ana", "ben"]),
        # Wherever they call from, it is the same.
        (
            flow("hi", "hi: {type: play, prompt: Hi, next: where}",
                 "where: {type: geo, areas: [{country: US, next: a}], on_other: b}",
                 "a: {type: tag, tags: us, next: closed}", "b: {type: tag, tags: abroad, next: closed}",
                 "closed: {type: play, prompt: Closed, next: bye}"),
            ["Hi", "Closed"],
            [],
        ),
        (
            flow("hi", "hi: {type: play, prompt: Hi, next: where}",
                 "where: {type: geo, areas: [{country: US, next: ring}], on_other: closed}",
                 "ring: {type: dial, target: ben, on_busy: bye, on_no_answer: bye, on_failed: bye}",
                 "closed: {type: play, prompt: Closed, next: bye}"),
            ["Hi"],
            ["ben"],
        ),
        # A circle that the dialplan cannot leave.
        (
            flow("a", "a: {type: geo, areas: [{country: US, next: a}, {country: GB, next: a}], on_other: a}",
                 "d: {type: dial, target: ben, on_busy: bye, on_no_answer: bye, on_failed: bye}"),
            [],
            [],
        ),
    ],
)  # fmt: skip
def test_what_the_dialplan_does_by_itself(text, said, rung):
    alone = at_moment(b.table(text).entries[DID], T0)
    assert [prompt.text for prompt in alone.announce] == said
    assert [destination.target.name for destination in alone.destinations] == rung
