"""The durable job queue, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from callrouter.errors import InputError, NotFoundError
from callrouter.jobs import queue
from callrouter.jobs.queue import Job, Worker, complete, enqueue, extend, fail, lease, list_jobs
from callrouter.store.database import Database
from callrouter.store.types import now


async def put(database: Database, *numbers: int, kind: str = "work", max_attempts: int = 8) -> None:
    async with database.session() as session:
        for number in numbers:
            await enqueue(session, kind, {"n": number}, max_attempts=max_attempts)


async def states(database: Database) -> dict[str, int]:
    async with database.session(read_only=True) as session:
        return await queue.count_jobs(session)


async def test_a_key_is_taken_once(database: Database) -> None:
    async with database.session() as session:
        first = await enqueue(session, "work", {"n": 1}, key="k")
        assert await enqueue(session, "work", {"n": 2}, key="k") is None
        assert await enqueue(session, "work", {"n": 3}) is not None
    async with database.session(read_only=True) as session:
        jobs = await list_jobs(session)
    assert first in {job.id for job in jobs}
    assert len(jobs) == 2


async def test_a_job_of_a_transaction_that_failed_never_was(database: Database) -> None:
    async def enqueue_and_fail() -> None:
        async with database.session() as session:
            await enqueue(session, "work", {})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await enqueue_and_fail()
    assert await states(database) == {}


async def test_leases_go_to_one_worker_in_order_and_only_when_due(database: Database) -> None:
    at = now()
    async with database.session() as session:
        await enqueue(session, "work", {"n": 2}, run_at=at - timedelta(seconds=1))
        await enqueue(session, "work", {"n": 1}, run_at=at - timedelta(seconds=2))
        await enqueue(session, "work", {"n": 3}, run_at=at + timedelta(hours=1))
        await enqueue(session, "other", {"n": 4}, run_at=at - timedelta(hours=1))
    taken = []
    for worker in ("w1", "w2", "w3"):
        async with database.session() as session:
            taken.append(await lease(session, worker, ["work"], 60, at))
    assert [job.payload["n"] if job else None for job in taken] == [1, 2, None]


async def test_many_workers_at_once_take_every_job_once(database: Database) -> None:
    await put(database, *range(30))
    taken: list[int] = []

    async def work(name: str) -> None:
        while True:
            async with database.session() as session:
                job = await lease(session, name, ["work"], 60)
            if job is None:
                return
            taken.append(job.payload["n"])
            async with database.session() as session:
                assert await complete(session, job, name)

    await asyncio.gather(*(work(f"w{number}") for number in range(5)))
    assert sorted(taken) == list(range(30))
    assert await states(database) == {"done": 30}


async def test_an_expired_lease_is_taken_over_and_the_old_worker_is_told(database: Database) -> None:
    await put(database, 1)
    at = now()
    async with database.session() as session:
        lost = await lease(session, "dead", ["work"], 10, at)
    async with database.session() as session:
        assert await lease(session, "w2", ["work"], 10, at + timedelta(seconds=9)) is None
    async with database.session() as session:
        taken = await lease(session, "w2", ["work"], 10, at + timedelta(seconds=11))
    assert lost
    assert taken
    assert (taken.id, taken.attempts) == (lost.id, 2)
    async with database.session() as session:
        assert not await complete(session, lost, "dead")
        assert not await extend(session, lost, "dead", 10)
        assert await extend(session, taken, "w2", 10)
        assert await complete(session, taken, "w2")


async def test_failures_wait_twice_as_long_each_time_then_are_given_up(database: Database) -> None:
    await put(database, 1, max_attempts=3)
    at, waits = now(), []
    for attempt in range(3):
        async with database.session() as session:
            job = await lease(session, "w", ["work"], 60, at)
            assert job is not None
            assert job.attempts == attempt + 1
            assert await fail(session, job, "w", f"no luck {attempt}", at)
        async with database.session(read_only=True) as session:
            stored = (await list_jobs(session))[0]
        assert stored.last_error == f"no luck {attempt}"
        if stored.state == "queued" and stored.run_at:
            waits.append((stored.run_at - at).total_seconds())
            at = stored.run_at
    assert waits == pytest.approx([2.0, 4.0])
    assert await states(database) == {"dead": 1}
    async with database.session() as session:
        await queue.retry(session, stored.id)
    assert await states(database) == {"queued": 1}
    async with database.session() as session:
        with pytest.raises(NotFoundError):
            await queue.retry(session, "nothing")


async def test_the_longest_pause_has_a_limit(database: Database) -> None:
    await put(database, 1, max_attempts=100)
    at = now()
    for _ in range(40):
        async with database.session() as session:
            job = await lease(session, "w", ["work"], 60, at)
            assert job is not None
            await fail(session, job, "w", "x", at)
        async with database.session(read_only=True) as session:
            due = (await list_jobs(session))[0].run_at
        assert due is not None
        assert (due - at).total_seconds() <= 600
        at = due


async def test_a_worker_that_dies_each_time_does_not_do_so_for_ever(database: Database) -> None:
    await put(database, 1, max_attempts=2)
    at = now()
    for _ in range(2):
        async with database.session() as session:
            assert await lease(session, "w", ["work"], 10, at)
        at += timedelta(seconds=11)
    async with database.session() as session:
        assert await lease(session, "w", ["work"], 10, at) is None
    assert await states(database) == {"dead": 1}


async def test_the_worker_empties_the_queue(database: Database) -> None:
    await put(database, *range(10))
    await put(database, 99, kind="unknown")
    seen: list[int] = []

    async def work(job: Job) -> None:
        seen.append(job.payload["n"])

    worker = Worker(database, {"work": work}, poll_seconds=0.01)
    assert await worker.run_until_empty(20)
    assert sorted(seen) == list(range(10))
    assert worker.done == 10
    assert await states(database) == {"done": 10, "queued": 1}


async def test_a_failing_job_does_not_stop_the_others(database: Database) -> None:
    await put(database, *range(4), max_attempts=1)

    async def work(job: Job) -> None:
        if job.payload["n"] == 2:
            raise InputError("that one is broken")
        if job.payload["n"] == 3:
            raise ZeroDivisionError

    worker = Worker(database, {"work": work}, poll_seconds=0.01)
    assert await worker.run_until_empty(20)
    assert await states(database) == {"done": 2, "dead": 2}
    async with database.session(read_only=True) as session:
        errors = {job.last_error for job in await list_jobs(session, state="dead")}
    assert errors == {"that one is broken", "ZeroDivisionError: "}


async def test_a_long_job_keeps_its_lease(database: Database) -> None:
    await put(database, 1)
    runs = 0

    async def work(_: Job) -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(1.0)

    workers = [Worker(database, {"work": work}, lease_seconds=0.3, poll_seconds=0.05) for _ in range(2)]
    assert all(await asyncio.gather(*(worker.run_until_empty(20) for worker in workers)))
    assert runs == 1


async def test_stopping_finishes_what_runs_and_takes_nothing_new(database: Database) -> None:
    await put(database, 1, 2, 3)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(_: Job) -> None:
        begun.set()
        await go_on.wait()

    worker = Worker(database, {"work": work}, concurrency=1, poll_seconds=0.01)
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(begun.wait(), 10)
    worker.stop()
    go_on.set()
    await asyncio.wait_for(running, 10)
    assert await states(database) == {"done": 1, "queued": 2}


async def test_a_cancelled_worker_gives_its_job_back(database: Database) -> None:
    await put(database, 1)
    begun = asyncio.Event()

    async def work(_: Job) -> None:
        begun.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(Worker(database, {"work": work}, poll_seconds=0.01).run())
    await asyncio.wait_for(begun.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with database.session(read_only=True) as session:
        job = (await list_jobs(session))[0]
    assert (job.state, job.attempts, job.leased_by) == ("queued", 0, None)
