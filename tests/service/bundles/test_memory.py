from __future__ import annotations

import platform

import numpy as np
import psutil
import pytest

from service.bundles.memory import return_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc, which keeps freed pages")
def test_freed_memory_goes_back_to_the_system():
    pieces = [np.ones(8_000, np.uint8) for _ in range(10_000)]
    last = np.ones(8_000, np.uint8)
    held = psutil.Process().memory_info().rss
    pieces.clear()

    return_memory()

    assert last.all()
    assert held - psutil.Process().memory_info().rss > 50_000_000
