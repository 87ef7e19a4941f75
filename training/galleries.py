"""Pictures of defects for a person to judge: sheets of many, rows that show how one was made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.arrays import RgbImage
from models.steps.crops import Window, cut_crop, resize_crop
from models.steps.outlines import Region
from training.data import Flaw, Record
from training.fidelity import DefectCrop, crop_defects, whole_flaws, window_of

SHEET_COLUMNS = 8
CELL_PX, GAP_PX = 120, 6
SURROUNDINGS = 0.75
"""Of a defect's longest side, at each end of a cell: enough to judge how it sits in its part."""
LEAST_CELL_PX = 32
ROWS = 6
PICTURE_HW = (300, 460)
ZOOM_PX = 300
FRAME = (143, 179, 172)
SCENE_PX = 240
TRUE_COLOUR, FOUND_COLOUR = (90, 220, 120), (255, 120, 60)


@dataclass(frozen=True)
class Gallery:
    """What stays of many pictures: their defects' crops and cells, and a few records whole."""

    crops: list[DefectCrop]
    cells: list[RgbImage]
    records: list[Record]

    def sheet(self) -> RgbImage:
        """Up to 64 defects on white, 8 × 8; of more, a choice that is always the same."""
        chosen = np.random.default_rng(0).permutation(len(self.cells))[: SHEET_COLUMNS**2]
        pitch = CELL_PX + GAP_PX
        height = max(1, -(-len(chosen) // SHEET_COLUMNS)) * pitch - GAP_PX
        sheet = np.full((height, SHEET_COLUMNS * pitch - GAP_PX, 3), 255, np.uint8)
        for place, index in enumerate(chosen):
            y, x = (place // SHEET_COLUMNS) * pitch, (place % SHEET_COLUMNS) * pitch
            sheet[y : y + CELL_PX, x : x + CELL_PX] = self.cells[index]
        return sheet


@dataclass(frozen=True)
class Steps:
    """How one sample was made; zoom is its largest defect, magnified."""

    normal: RgbImage
    mask: RgbImage
    defect: RgbImage
    zoom: RgbImage
    label: int


def visit(records: Iterable[Record]) -> Gallery:
    """Look at every picture once and keep little of it: large ones need not fit into memory.

    Of n records with defects each is kept whole with a chance of 6 ÷ n, the same ones each time.
    """
    gallery, rng = Gallery([], [], []), np.random.default_rng(0)
    for count, record in enumerate(record for record in records if record.flaws):
        gallery.crops.extend(crop_defects([record]))
        gallery.cells.extend(cut_cell(record, flaw) for flaw in whole_flaws(record))
        place = count if count < ROWS else int(rng.integers(count + 1))
        if place < ROWS:
            gallery.records[place : place + 1] = [record]
    return gallery


def contact_sheet(records: Iterable[Record]) -> RgbImage:
    """Up to 64 of the records' defects in generous surroundings, 8 × 8."""
    return visit(records).sheet()


def cut_cell(record: Record, flaw: Flaw, *, side_px: int = CELL_PX) -> RgbImage:
    """A defect with generous surroundings, at least 32 px of its picture."""
    return resize_crop(cut_crop(record.image, _cell_window(record, flaw)), side_px)


def show_steps(record: Record, normals: Sequence[Record]) -> Steps:
    """A sample beside the normal picture that it was made of, in at most 460 × 300 px.

    On the mask a frame shows what is magnified; the defect picture is left as it is.
    """
    largest = max(record.flaws, key=lambda flaw: flaw.side_px)
    shown = np.repeat((record.labels > 0).astype(np.uint8)[..., None] * np.uint8(255), 3, axis=2)
    mask = _fit(shown)
    scale, window = mask.shape[1] / shown.shape[1], _cell_window(record, largest)
    x, y, width, height = (round(scale * edge) for edge in window.box)
    cv2.rectangle(mask, (x, y), (x + width, y + height), FRAME, 1)
    return Steps(
        normal=_fit(find_normal(record, normals).image),
        mask=mask,
        defect=_fit(record.image),
        zoom=cut_cell(record, largest, side_px=ZOOM_PX),
        label=largest.label,
    )


def show_scene(record: Record, shown: Region, found: Sequence[Region] = ()) -> RgbImage:
    """A region in its surroundings, with what is annotated there outlined green, found orange."""
    window = _cell_window(record, Flaw(1, shown))
    scene = resize_crop(cut_crop(record.image, window), SCENE_PX)
    factor = SCENE_PX / window.side_px
    for colour, regions in (
        (TRUE_COLOUR, [flaw.region for flaw in record.flaws]),
        (FOUND_COLOUR, found),
    ):
        for region in regions:
            for ring in (region.polygon.exterior, *region.polygon.holes):
                corners = np.rint((ring - (window.x, window.y)) * factor).astype(np.int32)
                cv2.polylines(scene, [corners], True, colour, 1, cv2.LINE_AA)
    return scene


def find_normal(record: Record, normals: Sequence[Record]) -> Record:
    """The normal picture that a sample was made of: the one that is the same outside its mask."""
    outside = record.labels[::8, ::8] == 0

    def gap(normal: Record) -> float:
        if normal.image.shape != record.image.shape or not outside.any():
            return float("inf")
        change = np.abs(normal.image[::8, ::8].astype(int) - record.image[::8, ::8])
        return float(change[outside].mean())

    return min(normals, key=gap)


def _cell_window(record: Record, flaw: Flaw) -> Window:
    padding = max(SURROUNDINGS, (LEAST_CELL_PX / flaw.side_px - 1) / 2)
    return window_of(flaw, (record.image.shape[0], record.image.shape[1]), padding=padding)


def _fit(image: RgbImage) -> RgbImage:
    scale = min(1.0, PICTURE_HW[0] / image.shape[0], PICTURE_HW[1] / image.shape[1])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
