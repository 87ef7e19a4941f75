from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import open_bundle
from models.detection import Detector
from models.errors import ParameterInvalid
from models.steps.outlines import Polygon, fill_polygon
from models.steps.pictures import PictureLimits, decode_picture, encode_png
from tests.tiny import write_tiny_bundle
from training.annotations import AnnotationMalformed
from training.importers import list_pictures
from training.markings import Marking, Sample
from training.proposals import holds_proposals, place_proposals, propose, read_proposals

HW, CROP_PX = (96, 128), 32
SPOT = (slice(40, 50), slice(70, 76))
"""Red, so that the tiny bundle's locator and segmenter call it a defect."""
SQUARE = [[4.0, 6.0], [9.0, 6.0], [9.0, 20.0], [4.0, 20.0]]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    detector = open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundles"))).detector
    return detector.with_params(n=2, min_confidence=0.0)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, seed in (("a", 1), ("b", 2)):
        image = np.random.default_rng(seed).integers(0, 40, (*HW, 3), np.uint8)
        image[SPOT] = (255, 0, 0)
        (folder / f"{name}.png").write_bytes(encode_png(image))
    (folder / "split.csv").write_text("image,group,split\na.png,7,train\nb.png,8,val\n")
    return list_pictures(folder)


@pytest.fixture
def proposed(tmp_path: Path, samples: list[Sample], detector: Detector) -> Path:
    propose(samples, detector, tmp_path / "proposed", has_outlines=False)
    return tmp_path / "proposed"


def change(file: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def draw_square(content: dict[str, Any], label: str = "Pit") -> None:
    content["shapes"] = [{"label": label, "points": SQUARE, "shape_type": "polygon"}]


def tick(content: dict[str, Any]) -> None:
    content["flags"] = {"looked_at": True}


def box_of(file: Path) -> tuple[int, int, int, int]:
    return tuple(json.loads(file.read_text())["origin"]["box"])


def truth_of(sample: Sample) -> np.ndarray:
    masks = [marking.draw(HW) for marking in sample.markings]
    return np.any(masks, axis=0) if masks else np.zeros(HW, bool)


def refusal_of(folder: Path) -> str:
    with pytest.raises(AnnotationMalformed) as refusal:
        read_proposals(folder)
    return str(refusal.value)


def test_crops_are_cut_as_the_service_cuts_them(proposed, samples):
    picture = decode_picture(samples[0].image.read_bytes(), PictureLimits()).pixels
    crop = decode_picture((proposed / "a-1.png").read_bytes(), PictureLimits()).pixels
    x, y, width, height = box_of(proposed / "a-1.json")

    assert (width, height) == (CROP_PX, CROP_PX)
    assert np.array_equal(crop, picture[y : y + height, x : x + width])
    assert (crop == (255, 0, 0)).all(axis=2).sum() == 60
    assert len(list(proposed.glob("*.png"))) == 4


def test_each_crop_has_a_labelme_file_that_says_where_it_is_from(proposed, samples):
    about = json.loads((proposed / "a-1.json").read_text())

    origin = about["origin"]
    assert about["shapes"] == []
    assert (about["imagePath"], about["imageWidth"], about["imageHeight"]) == ("a-1.png", 32, 32)
    assert (proposed / origin["picture"]).resolve() == samples[0].image.resolve()
    assert (origin["rank"], origin["group"], origin["split"]) == (1, "7", "train")
    assert origin["confidence"] > 0.9
    assert holds_proposals(proposed)


def test_a_polygon_drawn_on_a_crop_lies_on_its_picture_to_the_pixel(proposed):
    for file in proposed.glob("a-*.json"):
        change(file, tick)
    change(proposed / "a-2.json", draw_square)

    (sample,), _ = place_proposals([], read_proposals(proposed))

    x, y, _, _ = box_of(proposed / "a-2.json")
    expected = fill_polygon(Polygon(np.add(SQUARE, (x, y))), HW)
    assert expected.sum() == 5 * 14
    assert np.array_equal(truth_of(sample), expected)
    assert sample.markings[0].label == "pit"
    assert (sample.image.name, sample.group, sample.split) == ("a.png", "7", "train")


def test_what_was_drawn_or_ticked_counts_as_looked_at_and_nothing_else_does(proposed):
    change(proposed / "a-1.json", draw_square)
    change(proposed / "a-2.json", tick)

    looked_at = [proposal.is_looked_at for proposal in read_proposals(proposed)]

    assert looked_at == [True, True, False, False]


def test_a_picture_nobody_looked_at_whole_is_left_out_and_not_normal(proposed):
    for name in ("a-1", "a-2", "b-1"):
        change(proposed / f"{name}.json", tick)

    placed, left_out = place_proposals([], read_proposals(proposed))

    assert [sample.image.name for sample in placed] == ["a.png"]
    assert placed[0].markings == ()
    assert [image.name for image in left_out] == ["b.png"]


def test_an_unmarked_picture_of_another_folder_is_left_out_as_well(proposed, samples):
    placed, left_out = place_proposals(samples, read_proposals(proposed))

    assert placed == []
    assert [image.name for image in left_out] == ["a.png", "b.png"]


def test_a_crop_that_was_looked_at_replaces_the_pictures_own_annotation_there(proposed, samples):
    change(proposed / "a-1.json", draw_square)
    own = Marking("scratch", lambda hw: np.ones(hw, bool))
    annotated = Sample(samples[0].image, "own", "val", (own,))

    placed, _ = place_proposals([annotated], read_proposals(proposed))

    x, y, _, _ = box_of(proposed / "a-1.json")
    kept = np.ones(HW, bool)
    kept[y : y + CROP_PX, x : x + CROP_PX] = False
    scratch, pit = placed[0].markings
    assert np.array_equal(scratch.draw(HW), kept)
    assert pit.draw(HW).sum() == 5 * 14
    assert (placed[0].group, placed[0].split) == ("own", "val")


def test_an_annotation_that_a_crop_shows_to_be_none_is_dropped(proposed, samples):
    change(proposed / "a-1.json", tick)
    x, y, _, _ = box_of(proposed / "a-1.json")
    inside = Marking("pit", lambda hw: fill_polygon(Polygon(np.add(SQUARE, (x, y))), hw))

    placed, _ = place_proposals(
        [Sample(samples[0].image, "7", "train", (inside,))], read_proposals(proposed)
    )

    assert placed[0].markings == ()


def test_drawn_outlines_are_the_segmenters_and_count_once_they_are_changed(
    tmp_path, samples, detector
):
    propose(samples, detector, tmp_path / "drawn", has_outlines=True)
    untouched = read_proposals(tmp_path / "drawn")
    for file in (tmp_path / "drawn").glob("*.json"):
        change(file, tick)

    placed, _ = place_proposals([], read_proposals(tmp_path / "drawn"))

    truth = np.zeros(HW, bool)
    truth[SPOT] = True
    assert not any(proposal.is_looked_at for proposal in untouched)
    assert [np.array_equal(truth_of(sample), truth) for sample in placed] == [True, True]


def test_an_outline_with_a_hole_comes_back_with_it(tmp_path, detector):
    image = np.zeros((*HW, 3), np.uint8)
    image[40:54, 64:76, 0] = 255
    image[43:47, 67:73, 0] = image[49:52, 66:68, 0] = 0
    (tmp_path / "ring.png").write_bytes(encode_png(image))

    one = detector.with_params(n=1)
    propose(list_pictures(tmp_path), one, tmp_path / "drawn", has_outlines=True)
    change(tmp_path / "drawn" / "ring-1.json", tick)

    (shape,) = json.loads((tmp_path / "drawn" / "ring-1.json").read_text())["shapes"]
    assert len(shape["points"]) > 12
    (sample,), _ = place_proposals([], read_proposals(tmp_path / "drawn"))
    assert np.array_equal(truth_of(sample), image[..., 0] > 0)


def test_a_picture_smaller_than_the_crop_keeps_what_lies_on_it(tmp_path, detector):
    (tmp_path / "small.png").write_bytes(encode_png(np.zeros((20, 24, 3), np.uint8)))
    propose(list_pictures(tmp_path), detector, tmp_path / "to", has_outlines=False)
    wide = [[20.0, 15.0], [30.0, 15.0], [30.0, 30.0], [20.0, 30.0]]
    for file in (tmp_path / "to").glob("*.json"):
        change(file, tick)
    change(tmp_path / "to" / "small-1.json", draw_square)
    change(tmp_path / "to" / "small-1.json", lambda c: c["shapes"][0].update(points=wide))

    (sample,), _ = place_proposals([], read_proposals(tmp_path / "to"))

    mask = sample.markings[0].draw((20, 24))
    assert mask.sum() == 4 * 5
    assert mask[15:, 20:].all()


def test_somebodys_work_is_never_written_over(proposed, samples, detector):
    with pytest.raises(ParameterInvalid, match="holds something already"):
        propose(samples, detector, proposed, has_outlines=False)


def test_two_pictures_of_one_stem_are_refused(tmp_path, samples, detector):
    (tmp_path / "a.jpg").write_bytes(samples[0].image.read_bytes())
    both = [samples[0], Sample(tmp_path / "a.jpg", "a")]

    with pytest.raises(ParameterInvalid, match="same name but for its ending"):
        propose(both, detector, tmp_path / "to", has_outlines=False)


def test_a_crop_whose_picture_is_gone_is_refused(proposed, samples):
    samples[0].image.unlink()

    assert "a-1.json: origin.picture: " in refusal_of(proposed)


def test_a_crop_whose_picture_has_changed_its_size_is_refused(proposed, samples):
    samples[0].image.write_bytes(encode_png(np.zeros((50, 60, 3), np.uint8)))

    said = refusal_of(proposed)

    assert "a-1.json: origin.size: " in said
    assert "is 60 x 50, and was 128 x 96" in said


def test_a_crop_of_another_picture_is_refused(proposed):
    change(proposed / "a-1.json", lambda c: c["origin"].update(picture="../pictures/b.png"))

    said = refusal_of(proposed)

    assert "a-1.json: origin.sha256: " in said
    assert "b.png is not what the crop was cut from" in said


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (lambda c: c.pop("origin"), "origin: is missing"),
        (lambda c: c["origin"].pop("box"), "origin.box: is missing"),
        (lambda c: c["origin"].update(box=[1, 2, 32, 31]), "origin.box: is no x, y"),
        (lambda c: c["origin"].update(box=[-1, 2, 32, 32]), "origin.box: are not whole numbers"),
        (lambda c: c["origin"].pop("group"), "origin.group: is missing"),
        (lambda c: c.update(imageWidth=64), "imageWidth: is not 32"),
        (lambda c: c.pop("shapes"), "shapes: is missing"),
    ],
)
def test_a_malformed_file_of_a_crop_is_refused_by_file_and_field(proposed, edit, field):
    change(proposed / "b-1.json", edit)

    assert f"b-1.json: {field}" in refusal_of(proposed)
