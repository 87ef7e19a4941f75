from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.arrays import RgbImage
from models.steps.heatmap import Peak
from tests.training.specks import HW, draw_record
from training.data import Record
from training.trainers.hard_negatives import CLEAR_PX, KEPT, HardNegatives, false_peaks


def with_glare(record: Record, x: int, y: int, *, level: int) -> Record:
    """The picture with one pixel of pure red, which `see_red` takes for a defect."""
    image = record.image.copy()
    image[..., 0], image[y, x, 0] = 0, level
    return replace(record, image=image)


def see_red(image: RgbImage) -> list[Peak]:
    """Every red pixel is a peak as strong as it is red."""
    rows, columns = np.nonzero(image[..., 0])
    return [
        Peak(float(x) + 0.5, float(y) + 0.5, image[y, x, 0] / 255)
        for y, x in zip(rows, columns, strict=True)
    ]


def test_a_peak_on_or_beside_a_defect_is_no_false_one():
    record = replace(draw_record(1, kinds=()), labels=np.zeros(HW, np.uint8))
    record.labels[40:50, 60:70] = 1
    places = [(65, 45), (60 - CLEAR_PX, 45), (60 - CLEAR_PX - 1, 45), (0, 0)]

    found = false_peaks(record, lambda _: [Peak(x + 0.5, y + 0.5, 0.9) for x, y in places])

    assert [(int(p.x), int(p.y)) for p in found] == places[2:]


def test_the_strongest_false_peaks_are_drawn_with_their_pictures():
    records = [with_glare(draw_record(i, kinds=()), 5 + i, 20, level=50 + i) for i in range(100)]
    hard = HardNegatives(records)

    hard.mine(see_red, 100, np.random.default_rng(0))

    drawn = [hard.draw(np.random.default_rng(i)) for i in range(300)]
    numbers = {records.index(record) for record, _ in drawn}
    assert numbers <= set(range(100 - KEPT, 100))
    assert len(numbers) > KEPT / 2
    assert all(x == 5.5 + records.index(record) and y == 20.5 for record, (x, y) in drawn)


def test_only_so_many_pictures_are_looked_at_others_each_time():
    looked_at: list[int] = []
    hard = HardNegatives([draw_record(i, kinds=()) for i in range(12)])

    def look(image: RgbImage) -> list[Peak]:
        looked_at.append(hash(image.tobytes()))
        return []

    for seed in (1, 2):
        hard.mine(look, 5, np.random.default_rng(seed))

    assert len(looked_at) == 10
    assert set(looked_at[:5]) != set(looked_at[5:])
    assert hard.places == []


def test_each_mining_forgets_the_one_before():
    hard = HardNegatives([with_glare(draw_record(1, kinds=()), 9, 9, level=200)])
    hard.mine(see_red, 1, np.random.default_rng(0))

    hard.mine(lambda _: [Peak(30.0, 31.0, 0.2)], 1, np.random.default_rng(0))

    assert hard.places == [(0, 30.0, 31.0)]


def test_what_was_mined_goes_into_a_checkpoint_and_back():
    records = [with_glare(draw_record(i, kinds=()), 7 * i, 9, level=200) for i in range(3)]
    hard, again = HardNegatives(records), HardNegatives(records)
    hard.mine(see_red, 3, np.random.default_rng(0))

    again.load_state_dict(hard.state_dict())

    assert len(hard.places) == 3
    assert again.places == hard.places


def test_nothing_mined_goes_into_a_checkpoint_too():
    hard = HardNegatives([])

    hard.load_state_dict(hard.state_dict())

    assert hard.places == []
