from __future__ import annotations

import json

from training.experiments import trial
from training.runs import about_run, read_recipe

ABOUT = {"product": "my-part", "recipe": "trial", "largest_defect_px": 40.0}


def test_a_run_says_what_it_was_imported_as(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(ABOUT))

    assert about_run(tmp_path) == ABOUT
    assert read_recipe(tmp_path) == trial()


def test_a_run_that_leaves_a_part_out_has_a_recipe_without_it(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(ABOUT | {"without": ["book"]}))

    recipe = read_recipe(tmp_path)

    assert recipe.name == "trial-without-book"
    assert recipe.defect_generator.pages == 0
