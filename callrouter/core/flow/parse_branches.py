"""Reading the nodes that branch without asking the caller: ``split``, ``geo`` and ``caller``."""

from __future__ import annotations

import re

import yaml

from callrouter.core import phone
from callrouter.core.flow import nodes as n
from callrouter.core.flow.names import TAG
from callrouter.core.flow.source import Fields, fail, items, scalar, whole, words

PREFIX = re.compile(r"\+[1-9][0-9]{0,14}")
MAX_DAYS = 400
"""How long a caller is remembered."""
CODE = re.compile(r"[0-9]{1,10}")


def split(f: Fields) -> n.Split:
    """The fields of a ``split``.

    :raises FlowError: the percentages are not 100 together
    """
    branches = f.need("branches", _percentages)
    total = sum(percent for _, percent in branches)
    if total != 100:
        raise fail(f.node_of("branches"), f"the branches are {total} percent together, not 100")
    return n.Split(branches)


def _percentages(node: yaml.Node, name: str) -> tuple[tuple[str, int], ...]:
    return tuple((to, whole(1, 100)(percent, f"the percentage of {to}")) for to, percent in Fields(node, name))


def geo(f: Fields) -> n.Geo:
    """The fields of a ``geo``.

    :raises FlowError: no such country, no area code or prefix, an area that says nothing
    """
    areas: tuple[n.Area, ...] = f.need("areas", _areas)
    on_other = f.need("on_other", scalar)
    return n.Geo(areas, on_other, f.get("on_unknown", scalar, on_other))


def _areas(node: yaml.Node, name: str) -> tuple[n.Area, ...]:
    return tuple(_area(each) for each in items(node, name))


def _area(node: yaml.Node) -> n.Area:
    fields = Fields(node, "an area")
    none: tuple[str, ...] = ()
    found = n.Area(
        countries=fields.get("country", _countries, none),
        codes=fields.get("area_code", _codes, none),
        prefixes=fields.get("prefix", _prefixes, none),
        next=fields.need("next", scalar),
    )
    fields.done()
    if not (found.countries or found.codes or found.prefixes):
        raise fail(node, "an area needs country, area_code or prefix", 'for example country: [US, CA], prefix: "+4420"')
    return found


def _countries(node: yaml.Node, name: str) -> tuple[str, ...]:
    found = []
    for item in items(node, name):
        code = words(item, name).upper()
        if not phone.is_country(code):
            hint = "did you mean 'GB'?" if code == "UK" else "two letters of ISO 3166, like US, GB, DE"
            raise fail(item, f"{code!r} is no country", hint)
        found.append(code)
    return tuple(dict.fromkeys(found))


def _codes(node: yaml.Node, name: str) -> tuple[str, ...]:
    return _matching(node, name, CODE, "area code", "digits, like 212, or 20 for London")


def _prefixes(node: yaml.Node, name: str) -> tuple[str, ...]:
    return _matching(node, name, PREFIX, "prefix", 'with country code, like "+1212" or "+4420"')


def _matching(node: yaml.Node, name: str, shape: re.Pattern[str], what: str, hint: str) -> tuple[str, ...]:
    found = []
    for item in items(node, name):
        text = words(item, name)
        if not shape.fullmatch(text):
            raise fail(item, f"{text!r} is no {what}", hint)
        found.append(text)
    return tuple(dict.fromkeys(found))


def tag_names(node: yaml.Node, name: str) -> tuple[str, ...]:
    """Tags, none twice.

    :raises FlowError: one that is none
    """
    found = []
    for item in items(node, name):
        text = words(item, name)
        if not TAG.fullmatch(text):
            raise fail(item, f"{text!r} is no tag", "a tag is up to 63 characters on one line, without , and ;")
        found.append(text)
    return tuple(dict.fromkeys(found))


def caller(f: Fields) -> n.Caller:
    """The fields of a ``caller``.

    :raises FlowError: tags without on_known, or the reverse; on_other without within_days
    """
    first, repeat = f.need("on_first_time", scalar), f.need("on_repeat", scalar)
    days = f.get("within_days", whole(1, MAX_DAYS), 0)
    other, known = f.get("on_other", scalar, ""), f.get("on_known", scalar, "")
    tags: tuple[str, ...] = f.get("tags", tag_names, ())
    node = n.Caller(
        on_first_time=first,
        on_repeat=repeat,
        on_other=other or first,
        on_anonymous=f.get("on_anonymous", scalar, first),
        on_unknown=f.get("on_unknown", scalar, first),
        within_days=days or None,
        tags=tags,
        on_known=known or None,
    )
    if bool(tags) != bool(known):
        where = f.node_of("tags" if tags else "on_known")
        raise fail(where, "tags and on_known go together", "for example tags: [vip], on_known: ana")
    if other and not days:
        raise fail(f.node_of("on_other"), "on_other needs within_days: without it whoever called before is a repeat")
    return node
