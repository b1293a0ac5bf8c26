"""What may be dialled over a trunk, and how much of it: the limits that keep a stolen account from costing money.

A leg over a trunk costs somebody money; one to a SIP URI does not, and is not counted here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import ceil
from typing import TypeAlias
from zoneinfo import ZoneInfo

from callrouter.core.model import Company, NumberKind
from callrouter.core.phone import kind_of, region_of
from callrouter.errors import InputError

HOUR = 3600.0
_WHOLE = frozenset({
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF",
    "XPF",
})  # fmt: skip
_THOUSANDTHS = frozenset({"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"})
"""Currencies whose minor unit is not a hundredth (ISO 4217)."""


class Cap(StrEnum):
    """Why a leg is not dialled."""

    DESTINATION = "destination"
    """No target of the routing names it, and no entry of the company's list allows it."""
    NUMBER_KIND = "number-kind"
    """A premium-rate, satellite or similar number that was not allowed by its prefix."""
    CALLS = "calls"
    PER_HOUR = "calls-per-hour"
    SPEND = "spend-per-day"


@dataclass(frozen=True, slots=True)
class Called:
    """What is to be dialled."""

    number: str
    """E.164."""
    region: str | None
    """ISO 3166 alpha-2; None: of no country."""
    kind: NumberKind


def called(number: str) -> Called:
    """What is known of a number.

    :param number: E.164
    """
    return Called(number, region_of(number), kind_of(number))


@dataclass(frozen=True, slots=True)
class Policy:
    """A company's limits. None: no limit."""

    allowed: tuple[str, ...] = ()
    """Countries ("US") and prefixes ("+4420")."""
    max_calls: int | None = None
    max_per_hour: int | None = None
    max_spend: int | None = None
    """A day, in millionths of the currency's unit."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a company has in use, the leg that is asked about left out."""

    calls: int = 0
    """Legs over trunks at this moment."""
    last_hour: int = 0
    """Legs over trunks begun in the last 60 minutes."""
    spent: int = 0
    """Since midnight in the company's zone, running legs included; millionths of the currency's unit."""


@dataclass(frozen=True, slots=True)
class Permit:
    """It may be dialled."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """It may not."""

    cap: Cap
    reason: str


Verdict: TypeAlias = Permit | Refusal


def policy_of(company: Company) -> Policy:
    """The limits of a company."""
    spend = company.max_spend_per_day
    return Policy(
        company.allowed_destinations,
        company.max_outbound_calls,
        company.max_outbound_per_hour,
        None if spend is None else micros_of_minor(spend, company.currency),
    )


def permit(what: Called, named_by_routing: bool, policy: Policy, usage: Usage) -> Verdict:
    """Whether a number may be dialled over a trunk now.

    :param named_by_routing: whether a target of the company's routing is this number
    """
    refusal = refused_number(what, named_by_routing, policy.allowed)
    return refusal or exceeded(policy, usage) or Permit()


def refused_number(what: Called, named_by_routing: bool, allowed: Collection[str]) -> Refusal | None:
    """Why a number must not be dialled whatever the usage; None: it may."""
    prefixes = tuple(each for each in allowed if each.startswith("+"))
    if what.number.startswith(prefixes):  # never true of no prefixes at all
        return None
    if what.kind is not NumberKind.ORDINARY:
        return Refusal(Cap.NUMBER_KIND, f"{what.number} is a {what.kind} number, and no prefix of it is allowed")
    if named_by_routing or (what.region is not None and what.region in allowed):
        return None
    return Refusal(Cap.DESTINATION, f"{what.number} is no target, and neither its country nor a prefix is allowed")


def exceeded(policy: Policy, usage: Usage) -> Refusal | None:
    """The cap that leaves no room for one more leg; None: there is room."""
    if policy.max_calls is not None and usage.calls >= policy.max_calls:
        return Refusal(Cap.CALLS, f"{usage.calls} calls over trunks at once; the company may have {policy.max_calls}")
    if policy.max_per_hour is not None and usage.last_hour >= policy.max_per_hour:
        text = f"{usage.last_hour} calls over trunks in an hour; the company may have {policy.max_per_hour}"
        return Refusal(Cap.PER_HOUR, text)
    if policy.max_spend is not None and usage.spent >= policy.max_spend:
        text = f"{amount(usage.spent)} spent today; the company may spend {amount(policy.max_spend)}"
        return Refusal(Cap.SPEND, text)
    return None


def rate_of(rates: Iterable[tuple[str, int]], number: str) -> int | None:
    """What a minute to a number costs, in millionths of the currency's unit: the rate of the longest prefix that fits.

    :param rates: (prefix, rate)
    :returns: None: no rate is known
    """
    fitting = [(len(prefix), rate) for prefix, rate in rates if number.startswith(prefix)]
    return max(fitting)[1] if fitting else None


def cost_micros(rate: int, seconds: float) -> int:
    """What a conversation costs, by begun seconds, in millionths of the currency's unit.

    :param rate: of a minute
    """
    return -(-ceil(max(0.0, seconds)) * rate // 60)


def day_start(at: float, zone: str) -> float:
    """Midnight before an instant, in a zone; seconds since the epoch."""
    local = datetime.fromtimestamp(at, ZoneInfo(zone))
    return local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0).timestamp()


def minor_digits(currency: str) -> int:
    """Decimals of a currency's minor unit."""
    return 0 if currency in _WHOLE else 3 if currency in _THOUSANDTHS else 2


def micros_of_minor(minor: int, currency: str) -> int:
    """An amount in a currency's minor unit (cent, yen) in millionths of its unit.

    :param currency: ISO 4217
    """
    return int(minor * 10 ** (6 - minor_digits(currency)))


def minor_of_amount(text: str, currency: str) -> int:
    """An amount a person wrote ("25", "12.50") in the currency's minor unit.

    :raises InputError: it is no such amount
    """
    digits = minor_digits(currency)
    whole, _, rest = text.strip().partition(".")
    if not (whole.isascii() and whole.isdecimal()) or len(rest) > digits or (rest and not rest.isdecimal()):
        raise InputError(f"{text!r} is no amount of {currency}", hint="like 25" + (".00" if digits else ""))
    return int(whole + rest.ljust(digits, "0"))


def amount(micros: int) -> str:
    """Millionths of a unit, for people: at least two decimals, no more than are needed."""
    text = f"{micros / 1_000_000:.6f}".rstrip("0")
    whole, _, rest = text.partition(".")
    return f"{whole}.{rest.ljust(2, '0')}"
