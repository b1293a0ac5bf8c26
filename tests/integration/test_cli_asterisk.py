"""The commands about Asterisk, against a real one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli_home import Cli, cli, free_port, upgraded
from tests.waiting import wait_until

__all__ = ["cli", "upgraded"]
pytestmark = pytest.mark.asterisk

ADDRESS = "127.61.0.1"


@pytest.fixture
def running(cli: Cli, tmp_path: Path) -> Iterator[Cli]:
    """``callrouter asterisk run`` in the background, until AMI answers."""
    first = free_port()
    cli.env |= {f"CALLROUTER_{name}": ADDRESS for name in ("SIP_BIND", "ARI_HOST", "AMI_HOST")}
    cli.env |= {"CALLROUTER_RTP_START": "31000", "CALLROUTER_RTP_END": "31100", "CALLROUTER_SIP_PORT": str(first)}
    cli.env |= {"CALLROUTER_SIMULATOR_ADDRESS": "127.61.0.9"}
    cli("init")
    cli("trunk", "add", "main", "--host", "127.61.0.5")
    env = {**os.environ, **{key: value for key, value in cli.env.items() if value is not None}}
    log = tmp_path / "asterisk.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "callrouter", "asterisk", "run"],
            env=env,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        port = int(cli.env["CALLROUTER_AMI_PORT"] or 0)
        wait_until(lambda: _answers(port) or process.poll() is not None, "AMI answers", 60, 0.1)
        assert process.poll() is None, log.read_text()
        yield cli
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        try:
            probe.connect((ADDRESS, port))
            return bool(probe.recv(64))
        except OSError:
            return False


def _settled(cli: Cli) -> dict[str, str]:
    """doctor's states, once Asterisk has finished its start."""
    states: dict[str, str] = {}

    def settled() -> bool:
        states.update((check["name"], check["state"]) for check in cli.json("doctor", code=None)["checks"])
        return states["ari"] == states["ami"] == "ok"

    wait_until(settled, "ARI and AMI answer", 30, 0.2)
    return states


def test_a_running_asterisk(running):
    cli = running
    states = _settled(cli)
    assert states["trunk main"] == "warn"
    assert states["configuration"] == "ok"
    assert {state for name, state in states.items() if name.startswith("port")} == {"ok"}

    shown = cli.json("asterisk", "status")
    assert int(shown["version"].split(".")[0]) >= 20
    assert shown["channels"] == 0
    assert shown["modules"] > 50
    assert shown["ami"] == "connected"

    # A trunk that Asterisk does not know yet, then does.
    cli("trunk", "add", "late", "--host", "127.61.0.6", "--qualify-seconds", "0")
    check = cli.json("trunk", "test", "late", code=1)
    assert (check["state"], check["mend"]) == ("fail", "callrouter asterisk reload")
    assert cli("asterisk", "render", "--check", code=1)
    done = cli.json("asterisk", "reload")
    assert done["needs_restart"] == []
    assert "pjsip.conf" in done["changed"]
    assert cli("asterisk", "render", "--check")
    assert cli.json("trunk", "test", "late")["state"] == "ok"

    # A password that goes in force without a word of it being shown.
    cli("trunk", "add", "reg", "--host", "127.61.0.7", "--username", "bob", "--registers", code=0)
    secret = cli("trunk", "secret", "reg", "--stdin", input="s3cret-word\n")
    assert "in force" in secret.stdout
    assert "s3cret" not in secret.output
    assert cli.json("trunk", "test", "reg", code=1)["name"] == "trunk reg"

    # A wrong password is told apart from nobody there.
    for name in ("ari-password", "ami-password"):
        (cli.home / "secrets" / name).write_text("wrong\n")
    checks = {check["name"]: check for check in cli.json("doctor", code=1)["checks"]}
    assert "refuses our password" in checks["ari"]["detail"]
    assert "refuses our password" in checks["ami"]["detail"]
    assert "wrong AMI user or password" in cli.refusal("trunk", "test", "late", code=3)["error"]
    assert cli.refusal("asterisk", "status", code=3)


def test_installing_into_their_asterisk(cli, tmp_path):
    theirs = tmp_path / "etc"
    theirs.mkdir()
    (theirs / "asterisk.conf").write_text("[directories]\n")
    (theirs / "modules.conf").write_text("[modules]\nautoload = yes\n")
    (theirs / "pjsip.conf").write_text("[mine]\ntype = transport\nprotocol = udp\nbind = 0.0.0.0\n")
    before = {path.name: path.read_text() for path in theirs.iterdir()}
    cli("init")
    planned = cli("asterisk", "install", "--etc", theirs, "--dry-run").stdout
    assert "pjsip.conf" in planned
    assert {path.name: path.read_text() for path in theirs.iterdir()} == before
    assert "add --yes" in cli.refusal("asterisk", "install", "--etc", theirs, code=2)["hint"]
    cli("asterisk", "install", "--etc", theirs, "--yes")
    assert (theirs / "pjsip.conf").read_text().startswith(before["pjsip.conf"])
    assert (theirs / "asterisk.conf").read_text() == before["asterisk.conf"]

    # From now on rendering keeps to our own directory there.
    env = {"CALLROUTER_ASTERISK_ETC": str(theirs)}
    cli("trunk", "add", "main", "--host", "192.0.2.7")
    cli("asterisk", "render", env=env)
    assert "192.0.2.7" in (theirs / "callrouter.d" / "pjsip.conf").read_text()
    assert (theirs / "asterisk.conf").read_text() == before["asterisk.conf"]

    cli("asterisk", "install", "--etc", theirs, "--remove", "--yes")
    assert (theirs / "pjsip.conf").read_text() == before["pjsip.conf"]


def test_a_configuration_that_cannot_be(cli):
    cli("init")
    told = cli.refusal(
        "asterisk", "render", code=2, env={"CALLROUTER_RTP_START": "20000", "CALLROUTER_RTP_END": "19000"}
    )
    assert "rtp_end" in told["error"]
    assert (
        "asterisk_prefix"
        in cli.refusal("asterisk", "render", code=3, env={"CALLROUTER_ASTERISK_PREFIX": "/nowhere"})["error"]
    )
