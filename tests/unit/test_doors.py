"""Doors that must not stand open: weak passwords, control interfaces for other machines, live_dangerously."""

from __future__ import annotations

import asyncio
import random
import secrets
from pathlib import Path

import msgspec
import pytest

from callrouter.asterisk.doors import dangerous_option, refuse_danger, refuse_open_doors, weakness
from callrouter.asterisk.render import check_settings
from callrouter.asterisk.secrets import ensure_secret, load_secrets, write_secret
from callrouter.bootstrap import open_server
from callrouter.config import Settings
from callrouter.doctor import State, asterisk, machine
from callrouter.errors import CallrouterError, ConfigError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(home=str(tmp_path))
    for name in ("ari-password", "ami-password"):
        ensure_secret(found.secrets_dir, name)
    return found


@pytest.mark.parametrize(
    "secret",
    [
        "", "asterisk", "callrouter", "amp111", "mysecretpassword", "changeme-changeme", "passwordpasswordpassword",
        "aaaaaaaaaaaaaaaaaaaaaaaa", "abababababababababababab", "0123456789012345678901234567",
        "asterisk-asterisk-asterisk", "callrouter-ari-password-1", "1111111111111111112222",
        "Secret-Password-Admin-1", "x7Gq2!pZ",
    ],
)  # fmt: skip
def test_what_can_be_guessed_is_weak(secret: str) -> None:
    assert weakness(secret)


@pytest.mark.parametrize(
    "secret", ["correct horse battery staple", "kX9$mQ2v!rT7pL4w", "3f9a1c7be0d24865a1b2c3d4e5f60718"]
)
def test_what_cannot_be_guessed_is_not(secret: str) -> None:
    assert weakness(secret) is None


def test_no_secret_of_ours_is_ever_weak() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        assert weakness(secrets.token_urlsafe(32)) is None
        assert (
            weakness("".join(rng.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=22)))
            is None
        )


def test_a_weak_secret_stops_the_server_and_is_not_shown(settings: Settings) -> None:
    write_secret(settings.secrets_dir, "ari-password", "mysecretpassword")
    with pytest.raises(ConfigError, match="ari-password is a weak password") as told:
        load_secrets(settings)
    assert "mysecret" not in f"{told.value.message} {told.value.hint}"
    assert "callrouter init" in str(told.value.hint)
    found = machine.secrets(settings)
    assert (found.state, "mysecret" in str(found)) == (State.FAIL, False)


def test_a_providers_password_may_be_what_it_is(settings: Settings) -> None:
    """It is theirs to choose."""
    write_secret(settings.secrets_dir, "trunk-acme", "short")
    assert machine.secrets(settings).state is State.OK


@pytest.mark.parametrize("name", ["ari_host", "ami_host"])
@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7", "10.0.0.5", "2001:db8::1", "asterisk"])
def test_a_control_interface_for_others_is_refused(settings: Settings, name: str, address: str) -> None:
    opened = msgspec.structs.replace(settings, **{name: address})
    for look in (refuse_open_doors, check_settings, refuse_danger):
        with pytest.raises(ConfigError, match=name):
            look(opened)
    assert machine.doors(opened).state is State.FAIL


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.8.7", "::1"])
def test_loopback_is_well(settings: Settings, address: str) -> None:
    refuse_danger(msgspec.structs.replace(settings, ari_host=address, ami_host=address))
    assert machine.doors(settings).state is State.OK


@pytest.mark.parametrize(
    "text, dangerous",
    [
        ("[options]\nlive_dangerously = yes\n", True),
        ("[options]\n  live_dangerously=>true ; for now\n", True),
        ("[options]\nlive_dangerously = no\nLIVE_DANGEROUSLY = 1\n", True),
        ("[options]\nlive_dangerously = no\n", False),
        ("[options]\n;live_dangerously = yes\n", False),
        ("[options]\n", False),
    ],
)
def test_live_dangerously_is_refused(settings: Settings, tmp_path: Path, text: str, dangerous: bool) -> None:
    theirs = tmp_path / "etc"
    theirs.mkdir()
    (theirs / "asterisk.conf").write_text(text)
    assert bool(dangerous_option(theirs)) is dangerous
    found = machine.doors(msgspec.structs.replace(settings, asterisk_etc=str(theirs)))
    assert found.state is (State.FAIL if dangerous else State.OK)


@pytest.mark.parametrize("what", ["weak", "open", "dangerous", "readable"])
def test_the_server_does_not_start_so(settings: Settings, what: str) -> None:
    match what:
        case "weak":
            write_secret(settings.secrets_dir, "ami-password", "asterisk-asterisk-1")
        case "open":
            settings = msgspec.structs.replace(settings, ami_host="0.0.0.0")
        case "dangerous":
            settings.asterisk_etc_dir.mkdir(parents=True)
            (settings.asterisk_etc_dir / "asterisk.conf").write_text("[options]\nlive_dangerously = yes\n")
        case "readable":
            (settings.secrets_dir / "ari-password").chmod(0o644)

    async def start() -> None:
        async with open_server(settings):
            pass

    with pytest.raises(CallrouterError) as told:
        asyncio.run(start())
    assert told.value.hint


@pytest.mark.parametrize("version, state", [("22.10.0", State.WARN), ("20.9.2", State.WARN), ("22.10.1", State.OK)])
def test_an_asterisk_with_known_holes_is_told(
    settings: Settings, tmp_path: Path, version: str, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "prefix"
    (prefix / "sbin").mkdir(parents=True)
    program = prefix / "sbin" / "asterisk"
    program.write_text(f"#!/bin/sh\necho Asterisk {version}\n")
    program.chmod(0o755)
    found = asterisk.installed(msgspec.structs.replace(settings, asterisk_prefix=str(prefix)))
    assert found.state is state
