from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.bundle import Bundle, open_bundle
from models.steps.pictures import Picture
from models.synthesis import SynthesisRequest, synthesize
from tests.tiny import write_tiny_bundle
from training.data import Record
from training.evaluation import (
    PROMISES,
    Tally,
    check_promises,
    evaluate_detection,
    evaluate_synthesis,
    look_at,
    measure_detection,
)

HW = (96, 160)
REASONS = {f"rejected_{reason}" for reason in ("empty", "cut", "outside", "overlap", "invisible")}
Spot = tuple[int, int, int, bool]
"""x, y, red, and whether it is a defect; each 6 × 6 px."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundles")))


def draw(name: str, *spots: Spot) -> Record:
    """Black, with red spots: the tiny bundle's graphs answer with the red channel."""
    image, labels = np.zeros((*HW, 3), np.uint8), np.zeros(HW, np.uint8)
    for x, y, red, is_defect in spots:
        image[y : y + 6, x : x + 6, 0] = red
        labels[y : y + 6, x : x + 6] = is_defect
    return Record(name, name, image, labels)


def grey(name: str) -> Record:
    image = np.full((*HW, 3), 160, np.uint8)
    return Record(name, name, image, np.zeros(HW, np.uint8))


RECORDS = (
    draw("a", (8, 8, 255, True), (120, 60, 250, True)),
    draw("b", (40, 40, 255, True), (120, 16, 160, False)),
    draw("c"),
    draw("d", (80, 40, 150, False)),
)


def test_figures_of_a_detector_that_knows_all(bundle):
    figures = evaluate_detection(RECORDS, bundle.detector)

    assert figures["coverage_at_1"] == pytest.approx(2 / 3)
    assert figures["coverage_at_3"] == figures["coverage_at_10"] == 1.0
    assert figures["recall_at_0.1_false_regions"] == 1.0
    assert figures["recall_at_2_false_regions"] == 1.0
    assert figures["recall_0_to_16_px"] == figures["recall_as_calibrated"] == 1.0
    assert figures["false_regions_as_calibrated"] == 0.5
    assert figures["image_auroc"] == figures["locator_image_auroc"] == 1.0
    assert figures["pixel_ap"] == pytest.approx(1.0)
    assert figures["recall_over_0.2_percent"] == 1.0
    assert figures["best_pixel_dice"] == 1.0
    assert figures["pixel_dice"] == pytest.approx(2 * 108 / (108 + 180))
    assert figures["false_accept_rate"] == 0.0
    assert figures["false_reject_rate"] == 0.5
    assert figures["look_again_share"] == 0.0


def test_what_is_found_is_looked_at_once_and_measured_as_it_is(bundle):
    found = look_at(RECORDS, bundle.detector)

    assert [len(of_picture) for of_picture in found.predictions] == [2, 2, 0, 1]
    assert [field.image_hw for field in found.fields] == [HW] * 4
    assert measure_detection(found) == evaluate_detection(RECORDS, bundle.detector)


def test_the_literal_rule_covers_less_where_its_pixels_are_neighbours(bundle):
    wide = draw("w", (120, 60, 250, True))
    wide.image[8:32, 8:32, 0] = 255
    wide.labels[8:32, 8:32] = 1

    figures = evaluate_detection((wide,), bundle.detector)

    assert figures["coverage_at_5_literal"] == 0.5
    assert figures["coverage_at_5"] == 1.0


def test_every_promise_is_kept_on_normal_pictures(bundle):
    figures = evaluate_synthesis((grey("a"), grey("b")), bundle.synthesizer, count=6, seed=1)

    assert {figures[f"promise_{name}"] for name in PROMISES} == {1.0}
    assert figures["made"] == 1.0
    assert figures["rejected_per_sample"] >= 0


def test_rejected_draws_are_told_by_reason(bundle):
    narrow = grey("n")
    narrow.image[:, :60] = narrow.image[:, 84:] = 0

    figures = evaluate_synthesis((narrow, grey("b")), bundle.synthesizer, count=12, seed=1)

    reasons = {name: share for name, share in figures.items() if name in REASONS}
    rejected = figures["rejected_per_sample"]
    assert reasons
    assert sum(reasons.values()) == pytest.approx(figures["rejection_rate"])
    assert figures["rejection_rate"] == pytest.approx(rejected / (rejected + 1))


def test_a_request_that_gives_no_sample_is_counted_and_not_hidden(bundle):
    black = Record("k", "k", np.zeros((*HW, 3), np.uint8), np.zeros(HW, np.uint8))

    figures = evaluate_synthesis((grey("a"), black), bundle.synthesizer, count=4, seed=1)

    assert figures["made"] == 0.5
    assert figures["rejected_per_sample"] >= bundle.synthesizer.params.max_attempts / 2
    assert figures["promise_visible"] == 1.0
    assert figures["rejected_unmade"] > 0.5


def test_no_promise_is_kept_where_nothing_was_made(bundle):
    black = Record("k", "k", np.zeros((*HW, 3), np.uint8), np.zeros(HW, np.uint8))

    figures = evaluate_synthesis((black,), bundle.synthesizer, count=2, seed=1)

    assert {figures[f"promise_{name}"] for name in PROMISES} == {0.0}
    assert figures["made"] == 0.0


def test_a_tally_counts_every_defect_of_a_sample(bundle):
    request = SynthesisRequest(seed=3, defects=2, region=(40, 20, 80, 60))
    (made,) = synthesize(Picture(grey("a").image), request, bundle.synthesizer)
    made.rejected.clear()
    made.rejected["cut"] = 2
    tally = Tally(bundle.synthesizer)

    before = tally.figures()
    tally.add(grey("a"), made)
    tally.miss()
    after = tally.figures()

    assert (before["made"], before["rejection_rate"], before["promise_legal"]) == (0.0, 0.0, 0.0)
    assert after["made"] == 0.5
    draws = 4 + bundle.synthesizer.params.max_attempts
    assert after["rejected_cut"] == pytest.approx(2 / draws)
    assert after["rejection_rate"] == pytest.approx((draws - 2) / draws)


@pytest.fixture
def sample(bundle):
    request = SynthesisRequest(seed=3, label="pit", region=(40, 20, 80, 60))
    (made,) = synthesize(Picture(grey("a").image), request, bundle.synthesizer)
    return made


def broken(sample, promise: str):
    """The sample with one promise broken."""
    pixels, mask = sample.pixels.copy(), sample.mask.copy()
    match promise:
        case "identical":
            row, column = np.argwhere(~mask)[0]
            pixels[row, column, 0] ^= 1
        case "legal":
            return replace(sample, pixels=grey("a").image, mask=np.zeros(HW, bool), defects=())
        case "visible":
            pixels[mask] = 159
        case "inside":
            mask[0, 0] = True
    return replace(sample, pixels=pixels, mask=mask)


@pytest.mark.parametrize("promise", PROMISES)
def test_a_broken_promise_is_told_by_its_name(bundle, sample, promise):
    record, synthesizer = grey("a"), bundle.synthesizer
    rule = synthesizer.params.object_rule.model_copy(
        update={"threshold": "none", "margin_hw": (0.1, 0.1)}
    )
    params = synthesizer.params.model_copy(update={"object_rule": rule})
    synthesizer = replace(synthesizer, params=params)

    assert set(check_promises(record, sample, synthesizer).values()) == {True}
    kept = check_promises(record, broken(sample, promise), synthesizer)
    assert {name for name, holds in kept.items() if not holds} == {promise}
