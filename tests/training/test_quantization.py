from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from models.devices import Device
from models.session import open_graph
from training import graphs
from training.export import export_graph
from training.networks.locators import build_locator
from training.networks.segmenters import Segmenter
from training.quantization import quantize_graph

ON_CPU = Device("cpu", threads=1)


@pytest.fixture(scope="module", params=["plain", "DeepLabV3Plus"])
def forms(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A network's graph, its int8 form, and pictures that neither was made with."""
    torch.manual_seed(0)
    folder: Path = tmp_path_factory.mktemp("graphs")
    if request.param == "plain":
        exported = graphs.locator_export(build_locator("plain"))
    else:
        exported = graphs.segmenter_export(Segmenter(2, side_px=64, decoder="DeepLabV3Plus"))
    export_graph(exported, folder / "fp32.onnx")
    rng = np.random.default_rng(0)
    seen = [rng.integers(0, 256, (2, 64, 64, 3), np.uint8) for _ in range(3)]
    quantize_graph(folder / "fp32.onnx", folder / "int8.onnx", seen)
    return (
        folder / "fp32.onnx",
        folder / "int8.onnx",
        rng.integers(0, 256, (3, 64, 64, 3), np.uint8),
    )


def test_the_int8_form_answers_nearly_the_same_to_any_batch(forms):
    fp32, int8, pictures = forms

    (exact, *_), (rounded, *_) = (open_graph(path, ON_CPU)(image=pictures) for path in (fp32, int8))

    assert rounded.shape == exact.shape
    spread = exact.std()
    assert np.sqrt(((rounded - exact) ** 2).mean()) < 0.1 * spread
    assert len(np.unique(rounded)) > 256


def test_the_int8_form_of_a_locator_takes_pictures_of_another_size_than_it_was_made_with(tmp_path):
    torch.manual_seed(0)
    export_graph(graphs.locator_export(build_locator("lite0")), tmp_path / "fp32.onnx")
    rng = np.random.default_rng(0)
    seen = [rng.integers(0, 256, (1, 64, 96, 3), np.uint8) for _ in range(2)]
    quantize_graph(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", seen)

    field, _ = open_graph(tmp_path / "int8.onnx", ON_CPU)(
        image=rng.integers(0, 256, (1, 160, 352, 3), np.uint8)
    )

    assert field.shape == (1, 3, 20, 44)


def test_weights_leave_the_highest_bit_free(forms):
    _, int8, _ = forms

    weights = [
        np.frombuffer(tensor.raw_data, np.int8)
        for tensor in onnx.load(int8).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    ]

    assert len(weights) >= 9
    assert all(abs(one.astype(int)).max() <= 64 for one in weights)
