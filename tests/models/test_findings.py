from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.bundle import Bundle
from models.findings import Standard, find_defects
from models.inspection import Zone, Zones
from models.locating import predict_field
from models.steps.crops import Window
from models.steps.mosaics import Mosaic
from models.steps.zones import Scope

HW = (64, 64)


def mosaic_of(*defects: tuple[int, int, int, int], label: int = 1, score: float = 0.9) -> Mosaic:
    """Two labels; the boxes (x, y, width, height) carry the given one, half of it the other."""
    scores = np.zeros((3, *HW), np.float32)
    for x, y, width, height in defects:
        scores[label, y : y + height, x : x + width] = score * 2 / 3
        scores[3 - label, y : y + height, x : x + width] = score / 3
    scores[0] = 1 - scores[1:].sum(axis=0)
    return Mosaic(scores, np.zeros((HW[0] + 2, HW[1] + 2), bool), 0, 0)


@pytest.fixture
def alone(tiny: Bundle) -> Standard:
    """The segmenter is asked alone, everywhere."""
    return Standard(("pit", "scratch"), tiny.detector.params, None, None)


def with_params(standard: Standard, **changes: object) -> Standard:
    return replace(standard, params=standard.params.model_copy(update=changes))


@pytest.mark.parametrize(("label", "name"), [(1, "pit"), (2, "scratch")])
def test_a_region_has_the_label_with_the_greatest_mean_probability(
    alone: Standard, label: int, name: str
) -> None:
    (defect,) = find_defects(mosaic_of((10, 10, 8, 4), label=label), [], alone)

    assert defect.label == name
    assert defect.score == pytest.approx(0.9)


def test_the_locator_has_a_say_where_it_is_asked(tiny: Bundle, alone: Standard) -> None:
    image = np.zeros((*HW, 3), np.uint8)
    field = predict_field(image, tiny.detector.locator)

    standard = replace(with_params(alone, min_score=0.0), field=field)
    (defect,) = find_defects(mosaic_of((10, 10, 8, 4)), [], standard)

    assert defect.score == pytest.approx(np.sqrt(0.9 / (1 + np.exp(8))), rel=1e-3)


def test_a_defect_names_the_crops_that_show_it(alone: Standard) -> None:
    windows = [Window(0, 0, 20), Window(30, 30, 20), Window(15, 5, 20)]

    (defect,) = find_defects(mosaic_of((10, 10, 8, 4)), windows, alone)

    assert defect.crops == (1, 3)


def test_only_what_is_large_certain_and_inside_enough_is_looked_at(alone: Standard) -> None:
    mosaic = mosaic_of((10, 10, 8, 4))
    right = Zone(points=((0.5, 0), (1, 0), (1, 1), (0.5, 1)))
    elsewhere = replace(alone, scope=Scope(Zones(look=(right,)), HW))

    assert len(find_defects(mosaic, [], alone)) == 1
    assert find_defects(mosaic, [], with_params(alone, min_area_px=33.0)) == []
    assert find_defects(mosaic, [], with_params(alone, min_score=0.95)) == []
    assert find_defects(mosaic, [], elsewhere) == []


def test_a_region_in_doubt_is_looked_at_too(alone: Standard) -> None:
    doubting = with_params(alone, min_score=0.95, review_score=0.8)

    assert len(find_defects(mosaic_of((10, 10, 8, 4)), [], doubting)) == 1


def test_near_parts_of_one_label_are_one_defect(alone: Standard) -> None:
    mosaic = mosaic_of((10, 10, 8, 4), (20, 10, 8, 4))

    assert len(find_defects(mosaic, [], alone)) == 2
    (joined,) = find_defects(mosaic, [], with_params(alone, merge_gap_px=2))
    assert joined.region.box == (10, 10, 18, 4)


def test_a_defect_knows_its_length_and_width(alone: Standard) -> None:
    (defect,) = find_defects(mosaic_of((10, 10, 40, 4)), [], alone)

    assert defect.extent.length_px == pytest.approx(40, abs=1)
    assert defect.extent.width_px == 4.0
