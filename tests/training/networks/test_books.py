from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.networks.books import (
    BEND_CELLS,
    CHOICE_NOISE,
    LEAST_HALF,
    WARP_NOISE,
    Book,
    Lines,
    Warp,
    box_of,
    line_of,
    square_grid,
)

SIDE_PX = 16


@pytest.fixture
def book() -> Book:
    """Six pages of noise, three of each of two labels."""
    made, chance = Book(6, 2, SIDE_PX), torch.Generator().manual_seed(0)
    pages = torch.randn(6, 2, SIDE_PX, SIDE_PX, generator=chance)
    made.fill(pages, torch.tensor([0, 1, 0, 1, 0, 1]))
    return made


def noises(count: int) -> Tensor:
    return torch.randn(count, CHOICE_NOISE, generator=torch.Generator().manual_seed(1))


def still(count: int) -> Tensor:
    return torch.zeros(count, WARP_NOISE)


def lines() -> Lines:
    return line_of(SIDE_PX)[None], line_of(SIDE_PX)[None]


def test_a_book_opened_at_one_page_without_warp_shows_that_page_or_its_mirror(book):
    shown = book.open(torch.eye(12), still(12), lines())

    assert torch.allclose(shown[:6], book.pages, atol=1e-5)
    assert torch.allclose(shown[6:], book.pages.flip(3), atol=1e-5)


def test_a_book_opened_beyond_a_page_goes_on_as_its_rim(book):
    far = torch.full((1, 1), -5.0)

    shown = book.open(torch.eye(12)[:1], still(1), (far, far))

    assert torch.allclose(shown[0, :, 0, 0], book.pages[0, :, 0, 0])


def test_a_book_opened_between_pages_shows_their_mixture(book):
    share = torch.rand(3, 12, generator=torch.Generator().manual_seed(4))

    shown = book.open(share, still(3), lines())

    both = torch.cat([book.pages, book.pages.flip(3)])
    assert torch.allclose(shown, torch.einsum("bp,pchw->bchw", share, both), atol=1e-5)


def test_pages_of_another_label_are_never_chosen(book):
    label = torch.arange(64) % 2

    share = book.choose(noises(64), label)

    assert torch.allclose(share.sum(1), torch.ones(64))
    assert (share[book.labels.repeat(2)[None] != label[:, None]] == 0).all()


def test_noise_chooses_the_page_whose_direction_it_is_most_like(book):
    share = book.choose(6 * book.directions, book.labels.repeat(2))

    assert share.argmax(1).tolist() == list(range(12))
    assert share.amax(1).min() > 0.9


def test_noise_chooses_every_page_in_turn(book):
    chosen = book.choose(noises(64), torch.zeros(64, dtype=torch.int64)).argmax(1)

    assert set(chosen.tolist()) == {0, 2, 4, 6, 8, 10}


def test_a_page_is_chosen_for_an_outline_like_its_own_or_its_mirrors(book):
    outlines = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(3)).round()
    book.fill(book.pages.data, book.labels, outlines_phw=outlines)
    asked = torch.cat([outlines, outlines.flip(3)])

    share = book.choose(0.1 * noises(12), book.labels.repeat(2), outline_bchw=asked)

    assert share.argmax(1).tolist() == list(range(12))


def test_a_page_of_a_defect_as_large_as_the_one_asked_for_is_liked_more(book):
    scales = torch.tensor([-2.0, -2.0, 0.0, 0.0, 1.0, 1.0])
    book.fill(book.pages.data, book.labels, scales_p=scales)
    asked = torch.tensor([-2.2, 0.1, 1.3])

    share = book.choose(0.2 * noises(3), torch.zeros(3, dtype=torch.int64), scale_b=asked)

    assert (share.argmax(1) % 6).tolist() == [0, 2, 4]


def test_noise_chooses_among_the_pages_of_one_size_no_other_label_however_far_it_is(book):
    book.fill(book.pages.data, book.labels, scales_p=torch.tensor([9.0, 0.0, 9.0, 0.0, 9.0, 0.0]))
    label = torch.zeros(64, dtype=torch.int64)

    share = book.choose(noises(64), label, scale_b=torch.zeros(64))

    assert set(share.argmax(1).tolist()) == {0, 2, 4, 6, 8, 10}
    assert (share[:, 1::2] == 0).all()


def test_everything_in_a_book_is_learned_but_its_labels_scales_and_outlines(book):
    warp = torch.randn(3, WARP_NOISE, generator=torch.Generator().manual_seed(2))
    share = book.choose(0.004 * noises(3), torch.tensor([0, 1, 0]))

    book.open(share, warp, lines()).square().sum().backward()

    assert set(dict(book.named_parameters())) == {"pages", "directions", "warp.reach", "warp.bend"}
    assert all(weight.grad.abs().max() > 0 for weight in book.parameters())
    assert {"labels", "scales", "outlines"} <= set(book.state_dict())


def test_a_warp_without_noise_leaves_every_place():
    places = Warp()(lines(), still(2))

    assert torch.allclose(places, square_grid(SIDE_PX).expand(2, -1, -1, -1), atol=1e-6)


def test_a_warp_turns_and_bends_as_each_place_would_be_by_itself():
    warp, chance = Warp(), torch.Generator().manual_seed(5)
    noise = torch.randn(3, WARP_NOISE, generator=chance)
    columns, rows = (torch.rand(3, n, generator=chance) * 3 - 1.5 for n in (7, 5))

    places = warp((columns, rows), noise)

    x, y = torch.broadcast_tensors(columns[:, None], rows[:, :, None])
    moves = (noise[:, :4] * warp.reach)[:, :, None, None].unbind(1)
    turn, shear, wide, high = moves
    turned_x = wide.exp() * (turn.cos() * x - turn.sin() * y + shear * y)
    turned_y = high.exp() * (turn.sin() * x + turn.cos() * y)
    cells = warp.bend * noise[:, 4:].view(3, 2, BEND_CELLS, BEND_CELLS)
    grid = torch.stack([x, y], -1)
    bent = F.grid_sample(cells, grid, padding_mode="border", align_corners=False)
    expected = torch.stack([turned_x, turned_y], -1) + bent.permute(0, 2, 3, 1)
    assert torch.allclose(places, expected, atol=1e-5)


def test_places_keep_their_digits_where_products_are_rounded():
    noise = torch.randn(3, WARP_NOISE, generator=torch.Generator().manual_seed(2))

    with torch.autocast("cpu", torch.bfloat16):
        places = Warp()(lines(), noise)

    assert torch.equal(places, Warp()(lines(), noise))


@pytest.mark.parametrize("nth", range(WARP_NOISE))
def test_every_number_of_the_noise_moves_places_a_little(nth):
    noise = still(1)
    noise[:, nth] = 1.0

    moved = (Warp()(lines(), noise) - square_grid(SIDE_PX)).abs().detach()

    assert 0.01 < moved.max() < 0.5


def test_a_box_is_the_one_that_numpy_finds():
    masks = np.random.default_rng(0).random((20, SIDE_PX, SIDE_PX)) > 0.98
    masks[:, 5, 7] = True

    boxes = box_of(torch.from_numpy(masks).float()[:, None], line_of(SIDE_PX))

    for mask, *found in zip(masks, *boxes, strict=True):
        rows, columns = np.nonzero(mask)
        x, y = ((places.min() + places.max() + 1) / SIDE_PX - 1 for places in (columns, rows))
        half = max(np.ptp(rows), np.ptp(columns)) / SIDE_PX
        assert [float(f) for f in found] == pytest.approx([x, y, max(half, LEAST_HALF)], abs=1e-6)


def test_the_box_of_an_empty_mask_is_a_speck_in_the_middle():
    box = box_of(torch.zeros(1, 1, SIDE_PX, SIDE_PX), line_of(SIDE_PX))

    assert [float(edge) for edge in box] == pytest.approx([0.0, 0.0, LEAST_HALF])


def test_a_grid_holds_the_centres_of_pixels_x_first():
    grid = square_grid(4)

    assert grid.shape == (1, 4, 4, 2)
    assert grid[0, 0, :, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert grid[0, 0, :, 1].tolist() == [-0.75] * 4
