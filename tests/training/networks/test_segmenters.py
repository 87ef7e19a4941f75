from __future__ import annotations

import pytest
import torch

from training.networks.encoders import imagenet_weights
from training.networks.segmenters import Segmenter


@pytest.fixture(scope="module", params=["DeepLabV3Plus", "DeepLabV3"])
def segmenter(request) -> Segmenter:
    torch.manual_seed(0)
    network = Segmenter(2, side_px=64, decoder=request.param)
    assert type(network.network).__name__ == request.param
    return network.eval()


@pytest.mark.parametrize(("batch", "side_px"), [(1, 64), (3, 64), (1, 96)])
def test_every_pixel_gets_a_logit_for_the_background_and_each_label(segmenter, batch, side_px):
    picture = torch.zeros(batch, side_px, side_px, 3, dtype=torch.uint8)

    with torch.no_grad():
        assert segmenter(picture).shape == (batch, 3, side_px, side_px)


def test_the_encoder_starts_from_imagenet(segmenter):
    tensors = [
        tensor
        for name, tensor in segmenter.network.encoder.state_dict().items()
        if "num_batches" not in name
    ]

    assert len(tensors) > 200
    assert all(torch.equal(a, b) for a, b in zip(tensors, imagenet_weights(), strict=False))
