"""What the routing is made of: companies, campaigns, trunks, targets, tracking numbers.

Plain frozen values. The store fills them from the database; the core decides with them.
Phone numbers are E.164 strings ("+12025550123"), ids are UUIDv7 strings, names are slugs unique within their company.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CallerIdMode(StrEnum):
    """Which number the business sees when a trunk or phone is called."""

    PASS_THROUGH = "pass-through"
    """The caller's own number. Some trunks refuse numbers that are not theirs."""
    TRACKING_NUMBER = "tracking-number"
    """The DID that was dialled: the business sees which campaign rings."""
    FIXED = "fixed"
    """Always the trunk's ``fixed_caller_id``."""


class DidSource(StrEnum):
    """Where a trunk puts the number that was dialled."""

    REQUEST_URI = "request-uri"
    TO_HEADER = "to-header"


class MediaEncryption(StrEnum):
    """How a trunk's audio is protected."""

    NONE = "none"
    SDES = "sdes"
    """SRTP with keys in the SDP (RFC 4568); only sensible over TLS."""
    DTLS = "dtls"
    """SRTP with keys agreed in the media path (RFC 5764)."""


class NumberFormat(StrEnum):
    """How a trunk wants numbers written when we dial through it."""

    E164 = "e164"  # +12025550123
    E164_NO_PLUS = "e164-no-plus"  # 12025550123
    NATIONAL = "national"  # 2025550123
    INTERNATIONAL_00 = "international-00"  # 0012025550123


class RecordingPolicy(StrEnum):
    """What one part of the routing says of recording (``recording_policy.decide_recording``)."""

    FORCE = "force"
    NEVER = "never"
    INHERIT = "inherit"
    """Nothing: the next one's word counts."""

    @classmethod
    def of(cls, said: object) -> RecordingPolicy:
        """One of the words, or yes and no.

        :raises ValueError: something else
        """
        return cls(said)  # type: ignore[arg-type]

    @classmethod
    def _missing_(cls, value: object) -> RecordingPolicy | None:
        """Yes and no, as it was said before there were three words."""
        return (cls.FORCE if value else cls.NEVER) if isinstance(value, bool) else None


PAUSE_SECONDS = (5, 3600)
"""Least and most of ``Company.pause_seconds``."""
DEFAULT_PAUSE_SECONDS = 120
"""Long enough to read out a card twice."""
DEFAULT_MAX_CALLS = 50
"""Of a new company: more people than that talk at once in few businesses that answer on outside lines."""
DEFAULT_MAX_PER_HOUR = 1000
"""Of a new company: 50 lines busy with calls of three minutes."""


class NumberKind(StrEnum):
    """What it may cost to dial a number."""

    ORDINARY = "ordinary"
    PREMIUM = "premium-rate"
    SHARED_COST = "shared-cost"
    PERSONAL = "personal"
    """Follows its owner (+44 70); priced as its owner likes."""
    SATELLITE = "satellite"
    """Satellite telephones, and networks of no country."""


@dataclass(frozen=True, slots=True)
class Company:
    id: str
    name: str
    title: str
    timezone: str
    """IANA zone name."""
    country: str = "US"
    """ISO 3166 alpha-2; assumed for numbers written without +."""
    currency: str = "USD"
    """ISO 4217."""
    language: str | None = None
    """Of what callers hear, where no flow chooses another ("en", "pt-br"); None: that of the installation's voice."""
    record: RecordingPolicy = RecordingPolicy.FORCE
    """The last word; ``inherit`` here: nothing is recorded but what a number, a node or a target says."""
    consent_required: bool = False
    """Whether only callers that a flow has asked for consent are recorded."""
    pause_keys: bool = False
    """Whether who talks can pause the recording by *1 and resume it by *2."""
    pause_seconds: int = DEFAULT_PAUSE_SECONDS
    """After so long a pause ends by itself."""
    allowed_destinations: tuple[str, ...] = ()
    """Countries ("US") and prefixes ("+4420") that may be dialled though no target of the routing names them."""
    max_outbound_calls: int | None = None
    """Legs dialled over trunks at one time; None: no cap."""
    max_outbound_per_hour: int | None = None
    """Legs dialled over trunks in any 60 minutes; None: no cap."""
    max_spend_per_day: int | None = None
    """Minor units of ``currency``, by the trunks' rates, from midnight in the company's zone; None: no cap."""
    accept_anonymous: bool = True
    """Whether callers who withhold their number are let in."""
    max_calls_per_caller: int | None = None
    """Calls of one number in any ``caller_window``; what is above is refused. None: no cap."""
    caller_window: int = 3600
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Campaign:
    id: str
    company_id: str
    name: str
    title: str
    source: str
    """Where the lead came from: "billboard", "google", "radio" …"""
    medium: str
    """How: "offline", "cpc", "organic", "referral" …"""


@dataclass(frozen=True, slots=True)
class Trunk:
    """A SIP connection to a provider or to a PBX."""

    id: str
    name: str
    preset: str
    host: str
    port: int = 5060
    transport: str = "udp"
    """"udp", "tcp" or "tls"."""
    match: tuple[str, ...] = ()
    """Addresses or CIDR networks whose INVITEs are this trunk's; empty: ``host`` alone."""
    registers: bool = False
    username: str | None = None
    """For registration and outbound authentication; the password is kept in the secrets directory."""
    codecs: tuple[str, ...] = ()
    """Best first; empty: the installation's."""
    caller_id: CallerIdMode = CallerIdMode.PASS_THROUGH
    fixed_caller_id: str | None = None
    did_source: DidSource = DidSource.REQUEST_URI
    number_format: NumberFormat = NumberFormat.E164
    qualify_seconds: int = 60
    """Interval of OPTIONS probes; 0: never (some providers do not answer them)."""
    country: str = "US"
    """Country assumed for DIDs and callers it writes without +."""
    media_encryption: MediaEncryption = MediaEncryption.NONE
    secure_only: bool = False
    """Whether an INVITE of this trunk that came without TLS is refused."""
    trust_identity: bool = False
    """Whether P-Asserted-Identity, Remote-Party-ID and ``verstat`` of this trunk are believed; else who calls is what
    From says."""
    next_trunk: str | None = None
    """Name of the trunk that is tried when this one fails."""
    setup_seconds: float = 4.0
    """A call that shows no sign of life after these is taken to ``next_trunk``."""
    rates: tuple[tuple[str, int], ...] = ()
    """(prefix, millionths of the company's currency unit per minute); the longest prefix wins."""


@dataclass(frozen=True, slots=True)
class Target:
    """A business line: exactly one of ``sip_uri`` or ``number`` (then with ``trunk``)."""

    id: str
    company_id: str
    name: str
    title: str
    number: str | None = None
    """E.164."""
    trunk: str | None = None
    """Name of the trunk that ``number`` is dialled through."""
    sip_uri: str | None = None
    """sip:user@host[:port], dialled directly."""
    ring_seconds: int = 25
    whisper: str | None = None
    """Spoken to the business before the caller is connected; may hold {campaign}, {number}, {company}."""
    record: RecordingPolicy = RecordingPolicy.INHERIT


class Strategy(StrEnum):
    """Whom of a group a call rings, and in which order (``groups.order``)."""

    IN_ORDER = "in-order"
    """As the members stand in the list."""
    ROUND_ROBIN = "round-robin"
    """As they stand, each call beginning with the one behind the member that the call before began with."""
    WEIGHTED = "weighted"
    """Each begins a share of the calls that is as large as its weight."""
    TIERS = "tiers"
    """Lowest tier first; round robin within each."""
    LEAST_RECENT = "least-recent"
    """Whoever was rung longest ago first."""
    LONGEST_IDLE = "longest-idle"
    """Whoever last talked longest ago first; who is talking comes last."""
    RING_ALL = "ring-all"
    """All at once; the first to answer has the call."""


@dataclass(frozen=True, slots=True)
class Member:
    """One target of a group."""

    target: str
    """Name of a target of the company."""
    ring_seconds: int | None = None
    """None: the target's own."""
    weight: int = 1
    """Share of the calls that it begins; only with the strategy ``weighted``."""
    tier: int = 1
    """1 is rung first; only with the strategy ``tiers``."""


@dataclass(frozen=True, slots=True)
class TargetGroup:
    """Targets that are rung for each other, by a strategy."""

    id: str
    company_id: str
    name: str
    title: str
    strategy: Strategy = Strategy.IN_ORDER
    members: tuple[Member, ...] = ()
    """At least one; no target twice."""
    stop_on_declined: bool = True
    """Whether a member that refuses the call (603) refuses it for all; else the next one rings."""
    stop_on_busy: bool = False
    """Whether a busy member (486) makes the group busy; else the next one rings."""


@dataclass(frozen=True, slots=True)
class TrackingNumber:
    """A DID and what it stands for. Exactly one of ``flow`` or ``target`` answers it."""

    id: str
    company_id: str
    e164: str
    name: str
    campaign_id: str | None = None
    flow: str | None = None
    """Name of a flow of the company."""
    target: str | None = None
    """Name of a target of the company."""
    backup: str | None = None
    """Name of the target that the failsafe rings; None: the target, or the first one the flow dials."""
    active: bool = True
    record: RecordingPolicy = RecordingPolicy.INHERIT


HOURS_STATES = ("open", "closed")


@dataclass(frozen=True, slots=True)
class HoursOverride:
    """Opening hours put aside for a time, as on a day of snow."""

    id: str
    company_id: str
    state: str
    """One of HOURS_STATES: what every ``hours`` node says meanwhile."""
    until: float
    """Seconds since the epoch; from then on the hours count again."""
    flow: str | None = None
    """Name of the only flow that it is for; None: all of the company."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FlowVersion:
    """One saved text of a flow. Texts never change; an edit makes a new version."""

    id: str
    flow_id: str
    company_id: str
    name: str
    version: int
    """1, 2, 3 … within the flow."""
    text: str
    """YAML."""
