"""What story 1 is compared with: the same segmenter over the whole picture, tile by tile.

Tiles of the bundle's crop size that overlap by a fifth, as SAHI lays them (Akyon et al. 2022,
arXiv:2202.06934), in batches of 16, through the same graph, the same softmax and the same outlines.
Overlapping tiles are merged by their greatest probability, which costs least.
"""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np

from models.arrays import Scores
from models.detection import BATCH, Detector, detect, segment_crops
from models.steps.crops import Window, cut_crop
from models.steps.outlines import Region, bridge_diagonals, find_regions
from models.steps.pictures import Picture
from tests.bench.figures import Bar, Figure, median_times_s

OVERLAP = 0.2
AT_LEAST = Bar("at least", 3.0)


def measure_slicing(name: str, pictures: list[Picture], detector: Detector, rounds: int) -> Figure:
    """Slicing ÷ story, both summed over the pictures; of each picture the medians count."""
    medians_s = [
        median_times_s(
            (partial(slice_picture, picture, detector), partial(detect, picture, detector)),
            rounds=rounds,
        )
        for picture in pictures
    ]
    sliced_s, told_s = (sum(times) for times in zip(*medians_s, strict=True))
    return Figure(name, sliced_s / told_s, AT_LEAST)


def slice_picture(picture: Picture, detector: Detector) -> list[Region]:
    """The defect regions of a picture, every pixel of which went through the segmenter."""
    params = detector.params
    probability = slice_scores(picture, detector)
    regions = find_regions(bridge_diagonals(probability >= params.mask_threshold))
    return [region for region in regions if region.area_px >= params.min_area_px]


def slice_scores(picture: Picture, detector: Detector) -> Scores:
    """The defect probability of every pixel, the greatest of the tiles that show it."""
    image = picture.as_rgb8()
    probability = np.zeros(picture.hw, np.float32)
    all_tiles = lay_tiles(picture.hw, detector.params.crop_size_px)
    for start in range(0, len(all_tiles), BATCH):
        tiles = all_tiles[start : start + BATCH]
        scores = segment_crops([cut_crop(image, tile) for tile in tiles], detector)
        for tile, of_tile in zip(tiles, scores, strict=True):
            there = tile.slices_in(picture.hw)
            height, width = probability[there].shape
            of_defect = 1.0 - of_tile[0, :height, :width]
            np.maximum(probability[there], of_defect, out=probability[there])
    return probability


def lay_tiles(hw: tuple[int, int], side_px: int) -> list[Window]:
    """Tiles that cover a picture, the last of each row and column shifted inside."""
    tops, lefts = (_starts(extent, side_px) for extent in hw)
    return [Window(x, y, side_px) for y, x in product(tops, lefts)]


def _starts(extent_px: int, side_px: int) -> list[int]:
    step_px = side_px - int(OVERLAP * side_px)
    last = max(0, extent_px - side_px)
    return [*range(0, last, step_px), last]
