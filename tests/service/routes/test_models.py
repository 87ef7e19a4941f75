from __future__ import annotations

import pytest


def test_the_catalogue_lists_every_product_with_its_versions_oldest_first(client):
    answer = client.get("/v2/models").json()

    assert answer == {"default": "tiny", "models": {"second": ["1"], "tiny": ["9", "10"]}}


def test_metadata_has_the_protocols_fields(client):
    answer = client.get("/v2/models/tiny").json()

    assert (answer["name"], answer["versions"]) == ("tiny", ["9", "10"])
    assert answer["platform"] == "onnxruntime_onnx"
    for tensor in answer["inputs"] + answer["outputs"]:
        assert tensor.keys() == {"name", "datatype", "shape"}


def test_metadata_tells_labels_licences_figures_and_what_runs_it(client):
    answer = client.get("/v2/models/tiny").json()

    assert answer["labels"]
    assert answer["data"][0].keys() >= {"name", "licence", "citation"}
    assert "figures" in answer
    assert answer["provider"] in ("CPUExecutionProvider", "CUDAExecutionProvider")


def test_the_newest_version_speaks_for_the_product(client):
    assert client.get("/v2/models/tiny").json()["version"] == "10"
    assert client.get("/v2/models/tiny/versions/9").json()["version"] == "9"


@pytest.mark.parametrize("path", ["tiny/ready", "tiny/versions/9/ready"])
def test_a_loaded_product_is_ready(client, path):
    assert client.get(f"/v2/models/{path}").json() == {"name": "tiny", "ready": True}


@pytest.mark.parametrize(
    "path", ["none", "none/ready", "tiny/versions/11", "tiny/versions/11/ready", "..%2F..%2Fetc"]
)
def test_an_unknown_product_or_version_is_not_found(client, path):
    assert client.get(f"/v2/models/{path}").status_code == 404


def test_a_stopping_service_says_that_its_products_are_not_ready(client):
    client.app.state.engine.drain()

    assert client.get("/v2/models/tiny/ready").status_code == 503


def test_a_products_metadata_holds_no_fingerprint_of_its_training_defects(client):
    assert "fingerprint" not in client.get("/v2/models/tiny").text
