from __future__ import annotations

import typing

import pytest

from service.client_types import (
    DetectionAsked,
    SynthesisAsked,
    read_detection,
    read_synthesis,
)
from service.routes.detection import DetectionQuery
from service.routes.synthesis import SynthesisQuery


@pytest.fixture
def detection(client, red_square_png):
    asked = {"audit": "true", "confidence_matrix": "png", "crop_images": "jpeg", "mm_per_px": "2"}
    return client.post("/detect", params=asked, files={"image": red_square_png}).json()


def test_every_field_of_a_detection_is_read(detection):
    found = read_detection(detection)

    told = detection["defects"][0]
    assert (found.defects[0].length_mm, found.defects[0].score) == (
        told["length_mm"],
        told["score"],
    )
    assert found.defects[0].min_area_rect.size_mm == tuple(told["min_area_rect"]["size_mm"])
    assert found.defects[0].polygon.exterior == tuple(map(tuple, told["polygon"]["exterior"]))
    assert found.audit.of_slices == detection["audit"]["of_slices"]
    assert found.confidence_matrix.startswith(b"\x89PNG")
    assert found.crops[0].image.startswith(b"\xff\xd8")
    assert found.timings_ms == detection["timings_ms"]


def test_a_field_of_a_newer_service_stays_in_raw(detection):
    detection["defects"][0]["colour"] = "red"
    detection["weather"] = "fine"

    found = read_detection(detection)

    assert found.raw["weather"] == "fine"
    assert found.defects[0].label == "pit"


def test_a_synthesis_is_read(client, normal_png):
    answer = client.post("/synthesize", params={"seed": 7}, files={"image": normal_png}).json()

    made = read_synthesis(answer)

    assert (made.seed, made.rejected, made.width) == (7, answer["rejected"], 128)
    assert made.samples[0].defects[0].box == tuple(answer["samples"][0]["defects"][0]["box"])


@pytest.mark.parametrize("lost", ["crops", "image", "audit", "verdict"])
def test_an_answer_that_lacks_a_field_is_not_read(detection, lost):
    del detection[lost]

    with pytest.raises((KeyError, TypeError)):
        read_detection(detection)


@pytest.mark.parametrize(
    ("asked", "query"), [(DetectionAsked, DetectionQuery), (SynthesisAsked, SynthesisQuery)]
)
def test_the_client_can_ask_all_that_the_routes_take(asked, query):
    traces = {"part_id", "job_id", "recipe_id", "meas_id"}

    assert typing.get_type_hints(asked).keys() - traces == query.model_fields.keys() - traces
