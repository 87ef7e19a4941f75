"""Names and layouts of every array that crosses a function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RgbImage = NDArray[np.uint8]
"""(H, W, 3) uint8, red first, upright."""

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W) or (H, W, 3), uint8 or uint16: a picture as its file had it, upright, red first."""

Mask = NDArray[np.bool_]
"""(H, W) bool, True on the defect or object."""

Scores = NDArray[np.float32]
"""(H, W) float32 in 0..1."""

Heatmap = NDArray[np.float32]
"""(h, w) float32 logits, one per stride × stride cell of the picture."""

Points = NDArray[np.float64]
"""(N, 2) float64, one (x, y) in pixels a row; the centre of the top left pixel is (0.5, 0.5)."""
