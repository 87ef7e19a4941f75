"""The pictures that slicing and story are timed on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from models.steps.pictures import Picture, PictureLimits, decode_picture, encode_jpeg
from training.renderer import render_plate

RENDERED_HW = (1500, 2000)
NORMAL_HW = (1016, 2928)


def real_pictures(folder: Path, count: int) -> list[Picture]:
    """Validation pictures of BSData, as many with defects as without, spread evenly over the rows.

    folder: `images/` and `split.csv` with columns image, kind, group, split.
    """
    with (folder / "split.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == "val"]
    normal = [row["image"] for row in rows if row["kind"] == "normal"]
    defective = [row["image"] for row in rows if row["kind"] != "normal"]
    names = [*_spread(normal, count // 2), *_spread(defective, count - count // 2)]
    limits = PictureLimits()
    return [decode_picture((folder / "images" / name).read_bytes(), limits) for name in names]


def rendered_pictures(count: int) -> list[Picture]:
    """Plates of 3 MP, every other one with flaws."""
    return [
        Picture(
            render_plate(
                np.random.default_rng(seed), size_hw=RENDERED_HW, flaw_count=4 * (seed % 2)
            ).image
        )
        for seed in range(count)
    ]


def rendered_normal() -> bytes:
    """A flawless plate as long and flat as pictures of a ball screw: 2928 × 1016 px, a JPEG."""
    plate = render_plate(np.random.default_rng(0), size_hw=NORMAL_HW, flaw_count=0)
    return encode_jpeg(plate.image)


def _spread(names: list[str], count: int) -> list[str]:
    return [names[i] for i in np.linspace(0, len(names) - 1, min(count, len(names))).astype(int)]
