"""The documentation holds as far as a program can tell: flows parse, commands exist, links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections import deque
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import pytest

from callrouter.cli.app import root
from callrouter.config import Settings
from callrouter.core.disposition import CAUSES, Disposition, LegResult
from callrouter.core.events import Event
from callrouter.core.flow import nodes as n
from callrouter.core.flow.check import check_flow, prompts_of
from callrouter.core.flow.link import together
from callrouter.core.flow.parse import NODE_TYPES, parse_flow
from callrouter.core.notes import Note
from callrouter.core.records import CallRecord, Leg, RecordingKind, RecordingStatus
from callrouter.errors import FlowError

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
ADRS = sorted((DOCS / "adr").glob("[0-9]*.md"))
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def read(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def fences(text: str, language: str) -> list[str]:
    return [found[3] for found in FENCE.finditer(text) if found[2] == language]


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", text)


def section(text: str, title: str) -> str:
    """From a heading of the second level to the next."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {title!r}"
    return found[1]


def first_cells(text: str) -> set[str]:
    """Everything in code style in the first column of a page's tables."""
    rows = re.findall(r"^\| (`[^|]+) \|", prose(text), re.MULTILINE)
    return {span for row in rows for span in CODE_SPAN.findall(row)}


# -- flows -------------------------------------------------------------------------------------------------------------


def documented_flows() -> Iterator[Any]:
    for page in PAGES:
        for number, text in enumerate(fences(page.read_text("utf-8"), "yaml")):
            if re.search(r"^nodes:", text, re.MULTILINE):
                yield pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")
    for path in sorted((ROOT / "dialplans/flows").glob("*.yaml")):
        yield pytest.param(path.read_text("utf-8"), id=path.name)


@pytest.mark.parametrize("text", list(documented_flows()))
def test_documented_flow_holds_together(text: str) -> None:
    flow = parse_flow(text, "documented")
    dials = [node for node in flow.nodes.values() if isinstance(node, n.Dial)]
    targets = {node.target for node in dials}
    groups = {node.group for node in dials if node.group is not None}
    files = {prompt.file for node in flow.nodes.values() for prompt in prompts_of(node) if prompt.file}
    others = [
        n.Flow(node.flow, "start", {"start": n.Hangup(), **({node.node: n.Hangup()} if node.node else {})})
        for node in flow.nodes.values()
        if isinstance(node, n.GotoFlow)
    ]
    found = check_flow(flow, targets, files, groups, others=together(others))
    assert [each for each in found if each.severity == "error"] == []


@pytest.mark.parametrize("page", ["reference/flow.md", "guides/first-flow.md"])
def test_every_yaml_example_about_flows_is_a_whole_flow(page: str) -> None:
    assert all("nodes:" in text for text in fences(read(page), "yaml"))


@pytest.mark.parametrize("kind", NODE_TYPES)
def test_node_type_is_documented_with_exactly_its_fields_and_an_example(kind: str) -> None:
    part = section(read("reference/flow.md"), kind)
    (example,) = fences(part, "yaml")
    block = f"    type: {kind}\n"
    assert block in example, "the example shows its node in full"
    with pytest.raises(FlowError) as refused:
        parse_flow(example.replace(block, block + "    zzzzzz: 1\n", 1), "documented")
    known = str(refused.value.hint).removeprefix("known: ").split(", ")
    tables = part.split("| cause | Q.850 |")[0]  # hangup has a second table, of causes
    assert first_cells(tables) == set(known) - {"type"}


def test_hangup_causes_are_documented() -> None:
    part = section(read("reference/flow.md"), "hangup")
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| \d{3} ", part, re.MULTILINE)
    assert {name: int(number) for name, number in rows} == n.HANGUP_CAUSES


# -- commands ----------------------------------------------------------------------------------------------------------

COMMAND = re.compile(
    r"^(?:sudo -u callrouter (?:env \S+ )?|docker compose exec \w+ |[A-Z_]+=\S+ )*(?:\S*/)?callrouter +(?=\S)(.+)$"
)


def command_lines(text: str) -> Iterator[str]:
    """What a page shows of the command line, without what the shell does with it."""
    lines = [line.strip() for found in FENCE.finditer(text) for line in found[3].splitlines()]
    lines += [line.strip() for line in prose(text).splitlines() if line.startswith("    ")]
    for line in [*lines, *CODE_SPAN.findall(prose(text))]:
        found = COMMAND.match(line)
        if found and "…" not in found[1].split()[0] and "[OPTIONS]" not in found[1]:
            # What follows two spaces is said about the command.
            yield re.split(r" (?:\||&&|>|>>) |  ", found[1])[0]


def problem_of(line: str) -> str | None:
    """Why a command line is none of ours."""
    words = deque(shlex.split(line, comments=True))
    command: click.Command = root
    context = click.Context(root, info_name="callrouter")
    given = 0
    while words:
        word = words.popleft()
        if word.startswith("-") and word != "-":
            name, _, value = word.partition("=")
            option = next((p for p in command.params if name in (*p.opts, *p.secondary_opts)), None)
            if not isinstance(option, click.Option) and name not in ("-h", "--help"):
                return f"{command.name} has no option {name}"
            if isinstance(option, click.Option) and not (option.is_flag or option.count or value):
                if not words:
                    return f"{name} needs a value"
                value = words.popleft()
            choice = isinstance(option, click.Option) and isinstance(option.type, click.Choice) and option.type.choices
            if choice and value and value not in choice and "|" not in value and not value.isupper():
                return f"{name} cannot be {value}"
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            if found is None:
                return f"{command.name} has no command {word}"
            command = found
            context = click.Context(command, context, info_name=word)
        else:
            given += 1
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    if given > len(arguments) and all(param.nargs == 1 for param in arguments):
        return f"{command.name} takes {len(arguments)} arguments"
    return None


@each_page
def test_commands_shown_exist(page: Path) -> None:
    problems = {line: problem_of(line) for line in command_lines(page.read_text("utf-8"))}
    assert {line: why for line, why in problems.items() if why} == {}


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert problem_of("number add +12025550100 --flow desk") is None
    assert problem_of("number ad +12025550100") is not None
    assert problem_of("number add +12025550100 --flwo desk") is not None
    assert problem_of("flow draw desk --format pdf") is not None
    assert list(command_lines("```sh\nsudo -u callrouter /opt/x/callrouter --home /h status | jq .\n```")) == [
        "--home /h status"
    ]


@each_page
def test_dev_commands_shown_exist(page: Path) -> None:
    known = set(re.findall(r"^([a-z]+)\)", (ROOT / "dev").read_text("utf-8"), re.MULTILINE)) | {"help"}
    assert set(re.findall(r"(?<![\w/])\./dev ([a-z]+)", page.read_text("utf-8"))) <= known


def leaves(command: click.Command, context: click.Context, path: str) -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield path
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        yield from leaves(child, click.Context(child, context, info_name=name), f"{path} {name}")


def test_every_command_is_in_the_reference() -> None:
    text = "\n".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md"))
    missing = [path for path in leaves(root, click.Context(root), "callrouter") if path not in text]
    assert missing == []


def test_every_setting_is_in_the_reference() -> None:
    text = read("reference/settings.md")
    assert [name for name in (field.name for field in msgspec.structs.fields(Settings)) if name not in text] == []


# -- records and status ------------------------------------------------------------------------------------------------


def test_every_field_of_a_call_is_documented() -> None:
    cells = first_cells(read("reference/calls.md"))
    known = {field.name for kind in (CallRecord, Leg) for field in fields(kind)}
    assert sorted(known - cells) == []


def test_dispositions_are_documented() -> None:
    part = section(read("reference/calls.md"), "Dispositions")
    assert first_cells(part) == {str(each) for each in Disposition}


def test_leg_results_and_recording_words_are_documented() -> None:
    legs = section(read("reference/calls.md"), "Legs")
    assert all(f"`{each}`" in legs for each in LegResult)
    assert first_cells(read("guides/recordings.md")) >= {str(each) for each in RecordingStatus}
    assert all(f"`{each}`" in read("reference/calls.md") for each in RecordingKind)


def test_events_and_notes_are_documented() -> None:
    part = section(read("reference/calls.md"), "The log")
    assert first_cells(part) == {kind.__name__ for union in (Event, Note) for kind in get_args(union)}


def test_causes_are_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", section(read("reference/calls.md"), "Hangup causes"), re.MULTILINE)
    assert {int(number): words for number, words in rows} == CAUSES


def status_keys() -> set[str]:
    """Keys of the status as the server's source has them, dotted."""
    tree = ast.parse((ROOT / "callrouter/runtime/service.py").read_text("utf-8"))
    (function,) = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) and each.name == "status"]
    (returned,) = [each.value for each in ast.walk(function) if isinstance(each, ast.Return)]

    def keys(value: ast.expr | None, prefix: str) -> Iterator[str]:
        if not isinstance(value, ast.Dict):
            yield prefix
            return
        for key, inner in zip(value.keys, value.values, strict=True):
            assert isinstance(key, ast.Constant)
            name = str(key.value)
            yield from keys(inner, f"{prefix}.{name}" if prefix else name)

    return set(keys(returned, ""))


def test_status_is_documented() -> None:
    assert first_cells(read("reference/status.md")) == status_keys()


def test_log_events_that_are_explained_are_written() -> None:
    part = section(read("guides/operating.md"), "Logs")
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "callrouter").rglob("*.py"))
    assert [name for name in sorted(first_cells(part)) if not re.search(rf'log\.\w+\(\s*"{name}"', code)] == []


# -- links, decisions, words -------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", prose(page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    text = CODE_SPAN.sub("", prose(page.read_text("utf-8")))
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached_from_the_index() -> None:
    seen, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or not page.is_file():
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)", prose(page.read_text("utf-8")))
        waiting += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert sorted(set(DOCS.rglob("*.md")) - seen) == []


@pytest.mark.parametrize("path", ADRS, ids=lambda path: path.stem)
def test_decision_record_has_the_form(path: Path) -> None:
    text = path.read_text("utf-8")
    title = re.match(r"# 0*(\d+)[.:] \S", text)
    assert title, "a title with its number"
    assert int(title[1]) == int(path.name[:4])
    assert re.search(r"^Date: \d{4}-\d\d-\d\d", text, re.MULTILINE)
    assert re.search(r"\bStatus: (proposed|accepted|superseded by \d+)", text)
    titles = re.findall(r"^## (\w+)", text, re.MULTILINE)
    assert [title for title in titles if title in ("Context", "Decision", "Consequences")] == [
        "Context",
        "Decision",
        "Consequences",
    ]


def test_decision_records_are_numbered_and_listed() -> None:
    assert [int(path.name[:4]) for path in ADRS] == list(range(1, len(ADRS) + 1))
    listing = read("adr/README.md")
    assert [path.name for path in ADRS if f"({path.name})" not in listing] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 150


FORBIDDEN = [
    *("/wo" + "rk/", "/ro" + "ot/", "sha" + "red/", "BRIEF" + ".md", "FIELD-NO" + "TES", "DESIGN" + ".md"),
    *("LIBRARIES" + ".md", "EXAMPLES" + ".md", "py" + "pi.org", "python" + "hosted.org", "deb.deb" + "ian.org"),
    *("ghcr" + ".io", "docker" + ".io", "npm" + "js", "proxy.go" + "lang", "artifact" + "ory", "clau" + "de"),
    *("anthro" + "pic", "chat" + "gpt", "co" + "pilot"),
]
"""Places of one machine, hosts of package registries, and tools: no business of the project's texts."""


def test_no_file_speaks_of_the_machine_it_was_written_on() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if not name or not path.is_file() or b"\0" in path.read_bytes()[:8000]:
            continue
        text = path.read_text("utf-8", "replace").lower()
        found += [f"{name}: {word}" for word in FORBIDDEN if word.lower() in text]
    assert found == []


# -- architecture ------------------------------------------------------------------------------------------------------


def test_modules_named_in_the_architecture_exist() -> None:
    text = read("architecture.md")
    named = set(re.findall(r"\b((?:core|asterisk|runtime|store|media|jobs|cli|testing)/\w+\.py)", text))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / "callrouter" / name).is_file()] == []


def test_parts_import_only_what_the_architecture_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (`[^|]+) \|$", read("architecture.md"), re.MULTILINE)
    assert len(rows) > 6
    for part, allowed in rows:
        may = {part, *CODE_SPAN.findall(allowed)}
        for path in (ROOT / "callrouter" / part).rglob("*.py"):
            imported = re.findall(r"^\s*(?:from|import) callrouter\.(\w+)", path.read_text("utf-8"), re.MULTILINE)
            assert set(imported) <= may, path
