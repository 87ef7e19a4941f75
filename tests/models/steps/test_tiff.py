from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from models.errors import PictureUnreadable
from models.steps import tiff


def directory_of(*entries: bytes, order: str = "<") -> bytes:
    magic = b"II*\0" if order == "<" else b"MM\0*"
    count = struct.pack(order + "H", len(entries))
    return magic + struct.pack(order + "I", 8) + count + b"".join(entries) + bytes(4)


def entry(tag: int, value: int, order: str = "<") -> bytes:
    return struct.pack(order + "HHIHH", tag, 3, 1, value, 0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_read_in_either_byte_order(order: str, orientation: int) -> None:
    exif = directory_of(entry(tiff.ORIENTATION, orientation, order), order=order)

    assert tiff.read_orientation(exif) == orientation


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II*\0",
        directory_of(),
        directory_of(entry(tiff.ORIENTATION, 0)),
        directory_of(entry(tiff.ORIENTATION, 9)),
        directory_of(entry(tiff.ORIENTATION, 6), entry(tiff.ORIENTATION, 3)),
        directory_of(entry(tiff.ORIENTATION, 6))[:-8],
    ],
)
def test_exif_that_says_nothing_sound_leaves_the_picture_upright(exif: bytes) -> None:
    assert tiff.read_orientation(exif) == 1


@pytest.mark.parametrize(
    "entries",
    [
        [entry(tiff.WIDTH, 5), entry(tiff.WIDTH, 6)],
        [struct.pack("<HHII", tiff.WIDTH, 4, 2, 8)],
        [struct.pack("<HHII", tiff.STRIP_OFFSETS, 4, 1_000_000_000, 8)],
        [struct.pack("<HHII", tiff.WIDTH, 12, 1, 8)],
    ],
    ids=["twice", "two_widths", "out_of_the_file", "not_whole"],
)
def test_a_directory_that_two_readers_could_read_differently_is_refused(
    entries: list[bytes],
) -> None:
    with pytest.raises(PictureUnreadable):
        tiff.read_directory(directory_of(*entries))


def test_only_what_pixels_need_is_kept() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    file = io.BytesIO()
    tags = {tiff.ORIENTATION: 6, 270: "a description", 305: "a program"}
    Image.fromarray(pixels).save(file, "TIFF", tiffinfo=tags)

    with Image.open(io.BytesIO(tiff.keep_pixel_tags(file.getvalue()))) as kept:
        assert not {tiff.ORIENTATION, 270, 305} & set(kept.tag_v2)
        np.testing.assert_array_equal(np.asarray(kept), pixels)
