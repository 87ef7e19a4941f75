"""What graphs answered, played again: other mask thresholds need no other run of the networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.detection import Detector
from models.graphs import GraphCall, HeatmapLocator, Locator


class Tape:
    """A graph that records its answers, and once rewound gives them again in their order.

    Right only where what is asked, and in which order, is the same both times.
    """

    def __init__(self, graph: GraphCall) -> None:
        self.graph = graph
        self.answers: list[tuple[NDArray[np.float32], ...]] = []
        self.place: int | None = None

    def __call__(self, **arrays: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        """Run the graph, or play its next answer."""
        if self.place is None:
            self.answers.append(self.graph(**arrays))
            return self.answers[-1]
        self.place += 1
        return self.answers[self.place - 1]

    def erase(self) -> None:
        """Forget everything, and record anew."""
        self.answers, self.place = [], None

    def rewind(self) -> None:
        """Play from the first answer on."""
        self.place = 0


def record_detector(detector: Detector) -> tuple[Detector, tuple[Tape, Tape]]:
    """A detector whose graphs are recorded: all that they give, so that all can be asked for."""
    locator, segmenter = Tape(detector.locator.graph), Tape(detector.segmenter.graph)
    taped = replace(
        detector,
        locator=_with_graph(detector.locator, locator),
        segmenter=replace(detector.segmenter, graph=segmenter),
    )
    return taped, (locator, segmenter)


def _with_graph(locator: Locator, graph: GraphCall) -> Locator:
    if isinstance(locator, HeatmapLocator):
        return replace(locator, graph=graph, peaks=None)
    return replace(locator, graph=graph)
