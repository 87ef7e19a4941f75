"""Hard negatives: oil, dirt, edges and reflections that the locator takes for defects.

Every validation the average network so far looks at some training pictures; the places where it is
surest and wrong are learned from more often than others until the next time.
Source: "Training Region-based Object Detectors with Online Hard Example Mining", Shrivastava et
al. 2016 (arXiv:1604.03540), with the mining between batches, as in its section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from models.arrays import RgbImage
from models.steps.heatmap import Peak
from training.data import Record

CLEAR_PX = 16
"""A peak that is so near to a defect's pixels means the defect."""
KEPT = 64
"""The strongest false peaks of all pictures; more would dilute them."""

Peaks = Callable[[RgbImage], list[Peak]]


class HardNegatives:
    """Places on training pictures where a locator was surest of a defect that is none.

    What is kept is replaced by each `mine` and goes into the checkpoint: the network that found it
    is gone when a killed training goes on.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.places: list[tuple[int, float, float]] = []

    def mine(self, peaks: Peaks, pictures: int, rng: np.random.Generator) -> None:
        """Look at so many of the pictures, drawn anew, and keep the strongest false peaks."""
        drawn = rng.permutation(len(self.records))[:pictures]
        found = [
            (peak.confidence, int(index), peak.x, peak.y)
            for index in drawn
            for peak in false_peaks(self.records[index], peaks)
        ]
        found.sort(reverse=True)
        self.places = [(index, x, y) for _, index, x, y in found[:KEPT]]

    def draw(self, rng: np.random.Generator) -> tuple[Record, tuple[float, float]]:
        """One of the places: its picture, and x, y in it. There must be one."""
        index, x, y = self.places[rng.integers(len(self.places))]
        return self.records[index], (x, y)

    def state_dict(self) -> dict[str, Tensor]:
        """The places, (N, 3): a picture's number, x, y."""
        return {"places": torch.tensor(self.places, dtype=torch.float64).reshape(-1, 3)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on with the places of a checkpoint."""
        self.places = [(int(index), x, y) for index, x, y in state["places"].tolist()]


def false_peaks(record: Record, peaks: Peaks) -> list[Peak]:
    """The peaks of a picture that lie on no defect and beside none."""
    return [peak for peak in peaks(record.image) if not _is_near_defect(record, peak)]


def _is_near_defect(record: Record, peak: Peak) -> bool:
    rows, columns = (
        slice(max(0, int(c) - CLEAR_PX), int(c) + CLEAR_PX + 1) for c in (peak.y, peak.x)
    )
    return bool(record.labels[rows, columns].any())
