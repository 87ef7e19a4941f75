"""What decides how a bundle is trained: frozen values, told apart by network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from models.manifest import ObjectRule

SegmenterName = Literal["unet", "linear"]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast one network is trained; a kill costs at most `checkpoint_every`.

    restart: the step at which the learning rate rises and falls once more; at 0 it falls once.
    """

    steps: int
    batch: int
    learning_rate: float
    validate_every: int
    checkpoint_every: int = 100
    ema_decay: float = 0.995
    decays: bool = True
    restart: int = 0


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
class PoseRecipe:
    """The keypoint model that regresses points from a look; so many get a sub-image each."""

    schedule: Schedule
    look_hw: tuple[int, int]
    side_px: int = 128
    refined: int = 8
    defect_share: float = 0.75
    zoom: tuple[float, float] = (0.75, 1.3)
    shift_share: float = 0.15
    synthetic_share: float = 0.3


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
    locator: LocatorRecipe | PoseRecipe
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
