"""Log lines: one an event, for machines where no terminal is, and nothing in them that a caller could command."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from callrouter.config import load_settings
from callrouter.logs import configure_logging

HOSTILE = "x\n2026-01-01 [critical] forged\x1b[2J\x07\r\u2028\u202e\x85"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a function that logs writes to standard error."""

    def logged(write: Callable[[Any], object], **settings: Any) -> str:
        configure_logging(load_settings(environ={}, home="x", **settings))
        write(structlog.get_logger("callrouter.test"))
        out, err = capsys.readouterr()
        assert out == "", "standard output is for results"
        return err

    return logged


def test_a_line_is_json_where_there_is_no_terminal(logged: Callable[..., str]) -> None:
    (line,) = logged(lambda log: log.info("call_over", call="c-1", seconds=1.5)).splitlines()
    entry = json.loads(line)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {"event": "call_over", "level": "info", "call": "c-1", "seconds": 1.5}


def test_a_line_is_key_and_value_for_people(logged: Callable[..., str]) -> None:
    (line,) = logged(lambda log: log.info("call_over", call="c-1"), log_format="console").splitlines()
    assert "call_over" in line
    assert "call=c-1" in line
    assert "\x1b" not in line, "no colours where there is no terminal"


@pytest.mark.parametrize("kind", ["json", "console"])
@pytest.mark.parametrize("value", [HOSTILE, [HOSTILE], {"name": HOSTILE}, {HOSTILE: 1}, (HOSTILE,)], ids=repr)
def test_no_value_forges_a_line_or_drives_a_terminal(logged: Callable[..., str], kind: str, value: object) -> None:
    text = logged(lambda log: log.warning("odd_caller", name=value), log_format=kind)
    assert text.count("\n") == 1
    assert text[:-1].isprintable(), repr(text)
    assert "forged" in text, "it is shown, not dropped"


@pytest.mark.parametrize("kind", ["json", "console"])
def test_an_exception_drives_no_terminal(logged: Callable[..., str], kind: str) -> None:
    def write(log: Any) -> None:
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            log.exception("broken")

    text = logged(write, log_format=kind)
    assert "Traceback" in text
    assert "test_logs.py" in text
    assert all(char.isprintable() or char == "\n" for char in text), repr(text)
    if kind == "json":
        assert "ValueError" in json.loads(text)["exception"]


@pytest.mark.parametrize("kind", ["json", "console"])
def test_a_traceback_does_not_show_local_variables(logged: Callable[..., str], kind: str) -> None:
    def write(log: Any) -> None:
        password = "hunter2" * 2
        try:
            raise ValueError(len(password))
        except ValueError:
            log.exception("broken")

    assert "hunter2hunter2" not in logged(write, log_format=kind)


@pytest.mark.parametrize(
    "level, seen",
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_holds(logged: Callable[..., str], level: str, seen: list[str]) -> None:
    def write(log: Any) -> None:
        for name in ("debug", "info", "warning", "error"):
            getattr(log, name)("told")

    lines = logged(write, log_level=level).splitlines()
    assert [json.loads(line)["level"] for line in lines] == seen


@pytest.mark.parametrize("kind", ["json", "console"])
def test_what_libraries_log_looks_alike(logged: Callable[..., str], kind: str) -> None:
    def write(_: Any) -> None:
        logging.getLogger("aiohttp.access").info("chatter")
        logging.getLogger("asyncio").error("Task %s was never retrieved", HOSTILE)

    text = logged(write, log_format=kind)
    assert text.count("\n") == 1
    assert text[:-1].isprintable()
    if kind == "json":
        entry = json.loads(text)
        assert (entry["level"], entry["logger"]) == ("error", "asyncio")
        assert entry["event"].startswith("Task x")
