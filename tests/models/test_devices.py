from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.devices import (
    CPU,
    CUDA,
    OPENVINO,
    TENSORRT,
    Device,
    DeviceKind,
    Tuning,
    provider_list,
    shortfall,
)

FOR_GPUS = [TENSORRT, CUDA, CPU]
FOR_CPUS = ["AzureExecutionProvider", CPU]


def names(kind: DeviceKind, offered: list[str]) -> list[str]:
    return [name for name, _ in provider_list(Device(kind), offered)]


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("auto", [CUDA, CPU]),
        ("cpu", [CPU]),
        ("cuda", [CUDA, CPU]),
        ("tensorrt", [TENSORRT, CUDA, CPU]),
    ],
)
def test_a_kind_asks_for_its_providers_by_preference(kind, asked):
    assert names(kind, FOR_GPUS) == asked


def test_a_provider_that_the_runtime_was_not_built_with_is_not_asked_for():
    assert names("tensorrt", FOR_CPUS) == [CPU]
    assert names("openvino", [OPENVINO, CPU]) == [OPENVINO, CPU]


def test_cuda_is_tuned_by_default_for_pictures_of_many_sizes():
    options = dict(provider_list(Device("cuda", index=1), FOR_GPUS))[CUDA]

    assert options == {
        "device_id": "1",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    }


def test_every_option_of_cuda_reaches_it_through_tensorrt_too():
    tuning = Tuning("EXHAUSTIVE", "kNextPowerOfTwo", memory_bytes=2**30)

    cuda = dict(provider_list(Device("tensorrt", tuning=tuning), FOR_GPUS))[CUDA]

    assert cuda == {
        "device_id": "0",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "arena_extend_strategy": "kNextPowerOfTwo",
        "gpu_mem_limit": str(2**30),
    }


def test_tensorrt_keeps_its_engines_where_a_folder_is_named():
    plain, kept = Device("tensorrt", index=2), Tuning(engine_cache=Path("engines"))

    without = dict(provider_list(plain, FOR_GPUS))[TENSORRT]
    cached = dict(provider_list(replace(plain, tuning=kept), FOR_GPUS))[TENSORRT]

    assert without == {"device_id": "2"}
    assert cached == {
        "device_id": "2",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": "engines",
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": "engines",
    }


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("CPU", {"device_type": "CPU", "num_of_threads": "3"}),
        ("GPU", {"device_type": "GPU.1"}),
        ("NPU", {"device_type": "NPU"}),
    ],
)
def test_openvino_is_told_what_it_runs_on(target, options):
    device = Device("openvino", threads=3, index=1, tuning=Tuning(openvino_target=target))

    assert dict(provider_list(device, [OPENVINO, CPU]))[OPENVINO] == options


def test_openvino_keeps_what_it_compiled_where_a_folder_is_named():
    device = Device("openvino", tuning=Tuning(engine_cache=Path("engines")))

    assert dict(provider_list(device, [OPENVINO, CPU]))[OPENVINO]["cache_dir"] == "engines"


@pytest.mark.parametrize(
    ("kind", "offered", "got"),
    [
        ("cpu", FOR_GPUS, [CPU]),
        ("cuda", FOR_GPUS, [CUDA, CPU]),
        ("auto", FOR_GPUS, [CUDA, CPU]),
        ("auto", FOR_CPUS, [CPU]),
        ("tensorrt", FOR_GPUS, FOR_GPUS),
    ],
)
def test_a_session_on_the_asked_device_lacks_nothing(kind, offered, got):
    assert shortfall(Device(kind), offered, got) is None


@pytest.mark.parametrize(
    ("kind", "offered", "got"),
    [
        ("cuda", FOR_GPUS, [CPU]),
        ("cuda", FOR_CPUS, [CPU]),
        ("auto", FOR_GPUS, [CPU]),
        ("tensorrt", FOR_GPUS, [CUDA, CPU]),
        ("openvino", FOR_CPUS, [CPU]),
    ],
)
def test_a_session_elsewhere_is_told_by_what_was_asked_what_is_offered_and_what_it_got(
    kind, offered, got
):
    told = shortfall(Device(kind), offered, got)

    assert told is not None
    assert told.startswith(f"device {kind} was asked for; ")
    assert f"offers {', '.join(offered)}; " in told
    assert told.endswith(f"got {', '.join(got)}")
