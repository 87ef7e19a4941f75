from __future__ import annotations

import pytest
import torch

from training.networks.locators import (
    CELLS,
    Lite0Locator,
    PlainLocator,
    Residual,
    WithPeaks,
    build_locator,
    strongest_cells,
)

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


@pytest.mark.parametrize("cells_hw", [(5, 7), (40, 60)])
def test_the_strongest_cells_are_local_maxima_first_each_strongest_first(cells_hw):
    field = torch.randn(1, 3, *cells_hw)

    (told,) = strongest_cells(field, 8)

    assert len(told) == min(CELLS, cells_hw[0] * cells_hw[1])
    is_peak = told[:, 3].bool()
    for part in (told[is_peak, 0], told[~is_peak, 0]):
        assert torch.equal(part, part.sort(descending=True).values)
    assert not is_peak[int(is_peak.sum()) :].any()


def test_a_cell_is_told_where_its_offset_moves_it():
    field = torch.full((1, 3, 10, 12), -4.0)
    field[:, 1:] = 0.0
    field[0, :, 4, 7] = torch.tensor([3.0, 0.25, -9.0])
    field[0, :, 4, 8] = torch.tensor([2.0, 0.0, 0.0])

    told = strongest_cells(field, 8)[0]

    assert told[0].tolist() == [3.0, 62.0, 32.0, 1.0]
    assert [2.0, 68.0, 36.0, 0.0] in told.tolist()


def test_a_network_with_peaks_gives_its_field_and_them(locator):
    image = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)

    with torch.no_grad():
        field, peaks = WithPeaks(locator, locator.stride_px)(image)

    assert torch.equal(field, locator(image))
    assert torch.equal(peaks, strongest_cells(field, locator.stride_px))
