from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from models.errors import BundleAltered, DeviceLost
from models.session import CPU, CUDA, Device, open_graph

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


@pytest.mark.skipif(
    CUDA in onnxruntime.get_available_providers(), reason="this ONNX Runtime may have CUDA"
)
def test_cuda_that_is_asked_for_and_missing_is_no_reason_to_use_the_cpu(sum_file: Path) -> None:
    with pytest.raises(DeviceLost, match="cuda"):
        open_graph(sum_file, Device("cuda"))


@pytest.mark.gpu
def test_cuda_runs_a_graph_where_there_is_one(sum_file: Path) -> None:
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime was built without CUDA")
    graph = open_graph(sum_file, Device("cuda"))

    assert graph.providers[0] == CUDA
    assert graph(a=vector(1), b=vector(2))[0].tolist() == [3]


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08"])
def test_what_is_no_graph_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "locator.onnx"
    path.write_bytes(content)

    with pytest.raises(BundleAltered, match=r"locator\.onnx"):
        open_graph(path, ON_CPU)
