"""The webhook node: what is asked, what every answer comes to, and what of it remains."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
import yarl
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.flow import urls
from callrouter.core.flow.check import check_flow
from callrouter.core.flow.draw import as_mermaid, as_text
from callrouter.core.flow.nodes import Webhook
from callrouter.core.flow.parse import parse_flow
from callrouter.core.flow.urls import parse_hosts, refused
from callrouter.core.records import Reply, WebhookResult
from callrouter.core.routing import build_table
from callrouter.core.state import Asking, HandedOver
from callrouter.core.webhooks import SoFar, read_reply
from callrouter.errors import FlowError, InputError
from tests.builders import CALL, CALLER, DID, T0, Run, arrived, run, snapshot, table
from tests.call_scripts import (
    ASK_CRM,
    ASK_CRM_ENDS,
    ASK_CRM_NODE,
    CRM,
    fired,
    flow,
    gone,
    key,
    keys,
    resumed,
    said,
    short,
    shown,
)

URL, NODE, ENDS, FLOW = CRM, ASK_CRM_NODE, ASK_CRM_ENDS, ASK_CRM
ROUTING = table(FLOW)

OK, TIMEOUT, FAILED = WebhookResult.ANSWERED, WebhookResult.TIMEOUT, WebhookResult.FAILED


def answered(reply: Reply, ref: str = "w1", at: float = 1, **changes: Any) -> e.WebhookAnswered:
    values: dict[str, Any] = {"node": "crm", "url": URL}
    return e.WebhookAnswered(T0 + at, f"{CALL}-{ref}", reply=reply, **(values | changes))


def asked(result: Run) -> a.AskWebhook:
    return result.actions_of(a.AskWebhook)[-1]


# -- events ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply, path, why",
    [
        (Reply(OK), ["crm", "plain"], ("next", "crm.example.com answered in 1.00 s")),
        (Reply(OK, "", "vip"), ["crm", "sales"], ("vip", "crm.example.com answered in 1.00 s")),
        (Reply(OK, "", "support"), ["crm", "help"], ("support", "crm.example.com answered in 1.00 s")),
        (
            Reply(OK, "", "gold", ("x",)),
            ["crm", "broken"],
            ("failed", "crm.example.com: the node has no branch 'gold'"),
        ),
        (Reply(TIMEOUT), ["crm", "slow"], ("timeout", "crm.example.com did not answer in 1.5 s")),
        (Reply(FAILED, "it answered 500"), ["crm", "broken"], ("failed", "crm.example.com: it answered 500")),
    ],
)
def test_every_answer_has_its_exit(reply, path, why):
    result = run(ROUTING, [arrived(), answered(reply)])
    assert result.path == path
    assert shown(result)[:3] == [f"ask w1 {URL} 1.5", "timer t2 3.5", "cancel t2"]
    assert result.reasons(f"webhook: {why[0]}") == [why[1]]
    assert result.record.tags == ()


def test_the_caller_is_not_answered_for_it():
    assert shown(run(ROUTING, [arrived()])) == [f"ask w1 {URL} 1.5", "timer t2 3.5"]


def test_tags_and_values_are_put_on_the_call():
    text = FLOW.replace("start: crm", "start: known").replace(
        "  crm:",
        "  known: {type: tag, tags: [lead], next: given}\n"
        "  given: {type: set, values: {source: tv, account: '1'}, next: crm}\n  crm:",
    )
    reply = Reply(OK, "", "vip", ("gold", "lead"), (("account", "17"),))
    record = run(table(text), [arrived(), answered(reply)]).record
    assert record.tags == ("lead", "gold")
    assert record.values == (("source", "tv"), ("account", "17"))


@pytest.mark.parametrize(
    "stale",
    [
        answered(Reply(OK, "", "vip"), "w9"),
        answered(Reply(OK, "", "vip"), url="https://other.example.com/"),
        fired("t9"),
        key("1"),
        said("p1"),
    ],
)
def test_what_is_not_about_it_changes_nothing(stale):
    result = run(ROUTING, [arrived()])
    before = result.session
    assert not result.take(stale, ROUTING).actions
    assert result.session == before


def test_an_answer_that_comes_too_late_changes_nothing():
    result = run(ROUTING, [arrived(), answered(Reply(TIMEOUT))])
    before = result.session
    result.take(answered(Reply(OK, "", "vip"), at=2), ROUTING)
    assert result.session == before


def test_a_request_whose_end_is_never_told_ends_all_the_same():
    result = run(ROUTING, [arrived(), fired("t2", 3.5)])
    assert shown(result)[2:] == ["stop w1", "hangup 17"]
    assert result.reasons("webhook: timeout") == ["the request did not end"]


def test_a_caller_who_hangs_up_stops_the_request():
    result = run(ROUTING, [arrived(), gone()])
    assert shown(result)[2:] == ["cancel t2", "stop w1"]
    assert result.ending == ("abandoned", "the caller hung up in crm")


def test_after_a_restart_the_node_asks_again():
    result = run(ROUTING, [arrived(), resumed(), answered(Reply(OK, "", "vip"), "w1003", at=21)])
    assert shown(result)[2:6] == ["cancel t2", "stop w1", f"ask w1003 {URL} 1.5", "timer t1004 3.5"]
    assert [each.question.call for each in result.actions_of(a.AskWebhook)] == [CALL, CALL]
    assert result.path == ["crm", "crm", "sales"]
    before = run(ROUTING, [arrived(), resumed()])
    assert before.take(answered(Reply(OK, "", "vip")), ROUTING).session == before.session, "of before the restart"


def test_at_the_second_restart_the_caller_waits_no_longer():
    result = run(ROUTING, [arrived(), resumed(), resumed(30)])
    assert isinstance(result.session.wait, HandedOver)
    assert short(result.actions[-1]) == "failsafe: the controller was restarted 2 times in this call"


def test_it_may_ask_again_and_again():
    text = flow(
        "crm",
        f"crm: {{type: webhook, url: '{URL}', next: menu, on_failed: bye}}",
        "menu: {type: menu, prompt: Again, options: {1: crm}, on_exhausted: bye}",
    )
    result = run(table(text), [arrived(), answered(Reply(OK)), said("p3"), key("1")])
    assert isinstance(result.session.wait, Asking)
    assert [short(each) for each in result.actions_of(a.AskWebhook)] == [f"ask w1 {URL} 2", f"ask w5 {URL} 2"]


# -- what is asked -----------------------------------------------------------------------------------------------------

TELLING = flow(
    "zip",
    "zip: {type: gather, prompt: P, name: zip, min: 3, max: 3, next: pin, on_exhausted: bye}",
    "pin: {type: gather, prompt: P, name: pin, min: 2, max: 2, sensitive: yes, next: known, on_exhausted: bye}",
    "known: {type: tag, tags: [lead], next: given}",
    "given: {type: set, values: {source: tv}, language: es, next: crm}",
    NODE,
    *ENDS,
)


def told(**changes: Any) -> Run:
    pressed = [said("p1"), *keys("606"), said("p5", 6), *keys("42", 7)]
    return run(table(TELLING), [arrived(**changes), *pressed])


def test_a_service_is_told_of_the_call():
    assert asked(told()).question.fields() == {
        "version": 1,
        "call": CALL,
        "at": "2025-10-09T08:53:27.500Z",
        "company": "acme",
        "campaign": "spring-radio",
        "source": "radio",
        "medium": "offline",
        "number": DID,
        "number_name": "billboard",
        "caller": CALLER,
        "flow": "desk",
        "node": "crm",
        "path": ["zip", "pin", "known", "given", "crm"],
        "tags": ["lead"],
        "values": {"source": "tv"},
        "digits": {"zip": "606"},
        "language": "es",
    }


def test_a_number_without_a_campaign_asks_without_one():
    question = asked(run(build_table(replace(snapshot(FLOW), campaigns=())), [arrived()])).question
    assert (question.campaign, question.source, question.medium) == (None, None, None)


def test_a_withheld_number_stays_withheld():
    assert asked(told(caller=None)).question.fields()["caller"] is None


def test_a_sensitive_entry_is_not_told_even_where_an_open_one_of_its_name_came_before():
    notes = [note.Gathered(T0, "p", "pin", "1234"), note.Gathered(T0, "p", "pin", e.HIDDEN * 4)]
    assert SoFar().after(notes[:1]).digits == (("pin", "1234"),)
    assert SoFar().after(notes).digits == ()


def test_what_a_service_is_told_is_what_the_record_says():
    result = told()
    so_far, record = result.session.so_far, result.record
    assert (so_far.path, so_far.tags, so_far.values) == (record.path, record.tags, record.values)


@pytest.mark.parametrize(
    "body, expected",
    [
        ({}, Reply(OK)),
        ({"branch": None, "tags": None, "values": None, "other": [1]}, Reply(OK)),
        ({"branch": "vip"}, Reply(OK, "", "vip")),
        ({"tags": ["a b", "c", "a b"]}, Reply(OK, "", None, ("a b", "c"))),
        ({"values": {"account": 17, "name": "Ann"}}, Reply(OK, "", None, (), (("account", "17"), ("name", "Ann")))),
    ],
)
def test_answers_that_are_understood(body, expected):
    assert read_reply(body) == expected


@pytest.mark.parametrize(
    "body, says",
    [
        (None, "no JSON object"),
        ([], "no JSON object"),
        ("vip", "no JSON object"),
        ({"branch": 7}, "branch 7 is no name"),
        ({"branch": "VIP!"}, "branch 'VIP!' is no name"),
        ({"tags": "vip"}, "tags must be a list"),
        ({"tags": [7]}, "7 is no tag"),
        ({"tags": ["a,b"]}, "'a,b' is no tag"),
        ({"tags": ["a\x1b[2J"]}, r"'a\x1b[2J' is no tag"),
        ({"tags": ["x" * 64]}, "is no tag"),
        ({"values": ["x"]}, "values must be an object"),
        ({"values": {"Name": "x"}}, "'Name' is no name of a value"),
        ({"values": {"name": "x\ny"}}, r"the value of 'name' cannot be 'x\ny'"),
        ({"values": {"name": "\ud800"}}, "the value of 'name' cannot be"),
        ({"values": {"name": ""}}, "the value of 'name' cannot be ''"),
        ({"values": {"name": "x" * 201}}, "the value of 'name' cannot be"),
        ({"values": {"name": True}}, "the value of 'name' cannot be True"),
        ({"values": {"name": 1.5}}, "the value of 'name' cannot be 1.5"),
        ({"values": {"name": {}}}, "the value of 'name' cannot be {}"),
    ],
)
def test_answers_that_are_refused(body, says):
    with pytest.raises(InputError) as caught:
        read_reply(body)
    assert says in caught.value.message
    assert caught.value.message.isprintable()


# -- text --------------------------------------------------------------------------------------------------------------

BASE = "type: webhook, url: 'https://a.example', next: bye, on_failed: bye"


@pytest.mark.parametrize(
    "node, line, column, says",
    [
        ("type: webhook, next: bye, on_failed: bye", 3, 6, "needs 'url'"),
        ("type: webhook, url: 'https://a.example', on_failed: bye", 3, 6, "needs 'next'"),
        ("type: webhook, url: 'https://a.example', next: bye", 3, 6, "needs 'on_failed'"),
        ("type: webhook, url: 'ftp://a.example', next: bye, on_failed: bye", 3, 27, "is no address of a service"),
        ("type: webhook, url: a.example, next: bye, on_failed: bye", 3, 27, "is no address of a service"),
        ("type: webhook, url: 'https://u:p@a.example', next: bye, on_failed: bye", 3, 27, "a user name or password"),
        ("type: webhook, url: 'https://a@b.example/', next: bye, on_failed: bye", 3, 27, "a user name or password"),
        ("type: webhook, url: 'https://a.example/ b', next: bye, on_failed: bye", 3, 27, "is no address of a service"),
        ("type: webhook, url: 'https://a.example\\@b.example', next: bye, on_failed: bye", 3, 27, "user name"),
        ("type: webhook, url: 'https://a.example\\b', next: bye, on_failed: bye", 3, 27, "is no address of a service"),
        ("type: webhook, url: 'https://a.example:0/', next: bye, on_failed: bye", 3, 27, "is no address of a service"),
        ("type: webhook, url: 'https://a.example/#x', next: bye, on_failed: bye", 3, 27, "is no address of a service"),
        ("type: webhook, url: 'https://[::::]/', next: bye, on_failed: bye", 3, 27, "is no address of a service"),
        ("type: webhook, url: 'https:///x', next: bye, on_failed: bye", 3, 27, "is no address of a service"),
        (f"{BASE}, timeout: 0.1", 3, 84, "timeout must be seconds from 0.2 to 10"),
        (f"{BASE}, timeout: 11", 3, 84, "timeout must be seconds from 0.2 to 10"),
        (f"{BASE}, branches: vip", 3, 85, "branches must be a mapping"),
        (f"{BASE}, branches: {{VIP: bye}}", 3, 91, "'VIP' is no name of a branch"),
        (f"{BASE}, branches: {{timeout: bye}}", 3, 95, "a branch cannot be called 'timeout'"),
        (f"{BASE}, branches: {{vip: nowhere}}", 3, 91, "its exit 'branch vip' goes to 'nowhere'"),
        (f"{BASE}, retry: 3", 3, 75, "has no field 'retry'"),
    ],
)
def test_a_wrong_node_is_told_with_its_place(node, line, column, says):
    with pytest.raises(FlowError) as caught:
        parse_flow(flow("a", f"a: {{{node}}}"), "desk")
    assert says in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)


def test_without_an_exit_for_the_time_out_it_is_a_failure():
    node = parse_flow(flow("a", f"a: {{{BASE}}}"), "desk").nodes["a"]
    assert isinstance(node, Webhook)
    assert (node.on_timeout, node.timeout, node.branches) == ("bye", 2.0, ())


@pytest.mark.parametrize(
    "url, hosts, allowed",
    [
        ("https://crm.example.com/x", "crm.example.com", True),
        ("https://CRM.example.com/x", "crm.Example.com", True),
        ("https://crm.example.com:443/x", "crm.example.com", True),
        ("https://crm.example.com:8443/x", "crm.example.com", False),
        ("https://crm.example.com:8443/x", "a.example, crm.example.com:8443", True),
        ("https://crm.example.com", "", False),
        ("https://evil.crm.example.com", "crm.example.com", False),
        ("https://crm.example.com.evil.example", "crm.example.com", False),
        ("https://crm.example.com.", "crm.example.com", False),
        ("http://crm.example.com/", "crm.example.com", False),
        ("http://crm.example.com/", "http://crm.example.com", True),
        ("https://crm.example.com/", "http://crm.example.com", False),
        ("http://127.0.0.1:9000/", "127.0.0.1:9000", True),
        ("http://127.0.0.1:8088/", "127.0.0.1:9000", False),
        ("http://127.0.0.1/", "", False),
        ("http://localhost/", "localhost", True),
        ("http://[::1]:9000/", "[::1]:9000", True),
        ("http://10.0.0.5/", "10.0.0.5", False),
        ("http://2130706433/", "127.0.0.1", False),
        ("https://crm.example.com/?next=https://b.example/", "b.example", False),
        ("https://crm.example.com?u=@b.example", "b.example", False),
    ],
)
def test_only_services_that_the_settings_name_are_asked(url, hosts, allowed):
    assert (refused(url, parse_hosts(hosts)) is None) is allowed


@settings(max_examples=300, deadline=None)
@given(st.from_regex(urls._URL, fullmatch=True) | st.from_regex(r"https?://[ -~]{1,30}", fullmatch=True))
def test_the_service_that_is_checked_is_the_one_that_is_asked(url):
    try:
        urls.check_url(url)
    except InputError:
        return
    seen = yarl.URL(url, encoded=True)
    (listed,) = parse_hosts(f"{seen.scheme}://{urls.host_of(url)}")
    host = str(seen.raw_host).lower()
    same = ip_address(host) == ip_address(listed.host[1:-1]) if ":" in host else host == listed.host
    assert same
    assert seen.port == (listed.port or {"https": 443, "http": 80}[seen.scheme])
    assert seen.user is None
    assert refused(url, (listed,)) is None


@pytest.mark.parametrize("text", ["https://crm.example.com/path", "user@crm.example.com", "a b", "ftp://x", "x:port"])
def test_what_is_no_host_is_refused(text):
    with pytest.raises(InputError, match="is no host"):
        parse_hosts(text)


def test_a_flow_that_asks_another_service_is_wrong_with_a_hint():
    parsed = parse_flow(FLOW, "desk")
    assert check_flow(parsed, ["ana", "ben"], []) == []
    assert check_flow(parsed, ["ana", "ben"], [], (), hosts=parse_hosts("crm.example.com")) == []
    (found,) = check_flow(parsed, ["ana", "ben"], [], (), hosts=parse_hosts("other.example.com"))
    assert (found.severity, found.node) == ("error", "crm")
    assert "crm.example.com is not among webhook_hosts" in found.message
    assert found.hint == 'in callrouter.toml: webhook_hosts = "crm.example.com"'
    plain = parse_flow(FLOW.replace("https://", "http://"), "desk")
    (found,) = check_flow(plain, ["ana", "ben"], [], (), hosts=parse_hosts("crm.example.com"))
    assert "without encryption" in found.message


def test_a_circle_of_questions_is_found():
    circle = flow("crm", f"crm: {{type: webhook, url: '{URL}', next: bye, on_failed: crm}}")
    assert "goes round without end" in check_flow(parse_flow(circle, "desk"), [], [])[0].message


def test_it_is_drawn():
    drawn = as_text(parse_flow(FLOW, "desk"))
    assert drawn.splitlines()[0] == "crm: webhook crm.example.com, 1.5 s"
    assert "  branch vip → sales: dial ana" in drawn
    assert '|"failed"|' in as_mermaid(parse_flow(FLOW, "desk"))
