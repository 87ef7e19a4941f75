"""A ready-made client of the Open Inference Protocol meets a real service: Triton's own."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.running import running_service
from tests.tiny import break_graph, write_tiny_bundle

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that it imports
    from tritonclient.http import InferenceServerClient
    from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    write_tiny_bundle(root)
    write_tiny_bundle(root, product="other")
    return root


@pytest.fixture(scope="module")
def triton(folder):
    with running_service(folder, default_product="tiny") as running:
        client = InferenceServerClient(running.url.removeprefix("http://"), network_timeout=60)
        yield client
        client.close()


def states(client) -> dict[tuple[str, str], str]:
    return {
        (row["name"], row["version"]): row["state"] for row in client.get_model_repository_index()
    }


def test_it_reads_health_and_readiness(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("tiny")
    assert triton.is_model_ready("tiny", "1")
    assert not triton.is_model_ready("tiny", "7")
    assert not triton.is_model_ready("unknown")


def test_it_reads_metadata_of_server_and_model(triton):
    server = triton.get_server_metadata()
    model = triton.get_model_metadata("tiny")

    assert (server["name"], server["extensions"]) == ("flawsmith", ["model_repository"])
    assert (model["name"], model["versions"]) == ("tiny", ["1"])
    assert {tensor["datatype"] for tensor in model["inputs"] + model["outputs"]} <= {
        "UINT8",
        "FP32",
        "BYTES",
    }
    assert triton.get_model_metadata("tiny", "1") == model


def test_it_loads_and_unloads_with_and_without_a_version(triton, folder):
    write_tiny_bundle(folder, version="2")
    before = states(triton)

    triton.load_model("tiny")
    newest = triton.get_model_metadata("tiny")["versions"]
    triton.unload_model("tiny", query_params={"version": "2"})
    left = triton.get_model_metadata("tiny")["versions"]
    triton.load_model("tiny", query_params={"version": "2"})
    again = states(triton)

    assert before[("tiny", "2")] == "UNAVAILABLE"
    assert newest == ["1", "2"]
    assert left == ["1"]
    assert again[("tiny", "2")] == "READY"


def test_it_unloads_a_whole_model_and_loads_it_again(triton):
    triton.unload_model("other")
    is_there_between = triton.is_model_ready("other")
    triton.load_model("other")

    assert not is_there_between
    assert triton.is_model_ready("other")


def test_what_is_refused_is_told_in_our_words(triton):
    with pytest.raises(InferenceServerException, match="no such product; loaded are") as unknown:
        triton.get_model_metadata("unknown")
    with pytest.raises(InferenceServerException, match="default product") as needed:
        triton.unload_model("tiny")
    with pytest.raises(InferenceServerException, match=r"parameters\.config"):
        triton.load_model("tiny", config='{"backend": "python"}')

    assert (unknown.value.status(), needed.value.status()) == ("404", "409")


def test_a_bad_bundle_is_refused_and_the_good_one_serves_on(triton, folder):
    break_graph(write_tiny_bundle(folder, version="3"))

    with pytest.raises(InferenceServerException, match=r"segmenter\.onnx"):
        triton.load_model("tiny")

    assert triton.is_model_ready("tiny")
    assert states(triton)[("tiny", "3")] == "UNAVAILABLE"
