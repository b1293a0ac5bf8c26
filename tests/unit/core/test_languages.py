"""Values and languages that a flow puts on a call, and prompts in several languages."""

from __future__ import annotations

import pytest

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core.failsafe_plan import at_moment
from callrouter.core.flow.check import check_flow, prompts_of
from callrouter.core.flow.draw import as_text
from callrouter.core.flow.languages import check_language, in_language
from callrouter.core.flow.nodes import Prompt
from callrouter.core.flow.parse import parse_flow
from callrouter.core.routing import filled, spoken
from callrouter.core.simulate import Inputs, simulate
from callrouter.errors import FlowError, InputError
from callrouter.runtime.recovery import rebuild
from tests.builders import CALL, DID, T0, arrived, company, run, table
from tests.call_scripts import flow, gone, key, resumed, said, shown

FLOW = flow(
    "ask",
    "ask: {type: menu, prompt: {en: Press 2 for Spanish, es: Pulse 2}, options: {1: bill, 2: es}, on_exhausted: bill}",
    "es: {type: set, language: es, values: {department: ventas, source: tv}, next: hi}",
    "hi: {type: play, prompt: [{en: 'Hello from {company}', es: 'Hola de {company}', pt-br: {file: ola}}, Acme], "
    "next: more}",
    "more: {type: set, values: {source: radio}, next: vm}",
    "vm: {type: voicemail, greeting: {de: Bitte sprechen, en: {file: tone}}, on_failed: bye}",
    "bill: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye}",
)
CALLED: list[e.Event] = [arrived(), said("p1"), key("2"), said("p3", 5)]


def test_a_caller_hears_what_was_chosen_from_then_on():
    result = run(table(FLOW), CALLED)
    assert shown(result)[1] == "play p1 Press 2 for Spanish"
    plays = result.actions_of(a.Play)
    assert plays[1].prompts == (Prompt("Hola de Acme Plumbing", language="es"), Prompt("Acme"))
    # It is in German and English; the first of them is heard.
    assert plays[2].prompts == (Prompt("Bitte sprechen", language="de"),)
    assert result.session.language == "es"


def test_the_call_keeps_what_was_set():
    result = run(table(FLOW), [*CALLED, gone(9)])
    assert result.record.values == (("department", "ventas"), ("source", "radio"))
    assert result.record.language == "es"
    told = [(one.path, one.what, one.why) for one in result.record.trace if one.what == "set"]
    assert told == [
        ("desk@3/es", "set", "department = ventas, source = tv, language = es"),
        ("desk@3/more", "set", "source = radio"),
    ]


def test_a_restarted_server_goes_on_in_the_same_language():
    routing = table(FLOW)
    before = run(routing, CALLED[:3])
    session, _ = rebuild(CALL, before.log, routing)
    assert session == before.session
    after = run(routing, [resumed(6)], session)
    assert after.actions_of(a.Play)[0].prompts[0] == Prompt("Hola de Acme Plumbing", language="es")


@pytest.mark.parametrize(
    "wanted, heard",
    [
        (("es",), "hola"),
        (("es-mx",), "hola"),
        (("pt",), "ola"),
        (("pt-pt",), "ola"),
        (("pt-br",), "ola"),
        (("fr",), "hello"),
        (("fr", "es"), "hola"),
        ((None, "es"), "hola"),
        ((None, None), "hello"),
        ((), "hello"),
    ],
)
def test_which_language_is_heard(wanted, heard):
    prompt = Prompt("hello", language="en", others=(Prompt("hola", language="es"), Prompt("ola", language="pt-br")))
    assert in_language(prompt, *wanted).text == heard


def test_without_a_choice_the_companys_language_is_heard():
    routing = table(FLOW, of=company(language="es"))
    result = run(routing, [arrived()])
    assert result.actions_of(a.Play)[0].prompts == (Prompt("Pulse 2", language="es"),)
    entry = routing.entries[DID]
    # What says no language is the company's too, whatever was chosen; so is the whisper.
    assert filled(Prompt("Hi"), entry, "en") == Prompt("Hi", language="es")
    assert filled(Prompt(file="hi"), entry, "en") == Prompt(file="hi")


def test_every_language_is_made_ready_before_a_call_comes():
    for of in (company(), company(language="es")):
        made = {prompt for _, prompt in spoken(table(FLOW, of=of))}
        assert {prompt.language for prompt in made if prompt.text} == {"en", "es", "de", of.language}
        assert {prompt.file for prompt in made} == {None, "ola", "tone"}
        assert Prompt("Hello from Acme Plumbing", language="en") in made
        assert not any(prompt.others for prompt in made)


@pytest.mark.parametrize("language", [None, "es", "de", "pt", "fr"])
def test_whatever_is_played_was_made_ready(language):
    routing = table(FLOW, of=company(language=language))
    made = {prompt for _, prompt in spoken(routing)}
    for digits in (("1",), ("2",), ()):
        call = simulate(routing, DID, None, T0, Inputs(digits=digits))
        assert {prompt for _, act in call.asked if isinstance(act, a.Play) for prompt in act.prompts} <= made


@pytest.mark.parametrize(
    "node, says, hint",
    [
        ("{type: set, next: bye}", "needs values or language", "for example"),
        ("{type: set, values: {}, next: bye}", "needs values or language", "for example"),
        ("{type: set, language: spanish, next: bye}", "'spanish' is no language", "like en, es"),
        ("{type: set, values: {Lead Source: tv}, next: bye}", "'Lead Source' is no name of a value", "small letters"),
        ("{type: set, values: {x: ''}, next: bye}", "x is empty", ""),
        (f"{{type: set, values: {{x: {'y' * 201}}}, next: bye}}", "is too long", "up to 200"),
        ("{type: set, values: {x: [a, b]}, next: bye}", "must be a single value", ""),
        ("{type: play, prompt: {en: {es: Hola}}, next: bye}", "en has no field 'es'", "known: text, file"),
        ("{type: play, prompt: {en: {text: a, file: b}}, next: bye}", "en needs one of text", ""),
        ("{type: play, prompt: {en: Hi, text: Hi}, next: bye}", "prompt has no field 'en'", "text"),
        ("{type: play, prompt: {en: ''}, next: bye}", "en is empty", ""),
        ("{type: play, prompt: {}, next: bye}", "prompt needs one of text", ""),
    ],
)
def test_what_is_refused(node, says, hint):
    with pytest.raises(FlowError) as refused:
        parse_flow(flow("x", f"x: {node}"), "desk")
    assert says in refused.value.message
    assert hint in str(refused.value.hint)
    assert refused.value.line == 3


@pytest.mark.parametrize("text, kept", [("es", "es"), (" PT-BR ", "pt-br"), ("zh-hant-tw", "zh-hant-tw")])
def test_languages_are_kept_in_small_letters(text, kept):
    assert check_language(text) == kept


@pytest.mark.parametrize("text", ["", "e", "english", "es_MX", "../es", "es-"])
def test_what_is_no_language(text):
    with pytest.raises(InputError) as refused:
        check_language(text)
    assert refused.value.hint


def test_a_prompt_without_the_language_that_is_chosen_is_warned_of():
    found = check_flow(parse_flow(FLOW, "desk"), ["ana"], ["ola", "tone"])
    assert [(one.severity, one.node, one.message) for one in found] == [
        ("warning", "vm", "a prompt is not in 'es', only in de, en")
    ]


def test_files_and_placeholders_of_all_languages_are_looked_at():
    text = FLOW.replace("es: 'Hola de {company}'", "es: 'Hola de {empresa}'")
    found = [one.message for one in check_flow(parse_flow(text, "desk"), ["ana"], ["tone"]) if one.severity == "error"]
    assert len(found) == 2
    assert any("'ola', which is no uploaded prompt" in message for message in found)
    assert any("{empresa}" in message for message in found)
    node = parse_flow(FLOW, "desk").nodes["hi"]
    assert [(one.language, one.text, one.file) for one in prompts_of(node)][2] == ("pt-br", None, "ola")


def test_they_are_drawn():
    drawn = as_text(parse_flow(FLOW, "desk"))
    assert "es: set department = ventas, source = tv, language es\n" in drawn
    assert "hi: play “Hello from {company} Acme”\n" in drawn


def test_the_dialplan_announces_in_the_language_that_the_flow_chooses():
    text = flow("es", "es: {type: set, language: es, next: hi}",
                "hi: {type: play, prompt: {en: Closed, es: Cerrado}, next: where}",
                "where: {type: geo, areas: [{country: US, next: end}], on_other: end}",
                "end: {type: play, prompt: {en: Bye, es: Adios}, next: bye}")  # fmt: skip
    alone = at_moment(table(text).entries[DID], T0)
    assert [prompt.text for prompt in alone.announce] == ["Cerrado", "Adios"]
    assert set(alone.announce) <= {prompt for _, prompt in spoken(table(text))}
