"""Named recipes: an experiment is a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from models.manifest import ObjectRule
from training.recipes import (
    DefectGeneratorRecipe,
    DownstreamRecipe,
    LocatorRecipe,
    MaskGeneratorRecipe,
    PoseRecipe,
    Recipe,
    Schedule,
    SegmenterRecipe,
)

CROP_SIDES_PX = (64, 128, 192, 256, 384, 512, 768, 1024)
"""What a recipe that leaves the crop's side open may get."""


def ball_screw() -> Recipe:
    """Colour pictures of 0.5 to 3 MP, pits from 5 to 190 px that oil and dirt resemble."""
    return Recipe(
        name="ball-screw",
        locator=LocatorRecipe(
            Schedule(steps=1600, batch=8, learning_rate=4e-4, validate_every=200),
            encoder="lite0",
            side_px=448,
            hard_share=0.0,  # oil and dirt are no trouble here, and with them it lost faint pits
        ),
        segmenter=SegmenterRecipe(
            Schedule(steps=2400, batch=8, learning_rate=6e-4, validate_every=300, restart=1800),
            side_px=256,
            crop_size_px=256,
            square_px=192,
        ),
        mask_generator=MaskGeneratorRecipe(
            Schedule(steps=300, batch=8, learning_rate=5e-5, validate_every=100, ema_decay=0.99)
        ),
        defect_generator=DefectGeneratorRecipe(
            Schedule(steps=300, batch=8, learning_rate=1e-4, validate_every=100, ema_decay=0.99)
        ),
        object_rule=ObjectRule(threshold="none", margin_hw=(0.0, 0.06)),
        downstream=DownstreamRecipe(view=0.5),
    )


def brushed_plate() -> Recipe:
    """Pictures up to 12 MP with pits and scratches from 6 to 60 px."""
    recipe = ball_screw()
    return replace(
        recipe,
        name="brushed-plate",
        locator=LocatorRecipe(
            Schedule(steps=2000, batch=8, learning_rate=1e-3, validate_every=250),
            encoder="plain",
            side_px=384,
        ),
        segmenter=SegmenterRecipe(
            Schedule(steps=2400, batch=8, learning_rate=6e-4, validate_every=300, restart=1800),
            side_px=128,
            crop_size_px=128,
        ),
        object_rule=ObjectRule(threshold="otsu"),
        site_candidates=1,
    )


def standard() -> Recipe:
    """A product that nobody has tuned yet: the crop's side follows its largest defect."""
    recipe = ball_screw()
    return replace(
        recipe,
        name="standard",
        segmenter=replace(recipe.segmenter, side_px=0, crop_size_px=0, square_px=0),
        object_rule=ObjectRule(threshold="otsu"),
        downstream=DownstreamRecipe(),
    )


def magnetic_tile() -> Recipe:
    """Grey pictures of 0.1 MP with an outline: five kinds, from specks to whole faces."""
    return replace(standard(), name="magnetic-tile", site_candidates=1, val_share=0.3)


def ball_screw_deeplabv3() -> Recipe:
    """The patent's own segmenter, without DeepLabV3+'s decoder: a third of the steps, as long."""
    recipe = ball_screw()
    schedule = replace(recipe.segmenter.schedule, steps=600, restart=0)
    return replace(
        recipe,
        name="ball-screw-deeplabv3",
        segmenter=replace(recipe.segmenter, decoder="DeepLabV3", schedule=schedule),
    )


def deeppose(recipe: Recipe, *, look_hw: tuple[int, int]) -> Recipe:
    """The same with the patent's own keypoint model: points regressed from a look."""
    schedule = Schedule(steps=520, batch=4, learning_rate=5e-4, validate_every=260)
    locator = PoseRecipe(schedule, look_hw=look_hw)
    return replace(recipe, name=f"{recipe.name}-deeppose", locator=locator)


def trial() -> Recipe:
    """Half a minute for everything: proves that the way is open, not that it leads far."""
    recipe = brushed_plate()
    locator = _few(recipe.locator.schedule, steps=80)
    segmenter = _few(recipe.segmenter.schedule, steps=30)
    masks = _few(recipe.mask_generator.schedule, steps=20)
    defects = _few(recipe.defect_generator.schedule, steps=10)
    pairs = _few(recipe.downstream.schedule, steps=4)
    return replace(
        recipe,
        name="trial",
        locator=replace(recipe.locator, schedule=locator, side_px=128),
        segmenter=replace(recipe.segmenter, schedule=segmenter, side_px=64, crop_size_px=64),
        mask_generator=replace(recipe.mask_generator, schedule=masks, side_px=64, width=8, pages=8),
        defect_generator=replace(
            recipe.defect_generator, schedule=defects, side_px=64, width=8, pages=8
        ),
        downstream=replace(recipe.downstream, schedule=pairs, side_px=64, pairs=4),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "ball-screw": ball_screw,
    "ball-screw-deeplabv3": ball_screw_deeplabv3,
    "ball-screw-deeppose": lambda: deeppose(ball_screw(), look_hw=(192, 480)),
    "brushed-plate": brushed_plate,
    "brushed-plate-deeppose": lambda: deeppose(brushed_plate(), look_hw=(288, 384)),
    "magnetic-tile": magnetic_tile,
    "standard": standard,
    "trial": trial,
}


def named_recipe(name: str, *, largest_defect_px: float) -> Recipe:
    """A recipe by name, its crops fitted to the data where it leaves their side open (0)."""
    recipe = RECIPES[name]()
    if recipe.segmenter.crop_size_px:
        return recipe
    side_px = next((s for s in CROP_SIDES_PX if s >= 1.3 * largest_defect_px), CROP_SIDES_PX[-1])
    segmenter = replace(recipe.segmenter, crop_size_px=side_px, side_px=min(side_px, 256))
    return replace(recipe, segmenter=segmenter)


def _few(schedule: Schedule, *, steps: int) -> Schedule:
    return replace(
        schedule,
        steps=steps,
        restart=0,
        batch=4,
        validate_every=steps // 2,
        checkpoint_every=8,
        ema_decay=0.9,
    )
