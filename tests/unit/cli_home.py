"""A home of one's own with an upgraded database, and a way to run commands in it."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from callrouter.cli.app import root
from callrouter.store.database import Database


def free_port() -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cli:
    """Runs commands as the ``callrouter`` program does, errors and exit codes included."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env: dict[str, str | None] = {"CALLROUTER_HOME": str(home), "CALLROUTER_USER": "tester", "EDITOR": None}
        self.env |= {f"CALLROUTER_{name}_PORT": str(free_port()) for name in ("SIP", "ARI", "AMI")}

    def __call__(self, *args: object, code: int | None = 0, **options: Any) -> Result:
        env = {**self.env, **options.pop("env", {})}
        result = CliRunner().invoke(root, [str(arg) for arg in args], env=env, catch_exceptions=False, **options)
        assert code in (None, result.exit_code), f"{args}: exit {result.exit_code}\n{result.output}"
        return result

    def json(self, *args: object, code: int | None = 0, **options: Any) -> Any:
        return json.loads(self(*args, "--json", code=code, **options).stdout)

    def refusal(self, *args: object, code: int, **options: Any) -> dict[str, Any]:
        """The error object of a command that is refused."""
        found: dict[str, Any] = json.loads(self(*args, "--json", code=code, **options).stderr.splitlines()[-1])
        assert found["code"] == code
        return found


@pytest.fixture(scope="session")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables, to be copied: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("upgraded") / "callrouter.db"

    async def make() -> None:
        database = Database(f"sqlite+aiosqlite:///{path}")
        await database.upgrade()
        await database.dispose()

    asyncio.run(make())
    return path


@pytest.fixture
def cli(upgraded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    for name in ("CALLROUTER_CONFIG", "CALLROUTER_DATABASE_URL", "VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(upgraded, home / "callrouter.db")
    return Cli(home)


@pytest.fixture
def acme(cli: Cli) -> Cli:
    """A company with a campaign and a target."""
    cli("company", "add", "acme", "--timezone", "America/New_York")
    cli("campaign", "add", "spring-radio", "--source", "radio", "--medium", "offline")
    cli("target", "add", "ana", "--sip-uri", "sip:ana@192.0.2.10")
    return cli
