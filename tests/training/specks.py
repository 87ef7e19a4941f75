"""A data set of small grey pictures with dark pits and bright scratches, in memory or on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.arrays import RgbImage
from models.manifest import ObjectRule
from models.steps.pictures import encode_png
from training.augment import LabelMap
from training.data import Dataset, Record
from training.sites import SiteSource

LABELS = ("pit", "scratch")
HW = (96, 128)
SIDE_PX = 64
"""What the trial recipe shows its generators."""


def draw_dataset() -> Dataset:
    """Two labels; six training and three validation pictures of each kind, each its own group."""
    return Dataset(LABELS, _draw_side(0, 6), _draw_side(100, 3))


def draw_record(seed: int, *, kinds: tuple[int, ...]) -> Record:
    """One picture with a defect of each of the kinds (label indices from 1)."""
    rng = np.random.default_rng(seed)
    image = np.asarray(rng.integers(150, 170, (*HW, 3)), np.uint8)
    labels = np.zeros(HW, np.uint8)
    for kind in kinds:
        _mark(image, labels, kind, rng)
    return Record(f"{seed}.png", str(seed), image, labels)


def draw_source(data: Dataset) -> SiteSource:
    """Sites of the validation pictures, the whole picture being the object."""
    return SiteSource(
        normals=data.val_normals,
        defects=tuple(r for r in data.val if r.flaws),
        labels=len(data.labels),
        shown_px=SIDE_PX,
        crop_scale=(1.4, 2.6),
        object_rule=ObjectRule(threshold="none"),
    )


def write_mask_folder(folder: Path, data: Dataset) -> Path:
    """`images/`, `masks/<label>/` and a split.csv that says what the data set says."""
    lines = ["image,group,split"]
    for split, records in (("train", data.train), ("val", data.val)):
        for record in records:
            lines.append(f"{record.name},{record.group},{split}")
            _write(folder / "images" / record.name, record.image)
            for number, label in enumerate(data.labels, start=1):
                if (record.labels == number).any():
                    _write(folder / "masks" / label / record.name, record.labels == number)
    (folder / "split.csv").write_text("\n".join(lines) + "\n")
    return folder


def _draw_side(first: int, count: int) -> tuple[Record, ...]:
    kinds = [(), (1,), (2,)]
    return tuple(draw_record(first + i, kinds=kinds[i % 3]) for i in range(3 * count))


def _mark(image: RgbImage, labels: LabelMap, kind: int, rng: np.random.Generator) -> None:
    """A dark disc (1) or a bright bar (2), whole and away from the edge."""
    y, x = (int(rng.integers(20, side - 20)) for side in HW)
    if kind == 1:
        rows, columns = np.mgrid[: HW[0], : HW[1]]
        mask = np.hypot(rows - y, columns - x) <= rng.uniform(4, 7)
    else:
        mask = np.zeros(HW, bool)
        mask[y - 2 : y + 2, x - 9 : x + 9] = True
    image[mask] = 40 if kind == 1 else 240
    labels[mask] = kind


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(pixels))
