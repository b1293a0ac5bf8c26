"""What doctor finds, one check at a time."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import msgspec
import pytest

from callrouter.asterisk.ports import Port, require_free_ports
from callrouter.config import Settings
from callrouter.doctor import State, asterisk, business, machine
from callrouter.doctor.ports import owner
from callrouter.doctor.server import fresh_status
from callrouter.errors import ConflictError
from tests.unit.cli_home import Cli, acme, cli, free_port, upgraded
from tests.unit.test_cli import write_status

__all__ = ["acme", "cli", "upgraded"]


@pytest.fixture
def settings(cli: Cli) -> Settings:
    return Settings(home=str(cli.home), ari_port=free_port(), ami_port=free_port())


def test_python_and_clock():
    assert machine.python().state is State.OK
    assert machine.python((3, 10, 2)).state is State.FAIL
    assert machine.zone_data().state is State.OK
    assert "never set" in str(machine.zone_data(0.0).cause)


def test_home(settings, tmp_path):
    assert machine.home(settings).state is State.OK
    absent = machine.home(msgspec.structs.replace(settings, home=str(tmp_path / "none")))
    assert (absent.state, absent.mend) == (State.FAIL, "callrouter init")
    file = tmp_path / "file"
    file.write_text("")
    assert machine.home(msgspec.structs.replace(settings, home=str(file))).state is State.FAIL
    assert machine.disk(settings).state is State.OK


def test_secrets(cli, settings):
    assert machine.secrets(settings).mend == "callrouter init"
    cli("init")
    assert machine.secrets(settings).state is State.OK
    (settings.secrets_dir / "ami-password").chmod(0o644)
    assert machine.secrets(settings).mend == f"chmod 600 {settings.secrets_dir / 'ami-password'}"
    settings.secrets_dir.chmod(0o755)
    assert machine.secrets(settings).mend == f"chmod 700 {settings.secrets_dir}"


def test_recording_directory(cli, settings):
    assert machine.recordings(settings).mend == "callrouter init"
    cli("init")
    assert machine.recordings(settings).state is State.OK
    crowded = msgspec.structs.replace(settings, recording_min_free_mb=10**9)
    assert "MB free, below the limit" in machine.recordings(crowded).detail


def test_speech(settings, monkeypatch):
    assert machine.speech(settings).state is State.OK
    assert "no voice" in machine.speech(msgspec.structs.replace(settings, speech_voice="xx-none")).detail
    monkeypatch.setenv("PATH", "/nowhere")
    assert "espeak-ng" in str(machine.speech(settings).mend)


def test_database(settings):
    assert asyncio.run(business.database(settings)).state is State.OK
    Path(settings.home, "callrouter.db").write_bytes(b"not a database, but long enough to be taken for one" * 100)
    assert "no SQLite database" in asyncio.run(business.database(settings)).detail
    Path(settings.home, "callrouter.db").unlink()
    assert asyncio.run(business.database(settings)).mend == "run: callrouter db upgrade"


async def test_journal(settings):
    assert (await business.journal(settings)).state is State.OK
    write_status(settings.home_dir, journal={"pending": 5_000_000, "problem": None})
    assert (await business.journal(settings)).mend == "callrouter db check"
    write_status(settings.home_dir, journal={"pending": 0, "problem": "the disk is full"})
    assert (await business.journal(settings)).state is State.FAIL


def test_numbers_and_flows(acme, settings):
    def found() -> dict[str, State]:
        return {check.name: check.state for check in asyncio.run(business.numbers(settings))}

    assert found() == {"numbers": State.WARN}
    acme("number", "add", "+12025550100", "--target", "ana")
    assert found() == {"numbers": State.OK}
    acme("flow", "add", "bye", "-", input="start: a\nnodes: {a: {type: hangup}}\n")
    acme("number", "add", "+12025550101", "--flow", "bye")
    assert found() == {"number +12025550101": State.WARN, "flow acme/bye": State.WARN}


def test_ports(settings):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ari = Port("ARI", "ari_port", "127.0.0.1", port, udp=False)
        taken = asterisk.port(ari)
        assert taken.state is State.FAIL
        assert "pytest" in taken.detail or "python" in taken.detail
        assert taken.mend == "stop it, or set another ari_port"
        assert owner(port, udp=True) is None
        with pytest.raises(ConflictError, match=rf"port {port}/tcp at 127.0.0.1 is in use; ARI needs it"):
            require_free_ports(msgspec.structs.replace(settings, ari_port=port, sip_port=free_port()))
    assert asterisk.port(ari).state is State.OK
    assert "cannot listen" in asterisk.port(Port("SIP", "sip_port", "192.0.2.1", port, udp=True)).detail


async def test_asterisk_is_not_running(cli, settings):
    assert (await asterisk.ari(settings)).mend == "callrouter init"
    (settings.secrets_dir).mkdir(mode=0o700)
    for name in ("ari-password", "ami-password"):
        (settings.secrets_dir / name).write_text("x\n")
        (settings.secrets_dir / name).chmod(0o600)
    found = await asterisk.ari(settings)
    assert (found.state, found.cause) == (State.FAIL, "Asterisk is not running")
    manager = (await asterisk.manager(settings))[0]
    assert (manager.state, manager.mend) == (State.FAIL, asterisk.START)


def test_server(settings):
    assert machine.server(settings).state is State.WARN
    write_status(settings.home_dir)
    assert machine.server(settings).state is State.OK
    write_status(settings.home_dir, problems=["trunks: no password"])
    assert machine.server(settings).detail == "trunks: no password"
    write_status(settings.home_dir, at=time.time() - 10)
    assert fresh_status(settings) is None
    (settings.home_dir / "status.json").write_text("{")
    assert fresh_status(settings) is None


def test_the_command(cli):
    cli("init")
    found = cli.json("doctor", code=1)
    assert found["ok"] is False
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert (states["database"], states["ari"], states["configuration"]) == ("ok", "fail", "ok")
    shown = cli("doctor", code=1).stdout
    assert "mend: callrouter up, or callrouter asterisk run" in shown
    (cli.home / "callrouter.toml").write_text("nonsense = 1\n")
    assert cli.json("doctor", code=1)["checks"][-1]["name"] == "settings"


def test_init_twice_changes_nothing(cli):
    (cli.home / "callrouter.db").unlink()
    first = cli.json("init")
    assert [step["what"] for step in first["steps"]][:4] == ["home", "passwords", "settings", "database"]
    secret = (cli.home / "secrets" / "ari-password").read_text()
    (cli.home / "callrouter.toml").write_text('codecs = "alaw"\n')
    cli("init")
    assert (cli.home / "secrets" / "ari-password").read_text() == secret
    assert (cli.home / "callrouter.toml").read_text() == 'codecs = "alaw"\n'
    assert (cli.home / "secrets").stat().st_mode & 0o777 == 0o700
