from __future__ import annotations

import os
import signal
import subprocess
import sys

from service.__main__ import DrainingServer, uvicorn_config
from service.app import create_app
from service.keys import roles_of
from service.settings import Settings


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
