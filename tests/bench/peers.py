"""python -m tests.bench.peers --run RUN --bundle FOLDER …: story 1 and its peers in one table.

Every method sees the same validation pictures in turn, so that a slow minute is slow for all, and
is timed from the file's bytes to its outlines. Recall is FROC's: scores are swept down to nothing,
and each method gets the mask threshold that suits it best. Slices show the first bundle's segmenter
at its own crop side. Whole pictures need `python -m training fit --only whole`; SAHI the extra
`bench`. What is missing is said and left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from models.bundle import open_bundle
from models.detection import Detector
from models.devices import Device
from models.errors import FlawsmithError
from models.locating import predict_field
from models.steps.pictures import PictureLimits, decode_picture
from tests.bench.methods import EVERY_PEAK, Method, slicing_method, story_methods, whole_method
from training.data import Dataset, Record, load_dataset
from training.evaluation import CROPS, measure_coverage
from training.export import export_graph
from training.graphs import whole_export
from training.metrics import FALSE_REGIONS, Predicted
from training.regions import (
    SHARE_BINS,
    SIZE_BINS_PX,
    draw_curve,
    look_up_flaws,
    measure_images,
    measure_pixels,
    measure_recall,
    measure_sizes,
)
from training.runs import read_recipe
from training.trainers.stages import load_segmenter, load_whole

AT_FALSE_REGIONS = 0.5
"""False regions per image at which recall is told by size."""
MEGAPIXEL_BINS = (1.0, 4.0)
"""Where times are told apart by a picture's size."""


@dataclass(frozen=True)
class Row:
    """What one method reached at its best mask threshold."""

    method: str
    mask_threshold: float
    figures: dict[str, float]


@dataclass(frozen=True)
class Trial:
    """What a method found in each picture, by mask threshold, and in what time."""

    method: Method
    found: dict[float, list[list[Predicted]]]
    times_s: list[float]

    def look(self, data: bytes) -> None:
        """Find the defects of one more picture; only the first look, not played, is timed."""
        for tape in self.method.tapes:
            tape.erase()
        started = time.perf_counter()
        for number, mask_threshold in enumerate(self.method.thresholds):
            picture = decode_picture(data, PictureLimits())
            self.found[mask_threshold].append(self.method.find(picture, mask_threshold))
            if not number:
                self.times_s.append(time.perf_counter() - started)
            for tape in self.method.tapes:
                tape.rewind()


def main(given: list[str] | None = None) -> int:
    """Measure and print: 0; 2 where a run or a bundle cannot be read."""
    arguments = _parser().parse_args(given)
    try:
        data = load_dataset(arguments.run, only_val=True)
        records = spread(data.val, arguments.pictures)
        with TemporaryDirectory() as folder:
            methods = gather_methods(arguments, data, Path(folder))
            rows = measure_methods(records, methods)
    except (FlawsmithError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    sizes = [record.labels.size / 1e6 for record in records]
    print(
        f"{len(records)} pictures of {min(sizes):.1f} to {max(sizes):.1f} MP, "
        f"{sum(bool(r.flaws) for r in records)} with {sum(len(r.flaws) for r in records)} defects; "
        f"{arguments.threads} threads"
    )
    print(table_of(rows, COLUMNS))
    stage_1 = [
        Row(method.name, row.mask_threshold, measure_stage_1(records, method.detector))
        for method, row in zip(methods, rows, strict=True)
        if method.detector and method.name.endswith(EVERY_PEAK)
    ]
    print(table_of(stage_1, STAGE_1_COLUMNS))
    if arguments.out:
        told = [asdict(row) for row in (*rows, *stage_1)]
        arguments.out.write_text(json.dumps(told, indent=1))
    return 0


def gather_methods(arguments: argparse.Namespace, data: Dataset, folder: Path) -> list[Method]:
    """Every bundle, and every peer that there is what it needs."""
    device = Device("cpu", arguments.threads)
    bundles = [open_bundle(bundle, device) for bundle in arguments.bundle]
    methods = [method for bundle in bundles for method in story_methods(bundle)]
    first = bundles[0].detector
    methods += whole_methods(arguments.run, data, first, folder, device)
    methods.append(slicing_method(first))
    if importlib.util.find_spec("sahi"):
        from tests.bench.sahi_method import sahi_method

        methods.append(sahi_method(first))
    else:
        print("# no SAHI: pip install --constraint constraints.txt -e '.[bench]'", file=sys.stderr)
    return [m for m in methods if not arguments.only or any(o in m.name for o in arguments.only)]


def whole_methods(
    run: Path, data: Dataset, settings: Detector, folder: Path, device: Device
) -> list[Method]:
    """One segmenter over whole pictures: one taught with small ones, and the crops' own."""
    recipe, labels = read_recipe(run), len(data.labels)
    named = {
        f"whole image, {recipe.whole.width_px} px wide": (load_whole, recipe.whole.width_px),
        "whole image, native": (load_segmenter, None),
    }
    methods = []
    for index, (name, (load, width_px)) in enumerate(named.items()):
        try:
            network = load(run, recipe, labels)
        except FileNotFoundError as error:
            print(f"# no {name}: {Path(error.filename).name} is not trained", file=sys.stderr)
            continue
        file = folder / f"{index}.onnx"
        export_graph(whole_export(network), file)
        methods.append(whole_method(name, file, device, settings, width_px=width_px))
    return methods


def measure_methods(records: Sequence[Record], methods: Sequence[Method]) -> list[Row]:
    """A row for each method; every picture is looked at by all of them in turn."""
    first = Path(records[0].name).read_bytes()
    for trial in map(begin_trial, methods):
        trial.look(first)  # memory and caches are paid for before anything counts
    trials = [begin_trial(method) for method in methods]
    for number, record in enumerate(records, start=1):
        data = Path(record.name).read_bytes()
        for trial in trials:
            trial.look(data)
        print(f"\r# {number} of {len(records)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return [best_row(records, trial) for trial in trials]


def begin_trial(method: Method) -> Trial:
    """A method that has seen nothing."""
    return Trial(method, {threshold: [] for threshold in method.thresholds}, [])


def best_row(records: Sequence[Record], trial: Trial) -> Row:
    """The figures at the mask threshold of the best FROC; of equals that of the best pixel AP."""

    def rank(row: Row) -> tuple[float, float]:
        recalls = [row.figures[f"recall_at_{most:g}_false_regions"] for most in FALSE_REGIONS]
        return sum(recalls), row.figures["pixel_ap"]

    rows = [
        Row(trial.method.name, threshold, measure_found(records, found))
        for threshold, found in trial.found.items()
    ]
    best = max(rows, key=rank)
    megapixels = sum(record.labels.size for record in records) / 1e6
    best.figures["p50_ms"], best.figures["p95_ms"] = 1e3 * np.quantile(trial.times_s, (0.5, 0.95))
    best.figures["mp_per_s"] = megapixels / sum(trial.times_s)
    best.figures.update(measure_times(records, trial.times_s))
    return best


def measure_times(records: Sequence[Record], times_s: Sequence[float]) -> dict[str, float]:
    """The median time of the pictures in each of MEGAPIXEL_BINS, ms, where there are any."""
    figures = {}
    for least, most in itertools.pairwise((0.0, *MEGAPIXEL_BINS, np.inf)):
        spent_s = [
            time_s
            for record, time_s in zip(records, times_s, strict=True)
            if least <= record.labels.size / 1e6 < most
        ]
        if spent_s:
            figures[f"ms_from_{least:g}_mp"] = 1e3 * float(np.median(spent_s))
    return figures


def measure_found(
    records: Sequence[Record], found: Sequence[Sequence[Predicted]]
) -> dict[str, float]:
    """Every figure of quality; those of size and pixels at half a false region per image."""
    curve = draw_curve(records, found)
    least = curve.score_at(AT_FALSE_REGIONS)
    figures = measure_recall(curve)
    figures |= measure_sizes(look_up_flaws(records, found), least)
    figures |= measure_pixels(records, found, least)
    figures["image_auroc"] = measure_images(records, found)
    return figures


def measure_stage_1(records: Sequence[Record], detector: Detector) -> dict[str, float]:
    """Coverage by the crops alone, by both rules."""
    fields = [predict_field(record.image, detector.locator) for record in records]
    return measure_coverage(tuple(records), fields, detector.params)


def spread(records: tuple[Record, ...], count: int) -> tuple[Record, ...]:
    """So many of the records, evenly over their order; all for 0."""
    if not 0 < count < len(records):
        return records
    return tuple(records[i] for i in np.linspace(0, len(records) - 1, count).astype(int))


def table_of(rows: Sequence[Row], columns: dict[str, tuple[str, int]]) -> str:
    """A table in Markdown; `–` where a method has no such figure."""
    lines = [["method", "mask ≥", *columns]]
    for row in rows:
        cells = [
            f"{row.figures[name]:.{digits}f}" if name in row.figures else "–"
            for name, digits in columns.values()
        ]
        lines.append([row.method, f"{row.mask_threshold:g}", *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


COLUMNS = {
    **{f"@{most:g}": (f"recall_at_{most:g}_false_regions", 3) for most in FALSE_REGIONS},
    **{
        name.replace("_percent", " %").replace("_", " "): (f"recall_{name}", 2)
        for name in SHARE_BINS
    },
    **{
        f"{least}–{most} px": (f"recall_{least}_to_{most}_px", 2)
        for least, most in itertools.pairwise(SIZE_BINS_PX)
    },
    "Dice": ("pixel_dice", 3),
    "best Dice": ("best_pixel_dice", 3),
    "pixel AP": ("pixel_ap", 3),
    "AUROC": ("image_auroc", 3),
    "p50 ms": ("p50_ms", 0),
    "p95 ms": ("p95_ms", 0),
    "MP/s": ("mp_per_s", 2),
    **{f"ms from {least:g} MP": (f"ms_from_{least:g}_mp", 0) for least in (0.0, *MEGAPIXEL_BINS)},
}
"""Heading -> figure and digits."""
STAGE_1_COLUMNS = {
    **{f"n = {n}": (f"coverage_at_{n}", 3) for n in CROPS},
    **{f"literal {n}": (f"coverage_at_{n}_literal", 3) for n in CROPS},
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="an imported and trained run")
    parser.add_argument("--bundle", type=Path, nargs="+", required=True, help="sealed bundles")
    parser.add_argument("--pictures", type=int, default=0, help="so many of the pictures; 0: all")
    parser.add_argument("--only", nargs="+", help="methods whose name holds one of these")
    parser.add_argument("--threads", type=int, default=2, help="of every graph")
    parser.add_argument("--out", type=Path, help="a JSON file for every figure")
    return parser


if __name__ == "__main__":
    sys.exit(main())
