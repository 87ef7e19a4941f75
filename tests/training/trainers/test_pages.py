from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.specks import SIDE_PX, draw_source
from training.sites import SiteSource
from training.trainers.pages import choose_pages, shape_pages, texture_pages


@pytest.fixture(scope="module")
def source(data) -> SiteSource:
    """Three pits and three scratches."""
    return draw_source(data)


def test_a_book_has_as_many_pages_of_each_label_whatever_is_known_of_it(source):
    scratches = [record for record in source.defects if record.flaws[0].label == 2]
    fewer = replace(source, defects=tuple(r for r in source.defects if r is not scratches[0]))

    pages = choose_pages(fewer, 9)

    assert len(pages) == 9
    assert Counter(label for label, _ in pages) == {0: 5, 1: 4}
    assert set(pages) == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}


def test_a_small_book_takes_defects_evenly_and_none_twice(source):
    assert choose_pages(source, 4) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_labels_without_a_defect_have_no_page(source):
    pits = replace(source, defects=tuple(r for r in source.defects if r.flaws[0].label == 1))

    assert {label for label, _ in choose_pages(pits, 6)} == {0}


def test_where_there_is_no_book_every_defect_is_chosen_once(source):
    assert choose_pages(source, 0) == [(k, i) for k in (0, 1) for i in range(3)]


def test_a_shape_is_above_nothing_inside_its_defect_and_falls_with_the_distance(source):
    pages = [(0, 0), (1, 2)]

    shapes, labels = shape_pages(source, pages)

    assert shapes.shape == (2, 1, SIDE_PX, SIDE_PX)
    assert shapes.dtype == torch.float32
    assert labels.tolist() == [0, 1]
    for (label, flaw), (shape,) in zip(pages, shapes.numpy(), strict=True):
        real = source.draw_real(
            label, np.random.default_rng(0), crop_scale=(1.8, 1.8), slack_share=0.0, flaw=flaw
        )
        assert np.array_equal(shape > 0, real.mask >= 0.3)
        row = shape[SIDE_PX // 2]
        assert (np.diff(row[: SIDE_PX // 2]) >= 0).all()
        assert row[0] == shape.min() == -6.0


def test_a_defect_that_fills_two_pages_is_another_shape_on_the_second(source):
    (first, second, other), _ = shape_pages(source, [(0, 0), (0, 0), (0, 1)])

    share = ((first > 0) & (second > 0)).sum() / ((first > 0) | (second > 0)).sum()
    assert 0.5 < share < 1.0
    assert not torch.equal(first, other)


def test_a_filling_is_the_log_ratio_of_the_defects_light_to_that_around(source):
    fillings, labels, _ = texture_pages(source, [(0, 0), (0, 2), (1, 1)])

    assert fillings.shape == (3, 3, SIDE_PX // 2, SIDE_PX // 2)
    assert labels.tolist() == [0, 0, 1]
    dark, bright = (np.log((grey / 255 + 0.05) / (160 / 255 + 0.05)) for grey in (40, 240))
    middle = fillings[:, :, 12:20, 12:20].mean((1, 2, 3))
    assert middle.tolist() == pytest.approx([dark, dark, bright], abs=0.1)


def test_a_filling_goes_on_beyond_its_mask(source):
    fillings, _, _ = texture_pages(source, [(0, 0), (1, 0)])

    assert fillings[0].max() < -0.5
    assert fillings[1].min() > 0.2


def test_an_outline_is_the_mask_as_it_fills_the_page(source):
    _, _, (disc, bar) = texture_pages(source, [(0, 0), (1, 0)])

    assert disc.shape == bar.shape == (1, 16, 16)
    assert disc[0, 8, 8] == bar[0, 8, 8] == 1.0
    assert disc[0, 3, 8] == 1.0
    assert bar[0, 3, 8] == 0.0
    assert bar[0, 8, 2] > 0.9
