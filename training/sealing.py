"""A run's trained networks -> graphs, a manifest, a sealed bundle."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from models.bundle import digest_of, read_manifest, seal_bundle
from models.errors import BundleMissing
from models.manifest import (
    GRAPH_FILES,
    DataSource,
    DefectGeneratorSpec,
    DetectionParams,
    Graphs,
    LabelShape,
    Limits,
    LocatorSpec,
    Manifest,
    MaskGeneratorSpec,
    SegmenterSpec,
    SynthesisParams,
    Training,
)
from training import graphs
from training.data import Dataset, defect_sides_px
from training.export import export_graph
from training.networks.generators import spatial_noise_chw
from training.networks.locators import Lite0Locator, PlainLocator
from training.recipes import Recipe
from training.trainers.stages import (
    STAGES,
    least_contrasts,
    load_defect_generator,
    load_locator,
    load_mask_generator,
    load_segmenter,
    site_sources,
)

LIMITS = Limits(min_side_px=32, max_pixels=64_000_000)


def export_run(run: Path, recipe: Recipe, labels: int) -> dict[str, float]:
    """Export the four networks of a run to run/graphs; the parity gap of each.

    Errors: ExportMismatch.
    """
    (run / "graphs").mkdir(exist_ok=True)
    exports = {
        "mask_generator.onnx": graphs.mask_generator_export(
            load_mask_generator(run, recipe, labels), labels
        ),
        "defect_generator.onnx": graphs.defect_generator_export(
            load_defect_generator(run, recipe, labels), labels
        ),
        "locator.onnx": graphs.locator_export(load_locator(run, recipe)),
        "segmenter.onnx": graphs.segmenter_export(load_segmenter(run, recipe, labels)),
    }
    return {file: export_graph(one, run / "graphs" / file) for file, one in exports.items()}


def draft_bundle(run: Path, recipe: Recipe, data: Dataset, about: dict[str, str]) -> Path:
    """Seal the exported graphs under run/draft with uncalibrated thresholds, to be evaluated."""
    manifest = _draft_manifest(run, recipe, data, about)
    return _seal(run, manifest, run / "draft")


def seal_run(run: Path, root: Path, *, version: str) -> Path:
    """Seal a run's draft with what its evaluation calibrated and measured.

    Errors: FileNotFoundError where the run was not evaluated; BundleMissing where it was not
            exported; BundleAltered where that version is there already.
    """
    manifest = read_manifest(find_draft(run))
    evaluated = json.loads((run / "evaluation.json").read_text())
    calibrated = manifest.detection.model_copy(update=evaluated["calibrated"])
    sealed = manifest.model_copy(
        update={
            "version": version,
            "created": datetime.now(UTC).replace(microsecond=0),
            "detection": DetectionParams.model_validate(calibrated.model_dump()),
            "figures": evaluated["figures"],
        }
    )
    return _seal(run, sealed, root)


def find_draft(run: Path) -> Path:
    """The folder of a run's draft bundle. Errors: BundleMissing where it was not exported."""
    for manifest in (run / "draft").glob("*/*/manifest.json"):
        return manifest.parent
    raise BundleMissing(f"{run.name} has no draft: export it first")


def _seal(run: Path, manifest: Manifest, root: Path) -> Path:
    return seal_bundle({file: run / "graphs" / file for file in GRAPH_FILES}, manifest, root)


def _draft_manifest(run: Path, recipe: Recipe, data: Dataset, about: dict[str, str]) -> Manifest:
    splits = {"train": len(data.train), "val": len(data.val)}
    source = DataSource(
        name=about["data"], licence=about["licence"], citation=about["citation"], pictures=splits
    )
    return Manifest(
        product=about["product"],
        version="0",
        created=datetime.now(UTC).replace(microsecond=0),
        labels=data.labels,
        graphs=_graph_specs(run, recipe),
        detection=_detection_params(recipe, data),
        synthesis=_synthesis_params(recipe, data),
        limits=LIMITS,
        training=Training(
            data=(source,),
            commit=_commit(),
            recipe=recipe.name,
            seeds={"all": recipe.seed},
            steps={stage: getattr(recipe, stage).schedule.steps for stage in STAGES},
        ),
        figures={},
    )


def _graph_specs(run: Path, recipe: Recipe) -> Graphs:
    digests = {file: digest_of(run / "graphs" / file) for file in GRAPH_FILES}
    locator = PlainLocator if recipe.locator.encoder == "plain" else Lite0Locator
    masks, defects = recipe.mask_generator, recipe.defect_generator
    return Graphs(
        locator=LocatorSpec(
            sha256=digests["locator.onnx"],
            **asdict(graphs.LOCATOR),
            stride_px=locator.stride_px,
            multiple_px=locator.multiple_px,
        ),
        segmenter=SegmenterSpec(
            sha256=digests["segmenter.onnx"],
            **asdict(graphs.SEGMENTER),
            side_px=recipe.segmenter.side_px,
        ),
        mask_generator=MaskGeneratorSpec(
            sha256=digests["mask_generator.onnx"],
            **asdict(graphs.MASK_GENERATOR),
            side_px=masks.side_px,
            noise_size=masks.noise_size,
            spatial_noise_chw=spatial_noise_chw(masks.side_px),
        ),
        defect_generator=DefectGeneratorSpec(
            sha256=digests["defect_generator.onnx"],
            **asdict(graphs.DEFECT_GENERATOR),
            side_px=defects.side_px,
            noise_size=defects.noise_size,
        ),
    )


def _detection_params(recipe: Recipe, data: Dataset) -> DetectionParams:
    """Uncalibrated: every peak and every region counts, but for specks no defect ever was."""
    areas = [flaw.region.area_px for record in data.train for flaw in record.flaws]
    return DetectionParams(
        n=recipe.n,
        crop_size_px=recipe.segmenter.crop_size_px,
        min_confidence=0.0,
        min_score=0.0,
        min_area_px=max(1.0, round(0.5 * float(np.quantile(areas, 0.01)))),
        mask_threshold=0.5,
        largest_defect_px=float(defect_sides_px(data.train).max()),
    )


def _synthesis_params(recipe: Recipe, data: Dataset) -> SynthesisParams:
    source = site_sources(recipe, data, recipe.mask_generator.side_px)["train"]
    contrasts = least_contrasts(source, seed=recipe.seed)
    areas: dict[int, list[float]] = {k: [] for k in range(len(data.labels))}
    for record in data.train:
        for flaw in record.flaws:
            areas[flaw.label - 1].append(flaw.region.area_px)
    shapes = {
        label: LabelShape(
            sides_px=source.sides_px(k),
            min_area_px=max(4.0, round(0.5 * float(np.quantile(areas[k], 0.05)))),
            min_contrast=round(contrasts[k], 1),
        )
        for k, label in enumerate(data.labels)
    }
    return SynthesisParams(
        object_rule=recipe.object_rule,
        crop_scale=recipe.crop_scale,
        feather_px=recipe.defect_generator.feather_px,
        max_attempts=60,
        shapes=shapes,
    )


def _commit() -> str:
    """The training code's commit, `+` where the tree differs from it; `unknown` outside git."""
    try:
        commit = _ask_git("rev-parse", "HEAD")
        changed = _ask_git("status", "--porcelain", "--", "models", "training", ":!models/bundles")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _ask_git(*words: str) -> str:
    tree = Path(__file__).parents[1]
    answer = subprocess.run(["git", *words], cwd=tree, capture_output=True, text=True, check=True)
    return answer.stdout.strip()
