from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.arrays import Mask, Pixels
from models.steps.fusion import carry_grain, contrast, feather, fuse

KINDS = [("uint8", ()), ("uint8", (3,)), ("uint16", ()), ("uint16", (3,))]


def background(dtype: str, channels: tuple[int, ...]) -> Pixels:
    white = np.iinfo(dtype).max
    pixels: Pixels = np.random.default_rng(0).integers(
        0, white, (20, 24, *channels), dtype, endpoint=True
    )
    return pixels


def square() -> Mask:
    mask = np.zeros((20, 24), bool)
    mask[5:14, 8:19] = True
    return mask


def fused(
    pixels: Pixels, colour: tuple[float, float, float], alpha: float, mask: Mask | None = None
) -> Pixels:
    foreground = np.broadcast_to(np.array(colour, np.float32), (20, 24, 3))
    share = np.full((20, 24), alpha, np.float32)
    return fuse(pixels, foreground, share, square() if mask is None else mask)


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_every_pixel_outside_the_mask_is_the_backgrounds_bit_for_bit(
    dtype: str, channels: tuple[int, ...]
) -> None:
    before = background(dtype, channels)

    after = fused(before, (0.5, 0.5, 0.5), 1.0)

    assert after.dtype == before.dtype
    assert after.shape == before.shape
    np.testing.assert_array_equal(after[~square()], before[~square()])
    assert (after[square()] != before[square()]).any()


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_the_background_itself_is_left_alone(dtype: str, channels: tuple[int, ...]) -> None:
    before = background(dtype, channels)

    fused(before, (0.0, 0.0, 0.0), 1.0)

    np.testing.assert_array_equal(before, background(dtype, channels))


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize("tone", [0.0, 1.0])
def test_an_opaque_foreground_replaces_what_is_inside_over_the_full_range(
    dtype: str, channels: tuple[int, ...], tone: float
) -> None:
    after = fused(background(dtype, channels), (tone, tone, tone), 1.0)

    assert (after[square()] == tone * np.iinfo(dtype).max).all()


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_a_transparent_foreground_changes_nothing(dtype: str, channels: tuple[int, ...]) -> None:
    before = background(dtype, channels)

    np.testing.assert_array_equal(fused(before, (0.5, 0.5, 0.5), 0.0), before)


def test_half_a_foreground_is_half_way() -> None:
    before = np.full((20, 24, 3), 100, np.uint8)

    after = fused(before, (200 / 255, 0.0, 100 / 255), 0.5)

    assert after[8, 10].tolist() == [150, 50, 100]


def test_a_grey_picture_takes_the_foregrounds_luminance() -> None:
    after = fused(np.zeros((20, 24), np.uint8), (0.0, 1.0, 0.0), 1.0)

    assert after[8, 10] == round(0.587 * 255)


def test_an_empty_mask_changes_nothing() -> None:
    before = background("uint8", (3,))

    after = fused(before, (0.5, 0.5, 0.5), 1.0, mask=np.zeros((20, 24), bool))

    np.testing.assert_array_equal(after, before)


def test_a_feather_is_0_outside_half_on_the_rim_and_1_within() -> None:
    soft = feather(square(), 4.0)

    assert soft.dtype == np.float32
    assert (soft[~square()] == 0).all()
    assert soft[square()].min() >= 0.5
    assert soft[5, 12] == pytest.approx(0.5, abs=0.05)
    assert (np.diff(soft[5:10, 13]) >= 0).all()
    assert soft[9, 13] == 1.0


def test_a_feather_of_one_pixel_or_less_is_still_a_feather() -> None:
    for width_px in (0.1, 1.0):
        soft = feather(square(), width_px)

        assert set(np.unique(soft)) <= {np.float32(0), np.float32(0.5), np.float32(1)}


def test_a_mask_that_fills_its_frame_is_feathered_at_the_frame() -> None:
    soft = feather(np.ones((9, 9), bool), 4.0)

    assert soft[0].max() < 0.6
    assert soft[4, 4] == 1.0


def test_a_thin_crack_is_painted_in_full_however_wide_the_feather() -> None:
    crack = np.zeros((40, 40), bool)
    crack[4:36, 18:22] = True

    soft = feather(crack, 12.0)

    assert soft[crack].min() == 1.0


def grained(side_px: int) -> np.ndarray:
    """Light that rises from left to right, and every other line darker."""
    square = np.repeat(np.linspace(80, 200, side_px)[None], side_px, axis=0)
    square[::2] -= 20
    return np.repeat(square[..., None], 3, axis=2).astype(np.uint8)


def test_a_foreground_takes_the_grain_that_was_not_shown_and_no_more_light() -> None:
    square = grained(64)
    shown = cv2.resize(square, (16, 16), interpolation=cv2.INTER_AREA)
    flat = np.full((64, 64, 3), 0.1, np.float32)

    painted = carry_grain(flat, square, shown, np.ones((64, 64), bool))

    inner = painted[8:-8, 8:-8]
    gaps = np.abs(np.diff(inner[..., 0], axis=0)).mean()
    assert 0.1 * 20 / 255 < gaps < 0.5 * 20 / 255
    assert inner.mean() == pytest.approx(0.1, abs=0.01)


def test_grain_is_carried_no_farther_than_a_masks_box() -> None:
    square, mask = grained(64), np.zeros((64, 64), bool)
    shown = cv2.resize(square, (16, 16), interpolation=cv2.INTER_AREA)
    mask[20:30, 10:40] = True
    flat = np.full((64, 64, 3), 0.1, np.float32)

    painted = carry_grain(flat, square, shown, mask)

    changed = np.argwhere((painted != flat).any(axis=2))
    assert changed.min(0).tolist() == [20, 10]
    assert changed.max(0).tolist() == [29, 39]


def test_what_was_shown_at_its_own_size_keeps_its_foreground() -> None:
    square = grained(16)
    foreground = np.random.default_rng(0).random((16, 16, 3), np.float32)

    for shown in (square, grained(32)):
        assert carry_grain(foreground, square, shown, np.ones((16, 16), bool)) is foreground


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_contrast_is_told_in_grey_levels_of_255_at_any_depth(dtype: str) -> None:
    white = np.iinfo(dtype).max
    before = np.full((20, 24), white, dtype)
    after = before.copy()
    after[square()] = white - 51 * (white // 255)

    assert contrast(before, after, square()) == pytest.approx(51)
    assert contrast(after, before, square()) == pytest.approx(51)


def test_what_changes_outside_the_mask_is_no_contrast() -> None:
    before = np.zeros((20, 24), np.uint8)
    after = np.where(square(), 0, 255).astype(np.uint8)

    assert contrast(before, after, square()) == 0.0
    assert contrast(before, after, np.zeros((20, 24), bool)) == 0.0


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize("asked", [3.0, 20.0, 60.0])
def test_the_change_is_scaled_to_the_contrast_that_is_asked_for(
    dtype: str, channels: tuple[int, ...], asked: float
) -> None:
    before = (background(dtype, channels) // 4 + 3 * (np.iinfo(dtype).max // 8)).astype(dtype)

    after = darker(before, asked)

    assert contrast(before, after, square()) == pytest.approx(asked, abs=0.5)
    np.testing.assert_array_equal(after[~square()], before[~square()])
    assert (after <= before).all()


def test_black_bounds_the_contrast_that_can_be_reached() -> None:
    before = np.full((20, 24), 30, np.uint8)

    assert contrast(before, darker(before, 90.0), square()) == 30


def test_what_changes_nothing_is_not_blown_up() -> None:
    before = np.full((20, 24), 100, np.uint8)
    foreground = np.full((20, 24, 3), 100 / 255, np.float32)
    share = np.ones((20, 24), np.float32)

    after = fuse(before, foreground, share, square(), asked_contrast=50.0)

    assert contrast(before, after, square()) < 1


def darker(before: Pixels, asked: float) -> Pixels:
    black = np.zeros((20, 24, 3), np.float32)
    share = np.full((20, 24), 0.1, np.float32)
    return fuse(before, black, share, square(), asked_contrast=asked)
