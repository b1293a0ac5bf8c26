"""Random routings that hold together, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from callrouter.core.model import CallerIdMode, Member, RecordingPolicy, Strategy
from callrouter.core.routing_code.fields import Key, Routing, complete

TITLES = st.sampled_from(
    ["Ana", "yes", "007", "Käse: 50 % «Rabatt»", 'a "b" \\ c', "#1 desk", "null", "- x", "x\u2028y"]
)
NAMES = ["a", "b", "no", "n1"]
DIDS = ["+12025550101", "+12025550102", "+442079460018"]
TEXTS = [
    "start: d\nnodes:\n  d: {type: dial, target: TARGET, on_busy: e, on_no_answer: e, on_failed: e}\n"
    "  e: {type: hangup}\n",
    "# first\n\n  \nstart: e   # here\nnodes:\n  e:\n    type: hangup\n\n\n",
    "  start: e\n  nodes: {e: {type: hangup}}",
    "start: e\r\nnodes:\r\n  e: {type: hangup}\r\n",
    "start: v\nnodes:\n  v: {type: voicemail, greeting: 'ä: \"1\"', on_failed: e}\n  e: {type: hangup}\n \n",
]


@st.composite
def routings(draw: st.DrawFn) -> Routing:
    """Trunks that follow each other, two companies, and in them whatever holds together."""
    found: dict[Key, dict[str, Any]] = {}

    def put(kind: str, company: str, key: str, **values: Any) -> None:
        found[Key(kind, company, key)] = complete(kind, values)

    trunks = draw(st.lists(st.sampled_from(NAMES), unique=True))
    for place, name in enumerate(trunks):
        after = draw(st.sampled_from([None, *trunks[:place]]))
        rates = draw(st.sampled_from([(), (("+1", 9_000), ("+44", 1_000_000))]))
        put("trunk", "", name, host=draw(st.sampled_from(["sip.example.com", "192.0.2.1"])), next_trunk=after,
            rates=rates, match=draw(st.sampled_from([(), ("192.0.2.0/24", "198.51.100.7")])),
            caller_id=draw(st.sampled_from([CallerIdMode.PASS_THROUGH, CallerIdMode.TRACKING_NUMBER])),
            transport=draw(st.sampled_from(["udp", "tls"])),
            setup_seconds=draw(st.sampled_from([4.0, 2.5])))  # fmt: skip
    free = list(DIDS)
    for company in draw(st.lists(st.sampled_from(["acme", "zeta"]), unique=True)):
        put("company", "", company, title=draw(TITLES), language=draw(st.sampled_from([None, "pt-br"])),
            timezone=draw(st.sampled_from(["UTC", "Europe/Berlin"])),
            record=draw(st.sampled_from(RecordingPolicy)), consent_required=draw(st.booleans()),
            allowed_destinations=draw(st.sampled_from([(), ("+4420", "US")])),
            max_outbound_calls=draw(st.sampled_from([None, 7])), max_outbound_per_hour=None,
            max_spend_per_day=0, accept_anonymous=draw(st.booleans()),
            max_calls_per_caller=draw(st.sampled_from([None, 3])),
            caller_window=draw(st.sampled_from([60, 3600])))  # fmt: skip
        some = st.lists(st.sampled_from(NAMES), unique=True)
        campaigns, targets, flows = draw(some), draw(some), draw(some)
        for name in campaigns:
            put("campaign", company, name, title=draw(TITLES), source=draw(TITLES), medium="offline")
        for name in targets:
            where = {"sip_uri": "sip:desk@192.0.2.7:5062"}
            by_number: bool = draw(st.booleans())
            if trunks and by_number:
                where = {"number": draw(st.sampled_from(["+12025550188", "+442079460000"])), "trunk": trunks[0]}
            put("target", company, name, title=draw(TITLES), whisper=draw(st.none() | TITLES),
                record=draw(st.sampled_from(RecordingPolicy)), **where)  # fmt: skip
        groups = draw(some) if targets else []
        for name in groups:
            rung = draw(st.lists(st.sampled_from(targets), unique=True, min_size=1))
            members = tuple(Member(each, weight=draw(st.sampled_from([1, 5]))) for each in rung)
            put("group", company, name, title=draw(TITLES), strategy=Strategy.WEIGHTED, members=members,
                stop_on_busy=draw(st.booleans()))  # fmt: skip
        for name in flows:
            text = draw(st.sampled_from(TEXTS if targets else TEXTS[1:]))
            put("flow", company, name, text=text.replace("TARGET", targets[0] if targets else ""))
        ways = [("flow", name) for name in flows] + [("target", name) for name in targets]
        names = list(draw(st.permutations(NAMES)))
        dids: list[str] = draw(st.lists(st.sampled_from(free), unique=True)) if ways and free else []
        for e164 in dids:
            kind, answers = draw(st.sampled_from(ways))
            put("number", company, e164, name=names.pop(), campaign=draw(st.sampled_from([None, *campaigns])),
                backup=draw(st.sampled_from([None, *targets])), active=draw(st.booleans()),
                **{kind: answers})  # fmt: skip
            free.remove(e164)
    return found
