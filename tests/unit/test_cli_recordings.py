"""Recordings with their manifests on the command line."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from callrouter.cli import recording_verify
from callrouter.config import Settings
from callrouter.core.records import CallRecord, RecordingKind, RecordingRef
from callrouter.jobs.finish_recording import finish_recording
from callrouter.media.manifest import digest
from callrouter.store.call_save import save_call
from callrouter.store.database import Database
from tests.unit.cli_home import Cli, acme, cli, upgraded
from tests.unit.test_cli_calls import START, a_call

__all__ = ["acme", "cli", "upgraded"]


@pytest.fixture
def kept(acme: Cli) -> tuple[Cli, list[CallRecord]]:
    """Three calls with a recording each, finished and in the chain; the last one lacks half of the business's side."""
    settings = Settings(home=str(acme.home))
    settings.recordings.mkdir()
    settings.recording_spool.mkdir(parents=True)
    calls = []
    for number in range(3):
        call = a_call(acme)
        leg = call.legs[0].id
        calls.append(replace(call, recordings=(RecordingRef(leg, RecordingKind.CONVERSATION, leg, START + 5),)))
        tone = 0.2 * np.sin(2 * np.pi * (300 + 50 * number) * np.arange(60 * 8000) / 8000)
        for name in ("rx", "tx"):
            half = number == 2 and name == "tx"
            sf.write(
                settings.recording_spool / f"{leg}-{name}.wav", tone[: len(tone) // (1 + half)], 8000, subtype="PCM_16"
            )

    async def work() -> None:
        database = Database(f"sqlite+aiosqlite:///{acme.home / 'callrouter.db'}")
        for call in calls:
            async with database.session() as session:
                await save_call(session, call)
            await finish_recording(database, settings, {"recording_id": call.recordings[0].id})
        await database.dispose()

    asyncio.run(work())
    return acme, calls


def file_of(cli: Cli, call: CallRecord) -> Path:
    return cli.home / "recordings" / "2026/11/21" / f"{call.recordings[0].id}.flac"


def test_show(kept: tuple[Cli, list[CallRecord]]) -> None:
    cli, calls = kept
    shown = cli("recording", "show", calls[2].id).stdout
    assert "link 3, " in shown
    assert "left: caller, right: business" in shown
    assert "business: 30.0 s from 30.0 s (its file ends there)" in shown
    assert "the company records its conversations" in shown
    assert "callrouter 0.1.0" in shown
    whole = cli.json("recording", "show", calls[0].recordings[0].id)
    assert whole["chain_seq"] == whole["manifest"]["seq"] == 1
    assert whole["manifest"]["gaps"] == whole["gaps"] == []
    manifest = file_of(cli, calls[0]).with_suffix(".json")
    manifest.write_bytes(manifest.read_bytes().replace(b"company", b"nobody!"))
    changed = cli("recording", "show", calls[0].id)
    assert "not the one that was stored: callrouter recording verify" in changed.stderr
    manifest.unlink()
    assert "its manifest is gone" in cli("recording", "show", calls[0].id).stderr
    assert cli.json("recording", "show", calls[0].id)["manifest"] is None


def test_show_one_that_has_no_file_yet(acme: Cli) -> None:
    from tests.unit.test_cli_calls import store

    call = a_call(acme, recordings=(RecordingRef("rec", RecordingKind.VOICEMAIL, None, START),))
    store(acme, call)
    assert "none yet" in acme("recording", "show", "rec").stdout
    assert "No recordings like that" in acme("recording", "list", "--status", "empty").stdout
    assert acme.refusal("recording", "show", "0000", code=1)


def test_export_has_the_manifest_with_it(kept: tuple[Cli, list[CallRecord]], tmp_path: Path) -> None:
    cli, calls = kept
    [copy] = cli.json("recording", "export", calls[0].id, "--to", tmp_path / "out", "--format", "flac")
    manifest = Path(copy).with_suffix(".json")
    assert manifest.read_bytes() == file_of(cli, calls[0]).with_suffix(".json").read_bytes()
    assert json.loads(manifest.read_text())["audio"]["sha256"] == digest(Path(copy).read_bytes())


def test_verify(kept: tuple[Cli, list[CallRecord]]) -> None:
    cli, calls = kept
    clean = cli.json("recording", "verify")
    assert (clean["clean"], clean["checked"], clean["files"], clean["found"]) == (True, 3, 6, {})
    said = cli("recording", "verify").stdout
    assert "3 recordings looked at" in said
    assert "all as stored" in said
    noted = f"3:{clean['head']['sha256']}"
    assert f"newest link: {noted}" in said
    assert cli.json("recording", "verify", "--noted", noted)["clean"] is True
    assert cli.json("recording", "verify", "--since", "7d")["clean"] is True
    assert cli.json("recording", "verify", calls[0].id)["checked"] == 1

    file_of(cli, calls[1]).unlink()
    manifest = file_of(cli, calls[2]).with_suffix(".json")
    manifest.write_bytes(manifest.read_bytes() + b" ")
    found = cli.json("recording", "verify", code=1)
    assert found["found"] == {"missing": 1, "changed": 1}
    assert found["missing"] == [f"2026/11/21/{calls[1].recordings[0].id}.flac"]
    assert found["findings"][0]["do"] == "bring it back from a backup"
    said = cli("recording", "verify", code=1).stdout
    assert f"missing: 2026/11/21/{calls[1].recordings[0].id}.flac: the recording is gone" in said
    assert "to do: bring it back from a backup (" in said
    assert "1 missing, 1 changed" in said
    assert cli.json("recording", "verify", calls[0].id)["clean"] is True
    assert cli.json("recording", "verify", calls[2].id, code=1)["changed"]
    other = "3:" + "ab" * 32
    assert "link 3 is not the one that was noted" in cli("recording", "verify", "--noted", other, code=1).stdout


def test_verify_says_what_it_cannot_read(kept: tuple[Cli, list[CallRecord]], monkeypatch: pytest.MonkeyPatch) -> None:
    cli, calls = kept
    for wrong in ("3", "3:xyz", "0:" + "ab" * 32):
        assert "no link" in cli.refusal("recording", "verify", "--noted", wrong, code=2)["error"]
    assert cli.refusal("recording", "verify", calls[0].id, "--since", "7d", code=2)
    assert cli.refusal("recording", "verify", "--since", "yesterday-ish", code=2)
    for call in calls:
        file_of(cli, call).unlink()
    monkeypatch.setattr(recording_verify, "MOST", 1)
    said = cli("recording", "verify", code=1).stdout
    assert said.count("missing: ") == 1
    assert "… and 2 more" in said
    (cli.home / "recordings").rename(cli.home / "away")
    assert "is missing" in cli.refusal("recording", "verify", code=3)["error"]


def test_verify_with_nothing_to_verify(acme: Cli) -> None:
    (acme.home / "recordings").mkdir()
    assert acme.json("recording", "verify")["clean"] is True
    assert "0 recordings looked at" in acme("recording", "verify").stdout
