from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.specks import SIDE_PX, draw_source
from training.networks.generators import DefectGenerator, MaskGenerator
from training.sites import SiteSource
from training.trainers.judges import DefectJudge, MaskJudge, features, measure_shape


class Disc(MaskGenerator):
    """Answers with a disc in the middle, whatever it is shown."""

    def __init__(self, radius_px: float) -> None:
        super().__init__(2, side_px=SIDE_PX, width=8, noise_size=4)
        self.radius_px = radius_px

    def forward(self, image: Tensor, *_: Tensor) -> Tensor:
        rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX] - SIDE_PX / 2
        disc = torch.from_numpy(np.hypot(rows, columns) < self.radius_px).float()
        return disc.expand(len(image), 1, SIDE_PX, SIDE_PX)


class Flat(DefectGenerator):
    """Paints one grey over the whole mask."""

    def __init__(self, grey: float) -> None:
        super().__init__(2, side_px=SIDE_PX, width=8, noise_size=4)
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
    network = MaskGenerator(2, side_px=SIDE_PX, width=8, noise_size=4).eval()

    with torch.no_grad():
        first, second = mask_judge(network), mask_judge(network)

    assert first.figures == second.figures
    assert np.array_equal(first.sheet, second.sheet)
    assert first.figures["diversity"] > 0


def test_black_and_white_defects_are_visible_and_grey_ones_are_not(defect_judge):
    black, grey = defect_judge(Flat(0.0)), defect_judge(Flat(160 / 255))

    assert black.figures["visible"] == 1.0
    assert grey.figures["visible"] == 0.0
    assert black.score > grey.score
    assert black.figures["kid"] < black.figures["kid_normals"]
    assert black.sheet.shape == (8 * SIDE_PX, 12 * SIDE_PX, 3)


def test_a_disc_is_round_and_solid_and_a_bar_is_long():
    canvas = np.zeros((64, 64), np.uint8)
    disc = cv2.circle(canvas.copy(), (32, 32), 15, 1, -1) > 0
    bar = cv2.rectangle(canvas.copy(), (10, 30), (49, 33), 1, -1) > 0
    cross = bar | bar.T

    assert measure_shape(disc) == pytest.approx((np.log(disc.sum()), 1.0, 1.0), abs=0.07)
    assert measure_shape(bar)[1] == pytest.approx(10.0, rel=0.01)
    assert measure_shape(cross)[2] < 0.5


def test_the_shape_of_a_speck_is_defined():
    speck = np.zeros((8, 8), bool)
    speck[3, 3] = True

    assert measure_shape(speck) == (0.0, 1.0, 1.0)


def test_features_are_the_same_for_the_same_pictures():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(2)]

    one, other = features([pictures[0], pictures[1], pictures[0]])[[0, 1]]

    assert one.shape == (152,)
    assert np.array_equal(features(pictures)[0], features(pictures)[0])
    assert np.abs(one - other).max() > 0.01
