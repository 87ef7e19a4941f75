from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time

import numpy as np
import onnxruntime
import pytest
import trustme

from models.bundle import SHIPPED
from models.steps.pictures import encode_png
from service.__main__ import DrainingServer, connection_limits, uvicorn_config
from service.app import create_app
from service.connections import ConnectionLimits
from service.keys import roles_of
from service.settings import Settings
from tests.processes import read_all, serving


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def server_of(settings: Settings) -> DrainingServer:
    app = create_app(settings)
    server = DrainingServer(uvicorn_config(app, settings), app, settings.drain_s)
    server.started = True
    return server


def test_the_first_signal_drains_and_the_second_ends():
    server = server_of(Settings())

    server.handle_exit(signal.SIGTERM, None)
    is_ended_by_first = server.should_exit
    server.handle_exit(signal.SIGTERM, None)

    assert server.engine.is_draining
    assert not is_ended_by_first
    assert server.should_exit


def test_a_server_knows_its_settings_limits():
    limits = connection_limits(Settings(head_timeout_s=3, stall_s=4, max_headers=50))

    assert limits == ConnectionLimits(3, 65536, 50, 4, 1000, 512)


@pytest.mark.slow
def test_with_a_certificate_https_alone_is_served(bundles, tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    files = {"tls_certificate": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(files["tls_certificate"], append=True)
    certificate.private_key_pem.write_to_path(files["tls_key"])
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)

    with serving(bundles, trusted=trusted, **files) as served:
        served.wait_until_ready()
        _, _, headers = served.ask("GET", "/v2")
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as plain:
            plain.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
            in_plain = read_all(plain)

    assert "strict-transport-security" in headers
    assert b"200" not in in_plain


@pytest.mark.slow
def test_a_certificate_that_is_none_ends_with_3_and_one_line(tmp_path):
    (tmp_path / "cert.pem").write_text("no certificate")

    path = str(tmp_path / "cert.pem")
    done = serve(SERVICE_TLS_CERTIFICATE=path, SERVICE_TLS_KEY=path)

    (line,) = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 3
    assert "certificate" in line["message"]
    assert done.stderr == ""


def test_the_server_keeps_its_own_logs():
    config = uvicorn_config(create_app(Settings()), Settings())

    assert config.log_config is None
    assert not config.access_log


def test_a_wrong_setting_is_named_and_ends_with_2():
    done = serve(SERVICE_PORT="many")

    assert done.returncode == 2
    assert "port" in done.stderr


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"SERVICE_DATABASE": "oracle://line:hunter2@h"}, "SERVICE_DATABASE"),
        ({"SERVICE_WEBHOOK_URL": "http://h/x", "SERVICE_WEBHOOK_SECRET": "hunter2"}, "whsec_"),
        ({"SERVICE_MQTT_URL": "mqtt://h", "SERVICE_MQTT_TOPIC": "a/{hunter2"}, "TOPIC"),
    ],
)
def test_a_place_for_records_that_cannot_be_one_ends_with_2_and_one_line(environment, named):
    done = serve(**environment)

    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert named in line
    assert "hunter2" not in line
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("missing", "setting", "url", "extra"),
    [
        ("sqlalchemy", "SERVICE_DATABASE", "sqlite:////x", "records"),
        ("paho", "SERVICE_MQTT_URL", "mqtt://h", "mqtt"),
        ("opentelemetry.exporter", "OTEL_EXPORTER_OTLP_ENDPOINT", "http://h", "telemetry"),
    ],
)
def test_a_missing_extra_ends_with_2_and_says_how_to_get_it(missing, setting, url, extra):
    without = f"import sys; sys.modules[{missing!r}] = None; "
    done = subprocess.run(
        [sys.executable, "-c", without + "from service.__main__ import main; sys.exit(main())"],
        env={"PATH": os.environ["PATH"], setting: url},
        capture_output=True,
        text=True,
        timeout=60,
    )

    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith(f"{setting} needs ")
    assert f"-e '.[{extra}]'" in line


def errors_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    lines = map(json.loads, done.stdout.splitlines())
    return [line["message"] for line in lines if line["level"] == "error"]


def test_a_bad_bundle_is_named_in_one_line_and_ends_with_3(tmp_path):
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "manifest.json").write_text("{}")

    done = serve(SERVICE_BUNDLES=str(tmp_path), SERVICE_PORT="0")

    (error,) = errors_of(done)
    assert done.returncode == 3
    assert "broken/1" in error
    assert done.stderr == ""


def test_a_named_device_that_is_missing_is_told_in_one_line_and_ends_with_3(bundles):
    if len(onnxruntime.get_available_providers()) > 2:
        pytest.skip("this ONNX Runtime may have an accelerator")

    done = serve(SERVICE_BUNDLES=str(bundles), SERVICE_PORT="0", SERVICE_DEVICE="cuda")

    (error,) = errors_of(done)
    assert done.returncode == 3
    assert "device cuda was asked for" in error
    assert "the session got CPUExecutionProvider" in error


@pytest.mark.slow
def test_an_address_that_is_taken_ends_with_3(bundles):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        assert serve(SERVICE_BUNDLES=str(bundles), SERVICE_PORT=port).returncode == 3


@pytest.mark.slow
def test_while_its_bundles_are_loaded_it_lives_and_is_not_ready(red_square_png):
    with serving(SHIPPED) as served:
        live = served.ask("GET", "/v2/health/live")
        others = [
            served.ask("GET", "/v2/health/ready"),
            served.ask("GET", "/v2/models"),
            served.ask("POST", "/detect", red_square_png, {"Content-Type": "image/png"}),
        ]
        metrics = served.ask("GET", "/metrics")
        served.wait_until_ready()

        assert (live[0], metrics[0]) == (200, 200)
        for status, body, headers in others:
            assert (status, json.loads(body)["code"]) == (503, "not_ready")
            assert headers["retry-after"]


@pytest.mark.slow
def test_told_to_stop_while_its_bundles_are_loaded_it_ends_clean_and_soon():
    with serving(SHIPPED) as served:
        served.wait_for("running on")
        served.process.send_signal(signal.SIGTERM)

        assert served.process.wait(timeout=5) == 0


@pytest.fixture
def at_work(bundles):
    """A service whose worker has work for many seconds, and half a second to finish it."""
    pixels = np.full((2000, 2400, 3), 10, np.uint8)
    pixels[50:-50, 50:-50] = np.random.default_rng(1).integers(170, 210, (1900, 2300, 3))
    picture = encode_png(pixels)
    head = (
        b"POST /synthesize?count=10&defects=16 HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    )
    with serving(bundles, drain_s=0.5) as served:
        served.wait_until_ready()
        with served.wire() as wire:
            wire.sendall(head + b"Content-Length: %d\r\n\r\n" % len(picture) + picture)
            while b"flawsmith_running 1.0" not in served.ask("GET", "/metrics")[1]:
                time.sleep(0.01)
            yield served


@pytest.mark.slow
def test_work_that_outlasts_its_grace_does_not_keep_the_process(at_work):
    at_work.process.send_signal(signal.SIGTERM)

    assert at_work.process.wait(timeout=4) == 0


@pytest.mark.slow
def test_told_twice_to_stop_it_ends_at_once(bundles):
    with serving(bundles, drain_s=60) as served:
        served.wait_until_ready()
        with served.wire() as wire:
            wire.sendall(b"POST /detect HTTP/1.1\r\nContent-Type: image/png\r\n")
            wire.sendall(b"Host: x\r\nContent-Length: 1000\r\n\r\n1234")
            time.sleep(0.2)
            served.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            is_ended_by_first = served.process.poll() is not None
            served.process.send_signal(signal.SIGTERM)

            assert not is_ended_by_first
            assert served.process.wait(timeout=3) in (0, -signal.SIGTERM)


def test_a_secret_in_a_wrong_setting_is_not_printed():
    done = serve(SERVICE_API_KEYS="hunter2")

    assert done.returncode == 2
    assert "api_keys" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_an_address_that_others_reach_does_not_start_without_keys():
    done = serve(SERVICE_HOST="0.0.0.0")

    assert done.returncode == 2
    assert "SERVICE_ALLOW_OPEN" in done.stderr


def test_a_new_key_is_printed_once_with_the_entry_that_the_settings_take():
    done = serve("new-key", "--role", "admin")

    key, entry = (line.split()[-1] for line in done.stdout.splitlines())
    assert done.returncode == 0
    assert roles_of([key], Settings(api_keys=entry).api_keys) == {"admin"}
