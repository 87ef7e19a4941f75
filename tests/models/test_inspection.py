from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError

from models.inspection import Rule, Zone, Zones, require_rules

SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))


def test_zones_and_rules_come_back_from_json_as_they_were() -> None:
    zones = Zones(look=(Zone(points=SQUARE, frame="object"),), on_object=True, least_share=0.2)
    rule = Rule(label="pit", under={"area_px": 40.0, "length_mm": 1.5}, allowed=3)

    assert Zones.model_validate_json(zones.model_dump_json()) == zones
    assert Rule.model_validate_json(rule.model_dump_json()) == rule


@pytest.mark.parametrize(
    "zone",
    [
        {"points": SQUARE[:2]},
        {"points": [(0, 0)] * 1025},
        {"points": [*SQUARE, (math.nan, 0)]},
        {"points": [*SQUARE, (1e7, 0)]},
        {"points": SQUARE, "frame": "cm"},
    ],
    ids=["two points", "too many", "nan", "far", "frame"],
)
def test_a_zone_that_is_no_polygon_of_a_known_frame_is_refused(zone: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Zone.model_validate(zone)


@pytest.mark.parametrize(
    "rule",
    [
        {"under": {"area_px": 0}},
        {"under": {"area_cm": 1}},
        {"under": {"area": 1}},
        {"allowed": -1},
        {"label": "No Name"},
        {"over": {"area_px": 1}},
    ],
    ids=json.dumps,
)
def test_a_rule_without_a_meaning_is_refused(rule: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Rule.model_validate(rule)


def test_a_rule_needs_a_label_that_is_found_and_a_scale_for_millimetres() -> None:
    by_mm, by_px = Rule(under={"width_mm": 1.0}), Rule(label="pit", under={"width_px": 1.0})

    require_rules((by_mm, by_px), ("pit",), 0.1)
    require_rules((by_px,), ("pit",), None)

    with pytest.raises(ValueError, match="scale"):
        require_rules((by_mm,), ("pit",), None)
    with pytest.raises(ValueError, match="no label pit"):
        require_rules((by_px,), ("crack",), 0.1)
