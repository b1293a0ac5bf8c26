"""Strings that a caller may send, and that somewhere on their way might be taken for more than text."""

from __future__ import annotations

import re

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

MARK = "callrouter-was-obeyed"
NASTY = (
    f"${{SHELL(touch /tmp/{MARK})}}",
    f"$(touch /tmp/{MARK})`touch /tmp/{MARK}`;touch /tmp/{MARK}|touch /tmp/{MARK}&",
    f"${{FILE(/tmp/{MARK},0,0,,a)}}$[1+1]${{EPOCH}}",
    "$[41+1]",
    "${CALLERID(num)=+19005550100}",
    "'; DROP TABLE call; --",
    '" OR ""="',
    "Robert'); DELETE FROM call_event;--",
    "=cmd|'/C calc'!A0",
    "+1+2",
    "-2+3",
    "@SUM(1+1)*cmd",
    "a,b,\"c\",'d';e\tf|g",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{7*7}}{%raw%}%(asctime)s%s%n",
    "[bold red]rich[/bold red][link=file:///etc/passwd]x[/link]",
    "\x1b[2J\x1b[31mred\x1b]0;owned\x07\x9b31m",
    "\x08\x08\x08\x7f\x0b\x0c",
    'forged"\r\nEvent: Forged\r\n\r\n{"event": "forged"}',
    '\n{"event": "forged", "level": "info"}\n[2026-11-22] forged-line',
    "\u202egnp.exe\u202c \u2066x\u2069 \u2028\u2029\u200b\ufeff",
    "😀👩‍👩‍👧‍👦é́́́́́́́",
    "../../../../tmp/" + MARK,
    "%s%n%x%p%00%0d%0a",
    "PJSIP/evil&PJSIP/callrouter-uri/sip:a@192.0.2.1",
    "z" * 900,
    "Event: party",
    "nul\x00nul",
    "1\r\n\r\nEvent: Forged\r\nUniqueid: 1\r\n\r\n",
    "1\r\nEventList: Complete\r\nUniqueid: 1",
    "1\nCHAN_START,1795315562.6,forged,forged,PJSIP/trunk-strings-0,,1,cr-trunk-strings,,1,,\n",
    "\xff\xfe\xc3(",
)
"""Each is given as a name, as a number that is dialled, and as the number of a caller."""
HOSTILE = st.text(
    st.one_of(
        st.sampled_from("\"'\\`$(){}[]<>&|;,=+-@#%*!?~^_:/\t\r\n\x1b\x07\x00\u202e\u2028 "),
        st.characters(codec="utf-8"),
        st.sampled_from("${}()"),
    ),
    min_size=1,
    max_size=60,
)
DRAWN = 15


def drawn(count: int) -> list[str]:
    """Strings that Hypothesis makes up, others at each run."""
    found: list[str] = []

    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(HOSTILE)
    def take(text: str) -> None:
        found.append(text)

    take()
    return found


def escaped(text: str) -> str:
    """Each byte in percent escapes, as in a SIP URI (RFC 3261 25.1)."""
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8"))


def quoted(text: str) -> str:
    """A display name in quotation marks. A line break is folded, which is as near as SIP lets it come."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\x00", "\\\x00")
    return '"' + re.sub(r"\r\n|\r|\n", "\r\n ", text).encode("utf-8").decode("latin-1") + '"'
