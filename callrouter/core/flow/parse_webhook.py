"""Reading the node that asks a web service: ``webhook``."""

from __future__ import annotations

import yaml

from callrouter.core.flow import nodes as n
from callrouter.core.flow.names import NODE_NAME
from callrouter.core.flow.source import Fields, fail, scalar, seconds, words
from callrouter.core.flow.urls import check_url
from callrouter.errors import InputError

OUTCOMES = ("next", "timeout", "failed")
"""What may come of asking without a branch; no branch may be called so."""


def webhook(f: Fields) -> n.Webhook:
    """The fields of a ``webhook``.

    :raises FlowError: no address, one with a password in it, a branch that cannot be called so
    """
    url: str = f.need("url", _url)
    following = f.need("next", scalar)
    failed = f.need("on_failed", scalar)
    none: tuple[tuple[str, str], ...] = ()
    return n.Webhook(
        url=url,
        next=following,
        on_failed=failed,
        on_timeout=f.get("on_timeout", scalar, failed),
        branches=f.get("branches", _branches, none),
        timeout=f.get("timeout", seconds(0.2, 10), 2.0),
    )


def _url(node: yaml.Node, name: str) -> str:
    try:
        return check_url(words(node, name))
    except InputError as exc:
        raise fail(node, exc.message, exc.hint) from exc


def _branches(node: yaml.Node, name: str) -> tuple[tuple[str, str], ...]:
    found = []
    for key, to in Fields(node, name):
        if key in OUTCOMES:
            raise fail(to, f"a branch cannot be called {key!r}", f"{', '.join(OUTCOMES)} have their own exits")
        if not NODE_NAME.fullmatch(key):
            raise fail(to, f"{key!r} is no name of a branch", "use small letters, digits, - and _, like key-account")
        found.append((key, words(to, f"branch {key}")))
    return tuple(found)
