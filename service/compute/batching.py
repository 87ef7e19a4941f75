"""Calls of one graph from several requests -> one run; each gets its own rows back."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect

from models.graphs import GraphCall

Arrays = dict[str, NDArray[Any]]
Outputs = tuple[NDArray[np.float32], ...]


@dataclass(frozen=True)
class Sharing:
    """How calls of a graph share its runs.

    most: rows of a run; a call of more goes alone. window_s: how long a run waits for more rows.
    at_once: runs at a time, None for no limit: then a call shares only what comes in its window.
    sizes: rows that a run is filled up to, smallest first; a device then sees no other shapes.
    """

    most: int = 1
    window_s: float = 0.0
    at_once: int | None = None
    sizes: tuple[int, ...] = ()


@dataclass(eq=False)
class Call:
    """One request's rows, until it has its answer, is told to run alone, or is given up."""

    arrays: Arrays
    is_given_up: Callable[[], bool]
    outputs: Outputs | None = None
    is_out: bool = False

    @property
    def rows(self) -> int:
        """How many."""
        return rows_of(self.arrays)

    @property
    def kind(self) -> tuple[object, ...]:
        """Calls of one kind can share a run."""
        return tuple((k, v.dtype, v.shape[1:]) for k, v in sorted(self.arrays.items()))


class Batches:
    """The runs of one graph. Who called first leads: it runs what waits, in its own thread."""

    def __init__(self, graph: GraphCall, sharing: Sharing) -> None:
        self._graph = graph
        self._sharing = sharing
        self._changed = threading.Condition()
        self._waiting: deque[Call] = deque()
        self._running = 0

    def run(self, arrays: Arrays, is_given_up: Callable[[], bool]) -> Outputs:
        """A call's outputs, as if it had run alone. Blocking.

        A run that fails fails alone: its calls are then run one by one, each in its own thread.

        Errors: those of the graph; ClientDisconnect when it is given up before it runs.
        """
        if self._sharing.most <= 1:
            return self.run_filled(arrays)
        call = Call(arrays, is_given_up)
        if self._leads(call):
            self._run_group()
        if call.outputs is not None:
            return call.outputs
        if is_given_up():
            raise ClientDisconnect
        return self.run_filled(arrays)

    def run_filled(self, arrays: Arrays) -> Outputs:
        """One run, its rows filled up to the next size with copies of the last."""
        rows = rows_of(arrays)
        lacking = next((s for s in self._sharing.sizes if s >= rows), rows) - rows
        if not lacking:
            return self._graph(**arrays)
        filled = {k: np.concatenate([v, v[-1:].repeat(lacking, 0)]) for k, v in arrays.items()}
        return tuple(output[:rows] for output in self._graph(**filled))

    def _leads(self, call: Call) -> bool:
        """Wait until it is this call's turn to lead a run, or another has led it."""
        at_once = self._sharing.at_once
        with self._changed:
            self._waiting.append(call)
            self._changed.notify_all()
            while not call.is_out:
                is_free = at_once is None or self._running < at_once
                if is_free and self._waiting and self._waiting[0] is call:
                    self._running += 1
                    return True
                self._changed.wait()
        return False

    def _run_group(self) -> None:
        group: list[Call] = []
        try:
            with self._changed:
                self._wait_for_more()
                group = self._take()
                self._changed.notify_all()
            if group:
                self._run_together(group)
        finally:
            with self._changed:
                self._running -= 1
                for call in group:
                    call.is_out = True
                self._changed.notify_all()

    def _wait_for_more(self) -> None:
        closes_s = time.monotonic() + self._sharing.window_s
        while sum(call.rows for call in self._waiting) < self._sharing.most:
            left_s = closes_s - time.monotonic()
            if left_s <= 0.0:
                break
            self._changed.wait(left_s)

    def _take(self) -> list[Call]:
        """The oldest call and those of its kind that fit beside it, without those given up."""
        group: list[Call] = []
        for call in list(self._waiting):
            if call.is_given_up():
                call.is_out = True
            elif not _fits(call, group, self._sharing.most):
                continue
            else:
                group.append(call)
            self._waiting.remove(call)
        return group

    def _run_together(self, group: list[Call]) -> None:
        """Give each call its rows; none where the run fails and there are several."""
        names = group[0].arrays
        try:
            outputs = self.run_filled(
                {name: np.concatenate([call.arrays[name] for call in group]) for name in names}
            )
        except Exception:
            if len(group) == 1:
                raise
            return
        start = 0
        for call in group:
            call.outputs = tuple(output[start : start + call.rows] for output in outputs)
            start += call.rows


def rows_of(arrays: Arrays) -> int:
    """How many rows a call of a graph has."""
    return len(next(iter(arrays.values())))


def _fits(call: Call, group: Sequence[Call], most: int) -> bool:
    if not group:
        return True
    rows = call.rows + sum(other.rows for other in group)
    return call.kind == group[0].kind and rows <= most
