from __future__ import annotations

import io
import json
import zipfile
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from models.steps.pictures import encode_png

CONTRACT = {
    "id": str,
    "product": str,
    "version": str,
    "seed": int,
    "image": dict,
    "samples": list,
    "rejected": int,
    "timings_ms": dict,
}
ZIP = {"Accept": "application/zip"}


@pytest.fixture
def synthesize(client, normal_png):
    """Ask for defects on the normal picture."""

    def ask(headers=None, mask=None, **query):
        files = {"image": normal_png} | ({} if mask is None else {"mask": mask})
        return client.post("/synthesize", params=query, files=files, headers=headers)

    return ask


def pixels_of(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


def png_mask(height: int, width: int, rows: slice, columns: slice) -> bytes:
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = True
    return encode_png(mask)


def test_the_answer_has_every_field_of_the_contract(synthesize):
    answer = synthesize(seed=7).json()

    assert {name: type(answer[name]) for name in CONTRACT} == CONTRACT
    assert answer["seed"] == 7
    assert answer["image"] == {"width": 128, "height": 96}
    (sample,) = answer["samples"]
    assert sample.keys() == {"seed", "image", "mask", "defects"}
    assert sample["defects"][0].keys() >= {"label", "polygon", "box", "area_px"}
    stages = {"queue", "decode", "mask", "defect", "encode", "total"}
    assert stages <= answer["timings_ms"].keys()


def test_whose_picture_it_is_comes_back_in_the_answer_and_in_the_zip(synthesize):
    told = {"part_id": "A-17", "job_id": "7", "recipe_id": "r", "meas_id": "m"}

    answer = synthesize(**told).json()
    archive = zipfile.ZipFile(io.BytesIO(synthesize(headers=ZIP, **told).content))

    assert {name: answer[name] for name in told} == told
    info = json.loads(archive.read("annotations.json"))["info"]
    assert {name: info[name] for name in told} == told


def test_outside_the_mask_every_pixel_is_the_inputs(synthesize, normal_png):
    (sample,) = synthesize(seed=1).json()["samples"]

    image, mask = (pixels_of(b64decode(sample[name])) for name in ("image", "mask"))
    normal = pixels_of(normal_png)
    assert mask.shape == normal.shape[:2]
    assert set(np.unique(mask)) == {0, 255}
    assert np.array_equal(image[mask == 0], normal[mask == 0])
    assert not np.array_equal(image[mask == 255], normal[mask == 255])


def test_the_same_seed_gives_the_same_pixels(synthesize):
    assert synthesize(seed=3).json()["samples"] == synthesize(seed=3).json()["samples"]


def test_a_seed_that_is_not_given_is_drawn_and_told(synthesize):
    drawn = synthesize().json()

    assert synthesize(seed=drawn["seed"]).json()["samples"] == drawn["samples"]
    assert synthesize().json()["seed"] != drawn["seed"]


def test_sample_i_is_the_sample_of_seed_plus_i(synthesize):
    samples = synthesize(seed=5, count=9).json()["samples"]

    for seed in (6, 13):
        assert synthesize(seed=seed).json()["samples"] == [samples[seed - 5]]


def test_the_number_of_rejected_draws_is_the_sum_of_its_reasons(synthesize):
    answer = synthesize(seed=2, count=3).json()

    assert answer["rejected"] == sum(answer["rejected_by_reason"].values())


def test_a_clients_mask_is_the_answers_mask(synthesize):
    mask = png_mask(96, 128, slice(40, 52), slice(50, 70))

    (sample,) = synthesize(seed=1, mask=mask).json()["samples"]

    assert np.array_equal(pixels_of(b64decode(sample["mask"])), pixels_of(mask))


@pytest.mark.parametrize(
    "mask",
    [
        png_mask(96, 127, slice(40, 50), slice(40, 50)),
        png_mask(96, 128, slice(0, 0), slice(0, 0)),
    ],
    ids=["another size", "all zero"],
)
def test_a_mask_that_does_not_fit_is_refused(synthesize, mask):
    refusal = synthesize(mask=mask)

    assert (refusal.status_code, refusal.json()["code"]) == (422, "mask_mismatch")


def test_a_region_bounds_the_mask(synthesize):
    (sample,) = synthesize(seed=1, region="20,20,60,50").json()["samples"]

    rows, columns = np.nonzero(pixels_of(b64decode(sample["mask"])))
    assert (rows.min() >= 20, rows.max() < 70) == (True, True)
    assert (columns.min() >= 20, columns.max() < 80) == (True, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("region", "200,200,10,10"),
        ("region", "0,0,0,10"),
        ("region", "1,2,3"),
        ("region", "-1,0,10,10"),
        ("region", "a,b,c,d"),
        ("region", "१,२,३,४"),
        ("label", "no-such-label"),
        ("count", "0"),
        ("count", "65"),
        ("defects", "0"),
        ("defects", "17"),
        ("seed", "-1"),
        ("seed", str(2**53)),
        ("sead", "1"),
        ("size_px", "20"),
        ("size_px", "20,10"),
        ("size_px", "0,10"),
        ("size_px", "-5,10"),
        ("size_px", "5,95"),
        ("size_px", "5.5,10"),
        ("contrast", "20,10"),
        ("contrast", "0,10"),
        ("contrast", "nan,10"),
        ("contrast", "5,300"),
        ("labels", "pit"),
        ("labels", "pit:0"),
        ("labels", "pit:nan"),
        ("labels", "rust:1"),
        ("labels", "pit:1,pit:2"),
    ],
)
def test_a_parameter_that_cannot_be_met_is_refused_by_name(synthesize, name, value):
    refusal = synthesize(**{name: value})

    assert (refusal.status_code, refusal.json()["code"]) == (422, "invalid_parameter")
    assert name in refusal.json()["detail"]


def test_an_unknown_label_is_told_which_ones_there_are(client, synthesize):
    labels = client.get("/v2/models/tiny").json()["labels"]

    detail = synthesize(label="no-such-label").json()["detail"]

    assert all(label in detail for label in labels)


def test_a_known_label_is_used(client, synthesize):
    label = client.get("/v2/models/tiny").json()["labels"][0]

    (sample,) = synthesize(label=label, seed=1).json()["samples"]

    assert {defect["label"] for defect in sample["defects"]} == {label}


def test_sizes_contrasts_and_shares_are_kept(synthesize, normal_png):
    normal = pixels_of(normal_png).astype(int)

    answer = synthesize(
        seed=1, count=6, size_px="20,22", contrast="30,40.5", labels="pit:1,scratch:1"
    ).json()

    labels = set()
    for sample in answer["samples"]:
        (defect,) = sample["defects"]
        labels.add(defect["label"])
        image, mask = (pixels_of(b64decode(sample[name])) for name in ("image", "mask"))
        change = np.abs(image - normal)[mask > 0].mean()
        assert max(defect["box"][2:]) in (20, 21, 22)
        assert 29.5 <= change <= 41
    assert labels == {"pit", "scratch"}


def test_a_contrast_that_nobody_sees_is_refused_with_the_least(synthesize):
    refusal = synthesize(contrast="0.5,1.5")

    assert (refusal.status_code, refusal.json()["code"]) == (422, "invalid_parameter")
    assert "visible from 2 grey levels on" in refusal.json()["detail"]


def test_one_label_and_shares_of_labels_contradict_each_other(synthesize):
    refusal = synthesize(label="pit", labels="pit:1")

    assert (refusal.status_code, refusal.json()["code"]) == (422, "invalid_parameter")
    assert "ask for one of them" in refusal.json()["detail"]


@pytest.mark.parametrize("wish", [{"size_px": "5,9"}, {"region": "0,0,9,9"}, {"defects": 2}])
def test_beside_a_mask_a_place_a_size_and_a_number_have_no_use(synthesize, wish):
    mask = png_mask(96, 128, slice(40, 52), slice(50, 70))

    refusal = synthesize(mask=mask, **wish)

    assert refusal.status_code == 422
    assert f"{next(iter(wish))}: has no use beside a mask" in refusal.json()["detail"]


def test_more_pictures_than_fit_into_json_are_sent_to_the_zip(serve, normal_png):
    client = serve(max_response_pixels=96 * 128)

    refusal = client.post("/synthesize?count=2", files={"image": normal_png})
    one = client.post("/synthesize?count=1&seed=1", files={"image": normal_png})
    zipped = client.post("/synthesize?count=2&seed=1", files={"image": normal_png}, headers=ZIP)

    assert refusal.status_code == 422
    assert "count" in refusal.json()["detail"]
    assert "application/zip" in refusal.json()["detail"]
    assert (one.status_code, zipped.status_code) == (200, 200)


def test_a_zip_holds_the_same_samples_as_the_json(synthesize):
    zipped = synthesize(ZIP, seed=4, count=2)
    told = synthesize(seed=4, count=2).json()

    archive = zipfile.ZipFile(io.BytesIO(zipped.content))
    assert zipped.headers["content-type"] == "application/zip"
    assert archive.testzip() is None
    assert archive.namelist() == [
        "image_0000.png",
        "mask_0000.png",
        "image_0001.png",
        "mask_0001.png",
        "annotations.json",
    ]
    for index, sample in enumerate(told["samples"]):
        assert archive.read(f"image_{index:04d}.png") == b64decode(sample["image"])
        assert archive.read(f"mask_{index:04d}.png") == b64decode(sample["mask"])


def test_annotations_are_coco_and_agree_with_the_masks(synthesize):
    archive = zipfile.ZipFile(io.BytesIO(synthesize(ZIP, seed=4, count=2, defects=2).content))

    coco = json.loads(archive.read("annotations.json"))

    names = {category["id"]: category["name"] for category in coco["categories"]}
    assert {image["file_name"] for image in coco["images"]} == {"image_0000.png", "image_0001.png"}
    assert len({one["id"] for one in coco["annotations"]}) == len(coco["annotations"])
    for image in coco["images"]:
        mask = pixels_of(archive.read(image["mask_file_name"]))
        own = [one for one in coco["annotations"] if one["image_id"] == image["id"]]
        assert mask.shape == (image["height"], image["width"])
        assert sum(one["area"] for one in own) == np.count_nonzero(mask)
        assert all(one["category_id"] in names for one in own)


def test_an_order_that_cannot_be_met_is_a_problem_document_not_a_broken_zip(synthesize):
    refusal = synthesize(ZIP, region="500,500,10,10")

    assert refusal.status_code == 422
    assert refusal.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/zip, application/json;q=0.5", "application/zip"),
        ("application/json;q=0.1, application/zip;q=0.9", "application/zip"),
        ("application/json;q=0, */*", "application/zip"),
        ("text/html, */*;q=0.1", "application/json"),
        ("image/png", "application/problem+json"),
        ("application/json;q=0", "application/problem+json"),
        ("application/json;q=nan", "application/problem+json"),
    ],
)
def test_the_answers_type_is_the_clients_favourite(synthesize, accept, answer):
    got = synthesize({"Accept": accept}, seed=1)

    assert got.headers["content-type"] == answer
    assert got.status_code == (406 if "problem" in answer else 200)


def test_16_bit_grey_stays_16_bit_grey(client):
    normal = np.full((96, 128), 1000, np.uint16)
    normal[8:88, 8:120] = np.random.default_rng(1).integers(40_000, 52_000, (80, 112))
    mask = png_mask(96, 128, slice(40, 52), slice(50, 70))

    files = {"image": encode_png(normal), "mask": mask}
    (sample,) = client.post("/synthesize?seed=1", files=files).json()["samples"]

    image = pixels_of(b64decode(sample["image"]))
    outside = pixels_of(mask) == 0
    assert image.shape == normal.shape
    assert np.array_equal(image[outside], normal[outside])
