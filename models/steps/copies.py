"""Whether a generated defect is a near copy of one that the generators were trained on."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask, Pixels
from models.steps.crops import resize_crop

SIDE_PX = 16
MOST = 256
"""Fingerprints kept of one label."""
LEAST_LIMIT = 0.95
"""However little real defects resemble each other, no lower similarity makes a copy."""

Fingerprints = NDArray[np.int8]
"""(N, 512) int8: of each defect its grey change and its mask, 16 × 16 each, row by row."""


def take_fingerprint(before: Pixels, after: Pixels, mask: Mask) -> NDArray[np.int8]:
    """A defect's change of grey and its shape, whatever its size, strength and place.

    The mask's box is made square and resized; change and shape each have unit length, so that
    neither outweighs the other, and share one scale.

    Shapes: before and after (H, W) or (H, W, 3), mask (H, W), not empty -> (512,) int8.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    box = np.s_[y : y + height, x : x + width]
    inside = mask[box].astype(np.float32)
    change = (_grey(after[box]) - _grey(before[box])) * inside
    both = np.concatenate([_unit(_in_square(part)) for part in (change, inside)])
    return np.asarray(np.rint(127.0 * both / np.abs(both).max()), np.int8)


def similarity(ones: Fingerprints, others: Fingerprints) -> NDArray[np.float32]:
    """The cosine of each pair, as it is or mirrored left to right, whichever is greater.

    Shapes: (N, 512), (M, 512) -> (N, M).
    """
    rows = _unit(ones)
    return np.asarray(np.maximum(rows @ _unit(others).T, rows @ _unit(_mirrored(others)).T))


def copy_limit(fingerprints: Fingerprints, groups: Sequence[str]) -> float:
    """The similarity above which a defect is a near copy: rarer among real defects than 1 in 100.

    The 99th percentile of each real defect's similarity to its nearest one of another group: small
    round spots resemble each other by nature. Never under LEAST_LIMIT.
    """
    alike = similarity(fingerprints, fingerprints)
    names = np.asarray(groups)
    strangers = names[:, None] != names[None, :]
    nearest = np.where(strangers, alike, -1.0).max(axis=1, initial=-1.0)
    known = nearest[strangers.any(axis=1)]
    return max(LEAST_LIMIT, float(np.quantile(known, 0.99))) if known.size else LEAST_LIMIT


def choose_evenly(count: int, most: int = MOST) -> list[int]:
    """Which of so many defects are kept: all, or the most that may be, evenly spread."""
    return [int(i) for i in np.linspace(0, count - 1, min(count, most)).round()]


def write_fingerprints(fingerprints: Fingerprints) -> tuple[str, ...]:
    """As base64 text, one each."""
    return tuple(b64encode(one.tobytes()).decode("ascii") for one in fingerprints)


@lru_cache(maxsize=256)
def read_fingerprints(texts: tuple[str, ...]) -> Fingerprints:
    """What `write_fingerprints` wrote; a label's are decoded once."""
    data = b"".join(map(b64decode, texts))
    return np.frombuffer(data, np.int8).reshape(len(texts), 2 * SIDE_PX**2)


def _grey(pixels: Pixels) -> NDArray[np.float32]:
    """Brightness in grey levels of 255."""
    values = pixels.astype(np.float32) * np.float32(255.0 / np.iinfo(pixels.dtype).max)
    return values if values.ndim == 2 else values @ np.array([0.299, 0.587, 0.114], np.float32)


def _in_square(part: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centred on a square of zeros, at the fingerprint's side, as one row of numbers."""
    height, width = part.shape
    side_px = max(height, width)
    y, x = (side_px - height) // 2, (side_px - width) // 2
    square = np.zeros((side_px, side_px), np.float32)
    square[y : y + height, x : x + width] = part
    return np.asarray(resize_crop(square, SIDE_PX), np.float32).ravel()


def _unit(rows: NDArray[np.float32] | Fingerprints) -> NDArray[np.float32]:
    """At length 1, each; zeros stay zeros."""
    values = rows.astype(np.float32)
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-6), np.float32)


def _mirrored(fingerprints: Fingerprints) -> Fingerprints:
    planes = fingerprints.reshape(-1, 2, SIDE_PX, SIDE_PX)[..., ::-1]
    return np.ascontiguousarray(planes).reshape(fingerprints.shape)
