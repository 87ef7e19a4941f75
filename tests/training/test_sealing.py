from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.bundle import open_bundle, read_manifest, verify_bundle
from models.errors import BundleAltered, BundleMissing
from models.graphs import PoseLocator
from models.manifest import GRAPH_FILES, ObjectRule
from models.steps.contexts import read_contexts
from models.steps.copies import read_fingerprints
from tests.training.specks import write_mask_folder
from training.data import Dataset, load_dataset, store_samples
from training.experiments import trial
from training.importers import import_folder
from training.networks.generators import spatial_noise_chw
from training.networks.locators import build_locator
from training.networks.segmenters import Segmenter
from training.recipes import PoseRecipe
from training.sealing import (
    draft_bundle,
    export_run,
    find_draft,
    seal_run,
    torch_synthesizer,
)
from training.trainers.stages import new_defect_generator, new_locator, new_mask_generator

RECIPE = replace(trial(), object_rule=ObjectRule(threshold="none"))
ABOUT: dict[str, Any] = {
    "product": "speck",
    "recipe": "trial",
    "data": "specks",
    "licence": "CC0-1.0",
    "citation": "none",
}
EVALUATED = {
    "calibrated": {"min_confidence": 0.25, "min_score": 0.75, "review_score": 0.5},
    "figures": {"pixel_ap": 0.5},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Path:
    """A run with untrained networks, exported and drafted."""
    folder = tmp_path_factory.mktemp("run")
    pictures = write_mask_folder(tmp_path_factory.mktemp("pictures"), data)
    store_samples(import_folder(pictures), folder, val_share=0.2, seed=7)
    torch.manual_seed(0)
    networks = {
        "locator": build_locator(RECIPE.locator.encoder),
        "segmenter": Segmenter(2, side_px=64, decoder="DeepLabV3Plus"),
        "mask_generator": new_mask_generator(RECIPE, 2),
        "defect_generator": new_defect_generator(RECIPE, 2),
    }
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / f"{name}.pt")
    gaps = export_run(folder, RECIPE, 2)
    assert set(gaps) == set(GRAPH_FILES)
    draft_bundle(folder, RECIPE, load_dataset(folder), ABOUT)
    return folder


@pytest.fixture
def evaluated(run: Path) -> Path:
    (run / "evaluation.json").write_text(json.dumps(EVALUATED))
    return run


def test_a_draft_opens_and_holds_nothing_back(run):
    bundle = open_bundle(find_draft(run))

    params = bundle.manifest.detection
    assert (params.min_confidence, params.min_score) == (0.0, 0.0)
    assert bundle.manifest.labels == ("pit", "scratch")
    assert bundle.manifest.training.data[0].pictures == {"train": 18, "val": 9}


def test_the_manifest_tells_what_the_data_say(run):
    manifest = read_manifest(find_draft(run))

    assert manifest.detection.largest_defect_px == 18.0
    assert manifest.detection.crop_size_px == RECIPE.segmenter.crop_size_px
    shapes = manifest.synthesis.shapes
    assert shapes["scratch"].sides_px[5] == 18.0
    assert shapes["scratch"].min_area_px == 20.0
    assert shapes["pit"].min_contrast > 60
    assert manifest.training.steps["locator"] == RECIPE.locator.schedule.steps
    side_px = RECIPE.mask_generator.side_px
    assert manifest.graphs.mask_generator.spatial_noise_chw == spatial_noise_chw(side_px)


def test_a_heatmap_is_sealed_with_its_peaks(run):
    spec = read_manifest(find_draft(run)).graphs.locator

    assert (spec.kind, spec.stride_px, spec.multiple_px, spec.look_hw) == ("heatmap", 8, 16, None)
    assert list(spec.outputs) == ["field", "peaks"]


def test_a_run_with_deeppose_is_exported_and_opens(run, tmp_path):
    locator = PoseRecipe(RECIPE.locator.schedule, look_hw=(64, 96), side_px=64, refined=3)
    recipe = replace(RECIPE, locator=locator)
    folder = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("draft")))
    torch.save(new_locator(recipe).state_dict(), folder / "locator.pt")

    export_run(folder, recipe, 2)
    bundle = open_bundle(draft_bundle(folder, recipe, load_dataset(folder), ABOUT))

    assert bundle.manifest.graphs.locator.kind == "deeppose"
    assert isinstance(bundle.detector.locator, PoseLocator)
    assert bundle.detector.locator.look_hw == (64, 96)


def test_few_known_defects_leave_room_for_smaller_and_larger_ones(run):
    sides_px = read_manifest(find_draft(run)).synthesis.shapes["scratch"].sides_px

    assert sides_px == tuple(sorted(sides_px))
    assert sides_px[0] < 0.9 * 18.0
    assert sides_px[-1] > 1.1 * 18.0


def test_the_manifest_knows_the_training_defects_and_what_a_copy_of_one_is(run):
    data = load_dataset(run)

    shapes = read_manifest(find_draft(run)).synthesis.shapes

    for number, label in enumerate(data.labels, start=1):
        flaws = [flaw for record in data.train for flaw in record.flaws if flaw.label == number]
        assert len(read_fingerprints(shapes[label].fingerprints)) == len(flaws)
        assert 0.95 <= shapes[label].copy_similarity <= 1.0


def test_the_manifest_knows_what_surrounds_the_training_defects(run):
    data, synthesis = load_dataset(run), read_manifest(find_draft(run)).synthesis

    assert synthesis.site_candidates == RECIPE.site_candidates
    for number, label in enumerate(data.labels, start=1):
        contexts = read_contexts(synthesis.shapes[label].contexts)
        flaws = [flaw for record in data.train for flaw in record.flaws if flaw.label == number]
        assert len(contexts) == len(flaws)
        assert (abs(contexts.astype(int) - 160) <= 20).all()


def test_what_was_evaluated_is_sealed(evaluated, tmp_path):
    folder = seal_run(evaluated, tmp_path, version="3")

    manifest = verify_bundle(folder)
    assert folder == tmp_path / "speck" / "3"
    assert manifest.figures == {"pixel_ap": 0.5}
    assert (manifest.detection.min_confidence, manifest.detection.min_score) == (0.25, 0.75)
    assert manifest.detection.review_score == 0.5
    assert manifest.detection.crop_size_px == RECIPE.segmenter.crop_size_px


def test_a_version_is_sealed_once(evaluated, tmp_path):
    seal_run(evaluated, tmp_path, version="3")

    with pytest.raises(BundleAltered, match="sealed already"):
        seal_run(evaluated, tmp_path, version="3")


def test_a_run_that_was_not_evaluated_is_not_sealed(evaluated, tmp_path):
    (evaluated / "evaluation.json").unlink()

    with pytest.raises(FileNotFoundError, match=r"evaluation\.json"):
        seal_run(evaluated, tmp_path, version="3")


def test_a_run_that_was_not_exported_is_not_sealed(tmp_path):
    with pytest.raises(BundleMissing, match="export it first"):
        seal_run(tmp_path, tmp_path, version="3")


def test_a_graph_that_changed_after_its_draft_is_not_sealed(evaluated, tmp_path):
    graph = evaluated / "graphs" / "locator.onnx"
    before = graph.read_bytes()
    graph.write_bytes(before + b"\0")

    with pytest.raises(BundleAltered, match=r"locator\.onnx"):
        seal_run(evaluated, tmp_path, version="3")

    assert not (tmp_path / "speck" / "3").exists()
    graph.write_bytes(before)


def test_calibrated_thresholds_that_are_no_scores_are_refused(evaluated, tmp_path):
    wrong = EVALUATED | {"calibrated": {"min_score": 1.5}}
    (evaluated / "evaluation.json").write_text(json.dumps(wrong))

    with pytest.raises(ValueError, match="min_score"):
        seal_run(evaluated, tmp_path, version="3")


def test_a_run_synthesizes_before_its_export_as_its_bundle_does_after(run):
    sealed = open_bundle(find_draft(run)).synthesizer
    data = load_dataset(run)

    fresh = torch_synthesizer(run, RECIPE, data)

    assert fresh.params == sealed.params
    assert (fresh.labels, fresh.limits) == (sealed.labels, sealed.limits)
    site = {
        "image": data.train[0].image[None, :64, :64].copy(),
        "label": np.array([1]),
        "scale": np.array([0.5], np.float32),
    }
    whole = np.full((1, 64, 64), 255, np.uint8)
    rng, masks, defects = np.random.default_rng(0), fresh.mask_generator, fresh.defect_generator
    noise, other_noise, spread = (
        rng.standard_normal((1, *shape), np.float32)
        for shape in ((masks.noise_size,), (defects.noise_size,), masks.spatial_noise_chw)
    )
    told = {**site, "object": whole, "noise": noise, "spatial_noise": spread}
    asked = {**site, "mask": whole, "noise": other_noise}
    for one, other, given in (
        (masks, sealed.mask_generator, told),
        (defects, sealed.defect_generator, asked),
    ):
        for made, expected in zip(one.graph(**given), other.graph(**given), strict=True):
            assert np.allclose(made, expected, atol=2e-3)
