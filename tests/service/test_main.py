from __future__ import annotations

import os
import signal
import subprocess
import sys

from service.__main__ import DrainingServer, uvicorn_config
from service.app import create_app
from service.settings import Settings


def serve(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service"],
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
