"""What a caller's keys come to, in menus and gathers, and what of them may be written down. Called by ``session.step``
and, before anything is logged, by the call.
"""

from __future__ import annotations

from dataclasses import replace

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.consent import pressed, silent
from callrouter.core.flow import nodes as n
from callrouter.core.state import Choosing, Saying, Session, Step, Tail
from callrouter.core.walk import consented, leave, next_id, node_of, say, stop_waiting

TAIL_SECONDS = 3.0
"""So long after a sensitive entry is over whatever is pressed still belongs to it."""
BURST_SECONDS = 1.5
"""And for as long as further keys follow that closely."""
EVERY_KEY = "0123456789*#ABCD" + e.HIDDEN


def masked(session: Session, event: e.Event) -> e.Event:
    """An event as it may be logged: a digit stays only where the flow openly asks for one.

    All that a masked digit still tells is that a key was pressed, which is all that a sensitive entry is made of.

    :param session: before the event
    """
    if not isinstance(event, e.Digit) or event.digit == e.HIDDEN:
        return event
    node = node_of(session)
    if isinstance(session.wait, Saying | Choosing) and not _in_secret_tail(session, event):
        if isinstance(node, n.Menu) or (isinstance(node, n.Gather) and not node.sensitive):
            return event
        if isinstance(node, n.Gather) and not event.digit.isdecimal():
            return event
        if isinstance(node, n.Consent) and pressed(node, event.digit) is not None:
            return event
    return replace(event, digit=e.HIDDEN)


def digit_pressed(session: Session, event: e.Digit) -> Step:
    """A key: a menu's choice or none of its choices, a digit of an entry or its end."""
    tail = session.tail
    if event.at < tail.until and event.digit in tail.keys:
        if _in_secret_tail(session, event):
            tail = replace(tail, until=max(tail.until, event.at + BURST_SECONDS))
        return Step(replace(session, tail=tail))
    if event.digit == e.HIDDEN and not _is_secret(session):
        return Step(session)
    match node_of(session):
        case n.Menu() as node if _counts(session, node.barge_in):
            return _choose(session, node, event)
        case n.Gather() as node if _counts(session, True):
            return _gather(session, node, event)
        case n.Consent() as node if (response := pressed(node, event.digit)) is not None:
            stopped = Step(session, stop_waiting(session))
            return stopped.then(consented(session, node, response, event.at, event.digit))
    return Step(session)


def no_digit(session: Session, at: float) -> Step:
    """The time for a key is over."""
    wait = session.wait
    assert isinstance(wait, Choosing)
    match node_of(session):
        case n.Gather() as node if wait.digits:
            return _entered(session, node, wait.digits, at, f"no further digit in {node.between:g} s")
        case n.Menu() | n.Gather() as node:
            return _round_lost(session, node, at, "timeout", f"nothing pressed in {node.timeout:g} s", node.on_timeout)
        case n.Consent() as node:
            return consented(session, node, silent(node), at)
    return Step(session)


def _is_secret(session: Session) -> bool:
    node = node_of(session)
    return isinstance(node, n.Gather) and node.sensitive


def _in_secret_tail(session: Session, event: e.Digit) -> bool:
    return event.at < session.tail.until and e.HIDDEN in session.tail.keys


def _counts(session: Session, barge_in: bool) -> bool:
    """Whether a key counts now: after the prompt, or during it where it may cut it short."""
    return not isinstance(session.wait, Saying) or (barge_in and session.wait.part == "prompt")


def _choose(session: Session, node: n.Menu, event: e.Digit) -> Step:
    stopped = Step(session, stop_waiting(session))
    to = node.choice(event.digit)
    if to is not None:
        pressed = note.Decided(event.at, session.path, f"digit {event.digit}", f"the caller pressed {event.digit}")
        return stopped.then(Step(session, notes=(pressed,))).then(
            leave(session, to, event.at, f"the caller pressed {event.digit}")
        )
    why = f"the caller pressed {event.digit}, which is no choice"
    return stopped.then(_round_lost(session, node, event.at, "invalid", why, node.on_invalid))


def _gather(session: Session, node: n.Gather, event: e.Digit) -> Step:
    before = session.wait.digits if isinstance(session.wait, Choosing) else ""
    stopped = Step(session, stop_waiting(session))
    if event.digit == node.terminator:
        return stopped.then(_entered(session, node, before, event.at, f"ended with {event.digit}"))
    if not (event.digit.isdecimal() or event.digit == e.HIDDEN):
        return Step(session)
    digits = before + (e.HIDDEN if node.sensitive else event.digit)
    if len(digits) >= node.max_digits:
        # Who does not know how many it takes presses the ending key all the same.
        complete = replace(session, tail=Tail(node.terminator, event.at + TAIL_SECONDS))
        return stopped.then(_entered(complete, node, digits, event.at, "complete"))
    session, timer_id = next_id(session, "t")
    session = replace(session, wait=Choosing(timer_id, digits))
    return stopped.then(Step(session, (a.StartTimer(timer_id, node.between),)))


def _entered(session: Session, node: n.Gather, digits: str, at: float, why: str) -> Step:
    """An entry is over: long enough, or a round lost."""
    if len(digits) < node.min_digits:
        count = f"{len(digits)} of at least {node.min_digits} digits, {why}"
        return _round_lost(session, node, at, "invalid", count, node.on_invalid)
    told = Step(session, notes=(note.Gathered(at, session.path, node.name, digits),))
    return told.then(_go_on(session, node, node.next, at, f"{node.name} gathered, {why}"))


def _round_lost(session: Session, node: n.Menu | n.Gather, at: float, what: str, why: str, to: str | None) -> Step:
    """A round went by in vain: its own exit, another round, or the end of the node's patience."""
    session = replace(session, tries=session.tries + 1)
    told = Step(session, notes=(note.Decided(at, session.path, what, f"{why} (try {session.tries}/{node.max_tries})"),))
    if session.tries >= node.max_tries:
        wanted = "choice" if isinstance(node, n.Menu) else "entry"
        return told.then(_go_on(session, node, node.on_exhausted, at, f"no {wanted} in {node.max_tries} tries"))
    if to is not None:
        return told.then(_go_on(session, node, to, at, why))
    if what == "invalid" and node.invalid_prompts:
        return told.then(say(session, node.invalid_prompts, "invalid"))
    return told.then(say(session, node.prompts, "prompt"))


def _go_on(session: Session, node: n.Menu | n.Gather, to: str, at: float, why: str) -> Step:
    if isinstance(node, n.Gather) and node.sensitive:
        session = replace(session, tail=Tail(EVERY_KEY, at + TAIL_SECONDS))
    return leave(session, to, at, why)
