from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.bundle import open_bundle
from tests.tiny import write_tiny_bundle
from training.calibration import Calibration, with_calibration
from training.data import Record
from training.detection_report import (
    describe_findings,
    judge_detection,
    worst_false_alarms,
    worst_misses,
    write_detection_report,
)
from training.evaluation import Findings, look_at, measure_detection

HW = (96, 160)


def draw(name: str, *spots: tuple[int, int, int, bool]) -> Record:
    """Black, with red spots of 6 × 6 px: x, y, red, and whether it is a defect."""
    image, labels = np.zeros((*HW, 3), np.uint8), np.zeros(HW, np.uint8)
    for x, y, red, is_defect in spots:
        image[y : y + 6, x : x + 6, 0] = red
        labels[y : y + 6, x : x + 6] = is_defect
    return Record(f"folder/{name}.png", name[0], image, labels)


RECORDS = (
    draw("a1", (8, 8, 255, True), (120, 60, 140, True)),
    draw("a2", (40, 40, 250, True), (120, 16, 200, False)),
    draw("b<1>"),
    draw("b2", (80, 40, 150, False)),
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    bundle = open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundles")))
    return look_at(RECORDS, with_calibration(bundle, Calibration(0.0, 0.9, 0.5, 0.3)).detector)


@pytest.fixture(scope="module")
def page(found: Findings, tmp_path_factory: pytest.TempPathFactory) -> str:
    file: Path = tmp_path_factory.mktemp("pages") / "detection_report.html"
    figures = measure_detection(found) | {"false_accept_rate_cross": 0.125}
    write_detection_report(file, {"product": "tiny"} | describe_findings(found), found, figures)
    return file.read_text(encoding="utf-8")


def test_the_worst_false_alarms_come_with_the_surest_first(found):
    scenes = worst_false_alarms(found)

    assert [scene.title for scene in scenes] == ["a2.png", "b2.png"]
    assert scenes[0].score > scenes[1].score > 0


def test_the_worst_misses_are_the_defects_under_the_limit(found):
    (scene,) = worst_misses(found)

    assert scene.title == "a1.png, 36 px"
    assert 0 < scene.score < 0.9


def test_the_page_needs_nothing_but_itself(page):
    assert page.count("<img") == page.count('src="data:image/jpeg;base64,') == 3
    assert page.count("<svg") == page.count("</svg>") == 3
    assert "<script" not in page
    assert "http" not in page


def test_the_page_tells_verdicts_with_limits_from_other_groups(page):
    assert "<td>of the bad parts, called good</td><td>0.000</td><td>0.125</td>" in page
    assert "below 0.500 it is surely good, from 0.900 on surely bad" in page


def test_the_page_says_where_nothing_went_wrong(found, tmp_path):
    good = Findings(RECORDS[2:3], found.params, found.fields[2:3], [[]])

    write_detection_report(tmp_path / "p.html", {"product": "x"}, good, measure_detection(good))

    said = (tmp_path / "p.html").read_text()
    assert "No region was drawn where there is no defect." in said
    assert "No defect was missed." in said


def test_the_header_counts_pictures_groups_and_defects(found):
    assert describe_findings(found) == {
        "measured on": "4 pictures of 2 groups",
        "of them bad": "2 with 3 defects",
    }


def test_goals_are_told_by_whether_they_hold():
    figures = {"recall_at_0.5_false_regions": 0.9, "coverage_at_5": 0.9, "pixel_dice": 0.9}
    figures |= {"image_auroc": 0.9, "false_accept_rate": 0.05, "false_reject_rate": 0.2}

    assert [card.holds for card in judge_detection(figures)] == [
        *(True, False, True, False),
        *(True, False),
    ]
