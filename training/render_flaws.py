"""Pits and scratches with their truth, and the dirt that must not be taken for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from models.arrays import Mask
from models.errors import ParameterInvalid
from training.render_surface import Field, Scene, enlarge, smooth_noise

FLAW_LONGEST_PX = (6, 60)
SHORTEST_SCRATCH_PX = 10
TRIES_A_FLAW = 400
FLAW_GAP_PX = 10
"""Free flat metal around every flaw, to the plate's edges and to other flaws."""
LEAST_CHANGE = 12.0
"""Least mean absolute change inside a flaw's mask, in 8-bit levels behind the lens."""
FINE = 4
"""A flaw is drawn this many times finer than the picture, then averaged down."""

Span = tuple[int, int]
"""Least and most, px."""

Develop = Callable[[Field], Field]
"""Linear light -> 8-bit levels behind lens and tone curve, without noise."""


@dataclass(frozen=True)
class Flaw:
    """One defect and its truth: the mask of its own box, whose top left pixel is (x, y)."""

    label: str
    mask: Mask
    x: int
    y: int


@dataclass(frozen=True)
class _Shape:
    """A drawn flaw: how much of each pixel it covers, and its shade where it does."""

    label: str
    cover: Field
    shade: Field

    @property
    def mask(self) -> Mask:
        return self.cover >= 0.5


def cut_flaws(
    rng: np.random.Generator, scene: Scene, develop: Develop, *, count: int, longest_px: Span
) -> tuple[Flaw, ...]:
    """Cut `count` visible flaws into the flat face, none near another; changes the light in place.

    Errors: ParameterInvalid when so many do not fit.
    """
    kernel = np.ones((2 * FLAW_GAP_PX + 1, 2 * FLAW_GAP_PX + 1), np.uint8)
    free = cv2.erode(scene.flat.astype(np.uint8), kernel, borderValue=0) > 0
    flaws: list[Flaw] = []
    for _ in range(count * TRIES_A_FLAW):
        if len(flaws) == count or not free.any():
            break
        flaw = _try_flaw(rng, scene, free, develop, longest_px)
        if flaw is not None:
            flaws.append(flaw)
            height, width = flaw.mask.shape
            gap = 2 * FLAW_GAP_PX
            top, left = max(0, flaw.y - gap), max(0, flaw.x - gap)
            free[top : flaw.y + height + gap, left : flaw.x + width + gap] = False
    if len(flaws) < count:
        raise ParameterInvalid("flaw_count", f"only {len(flaws)} of {count} flaws fit the plate")
    return tuple(flaws)


def soil(rng: np.random.Generator, scene: Scene) -> None:
    """Harmless marks, in place: wide stains, mill arcs, soft bright dust, long lint."""
    radiance = scene.radiance
    height, width = scene.setup.hw
    radiance *= _stains(rng, scene.setup.hw)
    _mill_marks(rng, radiance)
    level = float(np.median(radiance[::8, ::8]))
    for draw, most_per_mp in ((_speck, 22.0), (_lint, 1.2)):
        for _ in range(rng.poisson(rng.uniform(0.05, 1) * most_per_mp * height * width / 1e6)):
            stamp, x, y = draw(rng) * level, rng.integers(0, width), rng.integers(0, height)
            _add_at(radiance, scene.flat, stamp, (int(x), int(y)))


def _stains(rng: np.random.Generator, hw: tuple[int, int]) -> Field:
    """Oil films and dried drops with ragged soft rims: a factor near 1."""
    coarse_hw = (hw[0] // 4 + 2, hw[1] // 4 + 2)
    factor = np.float32(0.018) * smooth_noise(rng, coarse_hw, 40) + 1.0
    ragged = 0.25 * smooth_noise(rng, coarse_hw, 30) + 0.12 * smooth_noise(rng, coarse_hw, 9)
    y, x = np.mgrid[: coarse_hw[0], : coarse_hw[1]].astype(np.float32)
    for _ in range(rng.poisson(1.5 + hw[0] * hw[1] / 3e6)):
        radius, stretch = rng.uniform(12, 65), rng.uniform(0.6, 1.7)
        away_x, away_y = x - rng.uniform(0, coarse_hw[1]), y - rng.uniform(0, coarse_hw[0])
        away = np.hypot(away_x, away_y * stretch) / radius + ragged
        film = 0.5 - 0.5 * np.tanh((away - 1.0) * rng.uniform(1.5, 5))
        ring = np.exp(-(((away - 0.95) / 0.2) ** 2))
        factor += rng.uniform(-0.11, 0.05) * film - rng.uniform(0, 0.04) * ring
    return enlarge(np.maximum(factor, 0.6).astype(np.float32), hw)


def _mill_marks(rng: np.random.Generator, radiance: Field) -> None:
    """Faint concentric arcs left by a face mill under the brushing, on two plates of five."""
    if rng.random() > 0.4:
        return
    height, width = radiance.shape
    centre_x, centre_y = rng.uniform(-1, 2) * width, rng.choice([-1.2, 2.2]) * height
    y = (np.arange(height, dtype=np.float32) - np.float32(centre_y))[:, None]
    x = (np.arange(width, dtype=np.float32) - np.float32(centre_x))[None]
    phase = np.sqrt(x * x + y * y) * np.float32(2 * np.pi / rng.uniform(14, 34))
    amount = np.float32(rng.uniform(0.008, 0.025))
    radiance *= 1.0 + amount * np.sin(phase) * (0.6 + 0.4 * smooth_noise(rng, radiance.shape, 500))


def _speck(rng: np.random.Generator) -> Field:
    sigma = float(rng.uniform(1.1, 2.6))
    y, x = np.mgrid[-9:10, -9:10].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    across = x * np.cos(turn) + y * np.sin(turn)
    along = y * np.cos(turn) - x * np.sin(turn)
    stretch = rng.uniform(1.0, 1.7)
    speck = np.exp(-0.5 * ((across / sigma) ** 2 + (along / (sigma * stretch)) ** 2))
    return np.asarray(speck * rng.uniform(0.15, 0.7), np.float32)


def _lint(rng: np.random.Generator) -> Field:
    """A thread longer than any flaw, with its soft shadow."""
    side = 260
    way = np.cumsum(rng.normal(0, 0.035) + rng.normal(0, 0.05, 60)) + rng.uniform(0, 2 * np.pi)
    steps = np.stack([np.cos(way), np.sin(way)], axis=1) * rng.uniform(1.6, 3.2)
    points = np.cumsum(steps, axis=0)
    points += side / 2 - points.mean(axis=0)
    canvas = np.zeros((side, side), np.float32)
    cv2.polylines(canvas, [np.round(points * 8).astype(np.int32)], False, 1.0, 2, cv2.LINE_AA, 3)
    thread = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(1.6, 2.4)))
    shadow = np.roll(cv2.GaussianBlur(canvas, (0, 0), 4.0), (5, 4), (0, 1))
    return np.asarray((0.6 * thread - 0.45 * shadow) * rng.uniform(0.6, 1.2), np.float32)


def _add_at(field: Field, flat: Mask, stamp: Field, corner_xy: tuple[int, int]) -> None:
    """Lay a stamp on the flat face, cut at the picture's right and lower side."""
    (x, y), (height, width) = corner_xy, stamp.shape
    into = field[y : y + height, x : x + width]
    into += stamp[: into.shape[0], : into.shape[1]] * flat[y : y + height, x : x + width]


def _try_flaw(
    rng: np.random.Generator, scene: Scene, free: Mask, develop: Develop, longest_px: Span
) -> Flaw | None:
    """One flaw at one random place; None when it is of the wrong size, unfit or invisible there."""
    centre_x, centre_y = (int(rng.integers(0, side)) for side in free.shape[::-1])
    if not free[centre_y, centre_x]:
        return None
    is_pit = rng.random() < 0.5
    least = longest_px[0] if is_pit else max(longest_px[0], SHORTEST_SCRATCH_PX)
    longest = float(np.exp(rng.uniform(np.log(least), np.log(longest_px[1]))))
    shape = _pit(rng, longest, scene.setup.light_xy) if is_pit else _scratch(rng, longest, scene)
    height, width = shape.mask.shape
    if not longest_px[0] <= max(height, width) <= longest_px[1]:
        return None
    x, y = max(0, centre_x - width // 2), max(0, centre_y - height // 2)
    spot = free[y : y + height, x : x + width]
    if spot.shape != shape.mask.shape or not spot[shape.mask].all():
        return None
    if not _cut(rng, scene.radiance, (x, y), shape, develop):
        return None
    return Flaw(shape.label, shape.mask, x, y)


def _pit(rng: np.random.Generator, longest: float, light_xy: tuple[float, float]) -> _Shape:
    """An irregular crater: dark, rough, wall and lip lit on the side far from the light."""
    y, x = _fine_grid(longest)
    stretch, turn = rng.uniform(1.0, 1.8), rng.uniform(0, np.pi)
    along, across = _turned(x, y, turn)
    angle = np.arctan2(across * stretch, along)
    radius = np.full_like(angle, longest / 2)
    for wave in range(2, 8):
        bump = rng.normal(0, 0.2 / wave)
        radius *= 1.0 + bump * np.cos(wave * angle + rng.uniform(0, 6.3))
    rho = np.hypot(along, across * stretch) / np.maximum(radius, 0.15 * longest)
    hw = (rho.shape[0], rho.shape[1])
    rough = smooth_noise(rng, hw, FINE * 1.6) + smooth_noise(rng, hw, FINE * max(2.0, longest / 5))
    bowl = np.clip(1.0 - rho**1.6, 0, None) ** 0.8
    height = -longest * rng.uniform(0.15, 0.35) * bowl + rng.uniform(0.08, 0.3) * rough * bowl**0.4
    rise_y, rise_x = np.gradient(height, 1 / FINE)
    lit = np.tanh(-(rise_x * light_xy[0] + rise_y * light_xy[1]) * rng.uniform(0.6, 1.2))
    facing = -(x * light_xy[0] + y * light_xy[1]) / np.maximum(np.hypot(x, y), 0.5)
    lip = np.exp(-(((rho - 0.94) / 0.11) ** 2)) * (facing + 0.15)
    shade = 0.55 * lit + rng.uniform(0.4, 0.8) * lip + 0.24 * rough * bowl**0.25
    shade -= rng.uniform(0.6, 1.0) * bowl**0.5 + 0.05
    return _averaged("pit", rho <= 1.0, shade)


def _scratch(rng: np.random.Generator, longest: float, scene: Scene) -> _Shape:
    """A tapering, slightly bent groove at an angle to the grain: one flank lit, the other dark."""
    y, x = _fine_grid(longest)
    turn = np.arctan2(*scene.setup.grain_xy[::-1]) + rng.choice([-1, 1]) * rng.uniform(
        0.4, np.pi / 2
    )
    along, across = _turned(x, y, turn)
    way = along / (longest / 2)
    bend, twist = rng.normal(0, 0.06, 2) * longest
    across = across - bend * (way**2 - 0.4) - twist * way * (way**2 - 0.8)
    skew = rng.uniform(-0.5, 0.5)
    taper = np.clip(1.0 - way**2, 0, None) ** 0.45 * (1.0 + skew * way) / (1.0 + 0.3 * abs(skew))
    half_width = rng.uniform(1.0, 2.0) * taper
    u = across / np.maximum(half_width, 0.05)
    lit = np.sign(np.cos(turn) * scene.setup.light_xy[1] - np.sin(turn) * scene.setup.light_xy[0])
    is_dark = rng.random() < 0.5
    far_flank = 0.5 + 0.5 * np.tanh(4 * (lit * u + (-0.4 if is_dark else 0.4)))
    second = rng.uniform(0, 0.5)
    dark, bright = (0.7, second) if is_dark else (second, 0.7)
    shade = bright * far_flank - dark * (1.0 - far_flank)
    shade *= 1.0 + 0.3 * smooth_noise(rng, (x.shape[0], x.shape[1]), FINE * 4)
    return _averaged("scratch", (np.abs(u) <= 1.0) & (half_width > 0.35), shade)


def _fine_grid(longest: float) -> tuple[Field, Field]:
    """(y, x) in picture px from the flaw's middle, FINE steps a pixel."""
    half = int(np.ceil(longest * 0.8)) + 3
    line = ((np.arange(2 * half * FINE) + 0.5) / FINE - half).astype(np.float32)
    y, x = np.meshgrid(line, line, indexing="ij")
    return y, x


def _turned(x: Field, y: Field, turn: float) -> tuple[Field, Field]:
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return x * cos + y * sin, y * cos - x * sin


def _averaged(label: str, is_inside: Mask, shade: Field) -> _Shape:
    """From the fine grid to pixels, cut to the box of the covered ones."""
    side = is_inside.shape[0] // FINE
    cover = cv2.resize(is_inside * 1.0, (side, side), interpolation=cv2.INTER_AREA)
    weighted = cv2.resize(is_inside * shade, (side, side), interpolation=cv2.INTER_AREA)
    mask = cover >= 0.5
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    covered = np.where(mask[box], cover[box], 0).astype(np.float32)
    return _Shape(label, covered, (weighted[box] / np.maximum(cover[box], 0.5)).astype(np.float32))


def _cut(
    rng: np.random.Generator,
    radiance: Field,
    corner_xy: tuple[int, int],
    shape: _Shape,
    develop: Develop,
) -> bool:
    """Replace the grain by a flaw deep enough to be seen; False, and nothing cut, if none is."""
    (x, y), (height, width) = corner_xy, shape.cover.shape
    margin = 4
    window = radiance[y - margin : y + height + margin, x - margin : x + width + margin]
    cover, shade = (np.pad(part, margin) for part in (shape.cover, shape.shade))
    mask = np.pad(shape.mask, margin)
    before = develop(window)
    ground = cv2.GaussianBlur(window, (0, 0), 4.0)
    wanted = LEAST_CHANGE * np.exp(rng.uniform(0.25, 1.65))
    wanted = max(wanted, 1.4 * float(before.std()))
    for strength in np.geomspace(0.4, 2.4, 10):
        factor = np.clip(1.0 + strength * shade, 0.05, 3.0)
        after = window + (ground * factor - window) * cover
        change = float(np.abs(develop(after) - before)[mask].mean())
        if change >= wanted:
            break
    if change < max(LEAST_CHANGE, 1.2 * float(before.std())):
        return False
    window[:] = after
    return True
