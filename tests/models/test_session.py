from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from models.devices import CPU, CUDA, TENSORRT, Device, DeviceKind
from models.errors import BundleAltered, DeviceLost, DeviceMissing
from models.session import open_graph

ON_CPU = Device("cpu", threads=1)


@pytest.fixture(scope="module")
def sum_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of two vectors' sum and difference; the runtime fails where their sizes differ."""
    vectors = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"size_of_{name}"])
        for name in ("a", "b", "sum", "difference")
    }
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
    ]
    graph = helper.make_graph(
        nodes, "sums", [vectors["a"], vectors["b"]], [vectors["sum"], vectors["difference"]]
    )
    path = tmp_path_factory.mktemp("graphs") / "sum.onnx"
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), str(path))
    return path


def vector(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_a_graph_is_called_by_the_names_of_its_inputs_and_answers_in_order(sum_file: Path) -> None:
    graph = open_graph(sum_file, ON_CPU)

    total, difference = graph(b=vector(1, 2), a=vector(10, 20))

    assert total.tolist() == [11, 22]
    assert difference.tolist() == [9, 18]


def test_a_graph_can_be_asked_for_some_of_its_outputs_alone(sum_file: Path) -> None:
    graph = open_graph(sum_file, ON_CPU).only("difference")

    (difference,) = graph(b=vector(1, 2), a=vector(10, 20))

    assert difference.tolist() == [9, 18]


def test_a_graph_tells_its_name_its_inputs_and_its_outputs(sum_file: Path) -> None:
    graph = open_graph(sum_file, ON_CPU)

    assert graph.name == "sum.onnx"
    assert graph.input_names == {"a", "b"}
    assert graph.output_names == ["sum", "difference"]


def test_what_the_runtime_gives_up_on_is_the_devices_fault(sum_file: Path) -> None:
    graph = open_graph(sum_file, ON_CPU)

    with pytest.raises(DeviceLost, match=r"sum\.onnx"):
        graph(a=vector(1, 2, 3), b=vector(1, 2))


def test_a_graph_answers_several_threads_at_once(sum_file: Path) -> None:
    graph = open_graph(sum_file, ON_CPU)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda i: graph(a=vector(i), b=vector(1))[0].item(), range(64)))

    assert answers == [i + 1 for i in range(64)]


def test_on_the_cpu_nothing_else_runs_a_graph(sum_file: Path) -> None:
    assert open_graph(sum_file, ON_CPU).providers == [CPU]


def test_auto_takes_the_cpu_at_least(sum_file: Path) -> None:
    graph = open_graph(sum_file, Device("auto", threads=1))

    assert graph.providers[-1] == CPU
    assert graph(a=vector(1), b=vector(2))[0].tolist() == [3]


@pytest.mark.parametrize("kind", ["cuda", "tensorrt", "openvino"])
def test_a_named_device_that_is_missing_is_refused_in_one_line_and_never_replaced(
    sum_file: Path, kind: DeviceKind
) -> None:
    offered = onnxruntime.get_available_providers()
    if len(offered) > 2:
        pytest.skip("this ONNX Runtime may have an accelerator")

    with pytest.raises(DeviceMissing) as refusal:
        open_graph(sum_file, Device(kind))

    assert str(refusal.value) == (
        f"device {kind} was asked for; this ONNX Runtime offers {', '.join(offered)}; "
        f"the session got {CPU}"
    )


def test_what_cannot_be_loaded_is_no_missing_device(tmp_path: Path) -> None:
    path = tmp_path / "segmenter.onnx"
    path.write_bytes(b"no graph")

    with pytest.raises(BundleAltered, match=r"segmenter\.onnx") as refusal:
        open_graph(path, Device("cuda"))

    assert str(tmp_path) not in str(refusal.value)


def test_a_failed_load_prints_nothing_between_the_log_lines(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "locator.onnx"
    path.write_bytes(b"no graph")

    with pytest.raises(BundleAltered):
        open_graph(path, Device("auto"))

    assert capfd.readouterr() == ("", "")


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "provider"), [("cuda", CUDA), ("tensorrt", TENSORRT)])
def test_a_named_gpu_runs_a_graph_where_there_is_one(
    sum_file: Path, kind: DeviceKind, provider: str
) -> None:
    if provider not in onnxruntime.get_available_providers():
        pytest.skip(f"this ONNX Runtime was built without {kind}")
    try:
        graph = open_graph(sum_file, Device(kind))
    except DeviceMissing as missing:
        if kind == "tensorrt":
            pytest.skip(f"TensorRT's libraries are not installed: {missing}")
        raise

    assert graph.providers[0] == provider
    assert graph(a=vector(1), b=vector(2))[0].tolist() == [3]


@pytest.mark.gpu
def test_a_gpu_that_the_machine_has_not_is_refused(sum_file: Path) -> None:
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime was built without CUDA")

    with pytest.raises(DeviceMissing, match="cuda"):
        open_graph(sum_file, Device("cuda", index=63))


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08"])
def test_what_is_no_graph_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "locator.onnx"
    path.write_bytes(content)

    with pytest.raises(BundleAltered, match=r"locator\.onnx"):
        open_graph(path, ON_CPU)
