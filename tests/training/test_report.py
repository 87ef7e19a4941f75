from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from models.arrays import RgbImage
from models.bundle import open_bundle
from models.steps.pictures import PictureLimits, decode_picture
from tests.tiny import write_tiny_bundle
from tests.training.specks import draw_record
from training.contests import Contest, measure_galleries
from training.data import Dataset
from training.downstream import FIGURES, Result, Table
from training.galleries import visit
from training.report import (
    Comparison,
    Line,
    compare_arms,
    describe_bundle,
    describe_data,
    describe_run,
    judge_goals,
    write_report,
)

PROMISES = {
    **{f"promise_{name}": 1.0 for name in ("identical", "legal", "inside", "visible")},
    **{"made": 1.0, "rejection_rate": 0.25, "rejected_cut": 0.2, "rejected_empty": 0.05},
    "rejected_per_sample": 0.3,
}
VALUES = {"picture_ap": (0.71, 0.02), "iou": (0.5, 0.01)}
COMPARISON = Comparison(
    "K = 5",
    [Line("classic", 3, {"picture_ap": (0.6, 0.02), "iou": (0.6, 0.01)}), Line("ours", 3, VALUES)],
    [Line("ours − classic", 3, {"picture_ap": (0.11, 0.02), "iou": (-0.1, 0.02)})],
)


class Page(HTMLParser):
    """Its tags, how they close, and what they point to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Page:
    file = tmp_path_factory.mktemp("reports") / "report.html"
    arms = {
        "ours": visit(draw_record(seed, kinds=(1,)) for seed in range(8)),
        "a & b": visit(draw_record(seed, kinds=(2,)) for seed in range(8)),
        "nothing": visit([]),
    }
    about = {"product": "<speck>", "commit": "abc"}
    contest = Contest(arms, measure_galleries(arms, data), PROMISES)
    write_report(file, about, data, contest, [COMPARISON])
    return Page(file.read_text(encoding="utf-8"))


def marked(page: Page) -> list[str]:
    return [re.sub("<.*?>", "", one) for one in re.findall(r"<b(?: class=.*?)?>.*?</b>", page.text)]


def test_the_page_needs_nothing_but_itself(page):
    assert page.open == []
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "http" not in page.text
    assert "url(" not in page.text


def test_names_are_text_and_never_tags(page):
    assert "&lt;speck&gt;" in page.text
    assert "a &amp; b" in page.text
    assert "speck" not in page.tags


def test_the_best_of_each_column_is_marked(page):
    assert "0.710 ± 0.020" in marked(page)
    assert "0.600 ± 0.010" in marked(page)
    assert "0.600 ± 0.020" not in marked(page)


def test_a_clear_gain_and_a_clear_loss_are_marked(page):
    assert "+0.110 ± 0.020" in marked(page)
    assert '<b class="worse">-0.100<small> ± 0.020</small></b>' in page.text


def test_rejected_draws_are_told_by_reason(page):
    reasons = re.findall(r"<span>(\w+)</span>.*?<span>([\d.]+) %</span>", page.text)

    assert reasons == [("cut", "20.0"), ("empty", "5.0")]


def test_goals_are_told_by_whether_they_hold():
    figures = {
        "ours": {"kid": 50.0, "kid_error": 20.0, "diversity": 0.8, "visible": 0.95}
        | {f"ks_{name}": 0.1 for name in ("log_area", "elongation", "solidity")},
        "poisson": {"kid": 40.0, "kid_error": 5.0},
    }

    cards = {card.title: card for card in judge_goals(PROMISES, figures, [COMPARISON])}

    holds = {title: card.holds for title, card in cards.items()}
    assert holds == {
        **{"promises kept": True, "draws rejected": False, "KID-like": True, "diversity": False},
        **{"worst mask KS": True, "visible": True, "K = 5": True},
    }
    assert cards["K = 5"].value == "+0.110"


def test_a_table_of_results_becomes_lines_with_their_seeds():
    scores = {
        ("real", 1): 0.5,
        ("real", 2): 0.6,
        ("ours", 1): 0.7,
        ("ours", 2): 0.9,
        ("ours", 3): 0.1,
    }
    results = [Result(a, s, "", dict.fromkeys(FIGURES, v)) for (a, s), v in scores.items()]

    comparison = compare_arms("K = 5", Table(tuple(results)))

    assert [(line.name, line.seeds) for line in comparison.arms] == [("real", 2), ("ours", 3)]
    (gain,) = comparison.differences
    assert (gain.name, gain.seeds) == ("ours − real", 2)
    assert gain.values["picture_ap"] == pytest.approx((0.25, 0.05))
    assert comparison.best("picture_ap") == pytest.approx(0.567)


def test_one_shared_seed_tells_no_difference():
    results = [Result(arm, 0, "", dict.fromkeys(FIGURES, 0.5)) for arm in ("real", "ours")]

    comparison = compare_arms("K = 5", Table(tuple(results)))

    assert [line.name for line in comparison.arms] == ["real", "ours"]
    assert comparison.differences == []


def test_the_sheets_of_ours_and_of_real_ones_are_left_beside_the_page(data, tmp_path):
    arms = {"ours": visit(draw_record(seed, kinds=(1,)) for seed in range(4))}
    contest = Contest(arms, measure_galleries(arms, data), PROMISES)

    write_report(tmp_path / "page.html", {"product": "speck"}, data, contest)

    assert {file.name for file in tmp_path.iterdir()} == {
        "page.html",
        "page-ours.jpg",
        "page-real.jpg",
    }
    assert read(tmp_path / "page-ours.jpg").shape == (120, 8 * 126 - 6, 3)


def test_the_header_says_what_made_the_samples_and_of_what(data, tmp_path):
    manifest = open_bundle(write_tiny_bundle(tmp_path)).manifest

    sealed = describe_bundle(manifest) | describe_data(data, count=5)
    own = describe_run({"product": "speck", "recipe": "trial", "data": "specks"})

    assert (sealed["product"], sealed["version"], sealed["recipe"]) == ("tiny", "1", "tiny")
    assert sealed["taught by"] == "12 defect pictures, 6 normal"
    assert sealed["measured on"] == "6 other defects, 3 normal pictures"
    assert sealed["each arm"] == "5 pictures"
    assert own == {"product": "speck", "version": "not sealed", "recipe": "trial"}


def read(file: Path) -> RgbImage:
    return decode_picture(file.read_bytes(), PictureLimits()).as_rgb8()
