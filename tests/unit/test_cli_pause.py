"""``callrouter call pause`` where it cannot be done, and what ``call show`` says of consent and pauses."""

from __future__ import annotations

from callrouter.core.records import Consent, ConsentResponse, Pause, RecordingKind, RecordingRef
from tests.unit.cli_home import Cli, acme, cli, upgraded
from tests.unit.test_cli_calls import START, a_call, store

__all__ = ["acme", "cli", "upgraded"]


def test_a_call_that_is_over_or_unknown_cannot_be_paused(acme: Cli) -> None:
    call = a_call(acme)
    store(acme, call)
    assert "is over" in acme.refusal("call", "pause", call.id, code=4)["error"]
    acme.refusal("call", "resume", "no-such-call", code=1)


def test_without_asterisk_nothing_is_paused(acme: Cli) -> None:
    call = a_call(acme, disposition=None, ended_at=None)
    store(acme, call)
    before = acme.refusal("call", "pause", call.id, code=2)
    assert "ami" in str(before).lower(), "there is no password yet"
    # To resume what is not paused takes nobody.
    assert acme.json("call", "resume", call.id) == {"call": call.id, "paused": False, "changed": False}


def test_consent_and_pauses_are_shown(acme: Cli) -> None:
    consent = Consent(START + 3, "desk@1/ask", "opt_in", ConsentResponse.AGREED, "ab" * 32, "1")
    pause = Pause(START + 20, START + 25, "business")
    recording = RecordingRef("rec", RecordingKind.CONVERSATION, None, START + 5, pauses=(pause,))
    call = a_call(acme, consent=consent, recordings=(recording,))
    store(acme, call)
    shown = acme.json("call", "show", call.id)
    assert (shown["consent"]["response"], shown["consent"]["script"]) == ("agreed", "ab" * 32)
    assert shown["consent"]["at"].startswith("2026-11-21T23:30:03")
    [told_pause] = shown["recordings"][0]["pauses"]
    assert (told_pause["by"], told_pause["begin"][:19]) == ("business", "2026-11-21T23:30:20")
    told = acme("call", "show", call.id).stdout
    assert "the caller agreed" in told
    assert "abababababab" in told
    assert "18:30:20.00 to 18:30:25.00" in told
