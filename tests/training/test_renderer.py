from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.arrays import Mask
from models.errors import ParameterInvalid
from training.render_flaws import FLAW_LONGEST_PX, LEAST_CHANGE
from training.renderer import LABELS, Plate, main, render_plate, truth_picture, write_plates

SIZE_HW = (480, 640)
SEEDS = range(8)


@pytest.fixture(scope="module")
def plates() -> list[Plate]:
    return [draw(seed, flaw_count=5) for seed in SEEDS]


def draw(seed: int, *, flaw_count: int) -> Plate:
    return render_plate(np.random.default_rng(seed), size_hw=SIZE_HW, flaw_count=flaw_count)


def grown(mask: Mask, margin_px: int) -> Mask:
    side = 2 * margin_px + 1
    dilated = cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8))
    return np.asarray(dilated > 0)


def change_by_flaws(seed: int, plate: Plate) -> np.ndarray:
    clean = draw(seed, flaw_count=0)
    return np.asarray(np.abs(plate.image.astype(np.int16) - clean.image).mean(axis=2))


def read_split(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "split.csv").read_text(encoding="utf-8").splitlines()))


def read_picture(path: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))


def test_the_same_seed_draws_the_same_plate(plates: list[Plate]) -> None:
    again = draw(3, flaw_count=5)

    assert np.array_equal(again.image, plates[3].image)
    assert [(f.label, f.x, f.y) for f in again.flaws] == [
        (f.label, f.x, f.y) for f in plates[3].flaws
    ]


def test_the_normal_sample_is_what_the_renderer_draws() -> None:
    sample = read_picture(Path(__file__).parents[2] / "samples" / "normal.jpg")

    drawn = render_plate(np.random.default_rng([2024, 3]), size_hw=(768, 1024), flaw_count=0)

    assert np.abs(sample[..., ::-1].astype(np.int16) - drawn.image).mean() < 2.5


def test_other_seeds_draw_other_plates(plates: list[Plate]) -> None:
    assert len({plate.image.tobytes() for plate in plates}) == len(plates)


def test_every_plate_has_the_flaws_asked_for(plates: list[Plate]) -> None:
    assert [len(plate.flaws) for plate in plates] == [5] * len(plates)
    assert {flaw.label for plate in plates for flaw in plate.flaws} == set(LABELS)


def test_a_flaw_is_6_to_60_px_long_and_its_box_is_tight(plates: list[Plate]) -> None:
    for flaw in (flaw for plate in plates for flaw in plate.flaws):
        edges = (flaw.mask[0], flaw.mask[-1], flaw.mask[:, 0], flaw.mask[:, -1])

        assert FLAW_LONGEST_PX == (6, 60)
        assert 6 <= max(flaw.mask.shape) <= 60
        assert all(edge.any() for edge in edges)


def test_flaws_lie_on_the_metal_and_apart_from_each_other(plates: list[Plate]) -> None:
    for plate in plates:
        truth = truth_picture(plate, LABELS)

        assert not (grown(truth, 3) & ~plate.metal).any()
        assert cv2.connectedComponents(grown(truth, 3).astype(np.uint8))[0] == 1 + len(plate.flaws)


def test_a_flaw_changes_its_own_pixels_and_the_lens_little_more(plates: list[Plate]) -> None:
    for seed, plate in zip(SEEDS, plates, strict=True):
        change = change_by_flaws(seed, plate)

        assert change[~grown(truth_picture(plate, LABELS), 3)].max() == 0


def test_every_flaw_can_be_seen(plates: list[Plate]) -> None:
    for seed, plate in zip(SEEDS, plates, strict=True):
        change = change_by_flaws(seed, plate)
        for flaw in plate.flaws:
            height, width = flaw.mask.shape
            box = change[flaw.y : flaw.y + height, flaw.x : flaw.x + width]

            assert box[flaw.mask].mean() >= LEAST_CHANGE - 1.5


def test_holes_and_bench_are_no_metal_and_darker_than_it(plates: list[Plate]) -> None:
    cut = [plate for plate in plates if not plate.metal.all()]

    assert len(cut) >= 3
    for plate in cut:
        assert plate.image[~plate.metal].mean() < 0.8 * plate.image[plate.metal].mean()


def test_more_flaws_than_fit_are_refused() -> None:
    with pytest.raises(ParameterInvalid) as refusal:
        render_plate(np.random.default_rng(0), size_hw=(96, 96), flaw_count=60)

    assert refusal.value.field == "flaw_count"


def test_a_data_set_has_masks_of_its_flaws_and_a_split_by_part(tmp_path: Path) -> None:
    write_plates(tmp_path, count=10, seed=1, size_hw=(240, 320), normal_share=0.3)

    rows = read_split(tmp_path)
    assert [row["split"] for row in rows] == (["train"] * 4 + ["val"]) * 2
    assert [row["group"] for row in rows] == [str(number) for number in range(10)]
    for row in rows:
        masks = [tmp_path / "masks" / name / f"{row['image'][:-4]}.png" for name in LABELS]
        drawn = [read_picture(mask) for mask in masks if mask.exists()]
        assert read_picture(tmp_path / "images" / row["image"]).shape == (240, 320, 3)
        assert bool(drawn) == (row["kind"] == "defect")
        assert all(mask.shape == (240, 320) for mask in drawn)
        assert all(set(np.unique(mask)) == {0, 255} for mask in drawn)


@pytest.mark.parametrize(("share", "kinds"), [(0.0, {"defect"}), (1.0, {"normal"})])
def test_the_share_of_normal_parts_is_kept(tmp_path: Path, share: float, kinds: set[str]) -> None:
    write_plates(tmp_path, count=4, seed=1, size_hw=(240, 320), normal_share=share)

    rows = read_split(tmp_path)
    assert {row["kind"] for row in rows} == kinds


def test_the_command_writes_what_the_function_writes(tmp_path: Path) -> None:
    write_plates(tmp_path / "a", count=2, seed=5, size_hw=(240, 320), normal_share=0.5)
    options = ["--count", "2", "--seed", "5", "--size", "240x320", "--normal-share", "0.5"]

    main([str(tmp_path / "b"), *options])

    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
