"""What an admin expects of a routing, as a YAML file, and whether it holds: each case is one simulated call.

company: acme
tests:
  - name: nobody there on Saturdays
    number: +12025550101
    at: Sat 18:05
    expect: {disposition: voicemail, says: leave a message}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

import yaml

from callrouter.core import phone
from callrouter.core.disposition import Disposition, cause_text
from callrouter.core.flow.earlier import Earlier, read_earlier
from callrouter.core.flow.link import gaps
from callrouter.core.flow.nodes import HANGUP_CAUSES
from callrouter.core.flow.parse import are_keys
from callrouter.core.flow.replied import reply_of
from callrouter.core.flow.source import Fields, compose, fail, items, one_of, scalar, seconds, suggest, truth, words
from callrouter.core.model import Company, FlowVersion, TrackingNumber
from callrouter.core.moment import parse_moment
from callrouter.core.records import ConsentResponse
from callrouter.core.routing import Entry, RoutingTable, build_table
from callrouter.core.simulate import ANY, Answer, Inputs, Simulation, simulate
from callrouter.core.snapshot import ConfigSnapshot
from callrouter.errors import FlowError, InputError

T = TypeVar("T")
NOTHING = ("-", "nothing")
"""Stands among digits for a round in which nothing is pressed."""
NOBODY = "nobody"
FLOW_DID = "flow"
"""Stands for the number of a flow that is tried without one."""
DEFAULT_CALLER = "+12025550199"

Answers = tuple[tuple[str, tuple[Answer, ...]], ...]
Place = tuple[int, int]
"""Line and column, 1-based."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is to come of a call. None: not looked at."""

    disposition: str | None = None
    answered_by: str | None = None
    rings: tuple[str, ...] | None = None
    """Exactly these targets, in order."""
    path: tuple[str, ...] | None = None
    """Exactly these nodes, in order."""
    reaches: tuple[str, ...] = ()
    avoids: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    """Each is part of something that the caller hears."""
    says_not: tuple[str, ...] = ()
    tags: tuple[str, ...] | None = None
    values: tuple[tuple[str, str], ...] = ()
    """(name, value) that the flow puts on the call; others may be there too."""
    language: str | None = None
    consent: str | None = None
    """One of ``ConsentResponse``; "none": nobody was asked."""
    campaign: str | None = None
    hangup: str | None = None
    recorded: bool | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One expectation: a call, and what is to come of it."""

    name: str
    place: Place
    company: str | None
    number: str | None
    flow: str | None
    campaign: str | None
    caller: str | None
    earlier: Earlier
    at: str
    day: str | None
    inputs: Inputs
    webhooks: tuple[tuple[str | None, str], ...]
    """(node or None for all, what its web service answers)."""
    expected: Expected
    places: Mapping[str, Place] = field(default_factory=lambda: MappingProxyType({}))
    """Where its fields stand."""

    def wrong(self, name: str, message: str, hint: str | None = None) -> FlowError:
        """An error that points at one of the case's fields."""
        line, column = self.places.get(name, self.place)
        return FlowError(f"test {self.name!r}: {message}", line=line, column=column, hint=hint)


@dataclass(frozen=True, slots=True)
class Difference:
    what: str
    wanted: str
    got: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case."""

    case: Case
    differences: tuple[Difference, ...]
    simulation: Simulation

    @property
    def ok(self) -> bool:
        return not self.differences


def parse_cases(text: str) -> tuple[Case, ...]:
    """Parse a file of expectations.

    :raises FlowError: with line and column: not YAML, an unknown field, a case that gives neither number nor flow …
    """
    root = Fields(compose(text), "a file of tests")
    company = root.get("company", words, "") or None
    day = root.get("today", words, "") or None
    listed = root.need("tests", items)
    root.done()
    return tuple(_case(node, company, day) for node in listed)


def _case(node: yaml.Node, company: str | None, day: str | None) -> Case:
    fields = Fields(node, "a test")
    number, flow = fields.get("number", words, ""), fields.get("flow", words, "")
    answers: Answers = fields.get("answers", _answers, ())
    none: tuple[str, ...] = ()
    unasked: tuple[tuple[str | None, str], ...] = ()
    name = fields.get("name", words, "")
    case = Case(
        name=name or f"{number or flow} {fields.get('at', words, 'now')}",
        place=(node.start_mark.line + 1, node.start_mark.column + 1),
        company=fields.get("company", words, "") or company,
        number=number or None,
        flow=flow or None,
        campaign=fields.get("campaign", words, "") or None,
        caller=fields.get("caller", scalar, DEFAULT_CALLER) or None,
        earlier=fields.get("earlier", read_earlier, Earlier()),
        at=fields.get("at", words, "now"),
        day=day,
        inputs=Inputs(
            digits=fields.get("digits", _digits, ()),
            answers=answers,
            message_seconds=fields.get("message", seconds(0, 3600), 12.0),
            talk_seconds=fields.get("talk", seconds(1, 86400), 60.0),
            trunks_down=tuple((each, "so it was said") for each in fields.get("trunks_down", _names, none)),
        ),
        webhooks=fields.get("webhook", _replies, unasked),
        expected=fields.need("expect", _expected),
        places={
            key: (value.start_mark.line + 1, value.start_mark.column + 1)
            for key, value in fields
        },
    )  # fmt: skip
    fields.done()
    if bool(number) == bool(flow):
        raise fail(node, "a test needs one of number and flow", "number: +12025550101, or flow: front-desk")
    return case


def _names(node: yaml.Node, name: str) -> tuple[str, ...]:
    return tuple(words(each, name) for each in items(node, name))


def _rings(node: yaml.Node, name: str) -> tuple[str, ...]:
    if isinstance(node, yaml.SequenceNode) and not node.value:
        return ()
    found = _names(node, name)
    return () if found == (NOBODY,) else found


def _named_values(node: yaml.Node, name: str) -> tuple[tuple[str, str], ...]:
    return tuple((key, words(value, key)) for key, value in Fields(node, name))


def _digits(node: yaml.Node, name: str) -> tuple[str, ...]:
    """A list, or the keys of each round with commas between them."""
    listed = items(node, name) if isinstance(node, yaml.SequenceNode) else [node]
    keys = []
    for each in listed:
        for key in words(each, name).split(","):
            one = key.strip()
            if one not in NOTHING and not are_keys(one):
                raise fail(each, f"{one!r} is no key of a telephone", "0-9, * or '#'; - presses nothing in that round")
            keys.append("" if one in NOTHING else one)
    return tuple(keys)


def _answers(node: yaml.Node, name: str) -> Answers:
    """A word for every target, or a mapping of targets to one word or several, one for each ringing."""
    known = one_of([str(one) for one in Answer])
    if not isinstance(node, yaml.MappingNode):
        return ((ANY, tuple(Answer(known(each, name)) for each in items(node, name))),)
    return tuple(
        (target, tuple(Answer(known(each, target)) for each in items(value, target)))
        for target, value in Fields(node, name)
    )


def _replies(node: yaml.Node, name: str) -> tuple[tuple[str | None, str], ...]:
    """A word for every node that asks a web service, or a mapping of nodes to words."""
    if not isinstance(node, yaml.MappingNode):
        return ((None, words(node, name)),)
    return tuple((asking, words(value, asking)) for asking, value in Fields(node, name))


def _expected(node: yaml.Node, name: str) -> Expected:
    f = Fields(node, name)
    recorded: bool | None = f.get("recorded", truth, None)

    def maybe(field_name: str, read: Callable[[yaml.Node, str], T]) -> T | None:
        value: T | None = f.get(field_name, read, None)
        return value

    found = Expected(
        disposition=maybe("disposition", one_of([str(one) for one in Disposition])),
        answered_by=maybe("answered_by", words),
        rings=maybe("rings", _rings),
        path=maybe("path", _names),
        reaches=f.get("reaches", _names, ()),
        avoids=f.get("avoids", _names, ()),
        says=f.get("says", _names, ()),
        says_not=f.get("says_not", _names, ()),
        tags=maybe("tags", _rings),
        values=f.get("values", _named_values, ()),
        language=maybe("language", words),
        consent=maybe("consent", one_of((*ConsentResponse, "none"))),
        campaign=maybe("campaign", words),
        hangup=maybe("hangup", one_of(tuple(HANGUP_CAUSES))),
        recorded=recorded,
    )
    f.done()
    if found == Expected():
        raise fail(node, "it expects nothing", "for example disposition: voicemail, rings: [ana], says: good bye")
    return found


def run_cases(
    cases: Sequence[Case], snapshot: ConfigSnapshot, now: float, texts: Mapping[str, str] | None = None
) -> list[Outcome]:
    """Make every case's call.

    :param now: seconds since the epoch; moments without a date are the next ones from it
    :param texts: flows that are tried though they are not saved: as a case names them, and their text
    :raises FlowError: a case names a number, flow, target, node … that there is not; with line and column
    """
    known = _Routing(snapshot, texts or {})
    return [_run(case, known, now) for case in cases]


class _Routing:
    """The tables of numbers, and of flows that are tried without one."""

    def __init__(self, snapshot: ConfigSnapshot, texts: Mapping[str, str]) -> None:
        self.snapshot = snapshot
        self.texts = texts
        self.table = build_table(snapshot)
        self._flows: dict[tuple[str, str, str | None], RoutingTable] = {}

    def company(self, case: Case) -> Company:
        names = [company.name for company in self.snapshot.companies]
        if case.company is None and len(names) != 1:
            raise case.wrong("flow", "which company's?", "write company: " + " or ".join(names[:5]))
        found = next((one for one in self.snapshot.companies if case.company in (None, one.name)), None)
        if found is None:
            raise case.wrong("company", f"there is no company {case.company!r}", suggest(str(case.company), names))
        return found

    def of_number(self, case: Case, number: str) -> tuple[RoutingTable, Entry]:
        mine = [e for e in self.table.entries.values() if case.company in (None, e.company.name)]
        spellings = {number}
        for country in {entry.company.country for entry in mine}:
            try:
                spellings.add(phone.normalize(number, country))
            except InputError:
                continue
        found = [e for e in mine if e.number.e164 in spellings or e.number.name == number]
        if len(found) != 1:
            what = f"several companies have a number {number!r}" if found else f"there is no number {number!r}"
            hint = (
                "write company:"
                if found
                else suggest(number, [n for e in mine for n in (e.number.name, e.number.e164)])
            )
            raise case.wrong("number", what, hint)
        return self.table, found[0]

    def of_flow(self, case: Case, name: str) -> tuple[RoutingTable, Entry]:
        company = self.company(case)
        key = (company.id, name, case.campaign)
        if key not in self._flows:
            self._flows[key] = self._table_of(case, company, name)
        table = self._flows[key]
        return table, table.entries[FLOW_DID]

    def _table_of(self, case: Case, company: Company, name: str) -> RoutingTable:
        campaigns = {c.name: c.id for c in self.snapshot.campaigns if c.company_id == company.id}
        if case.campaign and case.campaign not in campaigns:
            raise case.wrong(
                "campaign", f"there is no campaign {case.campaign!r}", suggest(case.campaign, list(campaigns))
            )
        flows = {flow.name: flow for flow in self.snapshot.flows if flow.company_id == company.id}
        if name not in self.texts and name not in flows:
            raise case.wrong("flow", f"there is no flow {name!r}", suggest(name, list(flows)))
        # Files stand in for saved flows of their names, also where another flow goes on in them.
        for file in (*self.texts, *([name] if name in self.texts else [])):
            called = _called(file)
            flows[called] = FlowVersion(f"{FLOW_DID}-{called}", file, company.id, called, 0, self.texts[file])
        called = _called(name) if name in self.texts else name
        campaign = campaigns.get(case.campaign or "")
        number = TrackingNumber(FLOW_DID, company.id, FLOW_DID, called, campaign_id=campaign, flow=called)
        table = build_table(replace(self.snapshot, numbers=(number,), flows=tuple(flows.values())))
        entry = table.entries[FLOW_DID]
        for problem in [entry.problem] if entry.problem is not None else gaps(entry.flow):
            raise case.wrong("flow", problem)
        return table


def _called(file: str) -> str:
    """The name of the flow that a file stands for: ``flows/night.yaml`` is ``night``."""
    return file.rpartition("/")[2].rpartition(".")[0] or file


def _run(case: Case, known: _Routing, now: float) -> Outcome:
    table, entry = known.of_number(case, case.number) if case.number else known.of_flow(case, str(case.flow))
    zone = entry.company.timezone
    targets = sorted(entry.destinations)
    for target in [name for name, _ in case.inputs.answers if name != ANY]:
        if target not in targets:
            raise case.wrong("answers", f"there is no target {target!r} that could be rung", suggest(target, targets))
    expected = case.expected
    for field_name, named in (("rings", expected.rings or ()), ("answered_by", (expected.answered_by or "",))):
        for target in named:
            if target and target not in targets:
                raise case.wrong("expect", f"{field_name}: there is no target {target!r}", suggest(target, targets))
    nodes = list(entry.flow.nodes)
    for name in (*(expected.path or ()), *expected.reaches, *expected.avoids):
        if name not in nodes:
            raise case.wrong("expect", f"flow {entry.flow_label} has no node {name!r}", suggest(name, nodes))
    try:
        begin = parse_moment(case.day, zone, now) if case.day else now
        at = parse_moment(case.at, zone, begin)
        caller = phone.normalize(case.caller, entry.company.country) if case.caller else None
    except InputError as exc:
        where = "caller" if "telephone" in exc.message else "at"
        raise case.wrong(where, exc.message, exc.hint) from exc
    try:
        webhooks = tuple((node or ANY, (reply_of(entry.flow, node, word),)) for node, word in case.webhooks)
    except InputError as exc:
        raise case.wrong("webhook", exc.message, exc.hint) from exc
    inputs = replace(case.inputs, history=case.earlier.history(at), webhooks=webhooks)
    made = simulate(table, entry.number.e164, caller, at, inputs)
    return Outcome(case, tuple(_compare(expected, made, entry)), made)


def _compare(expected: Expected, made: Simulation, entry: Entry) -> list[Difference]:
    record = made.record
    found: list[Difference] = []

    def same(what: str, wanted: object, got: object, shown: str | None = None) -> None:
        if wanted is not None and wanted != got:
            found.append(Difference(what, _shown(wanted), shown or _shown(got)))

    disposition = str(record.disposition)
    same("disposition", expected.disposition, disposition, f"{disposition}: {record.reason}")
    same("answered_by", expected.answered_by, record.answered_by)
    same("rings", expected.rings, made.rung)
    same("path", expected.path, record.path)
    same("tags", None if expected.tags is None else tuple(sorted(expected.tags)), tuple(sorted(record.tags)))
    put = dict(record.values)
    for name, value in expected.values:
        same(name, value, put.get(name), put.get(name, "not set"))
    same("consent", expected.consent, str(record.consent.response) if record.consent else "none")
    same("language", expected.language, record.language, record.language or "none was chosen")
    same("campaign", expected.campaign, entry.campaign.name if entry.campaign else None)
    if expected.hangup is not None and made.cause != HANGUP_CAUSES[expected.hangup]:
        got = cause_text(made.cause) if made.cause is not None else "the call is not ended by the flow"
        found.append(Difference("hangup", expected.hangup, got))
    same("recorded", expected.recorded, bool(record.recordings))
    path = " → ".join(record.path)
    found += [Difference("reaches", node, path) for node in expected.reaches if node not in record.path]
    found += [Difference("avoids", node, path) for node in expected.avoids if node in record.path]
    heard = " | ".join(made.heard) or "nothing"
    plain = [text.casefold() for text in made.heard]
    for text in expected.says:
        if not any(text.casefold() in each for each in plain):
            found.append(Difference("says", text, heard))
    for text in expected.says_not:
        if any(text.casefold() in each for each in plain):
            found.append(Difference("says_not", text, heard))
    return found


def _shown(value: object) -> str:
    match value:
        case None:
            return "nobody"
        case bool():
            return "yes" if value else "no"
        case tuple():
            return ", ".join(str(each) for each in value) or "none"
    return str(value)
