"""Whatever a caller writes, through real SIP, into everything that keeps or shows it: read as text, never obeyed."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import os
import pty
import re
import sys
import unicodedata
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner

from bench.chaos.duel import CalleeEnd, Plan
from bench.chaos.wire import Address, SipMessage, Wire, parse
from callrouter.asterisk.ledger import LEDGER_COLUMNS
from callrouter.asterisk.log import messages_path, read_log
from callrouter.asterisk.secrets import load_secrets
from callrouter.cli.app import root
from callrouter.core.disposition import Disposition
from callrouter.core.phone import clean_name
from callrouter.store import config
from callrouter.store.calls import CallFilter, StoredCall, get_call, list_calls
from tests.acceptance.hostile_strings import DRAWN, MARK, NASTY, drawn, escaped, quoted
from tests.acceptance.raw_sip import Attempt, Odd
from tests.fixtures.installation import Installation, eventually, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="session")]

DID = "+12025550171"


@dataclass
class Said:
    """One string, and the call that carried it."""

    kind: str
    text: str
    attempt: Attempt

    def __str__(self) -> str:
        return f"{self.kind}: {self.text!r} ({self.attempt.statuses})"


@dataclass
class Sinks:
    """All calls were placed; what became of them."""

    place: Installation
    said: list[Said]
    calls: list[StoredCall]
    rung: list[SipMessage]
    """INVITEs that the business's telephone got."""
    ami: bytes
    """All that AMI said, to somebody else than the server."""
    before: dict[Path, str]
    """Files that must not change, with their checksums."""

    def of(self, said: Said) -> StoredCall:
        [call] = [call for call in self.calls if call.record.caller == said.attempt.caller]
        return call


@dataclass
class Telephone:
    """Answers every call and ends it soon after."""

    invites: list[SipMessage] = field(default_factory=list)
    ends: dict[str, CalleeEnd] = field(default_factory=dict)
    wire: Wire | None = None

    def take(self, data: bytes, sender: Address) -> None:
        found = parse(data)
        if found is None or self.wire is None:
            return
        call_id = found["Call-ID"]
        if call_id in self.ends:
            self.ends[call_id].take(found)
        elif found.method == "INVITE" and found.status is None:
            self.invites.append(found)
            plan = Plan(len(self.ends), "", answer=0.0, callee_bye=0.15)
            self.ends[call_id] = CalleeEnd(plan, found, self.wire, sender)


def checksums(place: Installation) -> dict[Path, str]:
    """Files by which Asterisk and the dialplan decide."""
    roots = [place.settings.asterisk_etc_dir, place.settings.failsafe_dir, place.settings.secrets_dir]
    files = [path for root in roots for path in root.rglob("*") if path.is_file()]
    files += [path for path in place.settings.recording_spool.glob(".*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


async def listen(place: Installation) -> tuple[asyncio.Task[None], bytearray]:
    """A second AMI connection, whose bytes are kept as they come."""
    settings_ = place.settings
    reader, writer = await asyncio.open_connection(settings_.ami_host, settings_.ami_port)
    secret = load_secrets(settings_).ami.reveal()
    writer.write(f"Action: Login\r\nUsername: {settings_.ami_user}\r\nSecret: {secret}\r\n\r\n".encode())
    heard = bytearray()

    async def hear() -> None:
        try:
            while data := await reader.read(65536):
                heard.extend(data)
        finally:
            writer.close()

    task = asyncio.create_task(hear())
    await eventually(lambda: b"Authentication accepted" in heard, "AMI lets us in")
    return task, heard


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sinks() -> AsyncIterator[Sinks]:
    async with installation(work=False) as place:
        await place.spawn_server()
        net = place.settings.sip_bind.rpartition(".")[0]
        phone = Telephone()
        phone.wire = await Wire(phone.take).open(f"{net}.61")
        uri = f"sip:desk@{phone.wire.local[0]}:{phone.wire.local[1]}"
        async with place.database.session() as session:
            await config.add_trunk(session, name="strings", host=f"{net}.60", qualify_seconds=0, who="tests")
            await config.add_company(session, name="acme", timezone="America/New_York", who="tests")
            await config.add_target(session, "acme", name="desk", sip_uri=uri, who="tests")
            await config.add_number(session, "acme", number=DID, name="line", target="desk", who="tests")
        await place.in_force()

        async def known() -> bool:
            return "trunk-strings" in await place.asterisk.rx("pjsip show endpoints")

        await eventually(known, "Asterisk knows the trunk")
        before = checksums(place)
        listening, heard = await listen(place)
        texts = [(kind, text) for text in NASTY for kind in ("name", "dialled", "caller")]
        texts += [(("name", "dialled", "caller")[n % 3], text) for n, text in enumerate(drawn(DRAWN))]
        said = []
        for number, (kind, text) in enumerate(texts):
            odd = message_for(kind, text)
            attempt = Attempt(odd, number, f"{net}.60", (place.settings.sip_bind, place.settings.sip_port), DID)
            said.append(Said(kind, text, attempt))
            await attempt.send()
            await asyncio.sleep(0.05)  # a pace, as callers have it
        await place.idle()
        calls: list[StoredCall] = []

        async def written() -> bool:
            nonlocal calls
            async with place.database.session() as session:
                rows = await list_calls(session, CallFilter(), limit=1000)
                calls = [await get_call(session, row.id) for row in rows]
            return len(calls) >= len(place.ledger()) and all(call.record.disposition for call in calls)

        await eventually(written, "a record of each call")
        listening.cancel()
        yield Sinks(place, said, calls, phone.invites, bytes(heard), before)
        for each in said:
            await each.attempt.close()
        phone.wire.close()


def message_for(kind: str, text: str) -> Odd:
    """An INVITE that carries a string. Headers that Asterisk might look at carry it too."""
    latin = escaped(text)
    odd: dict[str, Any] = {"name": kind, "wrong": "", "must": "either"}
    match kind:
        case "name":
            odd["what"] = quoted(text)
            odd["set"] = {"From": "{what} <sip:{caller}@{me}>;tag={tag}"}
            odd["add"] = ("P-Asserted-Identity: {what} <sip:{caller}@{me}>",)
        case "dialled":
            odd["start"] = f"INVITE sip:{latin}@{{server}}:{{port}} SIP/2.0"
        case "caller":
            odd["set"] = {"From": f"<sip:{latin}@{{me}}>;tag={{tag}}"}
            odd["add"] = (f"Diversion: <sip:{latin}@{{me}}>;reason=unknown", f"X-CR-DID: {latin}")
    return Odd(**odd)


def hidden(text: str) -> list[str]:
    """Characters that a terminal obeys, or that turn a line round."""
    return [
        char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co")
    ]


# -- the calls ---------------------------------------------------------------------------------------------------------


async def test_the_strings_came_through(sinks: Sinks) -> None:
    """Most are SIP after all: else nothing was tried."""
    named = [said for said in sinks.said if said.kind == "name" and said.attempt.final == 200]
    assert len(named) >= 0.7 * sum(said.kind == "name" for said in sinks.said)
    # A caller whose number is no number still gets through.
    odd = [said for said in sinks.said if said.kind == "caller" and said.attempt.final == 200]
    assert len(odd) >= 0.7 * sum(said.kind == "caller" for said in sinks.said)
    assert all(said.attempt.final != 200 for said in sinks.said if said.kind == "dialled")


async def test_nothing_was_obeyed(sinks: Sinks) -> None:
    found = [
        place for place in (Path("/tmp"), Path.cwd(), sinks.place.settings.home_dir) if list(place.glob(f"*{MARK}*"))
    ]
    assert found == []
    assert checksums(sinks.place) == sinks.before
    rung = {message.start.split(" ")[1].split("@")[0] for message in sinks.rung}
    assert rung == {"sip:desk"}
    assert len(sinks.rung) == sum(said.attempt.final == 200 for said in sinks.said)


async def test_the_database_keeps_text(sinks: Sinks) -> None:
    ours = [said for said in sinks.said if said.attempt.final == 200 and said.kind == "name"]
    for said in ours:
        record = sinks.of(said).record
        assert (record.did, record.disposition) == (DID, Disposition.ANSWERED), said
        sent = said.text.encode("utf-8").split(b"\x00")[0].decode("utf-8")
        if (
            len(sent) <= 70
            and not re.search(r'[\r\n\x00"\\]', said.text)
            and sent.isprintable()
            and sent == sent.strip()
        ):
            assert record.caller_name == clean_name(sent), said
    for call in sinks.calls:
        record = call.record
        assert record.caller_name is None or (record.caller_name.isprintable() and len(record.caller_name) <= 80)
        assert not set(record.did + (record.caller or "")) - set("+0123456789")
        assert len(record.did) <= 32
        assert len(record.caller or "") <= 32
        assert not hidden(record.reason)
        assert record.trunk == "strings"
    assert len({call.record.uniqueid for call in sinks.calls}) == len(sinks.calls)


async def test_no_expression_is_worked_out(sinks: Sinks) -> None:
    """What looks like dialplan arrives as it was written, in the record and at the business's telephone."""
    shown = [message["From"] for message in sinks.rung]
    for text in ("$[41+1]", "{{7*7}}{%raw%}%(asctime)s%s%n", "${CALLERID(num)=+19005550100}"):
        [said] = [said for said in sinks.said if said.kind == "name" and said.text == text]
        assert sinks.of(said).record.caller_name == text
        assert any(text in header for header in shown), shown


# -- Asterisk's own records --------------------------------------------------------------------------------------------


async def test_asterisks_records_hold_one_row_a_call(sinks: Sinks) -> None:
    path = sinks.place.settings.ledger_path
    lines = path.read_bytes().decode("utf-8").splitlines()
    rows = list(csv.reader(lines, strict=True))
    assert {len(row) for row in rows} == {len(LEDGER_COLUMNS)}
    assert len(rows) == len(sinks.place.ledger()) == len(sinks.calls), "a row was broken in two, or not read"
    assert not any(hidden(cell) for row in rows for cell in row)


async def test_channel_events_stay_in_their_cells(sinks: Sinks) -> None:
    path = sinks.place.settings.asterisk_dir / "log" / "cel-custom" / "callrouter.csv"
    raw = path.read_bytes()
    assert b"\r" not in raw
    rows = list(csv.reader(raw.decode("utf-8", "replace").split("\n")[:-1], strict=True))
    assert len({len(row) for row in rows}) == 1
    assert [row for row in rows if not re.fullmatch(r"[A-Z_]+", row[0]) or row[2] == "forged"] == []
    assert not any(hidden(cell) for row in rows for cell in row)
    started = [row for row in rows if row[0] == "CHAN_START"]
    assert len(started) == len(sinks.calls) + len(sinks.rung)


async def test_asterisks_log_is_whole_lines_of_json(sinks: Sinks) -> None:
    """A number that was refused is in it as it was dialled."""
    path = messages_path(sinks.place.settings)
    raw = path.read_bytes()
    assert not set(raw) & (set(range(32)) - {10}), "control characters"
    read = list(read_log(path))
    first, *lines = raw.splitlines()  # which says what Asterisk this is
    assert (first[:1], len(read)) == (b"[", len(lines))
    refused = [line for line in read if "rejected because extension not found" in line.message]
    for worst in ('\n{"event": "forged"', "\x1b[2J\x1b[31mred"):
        assert any(worst in line.message for line in refused), "the worst of them were not tried"
    assert [line for line in read if line.level not in ("NOTICE", "WARNING", "ERROR")] == []
    assert {line.file for line in read if not line.file.endswith(".c")} <= {"pjproject"}


async def test_asterisks_security_log_has_no_line_of_theirs(sinks: Sinks) -> None:
    """What a firewall may be fed from."""
    path = sinks.place.settings.asterisk_dir / "log" / "security"
    text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
    assert [line for line in text.splitlines() if not line.startswith("[20")] == []


# -- ours --------------------------------------------------------------------------------------------------------------


async def test_the_log_is_whole_lines_of_json(sinks: Sinks) -> None:
    lines = sinks.place.server_log().splitlines()
    assert len(lines) >= 3
    for line in lines:
        entry = json.loads(line)
        assert entry["event"] != "forged"
        assert not hidden(line), line
        assert not any(hidden(value) for value in entry.values() if isinstance(value, str)), line


async def test_ami_events_stay_whole(sinks: Sinks) -> None:
    """The events that carry names and numbers hold no header and no event of a caller's own."""
    _greeting, *lines = sinks.ami.decode("utf-8", "replace").split("\r\n")
    events = {line.removeprefix("Event: ") for line in lines if line.startswith("Event: ")}
    assert "Newchannel" in events
    # An everyday name is no reason to drop an event.
    assert "CallerIDName: Event: party" in lines
    assert "Forged" not in events
    assert [line for line in lines if line and not re.match(r"[A-Za-z0-9-]+: ?", line)] == []
    assert sinks.place.status()["ami"]["connected"]


async def test_files_are_named_by_us(sinks: Sinks) -> None:
    home = sinks.place.settings.home_dir
    odd = [path for path in home.rglob("*") if not re.fullmatch(r"[A-Za-z0-9._@+-]{1,120}", path.name)]
    assert odd == []


async def test_journal_and_status_are_readable(sinks: Sinks) -> None:
    json.loads((sinks.place.settings.home_dir / "status.json").read_text("utf-8"))
    for path in sinks.place.settings.journal_dir.rglob("*"):
        if path.is_file():
            for line in path.read_bytes().splitlines():
                assert line.decode("utf-8")


# -- the command line --------------------------------------------------------------------------------------------------


def commands(sinks: Sinks) -> Iterator[tuple[str, ...]]:
    yield ("call", "list", "--limit", "1000")
    yield ("call", "tail", "--once", "--lines", "1000")
    yield ("status",)
    for call in sinks.calls:
        yield ("call", "show", call.record.id)


async def test_no_command_shows_what_a_terminal_obeys(sinks: Sinks) -> None:
    home = str(sinks.place.settings.home_dir)
    for command in commands(sinks):
        for more in ((), ("--json",)):
            runner = CliRunner()
            args = ["--home", home, *command, *more]
            result = await asyncio.to_thread(runner.invoke, root, args, env={"CALLROUTER_HOME": home})
            assert result.exit_code == 0, (command, result.output)
            assert not hidden(result.output), (command, hidden(result.output))
            if more and "tail" not in command:
                json.loads(result.output)
            elif more:
                assert all(json.loads(line) for line in result.output.splitlines())


async def test_names_are_the_same_in_json(sinks: Sinks) -> None:
    home = str(sinks.place.settings.home_dir)
    for call in sinks.calls[:10]:
        args = ["--home", home, "call", "show", call.record.id, "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, root, args, env={"CALLROUTER_HOME": home})
        assert json.loads(result.output)["caller_name"] == call.record.caller_name


async def test_a_real_terminal_gets_text_alone(sinks: Sinks) -> None:
    """The same on a terminal, where colours and cursors would work."""
    worst = next(call for call in sinks.calls if call.record.caller_name and "red" in call.record.caller_name)
    for command in (("call", "list", "--limit", "1000"), ("call", "show", worst.record.id)):
        shown = await asyncio.to_thread(on_terminal, sinks.place.settings.home_dir, command)
        assert worst.record.id[-8:] in shown
        assert not hidden(shown.replace("\r\n", "\n")), hidden(shown)


def on_terminal(home: Path, command: tuple[str, ...]) -> str:
    """What a command prints to a terminal without colours of its own."""
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {**os.environ, "TERM": "dumb", "NO_COLOR": "1", "PYTHONUTF8": "1"}
        os.execve(sys.executable, [sys.executable, "-m", "callrouter", "--home", str(home), *command], environment)
    printed = b""
    try:
        while data := os.read(terminal, 65536):
            printed += data
    except OSError:  # Linux tells the end of a terminal's other side so
        pass
    finally:
        os.close(terminal)
        _, ended = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(ended) == 0, printed
    return printed.decode("utf-8")
