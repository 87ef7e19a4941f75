from __future__ import annotations

import numpy as np
import pytest

from models.bundle import open_bundle
from models.devices import Device
from models.graphs import HeatmapLocator
from models.locating import predict_field
from tests.tiny import write_tiny_bundle
from training.tapes import Tape, record_detector


class Counter:
    """A graph that answers with how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, *, image: np.ndarray) -> tuple[np.ndarray, ...]:
        self.asked += 1
        return (image + self.asked,)


def test_a_rewound_tape_plays_the_answer_to_the_same_question_in_any_order():
    graph = Counter()
    tape, images = Tape(graph), [np.full(1, 10.0 * i, np.float32) for i in range(2)]
    recorded = [float(tape(image=image)[0][0]) for image in images]

    tape.rewind()
    played = [float(tape(image=image.copy())[0][0]) for image in reversed(images)]

    assert recorded == [1.0, 12.0]
    assert played == [12.0, 1.0]
    assert graph.asked == 2


def test_an_erased_tape_records_anew():
    graph = Counter()
    tape, image = Tape(graph), np.zeros(1, np.float32)
    tape(image=image)

    tape.erase()

    assert float(tape(image=image)[0][0]) == 2.0
    assert graph.asked == 2


@pytest.mark.parametrize("other", [np.ones(1, np.float32), np.zeros(2, np.float32)])
def test_what_was_not_asked_before_is_run_and_recorded_too(other):
    graph = Counter()
    tape = Tape(graph)
    tape(image=np.zeros(1, np.float32))
    tape.rewind()

    first, again = tape(image=other), tape(image=other)

    assert graph.asked == 2
    assert first is again


def test_a_recorded_locator_is_asked_for_all_that_its_graph_gives(tmp_path):
    folder = write_tiny_bundle(tmp_path, locator="peaks")
    detector = open_bundle(folder, Device("cpu", threads=1)).detector
    image = np.zeros((64, 96, 3), np.uint8)

    taped, (tape, _) = record_detector(detector)
    predict_field(image, taped.locator)

    assert isinstance(taped.locator, HeatmapLocator)
    assert [answer.shape[1] for answer in tape.recorded[0][1]] == [3, 96]
