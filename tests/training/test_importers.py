from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import digest_of
from models.steps.pictures import encode_png
from training.annotations import AnnotationMalformed
from training.importers import import_folder, import_folders, list_pictures
from training.markings import Sample

HW = (8, 10)
SQUARE = [[2.0, 2.0], [5.0, 2.0], [5.0, 5.0], [2.0, 5.0]]
FLAT = [value for point in SQUARE for value in point]


def write_picture(path: Path, pixels: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(np.zeros((*HW, 3), np.uint8) if pixels is None else pixels))


def write_labelme(folder: Path, *shapes: dict[str, Any]) -> Path:
    write_picture(folder / "images" / "a.png")
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / "a.json").write_text(json.dumps({"shapes": shapes}))
    return folder


def polygon(points: list[list[float]], label: str = "Deep Pit") -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": "polygon"}


def write_coco(folder: Path, segmentation: Any, **changes: Any) -> Path:
    write_picture(folder / "a.png")
    content: dict[str, Any] = {
        "images": [{"id": 3, "file_name": "a.png"}],
        "categories": [{"id": 7, "name": "Pit"}],
        "annotations": [{"image_id": 3, "category_id": 7, "segmentation": segmentation}],
    }
    (folder / "instances.json").write_text(json.dumps(content | changes))
    return folder


def only_mask(samples: list[Sample]) -> np.ndarray:
    ((marking,),) = (sample.markings for sample in samples)
    return marking.draw(HW)


def refusal_of(folder: Path) -> str:
    with pytest.raises(AnnotationMalformed) as refusal:
        draw_all(folder)
    return str(refusal.value)


def draw_all(folder: Path) -> list[np.ndarray]:
    return [m.draw(HW) for sample in import_folder(folder) for m in sample.markings]


def square_mask() -> np.ndarray:
    mask = np.zeros(HW, bool)
    mask[2:5, 2:5] = True
    return mask


def test_a_labelme_polygon_fills_the_pixels_whose_centres_it_encloses(tmp_path):
    samples = import_folder(write_labelme(tmp_path, polygon(SQUARE)))

    assert np.array_equal(only_mask(samples), square_mask())
    assert samples[0].markings[0].label == "deep-pit"


@pytest.mark.parametrize(("shift", "column"), [(0.4, 2), (0.6, 3)])
def test_a_polygon_over_half_a_pixel_takes_it_by_its_centre(tmp_path, shift, column):
    moved = [[x + shift, y] for x, y in SQUARE]

    mask = only_mask(import_folder(write_labelme(tmp_path, polygon(moved))))

    assert np.flatnonzero(mask[3]).tolist() == [column, column + 1, column + 2]


def test_a_labelme_rectangle_is_two_corners_in_any_order(tmp_path):
    shape = {"label": "pit", "points": [[5.0, 5.0], [2.0, 2.0]], "shape_type": "rectangle"}

    assert np.array_equal(only_mask(import_folder(write_labelme(tmp_path, shape))), square_mask())


def test_a_picture_without_a_labelme_file_is_normal(tmp_path):
    folder = write_labelme(tmp_path, polygon(SQUARE))
    write_picture(folder / "images" / "b.png")

    assert [len(sample.markings) for sample in import_folder(folder)] == [1, 0]


def test_labelme_files_may_lie_beside_their_pictures(tmp_path):
    write_picture(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [polygon(SQUARE)]}))

    assert np.array_equal(only_mask(import_folder(tmp_path)), square_mask())


@pytest.mark.parametrize(
    ("shape", "field"),
    [
        ({"points": SQUARE}, "shapes[0].label: is missing"),
        ({"label": 3, "points": SQUARE}, "shapes[0].label: is not a str"),
        (polygon(SQUARE, label="§"), "shapes[0].label"),
        ({"label": "pit"}, "shapes[0].points: is missing"),
        (polygon([[1.0, "x"], [2.0, 2.0], [3.0, 3.0]]), "shapes[0].points"),  # type: ignore[list-item]
        (polygon([[1.0], [2.0], [3.0]]), "shapes[0].points"),
        (polygon([[1.0, float("nan")], [2.0, 2.0], [3.0, 3.0]]), "shapes[0].points"),
        (polygon(SQUARE[:2]), "shapes[0].shape_type"),
        ({"label": "pit", "points": SQUARE, "shape_type": "line"}, "shapes[0].shape_type"),
    ],
)
def test_a_malformed_labelme_shape_is_refused_by_file_and_field(tmp_path, shape, field):
    message = refusal_of(write_labelme(tmp_path, shape))

    assert "a.json" in message
    assert field in message


@pytest.mark.parametrize(("text", "field"), [("{", "JSON"), ("[]", "shapes"), ("{}", "shapes")])
def test_a_labelme_file_that_is_none_is_refused(tmp_path, text, field):
    folder = write_labelme(tmp_path, polygon(SQUARE))
    (folder / "labels" / "a.json").write_text(text)

    assert f"a.json: {field}" in refusal_of(folder)


def test_an_annotation_whose_picture_is_missing_is_refused(tmp_path):
    folder = write_labelme(tmp_path, polygon(SQUARE))
    (folder / "labels" / "lost.json").write_text("{}")

    assert "lost.json: picture" in refusal_of(folder)


def test_coco_polygons_of_one_annotation_are_one_mask(tmp_path):
    far = [7.0, 6.0, 9.0, 6.0, 9.0, 8.0, 7.0, 8.0]

    samples = import_folder(write_coco(tmp_path, [FLAT, far]))

    both = square_mask()
    both[6:8, 7:9] = True
    assert np.array_equal(only_mask(samples), both)
    assert samples[0].markings[0].label == "pit"


def test_coco_runs_go_down_the_columns(tmp_path):
    counts = [2 * 8 + 2, 3, 5, 3, 5, 3, 80 - 37]

    samples = import_folder(write_coco(tmp_path, {"counts": counts, "size": list(HW)}))

    assert np.array_equal(only_mask(samples), square_mask())


@pytest.mark.parametrize(
    ("segmentation", "field"),
    [
        (None, "annotations[0].segmentation"),
        ([], "annotations[0].segmentation"),
        ([FLAT[:4]], "annotations[0].segmentation"),
        ([FLAT[:7]], "annotations[0].segmentation"),
        ([[1, 2, 3, 4, 5, "x"]], "annotations[0].segmentation"),
        ({"counts": "compressed", "size": [8, 10]}, "annotations[0].segmentation"),
        ({"counts": [80]}, "annotations[0].segmentation.size"),
        ({"counts": [81], "size": [8, 10]}, "annotations[0].segmentation.counts"),
        ({"counts": [-1, 81], "size": [8, 10]}, "annotations[0].segmentation.counts"),
        ({"counts": [70, "x"], "size": [8, 10]}, "annotations[0].segmentation.counts"),
        ({"counts": [80], "size": [8, 10, 1]}, "annotations[0].segmentation.counts"),
        ({"counts": [80], "size": [10, 8]}, "annotations[0].segmentation.size"),
    ],
)
def test_a_malformed_coco_shape_is_refused_by_file_and_field(tmp_path, segmentation, field):
    message = refusal_of(write_coco(tmp_path, segmentation))

    assert "instances.json" in message
    assert field in message


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"images": [{"id": 3, "file_name": "lost.png"}]}, "images[0].file_name"),
        ({"images": [{"file_name": "a.png"}]}, "images[0].id"),
        ({"images": [{"id": 4, "file_name": "a.png"}]}, "annotations.image_id"),
        ({"images": None}, "images: is not a list"),
        ({"categories": [{"id": 8, "name": "pit"}]}, "annotations[0].category_id"),
        ({"categories": [{"id": 7, "name": "!"}]}, "categories.name"),
        ({"categories": [{"id": 7}]}, "categories.name"),
        ({"annotations": ["x"]}, "annotations[0].category_id"),
    ],
)
def test_a_malformed_coco_file_is_refused_by_file_and_field(tmp_path, changes, field):
    message = refusal_of(write_coco(tmp_path, [FLAT], **changes))

    assert "instances.json" in message
    assert field in message


@pytest.mark.parametrize("white", [1, 255])
def test_a_mask_marks_what_is_above_half_of_its_own_white(tmp_path, white):
    write_picture(tmp_path / "images" / "a.png")
    write_picture(tmp_path / "masks" / "Pit" / "a.png", square_mask().astype(np.uint8) * white)

    assert np.array_equal(only_mask(import_folder(tmp_path)), square_mask())


def test_an_empty_mask_marks_nothing_and_names_no_label(tmp_path):
    write_picture(tmp_path / "images" / "a.png")
    write_picture(tmp_path / "masks" / "free" / "a.png", np.zeros(HW, np.uint8))

    (sample,) = import_folder(tmp_path)

    assert sample.markings == ()


def test_the_soft_rim_of_a_compressed_mask_is_cut_at_half_of_white(tmp_path):
    levels = np.zeros((40, 40), np.uint8)
    levels[10:30, 10:30], levels[10:20, 9], levels[10:13, 30] = 250, 90, 140
    write_picture(tmp_path / "images" / "a.png", np.zeros((40, 40, 3), np.uint8))
    write_picture(tmp_path / "masks" / "pit" / "a.png", levels)

    (sample,) = import_folder(tmp_path)

    assert np.array_equal(sample.markings[0].draw((40, 40)), levels >= 128)


@pytest.mark.parametrize(("one", "other"), [(1, 2), (128, 255)])
@pytest.mark.parametrize("side", [3, 20])
def test_a_mask_of_several_classes_is_refused(tmp_path, one, other, side):
    levels = np.zeros((64, 64), np.uint8)
    levels[:side, :side], levels[40:60, 40:60] = one, other
    write_picture(tmp_path / "images" / "a.png", np.zeros((64, 64, 3), np.uint8))
    write_picture(tmp_path / "masks" / "pit" / "a.png", levels)

    assert "a.png: mask: has levels between" in refusal_of(tmp_path)


def test_the_noise_of_a_black_mask_marks_nothing(tmp_path):
    levels = np.zeros(HW, np.uint8)
    levels[3, 4] = 90
    write_picture(tmp_path / "images" / "a.png")
    write_picture(tmp_path / "masks" / "pit" / "a.png", levels)

    (sample,) = import_folder(tmp_path)

    assert sample.markings == ()


def test_a_mask_beside_its_picture_is_named_by_the_folder(tmp_path):
    (tmp_path / "MT_Crack" / "Imgs").mkdir(parents=True)
    (tmp_path / "MT_Crack" / "Imgs" / "a.jpg").write_bytes(b"")
    write_picture(tmp_path / "MT_Crack" / "Imgs" / "a.png", square_mask())

    (sample,) = import_folder(tmp_path)

    assert sample.markings[0].label == "mt-crack"
    assert np.array_equal(sample.markings[0].draw(HW), square_mask())


def test_a_mask_of_another_size_is_refused(tmp_path):
    write_picture(tmp_path / "images" / "a.png")
    write_picture(tmp_path / "masks" / "pit" / "a.png", np.ones((9, 9), np.uint8))

    assert "a.png: mask: is (9, 9)" in refusal_of(tmp_path)


def test_a_mask_that_is_no_picture_is_refused(tmp_path):
    write_picture(tmp_path / "images" / "a.png")
    write_picture(tmp_path / "masks" / "pit" / "a.png")
    (tmp_path / "masks" / "pit" / "a.png").write_bytes(b"no picture")

    assert "a.png: mask" in refusal_of(tmp_path)


def test_a_mask_whose_picture_is_missing_is_refused(tmp_path):
    write_picture(tmp_path / "images" / "a.png")
    write_picture(tmp_path / "masks" / "pit" / "lost.png", square_mask())

    assert "lost.png: picture" in refusal_of(tmp_path)


@pytest.mark.parametrize("made", ["lost", "empty", "masks_only"])
def test_a_folder_without_pictures_is_refused(tmp_path, made):
    (tmp_path / "empty").mkdir()
    (tmp_path / "masks_only" / "masks").mkdir(parents=True)

    assert made in refusal_of(tmp_path / made)


def test_split_csv_names_groups_and_sides(tmp_path):
    for name in ("a", "b"):
        write_picture(tmp_path / "images" / f"{name}.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "split.csv").write_text(
        "\ufeffimage,group,split\na.png,7,train\nimages/b.png,8,val\n", encoding="utf-8"
    )

    samples = import_folder(tmp_path)

    assert [(s.group, s.split) for s in samples] == [("7", "train"), ("8", "val")]


def test_groups_of_an_index_belong_to_their_kind(tmp_path):
    write_picture(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "index.csv").write_text("image,kind,group\na.png,crack,7\n")

    (sample,) = import_folder(tmp_path)

    assert (sample.group, sample.split) == ("crack-7", "")


def test_without_a_split_file_each_picture_is_its_own_group(mask_folder):
    (mask_folder / "split.csv").unlink()

    samples = import_folder(mask_folder)

    assert len({sample.group for sample in samples}) == len(samples)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("picture,group\na.png,1\n", "line 2: image"),
        ("image,split\na.png,train\n", "line 2: group"),
        ("image,group\na.png\n", "line 2: group"),
        ("image,group,split\na.png,1,trian\n", "line 2: split"),
        ("image,group\nother.png,1\n", "image: images/a.png has no row"),
    ],
)
def test_a_malformed_split_file_is_refused_by_file_and_field(tmp_path, text, field):
    write_picture(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "split.csv").write_text(text)

    assert f"split.csv: {field}" in refusal_of(tmp_path)


@pytest.mark.real_data
def test_every_kind_of_magnetic_tile_is_imported_by_its_name(magnetic_tile_folder):
    samples = import_folder(magnetic_tile_folder)

    pictures = Counter(marking.label for sample in samples for marking in sample.markings)
    assert len(samples) == 1028
    counts = {"blowhole": 98, "break": 65, "crack": 46, "fray": 26, "uneven": 80}
    assert pictures == {f"mt-{kind}": count for kind, count in counts.items()}


def test_pictures_of_several_folders_are_read_together(tmp_path):
    for name in ("one", "other"):
        write_labelme(tmp_path / name, polygon(SQUARE))

    samples, left_out = import_folders([tmp_path / "one", tmp_path / "other"])

    assert [s.image.parent.parent.name for s in samples] == ["one", "other"]
    assert left_out == []


def test_a_picture_that_is_given_twice_is_refused(tmp_path):
    write_labelme(tmp_path, polygon(SQUARE))

    with pytest.raises(AnnotationMalformed, match=r"pictures: a\.png is given twice"):
        import_folders([tmp_path, tmp_path])


def test_pictures_are_listed_with_their_groups(tmp_path):
    for name in ("a", "b"):
        write_picture(tmp_path / f"{name}.png")
    (tmp_path / "split.csv").write_text("image,group,split\na.png,7,\nb.png,8,val\n")

    samples = list_pictures(tmp_path)

    assert [(s.image.name, s.group, s.split) for s in samples] == [
        ("a.png", "7", ""),
        ("b.png", "8", "val"),
    ]


def test_a_folder_with_nothing_to_list_is_refused(tmp_path):
    with pytest.raises(AnnotationMalformed, match="pictures: there are none"):
        list_pictures(tmp_path)


def write_proposal(folder: Path, picture: Path, *, is_looked_at: bool) -> None:
    folder.mkdir()
    origin = {"picture": f"../{picture.name}", "sha256": digest_of(picture), "size": [10, 8]}
    about = {
        "flags": {"looked_at": is_looked_at},
        "shapes": [],
        "imageWidth": 8,
        "imageHeight": 8,
        "origin": {**origin, "group": "7", "split": "", "box": [1, 0, 8, 8]},
    }
    (folder / "a-1.json").write_text(json.dumps(about))


def test_crops_that_came_back_bring_their_pictures(tmp_path):
    write_picture(tmp_path / "a.png")
    write_proposal(tmp_path / "proposed", tmp_path / "a.png", is_looked_at=True)

    ((sample,), left_out) = import_folders([tmp_path / "proposed"])

    assert sample.image.resolve() == (tmp_path / "a.png").resolve()
    assert (sample.group, sample.markings, left_out) == ("7", (), [])


def test_crops_that_nobody_looked_at_are_no_data(tmp_path):
    write_picture(tmp_path / "a.png")
    write_proposal(tmp_path / "proposed", tmp_path / "a.png", is_looked_at=False)

    with pytest.raises(AnnotationMalformed, match=r"looked_at: is not ticked .* of a\.png"):
        import_folders([tmp_path / "proposed"])
