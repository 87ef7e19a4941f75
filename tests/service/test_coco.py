from __future__ import annotations

import numpy as np
import pytest

from models.steps.drafts import SyntheticDefect
from models.steps.outlines import find_regions
from service.coco import CocoAnnotationOut, CocoImageOut, RleOut


@pytest.fixture
def ring():
    """A frame two pixels thick with a hole of 2 × 2, its corner at x 3, y 1."""
    mask = np.zeros((12, 10), bool)
    mask[1:7, 3:9] = True
    mask[3:5, 5:7] = False
    (region,) = find_regions(mask)
    return mask, region


@pytest.fixture
def coco_image():
    return CocoImageOut(
        id=4, file_name="i.png", mask_file_name="m.png", width=10, height=12, seed=1
    )


def test_run_lengths_give_the_mask_back(ring):
    mask, region = ring

    rle = RleOut.of(region, mask.shape)

    values = np.repeat(np.arange(len(rle.counts)) % 2 == 1, rle.counts)
    assert np.array_equal(values.reshape(mask.shape, order="F"), mask)


def test_run_lengths_begin_with_zeros_even_when_the_first_pixel_is_set():
    (region,) = find_regions(np.ones((2, 3), bool))

    assert RleOut.of(region, (2, 3)).counts == [0, 6]


def test_an_outline_with_holes_is_run_lengths(ring, coco_image):
    _, region = ring

    out = CocoAnnotationOut.of(SyntheticDefect("scratch", region), coco_image, (1, 2))

    assert isinstance(out.segmentation, RleOut)
    assert (out.area, out.image_id, out.category_id) == (32.0, 4, 2)


def test_an_outline_without_holes_is_a_polygon(coco_image):
    mask = np.zeros((12, 10), bool)
    mask[2:4, 5:8] = True
    (region,) = find_regions(mask)

    out = CocoAnnotationOut.of(SyntheticDefect("scratch", region), coco_image, (1, 2))

    (ring,) = out.segmentation
    assert sorted(zip(ring[::2], ring[1::2], strict=True)) == [(5, 2), (5, 4), (8, 2), (8, 4)]
