"""From pictures to a served bundle: every command, then both stories through every door."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.bundle import find_bundle, open_bundle, verify_bundle
from models.detection import Detection, detect
from models.errors import ParameterInvalid
from models.steps.pictures import Picture, PictureLimits, decode_mask, decode_picture
from models.synthesis import SynthesisRequest, Synthesizer, synthesize
from service.app import create_app
from service.settings import Settings
from training.renderer import write_plates

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LIMITS = PictureLimits()
EVERYTHING = {"min_confidence": 0.0, "min_score": 0.0}
"""Half a minute of training finds little; asked for all it has, every door must tell the same."""
STEPS = (
    ("import", "--data", "{root}/plates", "--product", "plate", "--recipe", "trial"),
    ("fit", "--accelerator", "cpu"),
    ("export",),
    ("evaluate", "--samples", "4"),
    ("seal", "--to", "{root}/bundles"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plates, a run and the bundle that was sealed of it."""
    folder = tmp_path_factory.mktemp("journey")
    write_plates(folder / "plates", count=15, seed=1, size_hw=(320, 400), normal_share=0.4)
    for step, *options in STEPS:
        given = [option.format(root=folder) for option in options]
        run_module("training", step, "--run", str(folder / "run"), *given)
    return folder


@pytest.fixture(scope="module")
def client(root: Path):
    settings = Settings(bundles=root / "bundles", default_product="plate", threads=1, workers=1)
    with TestClient(create_app(settings)) as opened:
        yield opened


def run_module(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=True, timeout=240)


def picture_of(root: Path, *, kind: str) -> Path:
    """The first plate of a kind: with masks `defect`, without `normal`."""
    marked = {mask.stem for mask in (root / "plates" / "masks").rglob("*.png")}
    plates = sorted((root / "plates" / "images").iterdir())
    return next(p for p in plates if (p.stem in marked) == (kind == "defect"))


def can_make(normal: Picture, seed: int, synthesizer: Synthesizer) -> bool:
    """Whether half a minute of training is enough for this seed."""
    try:
        return bool(list(synthesize(normal, SynthesisRequest(seed=seed), synthesizer)))
    except ParameterInvalid:
        return False


def told(detection: Detection) -> list[dict[str, Any]]:
    return [
        {
            "label": defect.label,
            "score": pytest.approx(defect.score, abs=1e-4),
            "box": list(defect.region.box),
            "area_px": defect.region.area_px,
            "exterior": defect.region.polygon.exterior.tolist(),
        }
        for defect in detection.defects
    ]


def read(defects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = ("label", "score", "box", "area_px")
    return [
        {name: d[name] for name in names} | {"exterior": d["polygon"]["exterior"]} for d in defects
    ]


def test_the_sealed_bundle_is_whole_and_says_what_was_measured(root):
    manifest = verify_bundle(find_bundle(root / "bundles", "plate"))

    evaluated = json.loads((root / "run" / "evaluation.json").read_text())
    assert (manifest.version, manifest.labels) == ("1", ("pit", "scratch"))
    assert manifest.figures == evaluated["figures"]
    assert manifest.detection.min_score == evaluated["calibrated"]["min_score"]
    assert manifest.training.data[0].pictures == {"train": 12, "val": 3}


def test_story_command_and_service_find_the_same_defects(root, client):
    path = picture_of(root, kind="defect")
    bundle = open_bundle(find_bundle(root / "bundles", "plate"))
    detector = bundle.detector.with_params(**EVERYTHING)

    story = detect(decode_picture(path.read_bytes(), LIMITS), detector)
    run_module(
        *("models", "--bundles", str(root / "bundles"), "detect", "--product", "plate"),
        *("--out", str(root / "out"), "--min-confidence", "0", "--min-score", "0", str(path)),
    )
    command = json.loads((root / "out" / f"{path.stem}.json").read_text())
    service = client.post(
        "/detect",
        params=EVERYTHING,
        content=path.read_bytes(),
        headers={"Content-Type": "image/jpeg"},
    ).json()

    assert story.defects
    assert [crop.reason for crop in story.crops[:6]].count("peak") == 5
    assert read(command["defects"]) == told(story)
    assert read(service["defects"]) == told(story)
    assert service["verdict"] == command["verdict"] == story.verdict == "ng"


def test_story_and_service_make_the_same_defect(root, client):
    path = picture_of(root, kind="normal")
    synthesizer = open_bundle(find_bundle(root / "bundles", "plate")).synthesizer
    normal = decode_picture(path.read_bytes(), LIMITS)
    seed = next(s for s in range(50) if can_make(normal, s, synthesizer))

    (sample,) = synthesize(normal, SynthesisRequest(seed=seed), synthesizer)
    answer = client.post(
        "/synthesize",
        params={"seed": seed},
        content=path.read_bytes(),
        headers={"Content-Type": "image/jpeg"},
    ).json()

    (served,) = answer["samples"]
    image = decode_picture(base64.b64decode(served["image"]), LIMITS).pixels
    mask = decode_mask(base64.b64decode(served["mask"]), LIMITS)
    assert np.array_equal(mask, sample.mask)
    assert np.abs(image.astype(int) - sample.pixels.astype(int)).max() <= 1
    assert np.array_equal(image[~mask], normal.pixels[~mask])
    assert mask.any()
