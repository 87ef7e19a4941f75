"""Graphs that fail: tried again in the background until they run."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from types import MethodType

from models.errors import DeviceLost

LOG = logging.getLogger("service")
EVERY_S = 5.0
"""Time between two trials of a graph that fails."""


class Failures:
    """What a load balancer must know: is there a loaded graph that cannot answer?

    A failed run may be one picture's fault, or the device is gone for good; a trial tells. It comes
    at once, then every few seconds. Nothing keeps a graph loaded meanwhile: one that was unloaded
    is forgotten.
    """

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._failing: dict[int, str] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()

    @property
    def names(self) -> list[str]:
        """What fails now."""
        with self._lock:
            return sorted(self._failing.values())

    def note(self, name: str, trial: Callable[[], object]) -> None:
        """A run failed; `trial`, a bound method, tells whether the next may. From any thread.

        Errors of the trial: DeviceLost while the graph fails.
        """
        assert isinstance(trial, MethodType)
        key = id(trial.__self__)
        with self._lock:
            if key in self._failing or self._closing.is_set():
                return
            self._failing[key] = name
        LOG.error("%s fails; it is tried again until it runs", name)
        work = (key, weakref.WeakMethod(trial))
        threading.Thread(target=self._try, args=work, name="trials", daemon=True).start()

    def close(self) -> None:
        """End the trials."""
        self._closing.set()

    def _try(self, key: int, trial: weakref.WeakMethod[Callable[[], object]]) -> None:
        while _fails(trial()):
            if self._closing.wait(self._every_s):
                return
        with self._lock:
            name = self._failing.pop(key)
        LOG.warning("%s runs again, or is unloaded", name)


def _fails(trial: Callable[[], object] | None) -> bool:
    if trial is None:
        return False
    try:
        trial()
    except DeviceLost:
        return True
    return False
