"""Trunk presets."""

from __future__ import annotations

from datetime import date

import pytest

from callrouter.asterisk.presets import Preset, get_preset, load_presets, trunk_from_preset
from callrouter.asterisk.trunk_values import check_trunk
from callrouter.config import load_settings
from callrouter.core.model import CallerIdMode, DidSource, MediaEncryption, NumberFormat
from callrouter.errors import InputError, NotFoundError


def test_all_promised_presets_are_there() -> None:
    assert {preset.name for preset in load_presets()} == {
        "twilio", "telnyx", "flowroute", "voip-ms", "bandwidth", "signalwire", "vonage", "sipgate", "ovh", "plivo",
        "generic-registration", "generic-ip",
    }  # fmt: skip


@pytest.mark.parametrize("preset", load_presets(), ids=lambda preset: preset.name)
def test_preset_makes_a_trunk_that_can_be_rendered(preset: Preset) -> None:
    examples = {value.name: value.example for value in preset.values}
    trunk = trunk_from_preset("line", preset, **examples)
    check_trunk(trunk, load_settings(environ={}))
    required = {value.name: value.example for value in preset.values if value.required}
    check_trunk(trunk_from_preset("line", preset, **required), load_settings(environ={}))
    assert preset.checked >= date(2026, 11, 1)
    assert preset.source.startswith("https://")
    assert (
        preset.verified
        or "could not" in preset.note
        or preset.trunk.get("match")
        or "match" in preset.note
        or preset.note
    )


def test_what_is_offered_over_tls_is_said_and_can_be_rendered() -> None:
    offered = [preset for preset in load_presets() if preset.tls]
    assert {"twilio", "telnyx", "signalwire", "generic-ip"} <= {preset.name for preset in offered}
    for preset in offered:
        assert "--media-encryption sdes" in preset.tls
        examples = {value.name: value.example for value in preset.values}
        trunk = trunk_from_preset(
            "line", preset, **examples, transport="tls", media_encryption="sdes", secure_only=True
        )
        assert (trunk.port, trunk.media_encryption) == (5061, MediaEncryption.SDES)
        check_trunk(trunk, load_settings(environ={}))


def test_values_given_win_over_the_preset() -> None:
    trunk = trunk_from_preset(
        "isp", "twilio", host="acme.pstn.twilio.com", caller_id="fixed", match="10.0.0.1, 10.0.0.2", port="5070"
    )
    assert trunk.caller_id is CallerIdMode.FIXED
    assert trunk.match == ("10.0.0.1", "10.0.0.2")
    assert trunk.port == 5070
    assert (trunk.did_source, trunk.number_format) == (DidSource.REQUEST_URI, NumberFormat.E164)


def test_missing_values_are_asked_for() -> None:
    with pytest.raises(InputError, match="needs host, username") as caught:
        trunk_from_preset("isp", "voip-ms")
    assert "newyork1.voip.ms" in (caught.value.hint or "")


@pytest.mark.parametrize("values", [{"caller_id": "odd"}, {"port": "x"}, {"colour": "red"}])
def test_wrong_values_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(InputError):
        trunk_from_preset("isp", "generic-ip", host="10.0.0.1", **values)


def test_unknown_preset_names_close_ones() -> None:
    with pytest.raises(NotFoundError) as caught:
        get_preset("twillio")
    assert "twilio" in (caught.value.hint or "")
