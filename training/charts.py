"""Line charts as SVG, to stand in a page that fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 10, 38

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """What an axis tells, from where to where, and where a number stands at it."""

    title: str
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """0 at the first tick, 1 at the last; what lies beyond stays there."""
        first, last = self.ticks[0], self.ticks[-1]
        return min(max((value - first) / (last - first), 0.0), 1.0)


@dataclass(frozen=True)
class Line:
    """A named line through points; `weights` (0..1) draw each as a dot of that area."""

    name: str
    points: Sequence[Point]
    weights: Sequence[float] = ()


def draw_chart(lines: Sequence[Line], x: Axis, y: Axis, *, ideal: Sequence[Point] = ()) -> Markup:
    """An SVG of at most two lines over a grid, and dashed what would be ideal."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y.title)}">',
        *_grid(x, y),
        _path(ideal, x, y, "ideal") if ideal else "",
    ]
    for number, line in enumerate(lines):
        parts += [_path(line.points, x, y, f"line l{number}")]
        parts += _dots(line, x, y, number)
        across, down = WIDTH - RIGHT - 6, HEIGHT - BOTTOM - 8 - 15 * number
        name = escape(line.name)
        parts.append(
            f'<text class="d{number}" x="{across}" y="{down}" text-anchor="end">{name}</text>'
        )
    return Markup("\n".join([*parts, "</svg>"]))


def as_steps(points: Sequence[Point]) -> list[Point]:
    """A rising curve that keeps each height until the next point."""
    stepped = list(points[:1])
    for (_, low), (across, high) in pairwise(points):
        stepped += [(across, low), (across, high)]
    return stepped


def _grid(x: Axis, y: Axis) -> list[str]:
    parts = []
    for tick in x.ticks:
        at = _across(tick, x)
        parts += [
            f'<line class="grid" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>',
            f'<text x="{at}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{tick:g}</text>',
        ]
    for tick in y.ticks:
        at = _down(tick, y)
        parts += [
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>',
            f'<text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{tick:g}</text>',
        ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    title = escape(x.title)
    return [*parts, f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{title}</text>']


def _path(points: Sequence[Point], x: Axis, y: Axis, kind: str) -> str:
    corners = " ".join(f"{_across(a, x)},{_down(b, y)}" for a, b in points)
    return f'<polyline class="{kind}" fill="none" points="{corners}"/>'


def _dots(line: Line, x: Axis, y: Axis, number: int) -> list[str]:
    return [
        f'<circle class="dot d{number}" cx="{_across(a, x)}" cy="{_down(b, y)}" '
        f'r="{2 + 7 * weight**0.5:.1f}"/>'
        for (a, b), weight in zip(line.points, line.weights, strict=False)
    ]


def _across(value: float, x: Axis) -> float:
    return round(LEFT + x.place(value) * (WIDTH - LEFT - RIGHT), 1)


def _down(value: float, y: Axis) -> float:
    return round(HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM), 1)
