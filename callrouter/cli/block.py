"""``callrouter block``"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.cli.options import of_option, why_option
from callrouter.core.blocks import REJECTED
from callrouter.core.flow.nodes import HANGUP_CAUSES

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.core.blocks import Block
    from callrouter.store.blocks import ListedBlock


@click.group(cls=Group)
def block() -> None:
    """Block lists: callers who are refused."""


@block.command(
    "add",
    examples="""
callrouter block add +13125550199 --reason "robocaller"
callrouter block add "+1900*" --company acme
callrouter block add anonymous --company acme --until 30d
callrouter block add --call 1c29a7d0 --reason "abusive"      # who made that call
callrouter block add +13125550199 --with busy --until 2027-01-01
""",
)
@click.argument("pattern", required=False)
@click.option("--call", "call_id", metavar="CALL", help="Block the caller of this call, at the company it went to.")
@click.option("--company", metavar="NAME", help="Only at this company; else at all of them.")
@click.option("--reason", default="", metavar="TEXT", help="Stands on the calls that are refused.")
@click.option(
    "--until",
    metavar="WHEN",
    help="2027-01-01, ISO 8601 (of the company's zone, else UTC), or so long from now: 90m, 24h, 30d. Else for good.",
)
@click.option(
    "--with",
    "cause",
    type=click.Choice(list(HANGUP_CAUSES)),
    default=REJECTED,
    show_default=True,
    help="What the caller is refused with.",
)
@why_option
@pass_app
def add(
    app: App, pattern: str | None, call_id: str | None, company: str | None, until: str | None, **given: Any
) -> None:
    """Refuse callers from now on.

    PATTERN is a number, the beginning of numbers with a star ("+1900*"), or "anonymous" for withheld numbers.
    """
    import time

    from callrouter.core.moment import parse_moment
    from callrouter.store.config import add_block, get_company

    if (pattern is None) == (call_id is None):
        raise click.UsageError("Give a number, the beginning of numbers like '+1900*', or anonymous; or --call CALL.")

    async def work(session: AsyncSession) -> Block:
        whom, where = (pattern or "", company) if call_id is None else await _of_call(session, call_id, company)
        zone = (await get_company(session, where)).timezone if where is not None else "UTC"
        ends = parse_moment(until, zone, time.time()) if until is not None else None
        return await add_block(
            session, pattern=whom, company=where, expires_at=ends, country=app.settings.country, who=app.who, **given
        )

    added = app.write(work)
    output.changed(app, f"{added.pattern} is blocked", added)


async def _of_call(session: AsyncSession, call_id: str, company: str | None) -> tuple[str, str | None]:
    from callrouter.core.blocks import ANONYMOUS
    from callrouter.store.calls import get_call

    found = await get_call(session, call_id)
    return found.record.caller or ANONYMOUS, company or found.company


@block.command("list", examples="callrouter block list\ncallrouter block list --company acme --json")
@of_option
@pass_app
def list_(app: App, company: str | None) -> None:
    """List who is refused, why, and until when; expired entries too."""
    from callrouter.store.config import list_blocks

    found = app.read(lambda session: list_blocks(session, company))
    now = datetime.now(UTC).timestamp()
    if app.json:
        output.emit([_json(each, now) for each in found])
    elif not found:
        output.say("Nobody is blocked. Block somebody: callrouter block add +12025550199 --reason TEXT")
    else:
        output.table(
            ("who", "at", "reason", "refused with", "until", "since", "by"),
            [
                (
                    each.block.pattern,
                    each.company or "all companies",
                    each.block.reason,
                    each.block.cause,
                    _until(each.block, now),
                    (output.iso(each.created_at) or "")[:10],
                    each.created_by,
                )
                for each in found
            ],
            whole=("who",),
        )


def _until(each: Block, now: float) -> str:
    when = (output.iso(each.expires_at) or "")[:16].replace("T", " ")
    return "" if not when else when if each.counts(now) else f"{when} (over)"


def _json(each: ListedBlock, now: float) -> dict[str, Any]:
    shown: dict[str, Any] = output.plain(each.block)
    shown |= {"company": each.company, "expires_at": output.iso(each.block.expires_at)}
    return shown | {
        "counts": each.block.counts(now),
        "created_at": output.iso(each.created_at),
        "created_by": each.created_by,
    }


@block.command(
    "rm",
    examples="""
callrouter block rm +13125550199
callrouter block rm "+1900*" --company acme
""",
)
@click.argument("pattern")
@click.option("--company", metavar="NAME", help="From this company's list; else from that for all companies.")
@why_option
@pass_app
def rm(app: App, pattern: str, company: str | None, why: str) -> None:
    """Let callers in again."""
    from callrouter.store.config import remove_block

    country = app.settings.country
    gone = app.write(
        lambda session: remove_block(session, pattern, company=company, country=country, who=app.who, why=why)
    )
    output.removed(app, f"block {gone.pattern}")
