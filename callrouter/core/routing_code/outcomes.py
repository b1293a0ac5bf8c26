"""Whether two outcomes are the same, and what an outcome is in words."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from callrouter.core.routing_code.tables import (
    AGAIN,
    ENTRY,
    NOTHING,
    WRONG,
    Ask,
    Case,
    Chance,
    End,
    Other,
    Ref,
    Ring,
    Service,
    State,
)

Place: TypeAlias = tuple[Case, Ref]
"""Where a call stands."""


class Choice(NamedTuple):
    """What callers press at a menu, or what a web service answers; alternatives that come to the same."""

    alike: tuple[str, ...]
    known: frozenset[str]
    """All keys, or branches, that mean something there."""
    webhook: str = ""
    """The node that asks the service; "" at a menu."""


Choices: TypeAlias = tuple[Choice, ...]
"""At one menu after another."""
MAX_MENUS = 6
"""So many menus in a row are told one by one."""
ADDRESSES, ENDS = 1, 2
MAX_DEPTH = 8
"""So many destinations in a row are told."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """Callers who press the same come to these two places."""

    choices: Choices
    was: Ref
    will: Ref
    differs: bool


def leaves(
    was: Place, will: Place, choices: Choices = (), path: frozenset[tuple[Ref, Ref]] = frozenset()
) -> list[Leaf]:
    """Every choice that callers have before anybody is rung, and whether it comes to the same in both."""
    (old, a), (new, b) = was, will
    states = old.state(a), new.state(b)
    if (a, b) in path:
        return []
    webhook = _service(states)
    if not (webhook or any(isinstance(state, Ask) for state in states)) or len(choices) >= MAX_MENUS:
        return [Leaf(choices, a, b, not same(was, will))]
    groups: dict[tuple[Ref, Ref], list[str]] = {}
    asks = (state.keys for state in states if isinstance(state, Ask))
    known = frozenset(_choices(states) if webhook else (key for keys in asks for key, _ in keys))
    for choice in _choices(states):
        groups.setdefault((_lead(states[0], choice, a), _lead(states[1], choice, b)), []).append(choice)
    found = [
        leaf
        for (c, d), alike in groups.items()
        for leaf in leaves((old, c), (new, d), (*choices, Choice(tuple(alike), known, webhook)), path | {(a, b)})
    ]
    if found and all(leaf.differs for leaf in found) and not all(isinstance(s, Ask | Service) for s in states):
        return [Leaf(choices, a, b, True)]
    return found


def same(was: Place, will: Place, assumed: frozenset[tuple[int, Ref, int, Ref]] = frozenset()) -> bool:
    """Whether whatever a caller presses, and whatever becomes of whoever is rung, comes to the same."""
    seen = set(assumed)
    waiting = [(was, will)]
    while waiting:
        (old, a), (new, b) = waiting.pop()
        at = (id(old), a, id(new), b)
        if at in seen:
            continue
        seen.add(at)
        states = old.state(a), new.state(b)
        if any(isinstance(state, Chance) for state in states):
            if not _same_chances((old, a), (new, b), frozenset(seen)):
                return False
        elif any(isinstance(state, Ask) for state in states) or _service(states):
            waiting += [((old, _lead(states[0], c, a)), (new, _lead(states[1], c, b))) for c in _choices(states)]
        elif isinstance(states[0], Service) and isinstance(states[1], Service):
            # Each may answer anything, whatever the other one does.
            waiting += [((old, c), (new, b)) for _, c in states[0].exits]
        elif _label(states[0]) != _label(states[1]):
            return False
        else:
            pairs = zip(_exits(states[0]), _exits(states[1]), strict=True)
            waiting += [((old, c), (new, d)) for (_, c), (_, d) in pairs]
    return True


def _same_chances(was: Place, will: Place, assumed: frozenset[tuple[int, Ref, int, Ref]]) -> bool:
    shares: list[tuple[Place, list[int]]] = []
    for side, place in enumerate((was, will)):
        for percent, to in _branches(place):
            here = (place[0], to)
            known = next((share for other, share in shares if same(other, here, assumed)), None)
            if known is None:
                known = [0, 0]
                shares.append((here, known))
            known[side] += percent
    return all(one == other for _, (one, other) in shares)


def _branches(place: Place) -> tuple[tuple[int, Ref], ...]:
    state = place[0].state(place[1])
    return state.branches if isinstance(state, Chance) else ((100, place[1]),)


def _label(state: State) -> object:
    match state:
        case End():
            return state
        case Ring():
            return [dialled for _, dialled in state.who], state.how
        case Service():
            return state.url, [name for name, _ in state.exits]
        case Other():
            return state.kind, [name for name, _ in state.exits]
    return type(state)


def _exits(state: State) -> tuple[tuple[str, Ref], ...]:
    return state.exits if isinstance(state, Ring | Service | Other) else ()


def _service(states: tuple[State, State]) -> str:
    """The node that asks a web service whose answers can be told one by one; "" without one, or with two services."""
    services = [state for state in states if isinstance(state, Service)]
    if any(isinstance(state, Ask) for state in states) or len({state.url for state in services}) != 1:
        return ""
    return services[-1].node


def _choices(states: Iterable[State]) -> list[str]:
    states = tuple(states)
    asks = [state for state in states if isinstance(state, Ask)]
    if not asks:
        services = (state for state in states if isinstance(state, Service))
        return list(dict.fromkeys(name for service in services for name, _ in service.exits))
    keys = sorted({key for ask in asks for key, _ in ask.keys})
    return [*keys, *([ENTRY] if any(ask.takes_entry for ask in asks) else []), NOTHING, WRONG, AGAIN]


def _lead(state: State, choice: str, ref: Ref) -> Ref:
    return state.leads(choice) if isinstance(state, Ask | Service) else ref


def pressed(choices: Choices) -> str:
    """What callers press, in words: ``press 1, then nothing``; "" for whatever they press."""
    told = []
    for place, (alike, _, webhook) in enumerate(choices):
        words = " or ".join(each for each in alike if each != AGAIN or WRONG not in alike)
        if webhook:
            told.append(f"get {words} from webhook {webhook}")
        else:
            told.append(words if place and not choices[place - 1].webhook else f"press {words}")
    return ", then ".join(told)


def two_words(was: Place, will: Place) -> tuple[str, str]:
    """Two outcomes in words that tell them apart."""
    for detail in (0, ADDRESSES, ENDS):
        texts = words(was, detail=detail), words(will, detail=detail)
        if texts[0] != texts[1]:
            return texts
    for steps, one, other in _first_difference(was, will):
        texts = words(one, detail=ENDS), words(other, detail=ENDS)
        if texts[0] != texts[1]:
            return f"{steps}: {texts[0]}", f"{steps}: {texts[1]}"
    return texts


def _first_difference(was: Place, will: Place) -> Iterator[tuple[str, Place, Place]]:
    """Where, on the same way, the two part: nearest first."""
    waiting = deque([("", was, will)])
    seen = set()
    while waiting:
        steps, (old, a), (new, b) = waiting.popleft()
        if (a, b) in seen or same((old, a), (new, b)):
            continue
        seen.add((a, b))
        states = old.state(a), new.state(b)
        if any(isinstance(state, Ask) for state in states) or _service(states):
            pairs = [(c, _lead(states[0], c, a), _lead(states[1], c, b)) for c in _choices(states)]
        elif _label(states[0]) == _label(states[1]):
            exits = zip(_exits(states[0]), _exits(states[1]), strict=True)
            pairs = [(name, c, d) for (name, c), (_, d) in exits]
        else:
            pairs = []
        if steps:
            yield steps, (old, a), (new, b)
        here = f"{', then ' if steps else 'after '}{a or 'the end'} "
        waiting += [(f"{steps}{here}{name}", (old, c), (new, d)) for name, c, d in pairs]


def words(place: Place, *, detail: int = 0, path: tuple[Ref, ...] = ()) -> str:
    """An outcome in words: ``Ana, then Ben, then voicemail``.

    :param detail: ADDRESSES: with what is dialled; ENDS: and with how the call is hung up in the end
    """
    case, ref = place
    if ref in path:
        return f"back to {ref}"
    if len(path) >= MAX_DEPTH:
        return "…"
    state = case.state(ref)
    match state:
        case End(cause=cause):
            return "hang-up" if cause == "normal" else cause if case.start is None else f"hang-up ({cause})"
        case Ask():
            keys = [(key, state.leads(key)) for key in _choices((state,)) if key not in (WRONG, AGAIN)]
            return f"a menu ({_grouped(case, keys, detail, (*path, ref))})"
        case Service():
            name = f"webhook {state.node} ({state.url})" if detail else f"webhook {state.node}"
            return f"{name} ({_grouped(case, state.exits, detail, (*path, ref))})"
        case Chance():
            parts = [
                f"{percent} %: {words((case, to), detail=detail, path=(*path, ref))}" for percent, to in state.branches
            ]
            return "by chance " + "; ".join(parts)
        case Ring():
            names = [f"{title} ({dialled})" if detail else title for title, dialled in state.who]
            many = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
            after = [each for each in state.exits if each[0] != "answered"]
            done = dict(state.exits)["answered"]
            return (f"{many} ({state.how})" if detail and state.how else many) + _after(
                case, after, done, detail, (*path, ref)
            )
        case Other():
            done = dict(state.exits).get("done")
            return state.kind + _after(case, [e for e in state.exits if e[0] != "done"], done, detail, (*path, ref))


def _after(case: Case, exits: Iterable[tuple[str, Ref]], done: Ref, detail: int, path: tuple[Ref, ...]) -> str:
    """What comes next where it failed, and where it did not."""

    def ends(to: Ref) -> bool:
        return detail < ENDS and isinstance(case.state(to), End)

    going = [(name, to) for name, to in exits if not ends(to)]
    text = ""
    if going:
        alike = {words((case, to), detail=detail, path=path) for _, to in going}
        whole = len(alike) == 1 and len(going) == len(list(exits))
        text = f", then {alike.pop()}" if whole else f" ({_grouped(case, going, detail, path)})"
    if not ends(done) and done is not None:
        text += f"; afterwards {words((case, done), detail=detail, path=path)}"
    return text


def _grouped(case: Case, exits: Iterable[tuple[str, Ref]], detail: int, path: tuple[Ref, ...]) -> str:
    groups: dict[str, list[str]] = {}
    for name, to in exits:
        groups.setdefault(words((case, to), detail=detail, path=path), []).append(name)
    return "; ".join(f"{' or '.join(names)}: {text}" for text, names in groups.items())
