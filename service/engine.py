"""Bounded async door to the bundles: who may come in, who waits, who is computed.

A request first takes a *place* (workers + queue_size of them; none left is 429), reads its body
there, and then waits for a *worker* (a thread; the graphs and codecs release the interpreter lock).
A worker thread cannot be killed. A request that is given up, by its deadline or by its client,
stops waiting at once; if it already runs, its worker stays taken until the work is really done, so
that overload can never pile up behind the door.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

from models.errors import DeviceLost, FlawsmithError
from service.telemetry import Telemetry, Trace

Item = TypeVar("Item")
Answer = TypeVar("Answer")
LOST_FOR_S = 30.0
"""A lost device makes the service not ready for so long; then traffic may try it again."""
AHEAD = min(4, os.cpu_count() or 1)
"""Items of one request that are spread at once, and threads that all requests' items share."""


class ServiceBusy(FlawsmithError):
    """Every place is taken."""


class ServiceDraining(FlawsmithError):
    """The service is stopping; it finishes what it has and takes nothing new."""


class Engine:
    """The door of one application. Its methods are for the event loop's thread."""

    def __init__(
        self,
        *,
        workers: int,
        queue_size: int,
        telemetry: Telemetry,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places = workers + queue_size
        self._taken = 0
        self._workers = asyncio.Semaphore(workers)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="engine")
        self._spreading = ThreadPoolExecutor(AHEAD, thread_name_prefix="spread")
        self._telemetry = telemetry
        self._clock_s = clock_s
        self._draining_since_s: float | None = None
        self._device_lost_since_s: float | None = None

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place inside, from before the body is read until the answer is out.

        Errors: ServiceBusy, ServiceDraining.
        """
        if self.is_draining:
            raise ServiceDraining("the service is stopping")
        if self._taken >= self._places:
            raise ServiceBusy(f"all {self._places} places are taken")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def run(self, work: Callable[[], Answer], trace: Trace) -> Answer:
        """Wait for a worker, then do the work there. Cancelled while it waits, it never runs.

        Errors: those of the work; DeviceLost makes it not ready, see `is_device_lost`.
        """
        await self._take_worker(trace)
        self._telemetry.running.inc()
        doing = self._pool.submit(work)
        doing.add_done_callback(self._release_later(asyncio.get_running_loop()))
        try:
            answer = await asyncio.wrap_future(doing)
        except DeviceLost:
            self._device_lost_since_s = self._clock_s()
            raise
        self._device_lost_since_s = None
        return answer

    def spread(
        self, items: Iterable[Item], *works: Callable[[Item], Answer]
    ) -> Iterator[tuple[Item, list[Future[Answer]]]]:
        """Each item with every work on it begun, in order; for a worker's thread.

        AHEAD items are begun before the first is handed out: while their works are done in
        threads of their own, the worker makes the next item.
        """
        begun: deque[tuple[Item, list[Future[Answer]]]] = deque()
        for item in items:
            begun.append((item, [self._spreading.submit(work, item) for work in works]))
            if len(begun) == AHEAD:
                yield begun.popleft()
        yield from begun

    async def _take_worker(self, trace: Trace) -> None:
        self._telemetry.queued.inc()
        try:
            with trace.measure("queue"):
                await self._workers.acquire()
        finally:
            self._telemetry.queued.dec()

    def _release_later(self, loop: asyncio.AbstractEventLoop) -> Callable[[Future[Answer]], None]:
        def release() -> None:
            self._workers.release()
            self._telemetry.running.dec()

        def from_worker(_: Future[Answer]) -> None:
            with suppress(
                RuntimeError
            ):  # the loop is closed: nobody waits for this worker any more
                loop.call_soon_threadsafe(release)

        return from_worker

    def require_ready(self) -> None:
        """Errors: ServiceDraining; DeviceLost, see `is_device_lost`."""
        if self.is_draining:
            raise ServiceDraining("the service is stopping")
        if self.is_device_lost:
            raise DeviceLost("the device stopped answering")

    @property
    def is_device_lost(self) -> bool:
        """Whether work ended in DeviceLost, none succeeded since, and LOST_FOR_S are not over.

        A load balancer that obeys readiness sends no work that could succeed, so time must end it.
        """
        since_s = self._device_lost_since_s
        return since_s is not None and self._clock_s() - since_s < LOST_FOR_S

    @property
    def is_draining(self) -> bool:
        """Whether new requests are refused because the service stops."""
        return self._draining_since_s is not None

    def drain(self) -> None:
        """Take no new request from now on. Safe in a signal's function."""
        if self._draining_since_s is None:
            self._draining_since_s = self._clock_s()

    def is_drained(self, drain_s: float) -> bool:
        """Whether draining began and its last request left, or has had its time."""
        if self._draining_since_s is None:
            return False
        return self._taken == 0 or self._clock_s() - self._draining_since_s >= drain_s

    def close(self) -> None:
        """Let go of the threads; one at work ends with its work."""
        self.drain()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._spreading.shutdown(wait=False)
