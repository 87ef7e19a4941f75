from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.__main__ import main as models
from models.bundle import open_bundle
from models.errors import ParameterInvalid
from models.steps.pictures import Picture, encode_png
from models.synthesis import SynthesisRequest, synthesize
from service.archives import Archive
from tests.tiny import write_tiny_bundle
from training.annotations import AnnotationMalformed
from training.data import Dataset, Record, load_dataset, store_samples
from training.importers import import_folder
from training.pairs import read_pairs, store_pairs


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    write_tiny_bundle(root)
    return root


def make_pairs(normal: Record, bundles: Path, folder: Path, *more: str) -> Path:
    """What `python -m models synthesize` writes."""
    folder.mkdir(exist_ok=True)
    (folder / "normal.png").write_bytes(encode_png(normal.image))
    given = ["--bundles", str(bundles), "synthesize", "--product", "tiny", "--label", "pit"]
    out = ["--count", "2", "--out", str(folder), str(folder / "normal.png")]
    assert models([*given, "--region", "0", "0", "128", "96", *more, *out]) == 0
    return folder


def make_archive(normal: Record, bundles: Path, file: Path) -> Path:
    """What `/synthesize` answers to whoever accepts a zip."""
    synthesizer = open_bundle(bundles / "tiny" / "1").synthesizer
    request = SynthesisRequest(seed=3, count=2, label="pit", region=(0, 0, 128, 96))
    samples = synthesize(Picture(normal.image), request, synthesizer)
    encoded = ((s, encode_png(s.pixels), encode_png(s.mask)) for s in samples)
    hw = (normal.image.shape[0], normal.image.shape[1])
    archive = Archive(encoded, hw, synthesizer.labels, {"product": "tiny"})
    file.write_bytes(b"".join(iter(archive.take, b"")))
    return file


def edit_first(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((folder / "samples.json").read_text())
    change(content["samples"][0]["defects"][0])
    (folder / "samples.json").write_text(json.dumps(content))


@pytest.mark.parametrize("make", [make_pairs, make_archive])
def test_what_was_made_comes_with_its_truth_and_the_group_of_its_normal(
    tmp_path, data, bundles, make
):
    normal = data.train_normals[1]

    pairs = list(read_pairs(make(normal, bundles, tmp_path / "made"), data))

    assert len(pairs) == 2
    for pair in pairs:
        assert pair.group == normal.group
        assert {flaw.label for flaw in pair.flaws} == {1}
        outside = pair.labels == 0
        assert np.array_equal(pair.image[outside], normal.image[outside])
        assert not np.array_equal(pair.image, normal.image)


def test_a_picture_made_of_one_for_validation_is_refused(tmp_path, data, bundles):
    made = make_pairs(data.val_normals[0], bundles, tmp_path)

    with pytest.raises(ParameterInvalid, match=r"image_0000\.png was made of .* for validation"):
        list(read_pairs(made, data))


def test_a_picture_made_of_an_unknown_normal_is_a_group_of_its_own(tmp_path, data, bundles):
    stranger = replace(data.train_normals[0], image=data.train_normals[0].image[::-1].copy())

    pairs = read_pairs(make_pairs(stranger, bundles, tmp_path), data)

    assert {pair.group for pair in pairs} == {"synthetic"}


def test_what_a_defect_picture_showed_before_stays_annotated(tmp_path, data, bundles):
    scratched = next(r for r in data.train_defects if r.flaws[0].label == 2)

    pair = next(read_pairs(make_pairs(scratched, bundles, tmp_path), data))

    assert {flaw.label for flaw in pair.flaws} == {1, 2}


def test_a_label_that_the_run_does_not_know_is_refused(tmp_path, data, bundles):
    made = make_pairs(data.train_normals[0], bundles, tmp_path)
    edit_first(made, lambda defect: defect.update(label="rust"))

    with pytest.raises(ParameterInvalid, match="'rust' is none of pit, scratch"):
        list(read_pairs(made, data))


def test_outlines_that_are_not_the_masks_are_refused(tmp_path, data, bundles):
    made = make_pairs(data.train_normals[0], bundles, tmp_path)
    square = [[1.0, 1.0], [9.0, 1.0], [9.0, 9.0], [1.0, 9.0]]
    edit_first(made, lambda defect: defect["polygon"].update(exterior=square))

    with pytest.raises(AnnotationMalformed, match=r"mask_0000\.png: .* what the outlines enclose"):
        list(read_pairs(made, data))


@pytest.mark.parametrize("lost", ["mask_0001.png", "image_0001.png", "samples.json"])
def test_a_missing_file_is_named(tmp_path, data, bundles, lost):
    made = make_pairs(data.train_normals[0], bundles, tmp_path)
    (made / lost).unlink()

    with pytest.raises(AnnotationMalformed, match=lost):
        list(read_pairs(made, data))


def test_what_is_neither_folder_nor_zip_is_refused(tmp_path, data):
    (tmp_path / "made.zip").write_bytes(b"no zip")

    for name in ("made.zip", "lost"):
        with pytest.raises(AnnotationMalformed, match="is no folder and no zip"):
            list(read_pairs(tmp_path / name, data))


@pytest.fixture
def run(tmp_path: Path, mask_folder: Path) -> Path:
    store_samples(import_folder(mask_folder), tmp_path / "run", val_share=0.2, seed=7)
    return tmp_path / "run"


def some_pairs(data: Dataset, count: int) -> list[Record]:
    return [replace(record, name=f"{i}") for i, record in enumerate(data.train_defects[:count])]


def test_stored_pairs_are_training_pictures_apart_from_the_others(run, data):
    pairs = some_pairs(data, 3)

    stored = store_pairs(pairs, run)

    loaded = load_dataset(run)
    assert stored == len(loaded.synthetic) == 3
    for pair, again in zip(pairs, loaded.synthetic, strict=True):
        assert np.array_equal(pair.image, again.image)
        assert np.array_equal(pair.labels, again.labels)
        assert pair.group == again.group
    assert (len(loaded.train), len(loaded.val)) == (18, 9)


def test_the_index_of_pairs_changes_with_any_pixel_of_theirs(run, data):
    pairs = some_pairs(data, 2)
    other = replace(pairs[1], image=pairs[1].image ^ 1)

    indices = []
    for given in (pairs, pairs, [pairs[0], other]):
        store_pairs(given, run)
        indices.append((run / "synthetic.json").read_text())

    assert indices[0] == indices[1]
    assert indices[0] != indices[2]


def test_a_run_that_is_imported_without_pairs_has_none(run, data):
    store_pairs(some_pairs(data, 2), run)

    assert store_pairs([], run) == 0
    assert load_dataset(run).synthetic == ()
    assert not (run / "synthetic").exists()
