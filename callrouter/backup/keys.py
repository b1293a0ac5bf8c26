"""What a backup is locked with: a key file that was generated, or a passphrase. And the head of a backup, which says
which of the two, and is authenticated by it.

The head is three lines of text: what the file is, JSON for whoever has to open it, and an HMAC over both. From key or
passphrase and the head's random salt HKDF (RFC 5869) makes one key for the HMAC and one for the content, so no two
backups share a key.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from callrouter.errors import ArchiveError, ConfigError, ConflictError, InputError

FORMAT = 1
"""Moves when an older program could not read the file."""
MAGIC = b"callrouter-backup"
KEY_LINE = "callrouter-backup-key-1 "
KEY_BYTES = 32
MIN_PASSPHRASE = 12
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**17, 8, 1
"""128 MiB and some tenths of a second a try (RFC 7914)."""
MAX_SCRYPT_N = 2**20
"""A head must not be able to ask for more memory than a gigabyte."""
MAX_HEAD = 4096


@dataclass(frozen=True, slots=True, repr=False)
class Lock:
    """A key or passphrase. It does not show itself."""

    kind: Literal["key-file", "passphrase"]
    secret: bytes

    @property
    def id(self) -> str:
        """Tells one key file from another, and nothing about it; empty for a passphrase."""
        if self.kind == "passphrase":
            return ""
        return hashlib.sha256(b"callrouter-backup key id" + self.secret).hexdigest()[:8]


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What can be read of a backup without its key."""

    callrouter: str
    """Version of the program that made it."""
    created_at: str
    """ISO 8601, UTC."""
    lock: Literal["key-file", "passphrase"]
    key_id: str = ""
    salt: str
    """Base64."""
    scrypt: tuple[int, int, int] | None = None


# -- key files and passphrases -----------------------------------------------------------------------------------------


def make_key_file(path: Path) -> Lock:
    """Make a new key file, for its owner alone.

    :raises ConflictError: there is a file already
    :raises ConfigError: it cannot be written
    """
    key = secrets.token_bytes(KEY_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(KEY_LINE + base64.b64encode(key).decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise ConflictError(f"{path} is there already", hint="backups that it opens would be lost with it") from None
    except OSError as exc:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # a part of a key opens nothing
        raise ConfigError(f"{path} cannot be written: {exc.strerror}", hint="give another place") from exc
    return Lock("key-file", key)


def read_key_file(path: Path) -> Lock:
    """
    :raises InputError: it is missing, readable by others, or no key
    """
    words = _private_text(path, "the key file").split()
    try:
        key = base64.b64decode(words[1], validate=True) if f"{words[0]} " == KEY_LINE else b""
    except (IndexError, binascii.Error):
        key = b""
    if len(key) != KEY_BYTES:
        raise InputError(f"{path} holds no backup key", hint="callrouter backup key FILE makes one")
    return Lock("key-file", key)


def read_passphrase_file(path: Path) -> Lock:
    """The first line of a file, or of a pipe.

    :raises InputError: it is missing, readable by others, or too short
    """
    first = _private_text(path, "the passphrase file").partition("\n")[0].strip("\r")
    if len(first) < MIN_PASSPHRASE:
        raise InputError(
            f"the passphrase in {path} has fewer than {MIN_PASSPHRASE} characters",
            hint="a backup can be tried at leisure by whoever finds it: take several words",
        )
    return Lock("passphrase", first.encode())


def _private_text(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            if stat.S_ISREG(facts.st_mode) and stat.S_IMODE(facts.st_mode) & 0o077:
                raise InputError(f"{what} {path} can be read by other users", hint=f"chmod 600 {path}")
            return file.read(MAX_HEAD).decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"{what} {path} is missing", hint="give --key-file, or --passphrase-file") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"{what} {path} cannot be read: {exc}") from exc


# -- the head ----------------------------------------------------------------------------------------------------------


def write_head(file: BinaryIO, lock: Lock, *, version: str, created_at: str) -> bytes:
    """Begin a backup; returns the key for its content."""
    salt = secrets.token_bytes(32)
    passphrase = lock.kind == "passphrase"
    head = Head(
        callrouter=version,
        created_at=created_at,
        lock=lock.kind,
        key_id=lock.id,
        salt=base64.b64encode(salt).decode(),
        scrypt=(SCRYPT_N, SCRYPT_R, SCRYPT_P) if passphrase else None,
    )
    text = b"%s %d\n%s\n" % (MAGIC, FORMAT, msgspec.json.encode(head))
    mac_key, content_key = _keys(_master(lock, salt, head.scrypt), salt)
    file.write(text + hmac.digest(mac_key, text, "sha256").hex().encode() + b"\n")
    return content_key


def read_head(file: BinaryIO) -> tuple[Head, bytes, bytes]:
    """The head of a backup, its text, and the HMAC it claims; the file stands behind it.

    :raises ArchiveError: no backup, or of a newer format
    """
    first = file.readline(MAX_HEAD)
    words = first.split()
    if len(words) != 2 or words[0] != MAGIC or not words[1].isdigit():
        raise ArchiveError("this is no backup of callrouter, or its first line is damaged")
    second = file.readline(MAX_HEAD)
    if int(words[1]) > FORMAT:
        raise ArchiveError(
            f"it has format {int(words[1])}; this callrouter reads format {FORMAT}",
            hint="restore it with the version of callrouter that made it, or a newer one",
        )
    claimed = file.readline(MAX_HEAD)
    try:
        head = msgspec.json.decode(second, type=Head)
        mac = bytes.fromhex(claimed.decode("ascii").strip())
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as exc:
        raise ArchiveError("the head of the backup is damaged") from exc
    return head, first + second, mac


def content_key(head: Head, text: bytes, mac: bytes, lock: Lock) -> bytes:
    """The key for the content.

    :raises InputError: this is not what the backup was locked with
    :raises ArchiveError: the head was changed
    """
    if head.lock != lock.kind:
        given = {"key-file": "a key file", "passphrase": "a passphrase"}
        raise InputError(
            f"the backup is locked with {given[head.lock]}, not with {given[lock.kind]}",
            hint=f"give --{head.lock}" + ("-file" if head.lock == "passphrase" else ""),
        )
    if head.key_id != lock.id:
        raise InputError(f"the backup is locked with key {head.key_id}, and this is key {lock.id}")
    try:
        salt = base64.b64decode(head.salt, validate=True)
    except binascii.Error as exc:
        raise ArchiveError("the head of the backup is damaged") from exc
    mac_key, key = _keys(_master(lock, salt, head.scrypt), salt)
    if not hmac.compare_digest(hmac.digest(mac_key, text, "sha256"), mac):
        if lock.kind == "passphrase":
            raise InputError("the passphrase is not the one the backup was locked with, or its head is damaged")
        raise ArchiveError("the head of the backup is damaged: its checksum does not match")
    return key


def _master(lock: Lock, salt: bytes, scrypt: tuple[int, int, int] | None) -> bytes:
    if lock.kind == "key-file":
        return lock.secret
    n, r, p = scrypt or (0, 0, 0)
    if not (2 <= n <= MAX_SCRYPT_N and n & (n - 1) == 0 and r == SCRYPT_R and 1 <= p <= 4):
        raise ArchiveError("the head of the backup is damaged")
    return hashlib.scrypt(lock.secret, salt=salt, n=n, r=r, p=p, maxmem=128 * r * (n + p + 2), dklen=KEY_BYTES)


def _keys(master: bytes, salt: bytes) -> tuple[bytes, bytes]:
    """(for the head's HMAC, for the content)"""
    made = HKDF(SHA256(), 2 * KEY_BYTES, salt, MAGIC).derive(master)
    return made[:KEY_BYTES], made[KEY_BYTES:]
