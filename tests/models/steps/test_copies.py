from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.arrays import Mask, Pixels
from models.steps.copies import (
    LEAST_LIMIT,
    MOST,
    choose_evenly,
    copy_limit,
    read_fingerprints,
    similarity,
    take_fingerprint,
    write_fingerprints,
)


def ground(seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(100, 160, (80, 90, 3), np.uint8)


def hook(left: int = 20, top: int = 30, scale: int = 1) -> Mask:
    """An L, which no mirror maps onto itself."""
    mask = np.zeros((80, 90), bool)
    mask[top : top + 20 * scale, left : left + 5 * scale] = True
    mask[top + 15 * scale : top + 20 * scale, left : left + 12 * scale] = True
    return mask


def darkened(before: Pixels, mask: Mask, depth: int = 60) -> Pixels:
    """Darker towards the top."""
    rows = np.arange(len(before))[:, None, None]
    top = np.flatnonzero(mask.any(axis=1))[0]
    after = np.where(mask[..., None], before.astype(int) - depth + (rows - top), before)
    return np.clip(after, 0, 255).astype(before.dtype)


def taken(before: Pixels, mask: Mask, depth: int = 60) -> NDArray[np.int8]:
    return take_fingerprint(before, darkened(before, mask, depth), mask)


def alike(one: NDArray[np.int8], other: NDArray[np.int8]) -> float:
    return float(similarity(one[None], other[None])[0, 0])


def test_a_defect_is_its_own_copy() -> None:
    one = taken(ground(), hook())

    assert one.shape == (512,)
    assert one.dtype == np.int8
    assert alike(one, one) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("mask", "depth"),
    [(hook(left=50, top=9), 60), (hook(), 90), (hook(left=10, top=10, scale=2), 60)],
    ids=["elsewhere", "stronger", "twice as large"],
)
def test_the_same_change_on_another_ground_is_a_copy_whatever_its_place_strength_and_size(
    mask: Mask, depth: int
) -> None:
    assert alike(taken(ground(0), hook()), taken(ground(1), mask, depth)) > LEAST_LIMIT


def test_a_mirrored_copy_is_a_copy_and_one_that_stands_on_its_head_is_none() -> None:
    one = taken(ground(), hook())

    mirrored = take_fingerprint(
        ground()[:, ::-1],
        darkened(ground(), hook())[:, ::-1],
        np.ascontiguousarray(hook()[:, ::-1]),
    )
    turned = take_fingerprint(
        ground()[::-1], darkened(ground(), hook())[::-1], np.ascontiguousarray(hook()[::-1])
    )

    assert alike(one, mirrored) > 0.99
    assert alike(one, turned) < LEAST_LIMIT


def test_another_shape_and_a_bright_one_for_a_dark_one_are_no_copies() -> None:
    disc = np.hypot(*np.mgrid[-40:40, -45:45]) < 12

    assert alike(taken(ground(), hook()), taken(ground(), disc)) < LEAST_LIMIT
    assert alike(taken(ground(), hook()), taken(ground(), hook(), depth=-60)) < 0.5


def test_a_defect_is_the_same_at_any_depth_and_in_grey() -> None:
    after = darkened(ground(), hook())

    deep = take_fingerprint(ground().astype(np.uint16) * 257, after.astype(np.uint16) * 257, hook())
    grey = take_fingerprint(
        ground()[..., 0], darkened(np.repeat(ground()[..., :1], 3, 2), hook())[..., 0], hook()
    )

    assert alike(deep, taken(ground(), hook())) > 0.999
    assert alike(grey, taken(ground(), hook())) > LEAST_LIMIT


def test_a_pixel_and_no_change_at_all_have_fingerprints_too() -> None:
    pixel = np.zeros((80, 90), bool)
    pixel[4, 5] = True

    unchanged = take_fingerprint(ground(), ground(), hook())

    assert alike(taken(ground(), pixel), taken(ground(), pixel)) == pytest.approx(1.0, abs=1e-5)
    assert alike(unchanged, unchanged) == pytest.approx(1.0, abs=1e-5)


def test_what_is_written_is_read_again() -> None:
    fingerprints = np.stack([taken(ground(), hook(left)) for left in (5, 20, 60)])

    np.testing.assert_array_equal(read_fingerprints(write_fingerprints(fingerprints)), fingerprints)


def test_of_many_defects_the_most_are_kept_from_first_to_last() -> None:
    assert choose_evenly(3) == [0, 1, 2]
    assert choose_evenly(0) == []
    kept = choose_evenly(10 * MOST)
    assert (len(set(kept)), kept[0], kept[-1]) == (MOST, 0, 10 * MOST - 1)


def test_the_limit_is_how_like_each_other_real_defects_of_different_groups_are() -> None:
    rng = np.random.default_rng(0)
    shape = rng.normal(size=512)
    kin = np.rint(40 * (shape + 0.15 * rng.normal(size=(60, 512)))).clip(-127, 127).astype(np.int8)
    apart = rng.integers(-127, 127, (60, 512), np.int8)

    assert LEAST_LIMIT < copy_limit(kin, [str(i) for i in range(60)]) < 1.0
    assert copy_limit(apart, [str(i) for i in range(60)]) == LEAST_LIMIT


def test_defects_of_one_group_say_nothing_of_the_limit() -> None:
    twins = np.stack([taken(ground(), hook())] * 2)

    assert copy_limit(twins, ["part", "part"]) == LEAST_LIMIT
    assert copy_limit(twins, ["part", "other"]) == pytest.approx(1.0, abs=1e-5)
