"""What one visit has inside, and who goes first: detections at once, bulk work in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

from starlette.requests import ClientDisconnect

LaneName = Literal["detection", "bulk"]
PATIENCE_S = 1.0
"""While detections are about, bulk work begins one step in so many seconds: it never starves."""


class RightOfWay:
    """Bulk work goes in steps: a graph's run, a file's encoding. Each asks here before it begins.

    It waits while a detection waits or runs, unless no step of any bulk work began for so long.
    A step that has begun is not interrupted.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._detections = 0
        self._due_s = 0.0

    @contextmanager
    def detection(self) -> Iterator[None]:
        """Hold bulk work back from now until a detection is done."""
        with self._changed:
            self._detections += 1
        try:
            yield
        finally:
            with self._changed:
                self._detections -= 1
                self._changed.notify_all()

    def wait_turn(self, is_given_up: Callable[[], bool]) -> None:
        """Wait until a step of bulk work may begin, or nobody waits for it any more. Blocking."""
        with self._changed:
            while self._detections and (left_s := self._due_s - time.monotonic()) > 0.0:
                if is_given_up():
                    return
                self._changed.wait(left_s)
            self._due_s = time.monotonic() + self._patience_s


@dataclass(eq=False)
class Ticket:
    """One visit's, from its first byte to its answer's last.

    works: how many of its works are in a worker's thread now; one goes on after the visit's end.
    worked_s: how long its works had a worker.
    cargo: what it let into memory; it counts until neither the visit nor a work of it goes on.
    """

    lane: LaneName = "detection"
    device: int = 0
    way: RightOfWay = field(default_factory=RightOfWay)
    given_up: threading.Event = field(default_factory=threading.Event)
    works: int = 0
    worked_s: float = 0.0
    cargo: ExitStack = field(default_factory=ExitStack)

    def go_on(self) -> None:
        """Before each step of its work: wait for its turn, if it is bulk. Blocking.

        Errors: ClientDisconnect when nobody waits for the work any more.
        """
        if self.lane == "bulk":
            self.way.wait_turn(self.given_up.is_set)
        if self.given_up.is_set():
            raise ClientDisconnect

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While a worker is its own. For the event loop's thread, as `end` is."""
        self.works += 1
        try:
            yield
        finally:
            self.works -= 1
            self._settle()

    def end(self) -> None:
        """Nobody waits any more: answered, or given up."""
        self.given_up.set()
        self._settle()

    def _settle(self) -> None:
        if self.given_up.is_set() and not self.works:
            self.cargo.close()


TICKET: ContextVar[Ticket | None] = ContextVar("ticket", default=None)
"""Whose work a worker's thread does; none while bundles are warmed up."""
