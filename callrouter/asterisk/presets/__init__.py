"""Trunk presets: what providers publish about their SIP service, as data files beside this one."""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib import resources
from types import MappingProxyType
from typing import Any

from callrouter.core.model import CallerIdMode, DidSource, MediaEncryption, NumberFormat, Trunk
from callrouter.core.trunks import default_port
from callrouter.errors import InputError, NotFoundError


@dataclass(frozen=True, slots=True)
class PresetValue:
    """Something only the admin knows."""

    name: str
    """Field of ``Trunk``."""
    prompt: str
    example: str
    required: bool


@dataclass(frozen=True, slots=True)
class Preset:
    name: str
    title: str
    checked: date
    """When the values were last compared with ``source``."""
    source: str
    """Address of the provider's page."""
    verified: bool
    """False: the page could not be read, or does not name everything; ``note`` says what to look up."""
    note: str
    tls: str
    """What to do for TLS and SRTP; empty: its pages were not found to offer them."""
    trunk: Mapping[str, Any]
    """Fields of ``Trunk``."""
    values: tuple[PresetValue, ...]

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the values that must be given."""
        return tuple(value.name for value in self.values if value.required)


@functools.cache
def load_presets() -> tuple[Preset, ...]:
    """All presets, by name; the generic ones last."""
    found = [
        _parse(entry.name.removesuffix(".toml"), entry.read_text("utf-8"))
        for entry in resources.files(__package__).iterdir()
        if entry.name.endswith(".toml")
    ]
    return tuple(sorted(found, key=lambda preset: (preset.name.startswith("generic"), preset.name)))


def get_preset(name: str) -> Preset:
    """
    :raises NotFoundError: no such preset; the hint names close ones
    """
    for preset in load_presets():
        if preset.name == name:
            return preset
    names = [preset.name for preset in load_presets()]
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5) or names
    raise NotFoundError(f"there is no trunk preset {name!r}", hint=f"did you mean {', '.join(close)}?")


def trunk_from_preset(name: str, preset: str | Preset, *, trunk_id: str = "", **values: Any) -> Trunk:
    """A trunk with a preset's values, overridden by ``values`` (fields of ``Trunk``; None: not given).

    :raises NotFoundError: no such preset
    :raises InputError: a required value is missing, or one is of the wrong kind
    """
    chosen = get_preset(preset) if isinstance(preset, str) else preset
    given = {key: value for key, value in values.items() if value not in (None, "", ())}
    missing = [value for value in chosen.values if value.required and value.name not in given]
    if missing:
        asked = "; ".join(f"--{value.name} ({value.prompt}, like {value.example})" for value in missing)
        raise InputError(f"a {chosen.title} trunk needs {', '.join(v.name for v in missing)}", hint=f"give {asked}")
    fields = {**chosen.trunk, **given}
    unknown = set(fields) - set(Trunk.__dataclass_fields__)
    if unknown:
        raise InputError(f"a trunk has no {', '.join(sorted(unknown))}")
    for key in ("match", "codecs", "rates"):
        if isinstance(fields.get(key), str):
            fields[key] = tuple(part.strip() for part in fields[key].split(",") if part.strip())
        elif key in fields:
            fields[key] = tuple(fields[key])
    for key, kind in (
        ("caller_id", CallerIdMode),
        ("did_source", DidSource),
        ("number_format", NumberFormat),
        ("media_encryption", MediaEncryption),
    ):
        if key in fields:
            try:
                fields[key] = kind(fields[key])
            except ValueError as exc:
                raise InputError(
                    f"{key}: {fields[key]!r} is none of {', '.join(member.value for member in kind)}"
                ) from exc
    for key in ("port", "qualify_seconds"):
        if key in fields:
            try:
                fields[key] = int(fields[key])
            except (TypeError, ValueError) as exc:
                raise InputError(f"{key}: {fields[key]!r} is no whole number") from exc
    if "transport" in given and "port" not in given:
        fields["port"] = default_port(given["transport"])
    elif "port" not in fields:
        fields["port"] = default_port(fields.get("transport", "udp"))
    return Trunk(id=trunk_id, name=name, preset=chosen.name, **fields)


def _parse(name: str, text: str) -> Preset:
    raw = tomllib.loads(text)
    return Preset(
        name=name,
        title=raw["title"],
        checked=raw["checked"],
        source=raw["source"],
        verified=raw["verified"],
        note=" ".join(raw["note"].split()),
        tls=" ".join(raw.get("tls", "").split()),
        trunk=MappingProxyType(raw["trunk"]),
        values=tuple(PresetValue(key, **value) for key, value in raw.get("values", {}).items()),
    )
