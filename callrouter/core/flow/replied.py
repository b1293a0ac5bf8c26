"""What web services answer, as a flow test or a question about a route states it."""

from __future__ import annotations

from callrouter.core.flow.nodes import Flow, Webhook
from callrouter.core.flow.parse_webhook import OUTCOMES
from callrouter.core.flow.source import suggest
from callrouter.core.records import Reply, WebhookResult
from callrouter.errors import InputError

SAID = "so it was said"


def reply_of(flow: Flow, node: str | None, word: str) -> Reply:
    """What somebody says of a service's answer: "next", "timeout", "failed", or a branch.

    :param node: that asks it; None: all nodes that ask one
    :raises InputError: there is no such node, or it has no such branch
    """
    asking = {name: each for name, each in flow.nodes.items() if isinstance(each, Webhook)}
    if node is not None and node not in asking:
        raise InputError(f"there is no webhook node {node!r}", hint=suggest(node, list(asking)))
    some = [asking[node]] if node is not None else list(asking.values())
    branches = list(dict.fromkeys(name for each in some for name, _ in each.branches))
    if word in branches:
        return Reply(WebhookResult.ANSWERED, SAID, word)
    if word not in OUTCOMES:
        raise InputError(f"a service cannot be said to answer {word!r}", hint=suggest(word, [*branches, *OUTCOMES]))
    result = {"timeout": WebhookResult.TIMEOUT, "failed": WebhookResult.FAILED}.get(word, WebhookResult.ANSWERED)
    return Reply(result, SAID)
