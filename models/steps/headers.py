"""What a picture's header says: format, size and kind, read without decoding a pixel."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.errors import PictureFormatUnknown, PictureUnreadable
from models.steps import tiff

ACCEPTED = "JPEG, PNG, BMP and TIFF are taken"
MAX_JPEG_SEGMENTS = 4_000
MAX_JPEG_SCANS = 100
"""A progressive file has about ten; thousands of empty ones cost minutes in few bytes."""

MAX_PNG_CHUNKS = 100_000


@dataclass(frozen=True)
class Header:
    """What a decoder must know before it starts.

    `hw` is the size as stored, before `orientation` (EXIF, 1..8) is applied. `bits` is 8 or 16:
    smaller samples are widened. `is_inverted`: 0 is white. `see_through`: the grey of a PNG that
    counts as transparent.
    """

    format: Literal["JPEG", "PNG", "BMP", "TIFF"]
    hw: tuple[int, int]
    bits: int
    is_grey: bool
    orientation: int = 1
    is_inverted: bool = False
    see_through: int | None = None

    @property
    def decoded_bytes(self) -> int:
        """The memory that the pixels take."""
        return self.hw[0] * self.hw[1] * (1 if self.is_grey else 3) * self.bits // 8


def read_header(data: bytes) -> Header:
    """Recognise a picture by its content and read its header.

    Errors: PictureFormatUnknown when it is empty or of no accepted format; PictureUnreadable when
    the header is broken or names a kind that is not taken.
    """
    if not data:
        raise PictureFormatUnknown(f"the picture is empty; {ACCEPTED}")
    for magic, read in _READERS.items():
        if data.startswith(magic):
            try:
                return read(data)
            except (struct.error, IndexError):
                raise PictureUnreadable("the picture's header is cut short") from None
    raise PictureFormatUnknown(f"the bytes are no picture of an accepted format; {ACCEPTED}")


def _read_jpeg(data: bytes) -> Header:
    """Walk the segments up to the first scan; a picture after the first (MPO) is left alone."""
    frame: Header | None = None
    orientation: int | None = None
    for marker, start, end in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = _read_jpeg_frame(data, marker, start)
        elif marker == 0xE1 and data[start : start + 6] == b"Exif\0\0" and orientation is None:
            orientation = tiff.read_orientation(data[start + 6 : end])
        elif marker == 0xDA:
            scans = data.count(b"\xff\xda", start - 4)
            if frame is None or scans > MAX_JPEG_SCANS:
                raise PictureUnreadable("JPEG: no frame before the first scan, or too many scans")
            return Header("JPEG", frame.hw, 8, frame.is_grey, orientation or 1)
    raise PictureUnreadable("JPEG: the file ends before its first scan")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment's body."""
    fill = re.compile(rb"\xff+")
    at = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        found = fill.match(data, at)
        if found is None:
            raise PictureUnreadable("JPEG: a segment does not start with a marker")
        marker = data[found.end()]
        start = found.end() + 3
        at = found.end() + 1 + struct.unpack_from(">H", data, found.end() + 1)[0]
        if at < start or at > len(data) or marker in (0x01, 0xD9):
            raise PictureUnreadable("JPEG: a segment in the header is broken")
        yield marker, start, at
    raise PictureUnreadable(f"JPEG: more than {MAX_JPEG_SEGMENTS} segments before the first scan")


def _read_jpeg_frame(data: bytes, marker: int, start: int) -> Header:
    bits, height, width, components = struct.unpack_from(">BHHB", data, start)
    if marker not in (0xC0, 0xC1, 0xC2) or bits != 8:
        raise PictureUnreadable("JPEG: only 8-bit baseline and progressive files are taken")
    if components == 4:
        raise PictureUnreadable("JPEG: CMYK colours are not taken; save it as RGB or grey")
    if components not in (1, 3):
        raise PictureUnreadable(f"JPEG: {components} components; grey or colour is taken")
    return Header("JPEG", (height, width), 8, components == 1)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk's body up to IEND; checksums are left to the reader."""
    at = 8
    for _ in range(MAX_PNG_CHUNKS):
        size, kind = struct.unpack_from(">I4s", data, at)
        start, at = at + 8, at + size + 12
        if at > len(data):
            break
        yield kind, start, start + size
        if kind == b"IEND":
            return
    raise PictureUnreadable("PNG: the file is cut short, or in too many pieces")


def _read_png(data: bytes) -> Header:
    chunks: dict[bytes, bytes] = {}
    kinds = []
    for kind, start, end in png_chunks(data):
        kinds.append(kind)
        if kind in (b"IHDR", b"tRNS", b"eXIf") and kind not in chunks:
            chunks[kind] = data[start:end]
    if kinds[0] != b"IHDR" or len(chunks[b"IHDR"]) != 13 or b"IDAT" not in kinds:
        raise PictureUnreadable("PNG: the header or the pixels are missing")
    if b"acTL" in kinds:
        raise PictureUnreadable("PNG: animated pictures are not taken")
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    see_through = None
    if colour == 0 and b"tRNS" in chunks and depth in (1, 2, 4, 8, 16):
        (sample,) = struct.unpack_from(">H", chunks[b"tRNS"])
        see_through = sample * (255 // (2**depth - 1) if depth < 8 else 1)
    return Header(
        "PNG",
        (height, width),
        bits=16 if depth == 16 else 8,
        is_grey=colour in (0, 4),
        orientation=tiff.read_orientation(chunks.get(b"eXIf", b"")),
        see_through=see_through,
    )


def _read_bmp(data: bytes) -> Header:
    pixels_at, size = struct.unpack_from("<II", data, 10)
    if size < 40:
        raise PictureUnreadable("BMP: files older than Windows 3 are not taken")
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    is_plain = compression == 0 and bits in (1, 4, 8, 24, 32)
    has_masks = compression == 3 and bits == 32 and size >= 56
    if not (is_plain or has_masks):
        raise PictureUnreadable("BMP: compressed and 16-bit files are not taken")
    if width <= 0:
        raise PictureUnreadable("BMP: the width is not positive")
    if pixels_at + (width * bits + 31) // 32 * 4 * abs(height) > len(data):
        raise PictureUnreadable("BMP: the file is cut short")
    return Header("BMP", (abs(height), width), 8, is_grey=False)


def _read_tiff(data: bytes) -> Header:
    directory = tiff.read_directory(data)
    kind = (directory.one(tiff.PHOTOMETRIC), directory.one(tiff.SAMPLES, 1))
    bits = directory.every(tiff.BITS, 1)
    if directory.next_at:
        raise PictureUnreadable("TIFF: a file of several pages is not taken; save one page")
    if kind not in tiff.KINDS:
        raise PictureUnreadable("TIFF: only grey, RGB and palette colours are taken")
    if directory.every(tiff.SAMPLE_FORMAT, 1) != {1} or bits not in _tiff_bits(kind):
        raise PictureUnreadable("TIFF: only whole numbers of 8 or 16 bits (or 1 bit) are taken")
    if directory.one(tiff.COMPRESSION, 1) not in tiff.LOSSLESS:
        raise PictureUnreadable("TIFF: only no compression, LZW, deflate and PackBits are taken")
    if bits == {16} and kind[1] > 1 and directory.one(tiff.PLANAR, 1) != 1:
        raise PictureUnreadable("TIFF: 16-bit colours in separate planes are not taken")
    _check_tiff_blocks(directory, len(data))
    return Header(
        "TIFF",
        (directory.one(tiff.HEIGHT), directory.one(tiff.WIDTH)),
        bits=max(8, *bits, 0),
        is_grey=kind[0] in (0, 1),
        orientation=min(8, max(1, directory.one(tiff.ORIENTATION, 1))),
        is_inverted=kind[0] == tiff.WHITE_IS_ZERO,
    )


def _tiff_bits(kind: tuple[int, int]) -> list[set[int]]:
    """The depths taken: bilevel is grey alone, a palette or grey with alpha 8 bits alone."""
    if kind[0] == 3 or kind == (1, 2):
        return [{8}]
    return [{8}, {16}] if kind[0] == 2 else [{1}, {8}, {16}]


def _check_tiff_blocks(directory: tiff.Directory, size_bytes: int) -> None:
    """Refuse strips or tiles that are too few, reach out of the file, or would exhaust memory."""
    is_tiled = tiff.TILE_OFFSETS in directory.values
    offsets_tag = tiff.TILE_OFFSETS if is_tiled else tiff.STRIP_OFFSETS
    sizes_tag = tiff.TILE_SIZES if is_tiled else tiff.STRIP_SIZES
    none = np.empty(0, np.uint32)
    offsets = directory.values.get(offsets_tag, none).astype(np.int64)
    sizes = directory.values.get(sizes_tag, none).astype(np.int64)
    if offsets.size != sizes.size or offsets.size < max(1, _count_tiff_blocks(directory, is_tiled)):
        raise PictureUnreadable("TIFF: some of the pixels are missing")
    if (offsets + sizes).max() > size_bytes:
        raise PictureUnreadable("TIFF: the file is cut short")


def _count_tiff_blocks(directory: tiff.Directory, is_tiled: bool) -> int:
    """How many strips or tiles cover the picture."""
    width, height = directory.one(tiff.WIDTH), directory.one(tiff.HEIGHT)
    if is_tiled:
        block_hw = (directory.one(tiff.TILE_HEIGHT), directory.one(tiff.TILE_WIDTH))
        if not 1 <= min(block_hw) <= max(block_hw) <= tiff.MAX_TILE_SIDE_PX:
            raise PictureUnreadable(f"TIFF: a tile's side is not 1..{tiff.MAX_TILE_SIDE_PX} px")
    else:
        block_hw = (max(1, directory.one(tiff.ROWS_PER_STRIP, max(1, height))), max(1, width))
    planes = directory.one(tiff.SAMPLES, 1) if directory.one(tiff.PLANAR, 1) == 2 else 1
    return -(-height // block_hw[0]) * -(-width // block_hw[1]) * planes


_READERS = {
    b"\xff\xd8\xff": _read_jpeg,
    b"\x89PNG\r\n\x1a\n": _read_png,
    b"BM": _read_bmp,
    b"II*\0": _read_tiff,
    b"MM\0*": _read_tiff,
}
