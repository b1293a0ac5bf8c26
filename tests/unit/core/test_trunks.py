"""What holds of a trunk by itself."""

from __future__ import annotations

import pytest

from callrouter.core.model import MediaEncryption as Media
from callrouter.core.trunks import checked_rates, default_port, parse_rate, protection_fault, rate_text
from callrouter.errors import InputError


def test_ports() -> None:
    assert [default_port(transport) for transport in ("udp", "tcp", "tls")] == [5060, 5060, 5061]


@pytest.mark.parametrize(
    "transport, media, secure_only, fault",
    [
        ("udp", Media.NONE, False, None),
        ("udp", Media.SDES, False, "media encryption sdes over udp would send its keys in clear"),
        ("tcp", Media.SDES, True, "media encryption sdes over tcp would send its keys in clear"),
        ("udp", Media.DTLS, False, None),
        ("tcp", Media.NONE, True, "secure-only refuses what comes over tcp, its own calls too"),
        ("tls", Media.NONE, False, None),
        ("tls", Media.SDES, True, None),
        ("tls", Media.DTLS, True, None),
    ],
)
def test_protection_that_would_be_none(transport: str, media: Media, secure_only: bool, fault: str | None) -> None:
    found = protection_fault(transport, media, secure_only)
    assert (found[0] if found else None) == fault
    assert found is None or "--transport tls" in found[1]


@pytest.mark.parametrize(
    "text, rate, shown",
    [
        ("+1=0.009", ("+1", 9_000), "+1 0.009"),
        (" +44 = 0.012 ", ("+44", 12_000), "+44 0.012"),
        ("+4420=1", ("+4420", 1_000_000), "+4420 1.00"),
        ("+49=0", ("+49", 0), "+49 0.00"),
        ("+1900=12.345678", ("+1900", 12_345_678), "+1900 12.345678"),
    ],
)
def test_rates(text: str, rate: tuple[str, int], shown: str) -> None:
    assert parse_rate(text) == rate
    assert rate_text(rate) == shown
    assert checked_rates([rate]) == (rate,)


@pytest.mark.parametrize(
    "text", ["+1", "+1=", "=0.1", "+1=cheap", "+1=-0.1", "+1=0.0000001", "+1=1e3", "+1=10000", "+1=nan"]
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(InputError, match="is no rate"):
        parse_rate(text)


@pytest.mark.parametrize(
    "rates, message",
    [
        ([("1", 1)], "no prefix"),
        ([("+0", 1)], "no prefix"),
        ([("+1x", 1)], "no prefix"),
        ([("+1", 1), ("+1", 2)], "two rates for"),
        ([("+1", -1)], "cannot cost"),
        ([("+1", 1_000_000_001)], "cannot cost"),
        ([("+1", 0.5)], "cannot cost"),
    ],
)
def test_rates_that_cannot_be(rates: list[tuple[object, object]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked_rates(rates)


def test_rates_are_kept_by_prefix() -> None:
    assert checked_rates([["+44", 2], ["+1", 1]]) == (("+1", 1), ("+44", 2))
