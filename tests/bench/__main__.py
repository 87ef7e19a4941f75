"""python -m tests.bench: one line for each figure, `name value bar ok|short|info`.

Slicing is measured on validation pictures of BSData where FLAWSMITH_BSDATA names their folder,
else on rendered plates, and the figure's name says so. Everything runs on the CPU, two threads.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from models.bundle import SHIPPED, find_bundle, open_bundle
from models.devices import Device
from models.errors import BundleError
from tests.bench.figures import Figure, table_of
from tests.bench.pictures import real_pictures, rendered_normal, rendered_pictures
from tests.bench.scaling import measure_scaling
from tests.bench.serving import THREADS, measure_overlap, measure_serving, measure_synthesis
from tests.bench.slicing import measure_slicing

SAMPLE = Path(__file__).parents[2] / "samples" / "plate.jpg"
RENDERED, REAL = "brushed-plate", "ball-screw"


def main(given: list[str] | None = None) -> int:
    """Measure and print: 0; with --strict 1 where one is short; 2 where a bundle is missing."""
    arguments = _parser().parse_args(given)
    bundles, rounds, sample = arguments.bundles, arguments.requests, SAMPLE.read_bytes()
    try:
        figures = [
            _measure_slicing(arguments),
            *measure_serving(bundles, RENDERED, sample, rounds=rounds),
            *measure_overlap(bundles, RENDERED, sample, rounds=rounds),
            measure_scaling(bundles, RENDERED, sample, rounds=rounds, plot=arguments.plot),
            measure_synthesis(bundles, RENDERED, rendered_normal(), rounds=rounds),
        ]
    except BundleError as error:
        print(error, file=sys.stderr)
        return 2
    print(table_of(figures))
    return int(arguments.strict and any(figure.judgement == "short" for figure in figures))


def _measure_slicing(arguments: argparse.Namespace) -> Figure:
    folder = os.environ.get("FLAWSMITH_BSDATA")
    product = REAL if folder else RENDERED
    bundle = open_bundle(find_bundle(arguments.bundles, product), Device("cpu", THREADS))
    if folder:
        name, pictures = "slicing_over_story", real_pictures(Path(folder), arguments.pictures)
    else:
        name = "slicing_over_story_on_rendered_plates"
        pictures = rendered_pictures(arguments.pictures)
    tiles_px = bundle.detector.params.crop_size_px
    print(f"# {name}: {product}, {len(pictures)} pictures, tiles of {tiles_px} px", flush=True)
    return measure_slicing(name, pictures, bundle.detector, arguments.rounds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--bundles", type=Path, default=SHIPPED, help="folder of the bundles")
    parser.add_argument("--pictures", type=int, default=30, help="pictures that are sliced")
    parser.add_argument("--rounds", type=int, default=3, help="how often each picture is")
    parser.add_argument("--requests", type=int, default=15, help="how often the 12 MP are asked")
    parser.add_argument("--plot", type=Path, help="draw time by megapixels into this SVG file")
    parser.add_argument("--strict", action="store_true", help="exit status 1 where one is short")
    return parser


if __name__ == "__main__":
    sys.exit(main())
