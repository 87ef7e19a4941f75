from __future__ import annotations

import numpy as np
import pytest

from models.errors import ParameterInvalid
from training.render_flaws import FLAW_GAP_PX, LEAST_CHANGE, cut_flaws, soil
from training.render_surface import Field, Scene, draw_scene

HW = (360, 480)


def develop(light: Field) -> Field:
    return np.asarray(np.clip(255 * light / 1.4, 0, 255), np.float32)


@pytest.fixture
def scene() -> Scene:
    return draw_scene(np.random.default_rng(1), HW)


def test_flaws_are_cut_visibly_where_their_masks_say(scene):
    before = develop(scene.radiance.copy())

    flaws = cut_flaws(np.random.default_rng(2), scene, develop, count=5, longest_px=(10, 40))

    change = np.abs(develop(scene.radiance) - before)
    assert len(flaws) == 5
    for flaw in flaws:
        height, width = flaw.mask.shape
        box = change[flaw.y : flaw.y + height, flaw.x : flaw.x + width]
        assert 10 <= max(height, width) <= 40
        assert box[flaw.mask].mean() >= LEAST_CHANGE


def test_a_flaw_keeps_its_distance_from_the_edges_of_the_flat_face(scene):
    flaws = cut_flaws(np.random.default_rng(2), scene, develop, count=5, longest_px=(10, 40))

    for flaw in flaws:
        height, width = flaw.mask.shape
        rows = slice(max(0, flaw.y - FLAW_GAP_PX + 1), flaw.y + height + FLAW_GAP_PX - 1)
        columns = slice(max(0, flaw.x - FLAW_GAP_PX + 1), flaw.x + width + FLAW_GAP_PX - 1)
        assert flaw.y >= FLAW_GAP_PX - 1
        assert flaw.x >= FLAW_GAP_PX - 1
        assert scene.flat[flaw.y : flaw.y + height, flaw.x : flaw.x + width][flaw.mask].all()
        assert scene.flat[rows, columns].mean() > 0.9


def test_no_flaws_leave_the_light_as_it_was(scene):
    before = scene.radiance.copy()

    assert cut_flaws(np.random.default_rng(2), scene, develop, count=0, longest_px=(10, 40)) == ()
    assert np.array_equal(scene.radiance, before)


def test_more_flaws_than_fit_are_refused():
    small = draw_scene(np.random.default_rng(1), (96, 96))

    with pytest.raises(ParameterInvalid, match="flaw_count"):
        cut_flaws(np.random.default_rng(2), small, develop, count=9, longest_px=(40, 60))


def test_dirt_changes_the_light_but_little_of_it_much(scene):
    before = scene.radiance.copy()

    soil(np.random.default_rng(3), scene)

    change = np.abs(scene.radiance - before) / np.median(before)
    assert change.max() > 0.02
    assert np.mean(change > 0.2) < 0.05
    assert np.isfinite(scene.radiance).all()
