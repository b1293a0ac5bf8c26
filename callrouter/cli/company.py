"""``callrouter company``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.cli.options import changes_of, confirm, record_option, why_option, yes_option
from callrouter.core.model import DEFAULT_MAX_CALLS, DEFAULT_MAX_PER_HOUR, DEFAULT_PAUSE_SECONDS, PAUSE_SECONDS

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.core.model import Company


CALLS = "Legs over trunks at once."
PER_HOUR = "Legs over trunks in any 60 minutes."
SPEND = "By the trunks' rates, from midnight in the company's zone."
ANONYMOUS = "Whether callers who withhold their number are let in."
PER_CALLER = "Calls that one number may make in --caller-window."
WINDOW = "Seconds."
RECORD = "Recording: the last word, for what no number, flow or target speaks of."
LANGUAGE = 'Of what callers hear, like es or pt-br; "" for that of the installation\'s voice.'
CONSENT = ", of callers who consented"

no_record_option = click.option("--no-record", is_flag=True, hidden=True)


def consent_option(default: bool | None) -> Any:
    return click.option(
        "--require-consent/--no-require-consent",
        "consent_required",
        default=default,
        help="Record only callers whom a flow has asked, or told.",
    )


def pause_options(keys: bool | None, seconds: int | None) -> Any:
    """What those who talk may do about the recording."""
    helped = "*1 pauses the recording of a conversation, *2 resumes it; from either telephone."
    by_keys = click.option("--pause-keys/--no-pause-keys", default=keys, help=helped)
    longest = click.option(
        "--pause-seconds",
        type=click.IntRange(*PAUSE_SECONDS),
        default=seconds,
        show_default=seconds is not None,
        help="A pause ends by itself.",
    )
    return lambda command: by_keys(longest(command))


@click.group(cls=Group)
def company() -> None:
    """Companies, whose calls and numbers are kept apart."""


@company.command(
    "add",
    examples="""
callrouter company add acme --title "Acme Plumbing" --timezone America/New_York
callrouter company add blume --timezone Europe/Berlin --country DE --currency EUR --record never
""",
)
@click.argument("name")
@click.option("--timezone", required=True, metavar="ZONE", help="IANA zone, like America/New_York.")
@click.option("--title", default="", help="For people to read; made from the name when left out.")
@click.option("--country", metavar="CC", help="Assumed for its numbers written without + [default: the setting].")
@click.option("--currency", default="USD", show_default=True, metavar="CUR", help="ISO 4217.")
@click.option("--language", metavar="LANG", help=LANGUAGE)
@record_option("force", RECORD)
@no_record_option
@consent_option(False)
@pause_options(False, DEFAULT_PAUSE_SECONDS)
@click.option("--allow", metavar="DEST", multiple=True, help="A country (GB) or prefix (+4420) that may be dialled.")
@click.option("--max-outbound-calls", default=str(DEFAULT_MAX_CALLS), show_default=True, metavar="N|none", help=CALLS)
@click.option(
    "--max-outbound-per-hour", default=str(DEFAULT_MAX_PER_HOUR), show_default=True, metavar="N|none", help=PER_HOUR
)
@click.option("--max-spend-per-day", default="none", show_default=True, metavar="AMOUNT|none", help=SPEND)
@click.option("--accept-anonymous/--reject-anonymous", default=True, show_default=True, help=ANONYMOUS)
@click.option("--max-calls-per-caller", default="none", show_default=True, metavar="N|none", help=PER_CALLER)
@click.option("--caller-window", type=click.IntRange(1, 86400), default=3600, show_default=True, help=WINDOW)
@why_option
@pass_app
def add(app: App, country: str | None, allow: tuple[str, ...], **given: Any) -> None:
    """Add a company. NAME is short: lower-case letters, digits, hyphens."""
    from callrouter.store.config import add_company

    given["country"] = country or app.settings.country
    given["allowed_destinations"] = allow
    given |= _caps(given, given["currency"])
    given["record"] = _record(given)
    added = app.write(lambda session: add_company(session, who=app.who, **given))
    output.changed(app, f"company {added.name} added", added)


@company.command("list", examples="callrouter company list --json")
@pass_app
def list_(app: App) -> None:
    """List the companies."""
    from callrouter.store.config import list_companies

    found = app.read(list_companies)
    if app.json:
        output.emit(found)
    elif not found:
        output.say("No companies yet. Add one: callrouter company add NAME --timezone America/New_York")
    else:
        output.table(
            ("name", "title", "timezone", "country", "currency", "record"),
            [(c.name, c.title, c.timezone, c.country, c.currency, c.record) for c in found],
        )


@company.command("show", examples="callrouter company show acme")
@click.argument("name")
@pass_app
def show(app: App, name: str) -> None:
    """Show a company and what belongs to it."""
    found, counts = app.read(lambda session: _with_counts(session, name))
    if app.json:
        output.emit({**output.plain(found), "counts": counts})
        return
    output.fields(
        [
            ("name", found.name),
            ("title", found.title),
            ("timezone", found.timezone),
            ("country", found.country),
            ("currency", found.currency),
            ("language", found.language),
            ("pauses", f"{'by *1 and *2, ' if found.pause_keys else ''}at most {found.pause_seconds} s"),
            ("record", f"{found.record}{CONSENT if found.consent_required else ''}"),
            (
                "calls over trunks",
                f"{_limit(found.max_outbound_calls, 'at once')}, {_limit(found.max_outbound_per_hour, 'in an hour')}",
            ),
            ("may spend", _spend(found)),
            ("withheld numbers", "let in" if found.accept_anonymous else "refused"),
            ("calls of one number", _per_caller(found)),
            ("also allowed", ", ".join(found.allowed_destinations) or "nothing but its targets"),
            *counts.items(),
        ]
    )


@company.command(
    "edit",
    examples="""
callrouter company edit acme --timezone America/Chicago --why 'moved'
callrouter company edit acme --max-outbound-calls 80 --max-spend-per-day 120.00
callrouter company edit acme --max-outbound-per-hour none
callrouter company edit acme --allow +88161234567    # one satellite telephone
callrouter company edit acme --forbid +88161234567
""",
)
@click.argument("name")
@click.option("--name", "new_name", metavar="NAME", help="Another name.")
@click.option("--title")
@click.option("--timezone", metavar="ZONE", help="IANA zone.")
@click.option("--country", metavar="CC")
@click.option("--currency", metavar="CUR")
@click.option("--language", metavar="LANG", help=LANGUAGE)
@record_option(None, RECORD)
@no_record_option
@consent_option(None)
@pause_options(None, None)
@click.option("--allow", metavar="DEST", multiple=True, help="Add a country (GB) or prefix (+4420) to what is allowed.")
@click.option("--forbid", metavar="DEST", multiple=True, help="Take one out again.")
@click.option("--max-outbound-calls", metavar="N|none", help=CALLS)
@click.option("--max-outbound-per-hour", metavar="N|none", help=PER_HOUR)
@click.option("--max-spend-per-day", metavar="AMOUNT|none", help=SPEND)
@click.option("--accept-anonymous/--reject-anonymous", default=None, help=ANONYMOUS)
@click.option("--max-calls-per-caller", metavar="N|none", help=PER_CALLER)
@click.option("--caller-window", type=click.IntRange(1, 86400), help=WINDOW)
@why_option
@pass_app
def edit(
    app: App,
    name: str,
    new_name: str | None,
    allow: tuple[str, ...],
    forbid: tuple[str, ...],
    why: str,
    **given: Any,
) -> None:
    """Change a company; only what is given changes."""
    from callrouter.store.config import edit_company, get_company

    given["record"] = _record(given)
    changes = changes_of({"name": new_name, "allow": allow, "forbid": forbid, **given})
    for option in ("allow", "forbid"):
        changes.pop(option, None)

    async def work(session: AsyncSession) -> Company:
        before = await get_company(session, name)
        changes.update(_caps(given, changes.get("currency") or before.currency))
        if allow or forbid:
            changes["allowed_destinations"] = _destinations(before, allow, forbid)
        return await edit_company(session, name, changes, who=app.who, why=why)

    after = app.write(work)
    output.changed(app, f"company {after.name} changed", after)


@company.command("rm", examples="callrouter company rm acme --yes")
@click.argument("name")
@yes_option
@why_option
@pass_app
def rm(app: App, name: str, yes: bool, why: str) -> None:
    """Remove a company that owns nothing and never had a call."""
    from callrouter.store.config import get_company, remove_company

    app.read(lambda session: get_company(session, name))
    confirm(f"Remove company {name}?", yes=yes)
    app.write(lambda session: remove_company(session, name, who=app.who, why=why))
    output.removed(app, f"company {name}")


def _record(given: dict[str, Any]) -> str | None:
    """What is said of recording; ``--no-record`` is how ``never`` was said before there were three words."""
    said: str | None = given["record"]
    return "never" if given.pop("no_record") else said


def _caps(given: dict[str, Any], currency: str) -> dict[str, int | None]:
    """The caps that were given as an ``edit`` or ``add`` takes them.

    :raises InputError: neither a number nor "none"
    """
    from callrouter.core.outbound import minor_of_amount
    from callrouter.errors import InputError

    found: dict[str, int | None] = {}
    for name in ("max_outbound_calls", "max_outbound_per_hour", "max_spend_per_day", "max_calls_per_caller"):
        text = given.get(name)
        if text is None:
            continue
        option = "--" + name.replace("_", "-")
        try:
            if text.strip().lower() == "none":
                found[name] = None
            elif name == "max_spend_per_day":
                found[name] = minor_of_amount(text, currency.strip().upper())
            else:
                found[name] = minor_of_amount(text, "JPY")  # whole numbers only
        except InputError as exc:
            like = f"an amount of {currency} like 25.00" if "spend" in name else "a whole number"
            raise InputError(f"{option} {text!r} is no cap", hint=f"{like}, or none") from exc
    return found


def _destinations(before: Company, allow: tuple[str, ...], forbid: tuple[str, ...]) -> list[str]:
    from callrouter.errors import NotFoundError
    from callrouter.store.companies import check_destination

    gone = {check_destination(each) for each in forbid}
    if unknown := gone - set(before.allowed_destinations):
        there = ", ".join(before.allowed_destinations) or "nothing"
        raise NotFoundError(f"{', '.join(sorted(unknown))} is not on the list", hint=f"on it: {there}")
    return [each for each in before.allowed_destinations if each not in gone] + list(allow)


def _per_caller(company: Company) -> str:
    from callrouter.core.admission import span

    cap = company.max_calls_per_caller
    return "any number" if cap is None else f"at most {cap} in {span(company.caller_window)}"


def _limit(cap: int | None, what: str) -> str:
    return f"any number {what}" if cap is None else f"at most {cap} {what}"


def _spend(company: Company) -> str:
    from callrouter.core.outbound import amount, micros_of_minor

    cap = company.max_spend_per_day
    if cap is None:
        return "any amount a day"
    return f"{amount(micros_of_minor(cap, company.currency))} {company.currency} a day"


async def _with_counts(session: AsyncSession, name: str) -> tuple[Company, dict[str, int]]:
    from callrouter.store import config as store

    found = await store.get_company(session, name)
    counts = {
        "numbers": len(await store.list_numbers(session, name)),
        "campaigns": len(await store.list_campaigns(session, name)),
        "targets": len(await store.list_targets(session, name)),
        "flows": len(await store.list_flows(session, name)),
        "prompts": len(await store.list_prompts(session, name)),
    }
    return found, counts
