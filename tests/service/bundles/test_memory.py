from __future__ import annotations

import platform
import threading

import numpy as np
import psutil
import pytest

from service.bundles.memory import Returns, return_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc, which keeps freed pages")
def test_freed_memory_goes_back_to_the_system():
    pieces = [np.ones(8_000, np.uint8) for _ in range(10_000)]
    last = np.ones(8_000, np.uint8)
    held = psutil.Process().memory_info().rss
    pieces.clear()

    return_memory()

    assert last.all()
    assert held - psutil.Process().memory_info().rss > 50_000_000


def test_its_thread_ends_when_it_is_closed_and_what_is_freed_later_does_no_harm():
    returns, freed = Returns(), threading.Event()
    returns.after(freed)
    thread = next(one for one in reversed(threading.enumerate()) if one.name == "memory")

    returns.close()
    thread.join(10.0)
    del freed

    assert not thread.is_alive()
