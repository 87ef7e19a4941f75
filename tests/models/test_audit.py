from __future__ import annotations

import numpy as np
import pytest

from models.audit import audit, lay_slices
from models.bundle import Bundle
from models.detection import BATCH, Detector, detect
from models.inspection import Rule, Zone, Zones
from models.steps.pictures import Picture

Box = tuple[int, int, int, int]
STRONG, FAINT, WIDE = (40, 24, 6, 6), (230, 20, 7, 5), (20, 150, 90, 3)


@pytest.fixture
def detector(tiny: Bundle) -> Detector:
    return tiny.detector.with_params(n=1)


def picture_with(*boxes: Box, hw: tuple[int, int] = (220, 320)) -> Picture:
    """Red boxes, the first a little redder, so that its peak is the greatest."""
    pixels = np.zeros((*hw, 3), np.uint8)
    for x, y, width, height in boxes[::-1]:
        pixels[y : y + height, x : x + width, 0] = 255 if (x, y) == boxes[0][:2] else 230
    return Picture(pixels)


def missed(picture: Picture, detector: Detector) -> set[Box]:
    return {d.region.box for d in audit(picture, detect(picture, detector), detector).missed}


def test_what_the_crops_missed_is_found_and_what_they_found_is_not_told_again(
    detector: Detector,
) -> None:
    picture = picture_with(STRONG, FAINT)

    audited = audit(picture, detect(picture, detector), detector)

    (defect,) = audited.missed
    assert defect.region.box == FAINT
    assert defect.crops == ()
    assert audited.slices == audited.of_slices == len(lay_slices(picture.hw, 32))
    assert audited.took_ms > 0


def test_nothing_is_missed_where_every_defect_has_its_crop(detector: Detector) -> None:
    assert missed(picture_with(STRONG, FAINT), detector.with_params(n=5)) == set()
    assert missed(picture_with(), detector) == set()


def test_a_defect_that_crosses_many_slices_is_one(detector: Detector) -> None:
    assert missed(picture_with(STRONG, WIDE), detector) == {WIDE}


def test_a_defect_that_the_crops_saw_in_part_is_not_missed(detector: Detector) -> None:
    assert missed(picture_with(WIDE), detector.with_params(extra_crops=0)) == set()


def test_what_the_locator_overlooks_is_scored_by_the_segmenter_alone(detector: Detector) -> None:
    picture = picture_with(STRONG, FAINT)

    (defect,) = audit(picture, detect(picture, detector), detector).missed

    assert defect.score == pytest.approx(1 / (1 + np.exp(-(230 * 16 / 255 - 8))), rel=1e-3)


def test_zones_limits_and_rules_hold_for_an_audit_too(detector: Detector) -> None:
    picture = picture_with(STRONG, FAINT)
    left = Zones(look=(Zone(points=((0, 0), (0.5, 0), (0.5, 1), (0, 1))),))
    rule = Rule(under={"area_px": 36.0})

    assert missed(picture, detector.with_params(zones=left)) == set()
    assert missed(picture, detector.with_params(rules=(rule,))) == set()
    assert missed(picture, detector.with_params(rules=(Rule(allowed=1),))) == {FAINT}


def test_only_slices_that_see_a_zone_are_segmented(detector: Detector) -> None:
    picture = picture_with(STRONG)
    corner = Zones(look=(Zone(points=((0, 0), (20, 0), (20, 20), (0, 20)), frame="px"),))
    zoned = detector.with_params(zones=corner)

    assert audit(picture, detect(picture, zoned), zoned).slices == 1


def test_an_audit_that_runs_out_of_time_tells_what_it_has_seen(detector: Detector) -> None:
    picture = picture_with(STRONG, FAINT)
    answers = iter([True, True, False])

    audited = audit(picture, detect(picture, detector), detector, go_on=lambda: next(answers))

    assert audited.slices == 2 * BATCH
    assert audited.of_slices == len(lay_slices(picture.hw, 32)) > 2 * BATCH
    assert {defect.region.box for defect in audited.missed} <= {FAINT}


def test_an_audit_that_nobody_waits_for_any_more_ends_with_that(detector: Detector) -> None:
    picture = picture_with(STRONG)

    def leave() -> bool:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        audit(picture, detect(picture, detector), detector, go_on=leave)


@pytest.mark.parametrize("hw", [(220, 320), (32, 32), (20, 50), (33, 64), (500, 31)])
@pytest.mark.parametrize("side_px", [16, 32, 48])
def test_each_pixel_belongs_to_one_slice_whose_window_shows_it(
    hw: tuple[int, int], side_px: int
) -> None:
    owners = np.zeros(hw, int)

    for one in lay_slices(hw, side_px):
        owners[one.rows, one.columns] += 1
        assert one.window.y <= one.rows.start < one.rows.stop <= one.window.y + side_px
        assert one.window.x <= one.columns.start < one.columns.stop <= one.window.x + side_px

    assert (owners == 1).all()
