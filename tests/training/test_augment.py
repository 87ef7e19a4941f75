from __future__ import annotations

import numpy as np
import pytest

from tests.training.specks import draw_record
from training.augment import defocus, flip, relight, zoom


@pytest.fixture
def marked() -> tuple[np.ndarray, np.ndarray]:
    record = draw_record(3, kinds=(1, 2))
    return record.image, record.labels


def test_a_flip_turns_picture_and_truth_alike(marked):
    image, labels = marked
    turned = [flip(image, labels, np.random.default_rng(seed)) for seed in range(20)]

    for seen, truth in turned:
        assert (seen[truth == 1] == 40).all()
        assert (seen[truth == 2] == 240).all()
        assert np.bincount(truth.ravel()).tolist() == np.bincount(labels.ravel()).tolist()
    assert len({truth.tobytes() for _, truth in turned}) == 4


def test_another_light_keeps_the_order_of_levels_and_moves_them():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)

    lit = [relight(ramp, np.random.default_rng(seed)) for seed in range(10)]

    assert all((np.diff(one.astype(int), axis=1) >= 0).all() for one in lit)
    assert len({one.tobytes() for one in lit}) == 10
    assert np.mean([np.abs(one.astype(int) - ramp).mean() for one in lit]) > 3


def test_half_of_the_pictures_lose_focus_or_gain_noise(marked):
    image, _ = marked

    changed = [defocus(image, np.random.default_rng(seed)) for seed in range(200)]

    assert 0.4 < np.mean([not np.array_equal(one, image) for one in changed]) < 0.6
    assert all(np.abs(one.astype(int) - image).mean() < 10 for one in changed)


def test_a_square_at_its_own_scale_is_the_pictures_own_pixels(marked):
    image, labels = marked

    seen, truth = zoom(image, labels, (60.0, 50.0), 32, 1.0)

    assert np.array_equal(seen, image[34:66, 44:76])
    assert np.array_equal(truth, labels[34:66, 44:76])


@pytest.mark.parametrize("factor", [0.5, 2.0, 3.0])
def test_a_zoomed_defect_stays_in_the_middle_and_is_as_much_larger(factor):
    image, labels = np.zeros((96, 96, 3), np.uint8), np.zeros((96, 96), np.uint8)
    image[40:48, 60:68], labels[40:48, 60:68] = 255, 1

    seen, truth = zoom(image, labels, (64.0, 44.0), 48, factor)

    rows, columns = np.nonzero(truth)
    assert truth.sum() == pytest.approx(64 * factor**2, rel=0.15)
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == pytest.approx((24, 24), abs=0.5)
    assert (seen[truth == 1] > 100).all()


@pytest.mark.parametrize("factor", [0.2, 1 / 3, 0.5])
def test_a_fine_checkerboard_shrinks_to_grey(factor):
    board = np.indices((96, 96)).sum(axis=0) % 2 * np.uint8(255)
    image, labels = np.repeat(board[..., None], 3, axis=2).astype(np.uint8), board.astype(np.uint8)

    seen, truth = zoom(image, labels, (48.0, 48.0), 16, factor)

    assert np.abs(seen.astype(int) - 127).max() <= 32
    assert set(np.unique(truth)) <= {0, 255}


def test_beyond_the_edge_the_picture_is_mirrored_with_its_truth():
    image, labels = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    image[10:14, 2:5], labels[10:14, 2:5] = 255, 1

    seen, truth = zoom(image, labels, (0.0, 12.0), 16, 1.0)

    assert np.array_equal(seen[..., 0] == 255, truth == 1)
    assert truth[:, 8:].sum() == truth[:, :8].sum() == 12
