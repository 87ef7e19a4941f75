"""The four trainings of a run, in the order in which they need one another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from models.arrays import RgbImage
from models.bundle import digest_of
from models.graphs import Locator
from models.locating import predict_field
from models.steps.heatmap import Peak
from training.data import PAIRS, Dataset, crop_radius_px, load_dataset
from training.networks.deeppose import DeepPose
from training.networks.generators import DefectGenerator, MaskGenerator
from training.networks.locators import Lite0Locator, PlainLocator, build_locator
from training.networks.segmenters import Segmenter
from training.recipes import PoseRecipe, Recipe, Schedule
from training.sites import SiteSource, real_contrasts, trust
from training.starting import start_from_bundle
from training.trainers.defect_task import DefectTask
from training.trainers.judges import DefectJudge, MaskJudge
from training.trainers.locator_task import LocatorTask, torch_heatmap
from training.trainers.loop import Task, run_loop
from training.trainers.mask_task import MaskTask
from training.trainers.pose_task import PoseTask, torch_pose
from training.trainers.segmenter_task import SegmenterTask
from training.trainers.whole_task import WholeTask, whole_schedule

FEW_SHOTS = 10
"""Up to so many training pictures with a defect, nothing else with one is looked at."""

STAGES = ("locator", "segmenter", "mask_generator", "defect_generator")
DETECTORS, GENERATORS = STAGES[:2], STAGES[2:]
PEERS = ("whole",)
"""Trained only to be measured against; nothing of them is sealed."""


def fit_stages(
    run: Path,
    recipe: Recipe,
    stages: tuple[str, ...],
    fabric: Fabric,
    start: Path | None = None,
) -> None:
    """Train the named stages of a run; figures of each go to `<stage>.figures.json`.

    The segmenter needs the locator's weights in the run, the others stand alone. `start` is a
    bundle whose generators those of the run start from, with books of the run's own defects.
    Errors: StartMismatch, before any training.
    """
    data = load_dataset(run)
    for stage in stages:
        if start and stage in GENERATORS:
            start_from_bundle(_NEW[stage](recipe, len(data.labels)), start, stage, data.labels)
    for stage in stages:
        torch.manual_seed(recipe.seed)
        task, schedule = new_task(stage, run, recipe, data)
        if start and stage in GENERATORS:
            start_from_bundle(task.networks[task.product], start, stage, data.labels)
        figures = run_loop(
            task,
            schedule,
            run,
            seed=recipe.seed,
            fabric=fabric,
            origin=origin_of(stage, run, recipe, start),
        )
        if fabric.is_global_zero:
            (run / f"{stage}.figures.json").write_text(json.dumps(figures, indent=1))


def new_task(stage: str, run: Path, recipe: Recipe, data: Dataset) -> tuple[Task, Schedule]:
    """What a stage optimises, from its start, and how long."""
    return _TASKS[stage](run, recipe, data)


def origin_of(stage: str, run: Path, recipe: Recipe, start: Path | None = None) -> str:
    """A digest of all that a stage's training depends on: pictures, synthetic ones where it learns
    from them, recipe and, where it looks through one, locator, or where it starts from one, graph
    of the bundle. sha256 in hex.
    """
    digest = hashlib.sha256((run / "samples.json").read_bytes())
    digest.update(repr((recipe.seed, recipe.crop_scale, getattr(recipe, stage))).encode())
    if stage in DETECTORS and (run / PAIRS).exists():
        digest.update((run / PAIRS).read_bytes())
    if stage in PEERS:
        digest.update(repr(recipe.segmenter).encode())
    if stage == "segmenter":
        digest.update((run / "locator.pt").read_bytes())
    if start and stage in GENERATORS:
        digest.update(digest_of(start / f"{stage}.onnx").encode())
    return digest.hexdigest()


def load_locator(run: Path, recipe: Recipe) -> Lite0Locator | PlainLocator | DeepPose:
    """The trained locator of a run, ready to run."""
    network = new_locator(recipe)
    _load(network, run / "locator.pt")
    return network


def load_segmenter(run: Path, recipe: Recipe, labels: int) -> Segmenter:
    """The trained segmenter of a run, ready to run."""
    network = _new_segmenter(recipe, labels)
    _load(network, run / "segmenter.pt")
    return network


def load_whole(run: Path, recipe: Recipe, labels: int) -> Segmenter:
    """The trained segmenter of whole pictures of a run, ready to run."""
    network = _new_segmenter(recipe, labels)
    _load(network, run / "whole.pt")
    return network


def load_mask_generator(run: Path, recipe: Recipe, labels: int) -> MaskGenerator:
    """The trained mask generator of a run, ready to run."""
    network = new_mask_generator(recipe, labels)
    _load(network, run / "mask_generator.pt")
    return network


def load_defect_generator(run: Path, recipe: Recipe, labels: int) -> DefectGenerator:
    """The trained defect generator of a run, ready to run."""
    network = new_defect_generator(recipe, labels)
    _load(network, run / "defect_generator.pt")
    return network


def _locator_task(_run: Path, recipe: Recipe, data: Dataset) -> tuple[Task, Schedule]:
    network, schedule = new_locator(recipe), recipe.locator.schedule
    if isinstance(network, DeepPose):
        return PoseTask(network, data, recipe), schedule
    return LocatorTask(network, data, recipe), schedule


def _segmenter_task(run: Path, recipe: Recipe, data: Dataset) -> tuple[Task, Schedule]:
    locator = torch_locator(load_locator(run, recipe))
    radius_px = crop_radius_px(recipe.segmenter.crop_size_px, data)

    def peaks(image: RgbImage) -> list[Peak]:
        field = predict_field(image, locator)
        return field.peaks(recipe.segmenter.peaks, min_confidence=0.0, radius_px=radius_px)

    network = _new_segmenter(recipe, len(data.labels))
    return SegmenterTask(network, data, recipe.segmenter, peaks), recipe.segmenter.schedule


def _whole_task(_run: Path, recipe: Recipe, data: Dataset) -> tuple[Task, Schedule]:
    network = _new_segmenter(recipe, len(data.labels))
    return WholeTask(network, data, recipe.whole), whole_schedule(recipe, data)


def _mask_task(_run: Path, recipe: Recipe, data: Dataset) -> tuple[Task, Schedule]:
    asked = recipe.mask_generator
    sources = site_sources(recipe, data, asked.side_px)
    task = MaskTask(
        new_mask_generator(recipe, len(data.labels)),
        sources["train"],
        asked,
        MaskJudge(judged_by(sources), seed=recipe.seed),
    )
    return task, asked.schedule


def _defect_task(_run: Path, recipe: Recipe, data: Dataset) -> tuple[Task, Schedule]:
    asked = recipe.defect_generator
    sources = site_sources(recipe, data, asked.side_px)
    least = least_contrasts(sources["train"], seed=recipe.seed)
    task = DefectTask(
        new_defect_generator(recipe, len(data.labels)),
        sources["train"],
        asked,
        DefectJudge(judged_by(sources), least, asked.feather_px, seed=recipe.seed),
        least,
    )
    return task, asked.schedule


def site_sources(recipe: Recipe, data: Dataset, shown_px: int) -> dict[str, SiteSource]:
    """Sites of the training and of the validation pictures, never mixed."""
    return {
        side: SiteSource(
            normals=tuple(r for r in records if not r.flaws),
            defects=tuple(r for r in records if r.flaws),
            labels=len(data.labels),
            shown_px=shown_px,
            crop_scale=recipe.crop_scale,
            object_rule=recipe.object_rule,
        )
        for side, records in (("train", data.train), ("val", data.val))
    }


def judged_by(sources: dict[str, SiteSource]) -> SiteSource:
    """What generators are chosen by: validation pictures, but not where there are few real defects.

    Choosing the best of a few-shot training on more defects than it was given would show it more.
    """
    is_few = len(sources["train"].defects) <= FEW_SHOTS
    return sources["train" if is_few else "val"]


def least_contrasts(source: SiteSource, *, seed: int) -> list[float]:
    """For each label the 10th percentile of its real defects' contrast, in grey levels.

    Lower where few are known: a handful has seen little of the product's light.
    """
    return [
        max(1.0, trust(len(flaws)) * float(np.quantile(contrasts, 0.1)))
        for label, flaws in enumerate(source.flaws)
        for contrasts in [real_contrasts(source, label, count=100, seed=seed)]
    ]


def new_locator(recipe: Recipe) -> Lite0Locator | PlainLocator | DeepPose:
    """An untrained locator as the recipe has it."""
    asked = recipe.locator
    if isinstance(asked, PoseRecipe):
        return DeepPose(asked.look_hw, asked.side_px, asked.refined)
    return build_locator(asked.encoder)


def torch_locator(network: Lite0Locator | PlainLocator | DeepPose) -> Locator:
    """A torch network behind the seam's interface, so that training meets the service's peaks."""
    return (
        torch_pose(network)
        if isinstance(network, DeepPose)
        else torch_heatmap(network, network.stride_px, network.multiple_px)
    )


def new_mask_generator(recipe: Recipe, labels: int) -> MaskGenerator:
    """An untrained mask generator as the recipe has it."""
    asked = recipe.mask_generator
    return MaskGenerator(labels, side_px=asked.side_px, width=asked.width, pages=asked.pages)


def new_defect_generator(recipe: Recipe, labels: int) -> DefectGenerator:
    """An untrained defect generator as the recipe has it."""
    asked = recipe.defect_generator
    return DefectGenerator(
        labels,
        side_px=asked.side_px,
        width=asked.width,
        pages=asked.pages,
        modulated=asked.modulated,
        focused=asked.focused,
    )


def _new_segmenter(recipe: Recipe, labels: int) -> Segmenter:
    return Segmenter(labels, side_px=recipe.segmenter.side_px, decoder=recipe.segmenter.decoder)


def _load(network: nn.Module, file: Path) -> None:
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    network.eval()


_NEW: dict[str, Callable[[Recipe, int], nn.Module]] = {
    "mask_generator": new_mask_generator,
    "defect_generator": new_defect_generator,
}
_TASKS = {
    "locator": _locator_task,
    "segmenter": _segmenter_task,
    "whole": _whole_task,
    "mask_generator": _mask_task,
    "defect_generator": _defect_task,
}
