"""Squares around real and imagined defects, as the generators are shown them."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask, RgbImage
from models.manifest import ObjectRule
from models.steps.fusion import contrast
from models.steps.objects import find_object
from models.steps.outlines import place_region
from models.steps.sites import (
    LEAST_SIDE_PX,
    Site,
    cut_site,
    draw_site_center,
    draw_site_side_px,
)
from training.data import Flaw, Record

MASK_SCALE = 1.8
"""Side of the square that a shape of the mask generator's book fills, in its longest sides."""
MASK_SCALES = (1.6, 2.0)
"""Sides of the squares that its critics and its judge see real masks in."""
MASK_SLACK = 0.1
"""How far a mask lies off the middle of its square, in shares of the room around it."""
TURN_SPREAD, ZOOM_SPREAD, BEND_PARTS = 0.1, 0.12, 80
"""Standard deviations of a deformation: radians, logarithms, one part in so many of the side."""
LEAST_AREA_PX = 8
"""Smaller annotated regions are crumbs of a drawn mask, and teach no generator."""


@dataclass(frozen=True)
class RealSite:
    """A real defect in its square: mask (S, S) float32 in 0..1, the share of each pixel in it."""

    site: Site
    mask: NDArray[np.float32]
    label: int


@dataclass
class SiteSource:
    """Draws sites from records; each record's object is found once."""

    normals: tuple[Record, ...]
    defects: tuple[Record, ...]
    labels: int
    shown_px: int
    crop_scale: tuple[float, float]
    object_rule: ObjectRule
    objects: dict[str, Mask] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the flaws by label, and measure them once."""
        self.flaws = [self._flaws_of(label) for label in range(self.labels)]
        self._sides_px = [_quantiles([f.side_px for _, f in flaws]) for flaws in self.flaws]

    def _flaws_of(self, label: int) -> list[tuple[Record, Flaw]]:
        """All of a label but the crumbs, or the crumbs where there is nothing else."""
        flaws = [(r, f) for r in self.defects for f in r.flaws if f.label == 1 + label]
        return [(r, f) for r, f in flaws if f.region.area_px >= LEAST_AREA_PX] or flaws

    def sides_px(self, label: int) -> tuple[float, ...]:
        """Eleven quantiles of the longest sides of a label's defects; none for an absent label."""
        return self._sides_px[label]

    def draw_label(self, rng: np.random.Generator) -> int:
        """Any label that has defects, each as likely."""
        present = [k for k, flaws in enumerate(self.flaws) if flaws]
        return int(rng.choice(present))

    def draw_real(
        self,
        label: int,
        rng: np.random.Generator,
        *,
        crop_scale: tuple[float, float] | None = None,
        slack_share: float = 0.35,
        flaw: int | None = None,
        least_px: int | None = None,
    ) -> RealSite:
        """A real defect somewhere in a square that shows it whole; the mask is of no other one.

        flaw: its place among the label's flaws; any where it is not given. crop_scale: range of the
        square's side in longest sides of the defect; the source's own where it is not given.
        slack_share: how far off the middle it may lie, in shares of the room around it. least_px:
        show the square at its own size, in steps of 4, and at this at least; without it, at the
        source's.
        """
        index = int(rng.integers(len(self.flaws[label]))) if flaw is None else flaw
        record, found = self.flaws[label][index]
        wanted_px = round(found.side_px * rng.uniform(*crop_scale or self.crop_scale))
        side_px = min(max(LEAST_SIDE_PX, wanted_px), *record.image.shape[:2])
        x, y, width, height = found.region.box
        slack = np.maximum(0.0, side_px - np.array([width, height])) * slack_share
        centre = np.array([x + width / 2, y + height / 2]) + rng.uniform(-slack, slack)
        shown_px = self.shown_px if least_px is None else max(least_px, -(-side_px // 4) * 4)
        site = cut_site(
            record.image, self.object_of(record), (centre[0], centre[1]), side_px, shown_px
        )
        return RealSite(site, _shown_mask(found, site), label)

    def draw_normal(
        self, label: int, rng: np.random.Generator, *, side_px: int | None = None
    ) -> Site:
        """A square of a normal picture where a defect of that label could lie."""
        record = self.normals[rng.integers(len(self.normals))]
        if side_px is None:
            side_px = draw_site_side_px(self.sides_px(label), self.crop_scale, rng)
        side_px = min(side_px, *record.image.shape[:2])
        allowed = self.object_of(record)
        centre = draw_site_center(allowed, rng)
        return cut_site(record.image, allowed, centre, side_px, self.shown_px)

    def object_of(self, record: Record) -> Mask:
        """The object in a record's picture."""
        if record.name not in self.objects:
            self.objects[record.name] = find_object(record.image, **self.object_rule.model_dump())
        return self.objects[record.name]


def mirror(real: RealSite, rng: np.random.Generator) -> RealSite:
    """Left and right exchanged half of the time; up and down stay, for light comes from above."""
    if rng.random() < 0.5:
        return real
    site = real.site
    flipped = Site(
        site.window,
        np.ascontiguousarray(site.image[:, ::-1]),
        np.ascontiguousarray(site.object[:, ::-1]),
    )
    return RealSite(flipped, np.ascontiguousarray(real.mask[:, ::-1]), real.label)


def deform(
    real: RealSite, rng: np.random.Generator, *, turn_spread: float = TURN_SPREAD
) -> RealSite:
    """The same defect a little larger, turned, sheared and bent, with its square."""
    side_px = real.mask.shape[0]
    turn = rng.normal(0.0, turn_spread)
    zoom = np.exp(rng.normal(0.0, ZOOM_SPREAD, 2))
    bend = rng.normal(0.0, side_px / BEND_PARTS, (2, 5, 5)).astype(np.float32)
    cosine, sine = np.cos(turn), np.sin(turn)
    matrix = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag(1 / zoom)
    at = (*_bent_places(matrix, bend, side_px), cv2.INTER_LINEAR)
    image = cv2.remap(real.site.image, *at, borderMode=cv2.BORDER_REFLECT_101)
    legal = cv2.remap(real.site.object.astype(np.float32), *at, borderMode=cv2.BORDER_REFLECT_101)
    mask = cv2.remap(real.mask, *at, borderMode=cv2.BORDER_CONSTANT)
    site = Site(real.site.window, np.asarray(image, np.uint8), legal > 0.5)
    return RealSite(site, np.asarray(mask, np.float32), real.label)


def without_defect(real: RealSite) -> RgbImage:
    """A pseudo-normal square: the real defect painted over with its surroundings.

    The light comes from around the hole, the grain from beside it.
    """
    image, side = real.site.image, real.mask.shape[0]
    reach = max(3, side // 16) | 1
    touched = (real.mask > 0.05).astype(np.uint8)
    hole = np.asarray(cv2.dilate(touched, np.ones((reach, reach), np.uint8)), np.uint8)
    size = (side // 4, side // 4)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small_hole = (cv2.resize(hole * 255, size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    light = cv2.inpaint(small, small_hole, 3, cv2.INPAINT_TELEA)
    light = cv2.resize(light, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    grain = image.astype(np.float32) - cv2.GaussianBlur(image.astype(np.float32), (0, 0), side / 40)
    filled = light + _grain_beside(grain, hole)
    share = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 1.0)[..., None]
    share = np.maximum(share, hole[..., None])
    return np.clip(np.rint(image * (1 - share) + filled * share), 0, 255).astype(np.uint8)


def draw_ground(
    source: SiteSource, real: RealSite, rng: np.random.Generator, *, elsewhere: bool
) -> Site:
    """A square without a defect for a real mask: its own surroundings, or a normal picture's."""
    if elsewhere:
        return source.draw_normal(real.label, rng, side_px=real.site.window.side_px)
    return Site(real.site.window, without_defect(real), real.site.object)


def real_contrasts(source: SiteSource, label: int, *, count: int, seed: int) -> NDArray[np.float64]:
    """How much real defects of a label change their squares, in grey levels of 255."""
    rng = np.random.default_rng(seed)
    drawn = [source.draw_real(label, rng) for _ in range(count)]
    return np.array([contrast(without_defect(r), r.site.image, r.mask >= 0.5) for r in drawn])


def trust(known: int) -> float:
    """How far so many real defects tell what all are like: 1/6 for one, near 1 for a hundred."""
    return known / (known + 5)


def _shown_mask(flaw: Flaw, site: Site) -> NDArray[np.float32]:
    """The share of each pixel of a shown site that a flaw covers."""
    side_px, shown_px = site.window.side_px, site.image.shape[0]
    corner = (site.window.x, site.window.y)
    truth = place_region(flaw.region, corner, (side_px, side_px)).astype(np.float32)
    rule = cv2.INTER_AREA if side_px > shown_px else cv2.INTER_LINEAR
    mask = cv2.resize(truth, (shown_px, shown_px), interpolation=rule)
    return np.asarray(mask, np.float32)


def _quantiles(sides_px: list[int]) -> tuple[float, ...]:
    """Eleven quantiles of the longest sides, spread out where few are known."""
    if not sides_px:
        return ()
    shares = np.linspace(0, 1, 11)
    spread = np.exp((1 - trust(len(sides_px))) * np.linspace(-0.5, 0.5, 11))
    return tuple(float(q) for q in np.quantile(sides_px, shares) * spread)


def _bent_places(
    matrix: NDArray[np.float64], bend: NDArray[np.float32], side_px: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """x and y of where each pixel of a square comes from: (S, S) float32 each.

    Shapes: matrix (2, 2) about the middle, bend (2, n, n) px along x and y.
    """
    rows, columns = np.mgrid[0:side_px, 0:side_px].astype(np.float32)
    middle = (side_px - 1) / 2
    size = (side_px, side_px)
    wave = [cv2.resize(field, size, interpolation=cv2.INTER_CUBIC) for field in bend]
    x = matrix[0, 0] * (columns - middle) + matrix[0, 1] * (rows - middle) + middle + wave[0]
    y = matrix[1, 0] * (columns - middle) + matrix[1, 1] * (rows - middle) + middle + wave[1]
    return x.astype(np.float32), y.astype(np.float32)


def _grain_beside(grain: NDArray[np.float32], hole: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The grain moved so far that what lies in the hole came from outside it."""
    side = hole.shape[0]
    moves = [(0, d) for d in (side // 4, -side // 4, side // 2)]
    moves += [(d, 0) for d in (side // 4, -side // 4, side // 2)]
    far = min(moves, key=lambda m: int((hole & np.roll(hole, m, (0, 1))).sum()))
    moved = np.roll(grain, far, (0, 1))
    return moved * (1 - np.roll(hole, far, (0, 1)))[..., None]
