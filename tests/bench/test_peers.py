from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.bundle import open_bundle
from models.devices import Device
from models.steps.pictures import encode_png
from tests.bench.methods import MASK_THRESHOLDS, story_methods
from tests.bench.peers import (
    COLUMNS,
    Row,
    main,
    measure_methods,
    measure_times,
    spread,
    table_of,
)
from tests.tiny import write_tiny_bundle
from training.data import Record, load_dataset, store_samples
from training.importers import import_folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundles")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of black pictures with red squares, none of whose networks is trained."""
    pictures, folder = tmp_path / "pictures", tmp_path / "run"
    lines = ["image,group,split"]
    for index in range(8):
        pixels, mask = np.zeros((96, 128, 3), np.uint8), np.zeros((96, 128), bool)
        if index % 2:
            pixels[20:30, 40:52, 0] = 255
            mask[20:30, 40:52] = True
            write(pictures / "masks" / "spot" / f"{index}.png", mask)
        write(pictures / "images" / f"{index}.png", pixels)
        lines.append(f"{index}.png,{index},{'train' if index < 4 else 'val'}")
    (pictures / "split.csv").write_text("\n".join(lines))
    folder.mkdir()
    store_samples(import_folder(pictures), folder, val_share=0.5, seed=0)
    about = {"recipe": "trial", "largest_defect_px": 12.0, "product": "tiny"}
    (folder / "run.json").write_text(json.dumps(about))
    return folder


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(pixels))


def test_one_command_prints_every_method_that_there_is(run, bundle, capsys, tmp_path):
    out = tmp_path / "figures.json"
    asked = ["--only", "tiny", "slicing", "whole", "--threads", "1", "--out", str(out)]

    status = main(["--run", str(run), "--bundle", str(bundle), *asked])

    said = capsys.readouterr()
    assert status == 0
    assert "4 pictures of 0.0 to 0.0 MP, 2 with 2 defects; 1 threads" in said.out
    rows = {line.split(" | ")[0].strip("| ") for line in said.out.splitlines()[1:]}
    assert {"tiny 1, as calibrated", "tiny 1, every peak", "batched slicing"} <= rows
    assert "whole.pt is not trained" in said.err
    told = {row["method"]: row["figures"] for row in json.loads(out.read_text())}
    assert told["batched slicing"]["recall_at_0.1_false_regions"] == 1.0
    assert told["tiny 1, every peak"]["coverage_at_5"] == 1.0


def test_a_bundle_that_is_not_there_is_said_in_one_line(run, tmp_path, capsys):
    assert main(["--run", str(run), "--bundle", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("BundleMissing")


def test_every_figure_of_a_method_is_measured(run, bundle):
    records = load_dataset(run).val

    calibrated, every = measure_methods(
        records, story_methods(open_bundle(bundle, Device("cpu", 1)))
    )

    assert every.mask_threshold in MASK_THRESHOLDS
    for row in (calibrated, every):
        assert row.figures["image_auroc"] == row.figures["pixel_dice"] == 1.0
        assert 0 < row.figures["p50_ms"] <= row.figures["p95_ms"]
        assert row.figures["mp_per_s"] > 0


def test_a_figure_that_a_method_has_not_is_a_dash():
    table = table_of([Row("a", 0.5, {"pixel_dice": 0.25})], COLUMNS)

    heads, _, cells = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
    )
    assert dict(zip(heads, cells, strict=True))["Dice"] == "0.250"
    assert cells.count("–") == len(COLUMNS) - 1


@pytest.mark.parametrize(("count", "names"), [(0, "abcde"), (9, "abcde"), (3, "ace")])
def test_some_pictures_are_taken_evenly(count, names):
    image, labels = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    records = tuple(Record(name, name, image, labels) for name in "abcde")

    assert "".join(record.name for record in spread(records, count)) == names


def test_times_are_medians_of_pictures_of_like_size_and_absent_where_there_are_none():
    records = [
        Record(
            str(i), str(i), np.zeros((side, 1000, 3), np.uint8), np.zeros((side, 1000), np.uint8)
        )
        for i, side in enumerate((100, 500, 900, 5000))
    ]

    figures = measure_times(records, [0.001, 0.003, 0.002, 0.5])

    assert figures == {"ms_from_0_mp": pytest.approx(2.0), "ms_from_4_mp": pytest.approx(500.0)}
