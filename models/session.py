"""ONNX file -> callable; the only import of onnxruntime; the choice of the device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from models.errors import BundleAltered, DeviceLost
from models.graphs import GraphCall

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
ARENA_BYTES = 256 * 1024 * 1024
"""First region of the graphs' memory on the CPU, taken from the system only where it is written.

In one region what was freed grows together: a picture of 12 MP needs 48 MB there, 56 in several.
"""
_DEVICE_ERRORS = (
    runtime_errors.EPFail,
    runtime_errors.Fail,
    runtime_errors.RuntimeException,
)


@dataclass(frozen=True)
class Device:
    """Where graphs run. `auto` is CUDA where there is one, else CPU; threads 0 means all cores."""

    kind: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0


class Graph:
    """A loaded graph; calling it runs it. Safe to call from several threads at once."""

    def __init__(self, path: Path, device: Device) -> None:
        self.name = path.name
        self._session = _open_session(path, device)

    def __call__(self, **arrays: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        """Arrays by input name -> the outputs in order.

        Errors: DeviceLost when the device, not the input, is at fault.
        """
        return self._run(None, arrays)

    def only(self, *outputs: str) -> GraphCall:
        """The same graph, asked for the named outputs alone: what only others need is not run."""
        return lambda **arrays: self._run(outputs, arrays)

    def _run(
        self, outputs: tuple[str, ...] | None, arrays: dict[str, NDArray[Any]]
    ) -> tuple[NDArray[np.float32], ...]:
        try:
            return tuple(self._session.run(outputs, arrays))
        except _DEVICE_ERRORS as error:
            raise DeviceLost(f"{self.name}: the device stopped answering") from error

    @property
    def providers(self) -> list[str]:
        """What really runs it, by preference: without a GPU a CUDA session falls back to CPU."""
        return list(self._session.get_providers())

    @property
    def input_names(self) -> set[str]:
        """The names of the inputs, as the file has them."""
        return {node.name for node in self._session.get_inputs()}

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs, as the file has them, in order."""
        return [node.name for node in self._session.get_outputs()]


def open_graph(path: Path, device: Device) -> Graph:
    """Load a graph onto a device.

    Errors: BundleAltered when it is no graph that the runtime loads; DeviceLost when CUDA is asked
            for and there is none.
    """
    return Graph(path, device)


def _open_session(path: Path, device: Device) -> onnxruntime.InferenceSession:
    wanted = [CPU] if device.kind == "cpu" else [CUDA, CPU]
    available = set(onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = device.threads
    # Pictures come in many sizes: a plan of memory for each would be kept beside the arena.
    options.enable_mem_pattern = False
    _share_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Two sessions that spin while they wait take the cores from each other.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    if CUDA in wanted and CUDA in available:
        # The extras cuda and cudnn lie among Python's packages, where no loader looks.
        onnxruntime.preload_dlls()
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=[p for p in wanted if p in available]
        )
    except Exception as error:
        raise BundleAltered(f"{path.name} is no graph that ONNX Runtime loads: {error}") from error
    # The runtime would answer a lost device by moving to the CPU, unasked and under other threads.
    session.disable_fallback()
    if device.kind == "cuda" and CUDA not in session.get_providers():
        raise DeviceLost("cuda was asked for, and ONNX Runtime found none")
    return session


@cache
def _share_arena() -> None:
    """Give the graphs of this process one arena: they run in turn, and each alone would keep one.

    The runtime takes it once, and keeps it.
    """
    cpu = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    unset = -1
    how = {
        "max_mem": 0,
        "arena_extend_strategy": unset,
        "initial_chunk_size_bytes": ARENA_BYTES,
        "max_dead_bytes_per_chunk": unset,
    }
    onnxruntime.create_and_register_allocator(cpu, onnxruntime.OrtArenaCfg(how))
