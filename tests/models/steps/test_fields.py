from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.steps.crops import window_around
from models.steps.fields import ConfidenceField, DenseField, PointField
from models.steps.heatmap import draw_peaks, logit_of
from models.steps.outlines import find_regions
from training.metrics import is_covered
from training.renderer import render_plate

STRIDE = 8


def field_with(
    cell: tuple[int, int], *, offset: tuple[float, float] = (0.0, 0.0), hw: tuple[int, int]
) -> DenseField:
    """-8 everywhere, +4 in one cell (row, column)."""
    rows, columns = -(-hw[0] // STRIDE), -(-hw[1] // STRIDE)
    logits = np.full((rows, columns), -8, np.float32)
    logits[cell] = 4
    offsets = np.zeros((2, rows, columns), np.float32)
    offsets[:, cell[0], cell[1]] = offset
    return DenseField(logits, offsets, STRIDE, hw)


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

    matrix = DenseField(logits, np.zeros((2, 8, 12), np.float32), STRIDE, (64, 96)).matrix()

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

    left = field.within(lambda *_: cells)

    assert left.peaks(5, min_confidence=0.5, radius_px=16) == []
    assert field.within(lambda *_: ~cells).peaks(
        5, min_confidence=0.5, radius_px=16
    ) == field.peaks(5, min_confidence=0.5, radius_px=16)
    assert {int(peak.x // STRIDE) for peak in left.peaks(40, min_confidence=0.0, radius_px=0)} <= {
        *range(4)
    }


def points_at(*told: tuple[float, float, float, float], hw: tuple[int, int]) -> PointField:
    """Points of logit, x, y, sigma."""
    return PointField(np.array(told, np.float32), hw)


def test_points_are_drawn_as_bells_of_which_the_greatest_counts() -> None:
    field = points_at((0, 20.5, 12.5, 4), (2, 30.5, 12.5, 6), hw=(40, 60))

    matrix = field.matrix()

    rows, columns = np.mgrid[:40, :60] + 0.5
    bells = [
        1 / (1 + np.exp(-logit)) * np.exp(-((columns - x) ** 2 + (rows - 12.5) ** 2) / (2 * s**2))
        for logit, x, s in ((0, 20.5, 4), (2, 30.5, 6))
    ]
    assert matrix.shape == (40, 60)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, np.max(bells, axis=0), atol=5e-4)


@pytest.mark.parametrize("xy", [(-30.0, 10.0), (2.0, -4.0), (75.0, 50.0), (59.5, 39.5)])
def test_a_point_beyond_the_picture_is_drawn_and_peaks_at_its_edge(xy: tuple[float, float]) -> None:
    field = points_at((4, *xy, 3), hw=(40, 60))

    (peak,) = field.peaks(5, min_confidence=0.5, radius_px=8)

    assert field.matrix().shape == (40, 60)
    assert 0.5 <= peak.x <= 59.5
    assert 0.5 <= peak.y <= 39.5


def test_a_point_covers_weaker_ones_within_the_radius() -> None:
    field = points_at((1, 30, 20, 3), (3, 20, 20, 3), (2, 50, 20, 3), hw=(40, 60))

    near = field.peaks(5, min_confidence=0.5, radius_px=9.9)
    far = field.peaks(5, min_confidence=0.5, radius_px=10.0)

    assert [peak.x for peak in near] == [20, 50, 30]
    assert [peak.x for peak in far] == [20, 50]


def test_what_is_no_peak_fills_up_only_where_n_are_wanted_whatever_the_confidence() -> None:
    fillers = np.array([(3.5, 22, 20, 3), (-2, 45, 20, 3)], np.float32)
    field = PointField(np.array([(3, 20, 20, 3)], np.float32), (40, 60), fillers)

    strong = field.peaks(3, min_confidence=0.01, radius_px=8)
    always = field.peaks(3, min_confidence=0.0, radius_px=8)

    assert [peak.x for peak in strong] == [20]
    assert [peak.x for peak in always] == [20, 45, 22]


def test_points_within_some_cells_are_those_that_lie_in_them() -> None:
    field = points_at((3, 20, 20, 3), (2, 50, 20, 3), (1, 500, 20, 3), hw=(40, 60))

    def lies_inside(hw: tuple[int, int], cell_px: int) -> np.ndarray:
        return np.broadcast_to((np.arange(hw[1]) + 0.5) * cell_px > 30, hw)

    kept = field.within(lies_inside).peaks(5, min_confidence=0.1, radius_px=4)

    assert [peak.x for peak in kept] == [50, 59.5]


def test_a_field_that_is_dense_is_dense_within_some_cells_too() -> None:
    dense = field_with((3, 5), hw=(64, 96))
    field = PointField(np.array([(4, 44, 28, 8)], np.float32), (64, 96), dense=dense)

    left = field.within(lambda hw, _: np.ones(hw, bool))

    assert isinstance(left, DenseField)
    assert left.peaks(40, min_confidence=0.0, radius_px=8) == dense.peaks(
        40, min_confidence=0.0, radius_px=8
    )


@pytest.mark.parametrize(
    ("box", "expected"),
    [((10, 10, 20, 20), 1.0), ((21, 5, 4, 15), 0.8825), ((60, 60, 5, 5), 0.0)],
)
def test_the_confidence_in_a_box_is_the_matrixs_greatest_there(
    box: tuple[int, int, int, int], expected: float
) -> None:
    field = points_at((20, 20, 20, 2), hw=(80, 80))

    confidence = field.confidence_in(box)

    x, y, width, height = box
    assert confidence == pytest.approx(expected, abs=1e-3)
    drawn = field.matrix()[y : y + height, x : x + width].max()
    assert confidence == pytest.approx(drawn, abs=0.25)


SURE = np.array([0.95, 0.8, 0.7, 0.6, 0.5])
"""How sure a locator is of five flaws, and over how many pixels."""
SPREAD_PX = 16.0


def as_heatmap(points: np.ndarray, hw: tuple[int, int]) -> ConfidenceField:
    cells = (hw[0] // STRIDE, hw[1] // STRIDE)
    bells = [
        sure * draw_peaks(points[k : k + 1], [SPREAD_PX], cells, STRIDE)
        for k, sure in enumerate(SURE)
    ]
    offsets = np.zeros((2, *cells), np.float32)
    return DenseField(logit_of(np.max(bells, axis=0)), offsets, STRIDE, hw)


def as_points(points: np.ndarray, hw: tuple[int, int]) -> ConfidenceField:
    spread = np.full((5, 1), SPREAD_PX)
    told = np.hstack([logit_of(SURE)[:, None], points, spread])
    return PointField(told.astype(np.float32), hw)


@pytest.mark.parametrize("as_field", [as_heatmap, as_points])
def test_the_literal_rule_misses_flaws_of_a_rendered_plate_that_coverage_shows(
    as_field: Callable[[np.ndarray, tuple[int, int]], ConfidenceField],
) -> None:
    hw, crop_px = (512, 768), 96
    plate = render_plate(np.random.default_rng(5), size_hw=hw, flaw_count=5)
    regions = [
        max(find_regions(flaw.mask, offset_xy=(flaw.x, flaw.y)), key=lambda r: r.area_px)
        for flaw in plate.flaws
    ]
    field = as_field(np.array([region.centroid_xy for region in regions]), hw)

    shares = {}
    for rule in ("coverage", "literal"):
        peaks = field.peaks(5, min_confidence=0.0, radius_px=18.0, rule=rule)
        windows = [window_around((p.x, p.y), crop_px, hw) for p in peaks]
        shares[rule] = np.mean([is_covered(region, windows) for region in regions])

    assert shares["coverage"] == 1.0
    assert shares["literal"] <= 0.4
