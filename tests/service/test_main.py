from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys

import pytest
import trustme

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
    server = DrainingServer(uvicorn_config(app, settings), app.state.engine, settings.drain_s)
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


def test_a_bad_bundle_is_named_and_ends_with_3(tmp_path):
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "manifest.json").write_text("{}")

    done = serve(SERVICE_BUNDLES=str(tmp_path), SERVICE_PORT="0")

    assert done.returncode == 3
    assert "broken/1" in done.stdout


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
