from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.__main__ import main


def test_import_leaves_a_run_that_says_where_it_comes_from(tmp_path, mask_folder):
    run = tmp_path / "run"
    where = ["--data", str(mask_folder), "--run", str(run)]
    about = ["--licence", "CC0-1.0", "--citation", "nobody"]

    status = main(["import", "--product", "speck", "--recipe", "trial", *where, *about])

    said = json.loads((run / "run.json").read_text())
    assert status == 0
    assert said["product"] == "speck"
    assert said["recipe"] == "trial"
    assert (said["licence"], said["citation"]) == ("CC0-1.0", "nobody")
    assert said["largest_defect_px"] == 18.0


def test_a_product_of_no_recipe_of_its_own_gets_the_standard_one(tmp_path, mask_folder):
    main(["import", "--data", str(mask_folder), "--product", "speck", "--run", str(tmp_path)])

    assert json.loads((tmp_path / "run.json").read_text())["recipe"] == "standard"


def test_what_is_refused_is_said_in_one_line(tmp_path, capsys):
    status = main(
        ["import", "--data", str(tmp_path / "none"), "--product", "speck", "--run", str(tmp_path)]
    )

    said = capsys.readouterr().err
    assert status == 2
    assert said.startswith("AnnotationMalformed: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("step", ["fit", "export", "evaluate", "seal"])
def test_a_run_that_was_not_imported_is_refused(tmp_path, capsys, step):
    options = ["--to", str(tmp_path)] if step == "seal" else []

    assert main([step, "--run", str(tmp_path / "none"), *options]) == 2
    assert "none" in capsys.readouterr().err


def test_a_run_that_was_not_exported_is_not_evaluated(tmp_path, mask_folder, capsys):
    main(["import", "--data", str(mask_folder), "--product", "speck", "--run", str(tmp_path)])

    assert main(["evaluate", "--run", str(tmp_path)]) == 2
    assert "export it first" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["import", "--data", ".", "--product", "No Name", "--run", "r"],
        ["import", "--data", ".", "--product", "speck", "--run", "r", "--recipe", "unknown"],
        ["fit"],
        [],
    ],
)
def test_a_command_that_cannot_be_meant_is_refused_before_anything_is_done(capsys, arguments):
    with pytest.raises(SystemExit) as refusal:
        main(arguments)

    assert refusal.value.code == 2
    assert "usage" in capsys.readouterr().err
    assert not Path("r").exists()
