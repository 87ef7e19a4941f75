from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.bundle import Bundle
from models.detection import BATCH, Detector, detect
from models.errors import ParameterInvalid, PictureTooLarge, PictureTooSmall
from models.inspection import Rule, Zone, Zones
from models.manifest import ObjectRule
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


def left_half(kind: str, **more: float) -> Zones:
    """Zones that look, or do not, at the left half of a picture."""
    half = Zone(points=((0, 0), (0.5, 0), (0.5, 1), (0, 1)))
    return Zones.model_validate({kind: (half,), **more})


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

    literal = detect(picture, with_manifest(detector, peak_rule="literal", n=5, extra_crops=0))
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


def test_a_defect_that_leaves_its_crop_is_made_whole_by_the_crops_beyond(
    detector: Detector,
) -> None:
    box = (60, 100, 70, 5)

    detection = detect(picture_with(box), with_manifest(detector, n=1, peak_rule="literal"))

    (defect,) = detection.defects
    assert defect.region.box == box
    assert not defect.truncated
    assert [crop.reason for crop in detection.crops] == ["peak", *["neighbour"] * 4]
    assert [crop.rank for crop in detection.crops] == [1, 2, 3, 4, 5]
    assert defect.crops == (1, 2, 3, 4, 5)


def test_who_asks_for_n_crops_gets_no_more_unless_they_are_asked_for_too(
    detector: Detector,
) -> None:
    picture = picture_with((20, 100, 250, 5))

    assert len(detect(picture, detector.with_params(n=1)).crops) == 1
    assert len(detect(picture, detector.with_params(n=1, extra_crops=4)).crops) == 5


@pytest.mark.parametrize("extra_crops", [1, 2])
def test_at_most_so_many_crops_beyond_are_looked_into_and_then_it_is_truncated(
    detector: Detector, extra_crops: int
) -> None:
    picture = picture_with((20, 100, 250, 5))

    detection = detect(picture, detector.with_params(n=1, extra_crops=extra_crops))

    (defect,) = detection.defects
    assert defect.truncated
    assert len(detection.crops) == 1 + extra_crops


def test_the_matrix_of_a_picture_with_zones_is_still_that_of_the_whole_picture(
    detector: Detector,
) -> None:
    picture = picture_with(*FAR_APART)
    zoned = detector.with_params(zones=left_half("look"))

    whole, part = detect(picture, detector), detect(picture, zoned)

    np.testing.assert_array_equal(part.field.matrix(), whole.field.matrix())


@pytest.mark.parametrize("min_confidence", [0.0, 0.5])
def test_a_peak_outside_the_zones_is_not_looked_into(
    detector: Detector, min_confidence: float
) -> None:
    zoned = detector.with_params(zones=left_half("look"), min_confidence=min_confidence, n=8)

    detection = detect(picture_with(*FAR_APART), zoned)

    found = {defect.region.box for defect in detection.defects}
    assert found == {box for box in FAR_APART if box[0] < 160}
    assert all(crop.center_xy[0] < 160 + 2 * 8 for crop in detection.crops)


def test_a_defect_in_a_crop_counts_where_half_of_it_lies_in_the_zones(detector: Detector) -> None:
    half, less = picture_with((157, 100, 6, 4)), picture_with((158, 100, 6, 4))
    zoned = detector.with_params(zones=left_half("look"))
    any_part = detector.with_params(zones=left_half("look", least_share=0.0))

    assert [d.region.box for d in detect(half, zoned).defects] == [(157, 100, 6, 4)]
    assert detect(less, zoned).verdict == "ok"
    assert detect(less, any_part).verdict == "ng"


def test_where_nobody_cares_nothing_is_a_defect(detector: Detector) -> None:
    careless = detector.with_params(zones=left_half("ignore"))

    detection = detect(picture_with(*FAR_APART), careless)

    assert {d.region.box for d in detection.defects} == {b for b in FAR_APART if b[0] >= 160}
    assert detection.tolerated == ()


def test_zones_of_the_object_follow_it(detector: Detector) -> None:
    pixels = np.zeros((220, 320, 3), np.uint8)
    pixels[60:180, 100:300, 1:] = 220
    pixels[70:76, 110:116, 0] = pixels[150:156, 250:256, 0] = pixels[10:16, 20:26, 0] = 255
    seeing = replace(detector, object_rule=ObjectRule(threshold="otsu"))
    top_left = Zone(points=((0, 0), (0.5, 0), (0.5, 0.5), (0, 0.5)), frame="object")

    on_it = detect(Picture(pixels), seeing.with_params(zones=Zones(on_object=True)))
    corner = detect(Picture(pixels), seeing.with_params(zones=Zones(look=(top_left,))))

    assert {d.region.box for d in on_it.defects} == {(110, 70, 6, 6), (250, 150, 6, 6)}
    assert {d.region.box for d in corner.defects} == {(110, 70, 6, 6)}


def test_parts_of_one_defect_are_one_where_the_gap_is_small_enough(detector: Detector) -> None:
    picture = picture_with((40, 40, 4, 4), (46, 40, 4, 4))

    apart = detect(picture, detector.with_params(merge_gap_px=1)).defects
    (joined,) = detect(picture, detector.with_params(merge_gap_px=2)).defects

    assert len(apart) == 2
    assert joined.region.box == (40, 40, 10, 4)
    assert joined.region.area_px == 32 + 2


def test_between_the_two_limits_a_picture_is_to_be_reviewed(detector: Detector) -> None:
    picture = picture_with((40, 40, 4, 4), red=140)
    (defect,) = detect(picture, detector).defects
    doubting = detector.with_params(min_score=defect.score + 0.01, review_score=defect.score - 0.01)

    doubtful = detect(picture, doubting)
    certain = detect(picture, detector.with_params(min_score=defect.score - 0.01))
    harmless = detect(picture, detector.with_params(min_score=0.9, review_score=0.8))

    assert (doubtful.verdict, doubtful.decision) == ("ok", "review")
    assert [(one.defect.region.box, one.reason) for one in doubtful.tolerated] == [
        ((40, 40, 4, 4), "score")
    ]
    assert (certain.verdict, certain.decision) == ("ng", "ng")
    assert (harmless.verdict, harmless.decision) == ("ok", "ok")


def test_what_a_rule_lets_pass_is_told_and_leaves_the_part_ok(detector: Detector) -> None:
    rule = Rule(label="pit", under={"area_px": 40.0}, allowed=1)
    picture = picture_with((40, 24, 6, 6))
    two = picture_with((40, 24, 6, 6), (230, 20, 6, 6))

    passed = detect(picture, detector.with_params(rules=(rule,)))
    too_many = detect(two, detector.with_params(rules=(rule,)))

    assert (passed.verdict, passed.decision, passed.defects) == ("ok", "ok", ())
    assert [one.reason for one in passed.tolerated] == ["rule"]
    assert (too_many.verdict, len(too_many.defects)) == ("ng", 2)


def test_a_rule_in_millimetres_goes_by_the_scale_of_the_request(detector: Detector) -> None:
    rule = Rule(under={"length_mm": 1.0})
    picture = picture_with((40, 24, 6, 6))

    fine = detect(picture, detector.at_scale(0.1).with_params(rules=(rule,)))
    coarse = detect(picture, detector.at_scale(0.2).with_params(rules=(rule,)))

    assert (fine.verdict, coarse.verdict) == ("ok", "ng")
    with pytest.raises(ParameterInvalid, match="scale"):
        detector.with_params(rules=(rule,))


def test_a_manifests_limit_of_doubt_gives_way_to_a_lower_least_score(detector: Detector) -> None:
    doubting = with_manifest(detector, review_score=0.4)

    detection = detect(picture_with((40, 40, 4, 4), red=140), doubting.with_params(min_score=0.2))

    assert detection.decision == "ng"
    assert detection.tolerated == ()


def test_a_limit_of_doubt_above_the_least_score_is_refused(detector: Detector) -> None:
    with pytest.raises(ParameterInvalid, match="review_score"):
        detector.with_params(min_score=0.5, review_score=0.6)


def test_a_rule_for_a_label_that_nobody_finds_is_refused(detector: Detector) -> None:
    with pytest.raises(ParameterInvalid, match="dent"):
        detector.with_params(rules=(Rule(label="dent"),))


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
    assert other.params.model_dump() == before.model_dump() | changed | {"extra_crops": 0}
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
        ("review_score", -0.1),
        ("extra_crops", -1),
        ("extra_crops", 65),
        ("merge_gap_px", -1),
    ],
)
def test_a_parameter_out_of_bounds_is_refused_by_name(
    detector: Detector, field: str, value: float
) -> None:
    with pytest.raises(ParameterInvalid) as refusal:
        detector.with_params(**{field: value})  # type: ignore[arg-type]

    assert refusal.value.field == field
    assert "\n" not in str(refusal.value)
