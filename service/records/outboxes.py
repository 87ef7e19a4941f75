"""A bounded queue in front of a place that may be away: what waits, what is tried again.

Whoever puts something in never waits and never fails. A thread of its own delivers in order, in
batches; while the place is away it tries again, ever more slowly, and what it cannot hold is
counted and dropped.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

from models.errors import FlawsmithError
from service.telemetry import Telemetry

LOG = logging.getLogger("service")
Item = TypeVar("Item")
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 15.0


class Away(FlawsmithError):
    """The place cannot take anything now; it may again later."""


class Refused(FlawsmithError):
    """The place will never take this one."""


class Outbox(Generic[Item]):
    """What is on its way to one place.

    deliver: takes a batch, in its thread. Errors: Away, so the whole batch is tried again and may
             arrive twice; Refused, or any other, and a batch of one is dropped.
    """

    def __init__(
        self,
        place: str,
        deliver: Callable[[list[Item]], None],
        telemetry: Telemetry,
        *,
        max_bytes: int,
        batch: int = 1,
    ) -> None:
        self.place = place
        self._deliver = deliver
        self._max_bytes = max_bytes
        self._batch = batch
        self._waiting: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._is_full = False
        self.is_away = False
        self._delivered = telemetry.delivered.labels(place)
        self._waiting_gauge = telemetry.waiting.labels(place)
        self._away_gauge = telemetry.away.labels(place)
        self._dropped = {why: telemetry.dropped.labels(place, why) for why in DROPPED_FOR}
        self._thread = threading.Thread(target=self._work, name=f"to {place}", daemon=True)
        self._thread.start()

    def put(self, item: Item, size_bytes: int) -> None:
        """Send it some time, or drop it where there is no room. From any thread."""
        with self._changed:
            has_room = self._bytes + size_bytes <= self._max_bytes
            if has_room:
                self._waiting.append((item, size_bytes))
                self._bytes += size_bytes
                self._waiting_gauge.inc()
                self._changed.notify()
        if not has_room:
            self._dropped["full"].inc()
            self._tell_full()

    def stop(self) -> None:
        """Take what is in to its place, then end; a place that is away is tried once more."""
        with self._changed:
            self._stopping.set()
            self._changed.notify()

    def join(self, patience_s: float) -> None:
        """Wait for that end so long at most. What has not arrived is dropped, and counted."""
        self._thread.join(patience_s)
        with self._changed:
            left = len(self._waiting)
        if left:
            self._dropped["stopped"].inc(left)
            LOG.error("%s: stopped with %d that did not arrive", self.place, left)

    def _work(self) -> None:
        wait_s = FIRST_WAIT_S
        while batch := self._next():
            done = self._send(batch)
            self._take_out(done)
            if done:
                wait_s = FIRST_WAIT_S
            elif self._stopping.is_set():
                return
            else:
                self._stopping.wait(wait_s * random.uniform(0.8, 1.2))
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _next(self) -> list[Item]:
        """What is to be delivered next, and stays in until it is; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping.is_set())
            return [item for item, _ in islice(self._waiting, self._batch)]

    def _send(self, batch: list[Item]) -> int:
        """How many of them need no further care."""
        try:
            self._deliver(batch)
        except Away as error:
            self._tell_away(str(error))
            return 0
        except Exception as error:
            if len(batch) > 1:
                return self._send(batch[:1])  # which one of them is it?
            self._dropped["refused"].inc()
            trace = None if isinstance(error, Refused) else error
            LOG.error("%s refused one: %s", self.place, error, exc_info=trace)
        else:
            self._delivered.inc(len(batch))
        self._tell_away(None)
        return len(batch)

    def _take_out(self, done: int) -> None:
        with self._changed:
            self._bytes -= sum(self._waiting.popleft()[1] for _ in range(done))
            self._waiting_gauge.dec(done)
            self._is_full = self._is_full and 2 * self._bytes > self._max_bytes

    def _tell_full(self) -> None:
        """One line when it gets full, not one for each that is dropped."""
        if not self._is_full:
            LOG.error("%s: the queue is full, what comes now is dropped", self.place)
        self._is_full = True

    def _tell_away(self, why: str | None) -> None:
        """One line when the place goes, one when it is back."""
        if why is not None and not self.is_away:
            LOG.error("%s is away, what it should get waits: %s", self.place, why)
        if why is None and self.is_away:
            LOG.warning("%s is back", self.place)
        self.is_away = why is not None
        self._away_gauge.set(self.is_away)


DROPPED_FOR = ("full", "refused", "stopped")
"""Why something never arrived."""


def close(outboxes: Sequence[Outbox[Any]], patience_s: float) -> None:
    """End them together."""
    deadline_s = time.monotonic() + patience_s
    for outbox in outboxes:
        outbox.stop()
    for outbox in outboxes:
        outbox.join(max(0.0, deadline_s - time.monotonic()))
