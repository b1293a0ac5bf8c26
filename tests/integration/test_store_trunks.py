"""Trunks in the database: who follows whom, protection, rates; on SQLite and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from callrouter.core.model import MediaEncryption
from callrouter.errors import CallrouterError, ConflictError, InputError, NotFoundError
from callrouter.store import config
from callrouter.store.database import Database
from tests.integration.test_store_config import change, look


@pytest.fixture
async def three(database: Database) -> Database:
    """a → b → c"""
    for name, after in (("c", None), ("b", "c"), ("a", "b")):
        await change(database, config.add_trunk, name=name, host="sip.example.com", next_trunk=after)
    return database


async def test_a_trunk_is_kept_with_all_that_protects_it(three: Database) -> None:
    given: dict[str, Any] = {
        "media_encryption": "sdes",
        "secure_only": True,
        "next_trunk": "a",
        "setup_seconds": 2.5,
        "rates": [("+44", 12_000), ("+1", 9_000)],
    }
    added = await change(three, config.add_trunk, name="full", host="192.0.2.1", transport="tls", **given)
    assert (added.media_encryption, added.secure_only) == (MediaEncryption.SDES, True)
    assert (added.next_trunk, added.setup_seconds) == ("a", 2.5)
    assert added.rates == (("+1", 9_000), ("+44", 12_000))
    assert await look(three, config.get_trunk, "full") == added
    assert [trunk.next_trunk for trunk in await look(three, config.list_trunks)] == ["b", "c", None, "a"]
    assert added in (await look(three, config.load_config)).trunks
    none = {"next_trunk": "", "rates": [], "media_encryption": "none", "secure_only": False}
    edited = await change(three, config.edit_trunk, "full", none)
    plain = replace(added, next_trunk=None, rates=(), media_encryption=MediaEncryption.NONE, secure_only=False)
    assert edited == await look(three, config.get_trunk, "full") == plain


async def test_a_port_of_its_own_follows_the_transport(three: Database) -> None:
    assert (await change(three, config.edit_trunk, "a", {"transport": "tls"})).port == 5061
    assert (await change(three, config.edit_trunk, "a", {"transport": "tcp"})).port == 5060
    assert (await change(three, config.edit_trunk, "a", {"port": 5070})).port == 5070
    assert (await change(three, config.edit_trunk, "a", {"transport": "tls"})).port == 5070
    assert (await change(three, config.edit_trunk, "a", {"transport": "tls", "port": 5060})).port == 5060


REFUSALS: list[tuple[dict[str, Any], type[CallrouterError], str]] = [
    ({"next_trunk": "d"}, NotFoundError, "no trunk 'd'"),
    ({"next_trunk": "c"}, InputError, "c → c goes round in a circle"),
    ({"next_trunk": "a"}, InputError, "c → a → b → c goes round in a circle"),
    ({"media_encryption": "sdes"}, InputError, "keys in clear"),
    ({"media_encryption": "zrtp"}, InputError, "media-encryption cannot be 'zrtp'"),
    ({"secure_only": True}, InputError, "its own calls too"),
    ({"setup_seconds": 0.4}, InputError, "setup-seconds 0.4 is out of range"),
    ({"setup_seconds": 31}, InputError, "setup-seconds 31 is out of range"),
    ({"rates": [("1", 9)]}, InputError, "no prefix"),
    ({"rates": [("+1", 9), ("+1", 8)]}, InputError, "two rates"),
]


@pytest.mark.parametrize("changes, error, words", REFUSALS)
async def test_what_a_trunk_cannot_be(
    three: Database, changes: dict[str, Any], error: type[CallrouterError], words: str
) -> None:
    before = await look(three, config.list_trunks)
    with pytest.raises(error, match=words) as caught:
        await change(three, config.edit_trunk, "c", changes)
    assert caught.value.hint
    assert await look(three, config.list_trunks) == before


async def test_an_sdes_trunk_cannot_leave_tls(three: Database) -> None:
    await change(three, config.edit_trunk, "c", {"transport": "tls", "media_encryption": "sdes"})
    with pytest.raises(InputError, match="over udp would send its keys in clear"):
        await change(three, config.edit_trunk, "c", {"transport": "udp"})


async def test_a_trunk_that_others_go_on_to_stays(three: Database) -> None:
    with pytest.raises(ConflictError, match="'b' is in use by trunk a, whose next it is"):
        await change(three, config.remove_trunk, "b")
    await change(three, config.edit_trunk, "a", {"next_trunk": None})
    await change(three, config.remove_trunk, "b")
    assert [trunk.name for trunk in await look(three, config.list_trunks)] == ["a", "c"]
