"""The ways to find a defect in a large picture: story 1, and those it is measured against.

Each takes a picture and the probability from which a pixel is defect, and gives its regions at any
score. All but story 1 score a region by its mean probability.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from models.arrays import RgbImage, Scores
from models.bundle import Bundle
from models.detection import Detector, detect
from models.devices import Device
from models.graphs import GraphCall
from models.session import open_graph
from models.steps.heatmap import confidence_of
from models.steps.outlines import Region, bridge_diagonals, find_regions
from models.steps.pictures import Picture
from tests.bench.slicing import slice_scores
from training.calibration import ANY_SCORE, with_threshold
from training.metrics import Predicted
from training.tapes import Tape, record_detector
from training.trainers.whole_task import MULTIPLE_PX, shrink_picture, shrunk_hw

MASK_THRESHOLDS = (0.1, 0.2, 0.35, 0.5)
"""Every method is given the one that suits it best."""

EVERY_PEAK = ", every peak"


@dataclass(frozen=True)
class Method:
    """A way to find defects, its graphs on tapes.

    thresholds: the mask thresholds that it may choose from. detector: where it has a stage 1.
    """

    name: str
    find: Callable[[Picture, float], list[Predicted]]
    tapes: tuple[Tape, ...]
    thresholds: tuple[float, ...] = MASK_THRESHOLDS
    detector: Detector | None = None


def story_methods(bundle: Bundle) -> list[Method]:
    """A bundle as it is calibrated, and the same where every one of the n peaks is looked into."""
    name = f"{bundle.manifest.product} {bundle.manifest.version}"
    shipped = bundle.detector.with_params(min_score=ANY_SCORE)
    every = shipped.with_params(min_confidence=0.0)
    own = (shipped.params.mask_threshold,)
    return [
        story_method(f"{name}, as calibrated", shipped, own),
        story_method(f"{name}{EVERY_PEAK}", every, MASK_THRESHOLDS),
    ]


def story_method(name: str, detector: Detector, thresholds: tuple[float, ...]) -> Method:
    """Story 1 with the detector's parameters."""
    taped, tapes = record_detector(detector)
    return Method(name, partial(tell_story, taped), tapes, thresholds, detector)


def tell_story(detector: Detector, picture: Picture, mask_threshold: float) -> list[Predicted]:
    """Story 1 itself."""
    told = detect(picture, with_threshold(detector, mask_threshold))
    return [Predicted(defect.region, defect.score) for defect in told.defects]


def slicing_method(detector: Detector) -> Method:
    """Tiles of the crop's side in batches, their probabilities laid into one map."""
    taped, tapes = record_detector(detector)

    def find(picture: Picture, mask_threshold: float) -> list[Predicted]:
        scores = slice_scores(picture, taped)
        return outline_scores(scores, mask_threshold, detector.params.min_area_px)

    return Method("batched slicing", find, tapes)


def whole_method(
    name: str, file: Path, device: Device, settings: Detector, *, width_px: int | None
) -> Method:
    """A graph over whole pictures, at most `width_px` wide or, for None, as they are."""
    graph, min_area_px = Tape(open_graph(file, device)), settings.params.min_area_px

    def find(picture: Picture, mask_threshold: float) -> list[Predicted]:
        image = picture.as_rgb8()
        if width_px is None:
            scores = whole_scores(image, graph)
        else:
            small = shrink_picture(image, shrunk_hw(picture.hw, width_px))
            large = cv2.resize(whole_scores(small, graph), picture.hw[::-1])
            scores = np.asarray(large, np.float32)
        return outline_scores(scores, mask_threshold, min_area_px)

    return Method(name, find, (graph,))


def whole_scores(image: RgbImage, graph: GraphCall) -> Scores:
    """The defect probability of every pixel, by one run; far edges are repeated to the stride."""
    height, width = image.shape[:2]
    down, right = -height % MULTIPLE_PX, -width % MULTIPLE_PX
    padded = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE)
    (logits,) = graph(image=np.asarray(padded, np.uint8)[None])
    of_defect = np.logaddexp.reduce(logits[0, 1:], axis=0) - logits[0, 0]
    return confidence_of(of_defect)[:height, :width]


def outline_scores(scores: Scores, mask_threshold: float, min_area_px: float) -> list[Predicted]:
    """The regions of a probability map that are large enough, each with its mean."""
    regions = find_regions(bridge_diagonals(scores >= mask_threshold))
    return [
        Predicted(region, _mean(scores, region))
        for region in regions
        if region.area_px >= min_area_px
    ]


def _mean(scores: Scores, region: Region) -> float:
    x, y, width, height = region.box
    return float(scores[y : y + height, x : x + width][region.mask].mean())
