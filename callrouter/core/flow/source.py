"""Reading YAML with positions: scalars as the text that was written, every error with line and column.

YAML's own guesses ("no" is False, 010 is 8, 12:30 is 750) never apply: a field says what it wants, and the text
is read as that.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import yaml

from callrouter.core.model import RecordingPolicy
from callrouter.errors import FlowError

T = TypeVar("T")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
MAX_CHARS = 200_000
MAX_DEPTH = 20
_FLOW_HINT = "a flow has start and nodes; see the guide 'your first flow'"


def compose(text: str, most: int = MAX_CHARS, hint: str = _FLOW_HINT) -> yaml.Node:
    """The YAML document as nodes with positions.

    :param most: characters that are read
    :param hint: what an empty text should hold
    :raises FlowError: not YAML, empty, too large, or using aliases
    """
    if len(text) > most:
        raise FlowError(f"the text has {len(text)} characters; at most {most} are read")
    bad = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if bad is not None:
        at_line, at_column = _position(text, bad.start())
        raise FlowError(f"this is not YAML: it holds the character {bad[0]!r}", line=at_line, column=at_column)
    try:
        _check_depth(text)
        root = yaml.compose(text, Loader=_LOADER)
        tokens = yaml.scan(text, Loader=_LOADER)
        alias = next((token for token in tokens if isinstance(token, yaml.AliasToken)), None)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise FlowError(f"this is not YAML: {exc.problem}", line=line, column=column) from exc
    except yaml.YAMLError as exc:
        raise FlowError(f"this is not YAML: {exc}") from exc
    if alias is not None:
        mark = alias.start_mark
        raise FlowError("aliases (*name) are not read", line=mark.line + 1, column=mark.column + 1)
    if root is None:
        raise FlowError("the text is empty", hint=hint)
    return root


def _check_depth(text: str) -> None:
    """Refuse what is nested deeper than any flow: the composer calls itself, a deep text would exhaust its stack."""
    depth = 0
    for token in yaml.scan(text, Loader=_LOADER):
        if isinstance(token, _OPENING):
            depth += 1
        elif isinstance(token, _CLOSING):
            depth -= 1
        if depth > MAX_DEPTH:
            mark = token.start_mark
            raise FlowError(f"nested deeper than {MAX_DEPTH} levels", line=mark.line + 1, column=mark.column + 1)


def _position(text: str, index: int) -> tuple[int, int]:
    """Line and column, 1-based, of an index in a text."""
    breaks = list(_BREAK.finditer(text, 0, index))
    return len(breaks) + 1, index - (breaks[-1].end() if breaks else 0) + 1


def fail(node: yaml.Node, message: str, hint: str | None = None) -> FlowError:
    """A FlowError that points at a YAML node."""
    mark = node.start_mark
    return FlowError(message, line=mark.line + 1, column=mark.column + 1, hint=hint)


def suggest(word: str, known: Sequence[str]) -> str | None:
    """A hint naming the nearest known word, or all of them."""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(known) if known else None


class Fields:
    """A YAML mapping that is read field by field; ``done`` refuses what was not asked for."""

    def __init__(self, node: yaml.Node, what: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            raise fail(node, f"{what} must be a mapping of names to values")
        self.node = node
        self.what = what
        self._asked: list[str] = []
        self._values: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = scalar(key, "a name")
            if name in self._values:
                raise fail(key, f"{what} has {name!r} twice")
            self._values[name] = value

    def __iter__(self) -> Iterator[tuple[str, yaml.Node]]:
        return iter(self._values.items())

    def node_of(self, name: str) -> yaml.Node:
        """The value's node (for errors); the mapping itself when the field is absent."""
        return self._values.get(name, self.node)

    def get(self, name: str, read: Callable[[yaml.Node, str], T], default: T) -> T:
        self._asked.append(name)
        value = self._values.get(name)
        return default if value is None or _is_null(value) else read(value, name)

    def need(self, name: str, read: Callable[[yaml.Node, str], T]) -> T:
        self._asked.append(name)
        value = self._values.get(name)
        if value is None or _is_null(value):
            near = difflib.get_close_matches(name, [key for key in self._values if key not in self._asked], n=1)
            raise fail(self.node, f"{self.what} needs {name!r}", f"did you mean it by {near[0]!r}?" if near else None)
        return read(value, name)

    def done(self) -> None:
        for key, _ in self.node.value:
            name = scalar(key, "a name")
            if name not in self._asked:
                raise fail(key, f"{self.what} has no field {name!r}", suggest(name, self._asked))


def _is_null(node: yaml.Node) -> bool:
    # A plain scalar's style is None or "", as the loader is YAML's own or libyaml.
    return isinstance(node, yaml.ScalarNode) and not node.style and node.value in ("", "~", "null")


def scalar(node: yaml.Node, name: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise fail(node, f"{name} must be a single value")
    return str(node.value).strip()


def words(node: yaml.Node, name: str) -> str:
    """Text that must not be empty."""
    value = scalar(node, name)
    if not value:
        raise fail(node, f"{name} is empty")
    return value


def whole(low: int, high: int) -> Callable[[yaml.Node, str], int]:
    def read(node: yaml.Node, name: str) -> int:
        text = scalar(node, name)
        if not (text.isascii() and text.isdigit() and len(text) <= 9 and low <= int(text) <= high):
            raise fail(node, f"{name} must be a whole number from {low} to {high}, not {text!r}")
        return int(text)

    return read


def seconds(low: float, high: float) -> Callable[[yaml.Node, str], float]:
    def read(node: yaml.Node, name: str) -> float:
        text = scalar(node, name)
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise fail(node, f"{name} must be seconds from {low:g} to {high:g}, not {text!r}")
        return value

    return read


def truth(node: yaml.Node, name: str) -> bool:
    text = scalar(node, name).lower()
    if text in ("yes", "true", "on"):
        return True
    if text in ("no", "false", "off"):
        return False
    raise fail(node, f"{name} must be yes or no, not {text!r}")


def recording(node: yaml.Node, name: str) -> RecordingPolicy:
    """One of the three words; yes and no are force and never."""
    text = scalar(node, name)
    return RecordingPolicy.of(text if text in list(RecordingPolicy) else truth(node, name))


def one_of(choices: Sequence[str]) -> Callable[[yaml.Node, str], str]:
    def read(node: yaml.Node, name: str) -> str:
        text = scalar(node, name)
        if text not in choices:
            raise fail(node, f"{name} cannot be {text!r}", suggest(text, choices))
        return text

    return read


def items(node: yaml.Node, name: str) -> list[yaml.Node]:
    """The members of a list, which must not be empty; a lone value is a list of one."""
    if not isinstance(node, yaml.SequenceNode):
        return [node]
    if not node.value:
        raise fail(node, f"{name} is empty")
    return list(node.value)
