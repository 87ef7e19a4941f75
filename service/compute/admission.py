"""Who may come in: bounded by requests in each lane, and by decoded bytes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from models.errors import FlawsmithError
from service.compute.tickets import LaneName
from service.telemetry import Telemetry


class ServiceBusy(FlawsmithError):
    """Every place is taken, or all the memory; `retry_after_s` is when to come again."""

    def __init__(self, reason: str, retry_after_s: int) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class ServiceDraining(FlawsmithError):
    """The service is stopping; it finishes what it has and takes nothing new."""


class Door:
    """Counts who is inside, and what they hold. Its methods are for the event loop's thread.

    places: the most requests of each lane. wait_s: how long until what waits in a lane is done.
    """

    def __init__(
        self,
        places: Mapping[LaneName, int],
        max_decoded_bytes: int,
        wait_s: Callable[[LaneName], float],
        telemetry: Telemetry,
    ) -> None:
        self._places = places
        self._taken: dict[LaneName, int] = dict.fromkeys(places, 0)
        self._max_decoded_bytes = max_decoded_bytes
        self._decoded_bytes = 0
        self._wait_s = wait_s
        self._telemetry = telemetry
        self._draining_since_s: float | None = None

    @contextmanager
    def place(self, lane: LaneName) -> Iterator[None]:
        """Hold a place inside. Errors: ServiceBusy, ServiceDraining."""
        if self.is_draining:
            raise ServiceDraining("the service is stopping")
        if self._taken[lane] >= self._places[lane]:
            raise self._busy(lane, f"all {self._places[lane]} places are taken")
        self._taken[lane] += 1
        try:
            yield
        finally:
            self._taken[lane] -= 1

    @contextmanager
    def memory(self, decoded_bytes: int, lane: LaneName) -> Iterator[None]:
        """Hold memory for decoded pictures; one request alone may have more than there is.

        Errors: ServiceBusy.
        """
        if self._decoded_bytes and self._decoded_bytes + decoded_bytes > self._max_decoded_bytes:
            raise self._busy(lane, "the pictures inside take all the memory there is for them")
        self._hold(decoded_bytes)
        try:
            yield
        finally:
            self._hold(-decoded_bytes)

    @property
    def is_draining(self) -> bool:
        """Whether new requests are refused because the service stops."""
        return self._draining_since_s is not None

    def drain(self) -> None:
        """Take no new request from now on. Safe in a signal's function."""
        if self._draining_since_s is None:
            self._draining_since_s = time.monotonic()

    def is_drained(self, drain_s: float) -> bool:
        """Whether draining began and its last request left, or has had its time."""
        if self._draining_since_s is None:
            return False
        return not any(self._taken.values()) or time.monotonic() - self._draining_since_s >= drain_s

    def _busy(self, lane: LaneName, reason: str) -> ServiceBusy:
        return ServiceBusy(reason, max(1, math.ceil(self._wait_s(lane))))

    def _hold(self, decoded_bytes: int) -> None:
        self._decoded_bytes += decoded_bytes
        self._telemetry.decoded_bytes.set(self._decoded_bytes)
