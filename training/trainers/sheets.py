"""Sample sheets: what a person looks at to judge a training run at a glance."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask, RgbImage, Scores
from models.steps.fields import ConfidenceField
from training.data import Record

RED = np.array([255, 40, 40])
GREEN = np.array([40, 220, 60])


def field_sheet(
    records: Sequence[Record], fields: Sequence[ConfidenceField], *, most: int = 12
) -> RgbImage:
    """Pictures with the truth green and the confidence red, 480 px wide, in two columns."""
    pairs = [(r, f) for r, f in zip(records, fields, strict=True) if r.flaws]
    tiles = []
    for record, field in pairs[:: max(1, len(pairs) // most)][:most]:
        height = round(480 * record.image.shape[0] / record.image.shape[1])
        image = cv2.resize(record.image, (480, height), interpolation=cv2.INTER_AREA)
        heat = cv2.resize(field.matrix(), (480, height), interpolation=cv2.INTER_AREA)
        truth = cv2.resize(record.labels, (480, height), interpolation=cv2.INTER_NEAREST) > 0
        tinted = _tint(np.asarray(image, np.uint8), np.asarray(heat, np.float32), RED)
        tiles.append(_edge(tinted, truth, GREEN))
    return tile(tiles, columns=2)


def mask_sheet(
    crops: Sequence[RgbImage], scores: Sequence[Scores], truths: Sequence[Mask]
) -> RgbImage:
    """Crops with the score tinted red and the truth's edge green."""
    pairs = zip(crops, scores, truths, strict=True)
    return tile([_edge(_tint(c, s, RED), t, GREEN) for c, s, t in pairs], columns=6)


def tile(images: Sequence[RgbImage], *, columns: int) -> RgbImage:
    """Pictures side by side on black, each in a cell of the largest one's size."""
    if not images:
        return np.zeros((8, 8, 3), np.uint8)
    height = max(i.shape[0] for i in images)
    width = max(i.shape[1] for i in images)
    rows = -(-len(images) // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for index, image in enumerate(images):
        y, x = (index // columns) * height, (index % columns) * width
        sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    return sheet


def _tint(image: RgbImage, amount: NDArray[np.float32], colour: NDArray[np.int64]) -> RgbImage:
    share = 0.6 * amount[..., None]
    return np.asarray(image * (1 - share) + colour * share, np.uint8)


def _edge(image: RgbImage, mask: Mask, colour: NDArray[np.int64]) -> RgbImage:
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    edged = image.copy()
    edged[mask & ~inner] = colour
    return edged
