"""Memory of the machine's GPUs as a metric, asked for whenever the metrics are read."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

try:  # comes with the extra `gpu` alone
    import pynvml
except ImportError:
    pynvml = None


class GpuMemory(Collector):
    """Used and total memory of each GPU by NVML's number; nothing where there is no driver."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """For the registry."""
        gauge = GaugeMetricFamily(
            "flawsmith_gpu_memory_bytes", "Memory of a GPU, by all processes", labels=["gpu", "of"]
        )
        for index, (used, total) in enumerate(_memories()):
            gauge.add_metric([str(index), "used"], used)
            gauge.add_metric([str(index), "total"], total)
        yield gauge


def _memories() -> list[tuple[int, int]]:
    if pynvml is None:
        return []
    try:
        pynvml.nvmlInit()
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        memories = list(map(pynvml.nvmlDeviceGetMemoryInfo, handles))
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return []
    return [(memory.used, memory.total) for memory in memories]
