"""Reading a routing file, with the place of everything in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from callrouter.core import phone
from callrouter.core.flow.parse import parse_flow
from callrouter.core.flow.source import Fields, compose, fail, whole, words
from callrouter.core.routing_code.fields import FIELDS, KINDS, SECTIONS, Key, Routing, complete
from callrouter.errors import FlowError, InputError

FORMAT = 1
MAX_CHARS = 20_000_000
Place = tuple[int, int]
"""Line and column, 1-based."""


@dataclass(frozen=True, slots=True)
class Document:
    """A routing file, read."""

    routing: Routing
    covers: frozenset[tuple[str, str]]
    """(kind, company) of the lists that the file has, and that are whole in it."""
    version: int | None
    """The configuration it was made from."""
    version_place: Place | None
    places: Mapping[tuple[Key, str], Place]
    """Of each thing (field "") and each of its fields."""
    texts: Mapping[Key, Place]
    """Where the texts of flows begin, that are read as they stand: line of their first line, and what is before it."""

    def place(self, key: Key, field: str = "") -> Place | None:
        return self.places.get((key, field)) or self.places.get((key, ""))

    def wrong(self, key: Key, error: InputError | str, field: str = "", hint: str | None = None) -> FlowError:
        """An error about a thing, with its place."""
        line, column = self.place(key, field) or (None, None)
        message = error if isinstance(error, str) else error.message
        return FlowError(
            f"{key}: {message}", line=line, column=column, hint=hint if isinstance(error, str) else error.hint
        )

    def inside(self, key: Key, error: FlowError) -> FlowError:
        """An error in a flow's text, with its place in the file."""
        start = self.texts.get(key)
        if start is None or error.line is None or error.column is None:
            return self.wrong(key, error, "text")
        message = error.message.removeprefix(f"line {error.line}, column {error.column}: ")
        line, column = start[0] + error.line - 1, start[1] + error.column
        return FlowError(f"{key}: {message}", line=line, column=column, hint=error.hint)


def read_routing(text: str) -> Document:
    """Read a routing file.

    :raises FlowError: with line and column: not YAML, an unknown field, a flow that does not hold together …
    """
    return _Reader(text).document()


class _Reader:
    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.root = Fields(
            compose(text, MAX_CHARS, "a routing file has companies; begin with: callrouter routing export"),
            "a routing file",
        )
        self.routing: dict[Key, dict[str, Any]] = {}
        self.covers: set[tuple[str, str]] = set()
        self.places: dict[tuple[Key, str], Place] = {}
        self.texts: dict[Key, Place] = {}

    def document(self) -> Document:
        root = self.root
        form = root.need("format", whole(1, 999_999))
        if form != FORMAT:
            raise fail(root.node_of("format"), f"this callrouter reads format {FORMAT}, not {form}")
        version: int | None = root.get("version", whole(0, 999_999_999), None)
        trunks: yaml.Node | None = root.get("trunks", lambda node, _: node, None)
        companies: yaml.Node | None = root.get("companies", lambda node, _: node, None)
        root.done()
        if trunks is not None:
            self._things("trunk", "", trunks, "trunks")
        if companies is not None:
            for name, node in Fields(companies, "companies"):
                self._company(name, node)
        order = {kind: place for place, kind in enumerate(KINDS)}
        routing = dict(sorted(self.routing.items(), key=lambda item: (order[item[0].kind], item[0])))
        place = _place(root.node_of("version")) if version is not None else None
        return Document(routing, frozenset(self.covers), version, place, self.places, self.texts)

    def _company(self, name: str, node: yaml.Node) -> None:
        key = Key("company", "", name)
        fields = Fields(node, f"company {name!r}")
        sections: dict[str, yaml.Node | None] = {
            section: fields.get(section, lambda value, _: value, None) for section in SECTIONS
        }
        self._put(key, fields)
        for section, kind in SECTIONS.items():
            found = sections[section]
            if found is not None:
                self._things(kind, name, found, section)

    def _things(self, kind: str, company: str, node: yaml.Node, what: str) -> None:
        self.covers.add((kind, company))
        if isinstance(node, yaml.SequenceNode) and not node.value:
            return  # "[]", as an empty list is often written
        for name, value in Fields(node, what):
            if kind == "flow":
                self._flow(Key(kind, company, name), value)
                continue
            key = Key(kind, company, name)
            if kind == "number":
                key = Key(kind, company, self._e164(value, company, name))
                if key in self.routing:
                    raise fail(value, f"{key.name} is there twice")
            self._put(key, Fields(value, f"{kind} {name!r}"))
            if kind == "target" and (dialled := self.routing[key].get("number")):
                self.routing[key]["number"] = self._e164(self._node(value, "number"), company, dialled)
            if kind == "trunk" and (fixed := self.routing[key].get("fixed_caller_id")):
                country = self.routing[key]["country"]
                self.routing[key]["fixed_caller_id"] = self._number(
                    self._node(value, "fixed_caller_id"), country, fixed
                )

    def _node(self, value: yaml.Node, field: str) -> yaml.Node:
        return Fields(value, "").node_of(field)

    def _e164(self, node: yaml.Node, company: str, text: str) -> str:
        country = self.routing[Key("company", "", company)]["country"]
        return self._number(node, str(country), text)

    def _number(self, node: yaml.Node, country: str, text: str) -> str:
        try:
            return phone.normalize(text, country)
        except InputError as exc:
            raise fail(node, exc.message, exc.hint) from exc

    def _put(self, key: Key, fields: Fields) -> None:
        missing = object()
        given: dict[str, Any] = {}
        for field in FIELDS[key.kind]:
            value = fields.need(field.name, field.read) if field.needed else fields.get(field.name, field.read, missing)
            if value is not missing:
                given[field.name] = value
        fields.done()
        self.routing[key] = complete(key.kind, given)
        self.places[key, ""] = _place(fields.node)
        for name, node in fields:
            self.places[key, name] = _place(node)

    def _flow(self, key: Key, node: yaml.Node) -> None:
        """A flow as a block of text (|), or as YAML within the file, which is taken as it stands, comments too."""
        self.places[key, ""] = self.places[key, "text"] = _place(node)
        if isinstance(node, yaml.ScalarNode):
            words(node, str(key))
            text = str(node.value)
            if node.style == "|":
                first = node.start_mark.line + 1
                body = next((line for line in text.split("\n") if line.strip()), "")
                raw = next((line for line in self.lines[first:] if line.strip()), "")
                self.texts[key] = (first + 1, len(raw) - len(raw.lstrip(" ")) - (len(body) - len(body.lstrip(" "))))
        elif isinstance(node, yaml.MappingNode):
            text = self._slice(node)
            self.texts[key] = (node.start_mark.line + 1, node.start_mark.column)
        else:
            raise fail(node, f"{key} must be a flow: YAML with start and nodes, or a block of text after |")
        self.routing[key] = {"text": text}
        try:
            parse_flow(text, key.name)
        except FlowError as exc:
            document = Document({}, frozenset(), None, None, self.places, self.texts)
            raise document.inside(key, exc) from exc

    def _slice(self, node: yaml.MappingNode) -> str:
        """The source of a mapping, its indentation taken away."""
        start, end = node.start_mark, node.end_mark
        if node.flow_style:
            lines = self.lines[start.line : end.line + 1]
            lines[-1] = lines[-1][: end.column]
            return "\n".join([lines[0][start.column :], *lines[1:]]) + "\n"
        taken: list[str] = []
        for line in [self.lines[start.line][start.column :], *self.lines[start.line + 1 : end.line + 1]]:
            if taken and line.strip() and not line.startswith(" " * start.column):
                break
            taken.append(line if not taken else line[start.column :])
        return "\n".join(taken).rstrip() + "\n"


def _place(node: yaml.Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1
