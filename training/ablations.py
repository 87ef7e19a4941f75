"""Recipes with a part of the generators left out, so that what it is worth can be measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from training.recipes import Recipe

PARTS: dict[str, dict[str, dict[str, Any]]] = {
    "book": {"mask_generator": {"pages": 0}, "defect_generator": {"pages": 0}},
    "modulation": {"defect_generator": {"modulated": False}},
    "focus": {"defect_generator": {"focused": False}},
    "image-critics": {
        "mask_generator": {"image_weight": 0.0},
        "defect_generator": {"image_weight": 0.0},
    },
    "region-critics": {
        "mask_generator": {"region_weight": 0.0},
        "defect_generator": {"region_weight": 0.0},
    },
    "boundary": {"mask_generator": {"boundary_weight": 0.0}},
    "reconstruction": {
        "defect_generator": {"reconstruction_weight": 0.0, "texture_weight": 0.0},
    },
    "visibility": {"defect_generator": {"visibility_weight": 0.0}},
}
"""What can be left out: for each part, what of which stage's recipe is set to nothing."""


def leave_out(recipe: Recipe, parts: Iterable[str]) -> Recipe:
    """The recipe without these PARTS; its name says so, also in what is sealed."""
    for part in parts:
        for stage, changes in PARTS[part].items():
            recipe = replace(recipe, **{stage: replace(getattr(recipe, stage), **changes)})
        recipe = replace(recipe, name=f"{recipe.name}-without-{part}")
    return recipe
