"""fp32 or int8: what a run ships is the faster form that finds as much on validation pictures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from models.bundle import digest_of, open_bundle, read_manifest, seal_bundle
from models.detection import Detector, segment_crops, strongest_peaks
from models.devices import Device
from models.graphs import PoseLocator
from models.locating import predict_field
from models.manifest import GRAPH_FILES, Manifest, Precision
from models.steps.crops import cut_crop, resize_crop, window_around
from training.calibration import (
    calibrate,
    coverage,
    predictions_of,
    sweep,
    sweep_thresholds,
    with_threshold,
)
from training.data import Dataset, Record
from training.quantization import quantize_graph
from training.recipes import CalibrationRecipe
from training.regions import draw_curve, measure_pixels
from training.sealing import find_draft

LARGEST_LOSS = 0.005
"""What coverage, recall and Dice may each lose against fp32: half a point."""
FALSE_REGIONS = 0.5
"""False regions a picture at which recall is read."""
TIMED_PICTURES, TIMED_ROUNDS = 4, 10
FP32 = "fp32"
"""Where in run/graphs a graph stays whose int8 form is shipped."""


@dataclass(frozen=True)
class Quality:
    """What story 1 finds with its n crops, each 0..1: stage-1 coverage, recall at FALSE_REGIONS a
    picture, and Dice of all pictures' pixels at the score where it is best.
    """

    coverage: float
    recall: float
    dice: float

    def loss_to(self, other: Quality) -> float:
        """What the other loses most."""
        mine, theirs = astuple(self), astuple(other)
        return float(max(a - b for a, b in zip(mine, theirs, strict=True)))


@dataclass(frozen=True)
class Trial:
    """A graph's two forms: what the story finds with each, and how long each takes."""

    file: str
    fp32: Quality
    int8: Quality
    fp32_s: float
    int8_s: float

    @property
    def choice(self) -> Precision:
        """int8 where it loses at most LARGEST_LOSS of any figure and is faster."""
        is_as_good = self.fp32.loss_to(self.int8) <= LARGEST_LOSS + 1e-9
        return "int8" if is_as_good and self.int8_s < self.fp32_s else "fp32"

    def __str__(self) -> str:
        told = ", ".join(
            f"{name} {before:.4f} -> {after:.4f}"
            for (name, before), after in zip(
                asdict(self.fp32).items(), astuple(self.int8), strict=True
            )
        )
        share = self.int8_s / self.fp32_s
        return f"{self.file}: {self.choice}; int8 takes {share:.2f} of the time, {told}"


def lighten_draft(
    run: Path, data: Dataset, goals: CalibrationRecipe, device: Device | None = None
) -> list[Trial]:
    """Replace locator and segmenter of a run's draft by their int8 forms where these pass.

    The segmenter is tried behind the locator that was chosen, so that what is shipped is what was
    measured; both are held against fp32 alone, at the mask threshold that fp32 is calibrated to.
    The fp32 forms stay in run/graphs/fp32.

    Errors: BundleMissing where the run was not exported.
    """
    folder = find_draft(run)
    now = open_bundle(folder, device).detector
    mask_threshold = calibrate(sweep_thresholds(data.val, now), goals).mask_threshold
    best = measure_quality(data.val, with_threshold(now, mask_threshold))
    timed = _spread(data.val, TIMED_PICTURES)
    trials = []
    for file, network in _NETWORKS.items():
        if file == "locator.onnx" and isinstance(now.locator, PoseLocator):
            continue  # it runs on small squares: there is little to win, and offsets to lose
        with TemporaryDirectory() as made:
            light = Path(made) / file
            pictures = _spread(data.train, network.pictures)
            seen = [network.see(record, now) for record in pictures]
            given = run / "graphs" / file
            quantize_graph(given, light, seen, first_in_floats=network.first_in_floats)
            sealed = _with_graph(run, read_manifest(folder), light, Path(made))
            lighter = open_bundle(sealed, device).detector
            times_s = race(*(partial(_each, network.work, timed, one) for one in (now, lighter)))
            quality = measure_quality(data.val, with_threshold(lighter, mask_threshold))
            trials.append(Trial(file, best, quality, *times_s))
            if trials[-1].choice == "int8":
                now = lighter
                _adopt(run, light, sealed, folder)
    return trials


def measure_quality(records: tuple[Record, ...], detector: Detector) -> Quality:
    """Quality of story 1 at its mask threshold, over all scores."""
    looking = detector.with_params(min_confidence=0.0)
    swept = sweep(records, looking)
    predictions = predictions_of(swept)
    return Quality(
        coverage(records, [told.field for told in swept], looking.params),
        draw_curve(records, predictions).recall_at(FALSE_REGIONS),
        measure_pixels(records, predictions, 0.0)["best_pixel_dice"],
    )


def race(*works: Callable[[], object]) -> list[float]:
    """The least time of each work, s, done in turn: what it takes where nothing else disturbs."""
    spent: list[list[float]] = [[] for _ in works]
    for _ in range(TIMED_ROUNDS):
        for times, work in zip(spent, works, strict=True):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
    return [min(times) for times in spent]


def _spread(records: Sequence[Record], count: int) -> list[Record]:
    """Up to `count` records evenly over all, as many with defects as without where there are."""
    defective, normal = ([r for r in records if bool(r.flaws) is kind] for kind in (True, False))
    return [*_evenly(defective, count - count // 2), *_evenly(normal, count // 2)]


def _evenly(records: Sequence[Record], count: int) -> list[Record]:
    places = np.linspace(0, len(records) - 1, min(count, len(records))).astype(int)
    return [records[place] for place in places]


def _see_picture(record: Record, detector: Detector) -> NDArray[np.uint8]:
    """What a heatmap locator sees, without rows and columns that it would need more of."""
    assert not isinstance(detector.locator, PoseLocator)
    multiple = detector.locator.multiple_px
    height, width = (side // multiple * multiple for side in record.image.shape[:2])
    return np.ascontiguousarray(record.image[None, :height, :width])


def _see_crops(record: Record, detector: Detector) -> NDArray[np.uint8]:
    """What the segmenter sees: every crop around a peak."""
    params, image = detector.params, record.image
    peaks, _ = strongest_peaks(predict_field(image, detector.locator), params)
    windows = [window_around((p.x, p.y), params.crop_size_px, image.shape[:2]) for p in peaks]
    crops = [resize_crop(cut_crop(image, w), detector.segmenter.side_px) for w in windows]
    return np.stack(crops)


def _locate(record: Record, detector: Detector) -> None:
    predict_field(record.image, detector.locator)


def _segment(record: Record, detector: Detector) -> None:
    """As many crops as a request has, wherever they lie."""
    window = window_around((0.0, 0.0), detector.params.crop_size_px, record.image.shape[:2])
    segment_crops([cut_crop(record.image, window)] * detector.params.n, detector)


def _each(
    work: Callable[[Record, Detector], None], records: Sequence[Record], detector: Detector
) -> None:
    for record in records:
        work(record, detector)


def _with_graph(run: Path, manifest: Manifest, light: Path, root: Path) -> Path:
    """The draft with one graph in its int8 form, sealed under another root."""
    name, files = light.stem, {file: run / "graphs" / file for file in GRAPH_FILES}
    spec = getattr(manifest.graphs, name)
    lighter = spec.model_copy(update={"sha256": digest_of(light), "precision": "int8"})
    graphs = manifest.graphs.model_copy(update={name: lighter})
    return seal_bundle(
        files | {light.name: light}, manifest.model_copy(update={"graphs": graphs}), root
    )


def _adopt(run: Path, light: Path, sealed: Path, folder: Path) -> None:
    """Make the int8 form the run's graph, and the bundle that was sealed with it the draft."""
    (run / "graphs" / FP32).mkdir(exist_ok=True)
    (run / "graphs" / light.name).replace(run / "graphs" / FP32 / light.name)
    shutil.copyfile(light, run / "graphs" / light.name)
    shutil.rmtree(folder)
    shutil.copytree(sealed, folder)


@dataclass(frozen=True)
class _Network:
    """What a network sees of a picture and does with it, how many calibrate it, what is exact."""

    see: Callable[[Record, Detector], NDArray[np.uint8]]
    work: Callable[[Record, Detector], None]
    pictures: int
    first_in_floats: int = 0


_NETWORKS = {
    # Whole pictures: of more, the rarest pixels would widen the ranges of all others.
    "locator.onnx": _Network(_see_picture, _locate, pictures=16),
    # The first layers of its encoder cost little, and half of all that int8 changes.
    "segmenter.onnx": _Network(_see_crops, _segment, pictures=48, first_in_floats=6),
}
