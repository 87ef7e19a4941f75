from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.detection import detect
from models.errors import ParameterInvalid
from models.steps.pictures import Picture
from training.data import load_dataset, store_samples
from training.experiments import trial
from training.feeding import FIGURES, Diet, run_feeding, torch_detector
from training.importers import import_folder
from training.networks.locators import build_locator
from training.networks.segmenters import Segmenter
from training.recipes import Recipe

SHORT = Diet(pairs=3, steps_share=0.05)


@pytest.fixture
def run(tmp_path: Path, mask_folder: Path) -> Path:
    store_samples(import_folder(mask_folder), tmp_path / "run", val_share=0.2, seed=7)
    return tmp_path / "run"


def short_recipe() -> Recipe:
    recipe = trial()
    return replace(recipe, locator=replace(recipe.locator, side_px=64))


@pytest.mark.slow
def test_every_arm_is_taught_on_its_pairs_and_measured_once(run, fabric):
    def feed(arms: tuple[str, ...], diet: Diet):
        return run_feeding(run, short_recipe(), arms, diet, seeds=[0], fabric=fabric)

    table = feed(("classic", "copy-paste"), SHORT)
    stamps = [file.stat().st_mtime_ns for file in sorted((run / "feeding").glob("*.json"))]
    again = feed(("classic", "copy-paste"), SHORT)
    other = feed(("classic",), replace(SHORT, pairs=2))

    assert table.arms == ("classic", "copy-paste")
    assert all(set(result.figures) == set(FIGURES) for result in table.results)
    assert again == table
    assert other.results[0].origin == table.results[0].origin
    assert stamps == [f.stat().st_mtime_ns for f in sorted((run / "feeding").glob("*.json"))]
    sets = [load_dataset(run / "feeding" / f"{arm}.0") for arm in table.arms]
    assert [len(one.synthetic) for one in sets] == [0, 3]
    assert len(sets[0].train) == len(sets[1].train) == 18
    assert any(line.startswith("copy-paste (1 seeds)") for line in table.lines())


@pytest.mark.slow
def test_an_arm_with_other_pairs_is_taught_anew(run, fabric):
    def feed(pairs: int) -> str:
        diet = replace(SHORT, pairs=pairs)
        table = run_feeding(run, short_recipe(), ["perlin"], diet, seeds=[0], fabric=fabric)
        return table.results[0].origin

    first = feed(1)
    for checkpoint in (run / "feeding" / "perlin.0").glob("*.checkpoint.pt"):
        checkpoint.unlink()

    assert feed(2) != first


def test_an_arm_that_cannot_be_taught_is_refused(run, fabric):
    with pytest.raises(ParameterInvalid, match="arms: real is not taught here"):
        run_feeding(run, trial(), ["real"], SHORT, seeds=[0], fabric=fabric)


def test_a_runs_torch_networks_tell_story_one(run):
    recipe, data = trial(), load_dataset(run)
    torch.manual_seed(0)
    torch.save(build_locator("plain").state_dict(), run / "locator.pt")
    torch.save(Segmenter(2, side_px=64, decoder="DeepLabV3Plus").state_dict(), run / "segmenter.pt")

    detection = detect(Picture(data.val[0].image), torch_detector(run, recipe, data))

    assert 1 <= sum(crop.reason == "peak" for crop in detection.crops) <= recipe.n
    assert detection.crops[0].box[2] == recipe.segmenter.crop_size_px
