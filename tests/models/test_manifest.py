from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from models.bundle import Bundle
from models.inspection import Zones
from models.manifest import Manifest


@pytest.fixture
def content(tiny_root: Path) -> dict[str, Any]:
    """A sound manifest as its file has it, to be spoilt."""
    loaded: dict[str, Any] = json.loads((tiny_root / "tiny/1/manifest.json").read_text())
    return loaded


def test_a_manifest_comes_back_from_json_as_it_was(tiny: Bundle) -> None:
    written = tiny.manifest.model_dump_json()

    assert Manifest.model_validate_json(written) == tiny.manifest


def test_a_value_is_never_changed(tiny: Bundle) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        tiny.manifest.detection.n = 3  # type: ignore[misc]


def test_a_label_without_a_shape_is_refused(content: dict[str, Any]) -> None:
    del content["synthesis"]["shapes"]["scratch"]

    with pytest.raises(ValidationError, match=r"lacks \['scratch'\]"):
        Manifest.model_validate(content)


def test_a_locator_that_says_no_kind_is_a_heatmap(content: dict[str, Any]) -> None:
    del content["graphs"]["locator"]["kind"]

    assert Manifest.model_validate(content).graphs.locator.kind == "heatmap"


def test_a_deeppose_without_the_size_of_its_look_is_refused(content: dict[str, Any]) -> None:
    content["graphs"]["locator"]["kind"] = "deeppose"

    with pytest.raises(ValidationError, match="needs look_hw"):
        Manifest.model_validate(content)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("detection", "n", 0),
        ("detection", "n", 65),
        ("detection", "crop_size_px", 0),
        ("detection", "min_confidence", 1.1),
        ("detection", "min_score", -0.1),
        ("detection", "mask_threshold", math.nan),
        ("detection", "largest_defect_px", math.inf),
        ("detection", "peak_rule", "random"),
        ("detection", "review_score", 1.1),
        ("detection", "extra_crops", -1),
        ("detection", "merge_gap_px", 0.5),
        ("limits", "min_side_px", 0),
        ("synthesis", "max_attempts", 0),
        ("synthesis", "feather_px", 0.0),
        ("synthesis", "site_candidates", 0),
    ],
)
def test_a_number_without_a_meaning_is_refused(
    content: dict[str, Any], part: str, field: str, value: object
) -> None:
    content[part][field] = value

    with pytest.raises(ValidationError, match=rf"{part}\.{field}"):
        Manifest.model_validate(content)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("product", "../plate"),
        ("product", "Plate"),
        ("product", ""),
        ("version", "1/2"),
        ("version", "1.2.3.4"),
        ("version", "latest"),
        ("labels", []),
        ("schema_version", 0),
    ],
)
def test_a_name_that_is_no_safe_folder_or_says_nothing_is_refused(
    content: dict[str, Any], field: str, value: object
) -> None:
    content[field] = value

    with pytest.raises(ValidationError, match=field):
        Manifest.model_validate(content)


def test_an_unknown_field_is_refused_for_it_may_change_the_meaning(
    content: dict[str, Any],
) -> None:
    content["detection"]["min_confidense"] = 0.5

    with pytest.raises(ValidationError, match="min_confidense"):
        Manifest.model_validate(content)


def test_a_manifest_from_before_fingerprints_and_contexts_is_read_and_asks_for_neither(
    content: dict[str, Any],
) -> None:
    del content["synthesis"]["site_candidates"]
    for shape in content["synthesis"]["shapes"].values():
        del shape["fingerprints"], shape["copy_similarity"], shape["contexts"]

    synthesis = Manifest.model_validate(content).synthesis

    shape = synthesis.shapes["scratch"]
    assert (shape.fingerprints, shape.copy_similarity, shape.contexts) == ((), 1.0, "")
    assert synthesis.site_candidates == 1


@pytest.mark.parametrize(
    "fingerprints",
    [["AAAA"], ["é" * 684], [1], ["A" * 683 + "="] * 257],
    ids=["short", "other", "number", "many"],
)
def test_fingerprints_that_are_none_or_too_many_are_refused(
    content: dict[str, Any], fingerprints: list[Any]
) -> None:
    content["synthesis"]["shapes"]["pit"]["fingerprints"] = fingerprints

    with pytest.raises(ValidationError, match="fingerprints"):
        Manifest.model_validate(content)


@pytest.mark.parametrize(
    "contexts",
    ["A" * 143, "A" * 145, "A" * 143 + "=", "A" * 143 + "é", "A" * 144 + "\n", 1, ["A" * 144]],
    ids=["short", "long", "padded", "other", "line", "number", "list"],
)
def test_contexts_that_are_not_whole_rows_are_refused(
    content: dict[str, Any], contexts: object
) -> None:
    content["synthesis"]["shapes"]["pit"]["contexts"] = contexts

    with pytest.raises(ValidationError, match=r"shapes\.pit\.contexts"):
        Manifest.model_validate(content)


def test_a_manifest_from_before_zones_and_rules_is_read_and_asks_for_none(
    content: dict[str, Any],
) -> None:
    for name in ("review_score", "extra_crops", "merge_gap_px", "zones", "rules"):
        del content["detection"][name]

    params = Manifest.model_validate(content).detection

    assert (params.review_score, params.merge_gap_px, params.rules) == (None, 0, ())
    assert (params.zones, params.extra_crops) == (Zones(), 4)


def test_the_limit_of_doubt_is_the_least_score_where_there_is_none_or_a_greater(
    tiny: Bundle,
) -> None:
    params = tiny.manifest.detection

    assert params.doubt_score == params.min_score == 0.5
    assert params.model_copy(update={"review_score": 0.3}).doubt_score == 0.3
    assert params.model_copy(update={"review_score": 0.7}).doubt_score == 0.5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"review_score": 0.6}, "above min_score"),
        ({"rules": [{"label": "dent"}]}, "no label dent"),
        ({"rules": [{"under": {"length_mm": 1.0}}]}, "scale"),
        ({"rules": [{}] * 65}, "64"),
    ],
    ids=["doubt", "label", "scale", "number"],
)
def test_limits_that_nothing_could_be_held_to_are_refused(
    content: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    content["detection"] |= change

    with pytest.raises(ValidationError, match=reason):
        Manifest.model_validate(content)


def test_a_rule_in_millimetres_is_taken_where_the_scale_is_known(content: dict[str, Any]) -> None:
    content["detection"]["rules"] = [{"label": "pit", "under": {"length_mm": 1.0}}]
    content["calibration"] = {"mm_per_px": 0.02}

    (rule,) = Manifest.model_validate(content).detection.rules

    assert rule.under == {"length_mm": 1.0}
