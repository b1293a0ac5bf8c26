"""Asking a web service where a call goes: what is asked, and what its answer, or its silence, comes to. Called by
``session.step``.
"""

from __future__ import annotations

from dataclasses import replace

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.flow import nodes as n
from callrouter.core.flow.link import home
from callrouter.core.flow.urls import host_of
from callrouter.core.records import Reply, WebhookResult
from callrouter.core.state import Asking, Session, Step
from callrouter.core.walk import leave, next_id, node_of
from callrouter.core.webhooks import Question

GRACE_SECONDS = 2.0
"""Beyond its time-out a request is not waited for, should its end never be told."""


def ask(session: Session, at: float) -> Step:
    """Begin to ask: the caller waits."""
    node = node_of(session)
    assert isinstance(node, n.Webhook)
    session, ref = next_id(session, "w")
    session, timer_id = next_id(session, "t")
    asked = a.AskWebhook(ref, session.node, node.url, node.timeout, _question(session, at))
    waiting = replace(session, wait=Asking(ref, timer_id, node.url, at))
    return Step(waiting, (asked, a.StartTimer(timer_id, node.timeout + GRACE_SECONDS)))


def webhook_answered(session: Session, event: e.WebhookAnswered) -> Step:
    """The service answered, or could not be asked."""
    wait = session.wait
    assert isinstance(wait, Asking)
    return Step(session, (a.CancelTimer(wait.timer_id),)).then(_go_on(session, event.reply, event.at))


def webhook_silent(session: Session, at: float) -> Step:
    """Nothing was told of the request, not even its end."""
    wait = session.wait
    assert isinstance(wait, Asking)
    silent = Reply(WebhookResult.TIMEOUT, "the request did not end")
    return Step(session, (a.StopWebhook(wait.ref),)).then(_go_on(session, silent, at))


def _go_on(session: Session, reply: Reply, at: float) -> Step:
    wait, node = session.wait, node_of(session)
    assert isinstance(wait, Asking)
    assert isinstance(node, n.Webhook)
    host = host_of(wait.url)
    to: str | None
    match reply.result:
        case WebhookResult.TIMEOUT:
            what, to = "timeout", node.on_timeout
            why = reply.reason or f"{host} did not answer in {node.timeout:g} s"
        case WebhookResult.FAILED:
            what, to, why = "failed", node.on_failed, f"{host}: {reply.reason}"
        case WebhookResult.ANSWERED:
            what, to = (reply.branch, node.branch(reply.branch)) if reply.branch else ("next", node.next)
            why = reply.reason or f"{host} answered in {max(0.0, at - wait.since):.2f} s"
    if to is None:
        # Of an answer that is wrong in one thing nothing is taken over.
        reply = replace(reply, tags=(), values=())
        what, to, why = "failed", node.on_failed, f"{host}: the node has no branch {reply.branch!r}"
    path = session.path
    told: list[note.Note] = [note.Decided(at, path, f"webhook: {what}", why)]
    told += [note.Tagged(at, path, reply.tags)] if reply.tags else []
    told += [note.Assigned(at, path, reply.values)] if reply.values else []
    return Step(session, notes=tuple(told)).then(leave(session, to, at, f"webhook: {what}"))


def _question(session: Session, at: float) -> Question:
    entry, so_far = session.entry, session.so_far
    assert entry is not None
    campaign = entry.campaign
    flow, node = home(entry.flow, session.node)
    return Question(
        call=session.call_id,
        at=at,
        company=entry.company.name,
        campaign=campaign.name if campaign else None,
        source=campaign.source if campaign else None,
        medium=campaign.medium if campaign else None,
        number=session.did,
        number_name=entry.number.name,
        caller=session.caller,
        flow=flow,
        node=node,
        path=so_far.path,
        tags=so_far.tags,
        values=so_far.values,
        digits=so_far.digits,
        language=session.language,
    )
