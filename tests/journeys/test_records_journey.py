"""A full disk under `python -m service`, and the day it is mended: a real process, a real limit."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError, URLError

import numpy as np
import pytest

from models.steps.pictures import encode_png
from tests.places import free_port, wait_for
from tests.tiny import write_tiny_bundle


class Service:
    """`python -m service` that records into a file."""

    def __init__(self, folder: Path) -> None:
        write_tiny_bundle(folder / "bundles")
        self.records = folder / "records.db"
        self.port = free_port()
        settings = {
            "PORT": self.port,
            "BUNDLES": folder / "bundles",
            "DATABASE": f"sqlite:///{self.records}",
            "THREADS": 1,
        }
        environment = {f"SERVICE_{name}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            env={"PATH": os.environ["PATH"], **environment},
            stdout=subprocess.DEVNULL,
        )
        wait_for(self.is_ready, 60.0)

    def is_ready(self) -> bool:
        with suppress(URLError):
            return "true" in self.get("/v2/health/ready")
        return False

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return answer.read().decode()

    def detect(self, picture: bytes) -> str:
        """Its id."""
        address = f"http://127.0.0.1:{self.port}/detect"
        request = urllib.request.Request(address, picture, {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["id"]

    def recorded(self) -> set[str] | None:
        """The ids in the log, None while the database is known to be away."""
        try:
            rows = json.loads(self.get("/inspections"))["inspections"]
        except HTTPError as refusal:
            if refusal.code == 503:
                return None
            raise
        return {row["request_id"] for row in rows}

    def let_files_grow_to(self, size_bytes: int) -> None:
        """What a full disk does to whoever writes, without filling one."""
        _, most = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size_bytes, most))


@pytest.fixture
def service(tmp_path) -> Iterator[Service]:
    started = Service(tmp_path)
    yield started
    started.process.kill()
    started.process.wait()


@pytest.fixture
def picture() -> bytes:
    return encode_png(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.slow
def test_a_full_disk_costs_no_answer_and_when_it_is_mended_no_row(service, picture):
    first = service.detect(picture)
    wait_for(lambda: service.recorded() == {first})

    service.let_files_grow_to(0)
    others = [service.detect(picture) for _ in range(3)]
    away = 'flawsmith_outbox_away{place="database"} 1.0'
    wait_for(lambda: away in service.get("/metrics"))
    service.let_files_grow_to(resource.RLIM_INFINITY)

    wait_for(lambda: service.recorded() == {first, *others})
