"""What comes of telling a caller about recording, or of asking. Called where a consent node is walked.

A refusal holds to the end of the call: nobody is asked again. An answer that merely failed to come does not; a later
node may ask. Messages are no matter of consent: who speaks after the tone wants to be recorded.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from callrouter.core import actions as a
from callrouter.core import notes as note
from callrouter.core.flow import nodes as n
from callrouter.core.records import Consent, ConsentResponse
from callrouter.core.routing import Entry, filled
from callrouter.core.state import Session, Step


def refused(session: Session) -> bool:
    """Whether the caller has refused to be recorded."""
    return session.consent is not None and session.consent.refused


def after_prompt(node: n.Consent, *, played: bool) -> ConsentResponse | None:
    """What is settled when the prompt is over; None: a key is awaited."""
    if not played:
        return ConsentResponse.NOT_ASKED
    return ConsentResponse.ANNOUNCED if node.mode is n.ConsentMode.ANNOUNCE else None


def pressed(node: n.Consent, digit: str) -> ConsentResponse | None:
    """What a key says; None: nothing."""
    if not node.digit or digit != node.digit:
        return None
    return ConsentResponse.AGREED if node.mode is n.ConsentMode.OPT_IN else ConsentResponse.REFUSED


def silent(node: n.Consent) -> ConsentResponse:
    """What it says to press nothing."""
    return ConsentResponse.NO_ANSWER if node.mode is n.ConsentMode.OPT_IN else ConsentResponse.NOT_REFUSED


def settle(session: Session, node: n.Consent, response: ConsentResponse, at: float, digit: str = "") -> Step:
    """Put an answer on record, and on the channel, where the dialplan obeys it."""
    assert session.entry is not None
    consent = Consent(
        at, session.path, str(node.mode), response, script_of(node, session.entry, session.language), digit
    )
    told = note.Consented(at, consent.path, consent.mode, response, consent.script, digit)
    return Step(replace(session, consent=consent), (a.SetConsent(consent.given),), (told,))


def way_out(node: n.Consent, response: ConsentResponse) -> str:
    """The node that an answer leads to."""
    match response:
        case ConsentResponse.NOT_ASKED:
            return node.on_failed
        case ConsentResponse.REFUSED | ConsentResponse.NO_ANSWER:
            return node.on_refused
        case ConsentResponse.ANNOUNCED | ConsentResponse.AGREED | ConsentResponse.NOT_REFUSED:
            return node.on_agreed


def script_of(node: n.Consent, entry: Entry, language: str | None = None) -> str:
    """The version of what a node says: a SHA-256 of its texts, placeholders filled in, and of its files' audio.

    :param language: that the flow chose
    """
    said = hashlib.sha256()
    for prompt in node.prompts:
        heard = filled(prompt, entry, language)
        what = f"file {entry.uploaded.get(heard.file, '')}" if heard.file is not None else f"text {heard.text}"
        said.update(f"{heard.language} {what}\n".encode())
    return said.hexdigest()


def unasked(flow: n.Flow) -> list[str]:
    """Names of the dials that a caller can come to without having passed a consent node."""
    seen = [flow.start]
    for name in seen:
        node = flow.nodes[name]
        if not isinstance(node, n.Consent):
            seen += [to for to in dict.fromkeys(to for _, to in n.exits(node)) if to is not None and to not in seen]
    return [name for name in seen if isinstance(flow.nodes[name], n.Dial)]
