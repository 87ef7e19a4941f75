from __future__ import annotations

import pytest

from models.errors import DeviceLost
from service.telemetry import Trace


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


def test_a_service_whose_device_is_lost_is_not_ready(client):
    def lose() -> None:
        raise DeviceLost("gone")

    with pytest.raises(DeviceLost):
        client.portal.call(client.app.state.engine.run, lose, Trace("1"))

    refusal = client.get("/v2/health/ready")

    assert (refusal.status_code, refusal.json()["code"]) == (503, "not_ready")
    assert "retry-after" in refusal.headers


def test_metrics_name_the_loaded_bundles(client):
    answer = client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain")
    assert 'flawsmith_bundle_info{product="tiny",provider=' in answer.text
    assert "flawsmith_queued 0.0" in answer.text


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/health/ready", "/metrics"])
def test_probes_and_collectors_need_no_api_key(serve, path):
    assert serve(api_keys=f"infer:{64 * '0'}").get(path).status_code == 200
