"""The server as a whole: start and stop, what systemd and ``callrouter status`` are told, what becomes of calls."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from typing import Any

import pytest
import structlog

from callrouter.bootstrap import open_server, stopping_on_signals
from callrouter.core.disposition import Disposition
from callrouter.core.state import Calling, Saying
from callrouter.errors import DatabaseError
from callrouter.runtime import service as service_module
from callrouter.store.database import Database
from tests.contract.runtime.support import APP, ledger_line, until, write_ledger
from tests.contract.runtime.world import (  # noqa: F401 - fixtures
    DID,
    DIRECT,
    World,
    heard,
    in_menu,
    talking,
    told,
    tones,
    waits,
    world,
)

# -- what it tells -----------------------------------------------------------------------------------------------------


async def test_the_service_manager_is_told_of_readiness_and_stopping(world: World, told: socket.socket) -> None:
    async with world.server() as (server, task):
        assert heard(told)[0].startswith("READY=1\n")
        server.stop()
        await asyncio.wait_for(task, 10)
        assert heard(told) == ["STOPPING=1"]


async def test_it_gives_signs_of_life_as_often_as_is_asked(
    world: World, told: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    seen: list[str] = []

    def signs() -> int:
        seen.extend(heard(told))
        return seen.count("WATCHDOG=1")

    async with world.server():
        began = time.monotonic()
        await until(lambda: signs() >= 5, "five signs")
        assert time.monotonic() - began < 2.0


async def test_no_signs_of_life_where_nobody_watches(world: World, told: socket.socket) -> None:
    async with world.server() as (server, _):
        await until(lambda: world.status(), "a round of everything")
        assert "watchdog" not in {task.get_name() for task in server._tasks}


async def test_the_status_file_says_how_things_are_and_goes_with_the_server(world: World) -> None:
    async with world.server() as (server, task):
        await in_menu(world, server, "call-1")
        await until(lambda: world.status().get("calls") == 1 and world.status()["ami"]["connected"], "the status")
        status = world.status()
        assert status["pid"] == os.getpid()
        ari = status["ari"]
        assert ari == {"state": "connected", "error": None, "events": ari["events"], "bytes": ari["bytes"]}
        assert ari["events"] >= 3
        assert ari["bytes"] > 100 * ari["events"], "an event is some hundred bytes of JSON"
        assert status["config_version"] == 6
        assert status["total"] == 1
        assert status["journal"]["problem"] is None
        assert status["recording_store"] == {"problem": None}
        assert time.time() - status["at"] < 5
        world.asterisk.hangup("call-1")
        await until(lambda: world.status()["calls"] == 0, "the end of the call")
        await until(lambda: world.status()["journal"]["pending"] == 0, "the drain")
        server.stop()
        await asyncio.wait_for(task, 10)
        assert not world.status_file.exists()


async def test_a_wrong_password_shows_in_the_status_and_is_cured_by_the_right_one(world: World) -> None:
    right, world.asterisk.password = world.asterisk.password, "something else"
    async with world.server(ready=False) as (server, task):
        await until(lambda: world.status().get("ari", {}).get("state") == "refused", "the refusal")
        assert "wrong ARI user or password" in world.status()["ari"]["error"]
        assert right not in world.status_file.read_text()
        assert not task.done()
        world.asterisk.password = right
        await until(lambda: server.stream.connected, "the connection", 12)
        await until(lambda: world.status()["ari"]["error"] is None, "the status")


async def test_a_refused_manager_login_shows_and_calls_are_taken_all_the_same(world: World) -> None:
    world.ami.secret = "something else"
    async with world.server() as (server, _):
        await until(lambda: "wrong AMI" in str(world.status().get("ami", {}).get("error")), "the refusal")
        await in_menu(world, server, "call-1")
        world.asterisk.hangup("call-1")


async def test_without_a_database_it_says_what_to_do(world: World) -> None:
    path = Database(world.settings.database).path
    assert path is not None
    path.unlink()
    with pytest.raises(DatabaseError) as caught:
        async with world.server(ready=False) as (_, task):
            await task
    assert caught.value.hint


# -- calls -------------------------------------------------------------------------------------------------------------


async def test_a_call_ends_up_in_the_database(world: World) -> None:
    async with world.server() as (server, _):
        await talking(world, server, "call-1")
        world.ami.send_event("Hold", Channel="PJSIP/x", Uniqueid="peer-call-1")
        world.ami.send_event("Unhold", Channel="PJSIP/x", Uniqueid="peer-call-1")
        await until(lambda: world.record("call-1").legs[0].hold_seconds > 0, "the hold")
        world.asterisk.hangup("call-1")
        await until(lambda: server.parts.dispatcher.active == 0, "the end")
        await until(lambda: server.parts.drain.pending == 0, "the drain")
    (record,) = await world.stored()
    assert (record.disposition, record.did, record.answered_by) == (Disposition.ANSWERED, DIRECT, "ana")


async def test_when_the_socket_is_lost_calls_go_on_and_what_ended_meanwhile_is_closed(world: World) -> None:
    async with world.server() as (server, _):
        await in_menu(world, server, "call-1")
        await in_menu(world, server, "call-2")
        await world.asterisk.drop_sockets()
        del world.asterisk.channels["call-2"]
        await until(lambda: server.stream.connections == 2 and server.stream.connected, "the connection")
        await until(lambda: server.parts.dispatcher.channels == {"call-1"}, "the call that ended")
        assert world.record("call-2").ended_at is not None
        world.asterisk.digit("call-1", "1")
        await waits(server, "call-1", Calling)


async def test_calls_the_failsafe_took_while_the_socket_was_lost_are_brought_in(world: World) -> None:
    async with world.server() as (server, _):
        await until(lambda: server.parts.importer.imported == 0 and server.parts.drain.pending == 0)
        await world.asterisk.stop()
        await until(lambda: not server.stream.connected, "the loss")
        write_ledger(world.settings.ledger_path, [ledger_line("1.1", did=DIRECT)])
        await world.asterisk.start()
        await until(lambda: server.parts.importer.imported == 1, "the import", 12)
        await until(lambda: server.parts.drain.pending == 0, "the drain")
    (record,) = await world.stored()
    assert (record.uniqueid, record.handled_by) == ("1.1", "failsafe")


async def test_what_waits_for_a_full_disk_is_not_brought_in_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own log of the call is still in memory; Asterisk's row of it must wait for that."""
    async with world.server() as (server, _):
        journal = server.parts.journal
        await until(lambda: server.parts.drain.pending == 0, "the drain")
        full = OSError(28, "No space left on device")

        def refuse(fd: int, data: bytes) -> int:
            raise full

        monkeypatch.setattr(journal, "_write", refuse)
        world.asterisk.call("1.1")
        await waits(server, "1.1", Saying)
        world.asterisk.hangup("1.1")
        await until(lambda: server.parts.dispatcher.active == 0, "the end")
        write_ledger(world.settings.ledger_path, [ledger_line("1.1")])
        took = server.parts.importer
        await until(lambda: took._waiting, "the row being seen")
        await server._import()
        assert took.imported == 0
        monkeypatch.setattr(journal, "_write", os.write)
        await until(lambda: not took._waiting, "the row being settled", 10)
        assert took.imported == 0
    assert [record.uniqueid for record in await world.stored()] == ["1.1"]


async def test_a_crash_loses_no_call(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.server() as (server, task):
        await in_menu(world, server, "call-1")
        await talking(world, server, "call-2")
        await until(lambda: server.parts.drain.pending == 0, "the drain")

        async def dies() -> None:
            """As SIGKILL: nobody hands over anything."""
            for each in server._tasks:
                each.cancel()
            await server.stream.close()
            await server.parts.dispatcher.abandon()
            await server.parts.ami.stop()
            server.parts.journal.close()

        monkeypatch.setattr(server, "_shut_down", dies)
        server.stop()
        await asyncio.wait_for(task, 10)
    caller = world.asterisk.channels["call-1"]
    caller.app_data = f"{APP},incoming,carrier,{DID}"  # type: ignore[attr-defined]
    async with world.server() as (server, _):
        await until(lambda: server.parts.dispatcher.channels == {"call-1", "call-2"}, "both adopted")
        await until(lambda: world.asterisk.of("call-1").count("play") == 2, "the menu again")
        world.asterisk.hangup("call-2")
        world.asterisk.hangup("call-1")
        await until(lambda: server.parts.dispatcher.active == 0, "the end of both")
    assert {record.uniqueid: record.disposition for record in await world.stored()} == {
        "call-1": Disposition.ABANDONED,
        "call-2": Disposition.ANSWERED,
    }


async def test_recovery_waits_for_an_asterisk_that_does_not_answer_yet(world: World) -> None:
    async with world.server() as (server, task):
        await talking(world, server, "call-1")
        server.stop()
        await asyncio.wait_for(task, 20)
    world.asterisk.reply("GET", "^bridges$", 503, {"message": "loading"})
    async with world.server(ready=False) as (server, _):
        await until(lambda: server.stream.connections >= 2, "two attempts")
        assert server.parts.dispatcher.active == 0
        world.asterisk._overrides.clear()
        await until(lambda: server.parts.dispatcher.channels == {"call-1"}, "the adoption")


# -- stop --------------------------------------------------------------------------------------------------------------


async def test_sigterm_hands_over_who_is_in_a_menu_and_leaves_who_talks(
    world: World, monkeypatch: pytest.MonkeyPatch, told: socket.socket
) -> None:
    monkeypatch.setattr(service_module, "STOP_SECONDS", 0.3)
    async with world.server() as (server, task):
        await in_menu(world, server, "call-1")
        await talking(world, server, "call-2")
        with stopping_on_signals(server.stop):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(task, 10)
        assert any("waiting for 1 calls" in line for line in heard(told))
    assert world.asterisk.of("call-1")[-3:] == ["play", "variables", "continue cr-failsafe"]
    assert world.asterisk.channels["call-1"].variables["CR_FS_REASON"] == "CONTROLLER"
    assert world.asterisk.of("call-2")[-1] == "continue cr-dial"
    for channel in ("call-1", "call-2"):
        assert channel in world.asterisk.channels
        assert world.record(channel).disposition is None, "the callers are still there"


async def test_what_the_failsafe_made_of_a_call_handed_over_is_in_its_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "STOP_SECONDS", 0.1)
    async with world.server() as (server, task):
        await in_menu(world, server, "call-1")
        server.stop()
        await asyncio.wait_for(task, 10)
    del world.asterisk.channels["call-1"]
    write_ledger(world.settings.ledger_path, [ledger_line("call-1", failsafe_reason="CONTROLLER")])
    async with world.server() as (server, _):
        await until(lambda: world.record("call-1").disposition, "the record")
        await until(lambda: server.parts.drain.pending == 0, "the drain")
    (record,) = await world.stored()
    assert record.disposition is Disposition.ANSWERED
    assert record.talk_seconds == pytest.approx(30, abs=1)


async def test_a_stop_waits_for_a_caller_who_is_about_to_finish(world: World) -> None:
    async with world.server() as (server, task):
        await in_menu(world, server, "call-1")
        server.stop()
        await until(lambda: server.parts.dispatcher.draining, "the stop")
        world.asterisk.call("call-late")
        world.asterisk.digit("call-1", "1")
        await asyncio.wait_for(task, 5)
    assert world.asterisk.of("call-1")[-1] == "continue cr-dial"
    assert "call-late" in world.asterisk.waiting, "nobody claimed it: the dialplan's failsafe takes it"


async def test_a_part_that_dies_stops_the_server_with_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.server() as (server, task):

        def broken() -> dict[str, Any]:
            raise RuntimeError("a fault in the program")

        with structlog.testing.capture_logs() as logged:
            monkeypatch.setattr(server, "status", broken)
            await asyncio.wait_for(task, 10)
        (line,) = [line for line in logged if line["event"] == "part_failed"]
        assert (line["log_level"], line["part"]) == ("critical", "status")
        assert "a fault in the program" in repr(line["exc_info"])
        assert [line["event"] for line in logged][-1] == "server_stopped"


async def test_a_server_that_cannot_start_leaves_nothing_running(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse() -> None:
        raise DatabaseError("the database is locked")

    async with open_server(world.settings) as server:
        monkeypatch.setattr(server.parts.configuration, "start", refuse)
        with structlog.testing.capture_logs() as logged, pytest.raises(DatabaseError):
            await server.run()
        assert all(task.done() for task in server._tasks)
        assert "part_failed" not in [line["event"] for line in logged]
    async with world.server():
        pass
