from __future__ import annotations

import pytest

from callrouter.core.flow import nodes as n
from callrouter.core.model import CallerIdMode, NumberFormat
from callrouter.core.routing import EMPTY, Reject, RouteToFlow, build_table, decide, direct_flow, filled, spoken
from tests.builders import DID, company, number, snapshot, table, target, trunk

VOICEMAIL = "start: vm\nnodes:\n  vm: {type: voicemail, on_failed: bye}\n  bye: {type: hangup}\n"
DIALS = (
    "start: d\nnodes:\n"
    "  d: {type: dial, target: ben, on_busy: e, on_no_answer: e, on_failed: e}\n"
    "  e: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye}\n"
    "  bye: {type: hangup}\n"
)


def names(entry):
    return [one.target.name for one in entry.backups]


def test_a_number_runs_its_flow():
    decision = decide(table(VOICEMAIL), DID)
    assert isinstance(decision, RouteToFlow)
    assert decision.why == "billboard runs desk@3"
    assert (decision.entry.flow_label, decision.entry.flow_version_id) == ("desk@3", "version-1")
    assert decision.entry.campaign is not None
    assert decision.entry.campaign.source == "radio"


def test_a_direct_number_rings_its_target():
    decision = decide(table(), DID)
    assert isinstance(decision, RouteToFlow)
    assert decision.why == "billboard rings ana directly"
    assert decision.entry.flow == direct_flow("ana")
    assert (decision.entry.flow_label, decision.entry.flow_version_id) == ("direct", None)


@pytest.mark.parametrize(
    "did,says", [("+19995550000", "+19995550000 is not one of our"), ("", "an empty number is not one of our")]
)
def test_an_unknown_number_is_rejected(did, says):
    decision = decide(table(), did)
    assert isinstance(decision, Reject)
    assert (decision.cause, decision.entry) == (1, None)
    assert says in decision.why


def test_an_inactive_number_is_rejected_and_still_attributed():
    decision = decide(table(numbers=[number(target="ana", active=False)]), DID)
    assert isinstance(decision, Reject)
    assert decision.why == f"billboard ({DID}) is switched off"
    assert decision.entry is not None


def test_an_empty_table_rejects_everything():
    assert isinstance(decide(EMPTY, DID), Reject)


@pytest.mark.parametrize(
    "flow,says",
    [("start: x", "flow desk@3 does not hold together: line 1"), (None, "flow desk does not exist")],
)
def test_a_number_whose_flow_is_broken_rings_its_backup(flow, says):
    decision = decide(table(flow, numbers=[number(flow="desk", backup="ben")]), DID)
    assert isinstance(decision, RouteToFlow)
    assert says in decision.why
    assert decision.entry.flow == direct_flow("ben")
    assert decision.entry.flow_version_id is None


def test_backups_are_the_numbers_own_then_its_target_then_those_its_flow_dials():
    assert names(table(DIALS).entries[DID]) == ["ben", "ana"]
    assert names(table(DIALS, backup="ana").entries[DID]) == ["ana", "ben"]
    assert names(table(DIALS, backup="nobody").entries[DID]) == ["ben", "ana"]
    assert names(table(numbers=[number(target="ana", backup="ben")]).entries[DID]) == ["ben", "ana"]
    assert names(table(VOICEMAIL).entries[DID]) == []


def test_a_target_that_cannot_be_dialled_is_as_one_that_is_missing():
    lost = target("ben", sip_uri=None, number="+12025550177", trunk="gone")
    assert names(table(DIALS, targets=[lost]).entries[DID]) == ["ana"]


def test_a_number_of_no_country_does_not_break_the_table():
    odd = target("ben", sip_uri=None, number="+99912345678", trunk="national")
    routing = table(DIALS, targets=[odd], trunks=[trunk("national", number_format=NumberFormat.NATIONAL)])
    assert names(routing.entries[DID]) == ["ana"]


def test_targets_and_flows_are_those_of_the_numbers_company():
    base = snapshot(DIALS)
    foreign = company(id="company-2", name="other")
    both = type(base)(
        version=8,
        companies=(*base.companies, foreign),
        targets=(*base.targets, target("eve", company_id="company-2")),
        numbers=(*base.numbers, number("+12025550124", company_id="company-2", flow="desk", campaign_id=None)),
        flows=base.flows,
    )
    entry = build_table(both).entries["+12025550124"]
    assert entry.problem == "flow desk does not exist"
    assert list(entry.destinations) == ["eve"]
    assert entry.campaign is None


@pytest.mark.parametrize(
    "mode,shown",
    [
        (CallerIdMode.PASS_THROUGH, None),
        (CallerIdMode.TRACKING_NUMBER, DID),
        (CallerIdMode.FIXED, "+12025550100"),
    ],
)
def test_the_business_sees_the_number_its_trunk_allows(mode, shown):
    ben = target("ben", sip_uri=None, number="+12025550177", trunk="out")
    out = trunk("out", caller_id=mode, fixed_caller_id="+12025550100")
    destination = table(targets=[ben], trunks=[out]).entries[DID].destinations["ben"]
    [way] = destination.ways
    assert way.shown_number(DID) == shown
    assert way.endpoint == "PJSIP/+12025550177@trunk-out"


@pytest.mark.parametrize(
    "of_node,of_target,spoken_text",
    [
        (None, None, None),
        (None, "From {campaign}", "From Spring radio"),
        ("For {company} on {number}", "From {campaign}", "For Acme Plumbing on billboard"),
        ("", "From {campaign}", None),
        ("{typo}", None, None),
    ],
)
def test_the_whisper_is_the_nodes_or_the_targets(of_node, of_target, spoken_text):
    entry = table(targets=[target("ana", whisper=of_target)]).entries[DID]
    heard = entry.whisper(n.Dial("ana", "x", "x", "x", whisper=of_node), "ana")
    assert [prompt.text for prompt in heard] == ([spoken_text] if spoken_text else [])


def test_a_number_without_campaign_speaks_of_itself():
    entry = table(numbers=[number(target="ana", campaign_id=None)]).entries[DID]
    assert entry.values()["campaign"] == "billboard"


def test_everything_that_can_be_heard_is_listed_with_its_values_filled_in():
    flow = (
        "start: m\nnodes:\n"
        "  m: {type: menu, prompt: ['{company}', {file: jingle}], invalid_prompt: No, options: {1: d}, "
        "on_exhausted: vm}\n"
        "  d: {type: dial, target: ana, on_busy: vm, on_no_answer: vm, on_failed: vm, whisper: 'From {campaign}'}\n"
        "  vm: {type: voicemail, greeting: 'Odd {brace', on_failed: bye}\n"
        "  bye: {type: hangup}\n"
    )
    assert list(spoken(table(flow))) == [
        ("company-1", n.Prompt(text="Acme Plumbing")),
        ("company-1", n.Prompt(file="jingle")),
        ("company-1", n.Prompt(text="No")),
        ("company-1", n.Prompt(text="From Spring radio")),
        ("company-1", n.Prompt(text="Odd {brace")),
    ]


def test_a_file_prompt_is_not_filled():
    entry = table().entries[DID]
    assert filled(n.Prompt(file="{x}"), entry) == n.Prompt(file="{x}")


def test_the_table_carries_the_configurations_version_and_the_trunks_countries():
    routing = table(VOICEMAIL)
    assert routing.version == 7
    assert dict(routing.country_of_trunk) == {"carrier": "US"}
