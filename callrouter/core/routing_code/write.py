"""Writing a routing as the text that people read and change, and what that text may hold, as a JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from callrouter.core.flow.source import compose
from callrouter.core.model import Member
from callrouter.core.routing_code.fields import FIELDS, NONE, SECTIONS, Field, Key, Routing, price
from callrouter.core.routing_code.read import FORMAT, MAX_CHARS
from callrouter.core.trunks import default_port
from callrouter.errors import FlowError

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./@-]*(?: [A-Za-z0-9][A-Za-z0-9_./@-]*)*|sips?:[A-Za-z0-9_.@:+-]+[A-Za-z0-9]")
_WORDS = frozenset({"yes", "no", "on", "off", "true", "false", "null", "y", "n"})
"""What a reader of YAML may take for something else than text."""
_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f-\xa0\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]')


def write_routing(routing: Routing, version: int | None) -> str:
    """A routing as a file that ``read_routing`` reads as the very same.

    :param routing: with every field, as it is in force
    :param version: the configuration that it is; None: it is not written
    """
    return "\n".join(_lines(routing, version)) + "\n"


def _lines(routing: Routing, version: int | None) -> Iterator[str]:
    yield "# The routing. callrouter routing check FILE proves it, callrouter routing apply FILE puts it in force."
    yield f"format: {FORMAT}"
    if version is not None:
        yield f"version: {version}"
    trunks = _of(routing, "trunk", "")
    if trunks:
        yield "\ntrunks:"
        for key, values in trunks.items():
            yield f"  {scalar(key.name)}:"
            yield from _fields("trunk", values, "    ")
    companies = _of(routing, "company", "")
    if companies:
        yield "\ncompanies:"
    for key, values in companies.items():
        yield f"  {scalar(key.name)}:"
        yield from _fields("company", values, "    ")
        for section, kind in SECTIONS.items():
            things = _of(routing, kind, key.name)
            yield f"    {section}:" if things else f"    {section}: {{}}"
            for thing, given in things.items():
                if kind == "flow":
                    yield from _flow(thing.name, str(given["text"]))
                else:
                    inline = ", ".join(line.strip() for line in _fields(kind, given, ""))
                    yield f"      {scalar(thing.name)}: {{{inline}}}"


def _of(routing: Routing, kind: str, company: str) -> dict[Key, Mapping[str, Any]]:
    return {key: values for key, values in sorted(routing.items()) if (key.kind, key.company) == (kind, company)}


def _fields(kind: str, values: Mapping[str, Any], indent: str) -> Iterator[str]:
    """Fields that are not at their defaults, and those that would stay as they are if they were left out."""
    usual = default_port(values["transport"]) if kind == "trunk" else None
    for field in FIELDS[kind]:
        default = usual if field.name == "port" else field.default
        if field.name in values and (field.stays or field.needed or values[field.name] != default):
            yield f"{indent}{field.name}: {_value(field, values[field.name])}"


def _value(field: Field, value: Any) -> str:
    match value:
        case None:
            return NONE
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"{value:g}" if isinstance(value, float) else str(value)
        case tuple() if field.name == "rates":
            return "{" + ", ".join(f"{scalar(prefix)}: {price(micros)}" for prefix, micros in value) + "}"
        case tuple():
            return "[" + ", ".join(_member(each) if isinstance(each, Member) else scalar(each) for each in value) + "]"
    return scalar(str(value))


def _member(member: Member) -> str:
    """A member of a group; the short way where only its name is said."""
    more = [
        f"{name}: {value}"
        for name, value, usual in (
            ("ring_seconds", member.ring_seconds, None),
            ("weight", member.weight, 1),
            ("tier", member.tier, 1),
        )
        if value != usual
    ]
    name = scalar(member.target)
    return "{" + ", ".join([f"target: {name}", *more]) + "}" if more else name


def scalar(text: str) -> str:
    """Text as YAML that every reader of YAML takes for just that text."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + _ESCAPED.sub(lambda found: _escape(found[0]), text) + '"'


def _escape(char: str) -> str:
    return {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}.get(char, f"\\u{ord(char):04x}")


def _flow(name: str, text: str) -> Iterator[str]:
    """A flow's text as a block, so that it stays as it was written; quoted where a block cannot hold it."""
    indent = " " * 8
    chomping = "" if text.endswith("\n") and not text.endswith("\n\n") else "+" if text.endswith("\n") else "-"
    first = next((line for line in text.split("\n") if line.strip()), "")
    begins = "2" if first.startswith(" ") or text.startswith("\n") else ""
    block = [f"      {scalar(name)}: |{begins}{chomping}"]
    block += [f"{indent}{line}" if line else "" for line in text.removesuffix("\n").split("\n")]
    try:
        node = compose("\n".join([*block, ""]), MAX_CHARS)
    except FlowError:
        node = None
    held = isinstance(node, yaml.MappingNode) and node.value[0][1].value == text
    yield from block if held else [f"      {scalar(name)}: {scalar(text)}"]


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a routing file; editors complete and check by it."""
    flow = {
        "description": "A flow: YAML with start and nodes, or a block of text (|) that holds it.",
        "type": ["string", "object"],
    }
    company = _thing("company")
    for section, kind in SECTIONS.items():
        company["properties"][section] = {
            "description": f"All {section} of the company: those that are not here are removed.",
            "type": ["object", "null"],
            "additionalProperties": flow if kind == "flow" else _thing(kind),
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "callrouter routing",
        "type": "object",
        "required": ["format"],
        "additionalProperties": False,
        "properties": {
            "format": {"const": FORMAT},
            "version": {
                "description": "The configuration that the file was made from; apply refuses what was changed since.",
                "type": "integer",
                "minimum": 0,
            },
            "trunks": {
                "description": "All trunks: those that are not here are removed. Without it they stay as they are.",
                "type": ["object", "null"],
                "additionalProperties": _thing("trunk"),
            },
            "companies": {
                "description": "Companies that are not here stay as they are.",
                "type": "object",
                "additionalProperties": company,
            },
        },
    }


def _thing(kind: str) -> dict[str, Any]:
    properties = {}
    for field in FIELDS[kind]:
        about = [field.about] if field.about else []
        about += ["Left out, it stays as it is."] if field.stays else []
        known: dict[str, Any] = {"description": " ".join(about)} if about else {}
        if field.default not in (None, ()):
            known["default"] = field.default
        properties[field.name] = {**known, **field.schema}
    needed = [field.name for field in FIELDS[kind] if field.needed]
    return {"type": "object", "required": needed, "additionalProperties": False, "properties": properties}
