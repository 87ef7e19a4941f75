from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.bundle import read_manifest
from models.devices import Device
from models.manifest import ObjectRule
from tests.training.specks import write_mask_folder
from training.data import Dataset, load_dataset, store_samples
from training.experiments import trial
from training.importers import import_folder
from training.networks.locators import build_locator
from training.networks.segmenters import Segmenter
from training.precision import Quality, Trial, lighten_draft
from training.sealing import draft_bundle, export_run, find_draft, seal_run
from training.trainers.stages import new_defect_generator, new_mask_generator

RECIPE = replace(trial(), object_rule=ObjectRule(threshold="none"))

GOOD = Quality(coverage=0.95, recall=0.9, dice=0.85)


@pytest.mark.parametrize(
    ("int8", "int8_s", "choice"),
    [
        (GOOD, 0.5, "int8"),
        (GOOD, 1.0, "fp32"),
        (Quality(0.945, 0.895, 0.845), 0.5, "int8"),
        (Quality(0.944, 0.9, 0.85), 0.5, "fp32"),
        (Quality(0.95, 0.894, 0.85), 0.5, "fp32"),
        (Quality(0.99, 0.99, 0.844), 0.5, "fp32"),
    ],
)
def test_int8_is_chosen_where_it_is_faster_and_loses_at_most_half_a_point(int8, int8_s, choice):
    assert Trial("locator.onnx", GOOD, int8, 1.0, int8_s).choice == choice


def test_a_trial_tells_its_choice_and_both_forms_figures():
    told = str(Trial("locator.onnx", GOOD, Quality(0.95, 0.8, 0.85), 2.0, 0.5))

    assert told.startswith("locator.onnx: fp32; int8 takes 0.25 of the time")
    assert "recall 0.9000 -> 0.8000" in told


@pytest.mark.slow
def test_a_draft_holds_and_tells_the_forms_that_were_chosen(tmp_path: Path, data: Dataset) -> None:
    run, on_cpu = tmp_path / "run", Device("cpu", threads=1)
    run.mkdir()
    store_samples(
        import_folder(write_mask_folder(tmp_path / "pictures", data)), run, val_share=0.2, seed=7
    )
    torch.manual_seed(0)
    networks = {
        "locator": build_locator(RECIPE.locator.encoder),
        "segmenter": Segmenter(2, side_px=64, decoder="DeepLabV3Plus"),
        "mask_generator": new_mask_generator(RECIPE, 2),
        "defect_generator": new_defect_generator(RECIPE, 2),
    }
    for name, network in networks.items():
        torch.save(network.state_dict(), run / f"{name}.pt")
    export_run(run, RECIPE, 2)
    about = {"product": "speck", "data": "specks", "licence": "CC0-1.0", "citation": "none"}
    loaded = load_dataset(run)
    draft_bundle(run, RECIPE, loaded, about)

    trials = lighten_draft(run, loaded, RECIPE.calibration, on_cpu)

    specs = read_manifest(find_draft(run)).graphs
    assert [one.file for one in trials] == ["locator.onnx", "segmenter.onnx"]
    assert [one.choice for one in trials] == [specs.locator.precision, specs.segmenter.precision]
    assert trials[0].fp32 == trials[1].fp32
    kept = sorted(path.name for path in run.glob("graphs/fp32/*"))
    assert kept == [one.file for one in trials if one.choice == "int8"]
    (run / "evaluation.json").write_text('{"calibrated": {}, "figures": {}}')
    sealed = read_manifest(seal_run(run, tmp_path / "bundles", version="1"))
    assert sealed.graphs == specs
