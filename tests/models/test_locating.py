from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.bundle import open_bundle
from models.detection import Detector, detect
from models.devices import Device
from models.graphs import HeatmapLocator
from models.locating import predict_field, shrink_to
from models.steps.fields import DenseField, PointField
from models.steps.pictures import Picture
from tests.tiny import LOOK_HW, LocatorKind, write_tiny_bundle


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> dict[LocatorKind, Detector]:
    """The tiny bundle with each of its locators."""
    root = tmp_path_factory.mktemp("locators")
    kinds: tuple[LocatorKind, ...] = ("field", "peaks", "points")
    return {kind: _open(root, kind) for kind in kinds}


def _open(root: Path, kind: LocatorKind) -> Detector:
    folder = write_tiny_bundle(root, product=kind, locator=kind)
    return open_bundle(folder, Device("cpu", threads=1)).detector


def lit_at(*places_xy: tuple[int, int], hw: tuple[int, int] = (64, 96)) -> np.ndarray:
    """Red specks of 2 × 2 px on black, each a little less bright than the one before."""
    image = np.zeros((*hw, 3), np.uint8)
    for index, (x, y) in enumerate(places_xy):
        image[y : y + 2, x : x + 2, 0] = 255 - 20 * index
    return image


def noise(hw: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*hw, 3), np.uint8)


@pytest.mark.parametrize("kind", ["field", "peaks", "points"])
def test_every_locator_gives_one_interface(
    detectors: dict[LocatorKind, Detector], kind: LocatorKind
) -> None:
    image = lit_at((43, 27), (83, 51))

    field = predict_field(image, detectors[kind].locator, is_dense=True)

    first, second = field.peaks(5, min_confidence=0.5, radius_px=8)
    matrix = field.matrix()
    row, column = np.unravel_index(matrix.argmax(), matrix.shape)
    assert (first.x, first.y, second.x, second.y) == (44, 28, 84, 52)
    assert matrix.shape == field.image_hw == (64, 96)
    assert max(abs(column + 0.5 - first.x), abs(row + 0.5 - first.y)) <= 0.5
    assert field.confidence_in((40, 24, 8, 8)) == pytest.approx(first.confidence)
    assert field.confidence_in((0, 56, 4, 4)) < 0.01
    assert field.strongest == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("hw", "n"), [((64, 96), 1), ((64, 96), 5), ((64, 96), 64), ((104, 144), 5), ((16, 24), 64)]
)
@pytest.mark.parametrize("min_confidence", [0.0, 0.9])
def test_peaks_found_in_the_graph_are_those_found_in_its_field(
    detectors: dict[LocatorKind, Detector], hw: tuple[int, int], n: int, min_confidence: float
) -> None:
    levels = np.random.default_rng(0).permutation(hw[0] // 8 * (hw[1] // 8)).astype(np.uint8)
    levels = levels.reshape(hw[0] // 8, hw[1] // 8)
    image = np.repeat(levels.repeat(8, 0).repeat(8, 1)[..., None], 3, axis=2)

    old, new = (
        predict_field(image, detectors[kind].locator).peaks(
            n, min_confidence=min_confidence, radius_px=16.0
        )
        for kind in ("field", "peaks")
    )

    assert new == old


@pytest.mark.parametrize("hw", [(61, 90), (200, 333), (600, 900)])
def test_without_a_least_confidence_there_are_always_n_peaks(
    detectors: dict[LocatorKind, Detector], hw: tuple[int, int]
) -> None:
    for detector in detectors.values():
        field = predict_field(noise(hw), detector.locator)

        assert len(field.peaks(64, min_confidence=0.0, radius_px=60.0)) == 64


def test_only_what_is_asked_for_leaves_the_graph(detectors: dict[LocatorKind, Detector]) -> None:
    locator = detectors["peaks"].locator

    sparse = predict_field(noise((64, 96)), locator)
    dense = predict_field(noise((64, 96)), locator, is_dense=True)

    assert isinstance(sparse, PointField)
    assert sparse.dense is None
    assert isinstance(dense, PointField)
    assert isinstance(dense.dense, DenseField)


def test_a_graph_that_gives_no_peaks_gives_its_field(
    detectors: dict[LocatorKind, Detector],
) -> None:
    assert isinstance(predict_field(noise((64, 96)), detectors["field"].locator), DenseField)


@pytest.mark.parametrize("wants_matrix", [False, True])
def test_the_defects_are_the_same_whichever_way_peaks_are_found(
    detectors: dict[LocatorKind, Detector], wants_matrix: bool
) -> None:
    picture = Picture(lit_at((43, 27), (83, 51), (180, 140), (20, 150), hw=(161, 222)))

    old = detect(picture, detectors["field"], wants_matrix=wants_matrix)
    new = detect(picture, detectors["peaks"], wants_matrix=wants_matrix)

    assert len(old.defects) == 4
    assert [d.region.box for d in new.defects] == [d.region.box for d in old.defects]
    assert [d.score for d in new.defects] == pytest.approx([d.score for d in old.defects], abs=0.02)
    assert new.crops == old.crops


def test_a_heatmaps_matrix_is_that_of_its_field_where_it_is_wanted(
    detectors: dict[LocatorKind, Detector],
) -> None:
    picture = Picture(noise((61, 90)))

    old, new = (detect(picture, detectors[kind], wants_matrix=True) for kind in ("field", "peaks"))

    np.testing.assert_array_equal(new.field.matrix(), old.field.matrix())


def test_a_defect_at_the_far_edge_is_found_in_what_the_edge_repeats(
    detectors: dict[LocatorKind, Detector],
) -> None:
    locator = detectors["peaks"].locator
    assert isinstance(locator, HeatmapLocator)
    coarse = replace(locator, multiple_px=32)
    image = lit_at((97, 65), hw=(67, 99))

    (peak,) = predict_field(image, coarse).peaks(5, min_confidence=0.9, radius_px=16)

    assert 96 <= peak.x <= 98.5
    assert 64 <= peak.y <= 66.5


@pytest.mark.parametrize("kind", ["field", "peaks", "points"])
def test_the_literal_rule_looks_at_neighbours_with_every_locator(
    detectors: dict[LocatorKind, Detector], kind: LocatorKind
) -> None:
    detector = detectors[kind]
    params = detector.params.model_copy(update={"peak_rule": "literal", "n": 5})
    picture = Picture(lit_at((43, 27), (84, 52)))
    picture.pixels[24:40, 40:64, 0] = 255

    literal = detect(picture, replace(detector, params=params))
    coverage = detect(picture, detector)

    assert all(x < 64 and y < 40 for x, y in (crop.center_xy for crop in literal.crops))
    assert any(x > 64 and y > 40 for x, y in (crop.center_xy for crop in coverage.crops))


def test_a_deeppose_finds_places_in_pictures_of_other_sizes_than_its_look(
    detectors: dict[LocatorKind, Detector],
) -> None:
    image = np.zeros((640, 480, 3), np.uint8)
    image[400:480, 200:240, 0] = 255

    (peak,) = predict_field(image, detectors["points"].locator).peaks(
        1, min_confidence=0.9, radius_px=100
    )

    assert 200 <= peak.x <= 240
    assert 400 <= peak.y <= 480


def test_a_look_is_the_mean_of_what_it_stands_for() -> None:
    image = np.zeros((128, 192, 3), np.uint8)
    image[::2, ::2] = 200

    look = shrink_to(image, LOOK_HW)

    assert look.shape == (*LOOK_HW, 3)
    assert set(np.unique(look)) == {50}
