"""What an inspection looks at and what it lets pass: the zones and the rules of a product."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.frozen import Frozen, Name, Score

Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]
Point = tuple[Coordinate, Coordinate]
Measure = Literal["area_px", "area_mm", "length_px", "length_mm", "width_px", "width_mm"]
"""What a rule can bound; `area_mm` in square millimetres."""


class Zone(Frozen):
    """A polygon in which a pixel lies when its centre does.

    frame: what the points are shares of, from its top left corner: the picture's width and height,
    or those of the object's box as it is found; or `px`, plain pixels of the picture.
    """

    points: tuple[Point, ...] = Field(min_length=3, max_length=1024)
    frame: Literal["picture", "object", "px"] = "picture"


class Zones(Frozen):
    """Where defects are looked for: in `look`, on the object if so asked, and not in `ignore`.

    A region counts, whole, where at least `least_share` of its pixels, and at least one, lie there.
    """

    look: tuple[Zone, ...] = Field(default=(), max_length=64, description="empty: everywhere")
    ignore: tuple[Zone, ...] = Field(default=(), max_length=64, description="where nobody cares")
    on_object: bool = Field(default=False, description="only on the object, as it is found")
    least_share: Score = Field(default=0.5, description="of a region, to count")


class Rule(Frozen):
    """A kind of defect that is tolerated, up to a number; one more, and all of them count.

    A defect falls under the first rule that names its label (or none) and all of whose limits it
    stays under; one that is truncated, and so larger than it looks, stays under none. What falls
    under no rule counts.
    """

    label: Name | None = Field(default=None, description="default: every label")
    under: dict[Measure, Annotated[float, Field(gt=0.0)]] = Field(
        default={}, description="measure -> limit that it stays under"
    )
    allowed: int | None = Field(default=None, ge=0, description="most in a picture; default: any")


def require_rules(
    rules: tuple[Rule, ...], labels: tuple[str, ...], mm_per_px: float | None
) -> None:
    """Errors: ValueError for a label that nobody finds, or millimetres without a scale."""
    for rule in rules:
        if rule.label is not None and rule.label not in labels:
            raise ValueError(f"there is no label {rule.label}")
        if mm_per_px is None and any(measure.endswith("_mm") for measure in rule.under):
            raise ValueError("millimetres need the camera's scale")
