from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.gpu_memory import GpuMemory


def metrics() -> str:
    registry = CollectorRegistry()
    registry.register(GpuMemory())
    return generate_latest(registry).decode()


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="there is an NVIDIA device")
def test_without_a_gpu_there_is_no_memory_to_tell():
    assert "flawsmith_gpu_memory_bytes{" not in metrics()


@pytest.mark.gpu
def test_each_gpu_tells_its_memory():
    pytest.importorskip("pynvml", reason="nvidia-ml-py comes with the extra gpu")

    assert 'flawsmith_gpu_memory_bytes{gpu="0",of="total"}' in metrics()
