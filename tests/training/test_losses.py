from __future__ import annotations

import math

import pytest
import torch

from training.losses import (
    binary_mask_loss,
    boundary_aware_loss,
    critic_hinge_loss,
    dice_loss,
    generator_hinge_loss,
    heatmap_focal_loss,
    log_area_loss,
    mode_seeking_loss,
    offset_loss,
    texture_loss,
    visibility_loss,
)


def plane(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


def test_focal_loss_of_one_centre_and_one_neighbour():
    logit = math.log(3.0)

    loss = heatmap_focal_loss(plane(logit, -logit), plane(1.0, 0.5))

    on_centre = -(0.25**2) * math.log(0.75)
    beside = -(0.5**4) * 0.25**2 * math.log(0.75)
    assert loss.item() == pytest.approx(on_centre + beside)


def test_focal_loss_is_told_per_centre():
    one = heatmap_focal_loss(plane(0.0), plane(1.0))

    assert heatmap_focal_loss(plane(0.0, 0.0), plane(1.0, 1.0)).item() == pytest.approx(one.item())
    assert heatmap_focal_loss(plane(0.0), plane(0.0)).item() == pytest.approx(0.25 * math.log(2))


def test_offsets_count_on_centres_alone():
    offsets = torch.tensor([[[[0.2, 9.0]], [[-0.1, 9.0]]]])
    is_centre = torch.tensor([[[[True, False]]]])

    loss = offset_loss(offsets, torch.zeros(1, 2, 1, 2), is_centre)

    assert loss.item() == pytest.approx(0.3)
    assert offset_loss(offsets, offsets + 1, torch.zeros_like(is_centre)).item() == 0.0


def test_dice_of_even_odds_on_two_pixels():
    logits = torch.zeros(1, 2, 1, 2)

    loss = dice_loss(logits, torch.tensor([[[1, 0]]]))

    assert loss.item() == pytest.approx(1 - (2 * 0.5 + 1) / (1.0 + 1 + 1))


def test_dice_counts_a_pixel_as_often_as_it_weighs():
    logits, labels = torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 0]]])

    loss = dice_loss(logits, labels, torch.tensor([[[3.0, 1.0]]]))

    assert loss.item() == pytest.approx(1 - (2 * 1.5 + 1) / (2.0 + 3 + 1))


def test_dice_takes_all_labels_together_and_is_none_where_all_is_right():
    logits = torch.tensor([-50.0, 50.0, -50.0]).reshape(1, 3, 1, 1)

    assert dice_loss(logits, torch.tensor([[[2]]])).item() == pytest.approx(0.0, abs=1e-6)
    assert dice_loss(logits, torch.tensor([[[0]]])).item() == pytest.approx(0.5)


def test_a_critic_is_content_beyond_its_margins():
    assert critic_hinge_loss(torch.tensor([1.5]), torch.tensor([-2.0])).item() == 0.0
    assert critic_hinge_loss(torch.tensor([0.0, 2.0]), torch.tensor([0.5])).item() == 0.5 + 1.5


def test_a_generator_wants_high_scores():
    assert generator_hinge_loss(torch.tensor([1.0, -3.0])).item() == 1.0


def test_mask_outside_the_object_costs_more_the_farther_it_lies():
    mask, legal, distance = plane(1.0, 1.0, 0.0, 0.5), plane(1, 0, 0, 0), plane(0, 8, 8, 16)

    loss = boundary_aware_loss(mask, legal, distance)

    assert loss.item() == pytest.approx((1 * 2 + 0.5 * 3) / 2.5)
    assert boundary_aware_loss(mask, torch.ones_like(mask), distance).item() == 0.0


def test_log_areas_are_compared_by_mean_and_spread():
    small = torch.tensor([0.1, 0.1]).reshape(2, 1, 1, 1)
    mixed = torch.tensor([0.1, 0.1 * math.e**2]).reshape(2, 1, 1, 1)

    assert log_area_loss(mixed, mixed).item() == 0.0
    assert log_area_loss(small, mixed).item() == pytest.approx(1.0 + math.sqrt(2), rel=1e-5)


def test_two_noises_that_change_nothing_cost_most():
    first, noise_gap = torch.zeros(1, 1, 2, 2), torch.tensor([2.0])

    assert mode_seeking_loss(first, first, noise_gap).item() == pytest.approx(20.0)
    assert mode_seeking_loss(first, first + 0.9, noise_gap).item() == pytest.approx(2.0)


def test_a_mask_that_made_up_its_mind_costs_nothing():
    assert binary_mask_loss(plane(0.0, 1.0, 1.0)).item() == 0.0
    assert binary_mask_loss(plane(0.5, 1.0)).item() == pytest.approx(0.25 / 1.5)


def test_a_defect_costs_as_far_as_it_stays_invisible():
    loss = visibility_loss(torch.tensor([0.05, 0.3]), torch.tensor([0.1, 0.1]))

    assert loss.item() == pytest.approx(0.25)


def layers(*, side_px: int = 32, seed: int = 0) -> list[torch.Tensor]:
    """Two layers of features: at the picture's own side and at half of it."""
    chance = torch.Generator().manual_seed(seed)
    shapes = ((2, 3, side_px, side_px), (2, 5, side_px // 2, side_px // 2))
    return [torch.randn(shape, generator=chance) + 1 for shape in shapes]


def test_texture_costs_nothing_where_each_cell_is_only_shuffled():
    real, mask = layers(), torch.ones(2, 1, 32, 32)
    shuffled = [layer.unflatten(3, (-1, 4)).flip(4).flatten(3) for layer in real]
    finer = [real[0].unflatten(3, (-1, 8)).flip(4).flatten(3), shuffled[1]]

    assert texture_loss(finer, real, mask).item() == pytest.approx(0.0, abs=1e-5)
    assert texture_loss(layers(seed=1), real, mask).item() > 0.05


def test_texture_counts_only_in_cells_that_the_mask_touches():
    real, mask = layers(), torch.zeros(2, 1, 32, 32)
    mask[:, :, 3, 3] = 1.0
    outside, inside = ([layer.clone() for layer in real] for _ in range(2))
    for far, near in zip(outside, inside, strict=True):
        far[..., 8:] += 3
        near[..., :4, :4] += 3

    assert texture_loss(outside, real, mask).item() == 0.0
    assert texture_loss(inside, real, mask).item() > 0.3


def test_a_brighter_and_a_rougher_texture_both_cost():
    flat, mask = [torch.ones(1, 1, 16, 16)], torch.ones(1, 1, 16, 16)
    checks = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2 - 1

    assert texture_loss([flat[0] + 0.5], flat, mask).item() == pytest.approx(0.5, rel=0.01)
    assert texture_loss([flat[0] + 0.5 * checks], flat, mask).item() == pytest.approx(0.5, rel=0.02)
