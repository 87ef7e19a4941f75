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
    is forgotten. Devices are counted from 0, as the settings name them.
    """

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._failing: dict[int, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()

    @property
    def names(self) -> list[str]:
        """What fails now."""
        with self._lock:
            return sorted({name for name, _ in self._failing.values()})

    @property
    def devices(self) -> frozenset[int]:
        """Where it fails now."""
        with self._lock:
            return frozenset(device for _, device in self._failing.values())

    def note(self, name: str, trial: Callable[[], object], device: int = 0) -> None:
        """A run failed; `trial`, a bound method, tells whether the next may. From any thread.

        Errors of the trial: DeviceLost while the graph fails.
        """
        assert isinstance(trial, MethodType)
        key = id(trial.__self__)
        with self._lock:
            if key in self._failing or self._closing.is_set():
                return
            self._failing[key] = name, device
        LOG.error("%s fails on device %d; it is tried again until it runs", name, device)
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
            name, device = self._failing.pop(key)
        LOG.warning("%s runs again on device %d, or is unloaded", name, device)


def _fails(trial: Callable[[], object] | None) -> bool:
    if trial is None:
        return False
    try:
        trial()
    except DeviceLost:
        return True
    return False
