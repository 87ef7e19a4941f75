from __future__ import annotations

import json
import weakref

import pytest

from service.keys import entry_of, write_entry
from tests.tiny import break_graph, write_tiny_bundle

INDEX, LOAD, UNLOAD = (
    f"/v2/repository/{path}" for path in ("index", "models/tiny/load", "models/tiny/unload")
)


@pytest.fixture
def folder(tmp_path):
    write_tiny_bundle(tmp_path / "bundles")
    return tmp_path / "bundles"


@pytest.fixture
def client(serve, folder):
    return serve(bundles=folder)


def version(text):
    return {"parameters": {"version": text}}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"parameters": {}}', b' {"parameters":{}} '])
def test_a_new_version_is_loaded_and_answers_from_then_on(client, folder, red_square_png, body):
    write_tiny_bundle(folder, version="2")

    loaded = client.post(LOAD, content=body)

    assert loaded.status_code == 200
    assert loaded.json() == [{"name": "tiny", "version": "2", "state": "READY", "reason": ""}]
    assert client.post("/detect", files={"image": red_square_png}).json()["version"] == "2"
    assert client.get("/v2/models/tiny").json()["versions"] == ["1", "2"]


@pytest.mark.parametrize(
    "asked", [{"json": version("2")}, {"params": {"version": "2"}}], ids=["body", "query"]
)
def test_a_version_is_unloaded_and_loaded_by_name(client, folder, asked):
    write_tiny_bundle(folder, version="2")
    client.post(LOAD, **asked)

    unloaded = client.post(UNLOAD, **asked)

    assert unloaded.json()[0]["state"] == "UNAVAILABLE"
    assert client.get("/v2/models/tiny").json()["versions"] == ["1"]


def test_a_folder_that_cannot_be_read_is_answered_503_and_what_is_loaded_serves_on(
    client, folder, red_square_png
):
    folder.rename(folder.with_name("aside"))
    folder.symlink_to("x" * 300)

    for refusal in (client.get(INDEX), client.post(LOAD)):
        assert (refusal.status_code, refusal.json()["code"]) == (503, "bundles_unavailable")
        assert "xxx" not in refusal.text
    assert client.post("/detect", files={"image": red_square_png}).status_code == 200


def test_the_index_lists_by_get_and_post_and_only_what_is_ready_where_asked(client, folder):
    write_tiny_bundle(folder, version="2")

    everything = client.get(INDEX).json()

    assert [(row["version"], row["state"]) for row in everything] == [
        ("1", "READY"),
        ("2", "UNAVAILABLE"),
    ]
    assert client.post(INDEX).json() == everything
    assert client.post(INDEX, json={"ready": True}).json() == everything[:1]


def test_a_bad_bundle_is_a_problem_that_names_the_file_and_no_place(client, folder, red_square_png):
    break_graph(write_tiny_bundle(folder, version="2"))

    refusal = client.post(LOAD)

    assert (refusal.status_code, refusal.json()["code"]) == (422, "bundle_refused")
    assert "segmenter.onnx" in refusal.json()["detail"]
    assert str(folder) not in refusal.text + client.get(INDEX).text
    assert client.post("/detect", files={"image": red_square_png}).json()["version"] == "1"


@pytest.mark.parametrize("path", [LOAD, UNLOAD])
def test_a_version_that_is_not_there_is_not_found(client, path):
    refusal = client.post(path, json=version("7"))

    assert (refusal.status_code, refusal.json()["code"]) == (404, "unknown_product")


@pytest.mark.parametrize("product", ["none", "..%2Ftiny", "%00", "t" * 300])
def test_a_product_that_is_not_there_is_not_found(client, product):
    assert client.post(f"/v2/repository/models/{product}/load").status_code == 404


def test_the_default_products_last_version_stays(client):
    refusal = client.post(UNLOAD, json={"parameters": {"unload_dependents": False}})

    assert (refusal.status_code, refusal.json()["code"]) == (409, "product_needed")
    assert client.get("/v2/models/tiny/ready").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"\xff",
        json.dumps({"parameters": {"config": "{}"}}).encode(),
        json.dumps({"parameters": {"file:1/model.onnx": "AAAA"}}).encode(),
        json.dumps({"parameters": {"version": 2}}).encode(),
        json.dumps({"version": "1"}).encode(),
    ],
)
@pytest.mark.parametrize("path", [LOAD, UNLOAD, INDEX])
def test_a_body_that_asks_for_something_else_is_refused(client, path, body):
    refusal = client.post(path, content=body)

    assert (refusal.status_code, refusal.json()["code"]) == (422, "invalid_parameter")


def test_two_different_versions_in_one_request_are_refused(client):
    refusal = client.post(LOAD, params={"version": "1"}, json=version("2"))

    assert refusal.status_code == 422


def test_a_large_body_is_refused(client):
    assert client.post(LOAD, content=b" " * 100_000).status_code == 413


def test_a_stopping_service_loads_nothing(client):
    client.app.state.engine.drain()

    refusal = client.post(LOAD)

    assert (refusal.status_code, refusal.json()["code"]) == (503, "draining")


@pytest.mark.parametrize("path", [INDEX, LOAD, UNLOAD])
def test_the_repository_opens_to_admins_alone(serve, folder, path):
    infer, admin = (write_entry(entry_of(role, role)) for role in ("infer", "admin"))
    client = serve(bundles=folder, api_keys=f"{infer},{admin}")

    statuses = [client.post(path, headers={"X-API-Key": key}).status_code for key in ("", "infer")]

    assert statuses == [401, 403]
    assert client.post(path, headers={"X-API-Key": "admin"}).status_code in (200, 409)


@pytest.mark.parametrize("path", [INDEX, LOAD, UNLOAD])
@pytest.mark.parametrize("keys", ["", write_entry(entry_of("infer", "infer"))])
def test_where_others_reach_it_and_no_admin_has_a_key_the_repository_is_shut(
    serve, folder, path, keys
):
    client = serve(bundles=folder, host="0.0.0.0", allow_open=True, api_keys=keys)

    for refusal in (client.post(path), client.post(path, headers={"X-API-Key": "infer"})):
        assert (refusal.status_code, refusal.json()["code"]) == (403, "forbidden")
    assert client.get(INDEX).status_code == 403


@pytest.mark.parametrize("origin", ["http://stranger.example", "null", "http://localhost:3000"])
@pytest.mark.parametrize("path", [INDEX, LOAD, UNLOAD])
def test_a_page_of_a_stranger_changes_no_bundle(client, path, origin):
    headers = {"Origin": origin, "Host": "localhost:8000", "Content-Type": "text/plain"}

    refusal = client.post(path, headers=headers)

    assert (refusal.status_code, refusal.json()["code"]) == (403, "forbidden")
    assert client.get("/v2/models/tiny").json()["versions"] == ["1"]


def test_a_page_of_the_service_or_of_a_named_origin_may_change_bundles(serve, folder):
    client = serve(bundles=folder, cors_origins="https://mes.example")

    for origin in ("http://localhost:8000", "https://mes.example"):
        headers = {"Origin": origin, "Host": "localhost:8000"}
        assert client.post(LOAD, headers=headers).status_code == 200


def test_a_bundle_that_answered_requests_is_freed_when_it_is_unloaded(
    client, folder, red_square_png, normal_png
):
    write_tiny_bundle(folder, version="2")
    client.post(LOAD)
    client.post("/detect", files={"image": red_square_png})
    client.post("/synthesize", files={"image": normal_png})
    bundle = client.app.state.services.library.pick("tiny", "2")
    graphs = [bundle.detector.segmenter.graph, bundle.synthesizer.mask_generator.graph]
    left = [weakref.ref(graph) for graph in graphs]
    del bundle, graphs

    client.post(UNLOAD, json=version("2"))

    assert [graph() for graph in left] == [None, None]


def test_the_server_names_the_extension(client):
    assert client.get("/v2").json()["extensions"] == ["model_repository"]


def test_a_refusal_has_the_field_that_protocol_clients_read(client):
    refusal = client.post(LOAD, json=version("7")).json()

    assert refusal["error"] == refusal["detail"]
