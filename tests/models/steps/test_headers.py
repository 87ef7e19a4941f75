from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from models.errors import PictureFormatUnknown, PictureUnreadable
from models.steps.headers import MAX_JPEG_SCANS, Header, read_header


def write(image: Image.Image, file_format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format)
    return file.getvalue()


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize(("mode", "is_grey"), [("L", True), ("RGB", False)])
def test_format_size_and_kind_are_read(file_format: str, mode: str, is_grey: bool) -> None:
    header = read_header(write(Image.new(mode, (30, 20)), file_format))

    assert header.format == file_format
    assert header.hw == (20, 30)
    assert header.is_grey == is_grey
    assert (header.bits, header.orientation) == (8, 1)


def test_16_bits_are_told_from_8() -> None:
    deep = Image.fromarray(np.zeros((4, 5), np.uint16))

    assert read_header(write(deep, "PNG")).bits == 16
    assert read_header(write(deep, "TIFF")).bits == 16


def test_a_bmp_from_the_top_down_has_a_positive_height() -> None:
    file = bytearray(write(Image.new("RGB", (5, 4)), "BMP"))
    file[22:26] = (-4).to_bytes(4, "little", signed=True)

    assert read_header(bytes(file)) == Header("BMP", (4, 5), 8, is_grey=False)


@pytest.mark.parametrize("data", [b"", b"B", b"GIF89a", b"hello, world", b"\xff\xd8"])
def test_what_is_no_accepted_picture_is_unknown(data: bytes) -> None:
    with pytest.raises(PictureFormatUnknown):
        read_header(data)


@pytest.mark.parametrize(
    "magic", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*"]
)
def test_a_magic_number_alone_is_unreadable(magic: bytes) -> None:
    with pytest.raises(PictureUnreadable):
        read_header(magic)


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    file = write(Image.new("L", (8, 8)), "JPEG")
    scan = file[file.index(b"\xff\xda") : -2]

    with pytest.raises(PictureUnreadable, match="too many scans"):
        read_header(file[:-2] + scan * MAX_JPEG_SCANS + file[-2:])


@pytest.mark.parametrize(
    "flood",
    [
        b"\xff\xd8" + b"\xff" * 10_000_000,
        b"\xff\xd8" + b"\xff\xe0\0\2" * 2_500_000,
        b"\x89PNG\r\n\x1a\n" + (b"\0" * 4 + b"teXt" + b"\0" * 4) * 800_000,
    ],
    ids=["fill_bytes", "segments", "chunks"],
)
def test_a_flood_of_empty_parts_is_refused_at_once(flood: bytes) -> None:
    start_s = time.perf_counter()

    with pytest.raises(PictureUnreadable):
        read_header(flood)

    assert time.perf_counter() - start_s < 1
