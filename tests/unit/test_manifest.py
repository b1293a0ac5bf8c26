"""Manifests as files: the same values give the same bytes, and one appears as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from callrouter.core.records import RecordingKind
from callrouter.errors import InputError
from callrouter.media import manifest
from callrouter.media.manifest import FIRST, Audio, Link, Manifest, decode, digest, inside, part_path

MANIFEST = Manifest(
    recording="c1-l1",
    call="c1",
    leg="c1-l1",
    kind=RecordingKind.CONVERSATION,
    started_at="2026-11-21T22:26:40.000Z",
    ended_at="2026-11-21T22:27:40.000Z",
    audio=Audio("2026/11/21/c1-l1.flac", 1000, "ab" * 32, "flac", 8000, 2, 60.0),
    gaps=({"channel": "caller", "start": 1.0, "end": 2.5, "seconds": 1.5, "why": "its file ends there"},),
    pauses=(),
    consent=None,
    flow="büro@3",
    flow_version="v3",
    policy="the company records its conversations",
    problems=(),
    tool="callrouter 1",
)


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "c1-l1.flac"
    path.write_bytes(b"sound")
    path.chmod(0o640)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_bytes_are_those_of_sorted_json_without_spaces() -> None:
    data = MANIFEST.encode(Link(0, FIRST))
    told = decode(data)
    assert data == json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    assert data == MANIFEST.encode(Link(0, FIRST))
    assert hashlib.sha256(data).hexdigest() == "7e44881944cfff1305264cff07ad37e66916f4d298c4b05971a3121c6abdf70f"
    assert (told["version"], told["seq"], told["previous_sha256"]) == (1, 1, "0" * 64)
    assert told["channel_map"] == {"left": "caller", "right": "business"}
    assert told["audio"]["path"] == "2026/11/21/c1-l1.flac"
    assert (told["flow"], told["pauses"], told["consent"]) == ("büro@3", [], None)


def test_the_next_one_names_this_one() -> None:
    first = MANIFEST.encode(Link(0, FIRST))
    second = decode(replace(MANIFEST, kind=RecordingKind.VOICEMAIL, leg=None).encode(Link(1, digest(first))))
    assert (second["seq"], second["previous_sha256"]) == (2, digest(first))
    assert second["channel_map"] == {"mono": "caller"}


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"version": 2}', b"\xff", b'{"version": 1'])
def test_what_is_no_manifest_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ValueError, match="no manifest"):
        decode(data)


def test_it_gets_its_name_only_when_published(audio: Path) -> None:
    data = MANIFEST.encode(Link(0, FIRST))
    manifest.prepare(audio, data)
    assert names(audio.parent) == [part_path(audio, digest(data)).name, "c1-l1.flac"]
    assert manifest.read(audio, None) is None
    assert manifest.read(audio, digest(data)) == data
    assert manifest.publish(audio, digest(data))
    assert names(audio.parent) == ["c1-l1.flac", "c1-l1.json"]
    assert manifest.read(audio, digest(data)) == data
    assert stat.S_IMODE((audio.parent / "c1-l1.json").stat().st_mode) == 0o640
    assert manifest.publish(audio, digest(data)), "a second time"


def test_publishing_removes_attempts_that_came_to_nothing_and_never_one_s_neighbours(audio: Path) -> None:
    lost, won = MANIFEST.encode(Link(0, FIRST)), MANIFEST.encode(Link(1, "cd" * 32))
    neighbour = audio.with_name("c1-l10.flac")
    neighbour.write_bytes(b"")
    for file, data in ((audio, lost), (audio, won), (neighbour, lost)):
        manifest.prepare(file, data)
    assert manifest.publish(audio, digest(won))
    left = [part_path(neighbour, digest(lost)).name, "c1-l1.flac", "c1-l1.json", "c1-l10.flac"]
    assert names(audio.parent) == left


def test_one_that_is_gone_is_not_published(audio: Path) -> None:
    data = MANIFEST.encode(Link(0, FIRST))
    assert not manifest.publish(audio, digest(data))
    (audio.parent / "c1-l1.json").write_bytes(data + b" ")
    assert not manifest.publish(audio, digest(data))


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_a_disk_that_refuses_leaves_nothing(audio: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuses(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuses)
        with pytest.raises(OSError, match="No space"):
            manifest.prepare(audio, b"{}")
    assert names(audio.parent) == ["c1-l1.flac"]


def test_a_path_does_not_lead_out() -> None:
    with pytest.raises(InputError):
        inside(Path("/srv/recordings"), "../etc/passwd")
    with pytest.raises(InputError):
        inside(Path("/srv/recordings"), "/etc/passwd")
