from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.specks import SIDE_PX, draw_source
from training.data import Record
from training.sites import SiteSource
from training.trainers.fillings import Filling, steady_levels, texture_pages

DARK = 0.05


@pytest.fixture(scope="module")
def source(data) -> SiteSource:
    """Three pits and three scratches."""
    return draw_source(data)


def only(source: SiteSource, image: np.ndarray, labels: np.ndarray) -> SiteSource:
    """The source with one real defect."""
    return replace(source, defects=(Record("one", "g", image, labels.astype(np.uint8)),))


def filling(label: int, level: float, light: float) -> Filling:
    return Filling(label, torch.full((3, 8, 8), level), torch.ones(1, 16, 16), level, light)


def test_a_filling_is_the_log_ratio_of_the_defects_light_to_that_around(source):
    fillings, labels, _ = texture_pages(source, [(0, 0), (0, 2), (1, 1)])

    assert fillings.shape == (3, 3, SIDE_PX // 2, SIDE_PX // 2)
    assert labels.tolist() == [0, 0, 1]
    dark, bright = (np.log((grey / 255 + 0.05) / (160 / 255 + 0.05)) for grey in (40, 240))
    middle = fillings[:, :, 12:20, 12:20].mean((1, 2, 3))
    assert middle.tolist() == pytest.approx([dark, dark, bright], abs=0.1)


def test_no_pixel_of_a_filling_is_of_a_colour_far_from_its_defects(source):
    record, flaw = source.flaws[0][0]
    image, (x, y, width, height) = record.image.copy(), flaw.region.box
    image[y : y + height, x : x + width] = (30, 40, 20)
    image[y + height // 2, x : x + width] = (10, 10, 60)
    mottled = replace(source, defects=(replace(record, image=image),))

    ((filling), *_), _, _ = texture_pages(mottled, [(0, 0)])

    colour = (filling - filling.mean(0)).flatten(1)
    middle = colour.median(1).values
    assert middle[1] > 0.1 > -0.1 > middle[2]
    assert (colour - colour.mean(1, keepdim=True)).abs().max() < 0.25


def test_a_filling_goes_on_beyond_its_mask(source):
    fillings, _, _ = texture_pages(source, [(0, 0), (1, 0)])

    assert fillings[0].max() < -0.5
    assert fillings[1].min() > 0.2


def test_an_outline_is_the_mask_as_it_fills_the_page(source):
    _, _, (disc, bar) = texture_pages(source, [(0, 0), (1, 0)])

    assert disc.shape == bar.shape == (1, 16, 16)
    assert disc[0, 8, 8] == bar[0, 8, 8] == 1.0
    assert disc[0, 3, 8] == 1.0
    assert bar[0, 3, 8] == 0.0
    assert bar[0, 8, 2] > 0.9


def test_a_thin_crack_is_measured_at_the_pictures_own_size(source):
    image, labels = np.full((400, 400, 3), 160, np.uint8), np.zeros((400, 400))
    image[80:320, 199:202], labels[80:320, 199:202] = 60, 1

    ((crack,), _, _) = texture_pages(only(source, image, labels), [(0, 0)])

    wanted = np.log((60 / 255 + DARK) / (160 / 255 + DARK))
    assert crack[:, :, SIDE_PX // 4].mean() == pytest.approx(wanted, abs=0.1)


def test_a_defect_at_a_parts_edge_is_told_relative_to_the_part_not_to_the_dark_beyond(source):
    image, labels = np.full((96, 128, 3), 160, np.uint8), np.zeros((96, 128))
    image[:40] = 4
    image[40:56, 50:66], labels[40:56, 50:66] = 80, 1

    ((pit,), _, _) = texture_pages(only(source, image, labels), [(0, 0)])

    wanted = np.log((80 / 255 + DARK) / (160 / 255 + DARK))
    assert pit.mean() == pytest.approx(wanted, abs=0.15)


def test_levels_of_a_handful_are_drawn_to_their_mean_and_the_dark_ones_count_less():
    found = [filling(0, -0.6, 0.45), filling(0, 0.3, 0.05), filling(1, 0.4, 0.5)]

    pale, odd, other = steady_levels(found, [2, 1])

    mean = (-0.6 * 0.45 + 0.3 * 0.05) / 0.5
    assert pale == pytest.approx(mean + 2 / 7 * (-0.6 - mean))
    assert odd == pytest.approx(mean + 2 / 7 * (0.3 - mean))
    assert other == pytest.approx(0.4)


def test_levels_of_many_stay_as_they_are():
    found = [filling(0, level, 0.5) for level in np.linspace(-1, 0, 200)]

    steady = steady_levels(found, [200])

    assert steady == pytest.approx(np.linspace(-1, 0, 200), abs=0.02)
