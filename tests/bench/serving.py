"""What HTTP and the service process cost: a real `python -m service`, a kept-alive connection.

Peaks of memory are the kernel's own (`VmHWM`, reset before the request), so Linux alone has them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import psutil

from models.bundle import find_bundle, open_bundle
from models.detection import detect
from models.devices import Device
from models.steps.pictures import Picture, PictureLimits, decode_picture, encode_png
from tests.bench.figures import Bar, Figure, median_times_s

THREADS = 2
MEMORY_BYTES = 900e6
START_S = 120
FIRST_PICTURES = 3
CLIENTS = (2, 4)
"""At once; each sends its share of as many requests as the largest number."""


@dataclass(frozen=True)
class Service:
    """A running service and one connection to it."""

    process: subprocess.Popen[bytes]
    client: httpx2.Client
    port: int

    @property
    def resident_bytes(self) -> int:
        """What it holds in memory now."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def peak_bytes(self) -> int:
        """The most that it held since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])

    def forget_peak(self) -> None:
        """Let the next peak be counted from what is held now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def detect(self, jpeg: bytes, product: str) -> bytes:
        """The answer to POST /detect with the picture as the raw body."""
        return self._post("/detect", jpeg, {"product": product})

    def synthesize(self, jpeg: bytes, product: str) -> bytes:
        """The answer to POST /synthesize with the picture as the raw body: one defect."""
        return self._post("/synthesize", jpeg, {"product": product, "seed": "0"})

    def _post(self, path: str, jpeg: bytes, params: dict[str, str]) -> bytes:
        headers = {"Content-Type": "image/jpeg"}
        answer = self.client.post(path, params=params, content=jpeg, headers=headers)
        answer.raise_for_status()
        return answer.content


def measure_serving(bundles: Path, product: str, jpeg: bytes, *, rounds: int) -> list[Figure]:
    """Memory for the first pictures; then HTTP ÷ decoding, HTTP ÷ the same at home."""
    detector = open_bundle(find_bundle(bundles, product), Device("cpu", THREADS)).detector
    with run_service(bundles) as service:
        at_rest_bytes = service.resident_bytes
        service.forget_peak()
        for _ in range(FIRST_PICTURES):
            service.detect(jpeg, product)
        taken_bytes = service.peak_bytes - at_rest_bytes
        after_bytes = service.resident_bytes
        decode_s, told_s, served_s = median_times_s(
            (
                lambda: decode(jpeg).as_rgb8(),
                lambda: detect(decode(jpeg), detector),
                lambda: service.detect(jpeg, product),
            ),
            rounds=rounds,
        )
    return [
        Figure("detect_http_over_decode", served_s / decode_s, Bar("at most", 2.5)),
        Figure("http_over_in_process", served_s / told_s, Bar("at most", 1.3)),
        Figure("in_process_over_decode", told_s / decode_s),
        Figure("resident_after_warm_up_share", at_rest_bytes / MEMORY_BYTES, Bar("at most", 1.0)),
        Figure("resident_after_12_mp_share", after_bytes / MEMORY_BYTES),
        Figure(
            "peak_memory_over_decoded_picture",
            taken_bytes / decode(jpeg).pixels.nbytes,
            Bar("at most", 2.5),
        ),
    ]


def measure_overlap(bundles: Path, product: str, jpeg: bytes, *, rounds: int) -> list[Figure]:
    """As many requests one after the other ÷ by clients at once: what requests do in parallel.

    On two cores, which one request already shares while its graphs run, 2 cannot be reached.
    """
    figures = []
    with run_service(bundles) as service, ThreadPoolExecutor(max(CLIENTS)) as pool:
        for clients in CLIENTS:
            alone_s, together_s = median_times_s(
                (
                    lambda: [service.detect(jpeg, product) for _ in range(max(CLIENTS))],
                    lambda clients=clients: _ask_at_once(service, jpeg, product, pool, clients),
                ),
                rounds=rounds,
            )
            figures.append(Figure(f"throughput_overlap_{clients}_clients", alone_s / together_s))
    return figures


def measure_synthesis(bundles: Path, product: str, jpeg: bytes, *, rounds: int) -> Figure:
    """One defect over HTTP ÷ decoding the picture and encoding it and its mask as the answer is."""
    with run_service(bundles) as service:
        codec_s, served_s = median_times_s(
            (lambda: decode_and_encode(jpeg), lambda: service.synthesize(jpeg, product)),
            rounds=rounds,
        )
    return Figure("synthesize_http_over_codec", served_s / codec_s, Bar("at most", 1.5))


def decode_and_encode(jpeg: bytes) -> tuple[bytes, bytes]:
    """A picture of the same size and a mask, with nothing made in between."""
    picture = decode(jpeg)
    return encode_png(picture.pixels), encode_png(np.zeros(picture.hw, bool))


def decode(jpeg: bytes) -> Picture:
    """The picture, as the service decodes it."""
    return decode_picture(jpeg, PictureLimits())


def _ask_at_once(
    service: Service, jpeg: bytes, product: str, pool: ThreadPoolExecutor, clients: int
) -> None:
    def ask() -> None:
        for _ in range(max(CLIENTS) // clients):
            service.detect(jpeg, product)

    for asked in [pool.submit(ask) for _ in range(clients)]:
        asked.result()


@contextmanager
def run_service(bundles: Path, *, threads: int = THREADS) -> Iterator[Service]:
    """`python -m service` on a free port, ready: its bundles are open and warm."""
    port = free_port()
    settings = {"PORT": port, "BUNDLES": bundles, "DEVICE": "cpu", "THREADS": threads}
    environment = os.environ | {f"SERVICE_{name}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "service"]
    with (
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client,
    ):
        try:
            _wait_until_ready(process, client)
            yield Service(process, client, port)
        finally:
            process.terminate()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], client: httpx2.Client) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            if client.get("/v2/health/ready").status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.1)
    raise RuntimeError(f"the service did not start: exit status {process.poll()}")
