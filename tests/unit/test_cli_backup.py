"""``callrouter backup`` as its user meets it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from callrouter.asterisk.secrets import ensure_secret
from callrouter.backup.work import NAME as WORK
from callrouter.backup.work import work_directory
from callrouter.store.database import Database
from tests.unit.cli_home import Cli, acme, cli, upgraded
from tests.waiting import wait_until

__all__ = ["acme", "cli", "upgraded"]

HUGE = 3_000_000_000


def run(cli: Cli, *args: object, limit: int | None = None) -> subprocess.Popen[str]:
    """The command as a process of its own.

    :param limit: bytes that a file may have: what a full disk does
    """

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    env = {**os.environ, **{key: value for key, value in cli.env.items() if value is not None}}
    return subprocess.Popen(
        [sys.executable, "-m", "callrouter", *map(str, args)],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=limited,
    )


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


@pytest.fixture
def made(acme: Cli, tmp_path: Path) -> Path:
    """A backup with the default key."""
    return Path(acme.json("backup", "create", tmp_path / "x.backup")["file"])


def test_the_first_backup_makes_a_key_and_says_where_it_lies(acme: Cli, tmp_path: Path) -> None:
    first = acme("backup", "create", tmp_path)
    key = acme.home / "secrets" / "backup-key"
    assert f"in {key}. Keep a copy elsewhere" in first.stderr
    assert key.stat().st_mode & 0o777 == 0o600
    [archive] = tmp_path.glob("callrouter-*Z.backup")
    assert archive.stat().st_mode & 0o777 == 0o600
    assert f"{archive} (" in first.stdout
    assert "without recordings" in first.stdout
    shown = acme.json("backup", "create", tmp_path / "second.backup", "--recordings")
    assert shown == {
        "file": str(tmp_path / "second.backup"),
        "bytes": (tmp_path / "second.backup").stat().st_size,
        "key": acme.json("backup", "key")["key"],
        "created_at": shown["created_at"],
        "callrouter": shown["callrouter"],
        "database": "sqlite",
        "schema": shown["schema"],
        "recordings": True,
        "files": 2,
        "content_bytes": shown["content_bytes"],
    }
    assert "warning" not in acme("backup", "create", tmp_path / "third.backup").stderr
    assert not (acme.home / WORK).exists()


def test_a_backup_is_never_overwritten(acme: Cli, made: Path) -> None:
    before = made.read_bytes()
    assert "is there already" in acme.refusal("backup", "create", made, code=4)["error"]
    assert made.read_bytes() == before
    assert "cannot be written" in acme.refusal("backup", "create", made.parent / "no" / "x", code=3)["error"]


def test_a_backup_is_shown_and_verified(acme: Cli, made: Path) -> None:
    shown = acme("backup", "show", made).stdout
    assert "sqlite, schema" in shown
    assert "database/callrouter.db" in shown
    assert "secrets/backup-key" in shown
    listed = acme.json("backup", "show", made)
    assert {one["name"] for one in listed["members"]} == {"database/callrouter.db", "secrets/backup-key"}
    assert all(len(one["sha256"]) == 64 for one in listed["members"])
    assert "is whole: 2 files" in acme("backup", "verify", made).stdout
    assert acme.json("backup", "verify", made)["ok"] is True
    raw = bytearray(made.read_bytes())
    raw[len(raw) // 2] ^= 1
    made.write_bytes(raw)
    assert f"{made}: the backup is" in acme.refusal("backup", "verify", made, code=1)["error"]
    made.write_bytes(raw[:300])
    assert "cut off" in acme.refusal("backup", "show", made, code=1)["error"]
    assert "No such file" in acme.refusal("backup", "show", made.parent / "gone", code=1)["error"]
    assert "no backup of callrouter" in acme.refusal("backup", "show", acme.home / "callrouter.db", code=1)["error"]


def test_a_fresh_machine_needs_the_key_and_then_has_everything(acme: Cli, made: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    missing = acme.refusal("backup", "restore", made, "--home", fresh, code=2)
    assert "backup-key is missing" in missing["error"]
    assert "--key-file" in missing["hint"]
    other = tmp_path / "other-key"
    assert acme.json("backup", "key", other)["made"] is True
    wrong = acme.refusal("backup", "restore", made, "--home", fresh, "--key-file", other, code=2)
    assert "is locked with key" in wrong["error"]
    assert not fresh.exists()
    key = tmp_path / "kept-elsewhere"
    shutil.move(acme.home / "secrets" / "backup-key", key)
    said = acme("backup", "restore", made, "--home", fresh, "--key-file", key).stdout
    assert f"{fresh}: as of " in said
    assert "callrouter asterisk render" in said
    assert "acme" in acme("company", "list", "--home", fresh).stdout
    assert (fresh / "secrets").stat().st_mode & 0o777 == 0o700
    assert acme.json("backup", "key", "--home", fresh)["made"] is False


def test_a_passphrase_in_place_of_a_key(acme: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callrouter.backup.keys.SCRYPT_N", 2**10)
    words, archive = tmp_path / "words", tmp_path / "x.backup"
    words.write_text("correct horse battery staple\n")
    assert "chmod 600" in acme.refusal("backup", "create", archive, "--passphrase-file", words, code=2)["hint"]
    words.chmod(0o600)
    assert "locked with a passphrase" in acme("backup", "create", archive, "--passphrase-file", words).stdout
    assert not (acme.home / "secrets" / "backup-key").exists()
    assert "give --passphrase-file" in acme.refusal("backup", "verify", archive, code=2)["hint"]
    acme("backup", "verify", archive, "--passphrase-file", words)
    words.write_text("another horse battery staple\n")
    assert "not the one" in acme.refusal("backup", "verify", archive, "--passphrase-file", words, code=2)["error"]
    acme("backup", "verify", archive, "--passphrase-file", words, "--key-file", words, code=2)


def test_what_is_there_is_kept_unless_forced(acme: Cli, made: Path) -> None:
    acme("company", "add", "later", "--timezone", "Europe/Berlin")
    refused = acme.refusal("backup", "restore", made, code=4)
    assert str(acme.home / "callrouter.db") in refused["error"]
    assert "--force" in refused["hint"]
    done = acme.json("backup", "restore", made, "--force")
    assert "later" not in acme("company", "list").stdout
    [aside] = done["aside"]
    assert files(Path(aside)) == ["database/callrouter.db", "secrets/backup-key"]
    assert done["next"][0] == "callrouter asterisk render"


def test_the_settings_of_the_backup_come_with_it_unless_others_are_named(acme: Cli, tmp_path: Path) -> None:
    (acme.home / "callrouter.toml").write_text('country = "DE"\nrecordings_dir = "sound"\n')
    (acme.home / "sound").mkdir()
    (acme.home / "sound" / "a.flac").write_bytes(b"fLaC")
    archive = tmp_path / "x.backup"
    acme("backup", "create", archive, "--recordings")
    key = acme.home / "secrets" / "backup-key"
    acme("backup", "restore", archive, "--home", tmp_path / "one", "--key-file", key)
    assert (tmp_path / "one" / "callrouter.toml").read_text().startswith('country = "DE"')
    assert (tmp_path / "one" / "sound" / "a.flac").is_file()
    own = tmp_path / "own.toml"
    own.write_text('country = "FR"\n')
    acme("backup", "restore", archive, "--home", tmp_path / "two", "--key-file", key, "--config", own)
    assert (tmp_path / "two" / "recordings" / "a.flac").is_file()


def test_only_one_backup_is_made_at_a_time_and_what_a_killed_one_left_is_removed(acme: Cli, tmp_path: Path) -> None:
    with work_directory(acme.home):
        refused = acme.refusal("backup", "create", tmp_path / "x.backup", code=4)
        assert "another backup or restore is at work" in refused["error"]
    left = acme.home / WORK / "unpacked" / "secrets"
    left.mkdir(parents=True)
    (acme.home / WORK / "database").write_text("half of it")
    acme("backup", "create", tmp_path / "x.backup")
    assert not (acme.home / WORK).exists()


def test_without_a_database_there_is_no_backup(acme: Cli, tmp_path: Path) -> None:
    (acme.home / "callrouter.db").unlink()
    refused = acme.refusal("backup", "create", tmp_path / "x.backup", code=3)
    assert "is not set up" in refused["error"]
    assert not list(tmp_path.glob("*.backup")) + list(tmp_path.glob(".*.part"))
    (acme.home / "callrouter.db").write_bytes(b"no database at all" * 1000)
    assert "no SQLite database" in acme.refusal("backup", "create", tmp_path / "x.backup", code=3)["error"]
    there = tmp_path / "nowhere"
    assert acme.refusal("backup", "create", tmp_path / "y.backup", "--home", there, code=3)["code"] == 3


# -- full disks, Ctrl-C ------------------------------------------------------------------------------------------------


def huge(cli: Cli) -> None:
    """A recording that takes a while, and no space."""
    (cli.home / "recordings").mkdir(exist_ok=True)
    with (cli.home / "recordings" / "long.flac").open("wb") as file:
        file.truncate(HUGE)


def test_a_full_disk_leaves_no_half_backup(acme: Cli, tmp_path: Path, made: Path) -> None:
    huge(acme)
    there = files(tmp_path)
    process = run(acme, "backup", "create", tmp_path / "full.backup", "--recordings", "--json", limit=2_000_000)
    error = json.loads(process.communicate(timeout=60)[1].splitlines()[-1])
    assert process.returncode == 3
    assert "full.backup cannot be written: File too large" in error["error"]
    assert files(tmp_path) == there
    # The copy of the database does not fit either.
    process = run(acme, "backup", "create", tmp_path / "full.backup", "--json", limit=100_000)
    error = json.loads(process.communicate(timeout=60)[1].splitlines()[-1])
    assert (process.returncode, error["code"]) == (3, 3)
    assert files(tmp_path) == there
    # Nor what is restored.
    process = run(acme, "backup", "restore", made, "--force", "--json", limit=100_000)
    error = json.loads(process.communicate(timeout=60)[1].splitlines()[-1])
    assert process.returncode == 3
    assert "nothing was changed" in error["hint"]
    assert files(tmp_path) == there


def test_an_interrupted_backup_leaves_nothing(acme: Cli, tmp_path: Path, made: Path) -> None:
    huge(acme)
    there = files(tmp_path)
    process = run(acme, "backup", "create", tmp_path / "late.backup", "--recordings")
    wait_until(
        lambda: (
            process.poll() is not None
            or any(path.stat().st_size > 10_000_000 for path in tmp_path.glob(".late.backup.*.part"))
        ),
        "it is being written",
        30,
    )
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert files(tmp_path) == there
    assert made.exists()


KILLED = """
import os, pathlib, sys
from callrouter.cli.app import root
real, left = pathlib.Path.rename, int(sys.argv[1])
def rename(self, target):
    global left
    left -= 1
    if left < 0:
        os._exit(9)
    return real(self, target)
pathlib.Path.rename = rename
root.main(sys.argv[2:])
"""


def test_a_restore_that_is_killed_in_the_middle_is_made_again(acme: Cli, tmp_path: Path) -> None:
    """The database is as it was, or not there: no server starts on half of a restore."""
    acme("company", "add", "then", "--timezone", "Europe/Berlin")
    ensure_secret(acme.home / "secrets", "ari-password")
    archive = tmp_path / "x.backup"
    acme("backup", "create", archive)
    acme("company", "add", "since", "--timezone", "Europe/Berlin")
    key = acme.home / "secrets" / "backup-key"
    moves = 6  # three files away, three files in
    for count in (0, 1, moves - 1, moves):
        home = tmp_path / f"copy-{count}"
        shutil.copytree(acme.home, home)
        command = ["backup", "restore", str(archive), "--home", str(home), "--key-file", str(key), "--force"]
        done = subprocess.run([sys.executable, "-c", KILLED, str(count), *command], capture_output=True, check=False)
        assert done.returncode == (0 if count == moves else 9), done.stderr
        assert (home / "callrouter.db").exists() is (count in (0, moves))
        if count == 0:
            assert "since" in acme("company", "list", "--home", home).stdout
        if count < moves:
            acme(*command)
        assert "since" not in acme("company", "list", "--home", home).stdout
        assert "then" in acme("company", "list", "--home", home).stdout
        kept = list(home.glob("before-restore-*/database/callrouter.db"))
        assert any(b"since" in path.read_bytes() for path in kept)


def test_an_upgrade_names_its_copy_and_a_start_refuses_an_older_schema(cli: Cli) -> None:
    import asyncio

    async def older() -> None:
        database = Database(f"sqlite+aiosqlite:///{cli.home / 'callrouter.db'}")
        await database.downgrade("0001")
        await database.dispose()

    asyncio.run(older())
    for copy in cli.home.glob("*.before-*"):
        copy.unlink()
    for command in (["company", "list"], ["db", "check"]):
        said: Any = cli(*command, code=None)
        assert "callrouter db upgrade" in said.output + said.stderr
    ensure_secret(cli.home / "secrets", "ari-password")
    ensure_secret(cli.home / "secrets", "ami-password")
    process = run(cli, "serve")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, out + err
    assert "callrouter db upgrade" in err
    done = cli("db", "upgrade").stdout
    [copy] = cli.home.glob("callrouter.db.before-*-from-0001")
    assert f"as it was before: {copy}" in done
