"""``callrouter webhook``, and what other commands say of web services."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli_home import Cli, cli, upgraded

__all__ = ["cli", "upgraded"]

FLOW = """
start: crm
nodes:
  crm:
    type: webhook
    url: https://crm.example.com/ask
    branches: {vip: ana}
    next: desk
    on_failed: desk
  ana: {type: dial, target: ana, on_busy: end, on_no_answer: end, on_failed: end}
  desk: {type: dial, target: bob, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""


@pytest.fixture
def house(cli: Cli, tmp_path: Path) -> Cli:
    cli("company", "add", "acme", "--timezone", "America/New_York")
    for name in ("ana", "bob"):
        cli("target", "add", name, "--company", "acme", "--sip-uri", f"sip:{name}@192.0.2.7")
    (tmp_path / "desk.yaml").write_text(FLOW)
    return cli


def allow(monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    monkeypatch.setenv("CALLROUTER_WEBHOOK_HOSTS", hosts)


def test_the_secret_is_made_once_shown_when_asked_and_made_anew(cli: Cli) -> None:
    told = cli.json("webhook", "secret")
    assert set(told) == {"path", "new"}
    path = Path(told["path"])
    assert path.name == "webhook-secret"
    assert path.stat().st_mode & 0o077 == 0
    kept = path.read_text().strip()
    assert len(kept) >= 43
    assert kept not in cli("webhook", "secret").stdout
    assert cli("webhook", "secret", "--show").stdout == f"{kept}\n"
    told = cli("webhook", "secret", "--new").stdout
    assert "restart the server" in told
    assert path.read_text().strip() not in (kept, told)


def test_a_service_that_is_not_allowed_is_an_error_with_a_hint(
    house: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "desk.yaml")
    refused = house.refusal("flow", "add", "desk", "--company", "acme", file, code=2)
    assert "crm.example.com is not among webhook_hosts" in refused["error"]
    allow(monkeypatch, "crm.example.com")
    assert house.json("flow", "check", file, "--company", "acme")["ok"] is True
    house("flow", "add", "desk", "--company", "acme", file)
    house("number", "add", "+12025550100", "--company", "acme", "--flow", "desk")
    exported = house("routing", "export").stdout
    (tmp_path / "routing.yaml").write_text(exported)
    assert "nothing" in house("routing", "apply", str(tmp_path / "routing.yaml"), "--why", "again").stdout
    allow(monkeypatch, "other.example.com")
    (found,) = house.json("flow", "check", file, "--company", "acme", code=1)["findings"]
    assert (found["node"], found["line"]) == ("crm", 4)
    assert found["hint"] == 'in callrouter.toml: webhook_hosts = "crm.example.com"'
    checked = house("routing", "check", str(tmp_path / "routing.yaml"), code=1)
    assert "crm.example.com is not among webhook_hosts" in checked.stdout + checked.stderr


def test_explain_says_what_it_takes_for_the_answer(house: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, "crm.example.com")
    house("flow", "add", "desk", "--company", "acme", str(tmp_path / "desk.yaml"))
    house("number", "add", "+12025550100", "--company", "acme", "--flow", "desk")
    assumed = house("route", "explain", "+12025550100").stdout
    assert "assumed: nobody said what the service answers" in " ".join(assumed.split())
    for given, rung in (("crm=vip", ["ana"]), ("vip", ["ana"]), ("timeout", ["bob"]), ("crm=failed", ["bob"])):
        assert house.json("route", "explain", "+12025550100", "--webhook", given)["rung"] == rung
    refused = house.refusal("route", "explain", "+12025550100", "--webhook", "crm=vap", code=2)
    assert "'vap'" in refused["error"]
    assert refused["hint"] == "did you mean 'vip'?"


@pytest.mark.parametrize("hosts", ["https://crm.example.com/path", "user@crm.example.com", "a b"])
def test_a_setting_that_names_no_hosts_is_refused(cli: Cli, monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    allow(monkeypatch, hosts)
    assert "webhook_hosts" in cli.refusal("company", "list", code=2)["error"]
