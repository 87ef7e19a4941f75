"""What synthetic pictures are worth to detection: locator and segmenter, taught with each arm.

Every arm has the same real pictures, recipe and seeds. As in any training, each network's best
average is chosen on the validation pictures, on which both are measured together afterwards.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from models.detection import Detector
from models.errors import ParameterInvalid
from models.graphs import Segmenter
from training.data import Dataset, load_dataset
from training.downstream import Result, Table
from training.evaluation import evaluate_detection
from training.pairs import store_pairs
from training.recipes import Recipe, Schedule
from training.sealing import LIMITS, detection_params, torch_synthesizer
from training.trainers.arms import (
    OURS,
    Arm,
    digest_generators,
    draw_pairs,
    generator_arm,
    plain_arms,
)
from training.trainers.stages import (
    DETECTORS,
    fit_stages,
    load_locator,
    load_segmenter,
    origin_of,
    torch_locator,
)

FIGURES = {
    "recall_at_0.5": "recall_at_0.5_false_regions",
    "recall_at_0.1": "recall_at_0.1_false_regions",
    "recall_at_1": "recall_at_1_false_regions",
    "coverage_at_1": "coverage_at_1",
    "coverage_at_5": "coverage_at_5",
    "image_auroc": "image_auroc",
}
"""What is told, and its name in an evaluation; the first is what arms are compared by."""
ARMS = ("classic", OURS)
"""The arms that are taught unless others are named: real pictures alone, and with our pairs."""


@dataclass(frozen=True)
class Diet:
    """How each arm is taught: so many synthetic pictures, and a share of the recipe's steps."""

    pairs: int = 100
    steps_share: float = 1.0


def run_feeding(
    run: Path,
    recipe: Recipe,
    arms: Sequence[str],
    diet: Diet,
    *,
    seeds: Sequence[int],
    fabric: Fabric,
) -> Table:
    """Teach and measure every arm with every seed, each in `feeding/<arm>.<seed>` of the run.

    A result is kept beside its folder and measured anew where pictures, pairs or recipe are others;
    what was killed goes on.

    Errors: ParameterInvalid for `real`, as both networks always augment; FileNotFoundError where a
            generator was not trained; RunMixed where another diet was begun there and killed.
    """
    if "real" in arms:
        raise ParameterInvalid("arms", "real is not taught here: take classic")
    taught = _on_diet(recipe, diet)
    for seed in seeds:
        _prepare(run, recipe, arms, diet, seed=seed)
    results = [
        _result(name, seed, run / "feeding" / f"{name}.{seed}", taught, fabric)
        for seed in seeds
        for name in arms
    ]
    return Table(tuple(results), tuple(FIGURES))


def torch_detector(run: Path, recipe: Recipe, data: Dataset) -> Detector:
    """A run's torch networks behind the seam's interface, uncalibrated: story 1 without a bundle.

    Errors: FileNotFoundError where a network was not trained.
    """
    return Detector(
        torch_locator(load_locator(run, recipe)),
        _torch_segmenter(load_segmenter(run, recipe, len(data.labels)), recipe),
        data.labels,
        detection_params(recipe, data),
        LIMITS,
    )


def _torch_segmenter(network: nn.Module, recipe: Recipe) -> Segmenter:
    def graph(*, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        with torch.no_grad():
            return (network(torch.from_numpy(image)).float().numpy(),)

    return Segmenter(graph, recipe.segmenter.side_px)


def _on_diet(recipe: Recipe, diet: Diet) -> Recipe:
    locator, segmenter = recipe.locator, recipe.segmenter
    return replace(
        recipe,
        locator=replace(locator, schedule=_shortened(locator.schedule, diet.steps_share)),
        segmenter=replace(segmenter, schedule=_shortened(segmenter.schedule, diet.steps_share)),
    )


def _shortened(schedule: Schedule, share: float) -> Schedule:
    steps = max(1, round(share * schedule.steps))
    return replace(schedule, steps=steps, validate_every=min(schedule.validate_every, steps))


def _prepare(run: Path, recipe: Recipe, arms: Sequence[str], diet: Diet, *, seed: int) -> None:
    """A run for each arm, of the same imported pictures, with the pairs that the arm draws.

    The pictures are let go of afterwards: each training decodes its own.
    """
    data = load_dataset(run)
    known = plain_arms(data, recipe)
    if OURS in arms:
        own = torch_synthesizer(run, recipe, data)
        known[OURS] = generator_arm(own, data, origin=digest_generators(run, own))
    whole_px = max(max(record.labels.shape) for record in data.train)
    for name in arms:
        folder = run / "feeding" / f"{name}.{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / "samples.json", folder / "samples.json")
        shutil.copytree(run / "labels", folder / "labels", dirs_exist_ok=True)
        _feed(folder, known[name], diet.pairs, seed=seed, margin_px=whole_px)


def _feed(folder: Path, arm: Arm, pairs: int, *, seed: int, margin_px: int) -> None:
    """The pairs of an arm, unless they are there already."""
    asked = json.dumps([arm.origin, pairs, seed, margin_px])
    note = folder / "pairs.origin.json"
    if note.exists() and note.read_text() == asked:
        return
    if arm.draw:
        drawn = draw_pairs(arm.draw, pairs, seed=seed, margin_px=margin_px)
        store_pairs(drawn, folder)
    note.write_text(asked)


def _result(name: str, seed: int, folder: Path, recipe: Recipe, fabric: Fabric) -> Result:
    """The result as it was kept, or taught and measured now."""
    seeded = replace(recipe, seed=recipe.seed + seed)
    told = (origin_of("locator", folder, seeded), seeded.segmenter, seeded.n)
    origin = hashlib.sha256(repr(told).encode()).hexdigest()
    file = folder.with_name(f"{folder.name}.json")
    if file.exists():
        known = Result(**json.loads(file.read_text()))
        if known.origin == origin:
            return known
    fit_stages(folder, seeded, DETECTORS, fabric)
    data = load_dataset(folder)
    figures = evaluate_detection(data.val, torch_detector(folder, seeded, data))
    result = Result(name, seed, origin, {short: figures[long] for short, long in FIGURES.items()})
    new = file.with_suffix(".new")
    new.write_text(json.dumps(asdict(result), indent=1))
    new.replace(file)
    return result
