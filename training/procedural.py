"""Defects without a network: what a generator must beat to be worth its training.

Each arm puts as many defects on a normal picture as real pictures carry, inside the object and
apart from each other, and leaves every other pixel as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from models.arrays import Mask, RgbImage, Scores
from models.errors import ParameterInvalid
from models.steps.checks import largest_part
from models.steps.fusion import contrast, fuse
from models.steps.sites import draw_site_center
from training.data import Flaw, Record
from training.sites import SiteSource

LEAST_AREA_PX = 9
"""Smaller real defects are crumbs of an annotation: they are neither pasted nor counted."""
LEAST_CONTRAST = 2.0
"""A defect that changes its pixels less, in grey levels of 255, is drawn again."""
LEAST_CHANGE = 2  # grey levels of 255 from which a pixel counts as changed
SCALE = (0.8, 1.25)
TURN_DEG = 45.0
OPACITY = (0.1, 1.0)
RELIGHT = (0.5, 2.0)
DEFECT_TRIES, PLACE_TRIES = 8, 30
CLONE_PX = 160  # the light of a larger clone is found at this side: light is smooth
TEXTURE_PX = 128
NOISE_PX = 128
LEAST_BLOB_PX = 100  # a smaller blob of noise shows its pixels once it is as long as a defect


@dataclass(frozen=True)
class Patch:
    """A defect on its way into a picture.

    image (h, w, 3) uint8; cover (h, w) float32 in 0..1, its share of each pixel; label from 1.
    """

    image: RgbImage
    cover: Scores
    label: int

    @property
    def mask(self) -> Mask:
        """The pixels it takes at least half as much as those it takes most."""
        return np.asarray(self.cover >= 0.5 * self.cover.max())

    def cut(self, rows: slice, columns: slice) -> Patch:
        """A part of it."""
        return Patch(self.image[rows, columns], self.cover[rows, columns], self.label)


Arm = Callable[[SiteSource, Generator], Record]
"""Errors: ParameterInvalid where no defect finds a place."""
DrawPatch = Callable[[SiteSource, Generator], Patch]
Blend = Callable[[RgbImage, Patch, Generator], RgbImage]
"""(the picture's window, the patch that goes there) -> the patch's image as it is fused in."""


def copy_paste(source: SiteSource, rng: Generator) -> Record:
    """Real defects cut along their masks, mirrored, turned, scaled and relit, on a normal picture.

    The rim is blended by how much of each pixel the turned mask covers. The light is matched to
    the place before it is varied: unmatched, dark defects of bright parts are bright on dark ones.

    Source: "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation",
            Ghiasi et al. 2021 (arXiv:2012.07177).
    """
    return _fill(source, rng, partial(_real_patch, margin_share=0.1), _paste)


def perlin(source: SiteSource, rng: Generator) -> Record:
    """Blobs of Perlin noise, filled with a distorted texture at an opacity of 0.1 to 1.

    Two departures from the source: each blob is made as long as a real defect, in the arm's favour;
    and its texture is another normal picture of the product, distorted as the source distorts its
    own, for want of a texture set. Noise has no kinds, so its label is drawn.

    Source: "DRAEM: A discriminatively trained reconstruction embedding for surface anomaly
            detection", Zavrtanik et al. 2021, section 3.3 (arXiv:2108.07610).
    """
    return _fill(source, rng, _noise_patch, lambda _before, patch, _rng: patch.image)


def poisson(source: SiteSource, rng: Generator) -> Record:
    """Real defects with their surroundings, cloned into a normal picture by their gradients.

    The whole rectangle is cloned, so the defect keeps its contrast and takes the picture's light.
    Truth, and all that stays of the clone, is where it changed the picture within the defect's own
    mask: the rectangle's rest is surface, which no annotator would mark.

    Source: "Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and Localization",
            Schlüter et al. 2022 (arXiv:2109.15222); "Poisson Image Editing", Pérez et al. 2003.
    """
    return _fill(source, rng, partial(_real_patch, margin_share=0.2), _clone)


ARMS: dict[str, Arm] = {"copy-paste": copy_paste, "perlin": perlin, "poisson": poisson}


def _fill(source: SiteSource, rng: Generator, draw: DrawPatch, blend: Blend) -> Record:
    """A normal picture with as many defects as one of the real pictures has."""
    normal = source.normals[rng.integers(len(source.normals))]
    real = source.defects[rng.integers(len(source.defects))]
    count = max(1, sum(flaw.region.area_px >= LEAST_AREA_PX for flaw in real.flaws))
    labels = np.zeros(normal.image.shape[:2], np.uint8)
    made = Record(f"{normal.name}#synthetic", "synthetic", normal.image.copy(), labels)
    free = source.object_of(normal).copy()
    for _ in range(count):
        for _ in range(DEFECT_TRIES):
            if free.any() and _add(made, free, draw(source, rng), blend, rng):
                break
    if not labels.any():
        raise ParameterInvalid("normals", f"no defect finds a place in {normal.name}")
    return made


def _add(made: Record, free: Mask, patch: Patch, blend: Blend, rng: Generator) -> bool:
    """Put one defect where it fits; whether it did and shows. `free` loses its place."""
    patch, rows, columns = _place(free, patch, rng)
    before = made.image[rows, columns]
    foreground = blend(before, patch, rng).astype(np.float32) / 255.0
    after = np.asarray(fuse(before, foreground, patch.cover, patch.mask), np.uint8)
    changed = (cv2.absdiff(before, after).max(axis=2) >= LEAST_CHANGE).astype(np.uint8)
    changed = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    mask = patch.mask & free[rows, columns] & (changed > 0)
    if contrast(before, after, mask) < LEAST_CONTRAST:
        return False
    before[mask] = after[mask]
    made.labels[rows, columns][mask] = patch.label
    free[rows, columns][cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) > 0] = False
    return True


def _place(free: Mask, patch: Patch, rng: Generator) -> tuple[Patch, slice, slice]:
    """The first of some random places where the defect is whole and free, else the fullest."""
    patch = _within(patch, free.shape)
    mask = patch.mask
    best, most = (slice(0), slice(0)), -1
    for _ in range(PLACE_TRIES):
        rows, columns = _box_around(draw_site_center(free, rng), mask.shape, free.shape)
        found = int(np.count_nonzero(mask & free[rows, columns]))
        if found > most:
            best, most = (rows, columns), found
        if found == np.count_nonzero(mask):
            break
    return patch, *best


def _within(patch: Patch, hw: tuple[int, ...]) -> Patch:
    """Of a patch that is larger than the picture, as much as fits around the defect's middle."""
    y, x = np.argwhere(patch.mask)[np.count_nonzero(patch.mask) // 2] + 0.5
    sides = tuple(np.minimum(patch.cover.shape, hw).tolist())
    return patch.cut(*_box_around((x, y), sides, patch.cover.shape))


def _box_around(
    center_xy: tuple[float, float], sides_hw: tuple[int, ...], hw: tuple[int, ...]
) -> tuple[slice, slice]:
    """Rows and columns of a box around a point, shifted inside a picture of that size."""
    corner_yx = np.rint(np.array(center_xy[::-1]) - np.array(sides_hw) / 2)
    y, x = corner_yx.clip(0, np.subtract(hw, sides_hw)).astype(int).tolist()
    return slice(y, y + sides_hw[0]), slice(x, x + sides_hw[1])


def _real_patch(source: SiteSource, rng: Generator, *, margin_share: float) -> Patch:
    """A real defect of any label, mirrored, turned and scaled; the margin a share of its side."""
    record, flaw = _draw_flaw(source, rng)
    mirrors = rng.choice([-1.0, 1.0], 2)
    turn, factor = np.deg2rad(rng.uniform(-TURN_DEG, TURN_DEG)), rng.uniform(*SCALE)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return _warp(record, flaw, factor * rotation * mirrors, margin_share)


def _draw_flaw(source: SiteSource, rng: Generator) -> tuple[Record, Flaw]:
    flaws = source.flaws[source.draw_label(rng)]
    whole = [(r, f) for r, f in flaws if f.region.area_px >= LEAST_AREA_PX] or flaws
    return whole[rng.integers(len(whole))]


def _warp(record: Record, flaw: Flaw, linear: NDArray[np.float64], margin_share: float) -> Patch:
    """A defect and its surroundings under a linear map, cut to the defect's box and its margin."""
    x, y, width, height = flaw.region.box
    extent = np.abs(linear) @ np.array([width, height])
    margin = round(margin_share * extent.max()) + 4
    size = tuple((np.ceil(extent).astype(int) + 2 * margin + 2).tolist())
    middle = (np.array(size) - 1) / 2 - linear @ (np.array([width - 1, height - 1]) / 2)
    of_box = np.column_stack((linear, middle))
    of_image = np.column_stack((linear, middle - linear @ np.array([x, y])))
    cover = cv2.warpAffine(flaw.region.mask.astype(np.float32), of_box, size)
    image = cv2.warpAffine(record.image, of_image, size, borderMode=cv2.BORDER_REFLECT_101)
    turned = Patch(np.asarray(image, np.uint8), np.asarray(cover, np.float32), flaw.label)
    left, top, wide, high = cv2.boundingRect(turned.mask.astype(np.uint8))
    y, x = max(0, top - margin), max(0, left - margin)
    return turned.cut(slice(y, top + high + margin), slice(x, left + wide + margin))


def _paste(before: RgbImage, patch: Patch, rng: Generator) -> RgbImage:
    """The patch in the light of the place: as much brighter or darker as the surroundings are."""
    around = ~patch.mask if not patch.mask.all() else patch.mask
    here, there = (1.0 + float(np.median(image[around])) for image in (before, patch.image))
    gain = np.clip(here / there, *RELIGHT) * np.exp(rng.normal(0.0, 0.08))
    image = np.rint(patch.image * gain + rng.normal(0.0, 4.0))
    return np.asarray(np.clip(image, 0, 255), np.uint8)


def _clone(before: RgbImage, patch: Patch, _rng: Generator) -> RgbImage:
    """Poisson cloning of the whole rectangle: the patch's gradients, the picture's light."""
    height, width = patch.cover.shape
    factor = min(1.0, CLONE_PX / max(height, width))
    size = (round(width * factor), round(height * factor))
    here = cv2.resize(before, size, interpolation=cv2.INTER_AREA)
    there = cv2.resize(patch.image, size, interpolation=cv2.INTER_AREA)
    pad = 3  # the cloning may not touch the edge
    framed = cv2.copyMakeBorder(here, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    whole = np.full(there.shape[:2], 255, np.uint8)
    center = (pad + size[0] // 2, pad + size[1] // 2)
    cloned = cv2.seamlessClone(there, framed, whole, center, cv2.NORMAL_CLONE)[pad:-pad, pad:-pad]
    light = cv2.resize(cloned.astype(np.float32) - there, (width, height))
    return np.asarray(np.clip(np.rint(patch.image + light), 0, 255), np.uint8)


def _noise_patch(source: SiteSource, rng: Generator) -> Patch:
    """A blob of noise as long as a real defect, filled with a distorted texture."""
    _, flaw = _draw_flaw(source, rng)
    blob = _noise_blob(max(5, round(flaw.side_px * rng.uniform(*SCALE))), rng)
    cover = blob * np.float32(rng.uniform(*OPACITY))
    return Patch(_draw_texture(source, blob.shape, rng), cover, flaw.label)


def _noise_blob(side_px: int, rng: Generator) -> Mask:
    """One blob of thresholded Perlin noise, turned, and resized to a longest side."""
    boxes: list[list[int]] = []
    while not boxes:
        rows, columns = (int(cells) for cells in 2 ** rng.integers(0, 5, 2))
        noise = perlin_noise(NOISE_PX, (rows, columns), rng)
        turn = cv2.getRotationMatrix2D((NOISE_PX / 2, NOISE_PX / 2), rng.uniform(-90, 90), 1.0)
        turned = cv2.warpAffine(noise, turn, noise.shape, borderMode=cv2.BORDER_REFLECT_101)
        parts = cv2.connectedComponentsWithStats((turned > 0.5).astype(np.uint8), connectivity=4)
        boxes = [box for *box, area in parts[2][1:].tolist() if area >= LEAST_BLOB_PX]
    x, y, width, height = boxes[rng.integers(len(boxes))]
    around = turned[max(0, y - 1) : y + height + 1, max(0, x - 1) : x + width + 1]
    factor = side_px / max(width, height)
    size = (max(3, round(around.shape[1] * factor)), max(3, round(around.shape[0] * factor)))
    grown = cv2.resize(around, size, interpolation=cv2.INTER_LINEAR)
    return largest_part(np.asarray(grown >= min(0.5, float(grown.max()))))


def perlin_noise(side_px: int, cells_hw: tuple[int, int], rng: Generator) -> NDArray[np.float32]:
    """Gradient noise on a square, about -1..1 ("Improving Noise", Perlin 2002)."""
    angle = rng.uniform(0, 2 * np.pi, (cells_hw[0] + 1, cells_hw[1] + 1))
    y, x = (np.arange(side_px) / side_px * cells for cells in cells_hw)
    row, column = y.astype(int)[:, None], x.astype(int)[None, :]
    down, right = y[:, None] - row, x[None, :] - column

    def slope(below: int, beyond: int) -> NDArray[np.float64]:
        at = angle[row + below, column + beyond]
        return np.asarray(np.sin(at) * (down - below) + np.cos(at) * (right - beyond))

    fade_down, fade_right = (t**3 * (t * (6 * t - 15) + 10) for t in (down, right))
    upper = slope(0, 0) + fade_right * (slope(0, 1) - slope(0, 0))
    lower = slope(1, 0) + fade_right * (slope(1, 1) - slope(1, 0))
    return np.asarray(np.sqrt(2) * (upper + fade_down * (lower - upper)), np.float32)


def _draw_texture(source: SiteSource, hw: tuple[int, ...], rng: Generator) -> RgbImage:
    """A piece of any normal picture, changed by three of the distortions."""
    image = source.normals[rng.integers(len(source.normals))].image
    extents = np.array(image.shape[:2])
    sides = np.minimum(np.maximum(TEXTURE_PX, hw), extents)
    y, x = rng.integers(1 + extents - sides)
    piece = Image.fromarray(image[y : y + sides[0], x : x + sides[1]])
    for index in rng.choice(len(DISTORTIONS), 3, replace=False):
        piece = DISTORTIONS[index](piece, rng)
    if piece.height < hw[0] or piece.width < hw[1]:
        piece = piece.resize((max(piece.width, hw[1]), max(piece.height, hw[0])))
    return np.asarray(piece, np.uint8)[: hw[0], : hw[1]]


DISTORTIONS: tuple[Callable[[Image.Image, Generator], Image.Image], ...] = (
    lambda image, rng: ImageOps.posterize(image, int(rng.integers(1, 5))),
    lambda image, rng: ImageOps.solarize(image, int(rng.integers(32, 129))),
    lambda image, _: ImageOps.equalize(image),
    lambda image, _: ImageOps.autocontrast(image),
    lambda image, rng: ImageEnhance.Brightness(image).enhance(rng.uniform(0.5, 1.5)),
    lambda image, rng: ImageEnhance.Sharpness(image).enhance(rng.uniform(0.0, 4.0)),
    lambda image, rng: ImageEnhance.Color(image).enhance(rng.uniform(0.0, 3.0)),
    lambda image, rng: image.rotate(90 * int(rng.integers(1, 4)), expand=True),
)
