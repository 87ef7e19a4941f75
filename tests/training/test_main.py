from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from models.__main__ import main as models
from tests.tiny import write_tiny_bundle
from training.__main__ import main
from training.data import load_dataset
from training.downstream import FIGURES, Result
from training.experiments import trial
from training.trainers.stages import new_defect_generator, new_mask_generator


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


@pytest.mark.parametrize("step", ["fit", "export", "evaluate", "seal", "report"])
def test_a_run_that_was_not_imported_is_refused(tmp_path, capsys, step):
    options = ["--to", str(tmp_path)] if step == "seal" else []

    assert main([step, "--run", str(tmp_path / "none"), *options]) == 2
    assert "none" in capsys.readouterr().err


def test_a_few_shot_run_says_which_pictures_it_was_left(tmp_path, mask_folder, capsys):
    few = ["--shots", "3", "--shots-seed", "5"]

    main(["import", "--data", str(mask_folder), "--product", "speck", "--run", str(tmp_path), *few])

    said = json.loads((tmp_path / "run.json").read_text())
    data = load_dataset(tmp_path)
    assert said["shots"] == [Path(r.name).name for r in data.train_defects]
    assert said["shots_seed"] == 5
    assert len(data.train_defects) == 3
    assert {f.label for r in data.train_defects for f in r.flaws} == {1, 2}
    assert len(data.train_normals) == 6
    assert len(data.val) == 9
    assert f"shots: {', '.join(said['shots'])}" in capsys.readouterr().out


def test_a_run_of_some_labels_knows_no_others(tmp_path, mask_folder):
    kept = ["--labels", "scratch"]

    main(
        ["import", "--data", str(mask_folder), "--product", "speck", "--run", str(tmp_path), *kept]
    )

    data = load_dataset(tmp_path)
    assert data.labels == ("scratch",)
    assert len(data.train) == 12
    assert json.loads((tmp_path / "run.json").read_text())["labels"] == ["scratch"]


def test_fewer_shots_than_labels_are_refused(tmp_path, mask_folder, capsys):
    given = ["--data", str(mask_folder), "--run", str(tmp_path / "run"), "--shots", "1"]

    assert main(["import", "--product", "speck", *given]) == 2
    assert "shots: 1 cannot show all 2 labels" in capsys.readouterr().err


def test_what_pairs_are_worth_is_measured_and_printed(tmp_path, mask_folder, capsys):
    about = ["--data", str(mask_folder), "--product", "speck", "--recipe", "trial"]
    main(["import", *about, "--run", str(tmp_path)])
    arms = ["--arms", "real", "copy-paste"]

    status = main(["evaluate", "--run", str(tmp_path), "--downstream", *arms, "--seeds", "1"])

    said = capsys.readouterr().out
    assert status == 0
    assert "copy-paste (1 seeds)" in said
    assert {f.name for f in (tmp_path / "downstream").glob("*.json")} == {
        "real.0.json",
        "copy-paste.0.json",
    }


def test_a_run_without_a_part_trains_without_it(tmp_path, mask_folder):
    about = ["--data", str(mask_folder), "--product", "speck", "--recipe", "trial"]
    main(["import", *about, "--run", str(tmp_path), "--without", "book", "modulation"])

    status = main(["fit", "--run", str(tmp_path), "--only", "mask_generator", "defect_generator"])

    assert status == 0
    weights = torch.load(tmp_path / "defect_generator.pt", weights_only=True)
    assert not any(name.startswith("book.") for name in weights)
    assert not any(".film." in name for name in weights if name.startswith("modulations"))


def test_a_linear_segmenter_has_results_of_its_own(tmp_path, mask_folder, capsys):
    about = ["--data", str(mask_folder), "--product", "speck", "--recipe", "trial"]
    main(["import", *about, "--run", str(tmp_path)])
    asked = ["--downstream", "--segmenter", "linear", "--arms", "classic", "--seeds", "1"]

    status = main(["evaluate", "--run", str(tmp_path), *asked])

    assert status == 0
    assert "classic (1 seeds)" in capsys.readouterr().out
    assert (tmp_path / "downstream-linear" / "classic.0.json").exists()
    assert not (tmp_path / "downstream").exists()


def test_pairs_of_generators_that_were_not_trained_are_refused(tmp_path, mask_folder, capsys):
    main(["import", "--data", str(mask_folder), "--product", "speck", "--run", str(tmp_path)])

    status = main(["evaluate", "--run", str(tmp_path), "--downstream", "--arms", "ours"])

    assert status == 2
    assert "mask_generator.pt" in capsys.readouterr().err


@pytest.fixture
def few_shot_run(tmp_path: Path, mask_folder: Path) -> Path:
    """A run of two defect pictures, with untrained generators of dark discs and nothing else."""
    run, few = tmp_path / "run", ["--shots", "2"]
    about = ["--product", "speck", "--recipe", "trial", "--run", str(run)]
    main(["import", "--data", str(mask_folder), *about, *few])
    masks = new_mask_generator(trial(), 2)
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, masks.side_px)] * 2, indexing="ij")
    masks.book.pages.data[:] = 1 - 2 * torch.hypot(rows, columns)
    torch.save(masks.state_dict(), run / "mask_generator.pt")
    write_defect_generator(run, darkness=1.0)
    return run


def write_defect_generator(run: Path, *, darkness: float) -> None:
    torch.manual_seed(0)
    defects = new_defect_generator(trial(), 2)
    defects.book.pages.data[:] = -darkness
    torch.save(defects.state_dict(), run / "defect_generator.pt")


def test_the_fidelity_of_every_arm_is_printed_for_a_few_shot_run(few_shot_run, capsys):
    capsys.readouterr()

    status = main(["evaluate", "--run", str(few_shot_run), "--fidelity", "--samples", "2"])

    table, _, promises = capsys.readouterr().out.partition("\n\n")
    told = dict(line.split() for line in promises.splitlines())
    assert status == 0
    arms = [line.split()[0] for line in table.splitlines()[1:]]
    assert arms[:4] == ["ours", "copy-paste", "perlin", "poisson"]
    assert told["promise_identical"] == told["made"] == "1.0000"
    assert "rejection_rate" in told


def test_what_our_pairs_are_worth_is_measured_anew_for_other_weights(few_shot_run):
    told = ["evaluate", "--run", str(few_shot_run), "--downstream", "--arms", "ours"]
    file = few_shot_run / "downstream" / "ours.0.json"
    origins = []

    for darkness in (1.0, 1.0, 0.8):
        write_defect_generator(few_shot_run, darkness=darkness)
        assert main([*told, "--seeds", "1"]) == 0
        origins.append(json.loads(file.read_text())["origin"])

    assert origins[0] == origins[1] != origins[2]


def test_a_few_shot_run_is_reported_with_what_its_pairs_are_worth(few_shot_run, tmp_path, capsys):
    results = few_shot_run / "downstream"
    results.mkdir()
    scores = {("classic", 0): 0.25, ("ours", 0): 0.5, ("classic", 1): 0.0, ("ours", 1): 0.0}
    for (arm, seed), value in scores.items():
        result = Result(arm, seed, "", dict.fromkeys(FIGURES, value))
        (results / f"{arm}.{seed}.json").write_text(json.dumps(asdict(result)))
    page = tmp_path / "pages" / "page.html"

    status = main(["report", "--run", str(few_shot_run), "--out", str(page), "--samples", "2"])

    said = page.read_text()
    assert status == 0
    assert capsys.readouterr().out.endswith(f"wrote {page}\n")
    assert "Synthetic defects for speck" in said
    assert "K = 2" in said
    assert "+0.125" in said


def test_a_bundle_is_reported_on_a_runs_pictures(few_shot_run, tmp_path):
    bundle = write_tiny_bundle(tmp_path / "bundles")

    status = main(["report", "--run", str(few_shot_run), "--bundle", str(bundle), "--samples", "2"])

    assert status == 0
    assert "Synthetic defects for tiny" in (few_shot_run / "report.html").read_text()


def test_a_bundle_of_other_labels_is_not_compared_with_a_runs(tmp_path, mask_folder, capsys):
    about = ["--product", "speck", "--recipe", "trial", "--labels", "pit"]
    main(["import", "--data", str(mask_folder), *about, "--run", str(tmp_path / "run")])
    bundle = write_tiny_bundle(tmp_path / "bundles")
    given = ["--run", str(tmp_path / "run"), "--bundle", str(bundle)]

    assert main(["evaluate", *given, "--fidelity"]) == 2
    assert "bundle: knows other labels: pit, scratch" in capsys.readouterr().err


def test_a_bundle_is_measured_on_a_runs_pictures_and_its_errors_are_shown(
    tmp_path, mask_folder, capsys
):
    run, about = tmp_path / "run", ["--product", "speck", "--recipe", "trial"]
    main(["import", "--data", str(mask_folder), *about, "--run", str(run)])
    bundle = write_tiny_bundle(tmp_path / "bundles")
    capsys.readouterr()

    status = main(["evaluate", "--run", str(run), "--bundle", str(bundle), "--samples", "2"])

    *figures, wrote = capsys.readouterr().out.splitlines()
    assert status == 0
    assert wrote == f"wrote {run / 'detection.html'}"
    assert {"coverage_at_5_literal", "look_again_share", "promise_legal"} <= {
        line.split()[0] for line in figures
    }
    assert "Detection of tiny" in (run / "detection.html").read_text()


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
        ["evaluate", "--run", "r", "--fidelity", "--downstream"],
        [],
    ],
)
def test_a_command_that_cannot_be_meant_is_refused_before_anything_is_done(capsys, arguments):
    with pytest.raises(SystemExit) as refusal:
        main(arguments)

    assert refusal.value.code == 2
    assert "usage" in capsys.readouterr().err
    assert not Path("r").exists()


def test_crops_are_proposed_annotated_and_imported(tmp_path, mask_folder, capsys):
    bundle, proposed = write_tiny_bundle(tmp_path / "bundles"), tmp_path / "proposed"
    where = ["--from", str(mask_folder), "--to", str(proposed)]

    assert main(["propose", "--bundle", str(bundle), *where, "--n", "1"]) == 0
    for file in proposed.glob("*.json"):
        file.write_text(file.read_text().replace('"looked_at": false', '"looked_at": true'))
    about = ["--product", "speck", "--recipe", "trial", "--run", str(tmp_path / "run")]
    assert main(["import", "--data", str(mask_folder), str(proposed), *about]) == 0

    assert "wrote 27 crops of 27 pictures" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"] == "pictures, proposed"
    assert len(load_dataset(tmp_path / "run").train) == 18


def test_made_pictures_are_imported_beside_the_others(tmp_path, mask_folder, data, capsys):
    write_tiny_bundle(tmp_path / "bundles")
    normal = next(r.name for r in data.train_normals)
    made = ["--bundles", str(tmp_path / "bundles"), "synthesize", "--product", "tiny"]
    where = ["--region", "0", "0", "128", "96", "--out", str(tmp_path / "made")]
    assert models([*made, *where, "--count", "3", str(mask_folder / "images" / normal)]) == 0
    about = ["--product", "speck", "--run", str(tmp_path / "run"), "--data", str(mask_folder)]

    status = main(["import", *about, "--synthetic", str(tmp_path / "made")])

    assert status == 0
    assert "synthetic: 3 pictures" in capsys.readouterr().out
    assert len(load_dataset(tmp_path / "run").synthetic) == 3


def test_what_pairs_are_worth_to_detection_needs_generators(tmp_path, mask_folder, capsys):
    main(["import", "--data", str(mask_folder), "--product", "speck", "--run", str(tmp_path)])

    assert main(["evaluate", "--run", str(tmp_path), "--feeding"]) == 2
    assert "mask_generator.pt" in capsys.readouterr().err
