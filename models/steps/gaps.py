"""Parts of one defect that a little gap keeps apart, joined."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from models.arrays import Mask


class Link(NamedTuple):
    """The shortest way between two parts, from pixel to pixel (x, y)."""

    gap_px: float
    parts: tuple[int, int]
    start_xy: tuple[int, int]
    end_xy: tuple[int, int]


def bridge_gaps(mask: Mask, gap_px: int, label_scores: NDArray[np.floating]) -> Mask:
    """A mask in which near parts of one label hang together by a line one pixel wide.

    Two parts are near where at most gap_px other pixels lie between them, as the crow flies. The
    shortest links are drawn first and none that would close a ring, so the area grows little and
    no hole is made. A part's label is the one with the greatest sum of scores.

    Shapes: mask (h, w), label_scores (labels, h, w) -> a new mask where something is joined.
    """
    if gap_px == 0:
        return mask
    count, *found = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask).view(np.uint8), connectivity=4, ltype=cv2.CV_32S
    )
    parts, stats = np.asarray(found[0], np.int32), np.asarray(found[1], np.int32)
    near = _near_pairs(stats, gap_px)
    labels = {part: _label_of(part, parts, stats, label_scores) for pair in near for part in pair}
    links = [
        link
        for part in range(1, count)
        for link in _links_of(
            part,
            [b for a, b in near if a == part and labels[a] == labels[b]],
            parts,
            stats,
            gap_px,
        )
    ]
    bridged = mask.astype(np.uint8)
    for link in _without_rings(sorted(links)):
        cv2.line(bridged, link.start_xy, link.end_xy, 1, 1, cv2.LINE_4)
    return bridged.view(bool)


def _near_pairs(stats: NDArray[np.int32], gap_px: int) -> list[tuple[int, int]]:
    """Pairs of parts, the lesser first, whose boxes are no farther apart."""
    corner, size = stats[1:, :2], stats[1:, 2:4]
    pairs = []
    for index in range(len(corner) - 1):
        later = slice(index + 1, None)
        before = corner[index] - corner[later] - size[later]
        after = corner[later] - corner[index] - size[index]
        is_near = (np.maximum(before, after) <= gap_px).all(axis=1)
        pairs += [(index + 1, int(other) + index + 2) for other in np.flatnonzero(is_near)]
    return pairs


def _label_of(
    part: int,
    parts: NDArray[np.int32],
    stats: NDArray[np.int32],
    label_scores: NDArray[np.floating],
) -> int:
    x, y, width, height = stats[part, :4]
    box = np.s_[y : y + height, x : x + width]
    return int(np.argmax(label_scores[:, *box][:, parts[box] == part].sum(axis=1, dtype=float)))


def _links_of(
    part: int, others: list[int], parts: NDArray[np.int32], stats: NDArray[np.int32], gap_px: int
) -> list[Link]:
    """The shortest links from one part to the others, where they are short enough."""
    if not others:
        return []
    x, y, width, height = (int(value) for value in stats[part, :4])
    reach = gap_px + 1
    left, top = max(0, x - reach), max(0, y - reach)
    around = parts[top : y + height + reach, left : x + width + reach]
    apart, nearest = cv2.distanceTransformWithLabels(
        (around != part).view(np.uint8),
        cv2.DIST_L2,
        cv2.DIST_MASK_5,
        labelType=cv2.DIST_LABEL_PIXEL,
    )
    rows_of_part, columns_of_part = np.nonzero(around == part)
    links = []
    for other in others:
        rows, columns = np.nonzero(around == other)
        if not len(rows):
            continue
        closest = int(apart[rows, columns].argmin())
        row, column = int(rows[closest]), int(columns[closest])
        own = np.flatnonzero(nearest[rows_of_part, columns_of_part] == nearest[row, column])[0]
        own_row, own_column = int(rows_of_part[own]), int(columns_of_part[own])
        gap = float(np.hypot(row - own_row, column - own_column)) - 1.0
        if gap <= gap_px:
            ends = (own_column + left, own_row + top), (column + left, row + top)
            links.append(Link(gap, (part, other), *ends))
    return links


def _without_rings(links: list[Link]) -> list[Link]:
    """Only links between parts that no link before joins (Kruskal 1956)."""
    group: dict[int, set[int]] = {}
    kept = []
    for link in links:
        one, other = (group.setdefault(part, {part}) for part in link.parts)
        if one is other:
            continue
        kept.append(link)
        one |= other
        group.update(dict.fromkeys(other, one))
    return kept
