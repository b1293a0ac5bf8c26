from __future__ import annotations

import pytest

from callrouter.core.identity import Identity, Sent, identify


@pytest.mark.parametrize(
    "sent,expected",
    [
        (Sent("+13125550199", "Ana Lee"), Identity("+13125550199", "Ana Lee")),
        (Sent("3125550199", "Ana\x1b[31m\u202e Lee "), Identity("+13125550199", "Ana[31m Lee")),
        # Parameters of the number (RFC 3966) have digits of their own.
        (Sent("+13125550199;npdi;rn=+13125550000", ""), Identity("+13125550199", None)),
        (Sent("+13125550199;verstat=TN-Validation-Passed", ""), Identity("+13125550199", None)),
        (Sent("anonymous", "Anonymous"), Identity(None, None)),
        (Sent("2501", "Desk"), Identity("2501", "Desk")),
        # Whoever asks for privacy has it, whatever else was sent.
        (Sent("+13125550199", "Ana", privacy="id"), Identity(None, None, "id")),
        (Sent("", "", privacy="id;critical"), Identity(None, None, "id;critical")),
        (Sent("", "", privacy="ID"), Identity(None, None, "id")),
        (Sent("", "", privacy=";;;" * 99), Identity(None, None, "id")),
    ],
)
def test_number_and_name(sent: Sent, expected: Identity):
    assert identify(sent, "US") == expected


@pytest.mark.parametrize(
    "header,country,expected",
    [
        ("<sip:+12025550123@198.51.100.7>;reason=no-answer;counter=1;privacy=off", "US", "+12025550123 (no-answer)"),
        ("<sip:02079460018@gw>;reason=User-Busy", "GB", "+442079460018 (user-busy)"),
        ("<tel:+12025550123>;reason=unconditional", "US", "+12025550123 (unconditional)"),
        ("sip:+12025550123@gw", "US", "+12025550123"),
        ("Front Desk <sip:2501@pbx>;reason=do-not-disturb", "US", "2501 (do-not-disturb)"),
        # The first one is who diverted last (RFC 5806, section 4.1), and keeps its own reason.
        ("<sip:+12025550123@a> <sip:+12025550124@b>;reason=away", "US", "+12025550123"),
        ("<sip:+12025550123@a>;reason=away <sip:+12025550124@b>;reason=busy", "US", "+12025550123 (away)"),
        ("<sip:anonymous@anonymous.invalid>;reason=away", "US", None),
        ("<sip:+12025550123;npdi@a>;reason=away", "US", "+12025550123 (away)"),
        ("", "US", None),
        ("reason=away", "US", None),
        ("<sip:@>", "US", None),
        ("sip:" + "9" * 200, "US", "9" * 32),
    ],
)
def test_diversion(header: str, country: str, expected: str | None):
    assert identify(Sent("+13125550199", diversion=header), country).diverted_from == expected


@pytest.mark.parametrize(
    "text,expected",
    [
        (";verstat=TN-Validation-Passed@gw>::", "TN-Validation-Passed"),
        ("sip:+1312@gw;verstat=TN-Validation-Passed-B>:x:", "TN-Validation-Passed-B"),
        ("::TN-Validation-Passed-A", "TN-Validation-Passed-A"),
        ("::TN-Validation-Failed-C-Diverted", "TN-Validation-Failed-C-Diverted"),
        (";verstat=No-TN-Validation>::TN-Validation-Passed-A", "No-TN-Validation"),
        (";verstat=Fine-By-Me::", None),
        ("::", None),
        ("", None),
    ],
)
def test_verstat(text: str, expected: str | None):
    assert identify(Sent("+13125550199", verstat=text), "US").verstat == expected
