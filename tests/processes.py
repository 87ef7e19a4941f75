"""`python -m service` as a real process on a port of its own, for tests that need its wire."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Served:
    """A running service, and what it has logged so far."""

    process: subprocess.Popen[str]
    trusted: ssl.SSLContext | None
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The port that it listens on, as its log tells."""
        told = self.wait_for("running on")["message"]
        return int(told.rsplit(":", 1)[1].split()[0])

    def wait_for(self, words: str, within_s: float = 60.0) -> dict[str, Any]:
        """The first log line whose text holds these words."""
        ends_s = time.monotonic() + within_s
        while time.monotonic() < ends_s:
            for line in list(self.lines):
                if words in json.dumps(line):
                    return line
            if self.process.poll() is not None and not self.reader.is_alive():
                break
            time.sleep(0.01)
        raise AssertionError(f"no {words!r} in the log: {self.lines}")

    def wait_until_ready(self) -> None:
        """Until work is welcome."""
        ends_s = time.monotonic() + 60.0
        while self.ask("GET", "/v2/health/ready")[0] != 200:
            assert time.monotonic() < ends_s
            time.sleep(0.02)

    def wire(self, timeout_s: float = 30.0) -> socket.socket:
        """A bare connection."""
        bare = socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)
        return self.trusted.wrap_socket(bare, server_hostname="localhost") if self.trusted else bare

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """One request on a connection of its own: status, body, headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.sock = self.wire()
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()

    def read_log(self) -> None:
        """For a thread: keep each line; one that is no JSON fails whoever waits for it."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self.read_log, daemon=True)
        self.reader.start()


@contextmanager
def serving(
    bundles: Path, *, trusted: ssl.SSLContext | None = None, **settings: object
) -> Iterator[Served]:
    """A service with these settings, begun but perhaps not ready; killed at the end."""
    asked = {"port": 0, "bundles": bundles, "threads": 1, "workers": 1, **settings}
    environment = {f"SERVICE_{name.upper()}": str(value) for name, value in asked.items()}
    with subprocess.Popen(
        [sys.executable, "-m", "service"],
        env={"PATH": os.environ["PATH"], **environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        served = Served(process, trusted)
        try:
            yield served
        finally:
            process.kill()
            served.reader.join(10)


def read_all(wire: socket.socket) -> bytes:
    """Everything until the other side closes, or resets."""
    received = bytearray()
    with suppress(ConnectionResetError):
        while data := wire.recv(65536):
            received += data
    return bytes(received)
