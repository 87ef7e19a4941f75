from __future__ import annotations

import io
import json
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from models.steps.pictures import encode_png
from service.compute.tickets import Ticket
from service.routes.detection import is_audited

CONTRACT = {
    "id": str,
    "product": str,
    "version": str,
    "image": dict,
    "verdict": str,
    "crops": list,
    "defects": list,
    "budget_exhausted": bool,
    "timings_ms": dict,
    "decision": str,
    "tolerated": list,
}
DEFECT = {
    "label": str,
    "score": float,
    "polygon": dict,
    "box": list,
    "area_px": float,
    "centroid": list,
    "min_area_rect": dict,
    "truncated": bool,
    "crops": list,
    "length_px": float,
    "width_px": float,
    "mean_width_px": float,
}


@pytest.fixture
def detect(client, red_square_png):
    """Ask for the red square with some query parameters."""

    def ask(**query):
        headers = {"Content-Type": "image/png"}
        return client.post("/detect", params=query, content=red_square_png, headers=headers)

    return ask


def picture_of(text: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(b64decode(text))))


def types_of(fields: dict, document: dict) -> dict:
    return {name: type(document[name]) for name in fields}


def test_the_answer_has_every_field_of_the_contract(detect):
    answer = detect().json()

    assert types_of(CONTRACT, answer) == CONTRACT
    assert answer["image"] == {"width": 128, "height": 96}
    assert (answer["product"], answer["version"]) == ("tiny", "10")
    assert answer["confidence_matrix"] is None
    assert answer["audit"] is None
    crop = answer["crops"][0]
    assert crop.keys() == {"rank", "center", "confidence", "box", "image", "reason"}


def test_whose_picture_it_is_comes_back(detect):
    told = {"part_id": "A 17/3", "job_id": "7", "recipe_id": "r+s@2", "meas_id": "(01)095=#*"}

    named, unnamed = detect(**told).json(), detect().json()

    assert {name: named[name] for name in told} == told
    assert {name: unnamed[name] for name in told} == dict.fromkeys(told)


@pytest.mark.parametrize("name", ["part_id", "job_id", "recipe_id", "meas_id"])
@pytest.mark.parametrize("text", ["", " 7", "a\nb", "ä", "x" * 129, '"', "<b>", "a\\b"])
def test_a_reference_that_is_long_or_unsafe_is_refused_by_name(detect, name, text):
    answer = detect(**{name: text})

    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_parameter"
    assert answer.json()["detail"].startswith(name)


def test_a_defect_has_every_field_of_the_contract(detect):
    (defect,) = detect().json()["defects"]

    assert types_of(DEFECT, defect) == DEFECT
    assert defect["min_area_rect"].keys() >= {"center", "size", "angle_deg"}
    assert 0.0 <= defect["score"] <= 1.0


def test_the_polygon_runs_along_the_edges_of_the_red_square(detect):
    answer = detect().json()

    (defect,) = answer["defects"]
    assert answer["verdict"] == "ng"
    assert sorted(defect["polygon"]["exterior"]) == [[40, 20], [40, 30], [52, 20], [52, 30]]
    assert defect["polygon"]["holes"] == []
    assert (defect["box"], defect["area_px"]) == ([40, 20, 12, 10], 120.0)
    assert defect["centroid"] == [46.0, 25.0]


def test_a_clean_picture_is_ok(client):
    black = io.BytesIO()
    Image.new("L", (96, 64)).save(black, "PNG")

    answer = client.post("/detect", files={"image": black.getvalue()}).json()

    assert (answer["verdict"], answer["defects"]) == ("ok", [])


def test_a_form_and_a_raw_body_get_the_same_answer(client, detect, red_square_png):
    form = client.post("/detect", files={"image": ("x.jpg", red_square_png)}).json()

    raw = detect().json()
    assert form["defects"] == raw["defects"]
    assert form["crops"] == raw["crops"]


def test_times_are_told_and_the_total_covers_them(detect):
    times = detect().json()["timings_ms"]

    stages = ["queue", "decode", "locate", "segment", "outline"]
    assert set(stages) <= set(times)
    assert times["total"] >= sum(times[stage] for stage in stages)


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_a_crop_can_carry_its_picture(detect, form):
    crop = detect(crop_images=form, crop_size=32).json()["crops"][0]

    picture = picture_of(crop["image"])
    x, y, width, height = crop["box"]
    assert (width, height) == (32, 32)
    assert picture.shape == (32, 32, 3)
    assert np.allclose(picture[25 - y, 46 - x], (255, 0, 0), atol=6)


def test_the_confidence_matrix_has_the_inputs_size_and_16_bits(detect):
    matrix = picture_of(detect(confidence_matrix="png").json()["confidence_matrix"])

    assert matrix.shape == (96, 128)
    assert int(matrix.max()) > 255
    assert matrix[25, 46] > matrix[80, 100]


def test_n_bounds_the_crops_and_min_confidence_0_gives_all_n(detect):
    assert len(detect(n=1, min_confidence=0, crop_size=16).json()["crops"]) == 1
    assert len(detect(n=6, min_confidence=0, crop_size=16).json()["crops"]) == 6


def test_an_area_has_a_twin_in_square_millimetres_where_the_scale_is_known(detect):
    (scaled,) = detect(mm_per_px=0.5).json()["defects"]
    (plain,) = detect().json()["defects"]

    assert scaled["area_mm"] == 30.0
    assert sorted(scaled["min_area_rect"]["size_mm"]) == [5.0, 6.0]
    assert plain["area_mm"] is None


def test_a_version_can_be_asked_for(detect):
    assert detect(product="tiny", version="9").json()["version"] == "9"


@pytest.mark.parametrize(
    "query",
    [
        {"n": 0},
        {"n": 65},
        {"n": "NaN"},
        {"n": "9" * 5000},
        {"crop_size": 15},
        {"crop_size": 4097},
        {"crop_size": -1},
        {"min_confidence": "NaN"},
        {"min_confidence": 1.01},
        {"min_score": "inf"},
        {"min_score": -0.1},
        {"crop_images": "gif"},
        {"confidence_matrix": "jpeg"},
        {"mm_per_px": 0},
        {"mm_per_px": "NaN"},
        {"mm_per_px": "1e999"},
        {"mm_per_px": "1e200"},
        {"review_score": 1.5},
        {"review_score": 0.9, "min_score": 0.8},
        {"extra_crops": -1},
        {"extra_crops": 65},
        {"merge_gap": 257},
        {"audit": "perhaps"},
        {"zones": "{"},
        {"zones": '{"look":[{"points":[[0,0],[1,1]]}]}'},
        {"zones": '{"look":[{"points":[[0,0],[1,1],[1,"NaN"]]}]}'},
        {"zones": "[" * 16384},
        {"zones": " " * 16385},
        {"rules": "{}"},
        {"rules": '[{"under":{"area_px":-1}}]'},
        {"rules": '[{"under":{"area_mm":1}}]'},
        {"rules": '[{"label":"dent"}]'},
    ],
    ids=str,
)
def test_a_parameter_out_of_range_is_refused_by_name(detect, query):
    refusal = detect(**query)

    assert refusal.status_code == 422
    assert refusal.json()["code"] == "invalid_parameter"
    assert next(iter(query)) in refusal.json()["detail"]


def test_zones_of_a_request_say_where_defects_are_looked_for(detect):
    left = {"look": [{"points": [[0, 0], [0.3, 0], [0.3, 1], [0, 1]]}]}
    beside = {"ignore": [{"points": [[60, 0], [128, 0], [128, 96]], "frame": "px"}]}

    assert detect(zones=json.dumps(left)).json()["defects"] == []
    assert len(detect(zones=json.dumps(beside)).json()["defects"]) == 1


def test_a_rule_of_a_request_lets_a_defect_pass_and_it_is_told(detect):
    rules = [{"label": "pit", "under": {"length_mm": 2.0}, "allowed": 1}]

    answer = detect(rules=json.dumps(rules), mm_per_px=0.1).json()

    (tolerated,) = answer["tolerated"]
    assert (answer["verdict"], answer["decision"], answer["defects"]) == ("ok", "ok", [])
    assert tolerated["reason"] == "rule"
    assert types_of(DEFECT, tolerated) == DEFECT
    assert tolerated["length_mm"] == pytest.approx(0.1 * tolerated["length_px"])


def test_between_review_score_and_min_score_a_person_should_look(detect):
    answer = detect(min_score=1.0, review_score=0.5).json()

    assert (answer["verdict"], answer["decision"]) == ("ok", "review")
    assert [one["reason"] for one in answer["tolerated"]] == ["score"]


def test_a_defect_is_followed_beyond_n_crops_only_where_that_is_asked_for(detect):
    followed = detect(n=1, crop_size=16, extra_crops=4).json()
    cut = detect(n=1, crop_size=16).json()

    assert {crop["reason"] for crop in followed["crops"]} == {"peak", "neighbour"}
    assert [crop["reason"] for crop in cut["crops"]] == ["peak"]
    assert cut["defects"][0]["truncated"]


def test_extra_crops_that_would_fill_the_memory_are_refused_and_the_manifests_are_fewer(serve):
    picture = encode_png(np.zeros((96, 128), np.uint8))
    narrow = serve(max_crop_pixels=6 * 32 * 32)

    def ask(**query):
        return narrow.post("/detect", params=query, files={"image": picture})

    assert ask().status_code == 200
    assert ask(extra_crops=1).status_code == 200
    refusal = ask(extra_crops=2)
    assert refusal.status_code == 422
    assert "extra_crops" in refusal.json()["detail"]


def two_squares() -> bytes:
    """The second is what one crop misses."""
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[20:26, 20:26, 0], pixels[70:76, 100:106, 0] = 255, 230
    return encode_png(pixels)


def test_an_audit_tells_what_the_crops_missed_and_leaves_the_verdict(client):
    answer = client.post(
        "/detect", params={"n": 1, "audit": True}, files={"image": two_squares()}
    ).json()

    (missed,) = answer["audit"]["missed"]
    assert missed["box"] == [100, 70, 6, 6]
    assert [defect["box"] for defect in answer["defects"]] == [[20, 20, 6, 6]]
    assert answer["audit"]["slices"] > 4
    assert answer["timings_ms"]["audit"] > 0


def test_an_audit_by_chance_is_left_out_while_another_runs(serve):
    client = serve(audit_share=1, workers=2)
    engine = client.app.state.engine
    seat = engine.audit(Ticket(), can_wait=False)
    client.portal.call(seat.__aenter__)

    answer = client.post("/detect", params={"n": 1}, files={"image": two_squares()})
    client.portal.call(seat.__aexit__, None, None, None)
    later = client.post("/detect", params={"n": 1}, files={"image": two_squares()})

    assert answer.json()["audit"] is None
    assert later.json()["audit"]["slices"] > 4


@pytest.mark.parametrize(("share", "query", "audits"), [(1, {}, 1), (1, {"audit": False}, 0)])
def test_a_share_of_the_requests_is_audited_unless_one_declines(serve, share, query, audits):
    client = serve(audit_share=share)

    client.post("/detect", params={"n": 1, **query}, files={"image": two_squares()})

    text = client.get("/metrics").text
    missed = 'flawsmith_audit_missed_defects_total{label="pit",product="tiny"} 1.0'
    assert ('flawsmith_audited_pictures_total{product="tiny"} 1.0' in text) is (audits == 1)
    assert (missed in text) is (audits == 1)


@pytest.mark.parametrize(
    ("asked", "share", "drawn", "is_so"),
    [
        (None, 0.0, 0.0, False),
        (None, 0.2, 0.19, True),
        (None, 0.2, 0.2, False),
        (None, 1.0, 0.999, True),
        (True, 0.0, 0.5, True),
        (False, 1.0, 0.5, False),
    ],
)
def test_a_request_is_audited_as_it_asks_and_else_by_chance(asked, share, drawn, is_so):
    assert is_audited(asked, share, lambda: drawn) is is_so


def test_a_misspelt_parameter_is_refused_and_the_known_ones_are_listed(detect):
    refusal = detect(min_conf=0.5)

    assert refusal.status_code == 422
    assert "min_conf: " in refusal.json()["detail"]
    assert "min_confidence" in refusal.json()["detail"]


def test_crops_that_would_fill_the_memory_are_refused(detect):
    refusal = detect(n=64, crop_size=4096)

    assert refusal.status_code == 422
    assert "crop_size" in refusal.json()["detail"]


def test_found_defects_are_counted(client, detect):
    detect()

    assert "flawsmith_defects_total{label=" in client.get("/metrics").text
