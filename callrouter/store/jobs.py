"""The table of jobs: put in, leased, done. ``callrouter.jobs.queue`` has the worker."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.errors import NotFoundError
from callrouter.store.models import JobRow
from callrouter.store.types import new_id, now
from callrouter.store.upsert import insert

MAX_ATTEMPTS = 8
FIRST_PAUSE = 2.0
"""Seconds before the second attempt; each further one waits twice as long."""
LONGEST_PAUSE = 600.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work."""

    id: str
    kind: str
    payload: Mapping[str, Any]
    attempts: int
    """Begun so far, the present one included."""
    max_attempts: int
    state: str = "queued"
    """"queued", "running", "done" or "dead" (given up)."""
    key: str | None = None
    run_at: datetime | None = None
    last_error: str | None = None
    leased_by: str | None = None


def job_value(row: JobRow) -> Job:
    return Job(
        id=row.id,
        kind=row.kind,
        payload=row.payload,
        attempts=row.attempts,
        max_attempts=row.max_attempts,
        state=row.state,
        key=row.key,
        run_at=row.run_at,
        last_error=row.last_error,
        leased_by=row.leased_by,
    )


async def enqueue(
    session: AsyncSession,
    kind: str,
    payload: Mapping[str, Any],
    run_at: datetime | None = None,
    key: str | None = None,
    max_attempts: int = MAX_ATTEMPTS,
) -> str | None:
    """Put in a job; it runs when this transaction has been committed.

    :param payload: JSON values
    :param run_at: not before (aware); None: now
    :param key: a job with a key is put in once, ever
    :returns: the job's id; None when the key is known already
    """
    statement = insert(session, JobRow).values(_new(kind, payload, run_at, key, max_attempts))
    job_id: str | None = await session.scalar(
        statement.on_conflict_do_nothing(index_elements=["key"]).returning(JobRow.id)
    )
    return job_id


async def enqueue_all(
    session: AsyncSession, kind: str, payloads: Mapping[str, Mapping[str, Any]], max_attempts: int = MAX_ATTEMPTS
) -> None:
    """Put in jobs of one kind at once; as :func:`enqueue`.

    :param payloads: by key
    """
    rows = [_new(kind, payload, None, key, max_attempts) for key, payload in payloads.items()]
    if rows:
        await session.execute(insert(session, JobRow.__table__).on_conflict_do_nothing(index_elements=["key"]), rows)


def _new(
    kind: str, payload: Mapping[str, Any], run_at: datetime | None, key: str | None, max_attempts: int
) -> dict[str, Any]:
    at = now()
    return {
        "id": new_id(),
        "kind": kind,
        "payload": dict(payload),
        "key": key,
        "state": "queued",
        "attempts": 0,
        "max_attempts": max_attempts,
        "run_at": run_at or at,
        "created_at": at,
    }


async def lease(
    session: AsyncSession, worker: str, kinds: Collection[str], seconds: float, at: datetime | None = None
) -> Job | None:
    """Take the job that has been due for longest, or one whose worker vanished.

    On PostgreSQL workers pass over each other's rows (SKIP LOCKED); on SQLite there is one writer at a time anyway.

    :param worker: who takes it
    :param kinds: which kinds it can do
    :param seconds: for how long; :func:`extend` prolongs it
    :returns: None when nothing is due
    """
    at = at or now()
    expired = and_(JobRow.state == "running", JobRow.leased_until < at)
    await session.execute(
        update(JobRow)
        .where(expired, JobRow.attempts >= JobRow.max_attempts)
        .values(state="dead", finished_at=at, last_error="its worker vanished each time")
        .execution_options(synchronize_session=False)
    )
    # What was made in the future was made before the clock was set back, and must not wait until it is there again.
    ready = or_(JobRow.run_at <= at, JobRow.created_at > at + timedelta(seconds=LONGEST_PAUSE))
    due = (
        select(JobRow.id)
        .where(or_(and_(JobRow.state == "queued", ready), expired), JobRow.kind.in_(kinds))
        .order_by(JobRow.run_at, JobRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = await session.scalar(
        update(JobRow)
        .where(JobRow.id == due.scalar_subquery())
        .values(
            state="running",
            attempts=JobRow.attempts + 1,
            leased_by=worker,
            leased_until=at + timedelta(seconds=seconds),
        )
        .returning(JobRow)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return job_value(row) if row else None


async def extend(session: AsyncSession, job: Job, worker: str, seconds: float, at: datetime | None = None) -> bool:
    """Prolong a lease.

    :returns: False when it is no longer this worker's
    """
    return await _mine(session, job, worker, leased_until=(at or now()) + timedelta(seconds=seconds))


async def complete(session: AsyncSession, job: Job, worker: str) -> bool:
    """Note that a job is done.

    :returns: False when it was no longer this worker's
    """
    return await _mine(
        session, job, worker, state="done", finished_at=now(), leased_by=None, leased_until=None, last_error=None
    )


async def fail(session: AsyncSession, job: Job, worker: str, error: str, at: datetime | None = None) -> bool:
    """Note that an attempt failed: it is tried again after a pause that doubles, up to ``max_attempts``, then given up.

    :returns: False when it was no longer this worker's
    """
    at = at or now()
    values: dict[str, Any] = {"leased_by": None, "leased_until": None, "last_error": error[:2000]}
    if job.attempts >= job.max_attempts:
        return await _mine(session, job, worker, state="dead", finished_at=at, **values)
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (job.attempts - 1))
    return await _mine(session, job, worker, state="queued", run_at=at + timedelta(seconds=pause), **values)


async def release(session: AsyncSession, job: Job, worker: str) -> bool:
    """Give a job back unfinished (the worker is stopping); the attempt does not count.

    :returns: False when it was no longer this worker's
    """
    return await _mine(
        session, job, worker, state="queued", attempts=job.attempts - 1, leased_by=None, leased_until=None
    )


async def retry(session: AsyncSession, job_id: str) -> None:
    """Let a job that was given up, or waits, run now, with all its attempts.

    :raises NotFoundError: no such job, or it is running or done
    """
    found = await session.scalar(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state.in_(("dead", "queued")))
        .values(state="queued", attempts=0, run_at=now(), finished_at=None)
        .returning(JobRow.id)
        .execution_options(synchronize_session=False)
    )
    if found is None:
        raise NotFoundError(f"there is no waiting or given-up job {job_id!r}")


async def list_jobs(session: AsyncSession, *, state: str | None = None, limit: int = 50) -> list[Job]:
    """Jobs, newest first."""
    statement = select(JobRow).order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)
    if state is not None:
        statement = statement.where(JobRow.state == state)
    return [job_value(row) for row in await session.scalars(statement)]


async def count_jobs(session: AsyncSession) -> dict[str, int]:
    """How many jobs in each state."""
    counted = await session.execute(select(JobRow.state, func.count()).group_by(JobRow.state))
    return {state: count for state, count in counted}  # noqa: C416


async def unfinished(session: AsyncSession, kinds: Collection[str]) -> int:
    """How many jobs of these kinds wait or run."""
    statement = select(func.count()).select_from(JobRow)
    found = await session.scalar(statement.where(JobRow.state.in_(("queued", "running")), JobRow.kind.in_(kinds)))
    return found or 0


async def _mine(session: AsyncSession, job: Job, worker: str, **values: Any) -> bool:
    # The number of attempts tells this lease from a later one of the same worker.
    found = await session.scalar(
        update(JobRow)
        .where(
            JobRow.id == job.id,
            JobRow.state == "running",
            JobRow.leased_by == worker,
            JobRow.attempts == job.attempts,
        )
        .values(**values)
        .returning(JobRow.id)
        .execution_options(synchronize_session=False)
    )
    return found is not None
