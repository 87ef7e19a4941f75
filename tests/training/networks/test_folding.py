from __future__ import annotations

import pytest
import torch
from torch import nn

from training.networks.folding import FoldedLocator
from training.networks.locators import PlainLocator


@pytest.fixture(scope="module")
def locator() -> PlainLocator:
    torch.manual_seed(0)
    network = PlainLocator()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 2.0)
    return network.eval()


@pytest.mark.parametrize("hw", [(64, 96), (48, 16), (80, 112)])
def test_a_folded_locator_tells_the_same_field(locator, hw):
    pictures = torch.randint(0, 256, (2, *hw, 3), dtype=torch.uint8)

    with torch.no_grad():
        plain, folded = locator(pictures), FoldedLocator(locator)(pictures)

    assert folded.shape == plain.shape == (2, 3, hw[0] // 8, hw[1] // 8)
    assert (folded - plain).abs().max() < 1e-5


def test_folding_leaves_the_trained_network_as_it_was(locator):
    before = {name: value.clone() for name, value in locator.state_dict().items()}

    FoldedLocator(locator)

    assert all(torch.equal(before[name], value) for name, value in locator.state_dict().items())
