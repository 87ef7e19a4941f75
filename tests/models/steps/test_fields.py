from __future__ import annotations

import numpy as np
import pytest

from models.steps.fields import ConfidenceField

STRIDE = 8


def field_with(
    cell: tuple[int, int], *, offset: tuple[float, float] = (0.0, 0.0), hw: tuple[int, int]
) -> ConfidenceField:
    """-8 everywhere, +4 in one cell (row, column)."""
    rows, columns = -(-hw[0] // STRIDE), -(-hw[1] // STRIDE)
    logits = np.full((rows, columns), -8, np.float32)
    logits[cell] = 4
    offsets = np.zeros((2, rows, columns), np.float32)
    offsets[:, cell[0], cell[1]] = offset
    return ConfidenceField(logits, offsets, STRIDE, hw)


@pytest.mark.parametrize("hw", [(64, 96), (61, 90), (65, 89)])
def test_the_matrix_has_the_pictures_size_and_its_maximum_at_the_peak(hw: tuple[int, int]) -> None:
    field = field_with((3, 5), hw=hw)

    matrix = field.matrix()

    (peak,) = field.peaks(5, min_confidence=0.5, radius_px=16)
    row, column = np.unravel_index(matrix.argmax(), matrix.shape)
    assert matrix.shape == hw
    assert matrix.dtype == np.float32
    assert abs(column + 0.5 - peak.x) <= 0.5
    assert abs(row + 0.5 - peak.y) <= 0.5


def test_the_matrix_is_a_confidence_everywhere() -> None:
    logits = np.random.default_rng(0).normal(0, 30, (8, 12)).astype(np.float32)

    matrix = ConfidenceField(logits, np.zeros((2, 8, 12), np.float32), STRIDE, (64, 96)).matrix()

    assert matrix.min() >= 0.0
    assert matrix.max() <= 1.0


def test_a_peak_lies_in_the_middle_of_its_cell_moved_by_its_offset() -> None:
    field = field_with((3, 5), offset=(0.25, -0.5), hw=(64, 96))

    (peak,) = field.peaks(5, min_confidence=0.5, radius_px=16)

    assert (peak.x, peak.y) == (46.0, 24.0)
    assert peak.confidence == pytest.approx(1 / (1 + np.exp(-4)))


def test_an_offset_never_leaves_its_cell() -> None:
    field = field_with((3, 5), offset=(7.0, -7.0), hw=(64, 96))

    (peak,) = field.peaks(5, min_confidence=0.5, radius_px=16)

    assert (peak.x, peak.y) == (48.0, 24.0)


def test_a_peak_in_a_cell_that_reaches_out_stays_in_the_picture() -> None:
    field = field_with((7, 11), hw=(57, 89))

    (peak,) = field.peaks(5, min_confidence=0.5, radius_px=16)

    assert (peak.x, peak.y) == (88.5, 56.5)


def test_a_radius_is_told_in_pixels_of_the_picture() -> None:
    field = field_with((3, 3), hw=(64, 96))
    field.logits[3, 6] = 3

    assert len(field.peaks(5, min_confidence=0.5, radius_px=23.9)) == 2
    assert len(field.peaks(5, min_confidence=0.5, radius_px=24.0)) == 1


def test_the_literal_rule_passes_through() -> None:
    field = field_with((3, 3), hw=(64, 96))
    field.logits[3, 4] = 3

    peaks = field.peaks(2, min_confidence=0.5, radius_px=24, rule="literal")

    assert [(peak.x, peak.y) for peak in peaks] == [(28, 28), (36, 28)]


@pytest.mark.parametrize(
    ("box", "is_high"),
    [
        ((40, 24, 8, 8), True),
        ((47, 31, 1, 1), True),
        ((30, 20, 11, 5), True),
        ((48, 24, 8, 8), False),
        ((40, 32, 8, 8), False),
        ((39, 24, 1, 8), False),
        ((32, 24, 8, 8), False),
        ((40, 16, 8, 8), False),
    ],
)
def test_the_confidence_in_a_box_is_that_of_the_cells_it_touches(
    box: tuple[int, int, int, int], is_high: bool
) -> None:
    confidence = field_with((3, 5), hw=(64, 96)).confidence_in(box)

    assert confidence == pytest.approx(1 / (1 + np.exp(-4 if is_high else 8)), rel=1e-3)


def test_a_field_within_some_cells_has_its_peaks_there_and_its_confidence_as_before() -> None:
    field = field_with((3, 5), hw=(64, 96))
    cells = np.zeros(field.logits.shape, bool)
    cells[:, :4] = True

    left = field.within(cells)

    assert left.peaks(5, min_confidence=0.5, radius_px=16) == []
    assert field.within(~cells).peaks(5, min_confidence=0.5, radius_px=16) == field.peaks(
        5, min_confidence=0.5, radius_px=16
    )
    assert {int(peak.x // STRIDE) for peak in left.peaks(40, min_confidence=0.0, radius_px=0)} <= {
        *range(4)
    }
