"""What a routing file may say of each thing, and the routing as plain values by name."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import yaml

from callrouter.core.flow.languages import check_language
from callrouter.core.flow.source import (
    Fields,
    fail,
    items,
    one_of,
    recording,
    scalar,
    seconds,
    truth,
    whole,
    words,
)
from callrouter.core.groups import MAX_TIER, MAX_WEIGHT, member_text
from callrouter.core.model import (
    PAUSE_SECONDS,
    CallerIdMode,
    Campaign,
    Company,
    DidSource,
    FlowVersion,
    MediaEncryption,
    Member,
    NumberFormat,
    RecordingPolicy,
    Strategy,
    Target,
    TargetGroup,
    TrackingNumber,
    Trunk,
)
from callrouter.core.snapshot import ConfigSnapshot
from callrouter.core.trunks import MICROS, SETUP_SECONDS, TRANSPORTS, checked_rates, default_port, parse_rate, rate_text
from callrouter.errors import InputError

Read: TypeAlias = Callable[[yaml.Node, str], Any]
Values: TypeAlias = Mapping[str, Any]
"""Fields of one thing; a field that a file leaves out, and that stays then, is not there."""
NONE = "none"


class Key(NamedTuple):
    """What a thing is called."""

    kind: str
    """"trunk", "company", "campaign", "target", "group", "flow" or "number"."""
    company: str
    """Empty for trunks and companies."""
    name: str
    """E.164 for numbers."""

    def __str__(self) -> str:
        return f"{self.kind} {self.company}/{self.name}" if self.company else f"{self.kind} {self.name}"


Routing: TypeAlias = Mapping[Key, Values]
"""A whole routing, or the part of one that a file covers."""

KINDS = ("trunk", "company", "campaign", "target", "group", "flow", "number")
"""In the order in which they need each other."""
SECTIONS: Mapping[str, str] = MappingProxyType(
    {"campaigns": "campaign", "targets": "target", "groups": "group", "flows": "flow", "numbers": "number"}
)
"""Of a company."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a kind of thing."""

    name: str
    read: Read
    schema: Mapping[str, Any]
    """JSON Schema."""
    default: Any = None
    needed: bool = False
    stays: bool = False
    """Left out, it is as it was; else it has its default."""
    about: str = ""


def _text(node: yaml.Node, name: str) -> str | None:
    return scalar(node, name) or None


def _country(node: yaml.Node, name: str) -> str:
    return words(node, name).upper()


def _language(node: yaml.Node, name: str) -> str | None:
    text = scalar(node, name)
    try:
        return check_language(text) if text not in ("", NONE) else None
    except InputError as exc:
        raise fail(node, exc.message, exc.hint) from exc


def _texts(node: yaml.Node, name: str) -> tuple[str, ...]:
    if isinstance(node, yaml.SequenceNode) and not node.value:
        return ()
    return tuple(words(each, name) for each in items(node, name))


def _codecs(node: yaml.Node, name: str) -> tuple[str, ...]:
    return tuple(codec.lower() for codec in _texts(node, name))


def _networks(node: yaml.Node, name: str) -> tuple[str, ...]:
    """Addresses and networks as they are kept: a network of one address is that address."""
    found = []
    for text in _texts(node, name):
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            found.append(text)
        else:
            found.append(str(network.network_address) if network.num_addresses == 1 else str(network))
    return tuple(found)


def _destinations(node: yaml.Node, name: str) -> tuple[str, ...]:
    return tuple(sorted({text if text.startswith("+") else text.upper() for text in _texts(node, name)}))


def _cap(node: yaml.Node, name: str) -> int | None:
    return None if scalar(node, name) == NONE else whole(0, 999_999_999)(node, name)


def _rates(node: yaml.Node, name: str) -> tuple[tuple[str, int], ...]:
    try:
        return checked_rates(parse_rate(f"{prefix}={words(price, prefix)}") for prefix, price in Fields(node, name))
    except InputError as exc:
        if exc.exit_code == 2 and "line" in exc.message[:5]:
            raise
        raise fail(node, exc.message, exc.hint) from exc


def _members(node: yaml.Node, name: str) -> tuple[Member, ...]:
    return tuple(_member(each, name) for each in items(node, name))


def _member(node: yaml.Node, name: str) -> Member:
    if isinstance(node, yaml.ScalarNode):
        return Member(words(node, name))
    fields = Fields(node, "a member")
    ring: int | None = fields.get("ring_seconds", whole(1, 300), None)
    found = Member(
        fields.need("target", words),
        ring,
        fields.get("weight", whole(1, MAX_WEIGHT), 1),
        fields.get("tier", whole(1, MAX_TIER), 1),
    )
    fields.done()
    return found


def _defaults(kind: type[Any]) -> dict[str, Any]:
    return {one.name: one.default for one in dataclasses.fields(kind) if one.default is not dataclasses.MISSING}


_COMPANY, _TARGET, _TRUNK = _defaults(Company), _defaults(Target), _defaults(Trunk)
_STRING = {"type": "string"}
_MAYBE = {"type": ["string", "null"]}
_YES_NO = {"type": "boolean"}
_LIST = {"type": ["array", "string"], "items": _STRING}
_CAP = {"oneOf": [{"type": "integer", "minimum": 0, "maximum": 999_999_999}, {"const": NONE}]}
_MEMBERS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "oneOf": [
            _STRING,
            {
                "type": "object",
                "required": ["target"],
                "additionalProperties": False,
                "properties": {
                    "target": _STRING,
                    "ring_seconds": {"type": "integer", "minimum": 1, "maximum": 300},
                    "weight": {"type": "integer", "minimum": 1, "maximum": MAX_WEIGHT},
                    "tier": {"type": "integer", "minimum": 1, "maximum": MAX_TIER},
                },
            },
        ]
    },
}
_TITLE = Field("title", words, _STRING, stays=True, about="For people to read; a new one's is made from its name.")


def _choice(name: str, kind: type[StrEnum], default: StrEnum, about: str) -> Field:
    values = [str(each) for each in kind]
    return Field(name, lambda node, label: kind(one_of(values)(node, label)), {"enum": values}, default, about=about)


def _record(default: RecordingPolicy, about: str) -> Field:
    schema = {"enum": [*(str(each) for each in RecordingPolicy), True, False]}
    return Field("record", recording, schema, default, about=about)


FIELDS: Mapping[str, tuple[Field, ...]] = MappingProxyType(
    {
        "company": (
            _TITLE,
            Field("timezone", words, _STRING, needed=True, about="IANA name."),
            Field("country", _country, _STRING, _COMPANY["country"], about="Of numbers without +; ISO 3166."),
            Field("currency", _country, _STRING, _COMPANY["currency"], about="ISO 4217."),
            Field("language", _language, _MAYBE, about="Of what callers hear, like es or pt-br."),
            _record(_COMPANY["record"], "Whether conversations are recorded of which nobody else speaks."),
            Field("consent_required", truth, _YES_NO, default=False, about="Record only callers who consented."),
            Field("pause_keys", truth, _YES_NO, default=False, about="*1 pauses the recording, *2 resumes it."),
            Field("pause_seconds", whole(*PAUSE_SECONDS), {"type": "integer", "minimum": 5, "maximum": 3600},
                  _COMPANY["pause_seconds"], about="A pause ends by itself."),
            Field("allowed_destinations", _destinations, _LIST, (), stays=True, about="Countries and prefixes."),
            Field("max_outbound_calls", _cap, _CAP, stays=True, about="Legs over trunks at once."),
            Field("max_outbound_per_hour", _cap, _CAP, stays=True, about="Legs over trunks in 60 minutes."),
            Field("max_spend_per_day", _cap, _CAP, stays=True, about="Minor units of the currency."),
            Field("accept_anonymous", truth, _YES_NO, _COMPANY["accept_anonymous"], stays=True,
                  about="Whether withheld numbers are let in."),
            Field("max_calls_per_caller", _cap, _CAP, stays=True, about="Calls of one number in caller_window."),
            Field("caller_window", whole(1, 86400), {"type": "integer", "minimum": 1, "maximum": 86400},
                  _COMPANY["caller_window"], stays=True, about="Seconds."),
        ),
        "campaign": (
            _TITLE,
            Field("source", words, _STRING, needed=True, about="Where its leads come from."),
            Field("medium", words, _STRING, needed=True, about="How."),
        ),
        "target": (
            _TITLE,
            Field("number", _text, _MAYBE, about="Telephone number, dialled over trunk."),
            Field("trunk", _text, _MAYBE, about="Name of the trunk."),
            Field("sip_uri", _text, _MAYBE, about="sip:user@host[:port], instead of number and trunk."),
            Field("ring_seconds", whole(1, 300), {"type": "integer", "minimum": 1, "maximum": 300},
                  _TARGET["ring_seconds"]),
            Field("whisper", _text, _MAYBE, about="Said to the business first."),
            _record(_TARGET["record"], "Before the company's word."),
        ),
        "group": (
            _TITLE,
            _choice("strategy", Strategy, Strategy.IN_ORDER, "Whom it rings, and in which order."),
            Field("members", _members, _MEMBERS, needed=True, about="Names of targets, or mappings."),
            Field("stop_on_declined", truth, _YES_NO, default=True, about="A member that declines does so for all."),
            Field("stop_on_busy", truth, _YES_NO, default=False, about="A busy member makes the group busy."),
        ),
        "flow": (Field("text", words, _STRING, needed=True),),
        "number": (
            Field("name", words, _STRING, needed=True, about="Short name."),
            Field("campaign", _text, _MAYBE, about="What it stands for."),
            Field("flow", _text, _MAYBE, about="What answers it; or target."),
            Field("target", _text, _MAYBE, about="Who is rung at once; or flow."),
            Field("backup", _text, _MAYBE, about="The target that is rung without a server."),
            Field("active", truth, _YES_NO, default=True, about="false: its calls are refused."),
            _record(RecordingPolicy.INHERIT, "Before the flow's, the target's and the company's word."),
        ),
        "trunk": (
            Field("preset", words, _STRING, "generic-ip", about="Whose values these are; it sets none here."),
            Field("host", words, _STRING, needed=True),
            Field("port", whole(1, 65535), {"type": "integer", "minimum": 1, "maximum": 65535}),
            Field("transport", one_of(TRANSPORTS), {"enum": list(TRANSPORTS)}, _TRUNK["transport"]),
            Field("match", _networks, _LIST, (), about="Where its calls come from."),
            Field("registers", truth, _YES_NO, _TRUNK["registers"]),
            Field("username", _text, _MAYBE, about="Its password stands in no file: callrouter trunk secret."),
            Field("codecs", _codecs, _LIST, (), about="Best first."),
            _choice("caller_id", CallerIdMode, _TRUNK["caller_id"], "The number the business sees."),
            Field("fixed_caller_id", _text, _MAYBE),
            _choice("did_source", DidSource, _TRUNK["did_source"], "Where it writes the number dialled."),
            _choice("number_format", NumberFormat, _TRUNK["number_format"], "How it wants numbers written."),
            Field("qualify_seconds", whole(0, 3600), {"type": "integer", "minimum": 0, "maximum": 3600},
                  _TRUNK["qualify_seconds"]),
            Field("country", _country, _STRING, _TRUNK["country"]),
            _choice("media_encryption", MediaEncryption, _TRUNK["media_encryption"], "SRTP."),
            Field("secure_only", truth, _YES_NO, _TRUNK["secure_only"]),
            Field("trust_identity", truth, _YES_NO, _TRUNK["trust_identity"], about="Its P-Asserted-Identity counts."),
            Field("next_trunk", _text, _MAYBE, about="Tried when this one fails."),
            Field("setup_seconds", seconds(*SETUP_SECONDS), {"type": "number"}, _TRUNK["setup_seconds"]),
            Field("rates", _rates, {"type": "object", "additionalProperties": {"type": ["number", "string"]}}, (),
                  about="Prefix to price of a minute."),
        ),
    }
)  # fmt: skip


def complete(kind: str, given: Values) -> dict[str, Any]:
    """``given`` with the defaults of what may not be left as it is."""
    found = {field.name: given.get(field.name, field.default) for field in FIELDS[kind] if _counts(field, given)}
    if kind == "trunk" and found.get("port") is None:
        found["port"] = default_port(found["transport"])
    return found


def _counts(field: Field, given: Values) -> bool:
    return field.name in given or not field.stays


def shown(value: Any, name: str = "") -> str:
    """A field's value for people."""
    match value:
        case None | () | "":
            return NONE
        case bool():
            return "yes" if value else "no"
        case tuple():
            return ", ".join(_one(each, name) for each in value)
        case StrEnum():
            return value.value
    return f"{value:g}" if isinstance(value, float) else str(value)


def _one(value: Any, name: str) -> str:
    match value:
        case Member():
            return member_text(value)
        case _ if name == "rates":
            return rate_text(value)
    return str(value)


def price(micros: int) -> str:
    """A rate as a routing file has it: ``0.012``."""
    return rate_text(("", micros)).strip() if micros % MICROS or micros else "0.00"


def from_parts(
    companies: Mapping[str, Company],
    campaigns: Mapping[str, Campaign],
    trunks: Mapping[str, Trunk],
    targets: Mapping[str, Target],
    groups: Mapping[str, TargetGroup],
    flows: Mapping[str, FlowVersion],
    numbers: Mapping[str, TrackingNumber],
) -> dict[Key, dict[str, Any]]:
    """A routing by name out of values by id."""
    found: dict[Key, dict[str, Any]] = {}

    def put(kind: str, owner: str, name: str, value: object, **changes: Any) -> None:
        names = [field.name for field in FIELDS[kind]]
        found[Key(kind, owner, name)] = {one: changes[one] if one in changes else getattr(value, one) for one in names}

    def owner(company_id: str) -> str:
        return companies[company_id].name

    for trunk in trunks.values():
        put("trunk", "", trunk.name, trunk)
    for company in companies.values():
        put("company", "", company.name, company)
    for campaign in campaigns.values():
        put("campaign", owner(campaign.company_id), campaign.name, campaign)
    for target in targets.values():
        put("target", owner(target.company_id), target.name, target)
    for group in groups.values():
        put("group", owner(group.company_id), group.name, group)
    for flow in flows.values():
        put("flow", owner(flow.company_id), flow.name, flow)
    for number in numbers.values():
        stands_for = campaigns.get(number.campaign_id or "")
        name = stands_for.name if stands_for else None
        put("number", owner(number.company_id), number.e164, number, campaign=name)
    return found  # fmt: skip


def to_snapshot(routing: Routing, version: int, prompts: tuple[tuple[str, str, str], ...] = ()) -> ConfigSnapshot:
    """A snapshot that routing tables are built from; ids are made from names.

    :param prompts: (company's name, name, SHA-256) of uploaded prompts
    """
    parts: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for key, given in routing.items():
        values = {**complete(key.kind, given)}
        owner, ident = key.company, f"{key.company}/{key.name}"
        title = values.pop("title", None) or key.name
        match key.kind:
            case "trunk":
                parts["trunk"].append(Trunk(id=key.name, name=key.name, **values))
            case "company":
                parts["company"].append(Company(id=key.name, name=key.name, title=title, **values))
            case "campaign":
                parts["campaign"].append(Campaign(ident, owner, key.name, title, values["source"], values["medium"]))
            case "target":
                parts["target"].append(Target(id=ident, company_id=owner, name=key.name, title=title, **values))
            case "group":
                parts["group"].append(TargetGroup(id=ident, company_id=owner, name=key.name, title=title, **values))
            case "flow":
                parts["flow"].append(FlowVersion(ident, ident, owner, key.name, 0, values["text"]))
            case "number":
                campaign = values.pop("campaign")
                stands_for = f"{owner}/{campaign}" if campaign else None
                parts["number"].append(
                    TrackingNumber(id=ident, company_id=owner, e164=key.name, campaign_id=stands_for, **values)
                )
    return ConfigSnapshot(
        version=version,
        companies=tuple(parts["company"]),
        campaigns=tuple(parts["campaign"]),
        trunks=tuple(parts["trunk"]),
        targets=tuple(parts["target"]),
        groups=tuple(parts["group"]),
        numbers=tuple(parts["number"]),
        flows=tuple(parts["flow"]),
        prompts=prompts,
    )
