"""The house holds the lines that it was built on: read from the imports, not from good intentions."""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "callrouter"
BASE = {"errors", "config", "resources", "logs", "files"}
"""Modules beside the floors that every floor but the core may stand on."""

FLOORS: dict[str, set[str]] = {
    "errors": set(),
    "core": {"errors"},
    "config": {"errors", "resources"},
    "logs": {"errors", "config"},
    "resources": {"errors"},
    "files": {"errors"},
    "asterisk": {*BASE, "core"},
    "store": {*BASE, "core"},
    "export": {*BASE, "core"},
    "media": {*BASE, "core"},
    "backup": {*BASE, "core", "store", "media"},
    "jobs": {*BASE, "core", "asterisk", "store", "export", "media"},
    "runtime": {*BASE, "core", "asterisk", "store", "export", "media"},
    "web": {*BASE, "core", "asterisk", "store", "export", "media"},
    "testing": {*BASE, "core", "asterisk"},
    "bootstrap": {*BASE, "core", "asterisk", "store", "export", "media", "jobs", "runtime", "web"},
    "doctor": {*BASE, "core", "asterisk", "store", "export", "media"},
    "cli": {
        *BASE, "core", "asterisk", "store", "export", "media", "jobs", "runtime", "web", "testing", "bootstrap",
        "doctor", "demo", "backup",
    },
    "demo": {
        *BASE, "core", "asterisk", "store", "export", "media", "jobs", "runtime", "web", "testing", "bootstrap",
        "doctor",
    },
    "__main__": {"cli"},
}  # fmt: skip
"""What each floor may import of ours, besides itself."""

CORE_MAY_USE = {
    "__future__", "bisect", "collections", "csv", "dataclasses", "datetime", "difflib", "enum", "functools", "hashlib",
    "html", "ipaddress", "itertools", "math", "re", "string", "textwrap", "types", "typing", "zoneinfo",
    "opening_hours", "phonenumbers", "yaml",
}  # fmt: skip
"""Values in, values out: nothing that reads a clock, a file, a network or chance."""

CLOCKS = {"now", "utcnow", "today"}
MAX_LINES = 460
BAD_NAME = re.compile(r"Handler|Manager|Helper|Util", re.IGNORECASE)


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
CORE = [name for name in MODULES if name.startswith("callrouter.core")]


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def floor_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported."""
    for node in body:
        if is_type_checking(node) or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        for name in ("body", "orelse", "finalbody"):
            yield from at_import(getattr(node, name, []))
        for inner in getattr(node, "handlers", []):
            yield from at_import(inner.body)


def imported(name: str, node: ast.AST) -> Iterator[str]:
    """Dotted names that an import statement brings in; names from a package are its modules where they are such."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{name}: relative imports hide where a name comes from"
        module = node.module or ""
        for alias in node.names:
            whole = f"{module}.{alias.name}"
            yield whole if whole in MODULES else module


def imports(name: str) -> set[str]:
    """Everything a module imports, anywhere in it, that runs."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree(name))
        if isinstance(node, ast.If) and is_type_checking(node)
        for inner in ast.walk(node)
    }
    return {one for node in ast.walk(tree(name)) if id(node) not in typing_only for one in imported(name, node)}


def test_every_floor_is_known():
    assert {floor_of(name) for name in MODULES} - {""} <= set(FLOORS)


@pytest.mark.parametrize("name", [name for name in MODULES if "." in name])
def test_imports_point_inward(name):
    own = floor_of(name)
    ours = {floor_of(one) for one in imports(name) if one.startswith("callrouter")} - {own, ""}
    assert ours <= FLOORS[own], f"{name} imports {sorted(ours - FLOORS[own])}"


@pytest.mark.parametrize("name", CORE)
def test_the_core_is_pure(name):
    foreign = {one.partition(".")[0] for one in imports(name)} - {"callrouter"}
    assert foreign <= CORE_MAY_USE, f"{name} imports {sorted(foreign - CORE_MAY_USE)}"


@pytest.mark.parametrize("name", CORE)
def test_the_core_is_told_the_time_and_touches_nothing(name):
    for node in ast.walk(tree(name)):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.Global), f"{name}:{node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr not in CLOCKS, f"{name}:{node.lineno} reads a clock"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "print", "input", "exec", "eval", "__import__"}, f"{name}:{node.lineno}"


def test_the_core_stands_alone():
    """Importing it must not bring in what reaches outside, not even through something of ours."""
    reached, todo = set(CORE), list(CORE)
    while todo:
        for one in imports(todo.pop()):
            if one in MODULES and one not in reached:
                reached.add(one)
                todo.append(one)
    assert reached - set(CORE) <= {"callrouter", "callrouter.errors"}


def test_no_imports_go_in_a_circle():
    graph: dict[str, set[str]] = {}
    for name in MODULES:
        found = {one for node in at_import(tree(name).body) for one in imported(name, node)}
        graph[name] = {one for one in found if one in MODULES and one != name}
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as exc:
        pytest.fail(" → ".join(exc.args[1]))


def project_files() -> list[Path]:
    folders = ["callrouter", "tests", "migrations", "scripts", "bench"]
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_files_stay_small():
    long = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in project_files()}
    assert {name: lines for name, lines in long.items() if lines > MAX_LINES} == {}


def test_names_say_what_a_thing_is():
    bad = [str(path.relative_to(ROOT)) for path in project_files() if BAD_NAME.search(path.stem)]
    for name in MODULES:
        bad += [
            f"{name}.{node.name}"
            for node in ast.walk(tree(name))
            if isinstance(node, ast.ClassDef) and BAD_NAME.search(node.name)
        ]
    assert bad == []


def test_the_rules_see_what_they_forbid():
    """The checks above must be able to fail."""
    probe = ast.parse("import asyncio\nfrom callrouter.store import database\ntry:\n  import time\nfinally:\n  pass\n")
    seen = {one for node in at_import(probe.body) for one in imported("probe", node)}
    assert {"asyncio", "time", "callrouter.store.database"} <= seen
    assert "asyncio" not in CORE_MAY_USE
    assert sys.version_info >= (3, 11)
