"""Telling the service manager: what goes out, and that nothing happens where nobody listens."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from callrouter.runtime.notify import notify, watchdog_seconds


@pytest.fixture(autouse=True)
def unmanaged(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("abstract", [False, True])
def test_a_state_reaches_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"@callrouter-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert notify("READY=1\nSTATUS=taking calls")
        assert manager.recv(100) == b"READY=1\nSTATUS=taking calls"


@pytest.mark.parametrize("address", [None, "", "/nonexistent/notify", "@nobody-listens-here", "x" * 300])
def test_nobody_listening_is_no_error(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert notify("READY=1") is False


@pytest.mark.parametrize(
    "microseconds, seconds",
    [("10000000", 10.0), ("500000", 0.5), ("0", None), ("-1", None), ("often", None), ("", None)],
)
def test_the_watchdogs_interval(monkeypatch: pytest.MonkeyPatch, microseconds: str, seconds: float | None) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    assert watchdog_seconds() == seconds


def test_no_watchdog_where_none_is_asked_for() -> None:
    assert watchdog_seconds() is None


def test_a_watchdog_meant_for_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_seconds() is None
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_seconds() == 1.0
