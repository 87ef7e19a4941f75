from __future__ import annotations

import numpy as np

from models.steps.crops import Window
from models.steps.drafts import Draft, SyntheticDefect
from models.steps.outlines import find_regions


def draft_with(*boxes: tuple[int, int, int, int]) -> Draft:
    """A draft whose defects are rings in those boxes, painted 1, 2, …"""
    draft = Draft(seed=0, rng=np.random.default_rng(0))
    for number, (x, y, width, height) in enumerate(boxes, start=1):
        mask = np.zeros((40, 50), bool)
        mask[y : y + height, x : x + width] = True
        mask[y + 1 : y + height - 1, x + 1 : x + width - 1] = False
        (region,) = find_regions(mask)
        draft.accept(SyntheticDefect("pit", region), np.full(mask.sum(), number, np.uint8))
    return draft


def test_its_defects_are_fused_into_a_copy_of_the_picture() -> None:
    draft = draft_with((3, 4, 5, 6), (20, 30, 4, 4))
    pixels = np.full((40, 50), 200, np.uint8)

    fused, mask = draft.fuse_into(pixels)

    assert (pixels == 200).all()
    assert (fused[~mask] == 200).all()
    assert (fused == 1).sum() == 18
    assert (fused == 2).sum() == 12
    assert fused[6, 5] == 200


def test_a_window_shows_what_of_the_defects_lies_in_it() -> None:
    draft = draft_with((3, 4, 5, 6), (20, 30, 4, 4))
    _, mask = draft.fuse_into(np.zeros((40, 50), np.uint8))

    for x, y in ((0, 0), (5, 6), (18, 28), (26, 12)):
        np.testing.assert_array_equal(
            draft.taken_in(Window(x, y, 12)), mask[y : y + 12, x : x + 12]
        )


def test_a_defect_that_is_kept_ends_the_draws_for_it() -> None:
    draft = Draft(seed=0, rng=np.random.default_rng(0), label=1)
    for reason in ("empty", "cut", "empty"):
        draft.reject(reason)
    assert draft.failures == 3

    other = draft_with((3, 4, 5, 6))
    draft.accept(other.defects[0], other.painted[0])

    assert (draft.failures, draft.label) == (0, None)
    assert draft.rejected == {"empty": 2, "cut": 1}
