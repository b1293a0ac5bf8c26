"""A call that nobody makes: ``session.step``, which runs calls, fed with events that a caller and the destinations
might cause. There is no second interpreter; what is told here is what a call with these events does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core.cdr import LogItem, fold
from callrouter.core.disposition import trunk_failed
from callrouter.core.groups import Facts
from callrouter.core.identity import NO_CALLS, CallerHistory
from callrouter.core.keys import masked
from callrouter.core.records import CallRecord, Reply
from callrouter.core.routing import Destination, RoutingTable, Way
from callrouter.core.session import step
from callrouter.core.simulated_lines import Kind, Line, line_of, seconds_of, spoken
from callrouter.core.state import (
    BACKUP_LEG,
    Arriving,
    Asking,
    Calling,
    Choosing,
    HandedOver,
    Leaving,
    Picking,
    Saying,
    Session,
    Taking,
)
from callrouter.core.webhooks import ASSUMED

CALL_ID = "simulated"
CHANNEL = "simulated.1"
MAX_EVENTS = 20_000
"""More than any call can need: a call passes at most 200 nodes, and no node takes a hundred events."""
KEY_SECONDS = 1.0
"""Between two keys, and before the first one."""
RING_SECONDS = 6.0
"""After which a destination that answers does, and one that gives up does."""
WEBHOOK_SECONDS = 0.2
ANY = "*"
"""Stands for every target, and every node that asks a web service."""


class Answer(StrEnum):
    """What a destination does when it is rung."""

    ANSWERED = "answered"
    """It answers, and hangs up after the conversation."""
    CALLER_LEAVES = "caller-leaves"
    """It answers, and the caller hangs up after the conversation."""
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    """It rings to the end."""
    DECLINED = "declined"
    """It rings and is refused (603), which Asterisk reports as busy."""
    FAILED = "failed"
    """There is no such number (404)."""
    TRUNK_FAILED = "trunk-failed"
    """Its trunk cannot carry the call (503); another one is tried where there is one."""
    TRUNK_SILENT = "trunk-silent"
    """Its trunk gives no sign of life."""
    CALLER_GIVES_UP = "caller-gives-up"
    """The caller hangs up while it rings."""


_RETURNED: dict[Answer, tuple[str, int]] = {
    Answer.ANSWERED: ("ANSWER", 16),
    Answer.BUSY: ("BUSY", 17),
    Answer.NO_ANSWER: ("NOANSWER", 19),
    Answer.DECLINED: ("BUSY", 21),
    Answer.FAILED: ("CHANUNAVAIL", 1),
    Answer.TRUNK_FAILED: ("CONGESTION", 34),
    Answer.TRUNK_SILENT: ("NOANSWER", 18),
}
"""DIALSTATUS and Q.850 cause that Asterisk's Dial() gives."""
_RINGS = frozenset({Answer.ANSWERED, Answer.CALLER_LEAVES, Answer.NO_ANSWER, Answer.DECLINED, Answer.CALLER_GIVES_UP})


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the caller and the destinations do."""

    digits: tuple[str, ...] = ()
    """Keys for each round of a menu or gather that the caller comes to; "" presses nothing. None left: nothing."""
    answers: tuple[tuple[str, tuple[Answer, ...]], ...] = ()
    """(target, what it does at each ringing; the last one counts for all that follow). ANY: targets not named."""
    talk_seconds: float = 60.0
    message_seconds: float = 12.0
    """Length of a message; 0: the caller says nothing."""
    trunks_down: tuple[tuple[str, str], ...] = ()
    """Trunks known to be down, each with the reason."""
    store_problem: str | None = None
    """Why nothing can be recorded."""
    patient: bool = True
    """False: without keys for a round the caller hangs up."""
    webhooks: tuple[tuple[str, tuple[Reply, ...]], ...] = ()
    """(node, what it is answered at each asking; the last one counts for all that follow). ANY: nodes not named."""
    history: CallerHistory | None = NO_CALLS
    """The caller's earlier calls, unless the number is withheld; None: they are not known."""

    def answer(self, target: str, time: int) -> Answer:
        """What a target does when it is rung.

        :param time: how often it was rung before in this call
        """
        given = dict(self.answers)
        found = given.get(target) or given.get(ANY) or (Answer.ANSWERED,)
        return found[min(time, len(found) - 1)]

    def reply(self, node: str, time: int) -> Reply:
        """What a node that asks a web service is answered."""
        given = dict(self.webhooks)
        found = given.get(node) or given.get(ANY) or (ASSUMED,)
        return found[min(time, len(found) - 1)]


@dataclass(frozen=True, slots=True)
class Simulation:
    """A call from its arrival to its end."""

    log: tuple[LogItem, ...]
    """Events and notes, as the journal of a real call would hold them."""
    asked: tuple[tuple[float, a.Action], ...]
    """What would have been asked of Asterisk, and when."""
    record: CallRecord
    complete: bool = True
    """False: cut off after MAX_EVENTS."""

    @property
    def events(self) -> tuple[e.Event, ...]:
        return tuple(item for item in self.log if isinstance(item, e.Event))

    @property
    def heard(self) -> tuple[str, ...]:
        """What was said to the caller, in order; an uploaded prompt as ``[name]``."""
        return tuple(spoken(action.prompts) for _, action in self.asked if isinstance(action, a.Play))

    @property
    def rung(self) -> tuple[str, ...]:
        """Targets that were rung, in order."""
        return tuple(leg.target for leg in self.record.legs)

    @property
    def cause(self) -> int | None:
        """The Q.850 cause that the caller was hung up with; None: the caller, or a destination, ended the call."""
        return next((action.cause for _, action in self.asked if isinstance(action, a.Hangup)), None)

    def lines(self) -> tuple[Line, ...]:
        """The call, told in the order in which it happens."""
        begin = self.record.started_at
        told = [
            Line(event.at - begin, Kind.DOES, "", f"the caller presses {event.digit}")
            for event in self.events
            if isinstance(event, e.Digit)
        ]
        legs = {leg.id: leg.target for leg in self.record.legs}
        for one in self.record.trace:
            kind = Kind.RINGS if one.what.startswith("dial ") else Kind.DECISION
            told.append(Line(one.at - begin, kind, legs.get(one.path, one.path), one.what, one.why))
        for at, action in self.asked:
            if (line := line_of(at - begin, action)) is not None:
                told.append(line)
        # All that one event brings about bears its time; events are never of the same one.
        return tuple(sorted(told, key=lambda line: line.seconds))


def simulate(table: RoutingTable, did: str, caller: str | None, at: float, inputs: Inputs = Inputs()) -> Simulation:
    """What becomes of a call. Always ends, whatever the routing.

    :param did: E.164
    :param caller: E.164; None: withheld
    :param at: when it arrives, seconds since the epoch
    """
    world = World(table, inputs, at)
    world.take(
        e.CallArrived(
            at=at,
            call_id=CALL_ID,
            channel=CHANNEL,
            did=did,
            caller=caller,
            caller_name=None,
            trunk=None,
            test=True,
            store_problem=inputs.store_problem,
            trunks_down=inputs.trunks_down,
            history=inputs.history if caller is not None else None,
            overrides=table.overrides_of(did, at),
        )
    )
    return world.to_the_end()


@dataclass
class World:
    """The caller, the destinations and the clock."""

    table: RoutingTable
    inputs: Inputs
    clock: float
    session: Session = field(default_factory=lambda: Session(CALL_ID))
    log: list[LogItem] = field(default_factory=list)
    asked: list[tuple[float, a.Action]] = field(default_factory=list)
    pressed: int = 0
    rung: dict[str, int] = field(default_factory=dict)
    """How often each target was rung."""
    last_play: float = 0.0
    timers: dict[str, float] = field(default_factory=dict)
    """When each timer fires."""
    failed: bool = False
    """Whether the failsafe's last destination failed for its trunk."""

    def to_the_end(self) -> Simulation:
        taken = 0
        while not self.session.over and taken < MAX_EVENTS:
            for event in self.next_events():
                self.take(event)
                taken += 1
        complete = self.session.over
        if not complete:
            self.take(e.CallerHungUp(self.clock + 1))
        record = fold(self.log)
        assert record is not None
        return Simulation(tuple(self.log), tuple(self.asked), record, complete)

    def take(self, event: e.Event) -> None:
        self.clock = event.at
        event = masked(self.session, event)
        result = step(self.session, event, self.table)
        self.session = result.session
        self.log += [event, *result.notes]
        for action in result.actions:
            self.asked.append((event.at, action))
            if isinstance(action, a.StartTimer):
                self.timers[action.timer_id] = event.at + action.seconds
            elif isinstance(action, a.Play):
                self.last_play = seconds_of(action.prompts)

    def next_events(self) -> Iterator[e.Event]:
        """What happens next, by what the call waits for: at least one event, about just that."""
        match self.session.wait:
            case Saying(playback_id=ref):
                yield e.PlaybackEnded(self.clock + self.last_play, ref)
            case Choosing() as wait:
                yield from self._press(wait)
            case Picking() as wait:
                group = next(act for _, act in reversed(self.asked) if isinstance(act, a.AskGroup))
                yield e.GroupKnown(self.clock, wait.ref, group.group_id, Facts())
            case Asking(ref=ref, url=url):
                node = self.session.node
                before = sum(isinstance(item, e.WebhookAnswered) and item.node == node for item in self.log)
                reply = self.inputs.reply(node, before)
                yield e.WebhookAnswered(self.clock + WEBHOOK_SECONDS, ref, node, url, reply)
            case Calling(branches=()) as wait:
                yield from self._ring(wait)
            case Calling() as wait:
                yield from self._ring_all(wait)
            case Taking(recording_id=ref):
                record = next(act for _, act in reversed(self.asked) if isinstance(act, a.Record))
                seconds = min(self.inputs.message_seconds, float(record.max_seconds))
                yield e.RecordingEnded(self.clock + seconds + 1, ref, seconds)
            case HandedOver():
                yield from self._failsafe()
            case Leaving(cause=cause):
                yield e.CallerHungUp(self.clock + 0.1, cause)
            case Arriving():
                yield e.CallerHungUp(self.clock + 0.1)
            case _:
                # Something that callers cannot be simulated at: they wait a little, and go.
                yield e.CallerHungUp(self.clock + 30.0)

    def _press(self, wait: Choosing) -> Iterator[e.Event]:
        """A round's keys, one after another; or silence, which ends a round or an entry that was begun."""
        keys = ""
        if not wait.digits:
            keys = self.inputs.digits[self.pressed] if self.pressed < len(self.inputs.digits) else ""
            self.pressed += 1
            if self.pressed > len(self.inputs.digits) and not self.inputs.patient:
                yield e.CallerHungUp(self.clock + KEY_SECONDS)
                return
        for key in keys:
            yield e.Digit(max(self.clock + KEY_SECONDS, self._heeded_from(key)), key)
        if not keys:
            yield e.TimerFired(max(self.timers.get(wait.timer_id, 0.0), self.clock + 0.1), wait.timer_id)

    def _heeded_from(self, key: str) -> float:
        """Callers who begin to press keys do so when they are heeded."""
        tail, wait = self.session.tail, self.session.wait
        begins = isinstance(wait, Choosing) and not wait.digits
        return tail.until if begins and key in tail.keys else 0.0

    def _answer(self, target: str) -> Answer:
        time = self.rung.get(target, 0)
        self.rung[target] = time + 1
        return self.inputs.answer(target, time)

    def _ring(self, wait: Calling) -> Iterator[e.Event]:
        leg, answer = wait.leg_id, self._answer(wait.target)
        dial = next(act for _, act in reversed(self.asked) if isinstance(act, a.Dial))
        yield e.LegStarted(self.clock + 0.2, leg, f"peer-{leg}")
        if answer is Answer.TRUNK_SILENT:
            waiting = self.session.wait
            if isinstance(waiting, Calling) and waiting.timer_id:
                yield e.TimerFired(self.timers[waiting.timer_id], waiting.timer_id)
                yield e.DialReturned(self.clock + 0.2, leg, "CHANUNAVAIL", 0)
            else:
                yield e.DialReturned(self.clock + dial.ring_seconds, leg, *_RETURNED[answer])
            return
        if answer in _RINGS:
            yield e.LegRinging(self.clock + 0.8, leg)
        short = min(RING_SECONDS, 0.8 * dial.ring_seconds)
        match answer:
            case Answer.ANSWERED | Answer.CALLER_LEAVES:
                yield e.LegAnswered(self.clock + short, leg)
                if answer is Answer.CALLER_LEAVES:
                    yield e.CallerHungUp(self.clock + self.inputs.talk_seconds)
                else:
                    yield e.DialReturned(self.clock + self.inputs.talk_seconds, leg, *_RETURNED[answer])
            case Answer.CALLER_GIVES_UP:
                yield e.CallerHungUp(self.clock + short)
            case Answer.NO_ANSWER:
                yield e.DialReturned(self.clock + dial.ring_seconds, leg, *_RETURNED[answer])
            case Answer.DECLINED:
                yield e.DialReturned(self.clock + short, leg, *_RETURNED[answer])
            case _:
                yield e.DialReturned(self.clock + 0.5, leg, *_RETURNED[answer])

    def _ring_all(self, wait: Calling) -> Iterator[e.Event]:
        """Several at once: those that cannot be rung are out first, then those that decline; then the first one in the
        list that answers does."""
        dial = next(act for _, act in reversed(self.asked) if isinstance(act, a.Dial))
        begin, short = self.clock, min(RING_SECONDS, 0.8 * dial.ring_seconds)
        answers = {each.leg_id: self._answer(each.target) for each in dial.branches}
        for leg in answers:
            yield e.LegStarted(begin + 0.2, leg, f"peer-{leg}")
        for leg, answer in answers.items():
            if answer in _RINGS:
                yield e.LegRinging(begin + 0.8, leg)
            else:
                yield e.LegEnded(begin + 0.8, leg, _RETURNED[answer][0])
        for leg, answer in answers.items():
            if answer is Answer.DECLINED:
                yield e.LegEnded(begin + short, leg, _RETURNED[answer][0])
        over = {Answer.ANSWERED, Answer.CALLER_LEAVES, Answer.CALLER_GIVES_UP}
        ends = next(((leg, answer) for leg, answer in answers.items() if answer in over), None)
        if ends is None:
            rings = Answer.NO_ANSWER in answers.values()
            last = Answer.NO_ANSWER if rings else next(iter(answers.values()))
            yield e.DialReturned(begin + (dial.ring_seconds if rings else short), wait.leg_id, *_RETURNED[last])
        elif ends[1] is Answer.CALLER_GIVES_UP:
            yield e.CallerHungUp(begin + short)
        else:
            yield e.LegAnswered(begin + short, ends[0])
            if ends[1] is Answer.CALLER_LEAVES:
                yield e.CallerHungUp(self.clock + self.inputs.talk_seconds)
            else:
                talked = self.clock + self.inputs.talk_seconds
                yield e.DialReturned(talked, wait.leg_id, *_RETURNED[Answer.ANSWERED])

    def _failsafe(self) -> Iterator[e.Event]:
        """The dialplan with a caller who was let in: every backup destination, in order (dialplans/failsafe.conf)."""
        cause = 19
        for place, destination, way in self._backups():
            leg = f"{BACKUP_LEG}{CHANNEL}-{place}"
            answer = self._answer(destination.target.name)
            yield e.LegStarted(self.clock + 0.2, leg, f"peer-{leg}", way.endpoint)
            if answer in _RINGS:
                yield e.LegRinging(self.clock + 0.8, leg)
            if answer in (Answer.ANSWERED, Answer.CALLER_LEAVES):
                yield e.LegAnswered(self.clock + RING_SECONDS, leg)
                yield e.CallerHungUp(self.clock + self.inputs.talk_seconds)
                return
            if answer is Answer.CALLER_GIVES_UP:
                yield e.CallerHungUp(self.clock + RING_SECONDS)
                return
            self.clock += float(destination.target.ring_seconds) if answer is Answer.NO_ANSWER else 1.0
            status, cause = _RETURNED[answer]
            self.failed = trunk_failed(status, cause, answer in _RINGS)
        yield e.CallerHungUp(self.clock + 0.1, cause)

    def _backups(self) -> Iterator[tuple[int, Destination, Way]]:
        """(place among the entry's ways, destination, way); another way only where the trunk before failed."""
        entry = self.session.entry
        before = ""
        for place, (destination, way) in enumerate(entry.backup_ways if entry else (), 1):
            if destination.target.name != before or self.failed:
                before = destination.target.name
                yield place, destination, way
