"""Dial strings, and the file the dialplan's failsafe reads."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path

import pytest

from callrouter.asterisk.conffile import parse_conf
from callrouter.asterisk.failsafe import (
    FailsafeDestination,
    FailsafeEntry,
    FailsafeWindow,
    render_failsafe,
    write_failsafe,
)
from callrouter.core.dialstring import check_sip_uri, dial_string
from callrouter.core.model import NumberFormat, Target, Trunk
from callrouter.errors import InputError

TRUNK = Trunk(id="1", name="isp", preset="generic-ip", host="203.0.113.5")
TARGET = Target(id="t", company_id="c", name="desk", title="Desk", number="+12025550123", trunk="isp")
ENTRY = FailsafeEntry(
    "+12025550101",
    (FailsafeDestination("PJSIP/callrouter-uri/sip:desk@127.0.0.1:5070", 20),),
    label="Spring; radio\n[x]",
)


@pytest.mark.parametrize(
    "style, expected",
    [
        (NumberFormat.E164, "PJSIP/+12025550123@trunk-isp"),
        (NumberFormat.E164_NO_PLUS, "PJSIP/12025550123@trunk-isp"),
        (NumberFormat.NATIONAL, "PJSIP/2025550123@trunk-isp"),
        (NumberFormat.INTERNATIONAL_00, "PJSIP/0012025550123@trunk-isp"),
    ],
)
def test_numbers_are_dialled_as_the_trunk_wants(style: NumberFormat, expected: str) -> None:
    assert dial_string(TARGET, dataclasses.replace(TRUNK, number_format=style)) == expected


@pytest.mark.parametrize("uri", ["sip:desk@10.0.0.5", "sip:a.b-c_d+1@pbx.example.net:5070", "sip:x@[2001:db8::1]:5060"])
def test_plain_sip_uris_are_dialled(uri: str) -> None:
    assert (
        dial_string(Target(id="t", company_id="c", name="d", title="D", sip_uri=uri), None)
        == f"PJSIP/callrouter-uri/{uri}"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "desk@10.0.0.5", "sips:a@b", "sip:10.0.0.5", "sip:a@b&PJSIP/900@trunk-isp", "sip:a@b,60,tTM(x)", "sip:a@b^c",
        "sip:${X}@b", "sip:a@b;transport=tls", "sip:a@b\nx", "sip:a(b)@c", "sip:a@b/x", "sip:a@b|c", "sip:a b@c",
        "sip:@b",
        "sip:a@", "sip:a@-b", "sip:a@b:0", "sip:a@b:99999", "sip:a@b..c", "sip:a@[zz]", "sip:a@[::1", "", "sip:ä@b",
        "sip:a@b\n",
    ],
)  # fmt: skip
def test_odd_sip_uris_are_refused(uri: str) -> None:
    with pytest.raises(InputError):
        check_sip_uri(uri)


@pytest.mark.parametrize(
    "target, trunk",
    [
        (dataclasses.replace(TARGET, number=None), TRUNK),
        (TARGET, None),
        (dataclasses.replace(TARGET, number="+1202&PJSIP/1"), TRUNK),
        (TARGET, dataclasses.replace(TRUNK, name="isp,60")),
    ],
)
def test_targets_that_cannot_be_dialled_are_refused(target: Target, trunk: Trunk | None) -> None:
    with pytest.raises(InputError):
        dial_string(target, trunk)


def test_a_did_is_found_by_every_spelling() -> None:
    conf = parse_conf("f", render_failsafe([ENTRY]))
    assert {s.name for s in conf.sections} == {"+12025550101", "12025550101", "2025550101", "0012025550101"}
    for section in conf.sections:
        assert section.get("did") == "+12025550101"
        assert section.get("dest1") == "PJSIP/callrouter-uri/sip:desk@127.0.0.1:5070"
        assert (section.get("ring1"), section.get("record1")) == ("20", "yes")
        assert section.get("label") == "Spring radiox"


def test_what_may_be_recorded_stands_with_each_destination() -> None:
    first, second = (
        FailsafeDestination(f"PJSIP/callrouter-uri/sip:{who}@127.0.0.1:5070", 20, place=place, record=record)
        for place, (who, record) in enumerate((("ana", False), ("ben", True)), 1)
    )
    windows = (
        FailsafeWindow(100.0, ("/prompts/told",), (1, 2), consent=True),
        FailsafeWindow(None, (), (1, 2)),
    )
    entry = FailsafeEntry("+12025550101", (first, second), consent_needed=True, windows=windows)
    sections = {section.name: section for section in parse_conf("f", render_failsafe([entry])).sections}
    section = sections["+12025550101"]
    assert [section.get(name) for name in ("record1", "record2", "consent")] == ["no", "yes", "needed"]
    plan = sections[str(section.get("plan"))]
    assert [plan.get(name) for name in ("consent1", "consent2")] == ["given", None]
    plain = parse_conf("f", render_failsafe([ENTRY])).sections[0]
    assert plain.get("consent") is None


def test_a_spelling_two_dids_share_belongs_to_neither() -> None:
    other = dataclasses.replace(ENTRY, did="+332025550101")
    names = [s.name for s in parse_conf("f", render_failsafe([ENTRY, other])).sections]
    assert len(names) == len(set(names))
    assert {"+12025550101", "+332025550101"} <= set(names)
    assert "2025550101" not in names


@pytest.mark.parametrize(
    "change",
    [
        {"did": "2025550101"}, {"did": "+1]\n[x"}, {"destinations": ()},
        {"destinations": (FailsafeDestination("PJSIP/1&PJSIP/2", 5),)},
        {"destinations": (FailsafeDestination("Local/x@y", 5),)},
        {"destinations": (FailsafeDestination("PJSIP/+1202555@trunk-isp", 0),)},
        {"destinations": (FailsafeDestination("PJSIP/+1202555@trunk-isp", 5, caller_id="x"),)},
        {"number_id": "a\nb"}, {"company_id": "${X}"},
    ],
)  # fmt: skip
def test_entries_that_could_break_the_file_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        render_failsafe([dataclasses.replace(ENTRY, **change)])  # type: ignore[arg-type]


def test_the_file_is_replaced_whole_and_only_when_changed(tmp_path: Path) -> None:
    path = tmp_path / "failsafe" / "f.conf"
    assert write_failsafe(path, [ENTRY])
    assert not write_failsafe(path, [ENTRY])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_text()
    with pytest.raises(InputError, match="twice"):
        write_failsafe(path, [ENTRY, ENTRY])
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]
    assert write_failsafe(path, [])
