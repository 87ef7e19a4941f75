from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.bundle import open_bundle, read_manifest, verify_bundle
from models.errors import BundleAltered, BundleMissing
from models.manifest import GRAPH_FILES, ObjectRule
from tests.training.specks import write_mask_folder
from training.data import Dataset, load_dataset, store_samples
from training.importers import import_folder
from training.networks.locators import build_locator
from training.networks.segmenters import Segmenter
from training.recipes import trial
from training.sealing import draft_bundle, export_run, find_draft, seal_run
from training.trainers.stages import new_defect_generator, new_mask_generator

RECIPE = replace(trial(), object_rule=ObjectRule(threshold="none"))
ABOUT: dict[str, Any] = {
    "product": "speck",
    "recipe": "trial",
    "data": "specks",
    "licence": "CC0-1.0",
    "citation": "none",
}
EVALUATED = {
    "calibrated": {"min_confidence": 0.25, "min_score": 0.75},
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
    assert shapes["scratch"].sides_px == (18.0,) * 11
    assert shapes["scratch"].min_area_px == 36.0
    assert shapes["pit"].min_contrast > 60
    assert manifest.training.steps["locator"] == RECIPE.locator.schedule.steps
    assert manifest.graphs.mask_generator.spatial_noise_chw == (8, 4, 4)


def test_what_was_evaluated_is_sealed(evaluated, tmp_path):
    folder = seal_run(evaluated, tmp_path, version="3")

    manifest = verify_bundle(folder)
    assert folder == tmp_path / "speck" / "3"
    assert manifest.figures == {"pixel_ap": 0.5}
    assert (manifest.detection.min_confidence, manifest.detection.min_score) == (0.25, 0.75)
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
