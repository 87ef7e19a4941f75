"""Where records go: a real Postgres, a real broker, a web server, and what is sent there."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from service.records.inspections import InspectedImageOut, InspectionOut, Record
from service.telemetry import new_id

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
"""Debian keeps the server's programs off the path, a folder for each version."""
NOBODY = "nobody"
"""Who runs the servers where the tests run as root: Postgres refuses that."""


def record(**fields: Any) -> Record:
    """The same on its way."""
    return Record.of(inspection(**fields))


def inspection(**fields: Any) -> InspectionOut:
    """A record of a good part."""
    about = {
        "id": new_id(),
        "request_id": "r",
        "time": datetime.now(UTC),
        "product": "tiny",
        "version": "1",
        "bundle": "0" * 64,
        "verdict": "ok",
        "decision": "ok",
        "defects": [],
        "image": InspectedImageOut(width=8, height=6, sha256="0" * 64),
        "timings_ms": {"total": 1.5},
        "parameters": {},
    }
    return InspectionOut(**about | fields)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Postgres:
    """A cluster of its own on a free port, run by an unprivileged user; ends with `close`."""

    def __init__(self) -> None:
        if not POSTGRES:
            pytest.skip("no Postgres server: Debian's package is postgresql")
        self.port = free_port()
        self.numbers = count()
        self.programs = POSTGRES[-1]
        # not pytest's own folder: nobody else may enter that
        self.folder = Path(tempfile.mkdtemp(prefix="flawsmith-postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, NOBODY)
        self.run("initdb", "--auth=trust", "--username=tester", "--no-sync", "-D", self.data)
        self.start()

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        how = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = str(self.folder / "log")
        self.run("pg_ctl", "start", "--wait", "-D", self.data, "-o", how, "-l", log)

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "--wait", "--mode=immediate", "-D", self.data)

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"records{next(self.numbers)}"
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "tester")
        self.run("createdb", *where, name)
        return f"postgresql://tester@127.0.0.1:{self.port}/{name}"

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        user = NOBODY if os.geteuid() == 0 else None
        subprocess.run(
            command,
            cwd=self.folder,
            user=user,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
        )


class Mosquitto:
    """A broker of its own on a free port, with one user; it remembers who listens."""

    def __init__(self, folder: Path) -> None:
        # Debian keeps the server where only root's path leads
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("no MQTT broker: Debian's package is mosquitto")
        self.program = program
        self.port = free_port()
        self.settings = folder / "mosquitto.conf"
        passwords = folder / "passwords"
        passwords.touch(mode=0o600)
        subprocess.run(["mosquitto_passwd", "-b", passwords, "line", "secret"], check=True)
        self.settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n"
            f"persistence true\npersistence_location {folder}/\nautosave_interval 1\n"
            "autosave_on_changes true\n" + ("user root\n" if os.geteuid() == 0 else "")
        )
        self.url = f"mqtt://line:secret@127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [self.program, "-c", str(self.settings)]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        wait_for(self.is_listening)

    def is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Subscriber:
    """Somebody who listens to every topic, and whose messages wait while nobody listens."""

    def __init__(self, broker: Mosquitto) -> None:
        self.got: list[MQTTMessage] = []
        self.is_subscribed = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, client_id="tester", clean_session=False)
        self.client.username_pw_set("line", "secret")
        self.client.reconnect_delay_set(min_delay=1, max_delay=1)
        self.client.on_connect = lambda *_: self.client.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: self.is_subscribed.set()
        self.client.on_message = lambda *told: self.got.append(told[2])
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert self.is_subscribed.wait(20)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Receiver:
    """A web server that takes webhooks, answering with one status after the other, then 204."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[tuple[Message, bytes]] = []
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hook?token=confidential"
        self.start()

    def start(self) -> None:
        receiver = self

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.headers, body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Hook)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.02)
