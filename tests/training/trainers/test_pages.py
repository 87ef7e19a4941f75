from __future__ import annotations

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from tests.training.specks import SIDE_PX, draw_source
from training.data import Record
from training.fidelity import measure_shape
from training.sites import SiteSource
from training.trainers.pages import choose_pages, scales_of, shape_pages


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
        inside = real.mask >= 0.5
        assert ((shape > 0) & inside).sum() / ((shape > 0) | inside).sum() > 0.8
        assert (shape > 0).sum() == pytest.approx(real.mask.sum(), rel=0.15)
        row = shape[SIDE_PX // 2]
        assert (np.diff(row[: SIDE_PX // 2]) >= 0).all()
        assert row[0] == shape.min() == -6.0


def test_a_small_shape_is_enlarged_without_the_stairs_of_its_pixels(source):
    labels = np.zeros((96, 128), np.uint8)
    labels[40:52, 60:72][np.tri(12, dtype=bool)] = 1
    speck = Record("speck", "g", np.full((96, 128, 3), 160, np.uint8), labels)
    triangle = replace(source, defects=(speck,), shown_px=128)

    ((shape,),), _ = shape_pages(triangle, [(0, 0)])

    stairs = np.kron(np.tri(12, dtype=bool), np.ones((6, 6), bool))
    assert measure_shape(stairs)[2] < 0.95
    assert measure_shape(shape.numpy() > 0)[2] > 0.96


def test_the_scale_of_a_page_is_that_of_a_square_around_its_defect(source):
    pages = [(0, 0), (1, 2)]

    scales = scales_of(source, pages)

    longest_px = [source.flaws[label][flaw][1].side_px for label, flaw in pages]
    wanted = np.log2(np.maximum(24, 2.0 * np.array(longest_px)) / SIDE_PX)
    assert scales.tolist() == pytest.approx(wanted.tolist())


def test_a_defect_that_fills_two_pages_is_another_shape_on_the_second(source):
    (first, second, other), _ = shape_pages(source, [(0, 0), (0, 0), (0, 1)])

    share = ((first > 0) & (second > 0)).sum() / ((first > 0) | (second > 0)).sum()
    assert 0.5 < share < 1.0
    assert not torch.equal(first, other)


def one_defect(source: SiteSource, labels: np.ndarray, *, shown_px: int) -> SiteSource:
    """The source with one picture of one defect."""
    image = np.full((*labels.shape, 3), 160, np.uint8)
    return replace(
        source, defects=(Record("one", "g", image, labels.astype(np.uint8)),), shown_px=shown_px
    )


def test_a_crack_too_thin_to_be_shown_still_hangs_together(source):
    labels = np.zeros((1000, 1000))
    labels[100:900, 500:503] = 1
    cracked = one_defect(source, labels, shown_px=128)

    ((shape,), *deformed), _ = shape_pages(cracked, [(0, 0)] * 4)

    for page in (shape, *(other for (other,) in deformed)):
        inside = (page.numpy() > 0).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=4)
        assert stats[1:, cv2.CC_STAT_HEIGHT].max() > 60
        assert count <= 3


def test_the_scale_of_a_page_knows_that_no_square_is_larger_than_its_picture(source):
    labels = np.zeros((260, 260))
    labels[20:240, 100:140] = 1

    scales = scales_of(one_defect(source, labels, shown_px=128), [(0, 0)])

    assert scales.tolist() == pytest.approx([np.log2(260 / 128)])


def test_a_speck_in_a_corner_is_never_turned_out_of_its_page(source):
    labels = np.zeros((96, 128))
    labels[:3, :3] = 1
    speck = one_defect(source, labels, shown_px=128)

    shapes, _ = shape_pages(speck, [(0, 0)] * 40)

    areas = (shapes > 0).sum((1, 2, 3))
    assert areas.min() > 0.4 * areas[0]
    assert areas.max() < 3 * areas[0]
