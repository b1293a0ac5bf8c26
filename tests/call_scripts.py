"""Events and flows to test a call with, in few words; ids are written without the call's ("p1" is "c-p1")."""

from __future__ import annotations

from typing import Any

from callrouter.core import actions as a
from callrouter.core import events as e
from tests.builders import CALL, T0, Run


def said(ref: str, at: float = 2, ok: bool = True) -> e.PlaybackEnded:
    return e.PlaybackEnded(T0 + at, f"{CALL}-{ref}", ok)


def key(digit: str, at: float = 3) -> e.Digit:
    return e.Digit(T0 + at, digit)


def fired(ref: str, at: float = 8) -> e.TimerFired:
    return e.TimerFired(T0 + at, f"{CALL}-{ref}")


def started(ref: str, at: float = 4) -> e.LegStarted:
    return e.LegStarted(T0 + at, f"{CALL}-{ref}", "peer")


def ringing(ref: str, at: float = 5) -> e.LegRinging:
    return e.LegRinging(T0 + at, f"{CALL}-{ref}")


def up(ref: str, at: float = 10) -> e.LegAnswered:
    return e.LegAnswered(T0 + at, f"{CALL}-{ref}")


def back(ref: str, status: str, cause: int, at: float = 30, **changes: Any) -> e.DialReturned:
    return e.DialReturned(T0 + at, f"{CALL}-{ref}", status, cause, **changes)


def message(ref: str, seconds: float = 9, at: float = 40, ok: bool = True) -> e.RecordingEnded:
    return e.RecordingEnded(T0 + at, f"{CALL}-{ref}", seconds, ok)


def failed(action: str, ref: str | None = None, at: float = 5) -> e.ActionFailed:
    return e.ActionFailed(T0 + at, action, "Asterisk said no", f"{CALL}-{ref}" if ref else None)


def trouble(problem: str, at: float = 6) -> e.RecordingTrouble:
    return e.RecordingTrouble(T0 + at, problem)


def ledger(billsec: float = 0, status: str = "", cause: int = 16, at: float = 60, **changes: Any) -> e.LedgerClosed:
    values: dict[str, Any] = {"answered_at": T0 + at - billsec if billsec else None}
    return e.LedgerClosed(T0 + at, billsec, cause=cause, dialstatus=status, **(values | changes))


def gone(at: float = 60, cause: int = 16) -> e.CallerHungUp:
    return e.CallerHungUp(T0 + at, cause)


def resumed(at: float = 20, **changes: Any) -> e.Resumed:
    return e.Resumed(T0 + at, **changes)


def short(action: a.Action) -> str:
    """An action in one line, ids without the call's."""

    def ref(full: str) -> str:
        return full.removeprefix(f"{CALL}-")

    match action:
        case a.Answer():
            return "answer"
        case a.Play():
            return f"play {ref(action.playback_id)} " + " + ".join(p.text or f"[{p.file}]" for p in action.prompts)
        case a.StopPlayback():
            return f"stop {ref(action.playback_id)}"
        case a.StartTimer():
            return f"timer {ref(action.timer_id)} {action.seconds:g}"
        case a.CancelTimer():
            return f"cancel {ref(action.timer_id)}"
        case a.AskGroup():
            return f"ask {ref(action.ref)}"
        case a.AskWebhook():
            return f"ask {ref(action.ref)} {action.url} {action.timeout:g}"
        case a.StopWebhook():
            return f"stop {ref(action.ref)}"
        case a.Dial():
            return f"dial {ref(action.leg_id)} {action.target} {action.ring_seconds}"
        case a.StopLeg():
            return f"stop {ref(action.leg_id)}"
        case a.Record():
            return f"record {ref(action.recording_id)} {action.max_seconds}"
        case a.StopRecording():
            return f"stop {ref(action.recording_id)}"
        case a.SetConsent():
            return f"consent {'given' if action.given else 'refused'}"
        case a.PauseRecording():
            return f"{'pause' if action.on else 'resume'} {ref(action.recording_id)}"
        case a.Hangup():
            return f"hangup {action.cause}"
        case a.LeaveToFailsafe():
            return f"failsafe: {action.reason}"


def shown(result: Run) -> list[str]:
    return [short(action) for action in result.actions]


def flow(start: str, *nodes: str) -> str:
    return "\n".join([f"start: {start}", "nodes:", *(f"  {node}" for node in nodes), "  bye: {type: hangup}", ""])


PLAY = flow("hi", "hi: {type: play, prompt: ['Hi from {company}', {file: jingle}], next: bye, on_failed: sorry}",
            "sorry: {type: hangup, cause: congestion}")  # fmt: skip

MENU = flow(
    "menu",
    "menu: {type: menu, prompt: Press 1, options: {1: sales, '#': bye}, on_exhausted: lost, max_tries: 2, timeout: 4}",
    "sales: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye}",
    "lost: {type: hangup, cause: no-answer}",
)
MENU_EXITS = flow(
    "menu",
    "menu: {type: menu, prompt: Press 1, invalid_prompt: No such choice, options: {1: bye}, on_exhausted: lost, "
    "on_timeout: slow, on_invalid: wrong}",
    "slow: {type: tag, tags: slow, next: bye}",
    "wrong: {type: tag, tags: wrong, next: bye}",
    "lost: {type: hangup, cause: no-answer}",
)
MENU_SAYS_INVALID = MENU.replace("options:", "invalid_prompt: No such choice, options:")
MENU_PATIENT = MENU.replace("options:", "barge_in: no, options:")

DIAL = flow(
    "front",
    "front: {type: dial, target: ana, on_busy: busy, on_no_answer: second, on_failed: down, on_answered: survey, "
    "ring: 20}",
    "busy: {type: play, prompt: All busy, next: bye}",
    "second: {type: dial, target: ben, on_busy: bye, on_no_answer: vm, on_failed: bye}",
    "down: {type: hangup, cause: unavailable}",
    "survey: {type: play, prompt: How was it, next: bye}",
    "vm: {type: voicemail, on_failed: bye}",
)
VOICEMAIL = flow(
    "vm",
    "vm: {type: voicemail, greeting: Leave a message, on_failed: none, on_done: thanks, max_seconds: 60}",
    "none: {type: hangup, cause: no-answer}",
    "thanks: {type: play, prompt: Thank you, next: bye}",
)
TAGS = flow("a", "a: {type: tag, tags: [lead, hot], next: b}", "b: {type: tag, tags: hot, next: bye}")
LOST_TARGET = flow("d", "d: {type: dial, target: eve, on_busy: bye, on_no_answer: bye, on_failed: down}",
                   "down: {type: hangup, cause: unavailable}")  # fmt: skip

GATHER = flow(
    "zip",
    "zip: {type: gather, prompt: Your zip, name: zip, min: 3, max: 5, next: thanks, on_exhausted: lost, max_tries: 2, "
    "timeout: 6, between: 2}",
    "thanks: {type: play, prompt: Thank you, next: bye}",
    "lost: {type: hangup, cause: no-answer}",
)
GATHER_EXITS = GATHER.replace("max_tries: 2", "on_timeout: slow, on_invalid: short, invalid_prompt: Too short").replace(
    "  bye:",
    "  slow: {type: tag, tags: slow, next: bye}\n  short: {type: tag, tags: short, next: bye}\n  bye:",
)
GATHER_SECRET = flow(
    "pin",
    "pin: {type: gather, prompt: Your PIN, name: pin, min: 4, max: 4, sensitive: yes, next: menu, on_exhausted: bye, "
    "max_tries: 2}",
    "menu: {type: menu, prompt: Press 1, options: {1: bye}, on_exhausted: lost}",
    "lost: {type: hangup, cause: no-answer}",
)

CRM = "https://crm.example.com/callrouter"
ASK_CRM_NODE = (
    f"crm: {{type: webhook, url: '{CRM}', timeout: 1.5, branches: {{vip: sales, support: help}}, next: plain, "
    "on_timeout: slow, on_failed: broken}"
)
ASK_CRM_ENDS = (
    "sales: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye}",
    "help: {type: dial, target: ben, on_busy: bye, on_no_answer: bye, on_failed: bye}",
    "plain: {type: hangup, cause: normal}",
    "slow: {type: hangup, cause: busy}",
    "broken: {type: hangup, cause: congestion}",
)
ASK_CRM = flow("crm", ASK_CRM_NODE, *ASK_CRM_ENDS)


def keys(text: str, at: float = 3) -> list[e.Event]:
    """Keys, half a second apart."""
    return [key(one, at + 0.5 * place) for place, one in enumerate(text)]
