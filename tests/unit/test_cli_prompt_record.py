"""``prompt record``: what is refused before any telephone rings."""

from __future__ import annotations

import pytest

from tests.unit.cli_home import acme, cli, upgraded

__all__ = ["acme", "cli", "upgraded"]


@pytest.fixture
def house(acme):
    acme("trunk", "add", "main", "--host", "192.0.2.40")
    acme("target", "add", "mobile", "--number", "(202) 555-0188", "--trunk", "main")
    return acme


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["welcome", "--target", "anna"], 1, "no target 'anna'"),
        (["welcome", "--target", "mobile"], 4, "reached over a trunk"),
        (["Wel come", "--target", "ana"], 2, "'Wel come'"),
        (["welcome", "--target", "ana", "--replace"], 1, "no prompt 'welcome'"),
        (["welcome", "--target", "ana", "--seconds", "0"], 2, "--seconds"),
        (["welcome"], 2, "--target"),
    ],
)
def test_refused_before_it_rings(house, words, code, says):
    assert says in house.refusal("prompt", "record", *words, code=code)["error"]
    assert house.json("prompt", "list") == []


def test_asterisk_must_run(house):
    secrets = house.home / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "ari-password").write_text("d7f1c2a9" * 8)
    (secrets / "ari-password").chmod(0o600)
    found = house.refusal("prompt", "record", "welcome", "--target", "ana", code=3)
    assert "is Asterisk running" in found["hint"]
    assert house.json("prompt", "list") == []
