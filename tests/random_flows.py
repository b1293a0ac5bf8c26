"""Random flows and events for property tests, and what must hold for the record of any call."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from callrouter.core import events as e
from callrouter.core.cdr import fold
from callrouter.core.identity import NO_CALLS, CallerHistory
from callrouter.core.model import RecordingPolicy
from callrouter.core.records import Reply, WebhookResult
from callrouter.core.routing import RoutingTable
from callrouter.core.state import Session
from tests.builders import CALL, T0, Run, arrived, company, table, target, trunk

NAMES = [f"n{index}" for index in range(7)]
FLOWS = ["desk", "night", "night", "support", "gone"]  # there is no flow gone
TARGETS = ["ana", "ben", "cell", "eve"]  # eve is no target of the company
CELL = target("cell", sip_uri=None, number="+12025550177", trunk="first")
TRUNKS = (trunk("first", next_trunk="second"), trunk("second", next_trunk="first"))
STATUSES = ["ANSWER", "BUSY", "NOANSWER", "CANCEL", "CHANUNAVAIL", "CONGESTION", ""]
CAUSES = [0, 1, 3, 16, 17, 18, 19, 21, 34, 127, 999]
KEYS = "0123456789*#"
AREAS = ["country: US", "area_code: ['312', '212']", "prefix: '+44'", "country: [DE, GB], prefix: '+1312'"]


REPLIES = [
    Reply(WebhookResult.ANSWERED),
    Reply(WebhookResult.ANSWERED, "", "vip", ("gold",), (("account", "17"),)),
    Reply(WebhookResult.ANSWERED, "", "nobody", ("gold",)),
    Reply(WebhookResult.TIMEOUT),
    Reply(WebhookResult.FAILED, "it answered 500"),
]
"""What a web service may be answered to."""
PASTS = [
    None,
    NO_CALLS,
    CallerHistory(2, T0 - 60.0),
    CallerHistory(9, T0 - 1e6, "ana", ("vip",), 9),
]
"""What may be known of a caller who calls at T0."""


@st.composite
def node_texts(draw: st.DrawFn, names: list[str]) -> str:
    def to() -> str:
        return draw(st.sampled_from(names))

    def maybe(text: str) -> str:
        return text if draw(st.booleans()) else ""

    asking = ["play", "menu", "gather", "consent", "dial", "voicemail", "hangup"]
    match draw(st.sampled_from([*asking, "hours", "split", "geo", "caller", "tag", "set", "goto_flow", "webhook"])):
        case "play":
            said = draw(st.sampled_from(["[Hi, {file: x}]", "{en: Hi, es: Hola}"]))
            return f"{{type: play, prompt: {said}, next: {to()}{maybe(f', on_failed: {to()}')}}}"
        case "menu":
            options = ", ".join(f"'{key}': {to()}" for key in draw(st.sets(st.sampled_from("12#"), min_size=1)))
            return (
                f"{{type: menu, prompt: P, options: {{{options}}}, on_exhausted: {to()}, "
                f"max_tries: {draw(st.integers(1, 3))}{maybe(f', on_timeout: {to()}')}{maybe(f', on_invalid: {to()}')}"
                f"{maybe(', invalid_prompt: No')}{maybe(', barge_in: no')}}}"
            )
        case "gather":
            least = draw(st.integers(1, 3))
            return (
                f"{{type: gather, prompt: P, name: zip, min: {least}, max: {least + draw(st.integers(0, 2))}, "
                f"next: {to()}, on_exhausted: {to()}, max_tries: {draw(st.integers(1, 3))}"
                f"{maybe(', sensitive: yes')}{maybe(f', on_timeout: {to()}')}{maybe(f', on_invalid: {to()}')}"
                f"{maybe(', invalid_prompt: No')}{maybe(', terminator: ' + repr(draw(st.sampled_from(['*', '']))))}}}"
            )
        case "consent":
            mode = draw(st.sampled_from(["announce", "opt_in", "opt_out"]))
            out = "" if mode == "announce" else f", on_refused: {to()}{maybe(', digit: 2')}"
            return f"{{type: consent, mode: {mode}, prompt: P, on_agreed: {to()}{out}{maybe(f', on_failed: {to()}')}}}"
        case "dial":
            return (
                f"{{type: dial, target: {draw(st.sampled_from(TARGETS))}, on_busy: {to()}, on_no_answer: {to()}, "
                f"on_failed: {to()}{maybe(f', on_answered: {to()}')}{maybe(', record: no')}}}"
            )
        case "hours":
            return f"{{type: hours, open: 'Mo-Fr 08:00-18:00', on_open: {to()}, on_closed: {to()}}}"
        case "split":
            some = list(draw(st.permutations(names)))[: draw(st.integers(1, 2))]
            shares = [100] if len(some) == 1 else [30, 70]
            branches = ", ".join(f"{name}: {share}" for name, share in zip(some, shares, strict=True))
            return f"{{type: split, branches: {{{branches}}}}}"
        case "geo":
            return (
                f"{{type: geo, areas: [{{{draw(st.sampled_from(AREAS))}, next: {to()}}}], "
                f"on_other: {to()}{maybe(f', on_unknown: {to()}')}}}"
            )
        case "caller":
            days = maybe(f", within_days: 3, on_other: {to()}")
            known = maybe(f", tags: [vip], on_known: {to()}")
            return (
                f"{{type: caller, on_first_time: {to()}, on_repeat: {to()}{days}{known}"
                f"{maybe(f', on_anonymous: {to()}')}{maybe(f', on_unknown: {to()}')}}}"
            )
        case "webhook":
            return (
                f"{{type: webhook, url: 'https://crm.example.com/', next: {to()}, on_failed: {to()}"
                f"{maybe(f', on_timeout: {to()}')}{maybe(f', branches: {{vip: {to()}}}')}}}"
            )
        case "voicemail":
            return f"{{type: voicemail, on_failed: {to()}{maybe(', greeting: Hi')}{maybe(f', on_done: {to()}')}}}"
        case "tag":
            return f"{{type: tag, tags: [x, y], next: {to()}}}"
        case "set":
            return f"{{type: set, values: {{x: y}}, next: {to()}{maybe(', language: es')}}}"
        case "goto_flow":
            at = maybe(f", node: {draw(st.sampled_from(NAMES[:3]))}")
            return f"{{type: goto_flow, flow: {draw(st.sampled_from(FLOWS))}{at}}}"
    return f"{{type: hangup, cause: {draw(st.sampled_from(['normal', 'busy', 'unavailable']))}}}"


@st.composite
def flow_texts(draw: st.DrawFn) -> str:
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    nodes = [f"  {name}: {draw(node_texts(names))}" for name in names]
    return "\n".join([f"start: {draw(st.sampled_from(names))}", "nodes:", *nodes, ""])


def other_flows() -> st.SearchStrategy[dict[str, str]]:
    """Flows beside the number's own, ``desk``; what they go on in may not be there."""
    return st.fixed_dictionaries({}, optional={"night": flow_texts(), "support": flow_texts()})


def tables() -> st.SearchStrategy[RoutingTable]:
    """Random graphs, of several flows; sometimes without a backup to go to, or none to be recorded."""
    return st.builds(
        lambda text, others, backup, record: table(
            text,
            backup=backup,
            of=company(record=RecordingPolicy.of(record)),
            targets=[CELL],
            trunks=TRUNKS,
            others=others,
        ),
        flow_texts(),
        other_flows(),
        st.sampled_from([None, "ben"]),
        st.booleans(),
    )


@dataclass(frozen=True)
class Move:
    """What could happen next, before it is known what the call waits for."""

    kind: str
    after: float
    stale: int
    """0: about what is waited for; else about something old, not yet there, or nobody's."""
    flag: bool
    digit: str
    status: str
    cause: int
    seconds: float
    failing: str

    def event(self, session: Session, at: float) -> e.Event:
        """The move as an event of a call."""
        ref = self.ref(session)
        match self.kind:
            case "playback":
                return e.PlaybackEnded(at, ref, self.flag)
            case "digit":
                return e.Digit(at, self.digit)
            case "timer":
                return e.TimerFired(at, ref)
            case "started":
                return e.LegStarted(at, ref, "peer")
            case "ringing":
                return e.LegRinging(at, ref)
            case "progress":
                return e.LegProgress(at, ref)
            case "answered":
                return e.LegAnswered(at, ref)
            case "held":
                return e.LegHeld(at, ref, self.flag)
            case "returned":
                return e.DialReturned(at, ref, self.status, self.cause, None if self.flag else "no space")
            case "recording":
                return e.RecordingEnded(at, ref, self.seconds, self.flag)
            case "webhook":
                url = getattr(session.wait, "url", "https://other.example.com/")
                return e.WebhookAnswered(at, ref, session.node, url, REPLIES[self.cause % len(REPLIES)])
            case "trouble":
                return e.RecordingTrouble(at, "disk full" if self.flag else "")
            case "failed":
                return e.ActionFailed(at, self.failing, "no", ref or None)
            case "resumed":
                return e.Resumed(at)
            case "answer":
                return e.Answered(at)
            case "gone":
                return e.CallerHungUp(at, self.cause)
            case "ledger":
                return e.LedgerClosed(at, self.seconds, at - self.seconds or None, self.cause, self.status)
        return arrived(at)

    def ref(self, session: Session) -> str:
        waits = ("playback_id", "timer_id", "leg_id", "recording_id", "ref")
        current = [value for name in waits if (value := getattr(session.wait, name, ""))]
        if self.stale == 0 and current:
            return current[self.cause % len(current)]
        odd = ["", "fs-1", "fs-2", "other-p1", *(f"{CALL}-{kind}{session.counter + 1}" for kind in "ptlmw")]
        odd += [
            f"{CALL}-{kind}{count}" for kind in "ptlmw" for count in range(max(0, session.counter - 3), session.counter)
        ]
        return odd[self.stale % len(odd)]


HAPPENINGS = ["playback", "digit", "timer", "started", "ringing", "progress", "answered", "held", "returned",
              "recording", "webhook", "trouble", "failed", "resumed", "answer", "arrived"]  # fmt: skip
ENDINGS = ["gone", "ledger"]


def moves(kinds: list[str]) -> st.SearchStrategy[Move]:
    return st.builds(
        Move,
        kind=st.sampled_from(kinds),
        after=st.sampled_from([0.0, 0.4, 3.0, 60.0]),
        stale=st.sampled_from([0, 0, 0]) | st.integers(1, 30),
        flag=st.booleans(),
        digit=st.sampled_from(KEYS + "A" + e.HIDDEN),
        status=st.sampled_from(STATUSES),
        cause=st.sampled_from(CAUSES),
        seconds=st.sampled_from([0.0, 0.5, 1.0, 30.0]),
        failing=st.sampled_from(
            ["Answer", "Play", "StopPlayback", "Dial", "Record", "StopRecording", "Hangup", "Other"]
        ),
    )


def check_record(result: Run) -> None:
    log = result.log
    for count in range(0, len(log), max(1, len(log) // 20)):
        fold(log[:count])
    record = result.record
    assert len({leg.id for leg in record.legs}) == len(record.legs)
    assert len({one.id for one in record.recordings}) == len(record.recordings)
    if not result.session.over:
        assert record.disposition is None
        return
    assert record.disposition is not None
    assert record.reason
    assert record.ended_at is not None
    assert all(leg.ended_at is not None and leg.result is not None for leg in record.legs)
    assert record.talk_seconds >= 0
    assert record.ring_seconds >= 0
    assert record.hold_seconds >= 0
