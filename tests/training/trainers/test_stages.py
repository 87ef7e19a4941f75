from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from models.errors import FlawsmithError
from models.manifest import ObjectRule
from tests.training.specks import SIDE_PX
from training.data import store_samples
from training.experiments import trial
from training.importers import import_folder
from training.networks.deeppose import DeepPose
from training.recipes import PoseRecipe, Recipe, Schedule
from training.trainers.stages import (
    STAGES,
    fit_stages,
    least_contrasts,
    load_defect_generator,
    load_locator,
    load_mask_generator,
    load_segmenter,
    new_defect_generator,
    new_mask_generator,
    origin_of,
    site_sources,
)

LOADERS = {
    "locator": lambda run, recipe: load_locator(run, recipe),
    "segmenter": lambda run, recipe: load_segmenter(run, recipe, 2),
    "mask_generator": lambda run, recipe: load_mask_generator(run, recipe, 2),
    "defect_generator": lambda run, recipe: load_defect_generator(run, recipe, 2),
}


def quick_recipe() -> Recipe:
    """The trial's networks, two steps each; the pictures have no background."""
    recipe = replace(trial(), object_rule=ObjectRule(threshold="none"))
    schedule = Schedule(steps=2, batch=2, learning_rate=1e-3, validate_every=2)
    changes = {stage: replace(getattr(recipe, stage), schedule=schedule) for stage in STAGES}
    return replace(recipe, **changes)


def test_the_four_stages_leave_networks_that_load_and_their_figures(tmp_path, mask_folder, fabric):
    store_samples(import_folder(mask_folder), tmp_path, val_share=0.2, seed=7)

    fit_stages(tmp_path, quick_recipe(), STAGES, fabric)

    for stage in STAGES:
        network = LOADERS[stage](tmp_path, quick_recipe())
        kept = torch.load(tmp_path / f"{stage}.pt", weights_only=True)
        assert not network.training
        assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items())
        assert json.loads((tmp_path / f"{stage}.figures.json").read_text())


def test_a_segmenter_learns_around_the_peaks_of_a_deeppose_too(tmp_path, mask_folder, fabric):
    store_samples(import_folder(mask_folder), tmp_path, val_share=0.2, seed=7)
    recipe = quick_recipe()
    pose = PoseRecipe(recipe.locator.schedule, look_hw=(64, 96), side_px=64, refined=3)
    recipe = replace(recipe, locator=pose)

    fit_stages(tmp_path, recipe, ("locator", "segmenter"), fabric)

    assert isinstance(load_locator(tmp_path, recipe), DeepPose)
    assert (tmp_path / "segmenter.pt").exists()


def test_one_stage_can_be_fitted_alone(tmp_path, mask_folder, fabric):
    store_samples(import_folder(mask_folder), tmp_path, val_share=0.2, seed=7)

    fit_stages(tmp_path, quick_recipe(), ("locator",), fabric)

    assert [file.name for file in tmp_path.glob("*.figures.json")] == ["locator.figures.json"]


def test_a_segmenter_without_its_locator_is_refused(tmp_path, mask_folder, fabric):
    store_samples(import_folder(mask_folder), tmp_path, val_share=0.2, seed=7)

    with pytest.raises((FlawsmithError, OSError), match=r"locator\.pt"):
        fit_stages(tmp_path, quick_recipe(), ("segmenter",), fabric)


def test_sites_of_training_and_validation_are_never_mixed(data):
    sources = site_sources(quick_recipe(), data, SIDE_PX)

    for side, records in (("train", data.train), ("val", data.val)):
        shown = {r.name for r in (*sources[side].normals, *sources[side].defects)}
        assert shown == {record.name for record in records}


def test_the_least_contrast_lies_below_most_real_ones(data):
    source = site_sources(quick_recipe(), data, SIDE_PX)["train"]

    pit, scratch = least_contrasts(source, seed=7)

    assert 60 < pit < 130
    assert 30 < scratch < 60


def test_the_least_contrast_is_lower_where_few_defects_are_known(data):
    source = site_sources(quick_recipe(), data, SIDE_PX)["train"]
    few = replace(source, defects=tuple(r for r in source.defects if r.flaws[0].label == 2)[:2])
    one = replace(source, defects=few.defects[:1] + source.defects[:1])

    assert len(source.flaws[1]) > len(one.flaws[1]) == 1
    assert least_contrasts(one, seed=7)[1] < 0.5 * least_contrasts(source, seed=7)[1]


def test_generators_are_made_as_the_recipe_has_them():
    recipe = quick_recipe()

    masks, defects = new_mask_generator(recipe, 2), new_defect_generator(recipe, 2)

    assert masks.book is not None
    assert defects.book is not None
    assert (masks.side_px, len(masks.book.pages)) == (64, recipe.mask_generator.pages)
    assert (defects.side_px, len(defects.book.pages)) == (64, recipe.defect_generator.pages)


@pytest.mark.parametrize("part", ["pages", "modulated", "focused"])
def test_a_part_that_a_recipe_leaves_out_is_not_made(part):
    recipe = quick_recipe()
    left_out = {part: 0 if part == "pages" else False}
    less = replace(recipe, defect_generator=replace(recipe.defect_generator, **left_out))

    whole, bare = (new_defect_generator(r, 2).state_dict().keys() for r in (recipe, less))

    prefix = {"pages": "book.", "modulated": "modulations.0.film.", "focused": "focus.layers."}[
        part
    ]
    assert {name for name in whole if name not in bare} >= {
        name for name in whole if name.startswith(prefix)
    }
    assert any(name.startswith(prefix) for name in whole)
    assert not any(name.startswith(prefix) for name in bare)


def test_synthetic_pictures_are_what_detectors_depend_on_and_generators_do_not(tmp_path):
    (tmp_path / "samples.json").write_text("{}")
    torch.save({}, tmp_path / "locator.pt")
    before = [origin_of(stage, tmp_path, trial()) for stage in STAGES]

    (tmp_path / "synthetic.json").write_text("{}")

    after = [origin_of(stage, tmp_path, trial()) for stage in STAGES]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True, True]
