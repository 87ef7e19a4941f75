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


def test_a_rewound_tape_plays_the_answers_in_their_order():
    graph = Counter()
    tape, image = Tape(graph), np.zeros(1, np.float32)

    recorded = [float(tape(image=image)[0][0]) for _ in range(2)]
    tape.rewind()
    played = [float(tape(image=image)[0][0]) for _ in range(2)]

    assert recorded == played == [1.0, 2.0]
    assert graph.asked == 2


def test_an_erased_tape_records_anew():
    graph = Counter()
    tape, image = Tape(graph), np.zeros(1, np.float32)
    tape(image=image)

    tape.erase()

    assert float(tape(image=image)[0][0]) == 2.0
    assert graph.asked == 2


def test_a_tape_has_no_answer_that_was_not_recorded():
    tape = Tape(Counter())
    tape.rewind()

    with pytest.raises(IndexError):
        tape(image=np.zeros(1, np.float32))


def test_a_recorded_locator_is_asked_for_all_that_its_graph_gives(tmp_path):
    folder = write_tiny_bundle(tmp_path, locator="peaks")
    detector = open_bundle(folder, Device("cpu", threads=1)).detector
    image = np.zeros((64, 96, 3), np.uint8)

    taped, (tape, _) = record_detector(detector)
    predict_field(image, taped.locator)

    assert isinstance(taped.locator, HeatmapLocator)
    assert [answer.shape[1] for answer in tape.answers[0]] == [3, 96]
