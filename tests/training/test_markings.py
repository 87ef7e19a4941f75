from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from training.annotations import AnnotationMalformed
from training.markings import read_coco_shape, read_labelme_shapes

SQUARE = [[2.0, 2.0], [5.0, 2.0], [5.0, 5.0], [2.0, 5.0]]
FILE = Path("a.json")


def test_the_shapes_of_a_labelme_file_are_read_in_their_order(tmp_path):
    shapes = [{"label": kind, "points": SQUARE} for kind in ("Deep Pit", "scratch")]
    (tmp_path / "a.json").write_text(json.dumps({"shapes": shapes}))

    markings = list(read_labelme_shapes(tmp_path / "a.json"))

    assert [marking.label for marking in markings] == ["deep-pit", "scratch"]
    assert [int(marking.draw((8, 10)).sum()) for marking in markings] == [9, 9]


def test_polygons_and_runs_draw_the_same_mask():
    ring = [value for point in SQUARE for value in point]
    runs = {"counts": [2 * 8 + 2, 3, 5, 3, 5, 3, 80 - 37], "size": [8, 10]}

    by_ring, by_runs = (read_coco_shape(s, FILE, "segmentation")((8, 10)) for s in ([ring], runs))

    assert by_ring.sum() == 9
    assert np.array_equal(by_ring, by_runs)


def test_a_shape_that_is_none_is_refused_by_its_place():
    with pytest.raises(AnnotationMalformed, match=r"a\.json: x\.segmentation: is neither"):
        read_coco_shape("compressed", FILE, "x.segmentation")
