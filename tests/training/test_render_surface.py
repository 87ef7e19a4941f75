from __future__ import annotations

import numpy as np
import pytest

from training.render_surface import Setup, draw_scene, enlarge, smooth_noise

HW = (240, 320)


def test_the_same_seed_draws_the_same_scene():
    first, second = (draw_scene(np.random.default_rng(4), HW) for _ in range(2))

    assert np.array_equal(first.radiance, second.radiance)
    assert np.array_equal(first.flat, second.flat)


def test_a_scene_is_positive_finite_light_over_a_flat_face():
    scenes = [draw_scene(np.random.default_rng(seed), HW) for seed in range(6)]

    for scene in scenes:
        assert scene.radiance.shape == scene.flat.shape == HW
        assert np.isfinite(scene.radiance).all()
        assert scene.radiance.min() >= 0
        assert scene.flat.mean() > 0.2
    assert not all(scene.flat.all() for scene in scenes)


@pytest.mark.parametrize("is_upright", [False, True])
def test_the_grain_runs_along_a_unit_vector(is_upright):
    x, y = Setup(HW, (0, 0), (0, 0), slope=0.1, is_upright=is_upright).grain_xy

    assert x**2 + y**2 == pytest.approx(1.0)
    assert (abs(y) > abs(x)) is is_upright


def test_light_changes_less_along_the_brushing_than_across_it():
    scene = draw_scene(np.random.default_rng(2), HW)

    steps = [np.abs(np.diff(scene.radiance, axis=axis)).mean() for axis in (0, 1)]

    along = 0 if scene.setup.is_upright else 1
    assert steps[along] < steps[1 - along]


def test_smooth_noise_is_smooth_and_of_unit_spread():
    noise = smooth_noise(np.random.default_rng(0), (400, 400), 20)

    assert noise.shape == (400, 400)
    assert 0.5 < noise.std() < 1.5
    assert np.abs(np.diff(noise, axis=0)).max() < 0.5


def test_enlarging_a_flat_field_keeps_its_level():
    assert np.allclose(enlarge(np.full((4, 5), 0.7, np.float32), (40, 60)), 0.7)
