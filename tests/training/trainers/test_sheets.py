from __future__ import annotations

import numpy as np

from models.steps.fields import DenseField
from training.trainers.sheets import GREEN, field_sheet, mask_sheet, tile


def test_tiles_lie_in_rows_on_black():
    white = [np.full((4, 6, 3), 255, np.uint8), *[np.full((2, 3, 3), 255, np.uint8)] * 2]

    sheet = tile(white, columns=2)

    assert sheet.shape == (8, 12, 3)
    assert (sheet > 0).all(2).sum() == 4 * 6 + 2 * 2 * 3
    assert sheet[0, 6].tolist() == sheet[4, 0].tolist() == [255] * 3


def test_no_pictures_make_a_small_black_sheet():
    assert not tile([], columns=3).any()


def test_a_mask_sheet_shows_the_score_in_red_and_the_truth_edged_in_green():
    crop = np.full((32, 32, 3), 100, np.uint8)
    score, truth = np.zeros((32, 32), np.float32), np.zeros((32, 32), bool)
    score[:8], truth[20:28, 20:28] = 1.0, True

    sheet = mask_sheet([crop], [score], [truth])

    assert sheet[0, 0, 0] > 150 > sheet[0, 0, 1]
    assert sheet[20, 20].tolist() == GREEN.tolist()
    assert sheet[24, 24].tolist() == sheet[12, 12].tolist() == [100] * 3


def test_a_field_sheet_shows_pictures_with_defects_alone(data):
    fields = [
        DenseField(
            np.full((12, 16), -9.0, np.float32), np.zeros((2, 12, 16), np.float32), 8, (96, 128)
        )
        for _ in data.val
    ]

    sheet = field_sheet(data.val, fields)

    assert len(data.val) == 9
    assert sheet.shape == (3 * 360, 2 * 480, 3)
    assert (sheet == GREEN).all(2).any()
