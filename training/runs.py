"""What a run's folder says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.ablations import leave_out
from training.experiments import named_recipe
from training.recipes import Recipe


def about_run(run: Path) -> dict[str, Any]:
    """Product, recipe, data and licence, as they were imported."""
    return dict(json.loads((run / "run.json").read_text()))


def read_recipe(run: Path) -> Recipe:
    """The recipe that a run was imported for, without what it leaves out."""
    about = about_run(run)
    recipe = named_recipe(about["recipe"], largest_defect_px=about["largest_defect_px"])
    return leave_out(recipe, about.get("without", ()))
