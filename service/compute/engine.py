"""Bounded async door to the bundles: who may come in, who waits, who is computed.

A request first takes a *place* (`admission.py`; none left is 429), reads its body there, and then
waits for a *worker* (`lanes.py`; a thread: graphs and codecs release the interpreter lock). Every
graph call of its work passes a *gate* (`gates.py`), where work that nobody waits for ends.
A worker thread cannot be killed: until the next gate it stays taken, so that overload can never
pile up behind the door.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from models.bundle import Bundle
from models.errors import DeviceLost
from service.compute.admission import Door, ServiceDraining
from service.compute.failures import Failures
from service.compute.gates import serve
from service.compute.lanes import Lane
from service.compute.tickets import LaneName, RightOfWay, Ticket
from service.priority import go_behind
from service.settings import Settings
from service.telemetry import Telemetry, Trace

Item = TypeVar("Item")
Answer = TypeVar("Answer")
AHEAD = min(4, os.cpu_count() or 1)
"""Items of one request that are spread at once, and threads that all requests' items share."""


class Engine:
    """The lanes of every device and the one door before them.

    Its methods are for the event loop's thread, but for `serve` and `spread`, which block.
    `failures` knows the graphs that fail.
    """

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        sizes: dict[LaneName, int] = {"detection": settings.workers, "bulk": settings.bulk_workers}
        self._settings = settings
        self._telemetry = telemetry
        self._ways = {device: RightOfWay() for device in range(len(settings.device_ids))}
        self._lanes: dict[tuple[LaneName, int], Lane] = {
            (name, device): Lane(name, size, way, telemetry)
            for device, way in self._ways.items()
            for name, size in sizes.items()
        }
        self._door = Door(
            {name: len(self._ways) * size + settings.queue_size for name, size in sizes.items()},
            settings.max_decoded_bytes,
            lambda name: min(lane.wait_s for lane in self._able_lanes(name).values()),
            telemetry,
        )
        self._spreading = ThreadPoolExecutor(
            AHEAD, thread_name_prefix="spread", initializer=go_behind
        )
        self.failures = Failures()

    @contextmanager
    def visit(self, lane: LaneName) -> Iterator[Ticket]:
        """Hold a place inside, from before the body is read until the answer is out.

        It is the guest of the least busy device, of those where no graph fails if there are any.

        Errors: ServiceBusy, ServiceDraining.
        """
        lanes = self._able_lanes(lane)
        device = min(lanes, key=lambda one: lanes[one].visits)
        ticket = Ticket(lane, device, self._ways[device])
        with self._door.place(lane), lanes[device].visit(ticket):
            try:
                yield ticket
            finally:
                ticket.end()

    def load(self, ticket: Ticket, decoded_bytes: int) -> None:
        """Let a visit's pictures into memory; they count until its last work is done.

        Errors: ServiceBusy.
        """
        ticket.cargo.enter_context(self._door.memory(decoded_bytes, ticket.lane))

    async def run(self, work: Callable[[], Answer], ticket: Ticket, trace: Trace) -> Answer:
        """Wait for a worker, then do the work there. Cancelled while it waits, it never runs.

        Errors: those of the work; DeviceLost makes it not ready, see `require_ready`.
        """
        return await self._lanes[ticket.lane, ticket.device].run(work, ticket, trace)

    @asynccontextmanager
    async def audit(self, ticket: Ticket, *, can_wait: bool) -> AsyncIterator[bool]:
        """A seat for an audit in a visit's work; False where none is free and it cannot wait."""
        seats = self._lanes[ticket.lane, ticket.device].audits
        if seats.locked() and not can_wait:
            yield False
            return
        async with seats:
            yield True

    def spread(
        self, items: Iterable[Item], ticket: Ticket, *works: Callable[[Item], Answer]
    ) -> Iterator[tuple[Item, list[Future[Answer]]]]:
        """Each item with every work on it begun, in order; for a worker's thread.

        AHEAD items are begun before the first is handed out: while their works are done in
        threads of their own, each in its turn, the worker makes the next item. Where no further
        item can be made, those begun are handed out before its error comes.
        """

        def in_turn(work: Callable[[Item], Answer], item: Item) -> Answer:
            ticket.go_on()
            return work(item)

        begun: deque[tuple[Item, list[Future[Answer]]]] = deque()
        try:
            for item in items:
                begun.append((item, [self._spreading.submit(in_turn, w, item) for w in works]))
                if len(begun) == AHEAD:
                    yield begun.popleft()
        except Exception:
            yield from begun
            raise
        yield from begun

    def serve(self, bundle: Bundle) -> Bundle:
        """An opened bundle, fit to answer requests and warm. Errors: DeviceLost."""
        return serve(bundle, self._settings, self._telemetry.graphs, self.failures)

    def require_ready(self) -> None:
        """Errors: ServiceDraining; DeviceLost while a loaded graph fails on each device."""
        if self.is_draining:
            raise ServiceDraining("the service is stopping")
        if self.failures.devices >= self._ways.keys():
            raise DeviceLost(f"failing: {', '.join(self.failures.names)}")

    @property
    def is_draining(self) -> bool:
        """Whether new requests are refused because the service stops."""
        return self._door.is_draining

    def drain(self) -> None:
        """Take no new request from now on. Safe in a signal's function."""
        self._door.drain()

    def is_drained(self, drain_s: float) -> bool:
        """Whether draining began and its last request left, or has had its time."""
        return self._door.is_drained(drain_s)

    def close(self) -> None:
        """Let go of the threads; one at work ends with its work."""
        self.drain()
        self.failures.close()
        for lane in self._lanes.values():
            lane.close()
        self._spreading.shutdown(wait=False)

    def _able_lanes(self, name: LaneName) -> dict[int, Lane]:
        """By device; all of them where every device fails."""
        able = self._ways.keys() - self.failures.devices or self._ways.keys()
        return {d: lane for (of, d), lane in self._lanes.items() if of == name and d in able}
