from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from models.arrays import RgbImage
from models.bundle import Bundle
from models.detection import Detector, segment_crops
from models.findings import Defect, Standard
from models.locating import predict_field
from models.steps.heatmap import Peak
from models.steps.stopwatch import Stopwatch
from models.surroundings import Crop, look_into, place_crops

HW = (220, 320)


def image_with(*boxes: tuple[int, int, int, int]) -> RgbImage:
    image = np.zeros((*HW, 3), np.uint8)
    for x, y, width, height in boxes:
        image[y : y + height, x : x + width, 0] = 255
    return image


@pytest.fixture
def detector(tiny: Bundle) -> Detector:
    return tiny.detector


def look(
    image: RgbImage, detector: Detector, *at: tuple[float, float]
) -> tuple[list[Crop], list[Defect]]:
    """Look into crops around those points."""
    field = predict_field(image, detector.locator)
    crops = place_crops([Peak(x, y, 0.9) for x, y in at], detector.params.crop_size_px, HW)
    standard = Standard(detector.labels, detector.params, field, None)
    return look_into(image, crops, standard, partial(segment_crops, detector=detector), Stopwatch())


def test_crops_are_placed_around_their_peaks_in_order() -> None:
    first, second = place_crops([Peak(100.0, 50.0, 0.9), Peak(3.0, 3.0, 0.4)], 32, HW)

    assert (first.rank, first.box, first.confidence, first.reason) == (
        1,
        (84, 34, 32, 32),
        0.9,
        "peak",
    )
    assert (second.rank, second.window.box) == (2, (0, 0, 32, 32))


def test_a_defect_that_ends_in_its_crop_needs_no_other(detector: Detector) -> None:
    crops, (defect,) = look(image_with((100, 100, 6, 6)), detector, (103.0, 103.0))

    assert [crop.reason for crop in crops] == ["peak"]
    assert not defect.truncated


def test_a_defect_that_leaves_on_two_sides_is_followed_on_both(detector: Detector) -> None:
    box = (80, 100, 50, 4)

    crops, (defect,) = look(image_with(box), detector, (105.0, 102.0))

    assert [crop.reason for crop in crops] == ["peak", "neighbour", "neighbour"]
    assert sorted(crop.center_xy[0] for crop in crops[1:]) == [88.5, 121.5]
    assert all(100 <= crop.center_xy[1] <= 104 for crop in crops[1:])
    assert (defect.region.box, defect.truncated) == (box, False)


def test_a_crop_beyond_has_the_locators_confidence_there(detector: Detector) -> None:
    crops, _ = look(image_with((80, 100, 50, 4)), detector, (105.0, 102.0))

    assert crops[1].confidence == pytest.approx(1 / (1 + np.exp(-8)), rel=1e-4)


def test_a_defect_that_fills_its_crop_is_followed_on_every_side(detector: Detector) -> None:
    crops, _ = look(
        image_with((60, 60, 100, 100)), detector.with_params(extra_crops=4), (110.0, 110.0)
    )

    middles = {crop.center_xy for crop in crops[1:]}
    assert len(middles) == 4
    assert {x < 94 for x, _ in middles} == {x > 126 for x, _ in middles} == {True, False}
    assert {y < 94 for _, y in middles} == {y > 126 for _, y in middles} == {True, False}


def test_the_strongest_defect_is_followed_first(detector: Detector) -> None:
    image = image_with((20, 50, 60, 4), (200, 150, 60, 4))
    image[150:154, 200:260, 0] = 150

    crops, _ = look(image, detector.with_params(extra_crops=1), (230.0, 152.0), (50.0, 52.0))

    (beyond,) = crops[2:]
    assert beyond.center_xy[1] == pytest.approx(52, abs=2)


def test_at_the_pictures_own_edge_a_defect_is_whole(detector: Detector) -> None:
    crops, (defect,) = look(image_with((0, 0, 10, 10)), detector, (5.0, 5.0))

    assert len(crops) == 1
    assert not defect.truncated


def test_without_crops_there_is_nothing(detector: Detector) -> None:
    assert look(image_with(), detector) == ([], [])
