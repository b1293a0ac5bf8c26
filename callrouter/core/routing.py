"""Where a call goes. One immutable table, built from the configuration, swapped whole when that changes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from callrouter.core.blocks import NO_BLOCKS, BlockList, block_list
from callrouter.core.dialstring import dial_string
from callrouter.core.flow import nodes as n
from callrouter.core.flow.check import dialled, prompts_of, targets_of
from callrouter.core.flow.languages import in_language
from callrouter.core.flow.link import flows_of, home, link
from callrouter.core.flow.parse import parse_flow
from callrouter.core.flow.said import FlowSaid, said_by
from callrouter.core.flow.text import fill
from callrouter.core.model import (
    CallerIdMode,
    Campaign,
    Company,
    FlowVersion,
    HoursOverride,
    Target,
    TargetGroup,
    TrackingNumber,
    Trunk,
)
from callrouter.core.outbound import called, rate_of, refused_number
from callrouter.core.snapshot import ConfigSnapshot
from callrouter.errors import InputError

SIMULATOR_TRUNK = "simulator"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a target: by its SIP URI, or its number over a trunk."""

    endpoint: str
    """Asterisk's dial string."""
    trunk: str | None = None
    """Name; None: by SIP URI."""
    setup_seconds: float = 0.0
    """Without a sign of life for so long, the next way is taken."""
    caller_id: CallerIdMode = CallerIdMode.PASS_THROUGH
    fixed_caller_id: str | None = None
    rate: int | None = None
    """What a minute costs, in millionths of the company's currency unit; None: not known."""

    def shown_number(self, did: str) -> str | None:
        """The number the business sees; None: the caller's own."""
        match self.caller_id:
            case CallerIdMode.PASS_THROUGH:
                return None
            case CallerIdMode.TRACKING_NUMBER:
                return did
            case CallerIdMode.FIXED:
                return self.fixed_caller_id


@dataclass(frozen=True, slots=True)
class Destination:
    """A target, ready to be dialled."""

    target: Target
    ways: tuple[Way, ...]
    """At least one: over the target's trunk, then over those that follow it."""

    def next_way(self, tried: Collection[str | None] = (), down: Collection[str | None] = ()) -> Way | None:
        """The way to take, or None when all were tried.

        :param tried: trunks that failed in this attempt to reach the target
        :param down: trunks known to be down; they come last, for what is known of them may be old
        """
        left = [way for way in self.ways if way.trunk not in tried]
        return next((way for way in left if way.trunk not in down), left[0] if left else None)


@dataclass(frozen=True, slots=True)
class Linked:
    """The version of a flow whose nodes a call can come to."""

    name: str
    label: str
    """``night@2``."""
    version_id: str


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything about one tracking number."""

    number: TrackingNumber
    company: Company
    campaign: Campaign | None
    flow: n.Flow
    """With what it goes on in (``flow.link``)."""
    flow_label: str
    """"front-desk@3", or "direct" for a number that rings a target without a flow."""
    flow_version_id: str | None
    destinations: Mapping[str, Destination]
    backups: tuple[Destination, ...]
    """Rung by the failsafe, in order, and when a flow breaks."""
    problem: str | None = None
    """Why the number's own flow could not be used."""
    uploaded: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the company's uploaded prompts, by name."""
    said: FlowSaid = field(default_factory=FlowSaid)
    """What ``flow`` says of recording."""
    overrides: tuple[HoursOverride, ...] = ()
    """Of opening hours: of the company, and of these flows."""
    groups: Mapping[str, TargetGroup] = field(default_factory=dict)
    """The company's, by name."""
    linked: tuple[Linked, ...] = ()
    """The flows that ``flow`` is made of, its own first; none: it goes on in no other."""

    @property
    def flow_versions(self) -> tuple[tuple[str, str], ...]:
        """(name, version) of each flow in ``linked``."""
        return tuple((each.name, each.version_id) for each in self.linked)

    def path(self, node: str) -> str:
        """Where a node is: ``front-desk@3/menu``, or of another flow ``night@2/greet``."""
        of, own = home(self.flow, node)
        label = next((each.label for each in self.linked if each.name == of), self.flow_label)
        return f"{label}/{own}"

    @property
    def members(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the targets of each group."""
        return members_of(self.groups.values())

    @property
    def backup_ways(self) -> tuple[tuple[Destination, Way], ...]:
        """All that the failsafe may dial; its legs bear the number that a way has here, from 1."""
        allowed = self.company.allowed_destinations
        return tuple(
            (backup, way)
            for backup in self.backups
            for way in backup.ways
            if way.trunk is None or refused_number(called(backup.target.number or ""), True, allowed) is None
        )

    def values(self) -> dict[str, str]:
        """What the placeholders in spoken texts stand for."""
        return {
            "campaign": self.campaign.title if self.campaign else self.number.name,
            "number": self.number.name,
            "company": self.company.title,
        }

    def whisper(self, node: n.Dial, target: str) -> n.Prompts:
        """What a target that a node rings hears before the caller is connected."""
        destination = self.destinations.get(target)
        text = node.whisper if node.whisper is not None else destination.target.whisper if destination else None
        if not text:
            return ()
        try:
            return (n.Prompt(text=fill(text, self.values()), language=self.company.language),)
        except InputError:
            return ()


@dataclass(frozen=True, slots=True)
class RoutingTable:
    version: int
    entries: Mapping[str, Entry]
    """By E.164."""
    country_of_trunk: Mapping[str, str]
    blocks: BlockList = NO_BLOCKS
    """Callers who are refused."""

    def overrides_of(self, did: str, at: float) -> tuple[HoursOverride, ...]:
        """Overrides of a number's opening hours that are in force at an instant (seconds since the epoch)."""
        entry = self.entries.get(did)
        return tuple(each for each in entry.overrides if at < each.until) if entry is not None else ()


@dataclass(frozen=True, slots=True)
class RouteToFlow:
    entry: Entry
    why: str


@dataclass(frozen=True, slots=True)
class Reject:
    cause: int
    """Q.850."""
    why: str
    entry: Entry | None = None
    blocked: bool = False
    """For its caller; else for the number that was dialled."""


Decision: TypeAlias = RouteToFlow | Reject

EMPTY = RoutingTable(version=0, entries=MappingProxyType({}), country_of_trunk=MappingProxyType({}))


def decide(table: RoutingTable, did: str) -> Decision:
    """Where a call to a number goes."""
    entry = table.entries.get(did)
    if entry is None:
        return Reject(cause=1, why=f"{did or 'an empty number'} is not one of our tracking numbers")
    if not entry.number.active:
        return Reject(cause=1, why=f"{entry.number.name} ({did}) is switched off", entry=entry)
    if entry.problem is not None:
        return RouteToFlow(entry, f"{entry.number.name} rings its backup destination: {entry.problem}")
    if entry.flow_version_id is None:
        return RouteToFlow(entry, f"{entry.number.name} rings {entry.number.target} directly")
    return RouteToFlow(entry, f"{entry.number.name} runs {entry.flow_label}")


def members_of(groups: Iterable[TargetGroup]) -> dict[str, tuple[str, ...]]:
    """Names of the targets of each group, by the group's name."""
    return {group.name: tuple(member.target for member in group.members) for group in groups}


def build_table(snapshot: ConfigSnapshot) -> RoutingTable:
    """Resolve a configuration into a table. Never fails: a number whose flow is broken rings its backup."""
    companies = {company.id: company for company in snapshot.companies}
    campaigns = {campaign.id: campaign for campaign in snapshot.campaigns}
    trunks = {trunk.name: trunk for trunk in snapshot.trunks}
    destinations = _destinations(snapshot, trunks)
    groups_of: dict[str, dict[str, TargetGroup]] = {}
    for group in snapshot.groups:
        groups_of.setdefault(group.company_id, {})[group.name] = group
    flows = _flows(snapshot.flows)
    uploaded: dict[str, dict[str, str]] = {}
    for company_id, name, sha256 in snapshot.prompts:
        uploaded.setdefault(company_id, {})[name] = sha256
    entries: dict[str, Entry] = {}
    for number in snapshot.numbers:
        own = destinations.get(number.company_id, {})
        read = _Read(None, "direct", None)
        if number.flow is not None:
            missing = _Read(None, number.flow, None, f"flow {number.flow} does not exist")
            read = flows.get((number.company_id, number.flow), missing)
        elif number.target not in own:
            read = read._replace(problem=f"target {number.target} cannot be dialled")
        flow, label, version_id, problem, linked = read
        groups = groups_of.get(number.company_id, {})
        backups = _backups(number, flow, own, groups)
        if flow is None:
            first = backups[0].target.name if backups else ""
            flow = direct_flow(number.target if number.target and problem is None else first)
            label, version_id = "direct", None
        entries[number.e164] = Entry(
            number=number,
            company=companies[number.company_id],
            campaign=campaigns.get(number.campaign_id or ""),
            flow=flow,
            flow_label=label,
            flow_version_id=version_id,
            destinations=own,
            backups=backups,
            problem=problem,
            groups=groups,
            uploaded=uploaded.get(number.company_id, {}),
            said=said_by(flow, members_of(groups.values())),
            overrides=tuple(
                each
                for each in snapshot.overrides
                if each.company_id == number.company_id
                and each.flow in (number.flow, None, *(one.name for one in linked))
            ),
            linked=linked,
        )
    return RoutingTable(
        version=snapshot.version,
        entries=MappingProxyType(entries),
        country_of_trunk=MappingProxyType({trunk.name: trunk.country for trunk in snapshot.trunks}),
        blocks=block_list(snapshot.blocks),
    )


class _Read(NamedTuple):
    """A flow of the configuration."""

    flow: n.Flow | None
    """None: it cannot be read."""
    label: str
    version_id: str | None
    problem: str | None = None
    linked: tuple[Linked, ...] = ()


def _flows(versions: Iterable[FlowVersion]) -> dict[tuple[str, str], _Read]:
    """Each flow, linked with those that it goes on in; by company and name."""
    found: dict[tuple[str, str], _Read] = {}
    parsed: dict[str, dict[str, n.Flow]] = {}
    labels: dict[tuple[str, str], Linked] = {}
    for version in versions:
        key, label = (version.company_id, version.name), f"{version.name}@{version.version}"
        labels[key] = Linked(version.name, label, version.id)
        try:
            flow = parsed.setdefault(version.company_id, {})[version.name] = parse_flow(version.text, version.name)
            found[key] = _Read(flow, label, version.id)
        except InputError as exc:
            found[key] = _Read(None, label, version.id, f"flow {label} does not hold together: {exc.message}")
    for (company_id, name), read in found.items():
        if read.flow is not None:
            flow = link(read.flow, parsed[company_id])
            names = flows_of(flow)
            linked = tuple(labels[company_id, each] for each in names) if len(names) > 1 else ()
            found[company_id, name] = read._replace(flow=flow, linked=linked)
    return found


def linked_flow(versions: Iterable[FlowVersion], name: str) -> tuple[n.Flow, tuple[Linked, ...]] | None:
    """A flow of some versions, with those that it goes on in; None: one of them cannot be read.

    :param versions: of one company
    :param name: of one of them
    """
    found = {each: read for (_, each), read in _flows(versions).items()}
    flow, linked = found[name].flow, found[name].linked
    return (flow, linked) if flow is not None and all(read.flow is not None for read in found.values()) else None


def direct_flow(target: str) -> n.Flow:
    """The flow of a number that simply rings one target: what it cannot connect it ends with the matching cause."""
    return n.Flow(
        name="direct",
        start="dial",
        nodes={
            "dial": n.Dial(target, on_busy="busy", on_no_answer="no-answer", on_failed="failed"),
            "busy": n.Hangup("busy"),
            "no-answer": n.Hangup("no-answer"),
            "failed": n.Hangup("congestion"),
        },
    )


def spoken(table: RoutingTable) -> Iterator[tuple[str, n.Prompt]]:
    """Every (company id, prompt) that a call could play: what must be rendered before the table is used."""
    for entry in table.entries.values():
        for node in entry.flow.nodes.values():
            for prompt in prompts_of(node):
                yield entry.company.id, filled(prompt, entry)
            if isinstance(node, n.Dial):
                for target in targets_of(node, entry.members):
                    for prompt in entry.whisper(node, target):
                        yield entry.company.id, prompt


def filled(prompt: n.Prompt, entry: Entry, language: str | None = None) -> n.Prompt:
    """A prompt as it is heard: in one language, its placeholders replaced.

    :param language: that the flow chose; the company's comes after it, and then the first one the prompt is in
    """
    heard = in_language(prompt, language, entry.company.language)
    if heard.text is None:
        return n.Prompt(file=heard.file)
    try:
        text = fill(heard.text, entry.values())
    except InputError:
        text = heard.text
    return n.Prompt(text=text, language=heard.language or entry.company.language)


def _destinations(snapshot: ConfigSnapshot, trunks: Mapping[str, Trunk]) -> dict[str, dict[str, Destination]]:
    found: dict[str, dict[str, Destination]] = {}
    for target in snapshot.targets:
        # A target that cannot be dialled is as one that is missing: its dial node takes on_failed.
        if ways := _ways(target, trunks):
            found.setdefault(target.company_id, {})[target.name] = Destination(target, ways)
    return found


def _ways(target: Target, trunks: Mapping[str, Trunk]) -> tuple[Way, ...]:
    """Over the target's trunk and each next one, none twice; what cannot be dialled is left out."""
    if not target.trunk:
        try:
            return (Way(dial_string(target, None)),)
        except InputError:
            return ()
    ways: dict[str, Way | None] = {}
    trunk = trunks.get(target.trunk)
    while trunk is not None and trunk.name not in ways:
        try:
            endpoint = dial_string(target, trunk)
        except InputError:
            ways[trunk.name] = None
        else:
            ways[trunk.name] = Way(
                endpoint,
                trunk.name,
                trunk.setup_seconds,
                trunk.caller_id,
                trunk.fixed_caller_id,
                rate_of(trunk.rates, target.number or ""),
            )
        trunk = trunks.get(trunk.next_trunk or "")
    return tuple(way for way in ways.values() if way is not None)


def _backups(
    number: TrackingNumber, flow: n.Flow | None, own: Mapping[str, Destination], groups: Mapping[str, TargetGroup]
) -> tuple[Destination, ...]:
    names = [number.backup, number.target, *(dialled(flow, members_of(groups.values())) if flow else ())]
    return tuple(own[name] for name in dict.fromkeys(names) if name and name in own)
