"""Freed memory that the C library keeps, given back to the system."""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from queue import SimpleQueue


class Returns:
    """A thread that returns memory when what it was told of is freed.

    That may happen in any thread, at any line, also inside a lock that is not to be had twice:
    the garbage collector says when. A `SimpleQueue` is the one that may be filled from there.
    """

    def __init__(self) -> None:
        self._told: SimpleQueue[bool] = SimpleQueue()
        threading.Thread(target=_obey, args=(self._told,), name="memory", daemon=True).start()

    def after(self, freed: object) -> None:
        """When the last who holds it lets go, hand its pages back to the system."""
        weakref.finalize(freed, self._told.put, True).atexit = False

    def close(self) -> None:
        """End the thread."""
        self._told.put(False)


def return_memory() -> None:
    """Hand freed pages back; glibc keeps those of a bundle's graphs otherwise. Milliseconds."""
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and keeps little
    if trim is not None:
        trim(0)


def _obey(told: SimpleQueue[bool]) -> None:
    while told.get():
        return_memory()
