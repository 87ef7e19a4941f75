from __future__ import annotations

import numpy as np
import pytest

from models.audit import Audit
from models.findings import Defect
from models.rules import Tolerated
from models.steps.outlines import find_regions
from models.surroundings import Crop
from service.schemas import AuditOut, CropOut, DefectOut, ImageOut, ToleratedOut, base64_of


@pytest.fixture
def ring():
    """A frame two pixels thick with a hole of 2 × 2, its corner at x 3, y 1."""
    mask = np.zeros((12, 10), bool)
    mask[1:7, 3:9] = True
    mask[3:5, 5:7] = False
    (region,) = find_regions(mask)
    return mask, region


def test_a_size_is_width_and_height():
    assert ImageOut.of((1016, 2928)) == ImageOut(width=2928, height=1016)


def test_a_defect_keeps_its_holes(ring):
    _, region = ring
    defect = Defect("scratch", 0.5, region, False, (1, 2))

    out = DefectOut.of(defect, None)

    assert sorted(out.polygon.exterior) == [(3, 1), (3, 7), (9, 1), (9, 7)]
    assert [sorted(hole) for hole in out.polygon.holes] == [[(5, 3), (5, 5), (7, 3), (7, 5)]]
    assert (out.area_px, out.area_mm, out.box) == (32.0, None, (3, 1, 6, 6))


def test_square_millimetres_grow_with_the_square_of_the_scale(ring):
    _, region = ring
    defect = Defect("scratch", 0.5, region, False, (1,))

    out = DefectOut.of(defect, 0.1)

    assert out.area_mm == pytest.approx(0.32)
    assert out.min_area_rect.size_mm == pytest.approx((0.6, 0.6))


def test_a_crop_without_a_picture_says_so():
    crop = Crop(1, (4.5, 5.5), 0.9, (0, 0, 8, 8))

    assert CropOut.of(crop, None).image is None
    assert CropOut.of(crop, b"abc").image == base64_of(b"abc") == "YWJj"


def test_a_crop_says_why_it_was_looked_into():
    beyond = Crop(6, (4.5, 5.5), 0.1, (0, 0, 8, 8), "neighbour")

    assert CropOut.of(beyond, None).reason == "neighbour"


def test_length_and_width_have_twins_in_millimetres_where_the_scale_is_known():
    (region,) = find_regions(np.ones((4, 40), bool))
    defect = Defect("scratch", 0.5, region, False, (1,))

    plain, scaled = DefectOut.of(defect, None), DefectOut.of(defect, 0.1)

    assert (plain.length_px, plain.width_px, plain.mean_width_px) == (40.0, 4.0, 4.0)
    assert (plain.length_mm, plain.width_mm, plain.mean_width_mm) == (None, None, None)
    twins = (scaled.length_mm, scaled.width_mm, scaled.mean_width_mm)
    assert twins == pytest.approx((4.0, 0.4, 0.4))


def test_a_tolerated_defect_is_a_defect_with_its_reason(ring):
    defect = Defect("scratch", 0.5, ring[1], False, (1,))

    out = ToleratedOut.of_tolerated(Tolerated(defect, "score"), 0.1)

    assert out.reason == "score"
    assert out.model_dump(exclude={"reason"}) == DefectOut.of(defect, 0.1).model_dump()


def test_an_audit_tells_how_many_slices_and_what_was_missed(ring):
    defect = Defect("scratch", 0.5, ring[1], False, ())

    out = AuditOut.of(Audit(12, 15, (defect,), 34.0), None)

    assert (out.slices, out.of_slices) == (12, 15)
    assert out.missed == [DefectOut.of(defect, None)]
