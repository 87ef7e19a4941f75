"""How the time of POST /detect grows with the picture, from 1 to 48 megapixels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from models.steps.pictures import encode_jpeg
from tests.bench.figures import Bar, Figure, median_times_s
from tests.bench.serving import decode, run_service

SIZES_HW = ((864, 1152), (1224, 1632), (1728, 2304), (3000, 4000), (4240, 5656), (6000, 8000))
FOUR_MP = 2
"""Which of them has 4 MP: below, the crops, which cost the same in each, weigh more."""
WIDTH, HEIGHT, MARGIN = 560, 340, 56
TICKS = (1, 2, 4, 8, 16, 32)


def measure_scaling(
    bundles: Path, product: str, jpeg: bytes, *, rounds: int, plot: Path | None
) -> Figure:
    """Time per megapixel of the largest picture ÷ of the one of 4 MP: 1 where cost is linear.

    The sizes take turns; pictures are `jpeg`, repeated and cut. With `plot`, all sizes are drawn
    into that file.
    """
    with run_service(bundles) as service:
        asked = [partial(service.detect, picture_of(jpeg, hw), product) for hw in SIZES_HW]
        times_s = median_times_s(asked, rounds=rounds)
    by_size = {h * w / 1e6: s for (h, w), s in zip(SIZES_HW, times_s, strict=True)}
    if plot:
        plot.write_text(draw_growth(by_size))
    per_mp = [seconds / megapixels for megapixels, seconds in by_size.items()]
    return Figure("time_per_mp_at_48_over_4", per_mp[-1] / per_mp[FOUR_MP], Bar("at most", 1.2))


def picture_of(jpeg: bytes, hw: tuple[int, int]) -> bytes:
    """A JPEG of that size: the picture, repeated to both sides where it is smaller, and cut."""
    pixels = decode(jpeg).pixels
    times = [-(-side // given) for side, given in zip(hw, pixels.shape[:2], strict=True)]
    return encode_jpeg(np.ascontiguousarray(np.tile(pixels, (*times, 1))[: hw[0], : hw[1]]))


def draw_growth(times_s: Mapping[float, float]) -> str:
    """An SVG of times by megapixels on logarithmic axes, and the line of slope 1 through the last.

    Times are told as multiples of the first.
    """
    first, last = min(times_s), max(times_s)
    shortest_s, most = times_s[first], times_s[last] / times_s[first]
    dots = [_place(mp, seconds / shortest_s) for mp, seconds in times_s.items()]
    ideal = [_place(first, most * first / last), _place(last, most)]
    style = "font:13px sans-serif;fill:#333;text-anchor:middle"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" style="{style}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *(_tick(tick) for tick in TICKS),
        f'<polyline points="{_points(ideal)}" stroke="#999" stroke-dasharray="5 4" fill="none"/>',
        f'<polyline points="{_points(dots)}" stroke="#0b6" stroke-width="2" fill="none"/>',
        *(f'<circle cx="{x}" cy="{y}" r="4" fill="#0b6"/>' for x, y in dots),
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}">megapixels; time as a multiple of the first; '
        "dashed: in proportion</text>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _tick(value: int) -> str:
    x, y = _place(value, value)
    bottom, left = HEIGHT - MARGIN, MARGIN
    return (
        f'<path d="M{x} {MARGIN / 2}V{bottom}M{left} {y}H{WIDTH - MARGIN / 2}" stroke="#eee"/>'
        f'<text x="{x}" y="{bottom + 18}">{value}</text>'
        f'<text x="{left - 16}" y="{y + 4}">{value}</text>'
    )


def _place(megapixels: float, multiple: float) -> tuple[float, float]:
    """Both axes run from 1 to 48, on logarithms."""
    across, up = (np.log(max(value, 1.0)) / np.log(48.0) for value in (megapixels, multiple))
    x = MARGIN + across * (WIDTH - 1.5 * MARGIN)
    y = HEIGHT - MARGIN - up * (HEIGHT - 1.5 * MARGIN)
    return round(float(x), 1), round(float(y), 1)


def _points(places: list[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)
