"""python -m training {import,fit,export,evaluate,seal}: annotated pictures in, a bundle out."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from pydantic import TypeAdapter

from models.bundle import Bundle, find_bundles, open_bundle, version_key
from models.errors import FlawsmithError
from models.manifest import Name
from training.data import Dataset, defect_sides_px, load_dataset, store_samples
from training.evaluation import (
    calibrate,
    evaluate_detection,
    evaluate_synthesis,
    with_calibration,
)
from training.importers import import_folder
from training.recipes import RECIPES, Recipe, named_recipe, standard
from training.sealing import draft_bundle, export_run, find_draft, seal_run
from training.trainers.stages import STAGES, fit_stages


def main(given: list[str] | None = None) -> int:
    """Run one step of the way; what is refused is said in one line, with exit status 2."""
    arguments = _parser().parse_args(given)
    try:
        arguments.step(arguments)
    except (FlawsmithError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def import_data(arguments: argparse.Namespace) -> None:
    """Read an annotated folder into a run."""
    name = arguments.recipe or (
        arguments.product if arguments.product in RECIPES else standard().name
    )
    recipe = RECIPES[name]()
    arguments.run.mkdir(parents=True, exist_ok=True)
    store_samples(
        import_folder(arguments.data), arguments.run, val_share=recipe.val_share, seed=recipe.seed
    )
    data = load_dataset(arguments.run)
    about = {
        "product": arguments.product,
        "recipe": name,
        "data": arguments.data.resolve().name,
        "licence": arguments.licence,
        "citation": arguments.citation,
        "largest_defect_px": float(defect_sides_px(data.train).max()),
    }
    (arguments.run / "run.json").write_text(json.dumps(about, indent=1))
    for side, records in (("train", data.train), ("val", data.val)):
        defects = sum(len(record.flaws) for record in records)
        print(f"{side}: {len(records)} pictures, {defects} defects ({', '.join(data.labels)})")


def fit(arguments: argparse.Namespace) -> None:
    """Train the networks of a run; a killed training goes on where its checkpoint stands."""
    recipe = _recipe(arguments.run)
    fabric = Fabric(
        accelerator=arguments.accelerator, devices=arguments.devices, precision=arguments.precision
    )
    fabric.launch()
    fit_stages(arguments.run, recipe, tuple(arguments.only), fabric)


def export(arguments: argparse.Namespace) -> None:
    """Write the four graphs of a run behind the parity gate, and a draft bundle of them."""
    recipe, data = _recipe(arguments.run), load_dataset(arguments.run)
    for file, gap in export_run(arguments.run, recipe, len(data.labels)).items():
        print(f"{file}: differs from torch by {gap:.1e} at most")
    shutil.rmtree(arguments.run / "draft", ignore_errors=True)
    (arguments.run / "evaluation.json").unlink(missing_ok=True)
    draft_bundle(arguments.run, recipe, data, _about(arguments.run))


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure a sealed bundle, or calibrate and measure a run's draft, on validation pictures."""
    data = load_dataset(arguments.run)
    if arguments.bundle:
        _print_figures(_measure(open_bundle(arguments.bundle), data, arguments.samples))
        return
    bundle = open_bundle(find_draft(arguments.run))
    calibration = calibrate(data.val, bundle.detector)
    figures = _measure(with_calibration(bundle, calibration), data, arguments.samples)
    (arguments.run / "evaluation.json").write_text(
        json.dumps({"calibrated": asdict(calibration), "figures": figures}, indent=1)
    )
    _print_figures(asdict(calibration) | figures)


def seal(arguments: argparse.Namespace) -> None:
    """Seal an evaluated run as the product's next version."""
    about = _about(arguments.run)
    known = find_bundles(arguments.to).get(about["product"], {})
    newest = max((version_key(version)[0] for version in known if version_key(version)), default=0)
    folder = seal_run(arguments.run, arguments.to, version=arguments.version or str(newest + 1))
    print(f"sealed {about['product']} {folder.name} in {folder}")


def _measure(bundle: Bundle, data: Dataset, samples: int) -> dict[str, float]:
    """Every figure of both stories, rounded to what the number of pictures can tell."""
    figures = evaluate_detection(data.val, bundle.detector)
    figures |= evaluate_synthesis(data.val_normals, bundle.synthesizer, count=samples, seed=1)
    return {name: round(value, 4) for name, value in figures.items()}


def _print_figures(figures: dict[str, float]) -> None:
    width = max(len(name) for name in figures)
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:.4f}")


def _about(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text()))


def _recipe(run: Path) -> Recipe:
    about = _about(run)
    return named_recipe(about["recipe"], largest_defect_px=about["largest_defect_px"])


def _product(text: str) -> str:
    """A name that a manifest takes, asked for before the hours of training, not after them."""
    return TypeAdapter[str](Name).validate_python(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    steps = parser.add_subparsers(required=True)
    step = steps.add_parser("import", help=import_data.__doc__)
    step.set_defaults(step=import_data)
    step.add_argument("--data", type=Path, required=True)
    step.add_argument("--product", type=_product, required=True)
    step.add_argument("--run", type=Path, required=True)
    step.add_argument("--recipe", choices=sorted(RECIPES))
    step.add_argument("--licence", default="not stated")
    step.add_argument("--citation", default="not stated")
    step = steps.add_parser("fit", help=fit.__doc__)
    step.set_defaults(step=fit)
    step.add_argument("--run", type=Path, required=True)
    step.add_argument("--only", nargs="+", choices=STAGES, default=STAGES)
    step.add_argument("--accelerator", default="auto")
    step.add_argument("--devices", type=int, default=1)
    step.add_argument("--precision", default="32-true")
    step = steps.add_parser("export", help=export.__doc__)
    step.set_defaults(step=export)
    step.add_argument("--run", type=Path, required=True)
    step = steps.add_parser("evaluate", help=evaluate.__doc__)
    step.set_defaults(step=evaluate)
    step.add_argument("--run", type=Path, required=True)
    step.add_argument("--bundle", type=Path, help="a sealed bundle's folder; else the run's draft")
    step.add_argument("--samples", type=int, default=200, help="synthetic samples to check")
    step = steps.add_parser("seal", help=seal.__doc__)
    step.set_defaults(step=seal)
    step.add_argument("--run", type=Path, required=True)
    step.add_argument("--to", type=Path, required=True)
    step.add_argument("--version", help="the product's next whole number unless named")
    return parser


if __name__ == "__main__":
    sys.exit(main())
