"""Named frozen configs: an experiment is a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from models.manifest import ObjectRule

CROP_SIDES_PX = (64, 128, 192, 256, 384, 512, 768, 1024)
"""What a recipe that leaves the crop's side open may get."""


SegmenterName = Literal["unet", "linear"]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast one network is trained; a kill costs at most `checkpoint_every`."""

    steps: int
    batch: int
    learning_rate: float
    validate_every: int
    checkpoint_every: int = 100
    ema_decay: float = 0.995
    decays: bool = True


@dataclass(frozen=True)
class LocatorRecipe:
    """The keypoint model.

    Of the squares it learns from, `defect_share` are around defects, of which `synthetic_share` are
    synthetic where the run has any, and `hard_share` around what it took for a defect on
    `hard_pictures` training pictures, looked at with each validation. The rest are anywhere.
    """

    schedule: Schedule
    encoder: Literal["plain", "lite0"]
    side_px: int
    defect_share: float = 0.7
    zoom: tuple[float, float] = (0.75, 1.3)
    sigma_share: float = 0.12
    offset_weight: float = 0.1
    synthetic_share: float = 0.3
    hard_share: float = 0.15
    hard_pictures: int = 32


@dataclass(frozen=True)
class SegmenterRecipe:
    """The segmenter and its crops; a crop's side of 0 is chosen from the data.

    square_px: side of what it learns from; 0 is a crop's. zoom: how much smaller or larger than
    real the defects there are. balance: how much more often rare sizes and parts are drawn than
    their number says; region_balance: how much more a small defect's pixels weigh. 0 is neither.
    """

    schedule: Schedule
    side_px: int
    crop_size_px: int
    square_px: int = 0
    decoder: Literal["DeepLabV3Plus", "DeepLabV3"] = "DeepLabV3Plus"
    peaks: int = 5
    jitter_share: float = 0.2
    empty_share: float = 0.4
    zoom: tuple[float, float] = (0.5, 1.6)
    balance: float = 0.5
    region_balance: float = 0.5
    synthetic_share: float = 0.3


@dataclass(frozen=True)
class WholeRecipe:
    """The peer that segments whole pictures made small; its steps follow the segmenter's pixels."""

    width_px: int = 1024
    batch: int = 2
    learning_rate: float = 4e-4
    ema_decay: float = 0.98
    validations: int = 3


@dataclass(frozen=True)
class CalibrationRecipe:
    """What thresholds must keep to on validation parts.

    missed_share: of the bad parts at most so many are called good. rejected_share: of the good
    parts at most so many are called bad. lost_share: of the defects at most so many get no crop for
    the sake of fewer crops.
    """

    missed_share: float = 0.05
    rejected_share: float = 0.05
    lost_share: float = 0.01


@dataclass(frozen=True)
class MaskGeneratorRecipe:
    """Stage 1 of synthesis: its network, and weights of its losses. 0 switches a part off.

    pages: real shapes in its book; with 0 its encoder and decoder must imagine them alone. Image
    and region weigh the two critics.
    """

    schedule: Schedule
    side_px: int = 128
    width: int = 16
    pages: int = 96
    image_weight: float = 0.5
    region_weight: float = 1.0
    boundary_weight: float = 5.0
    log_area_weight: float = 1.0
    binary_weight: float = 0.5
    mode_seeking_weight: float = 0.0


@dataclass(frozen=True)
class DefectGeneratorRecipe:
    """Stage 2 of synthesis: its network, and weights of its losses. 0 switches a part off.

    pages: real defects in its book; with 0 its encoder and decoder must paint alone. modulated:
    mask and noise modulate features, else plain convolutions see the mask. focused: foreground is
    told relative to the light around, else a plain head paints it. Image and region weigh the two
    critics.
    """

    schedule: Schedule
    side_px: int = 128
    width: int = 16
    pages: int = 96
    image_weight: float = 0.5
    region_weight: float = 1.0
    reconstruction_weight: float = 5.0
    texture_weight: float = 2.0
    visibility_weight: float = 1.0
    mode_seeking_weight: float = 0.0
    feather_px: float = 1.5
    modulated: bool = True
    focused: bool = True


@dataclass(frozen=True)
class DownstreamRecipe:
    """The segmenter that tells what pairs are worth: the same for every arm of the experiment.

    view: pictures are looked at this many times larger. zoom: range of classic augmentation.
    segmenter: a U-Net, all of which learns, or one linear layer on frozen features. Results of each
    have a folder of their own, so it is left out of what they are digested by.
    """

    schedule: Schedule = Schedule(
        steps=150, batch=8, learning_rate=1e-3, validate_every=150, ema_decay=0.9
    )
    side_px: int = 128
    view: float = 1.0
    zoom: tuple[float, float] = (0.8, 1.25)
    pairs: int = 200
    defect_share: float = 0.5
    synthetic_share: float = 0.5
    val_defects: int = 80
    val_normals: int = 50
    segmenter: SegmenterName = field(default="unet", repr=False)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a bundle is trained."""

    name: str
    locator: LocatorRecipe
    segmenter: SegmenterRecipe
    mask_generator: MaskGeneratorRecipe
    defect_generator: DefectGeneratorRecipe
    object_rule: ObjectRule
    downstream: DownstreamRecipe = DownstreamRecipe()
    whole: WholeRecipe = WholeRecipe()
    calibration: CalibrationRecipe = CalibrationRecipe()
    n: int = 5
    crop_scale: tuple[float, float] = (1.4, 2.6)
    site_candidates: int = 4
    val_share: float = 0.2
    seed: int = 7


def ball_screw() -> Recipe:
    """Colour pictures of 0.5 to 3 MP, pits from 5 to 190 px that oil and dirt resemble."""
    return Recipe(
        name="ball-screw",
        locator=LocatorRecipe(
            Schedule(steps=1600, batch=8, learning_rate=4e-4, validate_every=200),
            encoder="lite0",
            side_px=448,
        ),
        segmenter=SegmenterRecipe(
            Schedule(steps=1800, batch=8, learning_rate=6e-4, validate_every=300),
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
            Schedule(steps=1800, batch=8, learning_rate=6e-4, validate_every=300),
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
    """The patent's own segmenter, without DeepLabV3+'s decoder."""
    recipe = ball_screw()
    return replace(
        recipe,
        name="ball-screw-deeplabv3",
        segmenter=replace(recipe.segmenter, decoder="DeepLabV3"),
    )


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
    "brushed-plate": brushed_plate,
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
        schedule, steps=steps, batch=4, validate_every=steps // 2, checkpoint_every=8, ema_decay=0.9
    )
