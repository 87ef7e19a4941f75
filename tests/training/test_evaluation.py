from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.bundle import Bundle, open_bundle
from models.detection import detect
from models.steps.pictures import Picture
from models.synthesis import SynthesisRequest, synthesize
from tests.tiny import write_tiny_bundle
from training.data import Record
from training.evaluation import (
    PROMISES,
    Calibration,
    Tally,
    calibrate,
    check_promises,
    evaluate_detection,
    evaluate_synthesis,
    measure_sizes,
    with_calibration,
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


def test_calibration_parts_true_from_false_regions(bundle):
    calibration = calibrate(RECORDS, bundle.detector)

    figures = evaluate_detection(RECORDS, with_calibration(bundle, calibration).detector)
    assert 0.9 < calibration.min_score < 1.0
    assert calibration.min_confidence == pytest.approx(0.6)
    assert figures["recall_as_calibrated"] == 1.0
    assert figures["false_regions_as_calibrated"] == 0.0


def test_calibration_looks_where_faint_defects_are(bundle):
    faint = draw("e", (40, 40, 125, True))

    calibration = calibrate((*RECORDS, faint), bundle.detector)

    assert 0.4 < calibration.min_confidence <= 0.46


def test_no_confidence_is_asked_for_where_any_would_lose_a_defect(bundle):
    faintest = draw("e", (40, 40, 2, True))

    calibration = calibrate((*RECORDS, faintest), bundle.detector)

    assert calibration.min_confidence == 0.0


def test_a_detector_that_finds_nothing_is_still_calibrated(bundle):
    calibration = calibrate((draw("e", (40, 40, 1, True)), draw("f")), bundle.detector)

    assert 0 <= calibration.min_confidence <= 1
    assert 0 <= calibration.min_score <= 1


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


def test_a_defect_of_any_size_has_its_bin(bundle):
    wide = np.zeros((16, 5000), np.uint8)
    wide[4:8, 10:4990] = 1
    record = Record("w", "w", np.repeat(wide[..., None], 3, axis=2), wide)

    nothing = detect(Picture(record.image), bundle.detector)

    figures = measure_sizes((record,), [nothing], 0.5)

    assert nothing.defects == ()
    assert figures["recall_128_to_4096_px"] == 0.0


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


def test_other_thresholds_leave_the_bundle_itself_alone(bundle):
    changed = with_calibration(bundle, Calibration(0.25, 0.75, 0.4)).detector.params

    assert (changed.min_confidence, changed.min_score, changed.mask_threshold) == (0.25, 0.75, 0.4)
    assert bundle.detector.params.min_confidence == 0.5
    assert bundle.detector.params.mask_threshold == 0.5


def test_calibration_takes_the_mask_threshold_that_finds_most(bundle):
    faint = draw("g", (40, 40, 110, True))

    calibration = calibrate((RECORDS[0], draw("h"), faint), bundle.detector)

    assert calibration.mask_threshold < 0.5
