"""python -m training: annotated pictures to a bundle, step by step; see `arguments`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

from lightning_fabric import Fabric

from models.bundle import Bundle, find_bundles, open_bundle, read_manifest, version_key
from models.errors import FlawsmithError, ParameterInvalid
from training import feeding
from training.arguments import PICTURES, SAMPLES, Step, build_parser
from training.calibration import calibrate, cross_judge, sweep_thresholds, with_calibration
from training.contests import Contest, hold_contest
from training.data import Dataset, defect_sides_px, load_dataset, store_samples
from training.detection_report import describe_findings, write_detection_report
from training.downstream import SEGMENTERS, read_table, results_of, run_experiment
from training.evaluation import Findings, measure_bundle, rounded
from training.experiments import RECIPES, standard
from training.importers import list_pictures
from training.intake import choose_samples
from training.pairs import read_pairs, store_pairs
from training.precision import lighten_draft
from training.proposals import propose
from training.report import (
    compare_arms,
    describe_bundle,
    describe_data,
    describe_run,
    write_report,
)
from training.runs import about_run, read_recipe
from training.sealing import (
    draft_bundle,
    export_run,
    find_draft,
    seal_run,
    torch_synthesizer,
)
from training.trainers.arms import (
    ARM_NAMES,
    OURS,
    digest_generators,
    generator_arm,
    plain_arms,
)
from training.trainers.stages import fit_stages


def main(given: list[str] | None = None) -> int:
    """Run one step of the way; what is refused is said in one line, with exit status 2."""
    arguments = build_parser(STEPS).parse_args(given)
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
    samples, left_out = choose_samples(
        arguments.data,
        recipe,
        labels=arguments.labels.split(",") if arguments.labels else (),
        shots=arguments.shots,
        shots_seed=arguments.shots_seed,
    )
    if left_out:
        print(f"left out, for crops that nobody looked at: {len(left_out)} pictures")
    store_samples(samples, arguments.run, val_share=recipe.val_share, seed=recipe.seed)
    data = load_dataset(arguments.run)
    about = {
        "product": arguments.product,
        "recipe": name,
        "data": ", ".join(folder.resolve().name for folder in arguments.data),
        "licence": arguments.licence,
        "citation": arguments.citation,
        "largest_defect_px": float(defect_sides_px(data.train).max()),
        "labels": data.labels,
    }
    if arguments.shots:
        shots = [Path(record.name).name for record in data.train_defects]
        about |= {"shots": shots, "shots_seed": arguments.shots_seed}
        print(f"shots: {', '.join(shots)}")
    if arguments.without:
        about["without"] = arguments.without
    (arguments.run / "run.json").write_text(json.dumps(about, indent=1))
    for side, records in (("train", data.train), ("val", data.val)):
        defects = sum(len(record.flaws) for record in records)
        print(f"{side}: {len(records)} pictures, {defects} defects ({', '.join(data.labels)})")
    pairs = chain.from_iterable(read_pairs(source, data) for source in arguments.synthetic)
    if stored := store_pairs(pairs, arguments.run):
        print(f"synthetic: {stored} pictures")


def fit(arguments: argparse.Namespace) -> None:
    """Train the networks of a run; a killed training goes on where its checkpoint stands."""
    recipe = read_recipe(arguments.run)
    fabric = Fabric(
        accelerator=arguments.accelerator, devices=arguments.devices, precision=arguments.precision
    )
    fabric.launch()
    fit_stages(arguments.run, recipe, tuple(arguments.only), fabric, arguments.start_from)


def export(arguments: argparse.Namespace) -> None:
    """Write the four graphs of a run behind the parity gate, and a draft bundle of them: in int8
    where that is faster and finds as much.
    """
    recipe, data = read_recipe(arguments.run), load_dataset(arguments.run)
    for file, gap in export_run(arguments.run, recipe, len(data.labels)).items():
        print(f"{file}: differs from torch by {gap:.1e} at most")
    shutil.rmtree(arguments.run / "draft", ignore_errors=True)
    (arguments.run / "evaluation.json").unlink(missing_ok=True)
    draft_bundle(arguments.run, recipe, data, about_run(arguments.run))
    for trial in lighten_draft(arguments.run, data, recipe.calibration):
        print(trial)


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure a sealed bundle, a run's draft, or how good its pairs are and what they are worth."""
    if arguments.feeding:
        _evaluate_feeding(arguments)
        return
    samples, is_taught = arguments.samples, arguments.downstream or arguments.fidelity
    data = load_dataset(arguments.run, only_val=not is_taught)
    if arguments.downstream:
        _evaluate_downstream(arguments, data)
    elif arguments.fidelity:
        contest = _hold_contest(arguments, data, samples or PICTURES)
        print(*contest.lines(), sep="\n", end="\n\n")
        _print_figures(contest.promises)
    elif arguments.bundle:
        bundle = open_bundle(arguments.bundle)
        _show(arguments.run, bundle, *measure_bundle(bundle, data, samples or SAMPLES))
    else:
        draft = open_bundle(find_draft(arguments.run))
        goals = read_recipe(arguments.run).calibration
        swept = sweep_thresholds(data.val, draft.detector)
        calibration = calibrate(swept, goals)
        bundle = with_calibration(draft, calibration)
        found, figures = measure_bundle(bundle, data, samples or SAMPLES)
        figures |= rounded(cross_judge(swept, goals))
        (arguments.run / "evaluation.json").write_text(
            json.dumps({"calibrated": asdict(calibration), "figures": figures}, indent=1)
        )
        _print_figures(asdict(calibration))
        _show(arguments.run, bundle, found, figures)


def seal(arguments: argparse.Namespace) -> None:
    """Seal an evaluated run as the product's next version."""
    about = about_run(arguments.run)
    known = find_bundles(arguments.to).get(about["product"], {})
    newest = max((version_key(version)[0] for version in known if version_key(version)), default=0)
    folder = seal_run(arguments.run, arguments.to, version=arguments.version or str(newest + 1))
    print(f"sealed {about['product']} {folder.name} in {folder}")


def report(arguments: argparse.Namespace) -> None:
    """Show on one HTML page what generators and the other arms draw, and every figure of it."""
    run, data, bundle = arguments.run, load_dataset(arguments.run), arguments.bundle
    contest = _hold_contest(arguments, data, arguments.samples)
    about = describe_bundle(read_manifest(bundle)) if bundle else describe_run(about_run(run))
    about |= describe_data(data, count=arguments.samples)
    told = [
        compare_arms(f"K = {len(data.train_defects)}, {segmenter}", table)
        for segmenter in SEGMENTERS
        if (table := read_table(results_of(run, segmenter))).results
    ]
    fed = read_table(run / "feeding", tuple(feeding.FIGURES))
    if fed.results:
        told.append(compare_arms(f"K = {len(data.train_defects)}, both detection networks", fed))
    file = arguments.out or run / "report.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_report(file, about, data, contest, told)
    print(f"wrote {file}")


def propose_crops(arguments: argparse.Namespace) -> None:
    """Write the crops of a folder of pictures with LabelMe files, to be annotated and imported."""
    bundle, samples = open_bundle(arguments.bundle), list_pictures(arguments.pictures)
    detector = bundle.detector.with_params(n=arguments.n, min_confidence=0.0)
    written = propose(samples, detector, arguments.to, has_outlines=arguments.outlines)
    print(f"wrote {written} crops of {len(samples)} pictures to {arguments.to}")


def _evaluate_downstream(arguments: argparse.Namespace, data: Dataset) -> None:
    run, recipe = arguments.run, read_recipe(arguments.run)
    arms = plain_arms(data, recipe)
    asked = arguments.arms or ARM_NAMES
    if OURS in asked:
        own = torch_synthesizer(run, recipe, data)
        arms[OURS] = generator_arm(own, data, origin=digest_generators(run, own))
    table = run_experiment(
        {name: arms[name] for name in asked},
        data,
        replace(recipe.downstream, segmenter=arguments.segmenter),
        results_of(run, arguments.segmenter),
        seeds=range(arguments.seeds),
        fabric=Fabric(devices=1, precision=arguments.precision),
    )
    for line in table.lines():
        print(line)


def _evaluate_feeding(arguments: argparse.Namespace) -> None:
    table = feeding.run_feeding(
        arguments.run,
        read_recipe(arguments.run),
        arguments.arms or feeding.ARMS,
        feeding.Diet(arguments.pairs, arguments.steps_share),
        seeds=range(arguments.seeds),
        fabric=Fabric(devices=1, precision=arguments.precision),
    )
    print(*table.lines(), sep="\n")


def _hold_contest(arguments: argparse.Namespace, data: Dataset, count: int) -> Contest:
    """Every arm, ours being a bundle's generators where one is named, else the run's own."""
    recipe = read_recipe(arguments.run)
    if arguments.bundle:
        synthesizer = open_bundle(arguments.bundle).synthesizer
        if synthesizer.labels != data.labels:
            raise ParameterInvalid("bundle", f"knows other labels: {', '.join(synthesizer.labels)}")
    else:
        synthesizer = torch_synthesizer(arguments.run, recipe, data)
    return hold_contest(data, recipe, synthesizer, count=count)


def _show(run: Path, bundle: Bundle, found: Findings, figures: Mapping[str, float]) -> None:
    """Print every figure, and write the page that shows detection's errors."""
    _print_figures(figures)
    page = run / "detection.html"
    write_detection_report(
        page, describe_bundle(bundle.manifest) | describe_findings(found), found, figures
    )
    print(f"wrote {page}")


def _print_figures(figures: Mapping[str, float]) -> None:
    width = max(len(name) for name in figures)
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:.4f}")


STEPS: dict[str, Step] = {
    "import": import_data,
    "fit": fit,
    "export": export,
    "evaluate": evaluate,
    "seal": seal,
    "report": report,
    "propose": propose_crops,
}


if __name__ == "__main__":
    sys.exit(main())
