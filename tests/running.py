"""A real `python -m service` on a free port, and pictures to send it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx2
import numpy as np

from models.steps.pictures import encode_png

START_S = 120


@dataclass(frozen=True)
class Running:
    """A service's process and where it listens."""

    process: subprocess.Popen[bytes]
    url: str

    def client(self) -> httpx2.Client:
        """A connection that waits as long as a busy machine needs."""
        return httpx2.Client(base_url=self.url, timeout=60)

    def wait_until_ready(self) -> None:
        """Returns when it welcomes requests; fails as soon as the process has ended."""
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s and self.process.poll() is None:
            try:
                if httpx2.get(f"{self.url}/v2/health/ready", timeout=5).status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"the service did not start: {self.process.poll()}")


@contextmanager
def running_service(
    bundles: Path, *, stdout: int | IO[bytes] = subprocess.DEVNULL, **settings: object
) -> Iterator[Running]:
    """`python -m service` over a folder of bundles, ready; killed at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {"port": port, "bundles": bundles, "threads": 1, "workers": 2} | settings
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    environment |= {f"SERVICE_{name.upper()}": str(value) for name, value in told.items()}
    command = [sys.executable, "-m", "service"]
    with subprocess.Popen(
        command, env=environment, stdout=stdout, stderr=subprocess.DEVNULL
    ) as process:
        try:
            running = Running(process, f"http://127.0.0.1:{port}")
            running.wait_until_ready()
            yield running
        finally:
            process.kill()


def red_square_png() -> bytes:
    """96 high, 128 wide; red where x in 40..51 and y in 20..29."""
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[20:30, 40:52, 0] = 255
    return encode_png(pixels)
