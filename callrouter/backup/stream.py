"""An encrypted stream of any length in bounded memory: the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár,
2015) over ChaCha20-Poly1305 (RFC 8439), as age uses it.

The text is cut into chunks. Each is sealed with a nonce made of its number and of whether it is the last, so a chunk
that was changed, moved, left out or put in, and a stream that was cut off, do not open.
"""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from callrouter.errors import ArchiveError

CHUNK = 256 * 1024
TAG = 16
SEALED = CHUNK + TAG


class SealedWriter:
    """Writes an encrypted stream to ``file``, from where it stands.

    :param key: 32 bytes that were never used for another stream
    """

    def __init__(self, file: BinaryIO, key: bytes) -> None:
        self.written = 0
        """Bytes of text so far."""
        self._file = file
        self._cipher = ChaCha20Poly1305(key)
        self._held = bytearray()
        self._number = 0

    def write(self, text: bytes | memoryview) -> None:
        """:raises OSError: the disk is full …"""
        self.written += len(text)
        self._held += text
        # A whole chunk stays until more follows: only then it is not the last.
        while len(self._held) > CHUNK:
            self._seal(bytes(self._held[:CHUNK]), last=False)
            del self._held[:CHUNK]

    def finish(self) -> None:
        """Seal the last chunk. Nothing may be written after."""
        self._seal(bytes(self._held), last=True)
        self._held.clear()

    def _seal(self, text: bytes, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._number, last), text, None))
        self._number += 1


class SealedReader:
    """Reads an encrypted stream, at any place. What it gives was authenticated.

    :param start: where in ``file`` the stream begins; it goes to the file's end
    :raises ArchiveError: cut off, or damaged at its end
    """

    def __init__(self, file: BinaryIO, key: bytes, start: int) -> None:
        self._file = file
        self._cipher = ChaCha20Poly1305(key)
        self._start = start
        length = file.seek(0, os.SEEK_END) - start
        self._chunks = -(-length // SEALED)
        self._at, self._text = -1, b""
        if length < TAG:
            raise ArchiveError("the backup is cut off")
        self.size = length - self._chunks * TAG
        """Bytes of text."""
        self._check_end()

    def read(self, offset: int, count: int) -> bytes:
        """:raises ArchiveError: a chunk is damaged, or there is less text than that"""
        if offset < 0 or offset + count > self.size:
            raise ArchiveError("the backup is damaged: something in it lies outside of it")
        out = io.BytesIO()
        while count:
            number, skip = divmod(offset, CHUNK)
            part = self._chunk(number)[skip : skip + count]
            out.write(part)
            offset, count = offset + len(part), count - len(part)
        return out.getvalue()

    def _chunk(self, number: int) -> bytes:
        if number != self._at:
            text = self._open(number, last=number == self._chunks - 1)
            if text is None:
                raise ArchiveError(f"the backup is damaged at byte {self._start + number * SEALED}")
            self._at, self._text = number, text
        return self._text

    def _open(self, number: int, *, last: bool) -> bytes | None:
        self._file.seek(self._start + number * SEALED)
        try:
            return self._cipher.decrypt(_nonce(number, last), self._file.read(SEALED), None)
        except InvalidTag:
            return None
        except OSError as exc:
            raise ArchiveError(f"the backup cannot be read: {exc.strerror}", hint="look at the disk") from exc

    def _check_end(self) -> None:
        last = self._chunks - 1
        text = self._open(last, last=True)
        if text is None:
            if self._open(last, last=False) is not None:
                raise ArchiveError("the backup is cut off: its end is missing")
            raise ArchiveError(f"the backup is cut off, or damaged at byte {self._start + last * SEALED}")
        self._at, self._text = last, text


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if last else b"\0")
