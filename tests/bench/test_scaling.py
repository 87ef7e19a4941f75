from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from models.steps.pictures import encode_jpeg
from tests.bench.scaling import SIZES_HW, draw_growth, picture_of
from tests.bench.serving import decode


@pytest.mark.parametrize("hw", [(16, 24), (40, 96), (130, 200)])
def test_a_picture_is_cut_or_repeated_to_any_size(hw):
    rows = np.repeat(np.arange(0, 64, dtype=np.uint8)[:, None], 80, axis=1)
    source = encode_jpeg(np.stack([rows] * 3, axis=2), quality=100)

    made = decode(picture_of(source, hw)).pixels

    assert made.shape == (*hw, 3)
    assert abs(made[hw[0] - 1, hw[1] - 1, 0].astype(int) - (hw[0] - 1) % 64) <= 8


def test_the_sizes_run_from_one_to_48_megapixels():
    megapixels = [height * width / 1e6 for height, width in SIZES_HW]

    assert megapixels == sorted(megapixels)
    assert [round(megapixels[k]) for k in (0, 2, -1)] == [1, 4, 48]


def test_what_grows_in_proportion_is_drawn_on_the_dashed_line():
    drawing = ElementTree.fromstring(draw_growth({1.0: 0.1, 4.0: 0.4, 48.0: 4.8}))

    ideal, measured = (
        [tuple(map(float, place.split(","))) for place in line.attrib["points"].split()]
        for line in drawing.iter("{http://www.w3.org/2000/svg}polyline")
    )
    assert measured[0] == ideal[0]
    assert measured[-1] == ideal[-1]
    (x0, y0), (x1, y1), (x, y) = ideal[0], ideal[1], measured[1]
    assert abs((y - y0) * (x1 - x0) - (y1 - y0) * (x - x0)) < 100
