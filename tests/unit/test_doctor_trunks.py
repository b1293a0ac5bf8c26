"""What the doctor makes of Asterisk's words on a trunk, and of our certificate."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callrouter.asterisk.ami import Ami
from callrouter.asterisk.ami_events import Contact, Registration
from callrouter.asterisk.tls import self_signed, tls_files
from callrouter.config import Settings
from callrouter.core.model import Trunk
from callrouter.doctor import tls as tls_checks
from callrouter.doctor.finding import Check, State
from callrouter.doctor.tls import tls
from callrouter.doctor.trunks import certificate_fault, last_answer, trunk
from tests.unit.cli_home import Cli, acme, cli, free_port, upgraded

__all__ = ["acme", "cli", "upgraded"]

REGISTER = "res_pjsip_outbound_registration.c: "
TRANSPORT = "res_pjsip/pjsip_transport_events.c: "
LINES = {
    "silent": REGISTER
    + "No response received from 'sip:127.0.0.5:5060' on registration attempt to 'sip:bob@127.0.0.5',"
    " retrying in '15'",
    "busy": REGISTER + "Temporal response '503' received from 'sip:127.0.0.5:5060' on registration attempt to"
    " 'sip:bob@127.0.0.5', retrying in '15' seconds",
    "refused": REGISTER + "'401' fatal response received from 'sip:127.0.0.5:5060' on registration attempt to"
    " 'sip:bob@127.0.0.5', retrying in '600' seconds",
    "forbidden": REGISTER + "'403' Forbidden fatal response received from 'sip:127.0.0.5:5060' on registration attempt"
    " to 'sip:bob@127.0.0.5', retrying in '600' seconds",
    "other": REGISTER + "'403' fatal response received from 'sip:x' on registration attempt to 'sip:eve@127.0.0.5',"
    " retrying in '600' seconds",
    "untrusted": TRANSPORT + "Transport 'cr-tls' to remote '127.0.0.5' - 127.0.0.5:5061 - The certificate is untrusted",
    "fine": TRANSPORT + "Transport 'cr-tls' to remote '127.0.0.5' - 127.0.0.5:5061 - OK",
    "another": TRANSPORT + "Transport 'cr-tls' to remote '127.0.0.6' - 127.0.0.6:5061 - OK",
    "forged": "res_pjsip_session.c:  trunk-x: Call (UDP:127.0.0.9:5060) to extension '1\n"
    '{"timestamp": "", "logmsg": {"level": "ERROR", "location": {"filename": "pjsip_transport_events.c"},'
    " \"message\": \"Transport 'cr-tls' to remote '127.0.0.5' - 127.0.0.5:5061 - OK\"}}\n"
    "res_pjsip_outbound_registration.c: '503' on registration attempt to 'sip:bob@127.0.0.5'",
}


def log_of(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (LINES[name].split(": ", 1) for name in names)
    path.write_text("".join(json_line(*line) for line in lines) + '{"hostname": "cut o')
    return path


def json_line(source: str, message: str) -> str:
    """As Asterisk 22.10.1 writes it."""
    said = {"location": {"filename": source, "function": "f", "line": 1}, "level": "WARNING", "message": message}
    identifiers = {"lwp": 11086, "callid": ""}
    whole = {"hostname": "", "timestamp": "2026-11-22 02:20:49.014", "identifiers": identifiers, "logmsg": said}
    return json.dumps(whole, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(
    "names, answer",
    [
        ((), None),
        (("other", "fine"), None),
        (("refused", "silent"), 0),
        (("silent", "busy", "other"), 503),
        (("silent", "refused"), 401),
        (("forbidden",), 403),
        (("forbidden", "forged"), 403),
    ],
)
def test_the_last_answer_of_a_registrar(tmp_path: Path, names: tuple[str, ...], answer: int | None) -> None:
    assert last_answer(log_of(tmp_path / "messages", *names), "sip:bob@127.0.0.5") == answer
    assert last_answer(tmp_path / "absent", "sip:bob@127.0.0.5") is None


@pytest.mark.parametrize(
    "names, fault",
    [
        ((), None),
        (("untrusted", "another"), "The certificate is untrusted"),
        (("untrusted", "fine"), None),
        (("untrusted", "forged"), "The certificate is untrusted"),
    ],
)
def test_what_was_wrong_with_a_certificate(tmp_path: Path, names: tuple[str, ...], fault: str | None) -> None:
    assert certificate_fault(log_of(tmp_path / "messages", *names), "127.0.0.5") == fault


class Said(Ami):
    """An Asterisk that says what it is told to."""

    def __init__(self, registration: str = "", contact: str = "Reachable", known: bool = True) -> None:
        super().__init__("127.0.0.1", 1, "u", "p")
        self.registration, self.contact, self.known = registration, contact, known

    async def endpoints(self) -> list[str]:
        return ["trunk-isp"] if self.known else []

    async def registrations(self) -> list[Registration]:
        return (
            [Registration("trunk-isp", self.registration, client_uri="sip:bob@127.0.0.5")] if self.registration else []
        )

    async def contacts(self, endpoints: list[str] | None = None) -> list[Contact]:
        return [Contact("trunk-isp", "sip:127.0.0.5", self.contact, 0.012 if self.contact == "Reachable" else None)]


ISP: dict[str, Any] = {"id": "1", "name": "isp", "preset": "generic-ip", "host": "127.0.0.5"}
BOB = {"registers": True, "username": "bob"}


@pytest.mark.parametrize(
    "values, said, log, state, words",
    [
        ({}, Said(known=False), (), State.FAIL, "does not know it"),
        ({}, Said(), (), State.OK, "reachable, 12 ms"),
        ({}, Said(contact="Unreachable"), (), State.WARN, "does not answer OPTIONS"),
        ({"transport": "tls"}, Said(contact="Unreachable"), ("untrusted",), State.FAIL, "the certificate is untrusted"),
        ({"transport": "udp"}, Said(contact="Unreachable"), ("untrusted",), State.WARN, "does not answer OPTIONS"),
        (BOB, Said("Registered"), ("refused",), State.OK, "registered, reachable"),
        (BOB, Said("Rejected"), (), State.FAIL, "rejects our registration as bob"),
        (BOB, Said("Rejected"), ("refused",), State.FAIL, "rejects our registration as bob (401)"),
        (BOB, Said("Rejected"), ("refused", "silent"), State.FAIL, "not registered with 127.0.0.5: it does not answer"),
        (BOB, Said("Rejected"), ("busy",), State.FAIL, "not registered with 127.0.0.5: it answers 503"),
        (BOB, Said("Unregistered"), (), State.FAIL, "not registered with 127.0.0.5 yet"),
        (
            BOB | {"transport": "tls"},
            Said("Rejected"),
            ("untrusted",),
            State.FAIL,
            "no connection to 127.0.0.5 over TLS",
        ),
    ],
)
def test_a_trunk(
    tmp_path: Path, values: dict[str, Any], said: Said, log: tuple[str, ...], state: State, words: str
) -> None:
    settings = Settings(home=str(tmp_path))
    log_of(settings.asterisk_dir / "log" / "messages", *log)
    found: Check = asyncio.run(trunk(settings, said, Trunk(**ISP, **values)))
    assert found.state is state
    assert words in found.detail
    assert (found.cause is None) == (state is State.OK)


# -- our certificate ---------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(cli: Cli) -> Settings:
    return Settings(home=str(cli.home), sip_tls_port=free_port())


def found(settings: Settings) -> dict[str, Check]:
    return {check.name.split()[0] + " " + check.name.split()[-1]: check for check in asyncio.run(tls(settings))}


def test_tls_is_looked_at_when_a_trunk_uses_it(cli: Cli, settings: Settings) -> None:
    cli("trunk", "add", "plain", "--host", "192.0.2.1")
    assert found(settings) == {}
    cli("trunk", "edit", "plain", "--transport", "tls")
    checks = found(settings)
    assert list(checks) == ["tls certificate", f"port {settings.sip_tls_port}/tcp"]
    assert checks["tls certificate"].state is State.WARN
    assert "is self-signed" in checks["tls certificate"].detail
    checks = found(msgspec.structs.replace(settings, sip_tls_verify=False))
    assert "not checked" in checks["tls providers"].detail
    checks = found(msgspec.structs.replace(settings, sip_tls_key="key.pem"))
    assert (checks["tls tls"].state, "belong together" in checks["tls tls"].detail) == (State.FAIL, True)
    assert found(msgspec.structs.replace(settings, asterisk_etc="/etc/asterisk")) == {}


@pytest.mark.parametrize(
    "days, state, words", [(3700, State.FAIL, "ended on"), (3630, State.WARN, "ends on"), (10, State.OK, "until")]
)
def test_a_certificate_that_ends(
    cli: Cli, settings: Settings, monkeypatch: pytest.MonkeyPatch, days: int, state: State, words: str
) -> None:
    cli("trunk", "add", "secure", "--host", "192.0.2.1", "--transport", "tls")
    for name, text in zip(("a.pem", "a.key"), self_signed(["a.example.net"]), strict=True):
        (cli.home / name).write_bytes(text)
        (cli.home / name).chmod(0o600)
    settings = msgspec.structs.replace(settings, sip_tls_certificate="a.pem", sip_tls_key="a.key")

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=days)

    monkeypatch.setattr(tls_checks, "datetime", Later)
    check = found(settings)["tls certificate"]
    assert check.state is state
    assert words in check.detail
    assert tls_files(settings).certificate == cli.home / "a.pem"
