from __future__ import annotations

from dataclasses import replace

import pytest

from training.experiments import RECIPES, named_recipe
from training.networks.deeppose import REGION_PX
from training.networks.locators import Lite0Locator, PlainLocator
from training.recipes import LocatorRecipe, PoseRecipe
from training.trainers.stages import STAGES

LOCATORS = {"plain": PlainLocator, "lite0": Lite0Locator}


def multiple_of(locator: LocatorRecipe | PoseRecipe) -> int:
    return REGION_PX if isinstance(locator, PoseRecipe) else LOCATORS[locator.encoder].multiple_px


@pytest.fixture(params=sorted(RECIPES))
def recipe(request):
    return named_recipe(request.param, largest_defect_px=90.0)


def test_a_recipe_bears_the_name_it_is_asked_for_by():
    assert {name: make().name for name, make in RECIPES.items()} == {n: n for n in RECIPES}


def test_every_stage_is_judged_at_least_twice_and_saved_in_between(recipe):
    for stage in STAGES:
        schedule = getattr(recipe, stage).schedule
        assert schedule.steps >= 2 * schedule.validate_every
        assert schedule.checkpoint_every <= max(100, schedule.validate_every)


def test_sides_fit_the_networks(recipe):
    assert recipe.locator.side_px % multiple_of(recipe.locator) == 0
    assert recipe.segmenter.side_px % 32 == 0
    assert recipe.mask_generator.side_px == recipe.defect_generator.side_px
    assert recipe.mask_generator.side_px % 16 == 0


def test_an_open_crop_follows_the_largest_defect():
    sides = [
        named_recipe("standard", largest_defect_px=px).segmenter.crop_size_px
        for px in (5.0, 90.0, 190.0, 5000.0)
    ]

    assert sides == [64, 128, 256, 1024]
    assert named_recipe("standard", largest_defect_px=5000.0).segmenter.side_px == 256


def test_a_crop_that_a_recipe_names_stays():
    assert named_recipe("brushed-plate", largest_defect_px=500.0).segmenter.crop_size_px == 128


@pytest.mark.parametrize("name", ["ball-screw", "brushed-plate"])
def test_a_deeppose_recipe_differs_in_its_locator_alone(name):
    heatmap, pose = (RECIPES[kind]() for kind in (name, f"{name}-deeppose"))

    assert isinstance(pose.locator, PoseRecipe)
    assert all(side % REGION_PX == 0 for side in pose.locator.look_hw)
    assert replace(pose, name=name, locator=heatmap.locator) == heatmap
