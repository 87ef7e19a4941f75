"""The four networks of a run as graphs: what each takes and gives, for export and manifest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.export import Exported, random_pixels
from training.networks.generators import DefectGenerator, MaskGenerator
from training.networks.locators import Lite0Locator, PlainLocator
from training.networks.segmenters import Segmenter

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
        "its offset dx, dy from the cell's centre, in cells"
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


def locator_export(network: PlainLocator | Lite0Locator) -> Exported:
    """One picture at a time, of any height and width that are multiples of the network's."""
    rng, step = np.random.default_rng(0), network.multiple_px
    return Exported(
        network,
        {"image": random_pixels(rng, 1, 4 * step, 6 * step, 3)},
        {"image": random_pixels(rng, 2, 7 * step, 5 * step, 3)},
        ("field",),
        {
            "image": {0: "batch", 1: "height", 2: "width"},
            "field": {0: "batch", 2: "rows", 3: "columns"},
        },
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
