"""Our events, resources and requests against Asterisk's own description of its REST interface."""

from __future__ import annotations

import contextlib
import re
import types
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest

from callrouter.asterisk import ari_events
from callrouter.asterisk.ari import AriClient
from callrouter.asterisk.ari_events import EVENT_FILTER, EVENT_TYPES, Epoch
from callrouter.errors import AriError
from callrouter.testing.fake_asterisk import FakeAsterisk
from tests.contract.test_ari_client import CALLS
from tests.integration.edge_asterisk import load_api

pytestmark = pytest.mark.asterisk

FILES = ("events", "channels", "bridges", "playbacks", "recordings", "applications", "asterisk")

RESOURCES = (
    "Channel", "CallerID", "DialplanCEP", "Playback", "LiveRecording", "Bridge", "Application", "AsteriskPing",
    "AsteriskInfo", "SystemInfo", "StatusInfo", "Variable", "Variables",
)  # fmt: skip


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in FILES:
        found |= load_api(name)["models"]
    return found


def described(annotation: Any) -> str:
    """Our annotation in the description's words."""
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = (arg for arg in get_args(annotation) if arg is not type(None))
    if get_origin(annotation) is list:
        (item,) = get_args(annotation)
        return f"List[{described(item)}]"
    if get_origin(annotation) is dict:
        return "object"
    plain = {str: "string", int: "int", bool: "boolean", float: "double", Epoch: "Date"}
    return plain.get(annotation) or annotation.__name__


def properties_of(models: dict[str, Any], name: str) -> dict[str, Any]:
    own = dict(models[name]["properties"])
    if name in EVENT_TYPES:
        own |= models["Event"]["properties"]
    return own


@pytest.mark.parametrize("name", [*EVENT_TYPES, *RESOURCES])
def test_every_field_is_in_asterisks_description(models: dict[str, Any], name: str):
    theirs = properties_of(models, name)
    for field in msgspec.structs.fields(getattr(ari_events, name)):
        assert field.name in theirs, f"{name}.{field.name}"
        described_type = theirs[field.name]["type"].replace("long", "int")
        # The ping's time is called a string there; it has the form of every other time.
        if (name, field.name) != ("AsteriskPing", "timestamp"):
            assert described(field.type) == described_type, f"{name}.{field.name}"
        if field.required:
            assert theirs[field.name].get("required"), f"{name}.{field.name} may be missing"
        if not theirs[field.name].get("required"):
            assert not field.required


def test_every_event_type_is_an_event_there(models: dict[str, Any]):
    assert set(EVENT_TYPES) <= set(models["Event"]["subTypes"])
    assert set(EVENT_FILTER) <= set(EVENT_TYPES)


def operations() -> list[tuple[str, re.Pattern[str], dict[str, str]]]:
    found = []
    for name in FILES:
        for api in load_api(name)["apis"]:
            pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", api["path"]) + "$")
            for operation in api["operations"]:
                params = {p["name"]: p["paramType"] for p in operation.get("parameters", [])}
                found.append((operation["httpMethod"], pattern, params))
    return found


@pytest.mark.parametrize("name", CALLS)
async def test_every_request_is_in_asterisks_description(name: str):
    async with FakeAsterisk() as asterisk, AriClient(asterisk.base_url, asterisk.user, asterisk.password) as ari:
        for method in ("GET", "POST", "PUT", "DELETE"):
            asterisk.reply(method, "", 404, {"message": "Nothing here"})
        with contextlib.suppress(AriError):
            await CALLS[name](ari)
        (request,) = asterisk.requests
    candidates = [
        params
        for method, pattern, params in operations()
        if method == request.method and pattern.match("/" + request.path)
    ]
    assert candidates, f"{request.method} /{request.path}"
    # A described body parameter named "filter" or "fields" is the body itself.
    bodies = {"filter": {"allowed", "disallowed"}}
    allowed = set().union(*(
        {key} if kind != "body" else bodies.get(key, {key}) for key, kind in candidates[0].items()
    ))  # fmt: skip
    assert set(request.args) <= allowed
