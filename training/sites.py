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
from models.steps.sites import (
    LEAST_SIDE_PX,
    Site,
    cut_site,
    draw_site_center,
    draw_site_side_px,
)
from training.data import Flaw, Record


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
        self.flaws: list[list[tuple[Record, Flaw]]] = [
            [(r, f) for r in self.defects for f in r.flaws if f.label == 1 + k]
            for k in range(self.labels)
        ]
        self._sides_px = [_quantiles([f.side_px for _, f in flaws]) for flaws in self.flaws]

    def sides_px(self, label: int) -> tuple[float, ...]:
        """Eleven quantiles of the longest sides of a label's defects; none for an absent label."""
        return self._sides_px[label]

    def draw_label(self, rng: np.random.Generator) -> int:
        """Any label that has defects, each as likely."""
        present = [k for k, flaws in enumerate(self.flaws) if flaws]
        return int(rng.choice(present))

    def draw_real(self, label: int, rng: np.random.Generator) -> RealSite:
        """A real defect somewhere in a square that shows it whole, mirrored at random."""
        record, flaw = self.flaws[label][rng.integers(len(self.flaws[label]))]
        side_px = max(LEAST_SIDE_PX, round(flaw.side_px * rng.uniform(*self.crop_scale)))
        side_px = min(side_px, *record.image.shape[:2])
        x, y, width, height = flaw.region.box
        slack = np.maximum(0.0, side_px - np.array([width, height])) * 0.35
        centre = np.array([x + width / 2, y + height / 2]) + rng.uniform(-slack, slack)
        site = cut_site(
            record.image, self.object_of(record), (centre[0], centre[1]), side_px, self.shown_px
        )
        rows, columns = site.window.slices_in(record.image.shape[:2])
        truth = (record.labels[rows, columns] == flaw.label).astype(np.float32)
        size = (self.shown_px, self.shown_px)
        rule = cv2.INTER_AREA if side_px > self.shown_px else cv2.INTER_LINEAR
        mask = np.asarray(cv2.resize(truth, size, interpolation=rule), np.float32)
        return mirror(RealSite(site, mask, label), rng)

    def draw_normal(self, label: int, rng: np.random.Generator) -> Site:
        """A square of a normal picture where a defect of that label could lie."""
        record = self.normals[rng.integers(len(self.normals))]
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


def _quantiles(sides_px: list[int]) -> tuple[float, ...]:
    return tuple(float(q) for q in np.quantile(sides_px, np.linspace(0, 1, 11))) if sides_px else ()


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


def without_defect(real: RealSite) -> RgbImage:
    """A pseudo-normal square: the real defect painted over with its surroundings."""
    hole = cv2.dilate((real.mask > 0.05).astype(np.uint8), np.ones((5, 5), np.uint8))
    return np.asarray(cv2.inpaint(real.site.image, hole, 3, cv2.INPAINT_TELEA), np.uint8)


def real_contrasts(source: SiteSource, label: int, *, count: int, seed: int) -> NDArray[np.float64]:
    """How much real defects of a label change their squares, in grey levels of 255."""
    rng = np.random.default_rng(seed)
    drawn = [source.draw_real(label, rng) for _ in range(count)]
    return np.array([contrast(without_defect(r), r.site.image, r.mask >= 0.5) for r in drawn])
