from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.specks import SIDE_PX, draw_source
from training.networks.generators import DefectGenerator, MaskGenerator
from training.sites import SiteSource
from training.trainers.judges import DefectJudge, MaskJudge


class Disc(MaskGenerator):
    """Answers with a disc in the middle, whatever it is shown."""

    def __init__(self, radius_px: float) -> None:
        super().__init__(2, side_px=SIDE_PX, width=8, pages=2)
        self.radius_px = radius_px

    def forward(self, image: Tensor, *_: Tensor) -> Tensor:
        rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX] - SIDE_PX / 2
        disc = torch.from_numpy(np.hypot(rows, columns) < self.radius_px).float()
        return disc.expand(len(image), 1, SIDE_PX, SIDE_PX)


class Flat(DefectGenerator):
    """Paints one grey over the whole mask."""

    def __init__(self, grey: float) -> None:
        super().__init__(2, side_px=SIDE_PX, width=8, pages=2)
        self.grey = grey

    def forward(self, image: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        foreground = torch.full((len(image), 3, SIDE_PX, SIDE_PX), self.grey)
        return foreground, torch.ones(len(image), 1, SIDE_PX, SIDE_PX)


@pytest.fixture(scope="module")
def source(data) -> SiteSource:
    return draw_source(data)


@pytest.fixture(scope="module")
def mask_judge(source) -> MaskJudge:
    return MaskJudge(source, seed=1)


@pytest.fixture(scope="module")
def defect_judge(source) -> DefectJudge:
    return DefectJudge(source, [20.0, 20.0], 3.0, seed=1)


def test_masks_of_a_real_size_are_judged_better_than_giants_and_nothing(mask_judge):
    real, giant, nothing = (mask_judge(Disc(radius)) for radius in (12, 31, 0))

    assert real.score > giant.score
    assert real.score > nothing.score
    assert nothing.figures["empty"] == 1.0
    assert real.figures["empty"] == real.figures["outside"] == real.figures["diversity"] == 0.0


def test_masks_that_leave_the_object_are_told(data):
    source = draw_source(data)
    source.objects |= {r.name: np.zeros((96, 128), bool) for r in data.val}
    for mask in source.objects.values():
        mask[40:44, 60:64] = True

    assert MaskJudge(source, seed=1)(Disc(28)).figures["outside"] == 1.0


def test_a_judgement_of_the_same_network_is_the_same(mask_judge):
    torch.manual_seed(0)
    network = MaskGenerator(2, side_px=SIDE_PX, width=8, pages=4).eval()
    assert network.book is not None
    network.book.fill(torch.randn(4, 1, SIDE_PX, SIDE_PX), torch.tensor([0, 1, 0, 1]))

    with torch.no_grad():
        first, second = mask_judge(network), mask_judge(network)

    assert first.figures == second.figures
    assert np.array_equal(first.sheet, second.sheet)
    assert first.figures["diversity"] > 0


def test_real_masks_are_judged_as_they_lie_in_the_squares_that_masks_are_made_for(mask_judge):
    boxes = [np.argwhere(real.mask >= 0.5) for real in mask_judge.reals]

    sides = [max(np.ptp(box, axis=0)) + 1 for box in boxes]
    middles = np.array([box.mean(0) for box in boxes])

    assert SIDE_PX / 3 < min(sides) <= max(sides) < SIDE_PX / 1.5
    assert np.abs(middles - SIDE_PX / 2).max() < 0.1 * SIDE_PX


def test_black_and_white_defects_are_visible_and_grey_ones_are_not(defect_judge):
    black, grey = defect_judge(Flat(0.0)), defect_judge(Flat(160 / 255))

    assert black.figures["visible"] == 1.0
    assert grey.figures["visible"] == 0.0
    assert black.score > grey.score
    assert black.figures["kid"] < black.figures["kid_normals"]
    assert black.sheet.shape == (8 * SIDE_PX, 12 * SIDE_PX, 3)
