from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.bundle import Bundle
from models.detection import BATCH, Detector, detect
from models.errors import ParameterInvalid, PictureTooLarge, PictureTooSmall
from models.steps.outlines import fill_polygon
from models.steps.pictures import Picture

Box = tuple[int, int, int, int]
FAR_APART: list[Box] = [
    (40, 24, 6, 6),
    (230, 20, 7, 5),
    (290, 190, 6, 6),
    (20, 180, 5, 7),
    (130, 110, 6, 6),
]


@pytest.fixture
def detector(tiny: Bundle) -> Detector:
    return tiny.detector


def picture_with(*boxes: Box, hw: tuple[int, int] = (220, 320), red: int = 255) -> Picture:
    """Red boxes (x, y, width, height) on a ground without red."""
    pixels = np.zeros((*hw, 3), np.uint8)
    pixels[..., 1:] = 40
    for x, y, width, height in boxes:
        pixels[y : y + height, x : x + width, 0] = red
    return Picture(pixels)


def with_manifest(detector: Detector, **changes: object) -> Detector:
    return replace(detector, params=detector.params.model_copy(update=changes))


def centre_of(box: Box) -> tuple[float, float]:
    return box[0] + box[2] / 2, box[1] + box[3] / 2


def test_the_outline_encloses_exactly_the_red_box(detector: Detector) -> None:
    detection = detect(picture_with((40, 20, 6, 5)), detector)

    (defect,) = detection.defects
    exterior = defect.region.polygon.exterior
    assert exterior.tolist() == [[40, 20], [46, 20], [46, 25], [40, 25]]
    assert defect.region.box == (40, 20, 6, 5)
    assert defect.region.area_px == 30.0
    assert defect.region.centroid_xy == (43.0, 22.5)
    assert defect.label == "pit"
    assert not defect.truncated
    assert defect.crops == (1,)
    assert detection.verdict == "ng"


def test_all_of_n_defects_far_apart_are_found(detector: Detector) -> None:
    detection = detect(picture_with(*FAR_APART), detector.with_params(n=5))

    assert {defect.region.box for defect in detection.defects} == set(FAR_APART)
    assert len(detection.crops) == 5
    assert not detection.budget_exhausted


def test_the_literal_rule_looks_at_neighbours_of_one_defect(detector: Detector) -> None:
    picture = picture_with((40, 24, 40, 30), (230, 190, 6, 6))

    literal = detect(picture, with_manifest(detector, peak_rule="literal", n=5))
    coverage = detect(picture, detector.with_params(n=64))

    centres = [crop.center_xy for crop in literal.crops]
    assert centres == [(44, 28), (52, 28), (60, 28), (68, 28), (76, 28)]
    assert (230, 190, 6, 6) in {defect.region.box for defect in coverage.defects}
    assert (230, 190, 6, 6) not in {defect.region.box for defect in literal.defects}


def test_crops_are_ranked_by_confidence_from_1_and_lie_around_their_peaks(
    detector: Detector,
) -> None:
    picture = picture_with((40, 24, 6, 6), red=200)
    picture.pixels[100:106, 200:206, 0] = 255

    first, second = detect(picture, detector).crops

    assert (first.rank, second.rank) == (1, 2)
    assert first.confidence > second.confidence
    assert first.center_xy == (204.0, 100.0)
    assert first.box == (188, 84, 32, 32)
    assert second.center_xy == (44.0, 28.0)


@pytest.mark.parametrize("hw", [(220, 320), (33, 33), (20, 24)])
@pytest.mark.parametrize("n", [1, 3, 5])
def test_without_a_least_confidence_an_empty_picture_gets_exactly_n_crops(
    detector: Detector, hw: tuple[int, int], n: int
) -> None:
    detection = detect(picture_with(hw=hw), detector.with_params(n=n, min_confidence=0.0))

    assert len(detection.crops) == n
    assert [crop.rank for crop in detection.crops] == list(range(1, n + 1))
    assert detection.defects == ()
    assert detection.verdict == "ok"


def test_what_fills_up_the_crops_is_ranked_by_its_confidence_too(detector: Detector) -> None:
    picture = picture_with((10, 10, 20, 20), hw=(48, 48))
    picture.pixels[12, 12, 0] = 250

    crops = detect(picture, detector.with_params(n=12, min_confidence=0.0)).crops

    confidences = [crop.confidence for crop in crops]
    assert confidences == sorted(confidences, reverse=True)


def test_a_perfect_part_gets_no_crop_and_is_ok(detector: Detector) -> None:
    detection = detect(picture_with(), detector)

    assert detection.crops == ()
    assert detection.defects == ()
    assert detection.verdict == "ok"
    assert not detection.budget_exhausted


@pytest.mark.parametrize(
    ("box", "corner"),
    [
        ((0, 0, 6, 6), (0, 0)),
        ((314, 0, 6, 6), (288, 0)),
        ((0, 214, 6, 6), (0, 188)),
        ((314, 214, 6, 6), (288, 188)),
    ],
)
def test_a_crop_at_the_border_is_shifted_inside_and_its_defect_is_whole(
    detector: Detector, box: Box, corner: tuple[int, int]
) -> None:
    detection = detect(picture_with(box), detector)

    (crop,), (defect,) = detection.crops, detection.defects
    assert crop.box == (*corner, 32, 32)
    assert defect.region.box == box
    assert not defect.truncated


@pytest.mark.parametrize("hw", [(20, 24), (16, 16), (20, 100)])
def test_a_picture_smaller_than_its_crop_is_looked_into_whole(
    detector: Detector, hw: tuple[int, int]
) -> None:
    detection = detect(picture_with((9, 8, 5, 4), hw=hw), detector)

    (crop,), (defect,) = detection.crops, detection.defects
    assert crop.box == (0, 0, 32, 32)
    assert defect.region.box == (9, 8, 5, 4)
    assert not defect.truncated


def test_red_up_to_the_far_edge_of_a_small_picture_ends_there(detector: Detector) -> None:
    detection = detect(picture_with((14, 12, 10, 8), hw=(20, 24)), detector)

    (defect,) = detection.defects
    assert defect.region.box == (14, 12, 10, 8)
    assert not defect.truncated


def test_a_defect_that_two_crops_saw_is_one_with_both_ranks(detector: Detector) -> None:
    detection = detect(picture_with((40, 40, 24, 6)), detector)

    (defect,) = detection.defects
    assert len(detection.crops) == 2
    assert defect.crops == (1, 2)
    assert defect.region.box == (40, 40, 24, 6)
    assert not defect.truncated


def test_a_defect_larger_than_its_crop_is_truncated(detector: Detector) -> None:
    detection = detect(picture_with((100, 80, 60, 60)), detector.with_params(n=1))

    (crop,), (defect,) = detection.crops, detection.defects
    assert defect.truncated
    assert defect.region.area_px < 60 * 60
    assert crop.box[0] <= defect.region.x
    assert detection.budget_exhausted


def test_a_defect_at_the_pictures_edge_is_not_truncated(detector: Detector) -> None:
    detection = detect(picture_with((0, 0, 20, 20)), detector.with_params(n=1))

    (defect,) = detection.defects
    assert defect.region.box == (0, 0, 20, 20)
    assert not defect.truncated


def test_a_large_defect_at_the_pictures_edge_is_truncated_where_it_goes_on(
    detector: Detector,
) -> None:
    detection = detect(picture_with((0, 0, 60, 20)), detector.with_params(n=1))

    (defect,) = detection.defects
    assert defect.truncated


def test_a_hole_is_a_hole_of_the_outline(detector: Detector) -> None:
    picture = picture_with((40, 40, 12, 12))
    picture.pixels[44:48, 43:46, 0] = 0

    detection = detect(picture, detector)

    (defect,) = detection.defects
    (hole,) = defect.region.polygon.holes
    assert sorted(map(tuple, hole.tolist())) == [(43, 44), (43, 48), (46, 44), (46, 48)]
    assert defect.region.area_px == 144 - 12


def test_outlines_filled_again_are_the_red_pixels(detector: Detector) -> None:
    picture = picture_with(*FAR_APART)
    picture.pixels[112:114, 132:134, 0] = 0

    detection = detect(picture, detector)

    drawn = np.zeros(picture.hw, bool)
    for defect in detection.defects:
        drawn |= fill_polygon(defect.region.polygon, picture.hw)
    np.testing.assert_array_equal(drawn, picture.pixels[..., 0] > 127)


def test_parts_that_do_not_touch_are_defects_of_their_own(detector: Detector) -> None:
    detection = detect(picture_with((40, 40, 4, 4), (46, 40, 4, 4)), detector)

    assert {defect.region.box for defect in detection.defects} == {(40, 40, 4, 4), (46, 40, 4, 4)}


def test_the_score_needs_the_segmenter_and_the_locator(detector: Detector) -> None:
    detection = detect(picture_with((40, 40, 4, 4), red=150), detector)

    (defect,) = detection.defects
    sigmoid = 1 / (1 + np.exp(-(150 * 16 / 255 - 8)))
    assert defect.score == pytest.approx(sigmoid, rel=1e-3)
    assert detection.crops[0].confidence == pytest.approx(sigmoid, rel=1e-3)


def test_a_region_below_the_least_score_is_no_defect_and_leaves_the_part_ok(
    detector: Detector,
) -> None:
    picture = picture_with((40, 40, 4, 4), red=140)

    strict = detect(picture, detector.with_params(min_score=0.8))
    every = detect(picture, detector.with_params(min_score=0.0))

    assert strict.defects == ()
    assert strict.verdict == "ok"
    assert len(strict.crops) == 1
    assert [0.5 < defect.score < 0.8 for defect in every.defects] == [True]
    assert every.verdict == "ng"


def test_without_a_least_score_every_segmented_region_is_returned(detector: Detector) -> None:
    picture = picture_with((40, 40, 4, 4))
    picture.pixels[34:37, 50:53, 0] = 130

    every = detect(picture, detector.with_params(min_score=0.0))
    manifests = detect(picture, with_manifest(detector, min_score=0.9))

    assert len(every.defects) == 2
    assert len(manifests.defects) == 1


def test_a_region_smaller_than_the_least_area_is_no_defect(detector: Detector) -> None:
    picture = picture_with((40, 40, 3, 3))

    assert detect(picture, with_manifest(detector, min_area_px=9.0)).verdict == "ng"
    assert detect(picture, with_manifest(detector, min_area_px=10.0)).verdict == "ok"


def test_defects_come_strongest_first(detector: Detector) -> None:
    picture = picture_with((40, 40, 4, 4), red=160)
    picture.pixels[100:104, 100:104, 0] = 255
    picture.pixels[150:154, 200:204, 0] = 200

    scores = [defect.score for defect in detect(picture, detector).defects]

    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(("n", "is_exhausted"), [(1, True), (4, True), (5, False), (6, False)])
def test_the_budget_is_exhausted_where_more_peaks_than_crops_are_strong(
    detector: Detector, n: int, is_exhausted: bool
) -> None:
    detection = detect(picture_with(*FAR_APART), detector.with_params(n=n))

    assert detection.budget_exhausted is is_exhausted
    assert len(detection.crops) == min(n, 5)


def test_more_crops_than_one_batch_are_all_segmented(detector: Detector) -> None:
    boxes = [(10 + 45 * i, 10 + 50 * j, 5, 6) for i in range(7) for j in range(4)]

    detection = detect(picture_with(*boxes), detector.with_params(n=64))

    assert len(boxes) > BATCH
    assert {defect.region.box for defect in detection.defects} == set(boxes)


@pytest.mark.parametrize("crop_size_px", [16, 48, 64, 128])
def test_another_crop_size_moves_no_defect(detector: Detector, crop_size_px: int) -> None:
    box = (100, 80, 12, 12)

    detection = detect(picture_with(box), detector.with_params(crop_size_px=crop_size_px))

    assert all(crop.box[2:] == (crop_size_px, crop_size_px) for crop in detection.crops)
    (defect,) = detection.defects
    np.testing.assert_allclose(defect.region.centroid_xy, centre_of(box), atol=1.0)
    np.testing.assert_allclose(defect.region.box, box, atol=3)


def test_the_matrix_has_the_pictures_size_and_its_maximum_at_the_first_peak(
    detector: Detector,
) -> None:
    picture = picture_with((41, 25, 4, 4), hw=(221, 315))

    detection = detect(picture, detector)

    matrix = detection.field.matrix()
    row, column = np.unravel_index(matrix.argmax(), matrix.shape)
    x, y = detection.crops[0].center_xy
    assert matrix.shape == picture.hw
    assert max(abs(column + 0.5 - x), abs(row + 0.5 - y)) <= 0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_picture_of_any_depth_grey_or_colour_is_taken(
    detector: Detector, dtype: type, channels: tuple[int, ...]
) -> None:
    pixels = np.zeros((100, 120, *channels), dtype)
    pixels[40:46, 60:66] = np.iinfo(dtype).max

    (defect,) = detect(Picture(pixels), detector).defects

    assert defect.region.box == (60, 40, 6, 6)


def test_the_picture_is_left_as_it_was(detector: Detector) -> None:
    picture = picture_with(*FAR_APART)
    before = picture.pixels.copy()

    detect(picture, detector)

    np.testing.assert_array_equal(picture.pixels, before)


def test_each_part_of_the_story_is_timed(detector: Detector) -> None:
    timings_ms = detect(picture_with((40, 40, 4, 4)), detector).timings_ms

    assert list(timings_ms) == ["locate", "segment", "outline"]
    assert all(took_ms > 0 for took_ms in timings_ms.values())


def test_a_picture_beyond_the_bundles_limits_is_refused(detector: Detector) -> None:
    narrow = replace(detector, limits=detector.limits.model_copy(update={"max_pixels": 1000}))

    with pytest.raises(PictureTooSmall, match="at least 16 px"):
        detect(picture_with(hw=(15, 100)), detector)
    with pytest.raises(PictureTooLarge, match="1000"):
        detect(picture_with(hw=(40, 40)), narrow)


def test_other_parameters_make_another_detector_and_leave_the_bundle_alone(
    detector: Detector,
) -> None:
    before = detector.params

    other = detector.with_params(n=3, crop_size_px=64, min_confidence=0.1, min_score=0.2)

    assert detector.params == before
    changed = {"n": 3, "crop_size_px": 64, "min_confidence": 0.1, "min_score": 0.2}
    assert other.params.model_dump() == before.model_dump() | changed
    assert detector.with_params().params == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", 65),
        ("n", 2.5),
        ("crop_size_px", 0),
        ("min_confidence", -0.1),
        ("min_confidence", float("nan")),
        ("min_score", 1.1),
    ],
)
def test_a_parameter_out_of_bounds_is_refused_by_name(
    detector: Detector, field: str, value: float
) -> None:
    with pytest.raises(ParameterInvalid) as refusal:
        detector.with_params(**{field: value})  # type: ignore[arg-type]

    assert refusal.value.field == field
    assert "\n" not in str(refusal.value)
