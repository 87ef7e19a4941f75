"""Freed memory that the C library keeps, given back to the system."""

from __future__ import annotations

import ctypes
import sys


def return_memory() -> None:
    """Hand freed pages back; glibc keeps those of a bundle's graphs otherwise. Milliseconds."""
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and keeps little
    if trim is not None:
        trim(0)
