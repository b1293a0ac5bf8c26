"""Who may call: decided once, before a flow begins."""

from __future__ import annotations

from callrouter.core.blocks import ANONYMOUS, REJECTED, BlockList
from callrouter.core.flow.nodes import HANGUP_CAUSES
from callrouter.core.identity import CallerHistory
from callrouter.core.model import Company
from callrouter.core.routing import Decision, Reject, RouteToFlow


def admitted(
    decision: Decision, blocks: BlockList, caller: str | None, at: float, history: CallerHistory | None
) -> Decision:
    """``decision``, or a refusal of this caller.

    :param caller: E.164; None: withheld
    :param at: seconds since the epoch
    :param history: None: it is not known
    """
    if not isinstance(decision, RouteToFlow):
        return decision
    company = decision.entry.company
    refused = _blocked(company, blocks, caller, at) or _unwelcome(company, caller) or _too_often(company, history)
    if refused is None:
        return decision
    cause, why = refused
    return Reject(HANGUP_CAUSES[cause], why, decision.entry, blocked=True)


def _blocked(company: Company, blocks: BlockList, caller: str | None, at: float) -> tuple[str, str] | None:
    block = blocks.find(company.id, caller, at)
    if block is None:
        return None
    whose = company.name if block.company_id is not None else "all companies"
    reason = f", {block.reason}" if block.reason else ""
    return block.cause, f"{caller or 'a withheld number'} is on the block list of {whose} ({block.pattern}){reason}"


def _unwelcome(company: Company, caller: str | None) -> tuple[str, str] | None:
    if caller is not None or company.accept_anonymous:
        return None
    return REJECTED, f"{company.name} takes no calls from withheld numbers ({ANONYMOUS})"


def _too_often(company: Company, history: CallerHistory | None) -> tuple[str, str] | None:
    cap = company.max_calls_per_caller
    if cap is None or history is None or history.recent < cap:
        return None
    return REJECTED, f"{history.recent} calls before this one in {span(company.caller_window)}; at most {cap} are taken"


def span(seconds: int) -> str:
    """A time for people: "10 minutes", "1 hour"."""
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds // unit} {name}{'s' if seconds != unit else ''}"
    return f"{seconds} seconds"
