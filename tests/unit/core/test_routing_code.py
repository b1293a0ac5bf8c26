"""Routing files: read as they were written, with places; compared; proven."""

from __future__ import annotations

import time
from datetime import datetime

import pytest
from hypothesis import given, settings

from callrouter.core.model import Member
from callrouter.core.routing_code.change import changes, outcome
from callrouter.core.routing_code.check import check_routing, clock_changes
from callrouter.core.routing_code.fields import FIELDS, KINDS, SECTIONS, Key
from callrouter.core.routing_code.read import read_routing
from callrouter.core.routing_code.write import schema, write_routing
from callrouter.errors import FlowError
from tests.random_routings import routings

NOW = datetime.fromisoformat("2026-11-21T12:00:00+00:00").timestamp()
GOOD = """\
format: 1
version: 7   # made from
trunks:
  main: {host: sip.example.com}
companies:
  acme:
    timezone: America/New_York
    campaigns:
      radio: {source: radio, medium: offline}
    targets:
      ana: {sip_uri: sip:ana@192.0.2.7}
      ben: {number: (202) 555-0188, trunk: main, ring_seconds: 30}
    flows:
      desk:   # as YAML
        start: hours
        nodes:
          hours: {type: hours, open: "Mo-Fr 08:00-18:00", on_open: ring, on_closed: bye}
          # rings
          ring: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye}
          bye: {type: hangup}
      block: |
        start: bye
        nodes:
          bye: {type: hangup}
    numbers:
      "+12025550101": {name: one, campaign: radio, flow: desk, backup: ben}
      202-555-0102: {name: two, target: ben}
    groups:
      team: {strategy: weighted, members: [ana, {target: ben, weight: 2}]}
"""


def covers(*companies: str) -> set[tuple[str, str]]:
    return {("trunk", ""), *((kind, company) for company in companies for kind in SECTIONS.values())}


def test_a_file_is_read():
    document = read_routing(GOOD)
    assert document.version == 7
    assert document.version_place == (2, 10)
    assert document.covers == covers("acme")
    routing = document.routing
    assert routing[Key("number", "acme", "+12025550102")]["target"] == "ben"
    assert routing[Key("target", "acme", "ben")]["number"] == "+12025550188"
    assert routing[Key("group", "acme", "team")]["members"] == (Member("ana"), Member("ben", weight=2))
    assert routing[Key("trunk", "", "main")]["port"] == 5060
    assert "title" not in routing[Key("company", "", "acme")], "what stays as it is is not known here"
    text = routing[Key("flow", "acme", "desk")]["text"]
    assert text.startswith("start: hours\nnodes:\n  hours: {")
    assert "\n  # rings\n" in text
    assert routing[Key("flow", "acme", "block")]["text"] == "start: bye\nnodes:\n  bye: {type: hangup}\n"
    assert [each.message for each in check_routing(document.routing, {}, NOW)] == [
        "no path reaches a person or a voicemail"
    ]


@settings(max_examples=60, deadline=None)
@given(routings())
def test_what_is_written_is_read_as_the_same(routing):
    text = write_routing(routing, 12)
    document = read_routing(text)
    assert document.routing == routing
    assert document.version == 12
    assert write_routing(document.routing, 12) == text
    companies = [key.name for key in routing if key.kind == "company"]
    assert changes(routing, document.routing, covers(*companies)) == []


@settings(max_examples=60, deadline=None)
@given(routings(), routings())
def test_changes_lead_from_one_routing_to_another(before, after):
    companies = {key.name for key in (*before, *after) if key.kind == "company"}
    planned = changes(before, after, covers(*companies))
    stay = {key: values for key, values in before.items() if key.kind == "company"}
    assert outcome(before, planned) == {**stay, **after}
    assert changes(outcome(before, planned), after, covers(*companies)) == []
    assert all(change.words() for change in planned)


@pytest.mark.parametrize(
    "old, new, line, column, says, hint",
    [
        ("format: 1", "format: 2", 1, 9, "format 1, not 2", None),
        ("format: 1\n", "", 1, 1, "needs 'format'", None),
        ("medium:", "medum:", 9, 14, "needs 'medium'", "did you mean it by 'medum'?"),
        ("source: radio", "source: radio, tittle: x", 9, 30, "no field 'tittle'", "did you mean 'title'?"),
        ("campaigns:", "campains:", 8, 5, "no field 'campains'", "did you mean 'campaigns'?"),
        ("ring_seconds: 30", "ring_seconds: soon", 12, 64, "from 1 to 300", None),
        ("on_busy: bye", "on_busy: by", 19, 52, "'by', which is no node", "did you mean 'bye'?"),
        (
            "  bye: {type: hangup}\n    numbers",
            "  bye: {type: hangap}\n    numbers",
            24,
            23,
            "cannot be 'hangap'",
            "hangup",
        ),
        ("202-555-0102", "202-555-01", 27, 19, "not a possible telephone number", "count its digits"),
        ("202-555-0102", "202-555-0101", 27, 21, "+12025550101 is there twice", None),
        ("version: 7", "version: x", 2, 10, "whole number", None),
        ("desk:   # as YAML", "desk: [", 14, 15, "", None),
    ],
)
def test_errors_point_at_their_place(old, new, line, column, says, hint):
    assert old in GOOD
    with pytest.raises(FlowError) as refused:
        read_routing(GOOD.replace(old, new, 1))
    if says:
        assert (refused.value.line, refused.value.column) == (line, column), refused.value.message
    assert says in refused.value.message
    assert hint is None or hint in str(refused.value.hint)


def problems(text: str) -> list[tuple[str, str, str]]:
    found = check_routing(read_routing(text).routing, {}, NOW)
    return [(each.severity, str(each.key), f"{each.node or each.field}: {each.message}") for each in found]


@pytest.mark.parametrize(
    "old, new, severity, key, says",
    [
        ("flow: desk", "flow: dusk", "error", "number acme/+12025550101", "flow: there is no flow 'dusk'"),
        ("flow: desk", "flow: desk, target: ana", "error", "number acme/+12025550101", "both a flow and a target"),
        ("trunk: main", "trunk: mean", "error", "target acme/ben", "trunk: there is no trunk 'mean'"),
        ("target: ana", "target: anna", "error", "flow acme/desk", "ring: dials 'anna'"),
        ("sip:ana@192.0.2.7", "sip:ana@192_0", "error", "target acme/ana", "sip_uri: it cannot be dialled"),
        ("(202) 555-0188", "202 555 0102", "error", "target acme/ben", "+12025550102 → +12025550102"),
        ("on_closed: bye", "on_closed: hours", "error", "flow acme/desk", "goes round without end"),
        ("host: sip.example.com", "host: a.example, next_trunk: b", "error", "trunk main", "no trunk 'b'"),
        ("08:00-18:00", "08:00-18:00; off", "warning", "flow acme/desk", "closed for ever"),
        ("Mo-Fr 08:00-18:00", "02:30-18:00", "warning", "flow acme/desk", "2027-03-14, the clocks are put forward"),
        ("Mo-Fr 08:00-18:00", "08:00-01:30", "warning", "flow acme/desk", "2027-11-07, the clocks are put back"),
    ],
)
def test_what_a_check_proves(old, new, severity, key, says):
    assert old in GOOD
    found = problems(GOOD.replace(old, new, 1))
    assert any(each[:2] == (severity, key) and says in each[2] for each in found), found


def test_a_target_that_is_another_of_our_numbers_is_told():
    ours = GOOD.replace("backup: ben", "backup: cy").replace(
        "      ben:", "      cy: {number: '+12025550102', trunk: main}\n      ben:"
    )
    found = [each for each in problems(ours) if each[1] == "target acme/cy"]
    assert [each[0] for each in found] == ["warning"], "it comes back as another call, and ends there"
    circle = ours.replace("number: (202) 555-0188", "number: '+12025550101'")
    found = [each for each in problems(circle) if each[0] == "error"]
    assert any("+12025550102 → +12025550101 → +12025550102" in each[2] for each in found), found


@pytest.mark.parametrize(
    "zone, seconds, wall",
    [
        ("America/New_York", 3600, "2027-03-14T02:00"),
        ("Australia/Lord_Howe", 1800, "2027-04-04T01:30"),
        ("Europe/Berlin", 3600, "2027-03-28T02:00"),
        ("Asia/Kolkata", None, None),
    ],
)
def test_clock_changes(zone, seconds, wall):
    found = clock_changes(zone, NOW)
    if wall is None:
        assert found == []
        return
    assert found[0].seconds == seconds
    assert found[0].wall == datetime.fromisoformat(f"{wall}+00:00").timestamp()


def test_numbers_may_take_each_others_names():
    one, two = Key("number", "acme", "+12025550101"), Key("number", "acme", "+12025550102")
    before = {one: {"name": "a"}, two: {"name": "b"}}
    planned = changes(before, {one: {"name": "b"}, two: {"name": "a"}}, set())
    names = {one: "a", two: "b"}
    for change in planned:
        assert change.values["name"] not in names.values(), "no two are called the same, at no moment"
        names[change.key] = change.values["name"]
    assert names == {one: "b", two: "a"}


def test_a_thousand_numbers_are_checked_in_two_seconds_of_cpu():
    flows = "".join(
        f"      f{n}: |\n        start: hours\n        nodes:\n"
        "          hours: {type: hours, open: 'Mo-Fr 08:00-18:00; PH off', on_open: ring, on_closed: vm}\n"
        f"          ring: {{type: dial, target: t{n}, on_busy: vm, on_no_answer: vm, on_failed: vm}}\n"
        "          vm: {type: voicemail, greeting: Leave a message, on_failed: bye}\n          bye: {type: hangup}\n"
        for n in range(100)
    )
    targets = "".join(f"      t{n}: {{number: '+1202556{n:04d}', trunk: main}}\n" for n in range(100))
    numbers = "".join(f"      '+1202555{n:04d}': {{name: n{n}, flow: f{n % 100}}}\n" for n in range(1000))
    text = (
        "format: 1\ntrunks:\n  main: {host: sip.example.com}\ncompanies:\n  acme:\n    timezone: America/New_York\n"
        f"    targets:\n{targets}    flows:\n{flows}    numbers:\n{numbers}"
    )
    begin = time.process_time()
    found = check_routing(read_routing(text).routing, {}, NOW)
    spent = time.process_time() - begin
    assert found == []
    assert spent < 2.0, f"{spent:.2f} s"


def test_the_schema_knows_every_field():
    made = schema()
    company = made["properties"]["companies"]["additionalProperties"]["properties"]
    assert set(company) == {field.name for field in FIELDS["company"]} | set(SECTIONS)
    for section, kind in SECTIONS.items():
        if kind != "flow":
            thing = company[section]["additionalProperties"]
            assert set(thing["properties"]) == {field.name for field in FIELDS[kind]}
            assert thing["required"] == [field.name for field in FIELDS[kind] if field.needed]
    assert set(FIELDS) == set(KINDS)
