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
    record: bool = True
    allowed_destinations: tuple[str, ...] = ()
    """Countries ("US") and prefixes ("+4420") that may be dialled though no target of the routing names them."""
    max_outbound_calls: int | None = None
    """Legs dialled over trunks at one time; None: no cap."""
    max_outbound_per_hour: int | None = None
    """Legs dialled over trunks in any 60 minutes; None: no cap."""
    max_spend_per_day: int | None = None
    """Minor units of ``currency``, by the trunks' rates, from midnight in the company's zone; None: no cap."""


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
