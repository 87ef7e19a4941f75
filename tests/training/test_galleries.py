from __future__ import annotations

import numpy as np
import pytest

from models.arrays import RgbImage
from tests.training.specks import draw_record
from training.data import Record
from training.galleries import (
    CELL_PX,
    GAP_PX,
    PICTURE_HW,
    ROWS,
    ZOOM_PX,
    contact_sheet,
    cut_cell,
    find_normal,
    show_steps,
    visit,
)

PITS = [draw_record(seed, kinds=(1,)) for seed in range(70)]
NORMALS = [draw_record(seed, kinds=()) for seed in range(200, 205)]


def made_of(normal: Record) -> Record:
    """A sample of a normal picture, with one black square."""
    image, labels = normal.image.copy(), normal.labels.copy()
    image[30:50, 40:60] = 0
    labels[30:50, 40:60] = 1
    return Record("made", "made", image, labels)


def cells_of(sheet: RgbImage) -> int:
    """How many cells are not left white."""
    pitch = CELL_PX + GAP_PX
    inside = sheet[CELL_PX // 2 :: pitch, CELL_PX // 2 :: pitch]
    return int((inside < 255).any(axis=2).sum())


@pytest.mark.parametrize(("count", "rows", "shown"), [(3, 1, 3), (9, 2, 9), (70, 8, 64)])
def test_a_contact_sheet_shows_up_to_64_defects(count, rows, shown):
    sheet = contact_sheet(PITS[:count])

    assert sheet.shape == (rows * (CELL_PX + GAP_PX) - GAP_PX, 8 * (CELL_PX + GAP_PX) - GAP_PX, 3)
    assert cells_of(sheet) == shown


def test_a_contact_sheet_is_the_same_each_time():
    assert np.array_equal(contact_sheet(PITS), contact_sheet(PITS))


def test_a_sheet_of_nothing_is_white():
    assert (contact_sheet(NORMALS) == 255).all()


def test_a_cell_shows_the_defect_in_its_middle_with_generous_surroundings():
    record = made_of(NORMALS[0])

    cell = cut_cell(record, record.flaws[0])

    dark = (cell < 60).all(axis=2)
    rows, columns = np.nonzero(dark)
    assert cell.shape == (CELL_PX, CELL_PX, 3)
    assert dark.mean() == pytest.approx(1 / 2.5**2, rel=0.1)
    assert (rows.mean(), columns.mean()) == pytest.approx((CELL_PX / 2, CELL_PX / 2), abs=1.5)


def test_a_gallery_keeps_every_defect_and_a_few_pictures():
    gallery = visit([*NORMALS, *PITS])

    assert len(gallery.crops) == len(gallery.cells) == 70
    assert len(gallery.records) == len({record.name for record in gallery.records}) == ROWS
    assert all(record.flaws for record in gallery.records)
    assert {record.name for record in gallery.records} != {record.name for record in PITS[:ROWS]}


def test_a_sample_is_shown_beside_its_own_normal_picture():
    record = made_of(NORMALS[3])

    steps = show_steps(record, NORMALS)

    assert find_normal(record, NORMALS) is NORMALS[3]
    assert np.array_equal(steps.normal, NORMALS[3].image)
    assert np.array_equal(steps.defect, record.image)
    assert (steps.mask[31:49, 41:59] == 255).all()
    assert steps.zoom.shape == (ZOOM_PX, ZOOM_PX, 3)
    assert steps.label == 1


def test_a_normal_picture_of_another_size_is_never_the_one():
    record = made_of(NORMALS[2])
    smaller = Record("s", "s", record.image[:64], record.labels[:64])

    assert find_normal(record, [smaller, NORMALS[2]]) is NORMALS[2]


@pytest.mark.parametrize("hw", [(2000, 300), (300, 2000), (900, 900)])
def test_a_large_picture_is_shown_whole_and_small(hw):
    labels = np.zeros(hw, np.uint8)
    labels[100:120, 100:120] = 1
    record = Record("large", "large", np.zeros((*hw, 3), np.uint8), labels)

    shown = show_steps(record, [record]).defect

    assert shown.shape[0] <= PICTURE_HW[0]
    assert shown.shape[1] <= PICTURE_HW[1]
    assert shown.shape[0] / shown.shape[1] == pytest.approx(hw[0] / hw[1], rel=0.05)
