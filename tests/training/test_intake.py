from __future__ import annotations

import pytest

from models.errors import ParameterInvalid
from training.experiments import trial
from training.intake import choose_samples


def test_all_pictures_of_a_folder_are_taken(mask_folder):
    samples, left_out = choose_samples([mask_folder], trial())

    assert len(samples) == 27
    assert left_out == []


def test_some_labels_and_few_shots_are_kept(mask_folder):
    samples, _ = choose_samples([mask_folder], trial(), labels=["scratch"], shots=2)

    marked = [s for s in samples if s.markings and s.split == "train"]
    assert {marking.label for s in samples for marking in s.markings} == {"scratch"}
    assert len(marked) == 2
    assert sum(not s.markings for s in samples) == 9


def test_shots_are_drawn_by_their_seed(mask_folder):
    first, again, other = (
        [s.image.name for s in choose_samples([mask_folder], trial(), shots=3, shots_seed=k)[0]]
        for k in (1, 1, 2)
    )

    assert first == again
    assert first != other


def test_no_shots_at_all_are_refused(mask_folder):
    with pytest.raises(ParameterInvalid, match="shots: 0"):
        choose_samples([mask_folder], trial(), shots=0)
