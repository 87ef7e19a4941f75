from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from training.networks.focus import (
    COVERING,
    DARK,
    DefectFocus,
    PlainHead,
    around,
    rim_of,
    surroundings,
)


def test_around_is_the_local_mean():
    flat = torch.full((1, 2, 32, 32), 0.3)

    assert torch.allclose(around(flat, 3), flat)
    assert around(torch.rand(1, 1, 32, 32), 5).std() < 0.1


def test_at_the_rim_the_local_mean_is_that_of_the_cells_there_are():
    cells = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = cells.repeat_interleave(4, 2).repeat_interleave(4, 3)

    mean = around(pixels, 5)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = around(pixels, 5)

    pooled = F.avg_pool2d(cells, 5, 1, 2, count_include_pad=False)
    smooth = F.interpolate(pooled, scale_factor=4.0, mode="bilinear")
    assert torch.allclose(mean, smooth, atol=1e-6)
    assert torch.equal(rounded, mean)


def test_the_surroundings_of_a_defect_do_not_show_it():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 20:44, 24:40] = 1.0
    square = torch.full((1, 3, 64, 64), 0.6)

    light = surroundings(square * (1 - mask) + 0.05 * mask, mask)

    assert (light - 0.6).abs().max() < 2e-3


def test_surroundings_follow_the_light_from_one_side_to_the_other():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)

    light = surroundings(ramp, torch.zeros(1, 1, 64, 64))

    assert (light - ramp).abs()[..., 12:-12].max() < 0.03


def test_where_nothing_is_free_the_whole_square_tells():
    square = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    light = surroundings(square, torch.ones(1, 1, 32, 32))

    whole = square.mean((2, 3), keepdim=True).expand_as(light)
    assert torch.allclose(light, whole, atol=1e-5)


def test_a_rim_reaches_two_pixels_farther_than_its_mask():
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 4, 4] = 1.0

    assert rim_of(mask)[0, 0, 4].tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0]


def test_an_untrained_focus_paints_the_books_ratio_in_any_light():
    torch.manual_seed(0)
    focus = DefectFocus(8, has_book=True)
    filling = torch.full((2, 3, 16, 16), math.log(0.5))
    light = torch.tensor([0.2, 0.8]).reshape(2, 1, 1, 1).expand(2, 3, 16, 16)

    with torch.no_grad():
        foreground, alpha = focus(torch.randn(2, 8, 16, 16), light, filling)

    assert torch.allclose(foreground, (light + DARK) * 0.5 - DARK, atol=0.01)
    assert torch.allclose(alpha, torch.tensor(COVERING).sigmoid(), atol=0.01)


def test_a_focus_without_a_book_begins_with_changes_of_its_own():
    features, light = torch.randn(1, 8, 16, 16), torch.full((1, 3, 16, 16), 0.5)
    changes = []
    for has_book in (True, False):
        torch.manual_seed(0)
        with torch.no_grad():
            focus = DefectFocus(8, has_book=has_book)
            changes.append((focus(features, light, torch.zeros_like(light))[0] - 0.5).abs().mean())

    assert changes[1] > 10 * changes[0]


def test_a_plain_head_knows_no_light_and_no_book():
    torch.manual_seed(0)
    head, features = PlainHead(8), torch.randn(1, 8, 16, 16)
    dark, bright = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)

    first, second = head(features, dark, dark), head(features, bright, bright)

    assert torch.equal(first[0], second[0])
    assert first[0].shape == (1, 3, 16, 16)
    assert first[1].shape == (1, 1, 16, 16)
    assert all(0 < part.min() < part.max() < 1 for part in first)
