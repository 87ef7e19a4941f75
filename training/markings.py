"""What is marked on a picture: a label and the way to its mask, out of LabelMe and COCO shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask
from models.steps.outlines import Polygon, fill_polygon
from training.annotations import (
    AnnotationMalformed,
    finite_points,
    label_of,
    load_json,
    need,
    whole_numbers,
)

Draw = Callable[[tuple[int, int]], Mask]
"""(height, width) of the picture -> its mask."""


@dataclass(frozen=True)
class Marking:
    """One annotated defect (or all of one label): a label and the way to its mask.

    draw: (height, width) of the picture -> its mask.
    """

    label: str
    draw: Draw


@dataclass(frozen=True)
class Sample:
    """One picture and what is marked on it; `split` is empty where the data names none."""

    image: Path
    group: str
    split: str = ""
    markings: tuple[Marking, ...] = field(default=())


def read_labelme_shapes(file: Path) -> Iterator[Marking]:
    """The polygons and rectangles of a LabelMe file. Errors: AnnotationMalformed."""
    for index, shape in enumerate(need(load_json(file), "shapes", list, file, "")):
        where = f"shapes[{index}]"
        label = need(shape, "label", str, file, where)
        points = finite_points(need(shape, "points", list, file, where), file, f"{where}.points")
        kind = shape.get("shape_type", "polygon")
        if kind == "rectangle" and len(points) == 2:
            points = np.column_stack([points[[0, 1, 1, 0], 0], points[[0, 0, 1, 1], 1]])
        elif kind != "polygon" or len(points) < 3:
            raise AnnotationMalformed(file, f"{where}.shape_type", f"{kind} encloses no area")
        yield Marking(label_of(label, file, f"{where}.label"), _polygons_drawer([points]))


def read_coco_shape(shape: Any, file: Path, where: str) -> Draw:
    """The way to the mask of polygons or of uncompressed RLE. Errors: AnnotationMalformed."""
    if isinstance(shape, list) and shape and all(isinstance(ring, list) for ring in shape):
        if any(len(ring) < 6 or len(ring) % 2 for ring in shape):
            raise AnnotationMalformed(file, where, "a ring needs three x, y pairs")
        pairs = [[ring[i : i + 2] for i in range(0, len(ring), 2)] for ring in shape]
        return _polygons_drawer([finite_points(ring, file, where) for ring in pairs])
    if isinstance(shape, dict) and isinstance(shape.get("counts"), list):
        return _runs_drawer(shape, file, where)
    raise AnnotationMalformed(file, where, "is neither polygons nor uncompressed RLE")


def _runs_drawer(shape: Any, file: Path, where: str) -> Draw:
    """Runs of unset and set pixels in turn, down the columns."""
    counts = whole_numbers(shape["counts"], file, f"{where}.counts")
    size = whole_numbers(need(shape, "size", list, file, where), file, f"{where}.size")
    if len(size) != 2 or sum(counts) != size[0] * size[1]:
        raise AnnotationMalformed(file, f"{where}.counts", "do not sum to height times width")

    def draw(hw: tuple[int, int]) -> Mask:
        if tuple(size) != hw:
            raise AnnotationMalformed(file, f"{where}.size", f"is not the picture's {hw}")
        values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        return values.reshape(hw[1], hw[0]).T

    return draw


def _polygons_drawer(polygons: list[NDArray[np.float64]]) -> Draw:
    """Pixels whose centre (at +0.5) one of the polygons encloses."""

    def draw(hw: tuple[int, int]) -> Mask:
        canvas = np.zeros(hw, bool)
        for polygon in polygons:
            canvas |= fill_polygon(Polygon(polygon), hw)
        return canvas

    return draw
