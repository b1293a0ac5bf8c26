"""Callers who are refused: by number, by prefix, or for withholding their number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from callrouter.core import phone
from callrouter.errors import InputError

ANONYMOUS = "anonymous"
"""The pattern of those who withhold their number."""
REJECTED = "rejected"
"""One of ``nodes.HANGUP_CAUSES``; what a caller is refused with unless it is said otherwise."""
_PREFIX = re.compile(r"\+[1-9][0-9]{0,14}\*")
_SHORT = re.compile(r"[0-9]{2,6}")


@dataclass(frozen=True, slots=True)
class Block:
    """One entry of a block list."""

    id: str
    company_id: str | None
    """None: for all companies."""
    pattern: str
    """"+12025550123", "+1900*" or "anonymous"."""
    reason: str = ""
    cause: str = REJECTED
    """One of ``nodes.HANGUP_CAUSES``."""
    expires_at: float | None = None
    """Seconds since the epoch; None: never."""

    def counts(self, at: float) -> bool:
        """Whether it is in force (``at``: seconds since the epoch)."""
        return self.expires_at is None or at < self.expires_at


def checked_pattern(text: str, country: str) -> str:
    """A pattern as it is kept.

    :param country: ISO 3166 alpha-2, assumed for a number without country code
    :raises InputError: neither a number, nor the beginning of numbers, nor "anonymous"
    """
    given = text.strip()
    if given.lower() == ANONYMOUS:
        return ANONYMOUS
    if given.endswith("*"):
        kept = "".join(ch for ch in given[:-1] if ch not in " -.()") + "*"
        if not _PREFIX.fullmatch(kept):
            raise InputError(
                f"{given!r} is no beginning of numbers", hint="with country code and a star at the end, like +1900*"
            )
        return kept
    return given if _SHORT.fullmatch(given) else phone.normalize(given, country)


@dataclass(frozen=True, slots=True)
class BlockList:
    """All blocks; who looks one up takes as long whether there are ten or a hundred thousand."""

    by_pattern: Mapping[tuple[str | None, str], Block]
    """By company (None: all of them) and pattern."""

    def find(self, company_id: str, caller: str | None, at: float) -> Block | None:
        """What keeps a caller out; the company's own list comes first, and what names the number most exactly.

        :param caller: E.164; None: withheld
        :param at: seconds since the epoch
        """
        for owner in (company_id, None):
            for pattern in _patterns(caller):
                block = self.by_pattern.get((owner, pattern))
                if block is not None and block.counts(at):
                    return block
        return None


NO_BLOCKS = BlockList(MappingProxyType({}))


def block_list(blocks: Iterable[Block]) -> BlockList:
    """Blocks ready to be looked up."""
    return BlockList(MappingProxyType({(block.company_id, block.pattern): block for block in blocks}))


def _patterns(caller: str | None) -> Iterator[str]:
    if caller is None:
        yield ANONYMOUS
        return
    yield caller
    for length in range(len(caller), 1, -1):
        yield caller[:length] + "*"
