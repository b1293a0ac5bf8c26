"""A call in a world that behaves as Asterisk and callers do: what runs is always what is waited for."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.records import Reply
from callrouter.core.routing import RoutingTable
from callrouter.core.state import Asking, Calling, Choosing, HandedOver, Leaving, Over, Saying, Session, Taking
from tests.builders import CALL, T0, Run, arrived, run
from tests.random_flows import CAUSES, KEYS, REPLIES, STATUSES, check_record, tables


class AsteriskAndCaller(RuleBasedStateMachine):
    """Asterisk does what it is asked, the caller does as callers do; either may be late, and hang-ups come any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = T0
        self.playing: list[str] = []
        self.timers: dict[str, float] = {}
        self.recording: str | None = None
        self.asking: a.AskWebhook | None = None
        self.leg: str | None = None
        self.failsafe = 0
        self.let_go: a.Hangup | a.LeaveToFailsafe | None = None
        self.taken: list[e.Event] = []

    @initialize(routing=tables(), store=st.sampled_from([None, "disk full"]))
    def arrives(self, routing: RoutingTable, store: str | None) -> None:
        self.routing = routing
        self.call = Run(Session(CALL))
        self.happens(arrived(store_problem=store))

    def happens(self, event: e.Event) -> None:
        self.taken.append(event)
        for action in self.call.take(event, self.routing).actions:
            match action:
                case a.Play():
                    assert self.leg is None, "the caller is in the dialplan"
                    self.playing.append(action.playback_id)
                    assert len(self.playing) == 1, "two prompts at once"
                case a.StopPlayback():
                    if action.playback_id in self.playing:
                        self.playing.remove(action.playback_id)
                case a.StartTimer():
                    self.timers[action.timer_id] = self.now + action.seconds
                case a.CancelTimer():
                    self.timers.pop(action.timer_id, None)
                case a.AskWebhook():
                    assert self.asking is None, "two services at once"
                    self.asking = action
                case a.StopWebhook():
                    self.asking = None
                case a.Record():
                    assert self.recording is None, "two recordings at once"
                    self.recording = action.recording_id
                case a.StopRecording():
                    self.recording = None
                case a.Dial():
                    assert self.leg is None, "two destinations at once"
                    assert not self.playing
                    assert self.recording is None
                    self.leg = action.leg_id
                case a.Hangup() | a.LeaveToFailsafe():
                    assert self.let_go is None
                    self.let_go = action

    @property
    def alive(self) -> bool:
        return not self.call.session.over

    @rule(seconds=st.sampled_from([0.2, 1.0, 7.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.alive and self.playing)
    @rule(ok=st.sampled_from([True, True, True, False]))
    def a_prompt_ends(self, ok: bool) -> None:
        self.happens(e.PlaybackEnded(self.now, self.playing.pop(), ok))

    @precondition(lambda self: self.alive)
    @rule(digit=st.sampled_from(KEYS))
    def the_caller_presses(self, digit: str) -> None:
        self.happens(e.Digit(self.now, digit))

    @precondition(lambda self: self.alive and self.timers)
    @rule()
    def a_timer_fires(self) -> None:
        timer_id = min(self.timers, key=lambda name: self.timers[name])
        self.now = max(self.now, self.timers.pop(timer_id))
        self.happens(e.TimerFired(self.now, timer_id))

    @precondition(lambda self: self.alive and self.leg)
    @rule()
    def the_destination_is_invited(self) -> None:
        self.happens(e.LegStarted(self.now, self.leg or "", "peer"))

    @precondition(lambda self: self.alive and self.leg)
    @rule()
    def the_destination_rings(self) -> None:
        self.happens(e.LegRinging(self.now, self.leg or ""))

    @precondition(lambda self: self.alive and self.leg)
    @rule()
    def the_destination_answers(self) -> None:
        self.happens(e.LegAnswered(self.now, self.leg or ""))

    @precondition(lambda self: self.alive and self.leg)
    @rule(status=st.sampled_from(STATUSES), cause=st.sampled_from(CAUSES))
    def the_dialplan_gives_back(self, status: str, cause: int) -> None:
        leg, self.leg = self.leg or "", None
        wait = self.call.session.wait
        if isinstance(wait, Calling) and wait.answered_at is not None and status != "NOANSWER":
            status = "ANSWER"
        self.happens(e.DialReturned(self.now, leg, status, cause))

    @precondition(lambda self: self.alive and self.leg and isinstance(self.call.session.wait, Calling))
    @rule()
    def the_destination_could_not_be_dialled(self) -> None:
        leg, self.leg = self.leg, None
        self.happens(e.ActionFailed(self.now, "Dial", "no", leg))

    @precondition(lambda self: self.alive and self.recording)
    @rule(seconds=st.sampled_from([0.3, 20.0]), ok=st.booleans())
    def the_message_ends(self, seconds: float, ok: bool) -> None:
        recording, self.recording = self.recording or "", None
        self.happens(e.RecordingEnded(self.now, recording, seconds, ok))

    @precondition(lambda self: self.alive and self.asking)
    @rule(reply=st.sampled_from(REPLIES))
    def the_service_answers(self, reply: Reply) -> None:
        asked, self.asking = self.asking, None
        assert asked is not None
        self.happens(e.WebhookAnswered(self.now, asked.ref, asked.node, asked.url, reply))

    @precondition(lambda self: self.alive)
    @rule(problem=st.sampled_from(["", "disk full"]))
    def the_store_changes(self, problem: str) -> None:
        self.happens(e.RecordingTrouble(self.now, problem))

    @precondition(lambda self: self.alive and isinstance(self.let_go, a.LeaveToFailsafe) and self.failsafe < 2)
    @rule(answers=st.booleans())
    def the_failsafe_rings(self, answers: bool) -> None:
        self.failsafe += 1
        self.happens(e.LegStarted(self.now, f"fs-{self.failsafe}", "peer"))
        if answers:
            self.failsafe = 2
            self.happens(e.LegAnswered(self.now + 1, "fs-1"))

    @precondition(lambda self: self.alive and self.leg is None)
    @rule()
    def the_controller_is_restarted(self) -> None:
        self.timers.clear()
        self.asking = None
        self.call.session = run(self.routing, self.taken).session
        self.happens(e.Resumed(self.now))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def something_stale_arrives(self, data: st.DataObject) -> None:
        before = self.call.session
        stale = st.sampled_from(["c-p0", "c-t0", "c-l0", "c-m0"])
        event = data.draw(
            st.builds(e.PlaybackEnded, st.just(self.now), stale)
            | st.builds(e.TimerFired, st.just(self.now), stale)
            | st.builds(e.LegAnswered, st.just(self.now), stale)
            | st.builds(e.DialReturned, st.just(self.now), stale, st.just("ANSWER"), st.just(16))
            | st.builds(e.RecordingEnded, st.just(self.now), stale, st.just(9.0))
        )
        self.happens(event)
        assert self.call.session == before

    @precondition(lambda self: self.alive)
    @rule(cause=st.sampled_from(CAUSES))
    def the_caller_is_gone(self, cause: int) -> None:
        self.playing, self.recording, self.leg = [], None, None
        self.happens(e.CallerHungUp(self.now, cause))
        assert self.call.session.over
        assert self.timers == {}

    @invariant()
    def what_runs_is_what_is_waited_for(self) -> None:
        if not hasattr(self, "call"):
            return
        wait = self.call.session.wait
        assert self.asking is None or isinstance(wait, Asking)
        match wait:
            case Asking():
                assert self.asking is not None
                assert (self.asking.ref, list(self.timers)) == (wait.ref, [wait.timer_id])
            case Saying():
                assert (self.playing, self.recording, self.leg) == ([wait.playback_id], None, None)
            case Choosing():
                assert list(self.timers) == [wait.timer_id]
            case Calling():
                assert (self.leg, self.playing, self.recording) == (wait.leg_id, [], None)
                assert list(self.timers) == ([wait.timer_id] if wait.timer_id else [])
            case Taking():
                assert (self.recording, self.playing, list(self.timers)) == (wait.recording_id, [], [wait.timer_id])
            case Leaving() | HandedOver():
                assert self.let_go is not None
                assert (self.playing, self.recording, self.timers) == ([], None, {})
            case Over():
                assert len(self.call.notes_of(note.Concluded)) == 1

    @invariant()
    def the_log_is_enough(self) -> None:
        if hasattr(self, "call") and self.call.session.visits < 20:  # beyond, the end checks it
            assert run(self.routing, self.taken).session == self.call.session

    def teardown(self) -> None:
        if hasattr(self, "call"):
            if self.alive:
                self.the_caller_is_gone(16)
            assert run(self.routing, self.taken).session == self.call.session
            check_record(self.call)


TestAsteriskAndCaller = AsteriskAndCaller.TestCase
TestAsteriskAndCaller.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
