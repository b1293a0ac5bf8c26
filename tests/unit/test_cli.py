"""The command line: help, options, errors, the life of each noun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from callrouter.cli import output
from callrouter.cli.app import COMMANDS, root
from callrouter.cli.lazy import Command, Group
from callrouter.cli.reference import commands
from callrouter.errors import CallrouterError
from tests.unit.cli_home import acme, cli, upgraded

__all__ = ["acme", "cli", "upgraded"]

HEAVY = ("sqlalchemy", "aiohttp", "numpy", "rich", "phonenumbers", "jinja2", "msgspec", "asyncio", "structlog")


def loaded_by(*args: str, env: dict[str, str] | None = None) -> set[str]:
    """Modules that one run of the program has imported."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('\\n' + ' '.join(sys.modules), file=sys.stderr))\n"
        "from callrouter.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})})
    return set(done.stderr.splitlines()[-1].split())


# -- help --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [("--help",), ("number", "--help"), ("number", "add", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(args):
    loaded = loaded_by(*args)
    assert "callrouter.cli.app" in loaded
    assert not loaded.intersection(HEAVY)


def test_completion_imports_nothing_heavy():
    env = {"_CALLROUTER_COMPLETE": "bash_complete", "COMP_WORDS": "callrouter number ", "COMP_CWORD": "2"}
    assert not loaded_by(env=env).intersection(HEAVY)


def test_every_command_is_described_as_the_list_describes_it():
    ctx = click.Context(root)
    for name, (_, summary) in COMMANDS.items():
        command = root.get_command(ctx, name)
        assert command is not None
        first = (command.help or "").split("\n\n")[0].replace("\n", " ")
        assert first.startswith(summary.rstrip(".")), name


def test_every_command_has_an_example_and_takes_json():
    for path, command, _ in commands():
        if isinstance(command, click.Group):
            assert isinstance(command, Group), path
            continue
        assert isinstance(command, Command), path
        assert command.examples, f"{path} has no example"
        assert all(line.strip().startswith(("callrouter", "printf")) for line in command.examples.splitlines()), path
        takes = {option for param in command.params for option in param.opts}
        assert "--json" in takes or path.rsplit(" ", 1)[1] in ("serve", "worker", "up", "run", "completion"), path
        assert {"--home", "--config", "--verbose"} <= takes, path


def test_examples_use_commands_and_options_that_exist():
    known = {path: command for path, command, _ in commands()}
    for path, command in known.items():
        for line in command.examples.splitlines() if isinstance(command, Command) else []:
            words = line.split("#")[0].split("|")[0].split()
            if "callrouter" not in words[:1] or path not in line:
                continue
            takes = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
            used = {word for word in words if word.startswith("--")}
            assert used <= takes | {"--json", "--home"}, line


def test_an_unknown_command_suggests_the_near_one(cli):
    assert "Did you mean number?" in cli("nubmer", code=2).stderr
    assert "Did you mean 'list'?" in cli("number", "lst", code=2).stderr.replace("list?", "'list'?")
    assert "--campaign" in cli("number", "list", "--campagin", "x", code=2).stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(cli, shell):
    assert "_CALLROUTER_COMPLETE" in cli("completion", shell).stdout


def test_completion_offers_commands():
    env = {**os.environ, "_CALLROUTER_COMPLETE": "bash_complete", "COMP_WORDS": "callrouter nu", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "callrouter"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.stdout.split() == ["plain,number"]


# -- errors ------------------------------------------------------------------------------------------------------------


def test_errors_are_words_or_json(cli):
    shown = cli("company", "show", "acme", code=1)
    assert shown.stdout == ""
    assert "error: there is no company 'acme'" in shown.stderr
    assert "hint: there is none yet" in shown.stderr
    told = cli.refusal("company", "show", "acme", code=1)
    assert set(told) == {"error", "hint", "code"}
    assert json.loads(cli("--json", "company", "show", "acme", code=1).stderr) == told


def test_ctrl_c_ends_quietly(cli, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("callrouter.cli.context.App.read", interrupt)
    result = cli("company", "list", code=130)
    assert "Traceback" not in result.output


def test_a_fault_of_ours_is_words_without_v(cli, monkeypatch):
    def fault(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("callrouter.cli.context.App.read", fault)
    assert "a fault of callrouter: ZeroDivisionError: oh" in cli("company", "list", code=70).stderr
    with pytest.raises(ZeroDivisionError):
        cli("company", "list", "-v")


def test_a_reader_that_has_enough_is_no_error(cli):
    env = {**os.environ, "CALLROUTER_HOME": str(cli.home)}
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "callrouter", "config", "list"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=env)
    os.close(writer)
    assert done.stderr == ""


def test_wrong_settings_are_named(cli):
    (cli.home / "callrouter.toml").write_text("sip_prt = 5060\n")
    assert "sip_prt" in cli.refusal("company", "list", code=2)["error"]


# -- database ----------------------------------------------------------------------------------------------------------


def test_an_absent_database_names_the_command(cli):
    (cli.home / "callrouter.db").unlink()
    assert "callrouter db upgrade" in cli.refusal("company", "list", code=3)["hint"]
    assert cli.json("db", "check", code=1)["status"] == "absent"
    assert cli.json("db", "upgrade")["before"] is None
    assert cli.json("db", "check")["ok"] is True
    assert "up to date" in cli("db", "upgrade").stdout


def test_a_newer_database_is_not_touched(cli):
    import sqlite3

    with sqlite3.connect(cli.home / "callrouter.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    assert "newer" in cli.refusal("company", "add", "x", "--timezone", "UTC", code=3)["error"]
    assert "newer" in cli.refusal("db", "upgrade", code=3)["error"]
    assert "newer" in cli("db", "check", code=1).stdout


# -- nouns -------------------------------------------------------------------------------------------------------------


def test_life_of_a_company(cli):
    assert "No companies yet" in cli("company", "list").stdout
    added = cli.json("company", "add", "acme", "--timezone", "America/New_York", "--no-record", "--why", "new client")
    assert added["name"] == "acme"
    assert added["record"] == "never"
    assert cli.refusal("company", "add", "acme", "--timezone", "UTC", code=4)
    assert "America/New_York" in cli.refusal("company", "add", "b", "--timezone", "New York", code=2)["hint"]
    edited = cli.json("company", "edit", "acme", "--title", "Acme Inc", "--record", "--require-consent")
    assert (edited["title"], edited["record"], edited["consent_required"]) == ("Acme Inc", "force", True)
    assert cli.json("company", "edit", "acme", "--record", "inherit")["record"] == "inherit"
    assert "of callers who consented" in cli("company", "show", "acme").stdout
    assert "Nothing to change" in cli.refusal("company", "edit", "acme", code=2)["error"]
    assert cli.json("company", "show", "acme")["counts"]["numbers"] == 0
    assert [c["name"] for c in cli.json("company", "list")] == ["acme"]
    assert "add --yes" in cli.refusal("company", "rm", "acme", code=2)["hint"]
    assert cli.json("company", "rm", "acme", "--yes") == {"removed": "company acme"}
    assert cli.json("company", "list") == []


def test_changes_are_logged_with_who_and_why(acme):
    import sqlite3

    acme("target", "edit", "ana", "--ring-seconds", "10", "--why", "she is quick")
    connection = sqlite3.connect(acme.home / "callrouter.db")
    rows = connection.execute("SELECT who, what, why FROM config_change ORDER BY version").fetchall()
    connection.close()
    assert rows[-1] == ("tester", "edit target acme/ana", "she is quick")


def test_life_of_a_campaign(acme):
    assert acme.json("campaign", "show", "acme/spring-radio")["source"] == "radio"
    assert acme.json("campaign", "edit", "spring-radio", "--medium", "fm")["medium"] == "fm"
    assert "spring-radio" in acme("campaign", "list", "--company", "acme").stdout
    assert "did you mean spring-radio" in acme.refusal("campaign", "show", "spring-radoi", code=1)["hint"]
    acme("campaign", "rm", "spring-radio", "--yes")
    assert "No campaigns yet" in acme("campaign", "list").stdout


def test_life_of_a_target(acme):
    assert acme.json("target", "show", "ana")["sip_uri"] == "sip:ana@192.0.2.10"
    assert "no SIP URI" in acme.refusal("target", "add", "bob", "--sip-uri", "bob at home", code=2)["error"]
    assert acme.refusal("target", "add", "bob", "--number", "+12025550142", code=2)["hint"] == "give --trunk NAME"
    assert "{cmpaign}" in acme.refusal("target", "edit", "ana", "--whisper", "Call from {cmpaign}", code=2)["error"]
    assert acme.json("target", "edit", "ana", "--whisper", "Call from {campaign}")["whisper"]
    assert acme.json("target", "edit", "ana", "--whisper", "")["whisper"] is None
    assert "sip:ana@192.0.2.10" in acme("target", "list").stdout
    acme("target", "rm", "acme/ana", "--yes")
    assert acme.json("target", "list") == []


def test_life_of_a_number(acme):
    added = acme.json("number", "add", "(202) 555-0100", "--campaign", "spring-radio", "--target", "ana")
    assert (added["e164"], added["name"], added["company"]) == ("+12025550100", "spring-radio", "acme")
    second = acme.json(
        "number", "add", "+12025550101", "--campaign", "spring-radio", "--target", "ana", "--backup", "ana"
    )
    assert second["name"] == "12025550101"
    assert acme.json("number", "show", "202-555-0100")["campaign"] == "spring-radio"
    assert acme.json("number", "edit", "+12025550101", "--backup", "", "--inactive")["active"] is False
    assert acme.json("number", "show", "acme/12025550101")["backup"] is None
    assert len(acme.json("number", "list", "--campaign", "spring-radio")) == 2
    assert "(+1 202-555-0100)" in acme("number", "show", "+12025550100").stdout
    told = acme.refusal("campaign", "rm", "spring-radio", "--yes", code=4)
    assert "number spring-radio (+12025550100)" in told["error"]
    acme("number", "rm", "+12025550101", "--yes")
    assert len(acme.json("number", "list")) == 1


@pytest.mark.parametrize(
    "args, code, says",
    [
        (("12", "--target", "ana"), 2, "not a possible telephone number"),
        (("hello", "--target", "ana"), 2, "not a telephone number"),
        (("+12025550100 ext 5", "--target", "ana"), 2, "extension"),
        (("+12025550100",), 2, "neither a flow nor a target"),
        (("+12025550100", "--target", "bob"), 1, "no target 'bob'"),
        (("+12025550100", "--target", "ana", "--company", "acne"), 1, "no company 'acne'"),
    ],
)
def test_numbers_that_are_refused(acme, args, code, says):
    assert says in acme.refusal("number", "add", *args, code=code)["error"]
    assert acme.json("number", "list") == []


def test_a_taken_did_says_whose_it_is(acme):
    acme("number", "add", "+12025550100", "--name", "radio", "--target", "ana")
    acme("company", "add", "other", "--timezone", "Europe/Berlin")
    acme("target", "add", "ana", "--company", "other", "--sip-uri", "sip:ana@192.0.2.11")
    told = acme.refusal("number", "add", "+1 202 555 0100", "--company", "other", "--target", "ana", code=4)
    assert "number 'radio' of company 'acme'" in told["error"]
    assert "--company acme" in acme.refusal("number", "add", "+12025550101", "--target", "ana", code=2)["hint"]
    assert "acme/ana or other/ana" in acme.refusal("target", "show", "ana", code=2)["hint"]


def test_life_of_a_prompt(acme, tmp_path):
    import numpy as np
    import soundfile as sf

    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    sf.write(tmp_path / "welcome.wav", tone, 16000)
    (tmp_path / "letter.txt").write_text("Dear caller")
    assert acme.json("prompt", "add", "welcome", tmp_path / "welcome.wav")["seconds"] > 0.5
    assert acme.refusal("prompt", "add", "other", tmp_path / "letter.txt", code=2)
    assert acme.refusal("prompt", "add", "other", tmp_path / "absent.wav", code=2)
    assert "welcome.wav" in acme("prompt", "list").stdout
    assert acme.json("prompt", "edit", "welcome", tmp_path / "welcome.wav")["name"] == "welcome"
    assert acme.json("prompt", "show", "acme/welcome")["original"]
    acme("prompt", "rm", "welcome", "--yes")
    assert acme.json("prompt", "list") == []


def test_life_of_a_trunk(cli):
    assert len(cli.json("trunk", "presets")) >= 12
    assert "Twilio" in cli("trunk", "presets", "twilio").stdout
    assert "twilio" in cli.refusal("trunk", "presets", "twillio", code=1)["hint"]
    assert "--host" in cli.refusal("trunk", "add", "main", "--preset", "twilio", code=2)["hint"]
    added = cli("trunk", "add", "main", "--preset", "generic-registration", "--host", "192.0.2.1", "--username", "bob")
    assert "callrouter trunk secret main" in added.stderr
    done = cli.json("trunk", "secret", "main", "--stdin", input="pa ss;word\n")
    assert done == {"trunk": "main", "password_stored": True, "live": False}
    secret = cli.home / "secrets" / "trunk-main"
    assert secret.read_text() == "pa ss;word\n"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert "pa ss" not in cli("trunk", "show", "main").output
    assert cli.refusal("trunk", "secret", "main", "--stdin", input="\n", code=2)
    assert cli.json("trunk", "edit", "main", "--port", "5070", "--match", "192.0.2.0/28")["match"] == ["192.0.2.0/28"]
    assert "world" in str(cli.refusal("trunk", "add", "wide", "--host", "192.0.2.2", "--match", "0.0.0.0/0", code=2))
    assert cli.json("trunk", "list")[0]["state"] is None
    assert "Connection refused" in cli.refusal("trunk", "test", "main", code=3)["error"]
    cli("trunk", "rm", "main", "--yes")
    assert not secret.exists()


# -- settings, status --------------------------------------------------------------------------------------------------


def test_settings_say_where_they_come_from(cli):
    (cli.home / "callrouter.toml").write_text("rtp_start = 20000\nrtp_end = 20100\n")
    env = {"CALLROUTER_SIP_PORT": "5080", "CALLROUTER_DATABASE_URL": "postgresql://bob:hush@db.example/calls"}
    listed = {each["name"]: each for each in cli.json("config", "list", env=env)}
    assert (listed["sip_port"]["value"], listed["sip_port"]["source"]) == (5080, "environment")
    assert (listed["rtp_start"]["value"], listed["rtp_start"]["source"]) == (20000, "file")
    assert listed["codecs"]["source"] == "default"
    assert "hush" not in cli("config", "list", env=env).output
    assert "hush" not in cli("config", "show", "database_url", "--json", env=env).output
    assert "sip_port" in cli.refusal("config", "show", "sip_prt", code=1)["hint"]


def write_status(home: Path, **other: object) -> None:
    status = {
        "at": time.time(), "pid": 4, "version": "0.1.0", "started_at": time.time() - 90,
        "ari": {"state": "connected", "error": None}, "calls": 2, "total": 7, "config_version": 3,
        "ami": {"connected": True, "authenticated": True, "error": None, "channels": 4, "security": {"x\x1b[2J": 3},
                "trunks": {"main": {"registration": "Registered", "contact": "Reachable", "rtt": 0.012}}},
        "journal": {"pending": 0, "problem": None}, "recording_store": {"problem": None},
    }  # fmt: skip
    (home / "status.json").write_text(json.dumps(status | other))


def test_status_of_a_server(cli):
    assert "not running" in cli.refusal("status", code=3)["error"]
    write_status(cli.home)
    shown = cli("status").stdout
    assert "2 in progress, 7 since the start" in shown
    assert "Registered, Reachable, 12 ms" in shown
    assert "\x1b" not in shown
    assert cli.json("status")["calls"] == 2
    assert "live within a second" in cli("company", "add", "acme", "--timezone", "UTC").stdout
    write_status(cli.home, recording_store={"problem": "the disk is full"})
    assert "the disk is full" in cli("status", code=1).stdout
    write_status(cli.home, at=time.time() - 60)
    assert "ago" in cli.refusal("status", code=3)["error"]
    assert "when the server runs" in cli("company", "edit", "acme", "--title", "A").stdout


def test_what_a_terminal_must_not_see_is_escaped():
    assert output.safe("a\x1b]0;x\x07\u202eb\x9b") == "a\\x1b]0;x\\x07\\u202eb\\x9b"
    assert output.safe("Zoë – 東京") == "Zoë – 東京"
    shown = output.dump({"name": "\x1b[31m\u202e\x9bZoë"})
    assert all(ch.isprintable() or ch == "\n" for ch in shown)
    assert json.loads(shown) == {"name": "\x1b[31m\u202e\x9bZoë"}


def test_every_error_has_an_exit_code():
    def family(kind: type[CallrouterError]) -> list[type[CallrouterError]]:
        return [kind, *(each for child in kind.__subclasses__() for each in family(child))]

    assert all(1 <= kind.exit_code <= 4 for kind in family(CallrouterError) if not kind.__module__.startswith("tests"))


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


def test_an_interrupt_that_could_not_be_raised_comes_again():
    """As while modules load: the callback of a weak reference cannot raise, and Python only tells of it."""
    script = (
        "import sys, time, weakref\n"
        "from callrouter import cli\n"
        "class Thing: pass\n"
        "def ctrl_c(_): raise KeyboardInterrupt\n"
        "sys.unraisablehook = cli._lost\n"
        "count = 0\n"
        "for _ in range(50):\n"
        "    try:\n"
        "        thing = Thing()\n"
        "        seen = weakref.ref(thing, ctrl_c)\n"
        "        del thing\n"
        "        time.sleep(10)\n"
        "        break\n"
        "    except KeyboardInterrupt:\n"
        "        count += 1\n"
        "print(count)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=100)
    assert (done.stdout, done.stderr) == ("50\n", "")
