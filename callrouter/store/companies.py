"""Companies and campaigns: add, list, get, edit, remove."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

import phonenumbers
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core.flow.languages import check_language
from callrouter.core.model import (
    DEFAULT_MAX_CALLS,
    DEFAULT_MAX_PER_HOUR,
    DEFAULT_PAUSE_SECONDS,
    PAUSE_SECONDS,
    Campaign,
    Company,
    RecordingPolicy,
)
from callrouter.errors import ConflictError, InputError
from callrouter.store import changes as common
from callrouter.store.models import (
    CallRecordRow,
    CampaignRow,
    CompanyRow,
    FlowRow,
    PromptRow,
    TargetRow,
    TrackingNumberRow,
)
from callrouter.store.models_groups import TargetGroupRow
from callrouter.store.types import now

FIELDS = (
    "name",
    "title",
    "timezone",
    "country",
    "currency",
    "language",
    "record",
    "consent_required",
    "pause_keys",
    "pause_seconds",
    "allowed_destinations",
    "max_outbound_calls",
    "max_outbound_per_hour",
    "max_spend_per_day",
    "accept_anonymous",
    "max_calls_per_caller",
    "caller_window",
)
MOST = 1_000_000_000
CAPS = ("max_outbound_calls", "max_outbound_per_hour", "max_spend_per_day", "max_calls_per_caller")
LONGEST_WINDOW = 86400
"""Seconds; of the calls of one number."""
PREFIX = re.compile(r"\+[1-9][0-9]{0,14}")


def company_value(row: CompanyRow) -> Company:
    return Company(
        id=row.id,
        name=row.name,
        title=row.title,
        timezone=row.timezone,
        country=row.country,
        currency=row.currency,
        language=row.language,
        record=RecordingPolicy(row.record),
        consent_required=row.consent_required,
        pause_keys=row.pause_keys,
        pause_seconds=row.pause_seconds,
        allowed_destinations=tuple(row.allowed_destinations),
        max_outbound_calls=row.max_outbound_calls,
        max_outbound_per_hour=row.max_outbound_per_hour,
        max_spend_per_day=row.max_spend_per_day,
        accept_anonymous=row.accept_anonymous,
        max_calls_per_caller=row.max_calls_per_caller,
        caller_window=row.caller_window,
    )


def campaign_value(row: CampaignRow) -> Campaign:
    return Campaign(row.id, row.company_id, row.name, row.title, row.source, row.medium)


async def add_company(
    session: AsyncSession,
    *,
    name: str,
    timezone: str,
    title: str = "",
    country: str = "US",
    currency: str = "USD",
    language: str | None = None,
    record: RecordingPolicy | str | bool = RecordingPolicy.FORCE,
    consent_required: bool = False,
    pause_keys: bool = False,
    pause_seconds: int = DEFAULT_PAUSE_SECONDS,
    allowed_destinations: Sequence[str] = (),
    max_outbound_calls: int | None = DEFAULT_MAX_CALLS,
    max_outbound_per_hour: int | None = DEFAULT_MAX_PER_HOUR,
    max_spend_per_day: int | None = None,
    accept_anonymous: bool = True,
    max_calls_per_caller: int | None = None,
    caller_window: int = 3600,
    who: str,
    why: str = "",
) -> Company:
    """Add a company.

    :param timezone: IANA zone name
    :param title: for people to read; empty: made from the name
    :param country: ISO 3166 alpha-2, assumed for its numbers written without +
    :param currency: ISO 4217
    :param language: of what callers hear, like "es" or "pt-br"; None: that of the installation's voice
    :param record: the last word on recording; true and false are force and never
    :param consent_required: whether only callers are recorded who were asked for consent
    :param pause_keys: whether who talks can pause the recording by *1 and resume it by *2
    :param pause_seconds: after so long a pause ends by itself; 5 to 3600
    :param allowed_destinations: countries and prefixes that may be dialled though no target names them
    :param max_outbound_calls: legs over trunks at once; None: no cap, as for the others
    :param max_outbound_per_hour: legs over trunks in 60 minutes
    :param max_spend_per_day: minor units of ``currency``
    :param accept_anonymous: whether callers who withhold their number are let in
    :param max_calls_per_caller: calls of one number in any ``caller_window`` seconds; None: no cap
    :raises InputError: a name that is no slug, an unknown zone or country, a cap below 0
    :raises ConflictError: the name is taken
    """
    given = dict(locals())
    values = _company_values({key: given[key] for key in FIELDS})
    await _company_name_free(session, name)
    row = CompanyRow(**values)
    common.stamp(row, who)
    session.add(row)
    await session.flush()
    value = company_value(row)
    await common.record_change(session, f"add company {name}", who=who, why=why, after=value)
    return value


async def list_companies(session: AsyncSession) -> list[Company]:
    """By name."""
    return [company_value(row) for row in await session.scalars(select(CompanyRow).order_by(CompanyRow.name))]


async def get_company(session: AsyncSession, name: str) -> Company:
    """:raises NotFoundError: with close names in the hint"""
    return company_value(await common.company_row(session, name))


async def edit_company(
    session: AsyncSession, name: str, changes: Mapping[str, Any], *, who: str, why: str = ""
) -> Company:
    """Change a company.

    :param changes: any field of :func:`add_company`
    :raises InputError: as :func:`add_company`, and for an unknown field
    :raises NotFoundError: no such company
    :raises ConflictError: the new name is taken
    """
    row = await common.company_row(session, name)
    before = company_value(row)
    current = {key: getattr(row, key) for key in FIELDS}
    values = _company_values(common.merged("company", current, changes))
    if values["name"] != row.name:
        await _company_name_free(session, values["name"])
    for key, value in values.items():
        setattr(row, key, value)
    common.stamp(row, who)
    await session.flush()
    after = company_value(row)
    await common.record_change(session, f"edit company {name}", who=who, why=why, before=before, after=after)
    return after


async def remove_company(session: AsyncSession, name: str, *, who: str, why: str = "") -> None:
    """Remove a company that owns nothing and never had a call.

    :raises NotFoundError: no such company
    :raises ConflictError: it has numbers, campaigns, targets, groups, flows, prompts or calls; the message names them
    """
    row = await common.company_row(session, name)
    uses: list[str] = []
    for noun, model in (
        ("number", TrackingNumberRow),
        ("group", TargetGroupRow),
        ("target", TargetRow),
        ("prompt", PromptRow),
    ):
        found = await session.scalars(select(model.name).where(model.company_id == row.id).order_by(model.name))
        uses += [f"{noun} {each}" for each in found]
    for noun, kept in (("flow", FlowRow), ("campaign", CampaignRow)):
        live = select(kept.name).where(kept.company_id == row.id, kept.removed_at.is_(None)).order_by(kept.name)
        uses += [f"{noun} {each}" for each in await session.scalars(live)]
    calls = await session.scalar(
        select(func.count()).select_from(CallRecordRow).where(CallRecordRow.company_id == row.id)
    )
    if uses:
        raise common.in_use("company", name, uses)
    if calls:
        raise ConflictError(
            f"company {name!r} has {calls} call{'s' if calls > 1 else ''}, which would lose their company",
            hint="it can stay: without numbers it gets no more calls",
        )
    for gone in (CampaignRow, FlowRow):
        if await session.scalar(select(gone.id).where(gone.company_id == row.id).limit(1)):
            raise ConflictError(
                f"company {name!r} has had flows or campaigns, which are kept for the record",
                hint="it can stay: without numbers it gets no more calls",
            )
    before = company_value(row)
    await session.delete(row)
    await session.flush()
    await common.record_change(session, f"remove company {name}", who=who, why=why, before=before)


async def add_campaign(
    session: AsyncSession,
    company: str,
    *,
    name: str,
    source: str,
    medium: str,
    title: str = "",
    who: str,
    why: str = "",
) -> Campaign:
    """Add a campaign to a company.

    :param company: the company's name
    :param source: where its leads come from: "billboard", "google", "radio" …
    :param medium: how: "offline", "cpc", "organic", "referral" …
    :raises InputError: a name that is no slug, an empty source or medium
    :raises NotFoundError: no such company
    :raises ConflictError: the company has a campaign of that name
    """
    owner = await common.company_row(session, company)
    values = _campaign_values({"name": name, "title": title, "source": source, "medium": medium})
    await common.require_free(session, CampaignRow, "campaign", owner, name)
    row = CampaignRow(company_id=owner.id, **values)
    common.stamp(row, who)
    session.add(row)
    await session.flush()
    value = campaign_value(row)
    await common.record_change(session, f"add campaign {company}/{name}", who=who, why=why, after=value)
    return value


async def list_campaigns(session: AsyncSession, company: str | None = None) -> list[Campaign]:
    """By company and name.

    :raises NotFoundError: no such company
    """
    statement = (
        select(CampaignRow)
        .join(CompanyRow, CompanyRow.id == CampaignRow.company_id)
        .where(CampaignRow.removed_at.is_(None))
        .order_by(CompanyRow.name, CampaignRow.name)
    )
    if company is not None:
        statement = statement.where(CampaignRow.company_id == (await common.company_row(session, company)).id)
    return [campaign_value(row) for row in await session.scalars(statement)]


async def get_campaign(session: AsyncSession, name: str, company: str | None = None) -> Campaign:
    """:param name: the name, or "company/name"; the company may be left out when only one has such a campaign
    :raises NotFoundError: no such campaign or company
    :raises InputError: several companies have one of that name
    """
    return campaign_value((await common.owned_row(session, CampaignRow, "campaign", company, name))[0])


async def edit_campaign(
    session: AsyncSession,
    name: str,
    changes: Mapping[str, Any],
    *,
    company: str | None = None,
    who: str,
    why: str = "",
) -> Campaign:
    """Change a campaign.

    :param changes: any of name, title, source, medium
    :raises InputError, NotFoundError, ConflictError: as :func:`add_campaign` and :func:`get_campaign`
    """
    row, owner = await common.owned_row(session, CampaignRow, "campaign", company, name)
    before = campaign_value(row)
    current = {key: getattr(row, key) for key in ("name", "title", "source", "medium")}
    values = _campaign_values(common.merged("campaign", current, changes))
    if values["name"] != row.name:
        await common.require_free(session, CampaignRow, "campaign", owner, values["name"])
    for key, value in values.items():
        setattr(row, key, value)
    common.stamp(row, who)
    await session.flush()
    after = campaign_value(row)
    what = f"edit campaign {owner.name}/{before.name}"
    await common.record_change(session, what, who=who, why=why, before=before, after=after)
    return after


async def remove_campaign(
    session: AsyncSession, name: str, *, company: str | None = None, who: str, why: str = ""
) -> None:
    """Remove a campaign. Calls it earned are still reported under its name.

    :raises NotFoundError, InputError: as :func:`get_campaign`
    :raises ConflictError: tracking numbers stand for it; the message names them
    """
    row, owner = await common.owned_row(session, CampaignRow, "campaign", company, name)
    used = select(TrackingNumberRow).where(TrackingNumberRow.campaign_id == row.id).order_by(TrackingNumberRow.name)
    uses = [f"number {number.name} ({number.e164})" for number in await session.scalars(used)]
    if uses:
        raise common.in_use("campaign", row.name, uses)
    before = campaign_value(row)
    row.removed_at = now()
    common.stamp(row, who)
    await session.flush()
    await common.record_change(session, f"remove campaign {owner.name}/{row.name}", who=who, why=why, before=before)


def check_country(country: str) -> str:
    """:raises InputError: no country that numbers could be read for"""
    code = country.strip().upper()
    if code not in phonenumbers.SUPPORTED_REGIONS:
        raise InputError(f"{country!r} is no country code", hint="two letters of ISO 3166, like US, GB, DE")
    return code


def check_zone(zone: str) -> str:
    """:raises InputError: no IANA zone"""
    by_lower = _zones()
    if by_lower.get(zone.lower()) == zone:
        return zone
    wanted = zone.strip().lower().replace(" ", "_")
    cities = {each.rsplit("/", 1)[-1]: by_lower[each] for each in by_lower}
    close = [cities[wanted]] if wanted in cities else []
    close += [by_lower[each] for each in get_close_matches(wanted, by_lower, n=3, cutoff=0.6)]
    near = "did you mean " + " or ".join(dict.fromkeys(close)) + "?"
    raise InputError(
        f"there is no time zone {zone!r}", hint=near if close else "like America/New_York or Europe/Berlin"
    )


@cache
def _zones() -> dict[str, str]:
    return {zone.lower(): zone for zone in zoneinfo.available_timezones()}


def titled(name: str) -> str:
    return name.replace("-", " ").title()


def _company_values(values: dict[str, Any]) -> dict[str, Any]:
    name = common.slug("company", values["name"])
    currency = str(values["currency"]).strip().upper()
    if len(currency) != 3 or not currency.isalpha() or not currency.isascii():
        raise InputError(f"{values['currency']!r} is no currency code", hint="three letters of ISO 4217, like USD")
    return {
        "name": name,
        "title": str(values["title"] or "").strip() or titled(name),
        "timezone": check_zone(values["timezone"]),
        "country": check_country(values["country"]),
        "currency": currency,
        "language": check_language(values["language"]) if values["language"] else None,
        "record": common.recording(values["record"]),
        "consent_required": bool(values["consent_required"]),
        "pause_keys": bool(values["pause_keys"]),
        "pause_seconds": _pause_seconds(values["pause_seconds"]),
        "allowed_destinations": sorted({check_destination(each) for each in values["allowed_destinations"]}),
        **{name: _cap(name, values[name]) for name in CAPS},
        "accept_anonymous": bool(values["accept_anonymous"]),
        "caller_window": _window(values["caller_window"]),
    }


def _pause_seconds(value: Any) -> int:
    if not PAUSE_SECONDS[0] <= int(value) <= PAUSE_SECONDS[1]:
        raise InputError(f"pause-seconds {value} is out of range", hint="5 to 3600")
    return int(value)


def check_destination(text: str) -> str:
    """A country or a prefix of telephone numbers, as it is kept in a company's list.

    :raises InputError: neither
    """
    entry = str(text).strip()
    if PREFIX.fullmatch(entry):
        return entry
    try:
        return check_country(entry)
    except InputError as exc:
        raise InputError(
            f"{text!r} is neither a country nor a prefix", hint="like US, GB, +4420 or +12025550123"
        ) from exc


def _cap(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if not 0 <= int(value) <= MOST:
        raise InputError(f"{name.replace('_', '-')} {value} is out of range", hint=f"0 to {MOST}, or none for no cap")
    return int(value)


def _window(value: Any) -> int:
    if not 1 <= int(value) <= LONGEST_WINDOW:
        raise InputError(f"caller-window {value} is out of range", hint=f"1 to {LONGEST_WINDOW} seconds")
    return int(value)


async def _company_name_free(session: AsyncSession, name: str) -> None:
    if await session.scalar(select(CompanyRow.id).where(CompanyRow.name == name)):
        raise ConflictError(
            f"there is a company {name!r} already", hint=f"callrouter company show {name}, or take another name"
        )


def _campaign_values(values: dict[str, Any]) -> dict[str, Any]:
    name = common.slug("campaign", values["name"])
    for key, example in (("source", "billboard, google, radio"), ("medium", "offline, cpc, organic")):
        if not str(values[key] or "").strip():
            raise InputError(f"a campaign needs a {key}", hint=f"for example {example}")
    return {
        "name": name,
        "title": str(values["title"] or "").strip() or titled(name),
        "source": str(values["source"]).strip(),
        "medium": str(values["medium"]).strip(),
    }
