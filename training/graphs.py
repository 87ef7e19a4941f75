"""The four networks of a run as graphs: what each takes and gives, for export and manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from models.manifest import LocatorSpec
from training.export import Exported, random_pixels
from training.networks.deeppose import DeepPose
from training.networks.folding import FoldedLocator
from training.networks.generators import DefectGenerator, MaskGenerator
from training.networks.locators import (
    Lite0Locator,
    PlainLocator,
    WithPeaks,
    strongest_cells,
)
from training.networks.segmenters import Segmenter
from training.recipes import LocatorRecipe, PoseRecipe

BATCH = {0: "batch"}


@dataclass(frozen=True)
class Meaning:
    """What a graph's inputs and outputs are, in words, for the manifest."""

    inputs: dict[str, str]
    outputs: dict[str, str]


LOCATOR = Meaning(
    inputs={"image": "(1, H, W, 3) uint8 RGB, sides multiples of multiple_px"},
    outputs={
        "field": "(1, 3, H/stride, W/stride) float32: logit of a defect's centre in the cell; "
        "its offset dx, dy from the cell's centre, in cells",
        "peaks": "(1, K, 4) float32, the strongest cells, at most 256: logit, x, y in pixels, "
        "1 where the cell is a local maximum; these come first",
    },
)
DEEPPOSE = Meaning(
    inputs={
        "image": "(1, H, W, 3) uint8 RGB",
        "look": "(1, *look_hw, 3) uint8 RGB, the whole picture, shrunk by the mean of its pixels",
    },
    outputs={
        "points": "(1, K, 4) float32: logit of a defect's centre; x, y and standard deviation in "
        "pixels of the picture"
    },
)
SEGMENTER = Meaning(
    inputs={"image": "(B, side, side, 3) uint8 RGB"},
    outputs={"logits": "(B, 1 + labels, side, side) float32, the background first"},
)
SITE = {
    "image": "(B, side, side, 3) uint8 RGB, a square of a normal picture",
    "label": "(B,) int64, index of the label",
    "scale": "(B,) float32, log2 of picture pixels per pixel of the square",
}
MASK_GENERATOR = Meaning(
    inputs={
        **SITE,
        "object": "(B, side, side) uint8, 255 on the object",
        "noise": "(B, noise_size) float32, standard normal",
        "spatial_noise": "(B, *spatial_noise_chw) float32, standard normal",
    },
    outputs={"mask": "(B, 1, side, side) float32 in 0..1"},
)
DEFECT_GENERATOR = Meaning(
    inputs={
        **SITE,
        "mask": "(B, side, side) uint8, 255 on the defect that is asked for",
        "noise": "(B, noise_size) float32, standard normal",
    },
    outputs={
        "foreground": "(B, 3, side, side) float32 RGB in 0..1",
        "alpha": "(B, 1, side, side) float32 in 0..1, before feathering",
    },
)


def locator_export(network: PlainLocator | Lite0Locator | DeepPose) -> Exported:
    """One picture at a time, of any height and width that are multiples of the network's."""
    if isinstance(network, DeepPose):
        return _deeppose_export(network)
    rng, step = np.random.default_rng(0), network.multiple_px
    computed = FoldedLocator(network) if isinstance(network, PlainLocator) else network
    return Exported(
        WithPeaks(computed, network.stride_px),
        {"image": random_pixels(rng, 1, 4 * step, 6 * step, 3)},
        {"image": random_pixels(rng, 2, 7 * step, 5 * step, 3)},
        ("field", "peaks"),
        {
            "image": {0: "batch", 1: "height", 2: "width"},
            "field": {0: "batch", 2: "rows", 3: "columns"},
            "peaks": {0: "batch", 1: "cells"},
        },
        derived=partial(strongest_cells, stride_px=network.stride_px),
    )


def _deeppose_export(network: DeepPose) -> Exported:
    """A picture of any size, its look of the fixed one."""
    rng, look_hw = np.random.default_rng(0), network.look_hw
    return Exported(
        network,
        {"image": random_pixels(rng, 1, 96, 160, 3), "look": random_pixels(rng, 1, *look_hw, 3)},
        {"image": random_pixels(rng, 2, 235, 141, 3), "look": random_pixels(rng, 2, *look_hw, 3)},
        ("points",),
        {"image": {0: "batch", 1: "height", 2: "width"}, "look": BATCH, "points": BATCH},
    )


def locator_spec(recipe: LocatorRecipe | PoseRecipe, digest: str) -> LocatorSpec:
    """What the manifest says of the locator that a recipe makes, and of its file's digest."""
    if isinstance(recipe, PoseRecipe):
        told = asdict(DEEPPOSE) | {"kind": "deeppose", "look_hw": recipe.look_hw}
        return LocatorSpec(sha256=digest, stride_px=1, multiple_px=1, **told)
    network = PlainLocator if recipe.encoder == "plain" else Lite0Locator
    return LocatorSpec(
        sha256=digest,
        stride_px=network.stride_px,
        multiple_px=network.multiple_px,
        **asdict(LOCATOR),
    )


def segmenter_export(network: Segmenter) -> Exported:
    """Crops of the fixed side, any batch."""
    rng, side_px = np.random.default_rng(0), network.side_px
    return Exported(
        network,
        {"image": random_pixels(rng, 1, side_px, side_px, 3)},
        {"image": random_pixels(rng, 3, side_px, side_px, 3)},
        ("logits",),
        {"image": BATCH, "logits": BATCH},
    )


def whole_export(network: Segmenter) -> Exported:
    """The segmenter over whole pictures, of any height and width that are multiples of 32."""
    rng = np.random.default_rng(0)
    free = {0: "batch", 1: "height", 2: "width"}
    return Exported(
        network,
        {"image": random_pixels(rng, 1, 96, 128, 3)},
        {"image": random_pixels(rng, 2, 160, 96, 3)},
        ("logits",),
        {"image": free, "logits": {0: "batch", 2: "height", 3: "width"}},
    )


def mask_generator_export(network: MaskGenerator, labels: int) -> Exported:
    """Sites of the fixed side, any batch."""

    def given(batch: int) -> dict[str, Tensor]:
        site = _draw_site(network, batch, labels, masked_by="object")
        return site | {"spatial_noise": _draw_noise(batch, *network.spatial_noise_chw)}

    free = dict.fromkeys((*given(1), "mask"), BATCH)
    return Exported(network, given(1), given(3), ("mask",), free, keeps_weights=True)


def defect_generator_export(network: DefectGenerator, labels: int) -> Exported:
    """Sites of the fixed side, any batch."""

    def given(batch: int) -> dict[str, Tensor]:
        return _draw_site(network, batch, labels, masked_by="mask")

    free = dict.fromkeys((*given(1), "foreground", "alpha"), BATCH)
    outputs = ("foreground", "alpha")
    return Exported(network, given(1), given(3), outputs, free, keeps_weights=True)


def _draw_site(
    network: MaskGenerator | DefectGenerator, batch: int, labels: int, *, masked_by: str
) -> dict[str, Tensor]:
    """What both generators take, in the order of their `forward`."""
    rng, side_px = np.random.default_rng(batch), network.side_px
    return {
        "image": random_pixels(rng, batch, side_px, side_px, 3),
        masked_by: random_pixels(rng, batch, side_px, side_px),
        "label": torch.arange(batch) % labels,
        "scale": torch.linspace(-1, 1, batch),
        "noise": _draw_noise(batch, network.noise_size),
    }


def _draw_noise(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(shape).standard_normal(shape, np.float32))
