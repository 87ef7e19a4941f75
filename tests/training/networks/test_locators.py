from __future__ import annotations

import pytest
import torch

from training.networks.locators import Lite0Locator, PlainLocator, Residual, build_locator

NAMES = {"plain": PlainLocator, "lite0": Lite0Locator}


@pytest.fixture(scope="module", params=["plain", "lite0"])
def locator(request) -> PlainLocator | Lite0Locator:
    torch.manual_seed(0)
    network = build_locator(request.param)
    assert isinstance(network, NAMES[request.param])
    return network.eval()


@pytest.mark.parametrize("cells_hw", [(1, 2), (3, 1), (2, 4)])
def test_a_field_has_three_values_for_each_cell_of_any_picture(locator, cells_hw):
    height, width = (cells * locator.multiple_px for cells in cells_hw)

    with torch.no_grad():
        field = locator(torch.zeros(1, height, width, 3, dtype=torch.uint8))

    assert field.shape == (1, 3, height // locator.stride_px, width // locator.stride_px)


def test_an_untrained_locator_is_sure_of_nothing(locator):
    side_px = 4 * locator.multiple_px
    picture = torch.randint(0, 256, (1, side_px, side_px, 3), dtype=torch.uint8)

    with torch.no_grad():
        confidence = locator(picture)[:, 0].sigmoid()

    assert confidence.mean() < 0.03


def test_a_change_in_one_corner_is_told_in_that_corner(locator):
    side_px = 8 * locator.multiple_px
    dark = torch.full((1, side_px, side_px, 3), 128, dtype=torch.uint8)
    lit = dark.clone()
    lit[:, :16, -16:] = 255

    with torch.no_grad():
        change = (locator(lit) - locator(dark)).abs().sum(1)[0]

    row, column = divmod(int(change.argmax()), change.shape[1])
    assert row < change.shape[0] // 3
    assert column > 2 * change.shape[1] // 3


def test_a_residual_keeps_the_shape():
    assert Residual(8, dilation=2)(torch.randn(2, 8, 10, 14)).shape == (2, 8, 10, 14)
