"""The cookbook's businesses: each file is right, does what its tests say, and can be put in force."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from callrouter.core.routing import build_table
from callrouter.core.routing_code.fields import to_snapshot
from callrouter.core.routing_code.read import read_routing
from tests.unit.cli_home import Cli, cli, upgraded

__all__ = ["cli", "upgraded"]

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDE = (DOCS / "guides/cookbook.md").read_text("utf-8")
BUSINESSES = sorted(path.name.removesuffix(".tests.yaml") for path in DOCS.glob("cookbook/*.tests.yaml"))


def files(business: str) -> tuple[Path, Path]:
    """The routing file and its tests."""
    return DOCS / f"cookbook/{business}.yaml", DOCS / f"cookbook/{business}.tests.yaml"


def tried(cli: Cli, business: str, *options: object) -> list[dict[str, Any]]:
    """What came of each of a business's tests."""
    found: list[dict[str, Any]] = cli.json("flow", "test", files(business)[1], *options)["tests"]
    return found


def test_there_are_ten_and_the_guide_names_each():
    assert len(BUSINESSES) == 10
    assert sorted(re.findall(r"\(\.\./cookbook/([a-z-]+)\.yaml\)", GUIDE)) == BUSINESSES
    assert sorted(path.name for path in DOCS.glob("cookbook/*")) == sorted(
        path.name for business in BUSINESSES for path in files(business)
    )


@pytest.mark.parametrize("business", BUSINESSES)
def test_it_is_proven_as_it_stands(cli, business):
    checked = cli.json("routing", "check", "--alone", files(business)[0])
    assert (checked["ok"], checked["findings"]) == (True, [])
    tests = tried(cli, business, "--routing", files(business)[0])
    assert [each["name"] for each in tests if not each["ok"]] == []


@pytest.mark.parametrize("business", BUSINESSES)
def test_every_number_is_called_and_every_node_passed(cli, business):
    table = build_table(to_snapshot(read_routing(files(business)[0].read_text("utf-8")).routing, 0))
    tests = tried(cli, business, "--routing", files(business)[0])
    assert {each["call"]["number"] for each in tests} == set(table.entries)
    nodes = {(one.flow.name, node) for one in table.entries.values() if one.number.flow for node in one.flow.nodes}
    flows = {did: one.flow.name for did, one in table.entries.items()}
    passed = {(flows[each["call"]["number"]], node) for each in tests for node in each["call"]["path"]}
    assert nodes - passed == set()


@pytest.mark.parametrize("business", BUSINESSES)
def test_it_is_put_in_force_and_exported_again(cli, business, tmp_path):
    own, again = tmp_path / "routing.yaml", tmp_path / "again.yaml"
    own.write_text(files(business)[0].read_text("utf-8"))
    cli("routing", "apply", own, "--why", "begin")
    assert all(each["ok"] for each in tried(cli, business))
    cli("routing", "export", "--output", again)
    assert cli.json("routing", "plan", again)["changes"] == []
    assert all(each["ok"] for each in tried(cli, business, "--routing", again))
