"""ONNX file -> callable on a device; the only import of onnxruntime."""

from __future__ import annotations

import logging
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from models.devices import CPU, CUDA, Device, Options, provider_list, shortfall
from models.errors import BundleAltered, DeviceLost, DeviceMissing
from models.graphs import GraphCall

LOG = logging.getLogger("models")
ARENA_BYTES = 256 * 1024 * 1024
"""First region of the graphs' memory on the CPU, taken from the system only where it is written.

In one region what was freed grows together: a picture of 12 MP needs 48 MB there, 56 in several.
"""
_DEVICE_ERRORS = (
    runtime_errors.EPFail,
    runtime_errors.Fail,
    runtime_errors.RuntimeException,
)


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
    def has_open_batch(self) -> bool:
        """Whether every input takes any number of rows; a fixed first axis is a number."""
        return not any(isinstance(node.shape[0], int) for node in self._session.get_inputs())

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

    Errors: BundleAltered when it is no graph that the runtime loads; DeviceMissing when a device
            is named and cannot be had. `auto` takes the CPU then, and the log says so.
    """
    return Graph(path, device)


def _open_session(path: Path, device: Device) -> onnxruntime.InferenceSession:
    offered = onnxruntime.get_available_providers()
    providers = provider_list(device, offered)
    if CUDA in dict(providers):
        # The extras cuda and cudnn lie among Python's packages, where no loader looks.
        onnxruntime.preload_dlls()
    session, reason = _start_session(path, device, providers)
    lacking = shortfall(device, offered, session.get_providers())
    if lacking is not None:
        lacking = " ".join(f"{lacking} ({reason})".split()) if reason else lacking
        if device.kind != "auto":
            raise DeviceMissing(lacking)
        _warn_once(lacking)
    _tell_placement(path.name, session)
    return session


def _start_session(
    path: Path, device: Device, providers: list[tuple[str, Options]]
) -> tuple[onnxruntime.InferenceSession, str]:
    """A session, and why it is one on the CPU alone where an accelerator failed to start."""
    try:
        return _load(path, device, providers), ""
    except BundleAltered as refusal:
        return _load(path, device, [(CPU, {})]), str(refusal.__cause__)


def _load(
    path: Path, device: Device, providers: list[tuple[str, Options]]
) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(
            path,
            _options(device),
            providers=providers,
            # The runtime would answer a failing device by moving to the CPU, and print so.
            enable_fallback=0,
        )
    except Exception as error:
        told = str(error).replace(str(path), path.name)
        raise BundleAltered(f"{path.name} is no graph that ONNX Runtime loads: {told}") from error


def _options(device: Device) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = device.threads
    # Pictures come in many sizes: a plan of memory for each would be kept beside the arena.
    options.enable_mem_pattern = False
    _share_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Two sessions that spin while they wait take the cores from each other.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.log_severity_level = 4
    return options


@cache
def _warn_once(lacking: str) -> None:
    """Say it loudly, but not for every graph of every bundle."""
    LOG.warning("no accelerator: %s", lacking)


def _tell_placement(name: str, session: onnxruntime.InferenceSession) -> None:
    """Log how many nodes an accelerator left to others: a slow graph is found by that."""
    if session.get_providers()[0] == CPU:
        return
    nodes: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
    LOG.info("%s: nodes by provider: %s", name, dict(nodes))


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
