"""Threads for one kind of work on one device, and the queue before them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

from service.compute.tickets import TICKET, LaneName, RightOfWay, Ticket
from service.priority import go_behind
from service.telemetry import Telemetry, Trace

Answer = TypeVar("Answer")
RECENT = 0.2
"""Weight of the newest visit in the mean time of recent ones."""


class Lane:
    """First come, first served. Its methods are for the event loop's thread.

    visits: who may come with work. audits: seats for work that holds its worker for long, one
    fewer than workers where there are several, so that one is always free for the others.
    """

    def __init__(self, name: LaneName, workers: int, way: RightOfWay, telemetry: Telemetry) -> None:
        self.visits = 0
        self._name = name
        self._workers = workers
        self._way = way
        self.audits = asyncio.Semaphore(max(1, workers - 1))
        self._free = asyncio.Semaphore(workers)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name, initializer=go_behind)
        self._telemetry = telemetry
        self._mean_s = 0.0

    @contextmanager
    def visit(self, ticket: Ticket) -> Iterator[None]:
        """Count somebody who may come with work, and learn how long all of it took."""
        self.visits += 1
        ticket.cargo.callback(self._learn, ticket)
        try:
            yield
        finally:
            self.visits -= 1

    async def run(self, work: Callable[[], Answer], ticket: Ticket, trace: Trace) -> Answer:
        """Wait for a worker, then do the work there. Cancelled while it waits, it never runs."""
        with ExitStack() as stay:
            if self._name == "detection":
                stay.enter_context(self._way.detection())
            await self._take_worker(trace)
            stay.callback(self._free.release)
            stay.enter_context(ticket.at_work())
            stay.enter_context(self._at_work(ticket))
            doing = self._pool.submit(_work_as, ticket, work)
            doing.add_done_callback(_later(asyncio.get_running_loop(), stay.pop_all().close))
        try:
            return await asyncio.wrap_future(doing)
        finally:
            del doing  # a failure's frames would hold it, and its work, in a cycle

    @property
    def wait_s(self) -> float:
        """How long the visits that wait now will take, as fast as visits were done lately."""
        return max(self.visits - self._workers, 1) * self._mean_s / self._workers

    def close(self) -> None:
        """Let go of the threads; one at work ends with its work."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _take_worker(self, trace: Trace) -> None:
        pending = self._telemetry.pending.labels(self._name, trace.product or "")
        queued = self._telemetry.queued
        with queued.track_inprogress(), pending.track_inprogress(), trace.measure("queue"):
            await self._free.acquire()

    @contextmanager
    def _at_work(self, ticket: Ticket) -> Iterator[None]:
        started_s = time.monotonic()
        try:
            with self._telemetry.running.track_inprogress():
                yield
        finally:
            ticket.worked_s += time.monotonic() - started_s

    def _learn(self, ticket: Ticket) -> None:
        if ticket.worked_s:
            self._mean_s += (RECENT if self._mean_s else 1.0) * (ticket.worked_s - self._mean_s)


def _work_as(ticket: Ticket, work: Callable[[], Answer]) -> Answer:
    whose = TICKET.set(ticket)
    try:
        ticket.go_on()
        return work()
    finally:
        TICKET.reset(whose)


def _later(
    loop: asyncio.AbstractEventLoop, release: Callable[[], None]
) -> Callable[[Future[Answer]], None]:
    """What a worker's thread calls at its work's end: the event loop then releases it."""

    def from_worker(_: Future[Answer]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits for this worker any more
            loop.call_soon_threadsafe(release)

    return from_worker
