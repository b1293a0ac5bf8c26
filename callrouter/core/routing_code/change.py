"""From one routing to another: what has to be done, in which order, and what somebody else did meanwhile."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from callrouter.core.routing_code.fields import FIELDS, KINDS, Key, Routing, Values, shown

ADD, EDIT, REMOVE = "add", "edit", "remove"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to add, edit or remove."""

    what: str
    key: Key
    """As it is called before."""
    values: Values
    """To add: all fields. To edit: those that change."""
    before: Values
    """To edit and remove: all fields, as they were."""

    def words(self) -> list[str]:
        """The change in words, a line each."""
        match self.what:
            case "remove":
                return [f"remove {self.key}"]
            case "add":
                return [f"add {self.key}{_of(self.key, self.values)}"]
        return list(self._edits())

    def _edits(self) -> Iterator[str]:
        for name, value in self.values.items():
            if name == "text":
                yield f"edit {self.key}:"
                old, new = str(self.before["text"]).splitlines(), str(value).splitlines()
                for line in list(difflib.unified_diff(old, new, n=1, lineterm=""))[2:]:
                    yield f"    {line}"
            elif name in self.before:
                yield f"edit {self.key}: {name} {shown(self.before[name], name)} → {shown(value, name)}"
            else:
                yield f"edit {self.key}: renamed to {value}"


def _of(key: Key, values: Values) -> str:
    given = [
        f"{field.name} {shown(values[field.name], field.name)}"
        for field in FIELDS[key.kind]
        if field.name != "text" and field.name in values and values[field.name] not in (field.default, None, "")
    ]
    return f": {', '.join(given)}" if given else ""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Something that was changed since a file was made, and that the file would change otherwise."""

    key: Key
    made_from: Values | None
    """As it was when the file was made; None: it was not there."""
    in_force: Values | None

    def words(self) -> str:
        if self.in_force is None:
            return f"{self.key} was removed"
        if self.made_from is None:
            return f"{self.key} was added"
        different = {name: value for name, value in self.in_force.items() if value != self.made_from.get(name)}
        return "\n       ".join(Change(EDIT, self.key, different, self.made_from).words())


def changes(
    current: Routing,
    wanted: Routing,
    covers: Collection[tuple[str, str]],
    renamed: Sequence[tuple[Key, str]] = (),
) -> list[Change]:
    """What makes ``current`` into ``wanted``, in an order in which each step finds what it needs.

    :param covers: (kind, company) of the lists that are whole in ``wanted``: what is missing in them is removed.
        Companies never are
    :param renamed: things that go on under another name, companies first
    """
    found: list[Change] = []
    now: dict[Key, Values] = dict(current)
    for key, name in renamed:
        key = _renamed_company(key, found)
        field = "number" if key.kind == "number" else "name"
        found.append(Change(EDIT, key, {field: name}, now[key]))
        now = {_under(each, key, name): values for each, values in now.items()}
    gone = [key for key in now if key not in wanted and (key.kind, key.company) in covers and key.kind != "company"]
    # Numbers first, whom nothing needs: what comes may take their places.
    found += [Change(REMOVE, key, {}, now[key]) for key in gone if key.kind == "number"]
    for kind in KINDS:
        adds, edits = [], []
        for key in _ordered(kind, wanted):
            if key not in now:
                adds.append(Change(ADD, key, wanted[key], {}))
            elif different := {name: v for name, v in wanted[key].items() if now[key].get(name) != v}:
                edits.append(Change(EDIT, key, different, now[key]))
        # A new number may have a name that another one gives up; other things may need what is new.
        found += [*_names_free(edits, now), *adds] if kind == "number" else [*adds, *edits]
    for kind in reversed(KINDS):
        if kind != "number":
            last = [key for key in gone if key.kind == kind]
            found += [Change(REMOVE, key, {}, now[key]) for key in (reversed(_by_next(last, now)))]
    return found


def outcome(current: Routing, planned: Iterable[Change]) -> Routing:
    """The routing after changes."""
    found: dict[Key, Values] = dict(current)
    for change in planned:
        key = change.key
        if change.what == REMOVE:
            found.pop(key, None)
        else:
            found[key] = {**found.get(key, {}), **change.values}
    return found


def conflicts(made_from: Routing, current: Routing, planned: Iterable[Change]) -> list[Conflict]:
    """Planned changes of what somebody else changed since."""
    keys = [change.key for change in planned]
    return [
        Conflict(key, made_from.get(key), current.get(key))
        for key in dict.fromkeys(keys)
        if made_from.get(key) != current.get(key)
    ]


def _renamed_company(key: Key, done: Sequence[Change]) -> Key:
    for change in done:
        if change.key.kind == "company" and change.key.name == key.company:
            return key._replace(company=str(change.values["name"]))
    return key


def _under(each: Key, renamed: Key, name: str) -> Key:
    if each == renamed:
        return each._replace(name=name)
    if renamed.kind == "company" and each.company == renamed.name:
        return each._replace(company=name)
    return each


def _ordered(kind: str, wanted: Routing) -> list[Key]:
    keys = [key for key in wanted if key.kind == kind]
    return _by_next(keys, wanted) if kind == "trunk" else keys


def _by_next(keys: Sequence[Key], routing: Mapping[Key, Values]) -> list[Key]:
    """Trunks after those that they are followed by, so that each finds its next one, and no circle is closed."""
    found: list[Key] = []
    known = set(keys)

    def visit(key: Key, seen: tuple[Key, ...]) -> None:
        following = Key(key.kind, "", str(routing[key].get("next_trunk")))
        if key.kind == "trunk" and following in known and following not in seen:
            visit(following, (*seen, following))
        if key not in found:
            found.append(key)

    for key in keys:
        visit(key, (key,))
    return found


def _names_free(edits: list[Change], now: Mapping[Key, Values]) -> Iterator[Change]:
    """Numbers that take each other's names: one that stands in the way is called something else meanwhile."""
    taken: dict[tuple[str, Any], Key] = {
        (key.company, values["name"]): key for key, values in now.items() if key.kind == "number"
    }
    later = {change.key for change in edits if "name" in change.values}
    for change in edits:
        if "name" in change.values:
            holder = taken.get((change.key.company, change.values["name"]))
            if holder is not None and holder in later and holder != change.key:
                aside = f"was-{holder.name.lstrip('+')}"
                yield Change(EDIT, holder, {"name": aside}, now[holder])
            later.discard(change.key)
        yield change
