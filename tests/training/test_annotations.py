from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.annotations import (
    AnnotationMalformed,
    finite_points,
    label_of,
    load_json,
    need,
    whole_numbers,
)

FILE = Path("a.json")


def test_a_malformed_field_is_named_with_its_file_and_its_place():
    with pytest.raises(AnnotationMalformed, match=r"^a\.json: images\[2\]\.id: is missing$"):
        need({}, "id", int, FILE, "images[2]")


def test_a_field_of_another_kind_is_refused():
    assert need({"id": 3}, "id", int, FILE, "") == 3
    with pytest.raises(AnnotationMalformed, match="id: is not a str"):
        need({"id": 3}, "id", str, FILE, "")


def test_a_file_that_is_missing_or_no_json_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("{")

    for name in ("a.json", "lost.json"):
        with pytest.raises(AnnotationMalformed, match=f"{name}: JSON"):
            load_json(tmp_path / name)


@pytest.mark.parametrize("values", [[1, -1], [0.5], ["1"]])
def test_what_is_no_whole_number_is_refused(values):
    assert whole_numbers([0, 7], FILE, "counts") == [0, 7]
    with pytest.raises(AnnotationMalformed, match="counts: are not whole numbers"):
        whole_numbers(values, FILE, "counts")


@pytest.mark.parametrize("values", [[[1.0]], [[1.0, "x"]], [[1.0, float("inf")]], [1.0, 2.0]])
def test_what_is_no_finite_pair_is_refused(values):
    assert np.array_equal(finite_points([[1, 2]], FILE, "points"), [[1.0, 2.0]])
    with pytest.raises(AnnotationMalformed, match="points: are not"):
        finite_points(values, FILE, "points")


@pytest.mark.parametrize(
    ("text", "label"), [("Deep Pit", "deep-pit"), ("MT_Blowhole", "mt-blowhole"), (" a1 ", "a1")]
)
def test_a_label_is_small_letters_digits_and_dashes(text, label):
    assert label_of(text, FILE, "label") == label


@pytest.mark.parametrize("text", ["", "§", "-pit", "x" * 64])
def test_a_label_that_no_manifest_could_name_is_refused(text):
    with pytest.raises(AnnotationMalformed, match=r"label: .* is no name"):
        label_of(text, FILE, "label")
