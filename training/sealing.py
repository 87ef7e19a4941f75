"""A run's trained networks -> graphs, a manifest, a sealed bundle."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.bundle import digest_of, read_manifest, seal_bundle
from models.errors import BundleMissing
from models.graphs import DefectGenerator, GraphCall, MaskGenerator
from models.manifest import (
    GRAPH_FILES,
    DataSource,
    DefectGeneratorSpec,
    DetectionParams,
    Graphs,
    LabelShape,
    Limits,
    Manifest,
    MaskGeneratorSpec,
    SegmenterSpec,
    SynthesisParams,
    Training,
)
from models.steps.contexts import describe_context, write_contexts
from models.steps.copies import (
    choose_evenly,
    copy_limit,
    take_fingerprint,
    write_fingerprints,
)
from models.steps.outlines import place_region
from models.steps.sites import LEAST_SIDE_PX, cut_site
from models.synthesis import Synthesizer
from training import graphs
from training.data import Dataset, Flaw, Record, defect_sides_px
from training.export import export_graph
from training.networks.books import CODE_NOISE
from training.networks.generators import defect_noise_size, spatial_noise_chw
from training.recipes import Recipe
from training.sites import RealSite, SiteSource, trust, without_defect
from training.trainers.stages import (
    STAGES,
    least_contrasts,
    load_defect_generator,
    load_locator,
    load_mask_generator,
    load_segmenter,
    site_sources,
)

CONTEXTS = 96
"""Surroundings kept of one label."""
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


def torch_synthesizer(run: Path, recipe: Recipe, data: Dataset) -> Synthesizer:
    """A run's torch generators behind the seam's interface: story 2 before anything is exported.

    Errors: FileNotFoundError where a generator was not trained.
    """
    masks = load_mask_generator(run, recipe, len(data.labels))
    defects = load_defect_generator(run, recipe, len(data.labels))
    return Synthesizer(
        MaskGenerator(_call(masks), masks.side_px, masks.noise_size, masks.spatial_noise_chw),
        DefectGenerator(_call(defects), defects.side_px, defects.noise_size),
        data.labels,
        synthesis_params(recipe, data),
        LIMITS,
    )


def _call(network: nn.Module) -> GraphCall:
    """A network as a graph; its `forward` takes what the graph takes, by the same names."""

    def call(**given: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        with torch.no_grad():
            answer = network(**{name: torch.from_numpy(value) for name, value in given.items()})
        outputs = answer if isinstance(answer, tuple) else (answer,)
        return tuple(output.numpy() for output in outputs)

    return call


def _seal(run: Path, manifest: Manifest, root: Path) -> Path:
    return seal_bundle({file: run / "graphs" / file for file in GRAPH_FILES}, manifest, root)


def _draft_manifest(run: Path, recipe: Recipe, data: Dataset, about: dict[str, str]) -> Manifest:
    splits = {"train": len(data.train), "val": len(data.val)}
    splits |= {"synthetic": len(data.synthetic)} if data.synthetic else {}
    source = DataSource(
        name=about["data"], licence=about["licence"], citation=about["citation"], pictures=splits
    )
    return Manifest(
        product=about["product"],
        version="0",
        created=datetime.now(UTC).replace(microsecond=0),
        labels=data.labels,
        graphs=_graph_specs(run, recipe),
        detection=detection_params(recipe, data),
        synthesis=synthesis_params(recipe, data),
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
    masks, defects = recipe.mask_generator, recipe.defect_generator
    return Graphs(
        locator=graphs.locator_spec(recipe.locator, digests["locator.onnx"]),
        segmenter=SegmenterSpec(
            sha256=digests["segmenter.onnx"],
            **asdict(graphs.SEGMENTER),
            side_px=recipe.segmenter.side_px,
        ),
        mask_generator=MaskGeneratorSpec(
            sha256=digests["mask_generator.onnx"],
            **asdict(graphs.MASK_GENERATOR),
            side_px=masks.side_px,
            noise_size=CODE_NOISE,
            spatial_noise_chw=spatial_noise_chw(masks.side_px),
        ),
        defect_generator=DefectGeneratorSpec(
            sha256=digests["defect_generator.onnx"],
            **asdict(graphs.DEFECT_GENERATOR),
            side_px=defects.side_px,
            noise_size=defect_noise_size(defects.side_px),
        ),
    )


def detection_params(recipe: Recipe, data: Dataset) -> DetectionParams:
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


def synthesis_params(recipe: Recipe, data: Dataset) -> SynthesisParams:
    """How story 2 is told of these pictures: what sites to draw, and what to refuse."""
    source = site_sources(recipe, data, recipe.mask_generator.side_px)["train"]
    contrasts = least_contrasts(source, seed=recipe.seed)
    areas = [[flaw.region.area_px for _, flaw in flaws] for flaws in source.flaws]
    shapes = {
        label: LabelShape(
            sides_px=source.sides_px(k),
            min_area_px=max(
                4.0, round(0.5 * trust(len(areas[k])) * float(np.quantile(areas[k], 0.05)))
            ),
            min_contrast=round(contrasts[k], 1),
            **_known_defects(source, k),
            contexts=_contexts(source, k),
        )
        for k, label in enumerate(data.labels)
    }
    return SynthesisParams(
        object_rule=recipe.object_rule,
        crop_scale=recipe.crop_scale,
        feather_px=recipe.defect_generator.feather_px,
        max_attempts=60,
        site_candidates=recipe.site_candidates,
        shapes=shapes,
    )


def _known_defects(source: SiteSource, label: int) -> dict[str, Any]:
    """Fingerprints of the label's training defects, and how like one of them is too like."""
    flaws = [source.flaws[label][i] for i in choose_evenly(len(source.flaws[label]))]
    taken = np.stack([_fingerprint(record, flaw, source) for record, flaw in flaws])
    limit = copy_limit(taken, [record.group for record, _ in flaws])
    return {"fingerprints": write_fingerprints(taken), "copy_similarity": round(limit, 4)}


def _contexts(source: SiteSource, label: int) -> str:
    """What surrounds the label's training defects, at most CONTEXTS of them."""
    rng, count = np.random.default_rng(0), len(source.flaws[label])
    squares = [
        without_defect(
            source.draw_real(label, rng, crop_scale=(2.0, 2.0), slack_share=0.0, flaw=flaw)
        )
        for flaw in choose_evenly(count, CONTEXTS)
    ]
    return write_contexts(np.stack([describe_context(square) for square in squares]))


def _fingerprint(record: Record, flaw: Flaw, source: SiteSource) -> NDArray[np.int8]:
    """Of a real defect at its own size; before it, its square as `without_defect` guesses it."""
    x, y, width, height = flaw.region.box
    side_px = max(LEAST_SIDE_PX, 2 * flaw.side_px)
    centre = (x + width / 2, y + height / 2)
    site = cut_site(record.image, source.object_of(record), centre, side_px, side_px)
    mask = place_region(flaw.region, (site.window.x, site.window.y), (side_px, side_px))
    before = without_defect(RealSite(site, mask.astype(np.float32), flaw.label - 1))
    return take_fingerprint(before, site.image, mask)


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
