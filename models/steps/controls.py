"""What a data team asks of its samples: labels and their shares, sizes, contrasts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.errors import ParameterInvalid
from models.steps.checks import MAX_DEFECT_SIDE_PX

MOST_SHARE = 1e9
"""A greater share of a label is a slip, and could overflow."""


@dataclass(frozen=True)
class Labels:
    """The labels that may be drawn, by index, and how often; `odds` None: each as often."""

    indices: tuple[int, ...]
    odds: tuple[float, ...] | None = None

    def draw(self, rng: np.random.Generator) -> int:
        """One of them."""
        return int(rng.choice(self.indices, p=self.odds))


def choose_labels(
    known: tuple[str, ...], label: str | None, shares: Mapping[str, float] | None
) -> Labels:
    """The one label, or the shares of several, or all that are known where neither is asked for.

    Errors: ParameterInvalid for an unknown label, a share that is not positive, and for both.
    """
    if shares is None:
        return Labels(
            tuple(range(len(known))) if label is None else (_index("label", label, known),)
        )
    if label is not None:
        raise ParameterInvalid("labels", "has no use beside `label`: ask for one of them")
    indices = tuple(_index("labels", name, known) for name in shares)
    if not shares or not all(0 < share <= MOST_SHARE for share in shares.values()):
        raise ParameterInvalid("labels", f"each share must be above 0 and at most {MOST_SHARE:g}")
    total = math.fsum(shares.values())
    return Labels(indices, tuple(share / total for share in shares.values()))


def parse_shares(text: str) -> dict[str, float]:
    """`pitting:3,scratch:1` as numbers by label. Errors: ParameterInvalid."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        label, _, share = part.partition(":")
        if label in shares:
            raise ParameterInvalid("labels", f"names {label[:64]} twice")
        try:
            shares[label] = float(share)
        except ValueError:
            raise ParameterInvalid("labels", "is no list like `pitting:3,scratch:1`") from None
    return shares


def require_sizes(
    size_px: tuple[int, int], hw: tuple[int, int], region: tuple[int, int, int, int] | None
) -> None:
    """Refuse a range of longest sides that has no order, or no room. Errors: ParameterInvalid.

    A defect is made in a square within the picture, with a rim of a pixel around it.
    """
    least, most = size_px
    if not 1 <= least <= most:
        raise ParameterInvalid("size_px", "must be min,max with 1 <= min <= max")
    room = min(MAX_DEFECT_SIDE_PX, min(hw) - 2)
    if most > room:
        raise ParameterInvalid(
            "size_px", f"at most {room} px can be painted in a picture of {hw[1]} × {hw[0]} px"
        )
    if region is not None and least > max(region[2:]):
        raise ParameterInvalid("size_px", f"{least} px do not fit into the region")


def require_contrasts(contrast: tuple[float, float], visible: Mapping[str, float]) -> None:
    """Refuse a range that has no order, or lies under what is visible.

    visible: label -> the least visible contrast of its defects, grey levels of 255.
    Errors: ParameterInvalid.
    """
    least, most = contrast
    if not 0 < least <= most <= 255:
        raise ParameterInvalid("contrast", "must be min,max with 0 < min <= max <= 255")
    label = max(visible, key=lambda name: visible[name])
    if most < visible[label]:
        raise ParameterInvalid(
            "contrast",
            f"{label} is visible from {visible[label]:g} grey levels on: ask for at least that",
        )


def _index(field: str, label: str, known: tuple[str, ...]) -> int:
    if label not in known:
        raise ParameterInvalid(field, f"is none of {', '.join(known)}")
    return known.index(label)
