"""Story 1 as plain values, for servers that are not ours: what differs then is the server alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from models.bundle import open_bundle
from models.detection import detect
from models.session import Device
from models.steps.pictures import PictureLimits, decode_picture

WORKERS = 2
"""Processes of a peer; threads of ours."""
BUNDLE, THREADS = "BENCH_BUNDLE", "BENCH_THREADS"
Told = dict[str, Any]


class Story:
    """An encoded picture -> verdict and outlines."""

    def __init__(self, bundle: Path, threads: int) -> None:
        self._detector = open_bundle(bundle, Device("cpu", threads)).detector

    @classmethod
    def from_environment(cls) -> Story:
        """With the bundle and the threads that BENCH_BUNDLE and BENCH_THREADS name."""
        return cls(Path(os.environ[BUNDLE]), int(os.environ[THREADS]))

    def __call__(self, encoded: bytes) -> Told:
        """Blocking."""
        told = detect(decode_picture(encoded, PictureLimits()), self._detector)
        outlines = [defect.region.polygon.exterior.tolist() for defect in told.defects]
        return {"verdict": told.verdict, "polygons": outlines}
