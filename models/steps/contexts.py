"""Where defects like to lie: what surrounds real ones, and which place looks most like it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import RgbImage

CONTEXT_SIDE = 6
"""Cells along a side: enough to tell an edge from a flat, and a dark flat from a bright one."""

Contexts = NDArray[np.uint8]
"""(N, 108): N squares without their defects, each as 6 × 6 mean colours."""


def describe_context(square: RgbImage) -> NDArray[np.uint8]:
    """A square (S, S, 3) as the mean colours of its cells: (108,) uint8."""
    size = (CONTEXT_SIDE, CONTEXT_SIDE)
    return np.asarray(cv2.resize(square, size, interpolation=cv2.INTER_AREA), np.uint8).ravel()


def most_familiar(squares: Sequence[RgbImage], contexts: Contexts) -> int:
    """Which of some squares lies nearest to any of the contexts, mirrored ones too; its index.

    Shapes: squares of (S, S, 3), contexts (N, 108), N at least 1.
    """
    known = contexts.astype(np.float32)
    mirrored = known.reshape(-1, CONTEXT_SIDE, CONTEXT_SIDE, 3)[:, :, ::-1].reshape(known.shape)
    known = np.concatenate([known, mirrored])
    shown = np.stack([describe_context(square) for square in squares]).astype(np.float32)
    gaps = np.square(shown[:, None] - known[None]).sum(2).min(1)
    return int(np.argmin(gaps))


def write_contexts(contexts: Contexts) -> str:
    """Contexts as one line of text, for the manifest."""
    return base64.b64encode(np.ascontiguousarray(contexts).tobytes()).decode()


@lru_cache(maxsize=64)
def read_contexts(text: str) -> Contexts:
    """The inverse of write_contexts; a label's are decoded once. No text, no contexts."""
    content = np.frombuffer(base64.b64decode(text), np.uint8)
    return content.reshape(-1, 3 * CONTEXT_SIDE**2)
