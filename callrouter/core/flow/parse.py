"""A flow's YAML text, parsed once into frozen nodes.

title: Front desk
start: greet
nodes:
  greet: {type: menu, prompt: "For sales press 1.", options: {1: sales}, on_exhausted: sales}
  sales: {type: dial, target: ana, on_busy: vm, on_no_answer: vm, on_failed: vm}
  vm:    {type: voicemail, greeting: "Please leave a message.", on_failed: bye}
  bye:   {type: hangup}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import yaml

from callrouter.core.flow import languages
from callrouter.core.flow import nodes as n
from callrouter.core.flow import parse_branches as branches
from callrouter.core.flow.names import MAX_VALUE, NODE_NAME, VALUE
from callrouter.core.flow.parse_webhook import webhook
from callrouter.core.flow.source import (
    Fields,
    compose,
    fail,
    items,
    one_of,
    recording,
    scalar,
    seconds,
    suggest,
    truth,
    whole,
    words,
)
from callrouter.core.hours import check_hours
from callrouter.core.model import RecordingPolicy
from callrouter.errors import InputError

MAX_NODES = 200
MAX_ENTRY = 64
"""Digits of an entry."""
DIGITS = "0123456789*#"
REPEAT = "repeat"
CONSENT_DIGITS = {n.ConsentMode.OPT_IN: "1", n.ConsentMode.OPT_OUT: "9"}
"""The keys that agree and refuse, where a flow names no other."""


def are_keys(text: str) -> bool:
    """Whether a text is one key of a telephone or several."""
    return bool(text) and set(text) <= set(DIGITS)


def parse_flow(text: str, name: str) -> n.Flow:
    """Parse a flow.

    :param text: YAML
    :param name: the flow's name
    :raises FlowError: with line and column: not YAML, an unknown field or type, an exit to a node that is not there
    """
    root = Fields(compose(text), "a flow")
    title = root.get("title", words, "")
    node_fields = root.need("nodes", lambda value, _: Fields(value, "nodes"))
    flow_nodes = {key: _node(key, value) for key, value in node_fields}
    if not flow_nodes:
        raise fail(node_fields.node, "a flow needs at least one node")
    if len(flow_nodes) > MAX_NODES:
        raise fail(node_fields.node, f"a flow has at most {MAX_NODES} nodes, this one {len(flow_nodes)}")
    start = root.need("start", scalar)
    root.done()
    if start not in flow_nodes:
        raise fail(root.node_of("start"), f"start names {start!r}, which is no node", suggest(start, list(flow_nodes)))
    for key, value in node_fields:
        for outcome, to in n.exits(flow_nodes[key]):
            if to is not None and to not in flow_nodes:
                raise fail(
                    _exit_node(value, to),
                    f"node {key!r}: its exit {outcome!r} goes to {to!r}, which is no node",
                    suggest(to, list(flow_nodes)),
                )
    return n.Flow(name=name, start=start, nodes=flow_nodes, title=title)


def _exit_node(node: yaml.Node, to: str) -> yaml.Node:
    """The scalar that names ``to``, to point at."""
    names, rest = [], [node]
    while rest:
        each = rest.pop(0)
        match each:
            case yaml.ScalarNode() if each.value == to:
                return each
            case yaml.SequenceNode():
                rest += each.value
            case yaml.MappingNode():
                names += [key for key, _ in each.value if key.value == to]
                rest += [value for _, value in each.value]
    return names[0] if names else node


def _node(name: str, value: yaml.Node) -> n.Node:
    if name == REPEAT:
        raise fail(value, f"{REPEAT!r} is no node name: it means to ask again", "call the node something else")
    if not NODE_NAME.fullmatch(name):
        raise fail(value, f"{name!r} is no node name", "use small letters, digits, - and _, like after-hours")
    fields = Fields(value, f"node {name!r}")
    kind = fields.need("type", one_of(tuple(_READERS)))
    node = _READERS[kind](fields)
    fields.done()
    return node


# Every reader asks for all of its fields before anything can fail on a missing exit, so that an unknown field is
# reported with the full list of known ones.


def _prompts(node: yaml.Node, name: str) -> n.Prompts:
    return tuple(_prompt(item, name) for item in items(node, name))


def _prompt(node: yaml.Node, name: str) -> n.Prompt:
    fields = Fields(node, name) if isinstance(node, yaml.MappingNode) else ()
    if not languages.are_languages(key for key, _ in fields):
        return _text_or_file(node, name)
    first, *others = (replace(_text_or_file(value, key), language=key) for key, value in fields)
    return replace(first, others=tuple(others))


def _text_or_file(node: yaml.Node, name: str) -> n.Prompt:
    if isinstance(node, yaml.ScalarNode):
        return n.Prompt(text=words(node, name))
    fields = Fields(node, name)
    text = fields.get("text", words, "")
    file = fields.get("file", words, "")
    fields.done()
    if bool(text) == bool(file):
        raise fail(node, f"{name} needs one of text (to be spoken) or file (an uploaded prompt)")
    return n.Prompt(text=text or None, file=file or None)


def _optional(value: str) -> str | None:
    return value or None


def _play(f: Fields) -> n.Play:
    prompts, following = f.need("prompt", _prompts), f.need("next", scalar)
    return n.Play(prompts, next=following, on_failed=f.get("on_failed", scalar, following))


def _menu(f: Fields) -> n.Menu:
    return n.Menu(
        prompts=f.need("prompt", _prompts),
        options=f.need("options", _options),
        on_exhausted=f.need("on_exhausted", scalar),
        on_timeout=_repeat(f.get("on_timeout", scalar, "")),
        on_invalid=_repeat(f.get("on_invalid", scalar, "")),
        invalid_prompts=f.get("invalid_prompt", _prompts, ()),
        timeout=f.get("timeout", seconds(0.5, 60), 5.0),
        max_tries=f.get("max_tries", whole(1, 20), 3),
        barge_in=f.get("barge_in", truth, True),
    )


def _gather(f: Fields) -> n.Gather:
    node = n.Gather(
        prompts=f.need("prompt", _prompts),
        name=f.need("name", _entry_name),
        next=f.need("next", scalar),
        on_exhausted=f.need("on_exhausted", scalar),
        on_timeout=_repeat(f.get("on_timeout", scalar, "")),
        on_invalid=_repeat(f.get("on_invalid", scalar, "")),
        invalid_prompts=f.get("invalid_prompt", _prompts, ()),
        min_digits=f.get("min", whole(1, MAX_ENTRY), 1),
        max_digits=f.get("max", whole(1, MAX_ENTRY), 32),
        terminator=f.get("terminator", one_of(("#", "*", "")), "#"),
        timeout=f.get("timeout", seconds(0.5, 60), 5.0),
        between=f.get("between", seconds(0.5, 60), 3.0),
        max_tries=f.get("max_tries", whole(1, 20), 3),
        sensitive=f.get("sensitive", truth, False),
    )
    if node.min_digits > node.max_digits:
        raise fail(f.node_of("min"), f"min is {node.min_digits}, more than max, which is {node.max_digits}")
    return node


def _entry_name(node: yaml.Node, name: str) -> str:
    text = words(node, name)
    if not NODE_NAME.fullmatch(text):
        raise fail(node, f"{text!r} is no name of an entry", "use small letters, digits, - and _, like account-number")
    return text


def _repeat(value: str) -> str | None:
    """ "repeat" says in words what leaving the field out means: ask again."""
    return None if value in ("", REPEAT) else value


def _options(node: yaml.Node, name: str) -> tuple[tuple[str, str], ...]:
    choices = Fields(node, name)
    pairs = []
    for digit, to in choices:
        if len(digit) != 1 or digit not in DIGITS:
            raise fail(to, f"{digit!r} is no key of a telephone", "options are 0-9, * or # (write '#' in quotes)")
        pairs.append((digit, words(to, f"option {digit}")))
    if not pairs:
        raise fail(node, "options is empty")
    return tuple(pairs)


def _consent(f: Fields) -> n.Consent:
    mode = n.ConsentMode(f.need("mode", one_of(tuple(n.ConsentMode))))
    prompts, agreed = f.need("prompt", _prompts), f.need("on_agreed", scalar)
    if mode is n.ConsentMode.ANNOUNCE:
        return n.Consent(prompts, mode, agreed, agreed, on_failed=f.get("on_failed", scalar, agreed))
    refused = f.need("on_refused", scalar)
    return n.Consent(
        prompts=prompts,
        mode=mode,
        on_agreed=agreed,
        on_refused=refused,
        on_failed=f.get("on_failed", scalar, refused),
        digit=f.get("digit", one_of(tuple(DIGITS)), CONSENT_DIGITS[mode]),
        timeout=f.get("timeout", seconds(0.5, 60), 5.0),
    )


def _dial(f: Fields) -> n.Dial:
    ring = f.get("ring", whole(1, 600), 0)
    whisper: str | None = f.get("whisper", scalar, None)
    target, group = f.get("target", words, ""), f.get("group", words, "")
    node = n.Dial(
        target=target,
        group=group or None,
        on_busy=f.need("on_busy", scalar),
        on_no_answer=f.need("on_no_answer", scalar),
        on_failed=f.need("on_failed", scalar),
        on_answered=_optional(f.get("on_answered", scalar, "")),
        ring_seconds=ring or None,
        whisper=whisper,
        record=f.get("record", recording, RecordingPolicy.INHERIT),
        music=f.get("caller_hears", one_of(("ringing", "music")), "ringing") == "music",
    )
    if bool(target) == bool(group):
        raise fail(f.node, f"{f.what} needs one of target and group", "target: ana rings one, group: sales several")
    return node


def _hours(f: Fields) -> n.Hours:
    zone = f.get("timezone", words, "")
    text = f.need("open", words)
    for field, hours in (("timezone", "24/7"), ("open", text)):
        try:
            check_hours(hours, zone or "UTC")
        except InputError as exc:
            raise fail(f.node_of(field), exc.message, exc.hint) from exc
    return n.Hours(
        open=text, on_open=f.need("on_open", scalar), on_closed=f.need("on_closed", scalar), timezone=zone or None
    )


def _voicemail(f: Fields) -> n.Voicemail:
    return n.Voicemail(
        prompts=f.get("greeting", _prompts, ()),
        on_failed=f.need("on_failed", scalar),
        on_done=_optional(f.get("on_done", scalar, "")),
        max_seconds=f.get("max_seconds", whole(1, 3600), 120),
        silence_seconds=f.get("silence_seconds", whole(0, 60), 5),
        beep=f.get("beep", truth, True),
        finish_on=f.get("finish_on", one_of(("#", "*", "any", "")), "#"),
    )


def _tag(f: Fields) -> n.Tag:
    return n.Tag(tags=f.need("tags", branches.tag_names), next=f.need("next", scalar))


def _set(f: Fields) -> n.Set:
    node = n.Set(
        next=f.need("next", scalar),
        values=f.get("values", _values, ()),
        language=f.get("language", _language, "") or None,
    )
    if not node.values and node.language is None:
        raise fail(f.node, f"{f.what} needs values or language", "for example language: es, or values: {source: tv}")
    return node


def _values(node: yaml.Node, name: str) -> tuple[tuple[str, str], ...]:
    found = []
    for key, value in Fields(node, name):
        text = words(value, key)
        if not NODE_NAME.fullmatch(key):
            raise fail(value, f"{key!r} is no name of a value", "use small letters, digits, - and _, like lead-source")
        if not VALUE.fullmatch(text):
            raise fail(value, f"the value of {key!r} is too long", f"up to {MAX_VALUE} characters, on one line")
        found.append((key, text))
    return tuple(found)


def _language(node: yaml.Node, name: str) -> str:
    try:
        return languages.check_language(words(node, name))
    except InputError as exc:
        raise fail(node, exc.message, exc.hint) from exc


def _goto_flow(f: Fields) -> n.GotoFlow:
    return n.GotoFlow(flow=f.need("flow", words), node=_optional(f.get("node", words, "")))


def _hangup(f: Fields) -> n.Hangup:
    return n.Hangup(cause=f.get("cause", one_of(tuple(n.HANGUP_CAUSES)), "normal"))


_READERS: dict[str, Callable[[Fields], n.Node]] = {
    "play": _play,
    "menu": _menu,
    "gather": _gather,
    "consent": _consent,
    "dial": _dial,
    "hours": _hours,
    "split": branches.split,
    "caller": branches.caller,
    "geo": branches.geo,
    "voicemail": _voicemail,
    "tag": _tag,
    "set": _set,
    "goto_flow": _goto_flow,
    "webhook": webhook,
    "hangup": _hangup,
}

NODE_TYPES: tuple[str, ...] = tuple(_READERS)
