from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import numpy as np
import pytest

from models.errors import DeviceLost
from models.steps.pictures import encode_png
from tests.tiny import write_tiny_bundle

DASHBOARD = Path(__file__).parents[3] / "docker/grafana/flawsmith.json"


def test_the_server_describes_itself(client):
    assert client.get("/v2").json().keys() == {"name", "version", "extensions"}


def test_a_started_service_is_live_and_ready(client):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


def test_a_stopping_service_is_live_but_not_ready(client):
    client.app.state.engine.drain()

    refusal = client.get("/v2/health/ready")

    assert client.get("/v2/health/live").status_code == 200
    assert (refusal.status_code, refusal.json()["code"]) == (503, "draining")
    assert int(refusal.headers["retry-after"]) >= 1


def test_a_graph_that_raises_is_503_and_no_500(serve, tmp_path):
    write_tiny_bundle(tmp_path, segmenter="brittle")
    client = serve(bundles=tmp_path, default_product=None)
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[20:30, 40:52] = (255, 0, 255)

    refusal = client.post("/detect", files={"image": encode_png(pixels)})

    assert (refusal.status_code, refusal.json()["code"]) == (503, "not_ready")
    assert "retry-after" in refusal.headers
    assert "Gather" not in refusal.text


def test_a_service_whose_graph_fails_is_not_ready_until_it_runs_again(client):
    class Device:
        is_back = threading.Event()

        def run(self):
            if not self.is_back.is_set():
                raise DeviceLost("gone")

    device, failures = Device(), client.app.state.engine.failures
    failures.note("tiny 10 locator", device.run)

    refusal = client.get("/v2/health/ready")

    assert (refusal.status_code, refusal.json()["code"]) == (503, "not_ready")
    assert "retry-after" in refusal.headers
    device.is_back.set()


def test_metrics_name_the_loaded_bundles(client):
    answer = client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain")
    assert 'flawsmith_bundle_info{product="tiny",provider=' in answer.text
    assert "flawsmith_queued 0.0" in answer.text


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/health/ready", "/metrics"])
def test_probes_and_collectors_need_no_api_key(serve, path):
    assert serve(api_keys=f"infer:{64 * '0'}").get(path).status_code == 200


def test_every_metric_of_the_dashboard_is_one_that_the_service_has(client):
    told = client.get("/metrics").text
    families = re.findall(r"^# TYPE (\w+) (\w+)$", told, re.MULTILINE)
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    known = {name + part for name, kind in families for part in parts.get(kind, ("",))}

    asked = {
        metric
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel["targets"]
        for metric in re.findall(r"\b(?:flawsmith|process|python)_\w+", target["expr"])
    }

    assert len(asked) > 10
    assert asked - known == set()
