"""Where records go: a real Postgres, and what is sent there."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from service.inspections import InspectedImageOut, InspectionOut
from service.telemetry import new_id

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
"""Debian keeps the server's programs off the path, a folder for each version."""
NOBODY = "nobody"
"""Who runs the servers where the tests run as root: Postgres refuses that."""


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
