from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from models.devices import Device
from models.session import open_graph
from training import graphs
from training.export import Exported, export_graph, largest_gap
from training.networks.deeppose import DeepPose
from training.networks.generators import DefectGenerator, MaskGenerator
from training.networks.locators import build_locator
from training.networks.segmenters import Segmenter


def untrained(kind: str) -> tuple[Exported, graphs.Meaning]:
    torch.manual_seed(0)
    match kind:
        case "plain" | "lite0":
            return graphs.locator_export(build_locator(kind)), graphs.LOCATOR
        case "deeppose":
            network = DeepPose((64, 96), side_px=64, refined=3)
            return graphs.locator_export(network), graphs.DEEPPOSE
        case "DeepLabV3Plus" | "DeepLabV3":
            network = Segmenter(2, side_px=64, decoder=kind)
            return graphs.segmenter_export(network), graphs.SEGMENTER
        case "mask_generator" | "bare_mask_generator":
            masks = MaskGenerator(2, side_px=64, width=8, pages=PAGES[kind])
            return graphs.mask_generator_export(masks, 2), graphs.MASK_GENERATOR
    whole = kind == "defect_generator"
    defects = DefectGenerator(
        2, side_px=64, width=8, pages=PAGES[kind], modulated=whole, focused=whole
    )
    return graphs.defect_generator_export(defects, 2), graphs.DEFECT_GENERATOR


PAGES = {
    "mask_generator": 4,
    "defect_generator": 4,
    "bare_mask_generator": 0,
    "bare_defect_generator": 0,
}
"""Of each generator's book; the bare ones have none of the parts that can be left out."""
KINDS = ("plain", "lite0", "deeppose", "DeepLabV3Plus", "DeepLabV3", *PAGES)


@pytest.fixture(scope="module", params=KINDS)
def written(request, tmp_path_factory) -> tuple[Exported, graphs.Meaning, Path]:
    exported, meaning = untrained(request.param)
    path = tmp_path_factory.mktemp("graphs") / f"{request.param}.onnx"
    export_graph(exported, path)
    return exported, meaning, path


def test_the_graph_has_the_inputs_and_outputs_that_the_manifest_tells(written):
    _, meaning, path = written

    graph = open_graph(path, Device("cpu", threads=1))

    assert graph.input_names == set(meaning.inputs)
    assert set(graph.output_names) == set(meaning.outputs)


def test_the_graph_computes_what_the_network_computes_on_other_batches(written):
    exported, _, path = written
    network = exported.network.eval()
    assert isinstance(network, nn.Module)
    doubled = {name: torch.cat([value, value]) for name, value in exported.other.items()}

    assert largest_gap(network, path, doubled, exported.derived) < 2e-3


def test_the_gate_looks_at_another_size_of_batch_and_picture(written):
    exported, _, _ = written

    for name, axes in exported.free.items():
        if name in exported.traced:
            traced, other = exported.traced[name].shape, exported.other[name].shape
            assert all(traced[axis] != other[axis] for axis in axes)
