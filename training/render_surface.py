"""A brushed plate before the camera: grain, light, holes and edges."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask

Field = NDArray[np.float32]
"""(H, W) float32: linear light, or a factor on it."""

Hole = tuple[float, float, float]
"""Middle x, y and radius, px."""

FULL_FIELD_HW = (3008, 4096)
"""The camera's whole sensor; a smaller picture is a crop of it at the same scale."""

HOLE_DIAMETER_PX = (80.0, 400.0)
EDGE_CLEAR_PX = 16
COARSE_PX = 16
"""Light changes slowly: it is computed on a grid this coarse and enlarged."""


@dataclass(frozen=True)
class Setup:
    """What one part shares: where the crop lies, where the light is, how the brush ran."""

    hw: tuple[int, int]
    origin_xy: tuple[float, float]
    light_xy: tuple[float, float]
    slope: float
    is_upright: bool

    @property
    def grain_xy(self) -> tuple[float, float]:
        """Unit vector along the brushing."""
        length = float(np.hypot(1.0, self.slope))
        along, across = 1.0 / length, -self.slope / length
        return (across, along) if self.is_upright else (along, across)


@dataclass(frozen=True)
class Scene:
    """One part before the lens: linear light, and where its flat face is (no hole, no chamfer)."""

    setup: Setup
    radiance: Field
    flat: Mask


def draw_scene(rng: np.random.Generator, hw: tuple[int, int]) -> Scene:
    """Brush, light, drill and saw one plate. Shapes: fields (H, W) of `hw`."""
    setup = _draw_setup(rng, hw)
    radiance = _brushed_light(rng, setup)
    inside_px = _plate_distance(rng, setup)
    flat = np.ones(hw, np.bool_) if inside_px is None else inside_px > EDGE_CLEAR_PX
    for hole in _hole_places(rng, flat):
        _drill(rng, (radiance, flat), hole, setup)
    if inside_px is not None:
        _saw_edges(rng, radiance, inside_px, setup)
    return Scene(setup, radiance, flat)


def smooth_noise(rng: np.random.Generator, hw: tuple[int, int], grid_px: float) -> Field:
    """Soft isotropic noise of about unit spread with details of `grid_px`."""
    grid_h, grid_w = (max(2, int(np.ceil(side / grid_px)) + 2) for side in hw)
    return enlarge(rng.standard_normal((grid_h, grid_w), dtype=np.float32), hw)


def enlarge(coarse: Field, hw: tuple[int, int]) -> Field:
    """A coarse field smoothly stretched over a picture."""
    return np.asarray(cv2.resize(coarse, hw[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _draw_setup(rng: np.random.Generator, hw: tuple[int, int]) -> Setup:
    slack_h, slack_w = (max(0, full - side) for full, side in zip(FULL_FIELD_HW, hw, strict=True))
    light_rad = rng.uniform(0, 2 * np.pi)
    return Setup(
        hw=hw,
        origin_xy=(rng.uniform(0, slack_w), rng.uniform(0, slack_h)),
        light_xy=(float(np.cos(light_rad)), float(np.sin(light_rad))),
        slope=float(rng.normal(0, 0.05)),
        is_upright=bool(rng.random() < 0.35),
    )


def _brushed_light(rng: np.random.Generator, setup: Setup) -> Field:
    """Light times grain; in a highlight the grain stands out and frays the highlight's flanks."""
    light, streak = _cast_light(rng, setup)
    streak_full = enlarge(streak, setup.hw)
    fine, bands = _grain(rng, setup)
    contrast = np.float32(rng.uniform(0.07, 0.13))
    grain = fine * contrast + bands * np.float32(rng.uniform(0.012, 0.03))
    grain *= 1.0 + 0.9 * streak_full
    radiance: Field = np.exp(grain, dtype=np.float32)
    radiance += np.float32(0.02) * rng.standard_normal(setup.hw, dtype=np.float32)
    radiance *= enlarge(light, setup.hw)
    radiance *= 1.0 + streak_full
    return radiance


def _cast_light(rng: np.random.Generator, setup: Setup) -> tuple[Field, Field]:
    """Coarse light (gradient, lamp, vignette) and the streaks that lie across the brushing."""
    coarse_hw = tuple(max(2, side // COARSE_PX) for side in setup.hw)
    half_px = FULL_FIELD_HW[1] / 2
    x = (np.linspace(0, setup.hw[1], coarse_hw[1]) + setup.origin_xy[0]) / half_px - 1.0
    y = (np.linspace(0, setup.hw[0], coarse_hw[0]) + setup.origin_xy[1]) / half_px - 0.73
    grid_x, grid_y = np.meshgrid(x, y)
    toward = grid_x * setup.light_xy[0] + grid_y * setup.light_xy[1]
    light = 1.0 + rng.uniform(0.12, 0.38) * toward
    lamp_x, lamp_y = rng.uniform(-0.9, 0.9), rng.uniform(-0.7, 0.7)
    lamp = ((grid_x - lamp_x) ** 2 + (grid_y - lamp_y) ** 2) / rng.uniform(0.3, 1.0) ** 2
    light += rng.uniform(0.15, 0.6) * np.exp(-lamp)
    light *= 1.0 - rng.uniform(0.1, 0.28) * (grid_x**2 + grid_y**2)
    grain_x, grain_y = setup.grain_xy
    along = grid_x * grain_x + grid_y * grain_y
    across = grid_y * grain_x - grid_x * grain_y
    streak = np.zeros_like(along, np.float64)
    for _ in range(rng.integers(1, 5)):
        centre = rng.uniform(-1, 1) + rng.uniform(-0.15, 0.15) * across
        width = rng.uniform(0.04, 0.28)
        streak += rng.uniform(0.1, 0.55) * np.exp(-(((along - centre) / width) ** 2))
    return np.maximum(light, 0.25).astype(np.float32), streak.astype(np.float32)


def _grain(rng: np.random.Generator, setup: Setup) -> tuple[Field, Field]:
    """Brush marks, fine ones and broad bands; both of about unit spread."""
    height, width = setup.hw[::-1] if setup.is_upright else setup.hw
    lean = rng.normal(0, 0.006, 2)
    tallest = height + int(width * (abs(setup.slope) + float(np.abs(lean).max()))) + 4
    hw = (tallest, width)
    short = 0.9 * _brush(rng, hw, along_px=int(rng.integers(10, 24)), step_px=1)
    short += _brush(rng, hw, along_px=int(rng.integers(30, 70)), step_px=2)
    short += 0.7 * _brush(rng, hw, along_px=int(rng.integers(150, 400)), step_px=4)
    bands = _brush(rng, (tallest // 6 + 2, width), along_px=1400, step_px=8)
    bands = enlarge(bands, hw)
    hairs = _hairlines(rng, hw)
    blurred = cv2.GaussianBlur(short, (1, 5), sigmaX=0.1, sigmaY=float(rng.uniform(0.3, 0.5)))
    fine = _shear(np.asarray(blurred, np.float32), setup.slope + lean[0], height)
    fine += _shear(hairs, setup.slope + lean[1], height)
    broad = _shear(bands, setup.slope, height)
    if setup.is_upright:
        return np.ascontiguousarray(fine.T), np.ascontiguousarray(broad.T)
    return fine, broad


def _brush(rng: np.random.Generator, hw: tuple[int, int], *, along_px: int, step_px: int) -> Field:
    """Noise drawn out along x to marks about `along_px` long, one pixel wide, unit spread."""
    coarse_w = hw[1] // step_px + 2
    noise = rng.standard_normal((hw[0], coarse_w), dtype=np.float32)
    taps = max(3, along_px // step_px)
    drawn = cv2.blur(cv2.blur(noise, (taps, 1)), (taps, 1))
    return enlarge(np.asarray(drawn * np.float32(np.sqrt(1.5 * taps)), np.float32), hw)


def _hairlines(rng: np.random.Generator, hw: tuple[int, int]) -> Field:
    """Single deeper brush marks, long and straight, bright or dark."""
    hairs = np.zeros(hw, np.float32)
    count = int(hw[0] * hw[1] * rng.uniform(1.5e-4, 5e-4))
    length_px = rng.lognormal(np.log(130), 0.7, count).astype(np.int64)
    starts_x = rng.integers(-100, hw[1], count)
    rows = rng.integers(0, hw[0], count)
    depths = (rng.normal(0, 1.5, count) + 0.3).astype(np.float32)
    for row, start_x, length, depth in zip(rows, starts_x, length_px, depths, strict=True):
        hairs[row, max(0, start_x) : max(0, start_x + length)] += depth
    return np.asarray(cv2.GaussianBlur(hairs, (9, 3), sigmaX=3.0, sigmaY=0.5), np.float32)


def _shear(canvas: Field, slope: float, height: int) -> Field:
    width = canvas.shape[1]
    offset = max(0.0, -slope * width)
    move = np.array([[1, 0, 0], [slope, 1, offset]], np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    sheared = cv2.warpAffine(
        canvas, move, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(sheared, np.float32)


def _plate_distance(rng: np.random.Generator, setup: Setup) -> Field | None:
    """Distance into the plate from its edges, px, at most the corner radius; None: no edge seen."""
    edges = int(rng.choice([0, 1, 2], p=[0.45, 0.33, 0.22]))
    if edges == 0:
        return None
    height, width = setup.hw
    radius = np.float32(rng.uniform(40, 90))
    turn = np.float32(rng.normal(0, 0.02))
    from_y = np.arange(height, dtype=np.float32)[:: rng.choice([-1, 1]), None]
    from_x = np.arange(width, dtype=np.float32)[None, :: rng.choice([-1, 1])]
    into_x = from_x - np.float32(rng.uniform(0.05, 0.2) * width) + turn * from_y
    into_y = from_y - np.float32(rng.uniform(0.05, 0.22) * height) - turn * from_x
    if edges == 1:
        return np.minimum(into_x if rng.random() < 0.5 else into_y, radius)
    short_x, short_y = np.maximum(radius - into_x, 0), np.maximum(radius - into_y, 0)
    return np.asarray(radius - cv2.sqrt(short_x * short_x + short_y * short_y), np.float32)


def _hole_places(rng: np.random.Generator, flat: Mask) -> list[Hole]:
    """Up to six (x, y, radius) on a drilling pattern, clear of each other and of the edges."""
    height, width = flat.shape
    wanted, budget = int(rng.integers(0, 7)), 0.3 * height * width
    radii = np.exp(rng.uniform(np.log(HOLE_DIAMETER_PX[0]), np.log(HOLE_DIAMETER_PX[1]), 2)) / 2
    pitch = rng.uniform(2.6, 4.0) * radii.max()
    shift_x, shift_y = rng.uniform(0, pitch, 2)
    places: list[Hole] = []
    for _ in range(wanted * 6):
        radius = float(rng.choice(radii))
        x = float(rng.integers(-1, width // pitch + 1) * pitch + shift_x)
        y = float(rng.integers(-1, height // pitch + 1) * pitch + shift_y)
        budget_left = budget - sum(np.pi * r * r for *_, r in places)
        is_apart = all((x - a, y - b) != (0.0, 0.0) for a, b, _ in places)
        if len(places) < wanted and is_apart and np.pi * radius**2 < budget_left:
            reach = int(radius + 45)
            box = flat[_span(y, reach, height), _span(x, reach, width)]
            is_seen = abs(x - width / 2) < width / 2 + 0.6 * radius
            is_seen &= abs(y - height / 2) < height / 2 + 0.6 * radius
            if is_seen and box.all():
                places.append((x, y, radius))
    return places


def _span(centre: float, reach: int, side: int) -> slice:
    return slice(min(max(0, int(centre) - reach), side), min(max(0, int(centre) + reach + 1), side))


def _drill(rng: np.random.Generator, plate: tuple[Field, Mask], hole: Hole, setup: Setup) -> None:
    """A hole with its chamfer, lit on the far side, and the wall that the lens sees; in place."""
    x, y, radius = hole
    chamfer = float(rng.choice([rng.uniform(4, 8), rng.uniform(12, 30)], p=[0.65, 0.35]))
    reach = int(radius + chamfer + 6)
    rows, columns = _span(y, reach, setup.hw[0]), _span(x, reach, setup.hw[1])
    patch, face = plate[0][rows, columns], plate[1][rows, columns]
    dy = (np.arange(rows.start, rows.stop, dtype=np.float32) - np.float32(y))[:, None]
    dx = (np.arange(columns.start, columns.stop, dtype=np.float32) - np.float32(x))[None]
    away = np.sqrt(dx * dx + dy * dy) + np.float32(1e-3)
    level = float(np.median(patch))
    facing = -(dx * setup.light_xy[0] + dy * setup.light_xy[1]) / away
    turned = 1.0 + 0.12 * np.sin(away * rng.uniform(1.2, 2.6) + rng.uniform(0, 6))
    turned += 0.06 * smooth_noise(rng, (away.shape[0], away.shape[1]), 3)
    slope = level * turned * np.maximum(0.68 + 0.45 * facing * np.abs(facing) + 0.22 * facing, 0.06)
    inner = _bore(rng, (dx, dy), hole, setup) * level
    _blend(patch, patch * (1.0 + 0.5 * facing), np.exp(-(((away - radius - chamfer) / 1.4) ** 2)))
    _blend(patch, slope, np.clip(radius + chamfer - away + 0.5, 0, 1))
    _blend(patch, inner, np.clip(radius - away + 0.5, 0, 1))
    face &= away > radius + chamfer + 4


def _bore(rng: np.random.Generator, offset: tuple[Field, Field], hole: Hole, setup: Setup) -> Field:
    """A hole's inside: its lower mouth slides to the picture's middle, the wall shows behind."""
    (dx, dy), radius = offset, hole[2]
    middle_x, middle_y = FULL_FIELD_HW[1] / 2, FULL_FIELD_HW[0] / 2
    lean_x = (middle_x - hole[0] - setup.origin_xy[0]) / middle_x
    lean_y = (middle_y - hole[1] - setup.origin_xy[1]) / middle_x
    depth = radius * rng.uniform(0.25, 0.6)
    low_x, low_y = dx - lean_x * depth, dy - lean_y * depth
    below = np.sqrt(low_x * low_x + low_y * low_y)
    facing = -(dx * setup.light_xy[0] + dy * setup.light_xy[1]) / radius
    wall = (0.09 + 0.5 * np.maximum(facing, 0) ** 2) * (1.0 + 0.15 * np.sin(below * 1.1))
    fade = np.clip((below - 0.93 * radius) / (0.12 * radius), 0, 1)
    floor = rng.uniform(0.015, 0.09) * (1.0 + 0.4 * facing)
    return np.asarray(floor + (wall - floor) * fade, np.float32)


def _blend(patch: Field, over: Field | NDArray[np.float64], share: Field) -> None:
    patch += (over - patch) * share


def _saw_edges(rng: np.random.Generator, radiance: Field, inside_px: Field, setup: Setup) -> None:
    """Chamfer along the plate's edge, and the dark bench far below, out of focus."""
    chamfer = np.float32(rng.uniform(4, 11))
    level = float(np.median(radiance[::8, ::8]))
    down_y, down_x = np.gradient(cv2.resize(inside_px, None, fx=1 / 8, fy=1 / 8))
    facing = -(down_x * setup.light_xy[0] + down_y * setup.light_xy[1]) / 8
    facing = enlarge(facing.astype(np.float32), setup.hw)
    shade = (0.85 + 0.75 * facing + 0.04 * smooth_noise(rng, setup.hw, 12)) * level
    bench = np.float32(level) * _bench(rng, setup.hw)
    shadow_px = np.float32(rng.uniform(25, 80))
    bench *= 1.0 - 0.75 * np.exp(np.minimum(inside_px, 0) / shadow_px)
    _blend(radiance, shade, np.clip(chamfer - inside_px + 0.5, 0, 1))
    _blend(radiance, radiance * np.float32(1.35), np.exp(-(((inside_px - chamfer) / 1.2) ** 2)))
    _blend(radiance, bench, np.clip(0.5 - inside_px, 0, 1))


def _bench(rng: np.random.Generator, hw: tuple[int, int]) -> Field:
    """Dark, defocused table with a few discs of stray light; relative to the plate."""
    coarse_hw = (hw[0] // 8 + 2, hw[1] // 8 + 2)
    bench = rng.uniform(0.045, 0.09) + 0.014 * smooth_noise(rng, coarse_hw, 90)
    bench += 0.005 * smooth_noise(rng, coarse_hw, 25)
    for _ in range(rng.poisson(2.0 + hw[0] * hw[1] / 1e6)):
        centre = (int(rng.integers(0, coarse_hw[1])), int(rng.integers(0, coarse_hw[0])))
        disc = np.zeros(coarse_hw, np.float32)
        cv2.circle(disc, centre, int(rng.integers(3, 9)), float(rng.uniform(0.02, 0.14)), -1)
        bench += cv2.GaussianBlur(disc, (0, 0), 1.2)
    return enlarge(np.maximum(bench, 0.008).astype(np.float32), hw)
