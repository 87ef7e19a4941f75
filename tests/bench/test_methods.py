from __future__ import annotations

import numpy as np
import pytest

from models.bundle import Bundle, open_bundle
from models.devices import Device
from models.steps.pictures import Picture
from tests.bench.methods import (
    Method,
    outline_scores,
    slicing_method,
    story_methods,
    whole_method,
    whole_scores,
)
from tests.tiny import write_tiny_bundle
from training.export import export_graph
from training.graphs import whole_export
from training.networks.segmenters import Segmenter
from training.tapes import Tape


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = write_tiny_bundle(tmp_path_factory.mktemp("bundles"))
    return open_bundle(folder, Device("cpu", 1))


@pytest.fixture(params=["story", "slicing", "SAHI"])
def method(bundle: Bundle, request: pytest.FixtureRequest) -> Method:
    if request.param == "SAHI":
        pytest.importorskip("sahi", reason="the extra bench brings SAHI")
        from tests.bench.sahi_method import sahi_method

        return sahi_method(bundle.detector)
    if request.param == "slicing":
        return slicing_method(bundle.detector)
    return story_methods(bundle)[1]


def red_squares(*corners: tuple[int, int]) -> Picture:
    pixels = np.zeros((96, 128, 3), np.uint8)
    for x, y in corners:
        pixels[y : y + 8, x : x + 8, 0] = 255
    return Picture(pixels)


def test_every_method_outlines_the_same_squares(method):
    found = method.find(red_squares((20, 20), (90, 60)), 0.5)

    assert sorted(one.region.box for one in found) == [(20, 20, 8, 8), (90, 60, 8, 8)]
    assert all(0.5 < one.score <= 1.0 for one in found)
    assert all(one.region.mask.all() for one in found)


def test_a_square_that_several_slices_show_is_one_region(method):
    (found,) = method.find(red_squares((24, 24)), 0.5)

    assert found.region.box == (24, 24, 8, 8)


def test_a_clean_picture_has_no_region(method):
    assert method.find(red_squares(), 0.5) == []


def test_what_is_played_again_is_what_was_found(method):
    picture = red_squares((20, 20), (90, 60))
    first = method.find(picture, 0.5)

    for tape in method.tapes:
        tape.rewind()
    second = method.find(picture, 0.5)

    assert [one.region.box for one in first] == [one.region.box for one in second]
    assert [one.score for one in first] == [one.score for one in second]


def test_a_bundle_is_told_as_calibrated_and_with_every_peak(bundle):
    calibrated, every = story_methods(bundle)

    assert calibrated.name == "tiny 1, as calibrated"
    assert calibrated.thresholds == (bundle.detector.params.mask_threshold,)
    assert calibrated.detector.params.min_confidence == bundle.detector.params.min_confidence
    assert every.detector.params.min_confidence == 0.0
    assert len(every.thresholds) > 1


def test_a_region_is_scored_by_its_mean_where_it_is_large_enough():
    scores = np.zeros((20, 20), np.float32)
    scores[2:6, 2:6], scores[2:4, 2:6] = 0.6, 0.8
    scores[10, 10] = 0.9

    (found,) = outline_scores(scores, 0.5, 4.0)

    assert found.score == pytest.approx(0.7)
    assert found.region.box == (2, 2, 4, 4)


@pytest.mark.slow
def test_a_whole_picture_of_any_size_keeps_it_through_the_network(bundle, tmp_path):
    file = tmp_path / "whole.onnx"
    export_graph(whole_export(Segmenter(1, side_px=64, decoder="DeepLabV3Plus")), file)
    picture = red_squares((20, 20))
    device = Device("cpu", 1)

    method = whole_method("whole", file, device, bundle.detector, width_px=64)
    scores = whole_scores(picture.as_rgb8()[:70, :100], Tape(method.tapes[0].graph))

    assert scores.shape == (70, 100)
    assert ((scores >= 0) & (scores <= 1)).all()
    (everything,) = method.find(picture, 0.0)
    assert everything.region.box == (0, 0, 128, 96)
