from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.arrays import Scores
from models.steps.masks import harden_mask


def blob(x: float = 16.0, y: float = 16.0, width: float = 8.0, height: float = 5.0) -> Scores:
    rows, columns = np.mgrid[:32, :32] + 0.5
    inside = 1.0 - np.hypot((columns - x) / width, (rows - y) / height)
    return (1 / (1 + np.exp(-8 * inside))).astype(np.float32)


def longest_of(mask: np.ndarray) -> int:
    return max(cv2.boundingRect(mask.view(np.uint8))[2:])


@pytest.mark.parametrize("side_px", [18, 32, 90])
def test_what_is_over_the_threshold_is_defect_at_the_windows_side(side_px: int) -> None:
    mask = harden_mask(blob(), side_px, threshold=0.5, longest_px=side_px // 2)

    assert (mask.shape, mask.dtype) == ((side_px, side_px), np.bool_)
    assert mask[side_px // 2, side_px // 2]
    assert mask.mean() == pytest.approx(np.pi / 4 * 0.5 * 0.3125, rel=0.15)


def test_only_the_largest_part_is_kept() -> None:
    mask = harden_mask(np.maximum(blob(), blob(29, 3, 2, 2)), 64, threshold=0.5, longest_px=32)

    assert not mask[:10, 50:].any()
    assert cv2.connectedComponents(mask.view(np.uint8), connectivity=4)[0] == 2


@pytest.mark.parametrize("longest_px", [1, 2, 3, 7, 16, 33, 64, 98])
@pytest.mark.parametrize("soft", [blob(), blob(9, 22, 2, 9), blob(16, 16, 15, 0.7)])
def test_the_longest_side_is_exactly_as_asked_in_one_part(soft: Scores, longest_px: int) -> None:
    mask = harden_mask(soft, 100, threshold=0.5, longest_px=longest_px)

    assert longest_of(mask) == longest_px
    assert cv2.connectedComponents(mask.view(np.uint8), connectivity=4)[0] == 2


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_a_ragged_mask_gets_its_size_as_well(threshold: float) -> None:
    for seed in range(20):
        noise = np.random.default_rng(seed).random((32, 32), np.float32)
        soft = np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.0), np.float32)
        soft = (soft - soft.min()) / np.ptp(soft)

        mask = harden_mask(soft, 150, threshold=threshold, longest_px=41)

        assert longest_of(mask) == 41


def test_a_resized_mask_keeps_its_form_and_its_centre() -> None:
    mask = harden_mask(blob(12, 20, 8, 4), 128, threshold=0.5, longest_px=40)

    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    assert (x + width / 2, y + height / 2) == pytest.approx((48, 80), abs=1.5)
    assert width / height == pytest.approx(2.0, abs=0.2)


def test_a_mask_that_would_reach_the_windows_rim_is_moved_inside() -> None:
    mask = harden_mask(blob(27, 4, 4, 3), 64, threshold=0.5, longest_px=62)

    assert longest_of(mask) == 62
    assert not np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).any()


def test_where_nothing_was_imagined_the_mask_is_empty() -> None:
    soft = np.zeros((32, 32), np.float32)

    assert not harden_mask(soft, 64, threshold=0.5, longest_px=10).any()
