"""The format of a backup: what goes in comes out, and whatever was changed, cut or moved in it is noticed."""

from __future__ import annotations

import io
import os
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.backup import keys, stream
from callrouter.backup.archive import ArchiveReader, ArchiveWriter, Manifest, peek
from callrouter.backup.keys import Lock, make_key_file, read_key_file, read_passphrase_file
from callrouter.backup.stream import CHUNK, SEALED, SealedReader, SealedWriter
from callrouter.errors import ArchiveError, ConflictError, InputError

KEY = Lock("key-file", bytes(range(32)))
WORDS = Lock("passphrase", b"correct horse battery staple")
AT = "2026-11-21T18:05:00+00:00"
MANIFEST = Manifest(
    callrouter="0.1.0", created_at=AT, database="sqlite", revision="0002", recordings=False, config_version=7
)
NOISE = random.Random(7).randbytes(3 * CHUNK + 1000)
FILES = {"a": b"", "b/words": b"spring radio " * 50_000, "b/noise": NOISE, "c": b"x"}


def quiet(_what: str, _done: int, _total: int) -> None:
    """Progress that nobody looks at."""


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "SCRYPT_N", 2**10)


def archive(lock: Lock = KEY, files: dict[str, bytes] | None = None) -> bytes:
    file = io.BytesIO()
    writer = ArchiveWriter(file, lock, version="0.1.0", created_at=AT)
    for number, (name, text) in enumerate((FILES if files is None else files).items()):
        writer.add(name, [text[:1000], text[1000:]], mtime=12.5, pack=number % 2 == 1)
    writer.finish(MANIFEST)
    return file.getvalue()


def head_of(raw: bytes) -> int:
    """Length of a backup's head: three lines."""
    return sum(len(line) for line in io.BytesIO(raw).readlines()[:3])


def opened(raw: bytes, lock: Lock = KEY) -> ArchiveReader:
    return ArchiveReader(io.BytesIO(raw), lock)


@pytest.mark.parametrize("lock", [KEY, WORDS], ids=["key", "passphrase"])
def test_what_goes_in_comes_out(lock: Lock) -> None:
    reader = opened(archive(lock), lock)
    assert {one.name: b"".join(reader.read(one)) for one in reader.manifest.members} == FILES
    assert reader.manifest.member("b/words").stored < 10_000  # type: ignore[union-attr]
    assert {one.mtime for one in reader.manifest.members} == {12.5}
    assert (reader.manifest.revision, reader.manifest.size) == ("0002", sum(map(len, FILES.values())))
    reader.verify(quiet)


def test_nothing_of_it_can_be_read_without_the_key() -> None:
    raw = archive(files={"secrets/trunk-x": b"hunter2hunter2" * 10, "name-of-a-file": b"+12025550123"})
    assert not any(word in raw for word in (b"hunter2", b"secrets/", b"name-of-a-file", b"2025550123"))
    assert archive() != archive(), "no two backups share a key stream"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2 * CHUNK + 5), max_size=4), st.booleans())
def test_a_stream_of_any_length_in_any_pieces(lengths: list[int], at_edge: bool) -> None:
    text = NOISE[: CHUNK * 2] if at_edge else b"".join(NOISE[:length] for length in lengths)
    file = io.BytesIO(b"head")
    file.seek(4)
    writer = SealedWriter(file, bytes(32))
    left = memoryview(text)
    for length in lengths or [7]:
        writer.write(left[:length])
        left = left[length:]
    writer.write(left)
    writer.finish()
    reader = SealedReader(file, bytes(32), 4)
    assert reader.size == len(text)
    assert reader.read(0, reader.size) == text
    assert reader.read(reader.size // 3, reader.size // 2) == text[len(text) // 3 :][: len(text) // 2]


# -- damage ------------------------------------------------------------------------------------------------------------


def refused(raw: bytes, lock: Lock = KEY) -> str:
    with pytest.raises(ArchiveError) as caught:
        opened(raw, lock).verify(quiet)
    return caught.value.message


def flips() -> Iterator[int]:
    """Places all over a backup: its head, the edges of its chunks, its end, and by chance."""
    raw = archive()
    head = head_of(raw)
    yield from range(0, head, 11)
    yield from (head, head + SEALED - 1, head + SEALED, len(raw) - 17, len(raw) - 1)
    yield from random.Random(1).sample(range(head, len(raw)), 20)


@pytest.mark.parametrize("place", sorted(set(flips())))
def test_a_flipped_bit_is_noticed(place: int) -> None:
    raw = bytearray(archive())
    raw[place] ^= 4
    with pytest.raises((ArchiveError, InputError)):
        opened(bytes(raw)).verify(quiet)


def test_a_backup_that_is_cut_off_is_noticed() -> None:
    raw = archive()
    begin = head_of(raw)
    for length in (0, 5, begin - 1, begin, begin + 3, begin + SEALED, begin + 2 * SEALED, len(raw) - 1):
        assert refused(raw[:length])
    assert "its end is missing" in refused(raw[: begin + SEALED])
    assert refused(raw + b"\0")
    assert refused(raw + raw)


def test_chunks_in_another_order_or_twice_or_of_another_backup_are_noticed() -> None:
    raw, other = archive(), archive()
    begin = head_of(raw)
    one, two = slice(begin, begin + SEALED), slice(begin + SEALED, begin + 2 * SEALED)
    rest = raw[begin + 2 * SEALED :]
    assert f"damaged at byte {begin}" in refused(raw[:begin] + raw[two] + raw[one] + rest)
    assert refused(raw[:begin] + raw[one] + raw[one] + rest)
    assert refused(raw[:begin] + raw[one] + rest)
    assert refused(raw[:begin] + other[one] + raw[two] + rest)


def test_a_member_that_is_not_what_the_manifest_says_is_noticed() -> None:
    """Only whoever has the key could make such a file; a fault of ours could too."""
    file = io.BytesIO()
    writer = ArchiveWriter(file, KEY, version="0.1.0", created_at=AT)
    member = writer.add("a", [b"one"], pack=False)
    for change in ({"sha256": "0" * 64}, {"size": 4}, {"stored": 10**9}, {"offset": 1}, {"packed": True}):
        reader = opened(archive(files={"a": b"one"}))
        with pytest.raises(ArchiveError):
            list(reader.read(msgspec.structs.replace(member, **change)))


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up", "", "a\nb", "a\\b"])
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    assert "a name that is none" in refused(archive(files={name: b"x"}))


# -- keys --------------------------------------------------------------------------------------------------------------


def test_the_wrong_key_is_said_to_be_wrong() -> None:
    other = Lock("key-file", b"k" * 32)
    with pytest.raises(InputError, match=f"locked with key {KEY.id}, and this is key {other.id}"):
        opened(archive(), other)
    with pytest.raises(InputError, match="passphrase is not the one"):
        opened(archive(WORDS), Lock("passphrase", b"another passphrase"))
    with pytest.raises(InputError, match="locked with a passphrase, not with a key file") as caught:
        opened(archive(WORDS), KEY)
    assert caught.value.hint == "give --passphrase-file"


def test_a_newer_format_and_other_files_are_told_apart(tmp_path: Path) -> None:
    raw = archive()
    assert "it has format 2; this callrouter reads format 1" in refused(raw.replace(b"backup 1\n", b"backup 2\n", 1))
    for other in (b"", b"PK\x03\x04 a zip", b"callrouter-backup", os.urandom(5000), b"callrouter-backup x\n{}\n"):
        assert "no backup of callrouter" in refused(other)
    path = tmp_path / "x.backup"
    path.write_bytes(raw)
    assert (peek(path).lock, peek(path).key_id, peek(path).created_at) == ("key-file", KEY.id, AT)
    with pytest.raises(ArchiveError, match="No such file"):
        peek(tmp_path / "nothing")


def test_a_head_cannot_ask_for_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "SCRYPT_N", 2**21)
    monkeypatch.setattr(keys, "MAX_SCRYPT_N", 2**22)
    monkeypatch.setattr("callrouter.backup.keys.hashlib.scrypt", lambda *_a, **_k: bytes(32))
    raw = archive(WORDS)
    monkeypatch.undo()
    assert "head of the backup is damaged" in refused(raw, WORDS)


def test_a_key_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "new" / "backup-key"
    made = make_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key_file(path) == made
    assert made.secret.hex() not in repr(made)
    assert repr(made.secret) not in repr(made)
    with pytest.raises(ConflictError, match="is there already"):
        make_key_file(path)
    path.chmod(0o640)
    with pytest.raises(InputError, match="can be read by other users"):
        read_key_file(path)
    path.chmod(0o600)
    path.write_text("hunter2")
    with pytest.raises(InputError, match="holds no backup key"):
        read_key_file(path)
    with pytest.raises(InputError, match="is missing"):
        read_key_file(tmp_path / "nothing")


def test_a_passphrase_is_the_first_line_of_a_file_or_pipe(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery staple\r\nand a remark\n")
    path.chmod(0o600)
    assert read_passphrase_file(path) == WORDS
    path.write_text("short\n")
    with pytest.raises(InputError, match="fewer than 12 characters"):
        read_passphrase_file(path)
    reading, writing = os.pipe()
    os.write(writing, b"correct horse battery staple")
    os.close(writing)
    assert read_passphrase_file(Path(f"/dev/fd/{reading}")) == WORDS
    os.close(reading)


# -- size --------------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_backup(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(96):
            yield NOISE[: 2 * CHUNK]

    path = tmp_path / "x.backup"
    tracemalloc.start()
    with path.open("wb") as file:
        writer = ArchiveWriter(file, KEY, version="0.1.0", created_at=AT)
        writer.add("packed", pieces(), pack=True)
        writer.add("plain", pieces(), pack=False)
        writer.finish(MANIFEST)
    with path.open("rb") as made:
        ArchiveReader(made, KEY).verify(quiet)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 48 * stream.CHUNK
    assert peak < 24 * stream.CHUNK
