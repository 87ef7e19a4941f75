from __future__ import annotations

import numpy as np
import pytest

from training.tapes import Tape


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
