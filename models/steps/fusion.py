"""Foreground over background: the only place where a synthetic defect meets its picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask, Pixels, RgbImage, Scores

Foreground = NDArray[np.float32]
"""(H, W, 3) float32 in 0..1: what the defect generator paints."""

LEAST_CHANGE = 0.1
"""Grey levels; less has no pattern of its own that could be made stronger."""

BLACK = 0.02
"""Light, in shares of white, under which a surface is too dark to have a grain of its own."""


def feather(mask: Mask, width_px: float) -> Scores:
    """0 outside a mask, rising to 1 over `width_px` inside it; at least 1/2 on its rim.

    It rises within half the mask's depth, or a thin crack would be half a crack.
    """
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    rising = np.clip(depth / max(min(width_px, depth.max() / 2), 1.0), 0.5, 1.0)
    return np.where(mask, rising, 0.0).astype(np.float32)


def carry_grain(
    foreground: Foreground, square: RgbImage, shown: RgbImage, mask: Mask
) -> Foreground:
    """A foreground with the grain of its square that was too fine to be shown to the generators.

    Grain is what the square loses when it is shown smaller and enlarged again. It goes with the
    light: what is painted darker is as much calmer, what is painted brighter no livelier. Only
    what the box of the mask holds is changed.

    Shapes: foreground (side, side, 3), square (side, side, 3), shown (S, S, 3), mask (side, side).
    """
    side_px = square.shape[0]
    if side_px <= shown.shape[0]:
        return foreground
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    box = np.s_[y : y + height, x : x + width]
    enlarged = cv2.resize(shown, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    seen = enlarged[box].astype(np.float32) / 255.0
    calm = np.clip((foreground[box] + BLACK) / (seen + BLACK), 0.0, 1.0)
    grain = square[box].astype(np.float32) / 255.0 - seen
    grained = foreground.copy()
    grained[box] = np.clip(foreground[box] + calm * grain, 0.0, 1.0)
    return grained


def fuse(
    background: Pixels,
    foreground: Foreground,
    alpha: Scores,
    mask: Mask,
    *,
    asked_contrast: float | None = None,
) -> Pixels:
    """background (1 - alpha) + foreground alpha inside the mask; outside, the background itself.

    Works at the background's own depth and channels: a grey background takes the foreground's
    luminance, a 16-bit one its full range. Nothing outside the mask is computed, so it is the same
    bit for bit. Where a contrast is asked for, the change from the background is scaled by the one
    factor that reaches it; black and white still bound it.

    Shapes: background (H, W) or (H, W, 3); foreground (H, W, 3); alpha and mask (H, W).
    Units:  asked_contrast in grey levels of 255, as `contrast` measures it.
    Source: patent "A defect image generation method", fusion of normal image, mask, foreground.
    """
    fused = background.copy()
    white = np.iinfo(background.dtype).max
    painted = foreground[mask] * white
    share = alpha[mask]
    if background.ndim == 2:
        painted = painted @ np.array([0.299, 0.587, 0.114], np.float32)
    else:
        share = share[:, None]
    covered = background[mask]
    blended = covered * (1.0 - share) + painted * share
    if asked_contrast is not None:
        change = blended - covered
        reached = max(float(np.abs(change).mean()) * 255.0 / white, LEAST_CHANGE)
        blended = covered + change * (asked_contrast / reached)
    fused[mask] = np.clip(np.rint(blended), 0, white).astype(background.dtype)
    return fused


def contrast(before: Pixels, after: Pixels, mask: Mask) -> float:
    """Mean absolute change inside a mask, in grey levels of 255."""
    if not mask.any():
        return 0.0
    change = np.abs(after[mask].astype(np.float32) - before[mask].astype(np.float32))
    return float(change.mean()) * 255.0 / float(np.iinfo(before.dtype).max)
