from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.__main__ import main
from models.bundle import Bundle
from models.detection import detect
from models.steps.pictures import (
    Picture,
    PictureLimits,
    decode_mask,
    decode_picture,
    encode_png,
)
from models.synthesis import SynthesisRequest, synthesize

ROOT = Path(__file__).parents[2]
LIMITS = PictureLimits()
ON_CPU = ("--product", "tiny", "--device", "cpu")


def red_square() -> Picture:
    pixels = np.full((96, 128, 3), 40, np.uint8)
    pixels[..., 0] = 0
    pixels[20:30, 40:52] = (255, 0, 0)
    return Picture(pixels)


def normal() -> Picture:
    pixels = np.full((96, 128, 3), 10, np.uint8)
    pixels[8:88, 8:120] = np.random.default_rng(1).integers(170, 210, (80, 112, 3))
    return Picture(pixels)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with `ng.png`, `ok.png`, and what is no picture: `note.png`."""
    (tmp_path / "ng.png").write_bytes(encode_png(red_square().pixels))
    (tmp_path / "ok.png").write_bytes(encode_png(normal().pixels[..., 1] // 4))
    (tmp_path / "normal.png").write_bytes(encode_png(normal().pixels))
    (tmp_path / "note.png").write_bytes(b"not a picture")
    return tmp_path


def run(root: Path, *words: object) -> int:
    return main(["--bundles", str(root), *map(str, words)])


def test_detect_writes_what_the_story_finds_for_each_picture(
    tiny_root: Path, tiny: Bundle, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(
        tiny_root, "detect", *ON_CPU, desk / "ng.png", desk / "ok.png", "--out", desk / "out"
    )

    written = json.loads((desk / "out/ng.json").read_text())
    (defect,) = detect(red_square(), tiny.detector).defects
    assert status == 0
    assert (written["file"], written["version"]) == ("ng.png", "1")
    assert written["image"] == {"width": 128, "height": 96}
    assert written["defects"][0]["min_area_rect"]["size"] == [12.0, 10.0]
    assert written["verdict"] == "ng"
    assert [told["box"] for told in written["defects"]] == [list(defect.region.box)]
    assert written["defects"][0]["score"] == defect.score
    assert written["defects"][0]["label"] == "pit"
    exterior = written["defects"][0]["polygon"]["exterior"]
    assert exterior == [[40, 20], [52, 20], [52, 30], [40, 30]]
    assert written["crops"][0]["rank"] == 1
    assert json.loads((desk / "out/ok.json").read_text())["verdict"] == "ok"
    assert capsys.readouterr().out == "ng.png: ng, defects: 1\nok.png: ok, defects: 0\n"


def test_detect_draws_an_overlay_of_the_pictures_size(tiny_root: Path, desk: Path) -> None:
    run(tiny_root, "detect", *ON_CPU, desk / "ng.png", "--out", desk)

    overlay = decode_picture((desk / "ng.overlay.jpg").read_bytes(), LIMITS)

    assert overlay.hw == (96, 128)


def test_detect_obeys_its_parameters(tiny_root: Path, desk: Path) -> None:
    parameters = ("--n", 3, "--crop-size", 20, "--min-confidence", 0, "--min-score", 1)

    run(tiny_root, "detect", *ON_CPU, desk / "ng.png", "--out", desk, *parameters)

    written = json.loads((desk / "ng.json").read_text())
    assert [crop["box"][2:] for crop in written["crops"]] == [[20, 20]] * 3
    assert written["defects"] == []


def test_detect_obeys_zones_and_rules_from_files_and_tells_millimetres(
    tiny_root: Path, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / "rules.json").write_text('[{"under": {"length_mm": 2.0}}]')
    right = '{"look": [{"points": [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]}]}'
    (desk / "zones.json").write_text(right)
    rules = ("--rules", desk / "rules.json", "--mm-per-px", 0.1)

    run(tiny_root, "detect", *ON_CPU, desk / "ng.png", "--out", desk / "rules", *rules)
    zones = ("--zones", desk / "zones.json")
    run(tiny_root, "detect", *ON_CPU, desk / "ng.png", "--out", desk / "zones", *zones)

    ruled = json.loads((desk / "rules/ng.json").read_text())
    (tolerated,) = ruled["tolerated"]
    assert (ruled["verdict"], tolerated["reason"]) == ("ok", "rule")
    assert tolerated["length_mm"] == pytest.approx(0.1 * tolerated["length_px"])
    assert tolerated["area_mm"] == pytest.approx(1.2)
    assert json.loads((desk / "zones/ng.json").read_text())["crops"] == []
    assert capsys.readouterr().out == "ng.png: ok, defects: 0\n" * 2


def test_detect_tells_a_picture_that_a_person_should_look_at_and_audits_on_demand(
    tiny_root: Path, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--min-score", 1, "--review-score", 0.5, "--extra-crops", 0, "--merge-gap", 3)

    run(tiny_root, "detect", *ON_CPU, desk / "ng.png", "--out", desk, *words, "--audit")

    written = json.loads((desk / "ng.json").read_text())
    assert (written["verdict"], written["decision"]) == ("ok", "review")
    assert written["audit"]["slices"] == written["audit"]["of_slices"] > 1
    assert written["audit"]["missed"] == []
    assert capsys.readouterr().out == "ng.png: review, defects: 0\n"


def test_a_file_of_rules_that_is_none_is_refused_by_name(
    tiny_root: Path, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(tiny_root, "detect", *ON_CPU, desk / "ng.png", "--rules", desk / "note.png")

    assert status == 2
    assert capsys.readouterr().err.startswith("ParameterInvalid: rules: ")


def test_synthesize_writes_the_storys_pictures_and_masks_bit_for_bit(
    tiny_root: Path, tiny: Bundle, desk: Path
) -> None:
    words = ("--seed", 7, "--count", 2, "--defects", 2, "--out", desk / "out")

    status = run(tiny_root, "synthesize", *ON_CPU, desk / "normal.png", *words)

    request = SynthesisRequest(seed=7, count=2, defects=2)
    described = json.loads((desk / "out/samples.json").read_text())["samples"]
    assert status == 0
    for index, sample in enumerate(synthesize(normal(), request, tiny.synthesizer)):
        image = (desk / f"out/image_{index:04d}.png").read_bytes()
        mask = (desk / f"out/mask_{index:04d}.png").read_bytes()
        np.testing.assert_array_equal(decode_picture(image, LIMITS).pixels, sample.pixels)
        np.testing.assert_array_equal(decode_mask(mask, LIMITS), sample.mask)
        assert set(np.unique(decode_picture(mask, LIMITS).pixels)) == {0, 255}
        assert described[index]["seed"] == 7 + index
        boxes = [told["box"] for told in described[index]["defects"]]
        assert boxes == [list(defect.region.box) for defect in sample.defects]


def test_synthesize_takes_a_mask_a_label_and_a_region(tiny_root: Path, desk: Path) -> None:
    mask = np.zeros((96, 128), bool)
    mask[40:50, 60:70] = True
    (desk / "mine.png").write_bytes(encode_png(mask))
    picture = desk / "normal.png"
    given = ("--mask", desk / "mine.png", "--label", "scratch", "--out", desk / "given")

    run(tiny_root, "synthesize", *ON_CPU, picture, *given)
    run(
        tiny_root,
        "synthesize",
        *ON_CPU,
        picture,
        "--out",
        desk / "free",
        "--region",
        60,
        40,
        60,
        40,
    )

    (told,) = json.loads((desk / "given/samples.json").read_text())["samples"]
    free = decode_mask((desk / "free/mask_0000.png").read_bytes(), LIMITS)
    np.testing.assert_array_equal(
        decode_mask((desk / "given/mask_0000.png").read_bytes(), LIMITS), mask
    )
    assert [defect["label"] for defect in told["defects"]] == ["scratch"]
    assert free[40:80, 60:120].any()
    assert free.sum() == free[40:80, 60:120].sum()


def test_synthesize_takes_sizes_contrasts_and_shares(tiny_root: Path, desk: Path) -> None:
    asked = ("--size-px", 20, 22, "--contrast", 30, 40, "--labels", "scratch:2,pit:1")

    status = run(
        tiny_root, "synthesize", *ON_CPU, desk / "normal.png", *asked, "--count", 6, "--out", desk
    )

    samples = json.loads((desk / "samples.json").read_text())["samples"]
    assert status == 0
    assert {max(sample["defects"][0]["box"][2:]) for sample in samples} <= {20, 21, 22}
    assert {sample["defects"][0]["label"] for sample in samples} == {"pit", "scratch"}


def test_inspect_lists_the_bundles(tiny_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny_root, "inspect") == 0

    assert capsys.readouterr().out.startswith("tiny 1  pit, scratch  ")


def test_inspect_prints_a_manifest_with_numbers_in_place_of_what_was_learned(
    tiny_root: Path, tiny: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_root, "inspect", "--product", "tiny") == 0

    printed, told = json.loads(capsys.readouterr().out), {}
    expected = tiny.manifest.model_dump(mode="json")
    for label, shape in printed["synthesis"]["shapes"].items():
        told[label] = {name: shape.pop(name) for name in ("fingerprints", "contexts")}
        for name in told[label]:
            del expected["synthesis"]["shapes"][label][name]
    assert told["scratch"] == {"fingerprints": 1, "contexts": 2}
    assert told["pit"] == {"fingerprints": 0, "contexts": 0}
    assert printed == expected


def test_verify_says_that_a_bundle_is_as_it_was_sealed(
    tiny_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_root, "verify", "--product", "tiny", "--version", "1") == 0

    assert capsys.readouterr().out == "tiny 1 is as it was sealed\n"


def test_verify_refuses_an_altered_bundle_by_its_file(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_root / "tiny", tmp_path / "tiny")
    (tmp_path / "tiny/1/locator.onnx").write_bytes(b"other")

    assert run(tmp_path, "verify", "--product", "tiny") == 2

    assert "locator.onnx" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("detect", "--product", "other", "ng.png"), "no bundle other"),
        (("detect", "--product", "tiny", "--version", "2", "ng.png"), "no bundle tiny 2"),
        (("verify", "--product", "../tiny"), "no bundle ../tiny"),
        (("detect", *ON_CPU, "note.png"), "no picture of an accepted format"),
        (("detect", *ON_CPU, "nowhere.png"), "nowhere.png"),
        (("detect", *ON_CPU, "."), "Is a directory"),
        (("detect", *ON_CPU, "ng.png", "--n", "0"), "n: "),
        (("detect", *ON_CPU, "ng.png", "--n", "65"), "n: "),
        (("detect", *ON_CPU, "ng.png", "--min-confidence", "1.5"), "min_confidence: "),
        (("detect", *ON_CPU, "ng.png", "--min-score", "nan"), "min_score: "),
        (("detect", *ON_CPU, "ng.png", "ng.png"), "ng.json"),
        (("synthesize", *ON_CPU, "note.png"), "no picture of an accepted format"),
        (("synthesize", *ON_CPU, "normal.png", "--mask", "ng.png", "--seed", "-1"), "seed: "),
        (("synthesize", *ON_CPU, "normal.png", "--mask", "note.png"), "accepted format"),
        (("synthesize", *ON_CPU, "normal.png", "--count", "0"), "count: "),
        (("synthesize", *ON_CPU, "normal.png", "--defects", "0"), "defects: "),
        (("synthesize", *ON_CPU, "normal.png", "--label", "dent"), "label: "),
        (("synthesize", *ON_CPU, "normal.png", "--labels", "dent:1"), "labels: "),
        (("synthesize", *ON_CPU, "normal.png", "--labels", "pit"), "labels: "),
        (("synthesize", *ON_CPU, "normal.png", "--size-px", "9", "8"), "size_px: "),
        (("synthesize", *ON_CPU, "normal.png", "--contrast", "0.5", "1"), "contrast: "),
        (("synthesize", *ON_CPU, "normal.png", "--region", "0", "0", "999", "9"), "region: "),
    ],
)
def test_what_is_refused_is_said_in_one_line_with_exit_status_2(
    tiny_root: Path,
    desk: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    reason: str,
) -> None:
    placed = [str(desk / word) if word == "." or word.endswith(".png") else word for word in words]

    status = run(tiny_root, *placed)

    said = capsys.readouterr()
    assert status == 2
    assert reason in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_malformed_manifest_is_said_in_one_line_too(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_root / "tiny", tmp_path / "tiny")
    (tmp_path / "tiny/1/manifest.json").write_text('{"schema_version": 1}')

    assert run(tmp_path, "inspect") == 2

    assert capsys.readouterr().err.count("\n") == 1


def test_for_an_unknown_product_no_folder_is_made(tiny_root: Path, desk: Path) -> None:
    run(tiny_root, "detect", "--product", "other", desk / "ng.png", "--out", desk / "out")

    assert not (desk / "out").exists()


def test_as_a_process_it_says_one_line_and_ends_with_2() -> None:
    command = [sys.executable, "-m", "models", "verify", "--product", "other"]

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert ended.stderr == "BundleMissing: there is no bundle other\n"
    assert ended.stdout == ""
