"""The reference pages are what the commands and settings make of them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from callrouter.cli.reference import commands, describe_settings, pages, settings_sample
from callrouter.config import Settings, load_settings

DIRECTORY = Path(__file__).resolve().parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", ["cli.md", "settings.md"])
def test_pages_are_up_to_date(name):
    stale = (DIRECTORY / name).read_text("utf-8") != pages()[name]
    assert not stale, "run: python -m callrouter.cli.reference --write"


def test_pages_name_every_setting_and_command():
    made = pages()
    for field in msgspec.structs.fields(Settings):
        assert f"## {field.name}\n" in made["settings.md"]
    for path, _, _ in commands():
        assert f" {path}\n" in made["cli.md"]


def test_every_setting_is_described():
    for each in describe_settings():
        assert each.description, each.name
        assert each.kind, each.name


def test_the_sample_holds_every_setting_at_its_default(tmp_path):
    sample = settings_sample()
    assert tomllib.loads(sample) == {}
    bare = "\n".join(
        line.removeprefix("# ")
        for line in sample.splitlines()
        if " = " in line and line.startswith("# ") and "(" not in line
    )
    (tmp_path / "callrouter.toml").write_text(bare)
    loaded = load_settings(tmp_path / "callrouter.toml", {})
    assert loaded == Settings()
    assert set(tomllib.loads(bare)) == {each.name for each in describe_settings()} - {"home"}
