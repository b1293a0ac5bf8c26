"""The worker of the job queue. A job runs at least once: whoever writes one makes it safe to run again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import structlog

from callrouter.errors import CallrouterError, DatabaseError, NotYetError, SchemaError
from callrouter.store.database import Database
from callrouter.store.jobs import (
    Job,
    complete,
    count_jobs,
    enqueue,
    extend,
    fail,
    lease,
    list_jobs,
    release,
    retry,
    unfinished,
)
from callrouter.store.types import new_id

__all__ = [
    "Job",
    "JobFunction",
    "Worker",
    "complete",
    "count_jobs",
    "enqueue",
    "extend",
    "fail",
    "lease",
    "list_jobs",
    "release",
    "retry",
    "unfinished",
]

JobFunction: TypeAlias = Callable[[Job], Awaitable[None]]
"""Does a job; whatever it raises makes the job be tried again later."""

log = structlog.get_logger(__name__)


class Worker:
    """Runs due jobs, a few at a time.

    :param registry: what does the jobs of each kind; kinds that are not in it are left to other workers
    :param concurrency: jobs at a time
    :param lease_seconds: a job whose worker is not heard of for so long is taken over
    :param poll_seconds: how often an idle worker looks
    """

    def __init__(
        self,
        database: Database,
        registry: Mapping[str, JobFunction],
        concurrency: int = 2,
        *,
        lease_seconds: float = 60.0,
        poll_seconds: float = 0.5,
    ) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{new_id()[-6:]}"
        self.done = 0
        """Jobs finished by this worker."""
        self.failed = 0
        """Attempts that failed."""
        self._database = database
        self._registry = dict(registry)
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        self._stopping = asyncio.Event()

    async def database_there(self) -> bool:
        """Wait for a database that is away.

        :returns: False: told to stop meanwhile
        :raises SchemaError: it is there, and of another version
        """
        pause = self._poll_seconds
        while not self._stopping.is_set():
            try:
                await self._database.require_current()
            except SchemaError:
                raise
            except DatabaseError as exc:
                log.warning("jobs_wait", problem=exc.message, hint=exc.hint)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)
                pause = min(10.0, pause * 2)
            else:
                return True
        return False

    async def run(self) -> None:
        """Work until :meth:`stop`; a database that is away is waited for. Cancelled, it gives its jobs back."""
        await self._work(until_empty=False)

    async def run_until_empty(self, deadline: float) -> bool:
        """Work until no job of these kinds waits or runs.

        :param deadline: give up after so many seconds
        :returns: whether the queue was emptied
        """
        try:
            async with asyncio.timeout(deadline):
                await self._work(until_empty=True)
        except TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """Take no more jobs; :meth:`run` returns when those it has are done."""
        self._stopping.set()

    # -- within ----------------------------------------------------------------------------------------------------

    async def _work(self, *, until_empty: bool) -> None:
        slots = [asyncio.create_task(self._slot(until_empty)) for _ in range(self._concurrency)]
        try:
            await asyncio.wait(slots, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            # Once each: a second cancellation would interrupt a slot that is giving its job back.
            for slot in slots:
                slot.cancel()
            ended = await asyncio.gather(*slots, return_exceptions=True)
        for problem in ended:
            if isinstance(problem, Exception):
                raise problem

    async def _slot(self, until_empty: bool) -> None:
        pause = self._poll_seconds
        while not self._stopping.is_set():
            try:
                async with self._database.session() as session:
                    job = await lease(session, self.name, self._registry, self._lease_seconds)
                    empty = job is None and until_empty and not await unfinished(session, self._registry)
                pause = self._poll_seconds
                if job is not None:
                    await self._do(job)
                    continue
            except DatabaseError as exc:
                log.warning("jobs_wait", problem=exc.message)
                pause, empty = min(30.0, pause * 2), False
            if empty:
                return
            try:
                await asyncio.wait_for(self._stopping.wait(), pause)
            except TimeoutError:
                continue

    async def _do(self, job: Job) -> None:
        work = asyncio.ensure_future(self._registry[job.kind](job))
        beat = asyncio.create_task(self._keep(job))
        try:
            await asyncio.wait({work, beat}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                log.warning("job_lease_lost", job=job.id, kind=job.kind)
                return
            await self._settle(job, work.exception())
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            # When the database is away, the lease runs out instead.
            with contextlib.suppress(DatabaseError):
                async with self._database.session() as session:
                    await release(session, job, self.name)
            raise
        finally:
            work.cancel()
            beat.cancel()
            await asyncio.gather(work, beat, return_exceptions=True)

    async def _settle(self, job: Job, error: BaseException | None) -> None:
        if error is None:
            self.done += 1
            async with self._database.session() as session:
                await complete(session, job, self.name)
            return
        self.failed += 1
        text = error.message if isinstance(error, CallrouterError) else f"{type(error).__name__}: {error}"
        expected = isinstance(error, CallrouterError)
        if isinstance(error, NotYetError):
            log.debug("job_waits", job=job.id, kind=job.kind, attempt=job.attempts, reason=text)
        else:
            cause = None if expected else error
            log.warning("job_failed", job=job.id, kind=job.kind, attempt=job.attempts, error=text, exc_info=cause)
        async with self._database.session() as session:
            await fail(session, job, self.name, text)

    async def _keep(self, job: Job) -> None:
        """Prolong the lease while the job runs; ends when it was lost."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            try:
                async with self._database.session() as session:
                    if not await extend(session, job, self.name, self._lease_seconds):
                        return
            except DatabaseError as exc:
                log.warning("jobs_wait", problem=exc.message)
