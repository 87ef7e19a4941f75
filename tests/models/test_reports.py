from __future__ import annotations

import numpy as np
import pytest

from models.audit import audit
from models.bundle import Bundle
from models.detection import Detection, Detector, detect
from models.inspection import Rule
from models.reports import describe_audit, describe_detection, describe_size, draw_overlay
from models.steps.pictures import Picture

RED, BLUE, YELLOW = [235, 40, 40], [60, 130, 255], [240, 200, 40]


@pytest.fixture
def picture() -> Picture:
    """96 high, 128 wide; a large red square and a small one."""
    pixels = np.full((96, 128, 3), 20, np.uint8)
    pixels[..., 0] = 0
    pixels[20:30, 40:52, 0] = pixels[60:64, 100:104, 0] = 255
    return Picture(pixels)


@pytest.fixture
def detector(tiny: Bundle) -> Detector:
    """It lets what is under 20 px pass."""
    return tiny.detector.with_params(rules=(Rule(under={"area_px": 20.0}),))


@pytest.fixture
def detection(picture: Picture, detector: Detector) -> Detection:
    return detect(picture, detector)


def test_an_overlay_has_crops_in_blue_defects_in_red_and_tolerated_ones_in_yellow(
    picture: Picture, detection: Detection
) -> None:
    image = picture.as_rgb8()
    before = image.copy()

    drawn = draw_overlay(image, detection)

    x, y, _, _ = detection.crops[0].box
    np.testing.assert_array_equal(image, before)
    assert drawn[20, 45].tolist() == drawn[25, 40].tolist() == RED
    assert drawn[60, 101].tolist() == YELLOW
    assert drawn[y, x + 3].tolist() == BLUE
    np.testing.assert_array_equal(drawn[90:], before[90:])


def test_a_detection_is_told_with_what_was_let_pass_and_why(detection: Detection) -> None:
    told = describe_detection(detection, None)

    (defect,), (tolerated,) = told["defects"], told["tolerated"]
    assert (told["verdict"], told["decision"]) == ("ng", "ng")
    assert defect["box"] == (40, 20, 12, 10)
    assert (tolerated["box"], tolerated["reason"]) == ((100, 60, 4, 4), "rule")
    assert {crop["reason"] for crop in told["crops"]} == {"peak"}
    assert "length_mm" not in defect


def test_every_length_has_a_twin_in_millimetres_where_the_scale_is_known(
    detection: Detection,
) -> None:
    (defect,) = describe_detection(detection, 0.5)["defects"]

    assert defect["area_mm"] == 0.25 * defect["area_px"]
    for name in ("length", "width", "mean_width"):
        assert defect[f"{name}_mm"] == 0.5 * defect[f"{name}_px"]


def test_an_audit_is_told_with_what_it_cost(
    picture: Picture, detector: Detector, detection: Detection
) -> None:
    audited = audit(picture, detection, detector)

    told = describe_audit(audited, None)

    assert told["missed"] == []
    assert told["slices"] == told["of_slices"] == audited.of_slices
    assert told["took_ms"] == audited.took_ms


def test_a_size_is_width_and_height() -> None:
    assert describe_size((96, 128)) == {"width": 128, "height": 96}
