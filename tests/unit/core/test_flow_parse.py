from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core.flow import nodes as n
from callrouter.core.flow.parse import MAX_NODES, NODE_TYPES, parse_flow
from callrouter.core.model import RecordingPolicy
from callrouter.errors import FlowError


def text(*nodes: str, start: str = "a") -> str:
    return "\n".join([f"start: {start}", "nodes:", *(f"  {node}" for node in nodes), "  bye: {type: hangup}", ""])


def first(node: str) -> n.Node:
    return parse_flow(text(f"a: {node}"), "desk").nodes["a"]


def said(*texts: str) -> n.Prompts:
    return tuple(n.Prompt(text=one) for one in texts)


@pytest.mark.parametrize(
    "written,node",
    [
        ("{type: play, prompt: Hi, next: bye}", n.Play(said("Hi"), "bye", "bye")),
        ("{type: play, prompt: Hi, next: bye, on_failed: a}", n.Play(said("Hi"), "bye", "a")),
        (
            "{type: play, prompt: [Hi, {file: jingle}, {text: there}], next: bye}",
            n.Play((n.Prompt(text="Hi"), n.Prompt(file="jingle"), n.Prompt(text="there")), "bye", "bye"),
        ),
        (
            "{type: menu, prompt: Press, options: {1: a, '#': bye, 0: bye}, on_exhausted: bye}",
            n.Menu(said("Press"), (("1", "a"), ("#", "bye"), ("0", "bye")), "bye"),
        ),
        (
            "{type: menu, prompt: P, options: {'*': a}, on_exhausted: bye, on_timeout: repeat, on_invalid: a, "
            "invalid_prompt: No, timeout: 2.5, max_tries: 1, barge_in: no}",
            n.Menu(said("P"), (("*", "a"),), "bye", None, "a", said("No"), 2.5, 1, False),
        ),
        (
            "{type: gather, prompt: Zip, name: zip, next: a, on_exhausted: bye}",
            n.Gather(said("Zip"), "zip", "a", "bye"),
        ),
        (
            "{type: gather, prompt: P, name: pin, next: a, on_exhausted: bye, on_timeout: repeat, on_invalid: a, "
            "invalid_prompt: No, min: 4, max: 6, terminator: '*', timeout: 4, between: 1.5, max_tries: 2, "
            "sensitive: yes}",
            n.Gather(said("P"), "pin", "a", "bye", None, "a", said("No"), 4, 6, "*", 4.0, 1.5, 2, True),
        ),
        (
            "{type: gather, prompt: P, name: pin, next: a, on_exhausted: bye, on_timeout: bye, terminator: ''}",
            n.Gather(said("P"), "pin", "a", "bye", "bye", terminator=""),
        ),
        (
            "{type: dial, target: ana, on_busy: bye, on_no_answer: a, on_failed: bye}",
            n.Dial("ana", "bye", "a", "bye"),
        ),
        (
            "{type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye, on_answered: a, ring: 40, "
            "whisper: 'From {campaign}', record: no, caller_hears: music}",
            n.Dial("ana", "bye", "bye", "bye", "a", 40, "From {campaign}", RecordingPolicy.NEVER, True),
        ),
        (
            "{type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye, whisper: '', record: yes}",
            n.Dial("ana", "bye", "bye", "bye", whisper="", record=RecordingPolicy.FORCE),
        ),
        ("{type: hours, open: 24/7, on_open: a, on_closed: bye}", n.Hours("24/7", "a", "bye")),
        (
            "{type: hours, open: 'Mo-Fr 08:00-18:00; PH off', timezone: Europe/Berlin, on_open: a, on_closed: bye}",
            n.Hours("Mo-Fr 08:00-18:00; PH off", "a", "bye", "Europe/Berlin"),
        ),
        ("{type: voicemail, on_failed: bye}", n.Voicemail((), "bye")),
        (
            "{type: voicemail, greeting: Hi, on_failed: bye, on_done: a, max_seconds: 60, silence_seconds: 0, "
            "beep: off, finish_on: ''}",
            n.Voicemail(said("Hi"), "bye", "a", 60, 0, False, ""),
        ),
        ("{type: tag, tags: [a b, lead, lead], next: bye}", n.Tag(("a b", "lead"), "bye")),
        ("{type: tag, tags: lead, next: bye}", n.Tag(("lead",), "bye")),
        ("{type: goto_flow, flow: night}", n.GotoFlow("night")),
        ("{type: goto_flow, flow: support, node: menu}", n.GotoFlow("support", "menu")),
        ("{type: hangup, cause: busy}", n.Hangup("busy")),
        ("{type: hangup}", n.Hangup("normal")),
    ],
)
def test_every_node_is_read_with_every_field(written, node):
    assert first(written) == node


def test_yamls_own_guesses_never_apply():
    flow = parse_flow(
        "start: no\nnodes:\n"
        "  no: {type: tag, tags: [yes, 010, 12:30, 1e3, null-ish], next: 010}\n"
        "  010: {type: hangup}\n",
        "desk",
    )
    assert flow.start == "no"
    assert flow.nodes["no"] == n.Tag(("yes", "010", "12:30", "1e3", "null-ish"), "010")


def test_title_and_name_are_kept():
    flow = parse_flow("title: Front desk\n" + text("a: {type: hangup}"), "desk")
    assert (flow.name, flow.title, flow.start, list(flow.nodes)) == ("desk", "Front desk", "a", ["a", "bye"])


def test_all_node_types_are_known():
    deciding = {"hours", "split", "geo", "caller", "tag", "set", "goto_flow", "webhook"}
    assert set(NODE_TYPES) == {"play", "menu", "gather", "consent", "dial", "voicemail", "hangup"} | deciding


GATHER = "type: gather, prompt: P, name: zip, next: bye, on_exhausted: bye"
DIAL = "type: dial, target: ana, on_busy: bye, on_no_answer: bye"


@pytest.mark.parametrize(
    "written,line,column,says,hint",
    [
        ("a: [1", 2, 1, "this is not YAML", None),
        ("start: a\nnodes: {a: {type: hangup}\n", 3, 1, "this is not YAML", None),
        ("a: b: c", 1, 5, "this is not YAML", None),
        ("- a", 1, 1, "a flow must be a mapping", None),
        ("hello", 1, 1, "a flow must be a mapping", None),
        ("start: a", 1, 1, "a flow needs 'nodes'", None),
        ("nodes: {a: {type: hangup}}", 1, 1, "a flow needs 'start'", None),
        ("start: a\nnodes: {}", 2, 8, "at least one node", None),
        ("start: a\nnodes: [a]", 2, 8, "nodes must be a mapping", None),
        ("start: a\nnodes: {a: hangup}", 2, 12, "node 'a' must be a mapping", None),
        ("start: b\nnodes: {ab: {type: hangup}}", 1, 8, "start names 'b'", "did you mean 'ab'?"),
        ("stat: a\nnodes: {a: {type: hangup}}", 1, 1, "a flow needs 'start'", "did you mean it by 'stat'?"),
        ("start: a\nextra: 1\nnodes: {a: {type: hangup}}", 2, 1, "a flow has no field 'extra'", "known:"),
        ("start: a\nnodes: {a: {type: hangup}, a: {type: hangup}}", 2, 28, "nodes has 'a' twice", None),
        (text("a: {type: hangupp}"), 3, 13, "type cannot be 'hangupp'", "did you mean 'hangup'?"),
        (text("a: {prompt: x}"), 3, 6, "node 'a' needs 'type'", None),
        (text("a: {type: hangup, cause: maybe}"), 3, 28, "cause cannot be 'maybe'", "known: normal"),
        (text("a: {type: hangup, why: x}"), 3, 21, "node 'a' has no field 'why'", "known: type, cause"),
        (text("A: {type: hangup}"), 3, 6, "'A' is no node name", "small letters"),
        (text("a: {type: play, prompt: x, next: b}"), 3, 36, "its exit 'next' goes to 'b'", None),
        (text("a: {type: play, prompt: x, next: bey}"), 3, 36, "its exit 'next' goes to 'bey'", "did you mean 'bye'?"),
        (text("a: {type: play, next: bye}"), 3, 6, "node 'a' needs 'prompt'", None),
        (text("a: {type: play, prompt: '', next: bye}"), 3, 27, "prompt is empty", None),
        (text("a: {type: play, prompt: {}, next: bye}"), 3, 27, "prompt needs one of text", None),
        (text("a: {type: play, prompt: {text: x, file: y}, next: bye}"), 3, 27, "prompt needs one of text", None),
        (text("a: {type: play, prompt: {say: x}, next: bye}"), 3, 28, "prompt has no field 'say'", "known:"),
        (text(f"a: {{{DIAL}}}"), 3, 6, "node 'a' needs 'on_failed'", None),
        (text(f"a: {{{DIAL}, on_failed: bye, ring: 0}}"), 3, 87, "ring must be a whole number from 1 to 600", None),
        (text(f"a: {{{DIAL}, on_failed: bye, ring: 000000000999}}"), 3, 87, "ring must be a whole number", None),
        (text(f"a: {{{DIAL}, on_failed: bye, ring: ٣}}"), 3, 87, "ring must be a whole number", None),
        (text(f"a: {{{DIAL}, on_failed: bye, record: maybe}}"), 3, 89, "record must be yes or no", None),
        (text(f"a: {{{DIAL}, on_failed: bye, caller_hears: jazz}}"), 3, 95, "caller_hears cannot be 'jazz'", "known:"),
        (text(f"a: {{{GATHER}, min: 6, max: 5}}"), 3, 78, "min is 6, more than max, which is 5", None),
        (text(f"a: {{{GATHER}, max: 65}}"), 3, 78, "max must be a whole number from 1 to 64", None),
        (text(f"a: {{{GATHER}, min: 0}}"), 3, 78, "min must be a whole number from 1 to 64", None),
        (text(f"a: {{{GATHER}, terminator: 5}}"), 3, 85, "terminator cannot be '5'", "known: #, *"),
        (text(f"a: {{{GATHER}, between: 0}}"), 3, 82, "between must be seconds from 0.5 to 60", None),
        (text(f"a: {{{GATHER}, sensitive: maybe}}"), 3, 84, "sensitive must be yes or no", None),
        (text(f"a: {{{GATHER}, sensitiv: yes}}"), 3, 73, "has no field 'sensitiv'", "did you mean 'sensitive'?"),
        (text("a: {type: gather, prompt: P, next: bye, on_exhausted: bye}"), 3, 6, "node 'a' needs 'name'", None),
        (text("a: {type: gather, prompt: P, name: Zip, next: bye, on_exhausted: bye}"), 3, 38, "'Zip' is no", "use"),
        (text("a: {type: gather, prompt: P, name: zip, next: bey, on_exhausted: bye}"), 3, 49, "exit 'gathered'", None),
        (text("a: {type: menu, prompt: x, options: {}, on_exhausted: bye}"), 3, 39, "options is empty", None),
        (text("a: {type: menu, prompt: x, options: {11: bye}, on_exhausted: bye}"), 3, 44, "'11' is no key", "0-9"),
        (text("a: {type: menu, prompt: x, options: {'': bye}, on_exhausted: bye}"), 3, 44, "'' is no key", "0-9"),
        (text("a: {type: menu, prompt: x, options: {1: b}, on_exhausted: bye}"),
         3, 43, "exit 'digit 1' goes to 'b'", None),
        (text("a: {type: menu, prompt: x, options: {1: a}, on_exhausted: bye, timeout: nan}"),
         3, 75, "timeout must be", None),
        (text("a: {type: menu, prompt: x, options: {1: a}, on_exhausted: bye, max_tries: -1}"),
         3, 77, "max_tries must", None),
        (text("a: {type: hours, open: Mo-Xx, on_open: a, on_closed: bye}"),
         3, 26, "cannot be read: at column", "write them"),
        (text("a: {type: hours, open: 24/7, timezone: X/Y, on_open: a, on_closed: bye}"),
         3, 42, "no time zone", "IANA"),
        (text("a: {type: voicemail, on_failed: bye, finish_on: x}"), 3, 51, "finish_on cannot be 'x'", "known:"),
        (text("a: {type: goto_flow}"), 3, 6, "node 'a' needs 'flow'", None),
        (text("a: {type: goto_flow, flow: ''}"), 3, 30, "flow is empty", None),
        (text("a: {type: goto_flow, flwo: night}"), 3, 6, "node 'a' needs 'flow'", "did you mean it by 'flwo'?"),
        (text("a: {type: goto_flow, flow: night, next: bye}"), 3, 37, "has no field 'next'", "known: type, flow, node"),
        (text("a: {type: tag, tags: [], next: bye}"), 3, 24, "tags is empty", None),
        (text("a: {type: tag, tags: 'a,b', next: bye}"), 3, 24, "'a,b' is no tag", "without ,"),
        (text("a: {type: tag, tags: x, next: &n bye}", "b: {type: tag, tags: x, next: *n}"), 4, 33, "aliases", None),
        ("start: a\nnodes: {a: {type: hangup, cause: \x07}}", 2, 34, "holds the character '\\x07'", None),
        ("a: \ud800", 1, 4, "holds the character", None),
    ],
)  # fmt: skip
def test_an_error_points_at_its_place_and_says_what_to_do(written, line, column, says, hint):
    with pytest.raises(FlowError) as caught:
        parse_flow(written, "desk")
    assert says in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column), caught.value.message
    assert hint is None or (caught.value.hint or "").startswith(hint) or hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    "written,says",
    [("", "empty"), ("# nothing\n", "empty"), ("x" * 200_001, "200001 characters")],
)
def test_an_empty_or_huge_text_is_refused(written, says):
    with pytest.raises(FlowError, match=says):
        parse_flow(written, "desk")


@pytest.mark.parametrize("deep", ["[" * 100_000, "- " * 90_000, "{a: " * 40_000, "? " * 50_000])
def test_a_text_nested_without_end_is_refused_before_it_exhausts_the_stack(deep):
    with pytest.raises(FlowError, match="nested deeper"):
        parse_flow(deep, "desk")


def test_a_flow_has_no_more_nodes_than_a_call_may_pass():
    chain = [f"n{index}: {{type: tag, tags: x, next: n{index + 1}}}" for index in range(MAX_NODES)]
    ending = [f"n{MAX_NODES}: {{type: hangup}}"]
    with pytest.raises(FlowError, match="at most 200 nodes"):
        parse_flow(text(*chain, *ending, start="n0"), "desk")


SAMPLES = [
    text("a: {type: play, prompt: Hi, next: bye}"),
    text("a: {type: menu, prompt: P, options: {1: a, 2: bye}, on_exhausted: bye, timeout: 3}"),
    text(f"a: {{{DIAL}, on_failed: bye, ring: 20}}"),
    text("a: {type: hours, open: 'Mo-Fr 08:00-18:00', on_open: a, on_closed: bye}"),
    text("a: {type: voicemail, greeting: Hi, on_failed: bye}"),
]
PIECES = st.sampled_from(
    ["start", "nodes", "type", "a", "bye", "hangup", "menu", ": ", ":", "\n", "\n  ", "{", "}", "[", "]", ", ", "- ",
     "'", '"', "#", "&x ", "*x", "!!int ", "| ", ">", "? ", "\t", "---", "...", "%YAML 9", "\ufeff", "\u2028", "\x85",
     "\r", "\x00", "é", "🙂", "\ud800", "<<", "~", "@", "`", "1"]
)  # fmt: skip


@st.composite
def broken(draw: st.DrawFn) -> str:
    """A good text with something cut out and something put in."""
    good = draw(st.sampled_from(SAMPLES))
    begin = draw(st.integers(0, len(good)))
    end = draw(st.integers(begin, min(len(good), begin + 12)))
    return good[:begin] + "".join(draw(st.lists(PIECES, max_size=4))) + good[end:]


@settings(max_examples=600, deadline=None)
@given(st.text(st.characters()) | st.lists(PIECES, max_size=30).map("".join) | broken())
def test_any_text_is_a_flow_or_a_flow_error_with_its_place(written):
    try:
        flow = parse_flow(written, "desk")
    except FlowError as exc:
        if exc.line is None:
            assert "empty" in exc.message
            return
        assert exc.column is not None
        lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", written)  # YAML's line breaks
        assert 1 <= exc.line <= len(lines) + 1, exc.message
        widest = len(lines[exc.line - 1]) if exc.line <= len(lines) else 0
        assert 1 <= exc.column <= widest + 2, exc.message
        return
    assert flow.start in flow.nodes
    for node in flow.nodes.values():
        assert all(to is None or to in flow.nodes for _, to in n.exits(node))
