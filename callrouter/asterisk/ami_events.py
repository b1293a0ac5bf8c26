"""AMI's messages as values, and the state of Asterisk folded from them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

PAUSE_EVENT = "CallrouterRecording"
"""UserEvent that asks for a pause of a recording: from keys (features.conf) or from the command line."""
SECURITY_EVENTS = frozenset({
    "AuthMethodNotAllowed",
    "ChallengeResponseFailed",
    "FailedACL",
    "InvalidAccountID",
    "InvalidPassword",
    "InvalidTransport",
    "LoadAverageLimit",
    "MemoryLimit",
    "RequestBadFormat",
    "RequestNotAllowed",
    "RequestNotSupported",
    "SessionLimit",
    "UnexpectedAddress",
})  # fmt: skip
"""Asterisk's security events that mean somebody was turned away; ChallengeSent and SuccessfulAuth are everyday."""

MAX_SECURITY_COUNTERS = 256
OTHERS = "others"

MANY_TIMES = 10
MANY_SECONDS = 60.0
MAX_WATCHED = 1024
MAX_REPORTS = 60


class Headers(Mapping[str, str]):
    """Headers of one message, by case-insensitive name. A header that came several times has its last value here."""

    __slots__ = ("_values",)

    def __init__(self, pairs: Mapping[str, str | list[str]]) -> None:
        self._values = {
            name.lower(): (name, tuple(value) if isinstance(value, list) else (value,)) for name, value in pairs.items()
        }

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()][1][-1]

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a header, in order; empty when it is missing."""
        return self._values.get(name.lower(), ("", ()))[1]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._values.values())

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


@dataclass(frozen=True, slots=True)
class AmiEvent:
    """One event. ``fields["Channel"]`` raises KeyError when it is missing; ``fields.get("Channel", "")`` does not."""

    name: str
    fields: Headers


@dataclass(frozen=True, slots=True)
class AmiResponse:
    """The answer to one action, with the events of the list that followed it.

    :param ok: Asterisk said Success
    :param message: Asterisk's words
    """

    ok: bool
    message: str
    fields: Headers
    events: tuple[AmiEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Registration:
    """An outbound registration. ``status``: Registered, Unregistered, Rejected …

    Asterisk says Rejected of a registrar that refuses us and of one that is away.
    """

    name: str
    status: str
    client_uri: str = ""
    server_uri: str = ""
    next_seconds: int | None = None
    """Seconds until it is renewed."""


@dataclass(frozen=True, slots=True)
class Contact:
    """An address an endpoint is reached at. ``status``: Reachable, Unreachable, NonQualified, Unknown …"""

    endpoint: str
    uri: str
    status: str
    rtt: float | None = None
    """Round trip of the last OPTIONS, seconds; None when it had no answer."""


@dataclass(frozen=True, slots=True)
class TrunkState:
    """What is known of one PJSIP endpoint or registration. Empty texts: it has none.

    :param rtt: seconds
    """

    name: str
    registration: str = ""
    contact: str = ""
    rtt: float | None = None


@dataclass(frozen=True, slots=True)
class AmiState:
    """A snapshot for ``callrouter status``.

    :param error: why it is not connected, None while all is well
    :param since: when ``connected`` last changed, seconds since the epoch
    :param channels: channels up in Asterisk, None when unknown
    :param security: how often somebody was turned away, by (event, remote address)
    :param sessions: how often we logged in
    """

    connected: bool = False
    authenticated: bool = False
    error: str | None = None
    since: float = 0.0
    trunks: Mapping[str, TrunkState] = field(default_factory=dict)
    channels: int | None = None
    security: Mapping[tuple[str, str], int] = field(default_factory=dict)
    sessions: int = 0


class StateFold:
    """Folds events and lists into an :class:`AmiState`. Knows nothing of sockets and clocks."""

    def __init__(self) -> None:
        self.base = AmiState()
        self.channels: int | None = None
        self._registrations: dict[str, Registration] = {}
        self._contacts: dict[tuple[str, str], Contact] = {}
        self._endpoints: tuple[str, ...] = ()
        self._security: dict[tuple[str, str], int] = {}

    def snapshot(self) -> AmiState:
        names = dict.fromkeys([*self._endpoints, *self._registrations, *(name for name, _ in self._contacts)])
        trunks = {name: self._trunk(name) for name in names}
        return replace(self.base, trunks=trunks, channels=self.channels, security=dict(self._security))

    def _trunk(self, name: str) -> TrunkState:
        registration = self._registrations.get(name)
        contacts = [contact for (endpoint, _), contact in self._contacts.items() if endpoint == name]
        # A trunk with several addresses is as good as the best of them.
        best = min(contacts, key=lambda c: (c.status != "Reachable", c.rtt is None, c.rtt or 0.0), default=None)
        return TrunkState(
            name=name,
            registration=registration.status if registration else "",
            contact=best.status if best else "",
            rtt=best.rtt if best else None,
        )

    def forget(self) -> None:
        """The connection is gone: what was known of Asterisk is known no more. Security counters are kept."""
        self.channels = None
        self._registrations.clear()
        self._contacts.clear()
        self._endpoints = ()

    def registrations(self, found: list[Registration]) -> None:
        self._registrations = {registration.name: registration for registration in found}

    def contacts(self, endpoints: list[str], found: list[Contact]) -> None:
        self._endpoints = tuple(endpoints)
        self._contacts = {(contact.endpoint, contact.uri): contact for contact in found}

    def event(self, event: AmiEvent) -> bool:
        """Take an event in. True when it names a trunk that is not known: the lists should be asked for again."""
        fields = event.fields
        if event.name == "Newchannel" and self.channels is not None:
            self.channels += 1
        elif event.name == "Hangup" and self.channels is not None:
            self.channels = max(0, self.channels - 1)
        elif event.name == "ContactStatus":
            self._contact(fields)
        elif event.name == "Registry":
            return self._registry(fields)
        elif event.name in SECURITY_EVENTS:
            self._turned_away(event.name, remote_host(fields.get("RemoteAddress", "")))
        return event.name in ("FullyBooted", "Reload")

    def _contact(self, fields: Headers) -> None:
        name = fields.get("EndpointName") or fields.get("AOR", "")
        uri = fields.get("URI", "")
        status = fields.get("ContactStatus", "")
        if status == "Removed":
            self._contacts.pop((name, uri), None)
        elif name:
            self._contacts[name, uri] = Contact(name, uri, status, rtt_seconds(fields.get("RoundtripUsec", "")))

    def _registry(self, fields: Headers) -> bool:
        address = (fields.get("Username", ""), fields.get("Domain", ""))
        for name, known in self._registrations.items():
            if (known.client_uri, known.server_uri) == address:
                self._registrations[name] = replace(known, status=fields.get("Status", ""))
                return False
        return True

    def _turned_away(self, kind: str, host: str) -> None:
        key = (kind, host)
        # The addresses are the attacker's to choose: a bounded number of them is told apart.
        if key not in self._security and len(self._security) >= MAX_SECURITY_COUNTERS:
            key = (kind, OTHERS)
        self._security[key] = self._security.get(key, 0) + 1


@dataclass(slots=True)
class _Watched:
    since: float
    times: int = 0


class Intruders:
    """Tells who is turned away again and again, so that a firewall can shun them. Knows no clock.

    An address is reported at its tenth time within a minute, and then at most once a minute. Whatever is sent, and from
    however many forged addresses: 1024 are watched, the latest, and 60 reports a minute are made.
    """

    def __init__(self) -> None:
        self._watched: OrderedDict[str, _Watched] = OrderedDict()
        self._minute = 0.0
        self._reports = 0

    def turned_away(self, host: str, now: float) -> int:
        """Take one refusal in.

        :param host: as :func:`remote_host` gives it
        :param now: seconds on any steady clock
        :returns: how often it was within the last minute when it is to be reported; else 0
        """
        try:
            ip_address(host)
        except ValueError:
            return 0
        known = self._watched.setdefault(host, _Watched(now))
        self._watched.move_to_end(host)
        if len(self._watched) > MAX_WATCHED:
            self._watched.popitem(last=False)
        if now - known.since > MANY_SECONDS:
            known.since, known.times = now, 0
        known.times += 1
        return known.times if known.times == MANY_TIMES and self._may_report(now) else 0

    def _may_report(self, now: float) -> bool:
        if now - self._minute > MANY_SECONDS:
            self._minute, self._reports = now, 0
        self._reports += 1
        return self._reports <= MAX_REPORTS


def remote_host(address: str) -> str:
    """The host out of a security event's ``IPV4/UDP/192.0.2.1/5060``."""
    parts = address.split("/")
    return parts[2] if len(parts) == 4 else address


def rtt_seconds(microseconds: str) -> float | None:
    """Seconds of ``RoundtripUsec``; None for N/A and for the 0 of a contact that did not answer."""
    try:
        value = int(microseconds)
    except ValueError:
        return None
    return value / 1e6 if value > 0 else None
