from __future__ import annotations

from dataclasses import asdict

import pytest

from training.ablations import PARTS, leave_out
from training.experiments import ball_screw


@pytest.mark.parametrize("part", PARTS)
def test_what_is_left_out_was_there_and_nothing_else_changes(part):
    whole, less = ball_screw(), leave_out(ball_screw(), [part])

    changed = {
        (stage, name)
        for stage in ("mask_generator", "defect_generator")
        for name, value in asdict(getattr(whole, stage)).items()
        if asdict(getattr(less, stage))[name] != value
    }
    assert changed == {(stage, name) for stage, nothing in PARTS[part].items() for name in nothing}
    assert all(not getattr(getattr(less, stage), name) for stage, name in changed)
    assert (less.locator, less.segmenter) == (whole.locator, whole.segmenter)
    assert less.name == f"ball-screw-without-{part}"


def test_parts_are_left_out_together():
    less = leave_out(ball_screw(), ["book", "focus"])

    assert less.defect_generator.pages == less.mask_generator.pages == 0
    assert not less.defect_generator.focused
