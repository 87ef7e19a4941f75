"""Pictures whose headers lie, sent to a real service: an answer for each, and the process lives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.processes import Served, serving
from tests.tiny import write_tiny_bundle

FILE_TYPES = (".png", ".jpg", ".bmp", ".tiff")
HEADER_BYTES = 200
EXAMPLES = int(os.environ.get("FLAWSMITH_FUZZ_EXAMPLES", "150"))
"""Of each file type: some for every change, thousands for a night."""
EXPECTED = {200, 413, 415, 422}
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that has 10 s for a request: what hangs is a 504, and fails."""
    bundles = tmp_path_factory.mktemp("bundles")
    write_tiny_bundle(bundles)
    with serving(bundles, timeout_s=10, max_pixels=4_000_000) as one:
        one.wait_until_ready()
        yield one


@pytest.mark.slow
@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_a_picture_with_a_broken_header_is_answered_and_harms_nobody(
    served: Served, file_type: str
) -> None:
    @given(file=broken_files(file_type))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=EXAMPLES <= 150,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    def send(file: bytes) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        status, _, _ = served.ask("POST", "/detect", file, headers)

        assert status in EXPECTED

    send()
    assert served.ask("GET", "/v2/health/ready")[0] == 200


def broken_files(file_type: str) -> st.SearchStrategy[bytes]:
    """A sound file after some changes, most in its first HEADER_BYTES, perhaps cut short."""
    sound = sound_file(file_type)
    place = st.integers(0, min(HEADER_BYTES, len(sound)) - 1) | st.integers(0, len(sound) - 1)
    value = st.sampled_from(EDGES) | st.integers(0, 255)
    changes = st.lists(st.tuples(place, value), min_size=1, max_size=6)
    ends = st.none() | st.integers(0, len(sound))
    return st.builds(change, st.just(sound), changes, ends)


def change(sound: bytes, changes: list[tuple[int, int]], end: int | None) -> bytes:
    """The file with these bytes at these places, up to `end`."""
    file = bytearray(sound)
    for place, value in changes:
        file[place] = value
    return bytes(file[:end])


@cache
def sound_file(file_type: str) -> bytes:
    """A small picture with noise in it."""
    pixels = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    return cv2.imencode(file_type, pixels)[1].tobytes()
