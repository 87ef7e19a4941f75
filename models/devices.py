"""Where graphs run, as it is asked for, and what ONNX Runtime is told to get it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT, OPENVINO = "TensorrtExecutionProvider", "OpenVINOExecutionProvider"

DeviceKind = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]
ConvSearch = Literal["HEURISTIC", "EXHAUSTIVE", "DEFAULT"]
ArenaStrategy = Literal["kSameAsRequested", "kNextPowerOfTwo"]
OpenvinoTarget = Literal["CPU", "GPU", "NPU", "AUTO"]
Options = dict[str, str]

PREFERRED: dict[DeviceKind, tuple[str, ...]] = {
    "auto": (CUDA, CPU),
    "cpu": (CPU,),
    "cuda": (CUDA, CPU),
    "tensorrt": (TENSORRT, CUDA, CPU),
    "openvino": (OPENVINO, CPU),
}
"""The first is what is asked for; what it cannot run falls to the next, node by node."""


@dataclass(frozen=True)
class Tuning:
    """How an accelerator works; none of it changes what the graphs mean.

    conv_search: HEURISTIC takes cuDNN's word for the fastest convolution. EXHAUSTIVE tries them all
                 for every new size of picture, which costs seconds and gigabytes each time.
    arena: kSameAsRequested grows the memory of the GPU by what is needed, not by doubling.
    memory_bytes: the most that one graph's arena takes on the GPU; 0 is all there is.
    engine_cache: folder where TensorRT keeps its engines, OpenVINO its compiled graphs. Without
                  one, TensorRT builds them at every start, which takes minutes.
    openvino_target: what OpenVINO runs on.
    """

    conv_search: ConvSearch = "HEURISTIC"
    arena: ArenaStrategy = "kSameAsRequested"
    memory_bytes: int = 0
    engine_cache: Path | None = None
    openvino_target: OpenvinoTarget = "CPU"


@dataclass(frozen=True)
class Device:
    """Where graphs run. `auto` is CUDA where there is one, else CPU; threads 0 means all cores.

    index: which of several GPUs; the CPU has none.
    """

    kind: DeviceKind = "auto"
    threads: int = 0
    index: int = 0
    tuning: Tuning = Tuning()


def provider_list(device: Device, offered: Sequence[str]) -> list[tuple[str, Options]]:
    """The execution providers to ask for, by preference, each with its options.

    offered: those the installed runtime was built with; others are left out, as it would refuse.
    """
    ways = {CPU: {}, CUDA: _cuda(device), TENSORRT: _tensorrt(device), OPENVINO: _openvino(device)}
    return [(name, ways[name]) for name in PREFERRED[device.kind] if name in offered]


def shortfall(device: Device, offered: Sequence[str], got: Sequence[str]) -> str | None:
    """What a session lacks of what was asked for, in one line; None where it lacks nothing.

    got: what the session says of itself. What a runtime offers says only how it was built: one
    for CUDA offers it on a machine without a GPU as well.
    """
    best = PREFERRED[device.kind][0]
    is_asked_for = device.kind != "auto" or best in offered
    if got[0] == best or not is_asked_for:
        return None
    return (
        f"device {device.kind} was asked for; "
        f"this ONNX Runtime offers {', '.join(offered)}; the session got {', '.join(got)}"
    )


def _cuda(device: Device) -> Options:
    tuning = device.tuning
    options = {
        "device_id": str(device.index),
        "cudnn_conv_algo_search": tuning.conv_search,
        "arena_extend_strategy": tuning.arena,
    }
    if tuning.memory_bytes:
        options["gpu_mem_limit"] = str(tuning.memory_bytes)
    return options


def _tensorrt(device: Device) -> Options:
    options = {"device_id": str(device.index)}
    folder = device.tuning.engine_cache
    if folder is None:
        return options
    cached = {f"trt_{what}_cache_enable": "True" for what in ("engine", "timing")}
    cached |= {f"trt_{what}_cache_path": str(folder) for what in ("engine", "timing")}
    return options | cached


def _openvino(device: Device) -> Options:
    target = device.tuning.openvino_target
    options = {"device_type": f"GPU.{device.index}" if target == "GPU" else target}
    if target == "CPU" and device.threads:
        options["num_of_threads"] = str(device.threads)
    if device.tuning.engine_cache is not None:
        options["cache_dir"] = str(device.tuning.engine_cache)
    return options
