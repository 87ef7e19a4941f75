"""Directories of tags: the header of a TIFF file, and the body of EXIF."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import PictureUnreadable

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
ORIENTATION, SAMPLES, PLANAR, SAMPLE_FORMAT = 274, 277, 284, 339
STRIP_OFFSETS, STRIP_SIZES, ROWS_PER_STRIP = 273, 279, 278
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES = 322, 323, 324, 325

WHITE_IS_ZERO = 0
KINDS = {(0, 1), (1, 1), (1, 2), (2, 3), (2, 4), (3, 1)}
"""Photometric interpretation and samples a pixel: grey, colour, either with alpha, palette."""

LOSSLESS = {1, 5, 8, 32773, 32946}
"""None, LZW, deflate, PackBits, and deflate's old number."""

MAX_TILE_SIDE_PX = 4096

_MANY = {BITS, SAMPLE_FORMAT, STRIP_OFFSETS, STRIP_SIZES, TILE_OFFSETS, TILE_SIZES, 320, 338}
_DTYPES = {1: "u1", 3: "u2", 4: "u4"}
_PIXEL_TAGS = {
    *(WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR, SAMPLE_FORMAT),
    *(STRIP_OFFSETS, STRIP_SIZES, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES),
    *(ROWS_PER_STRIP, 266, 317, 320, 338),  # fill order, predictor, colour map, extra samples
}


@dataclass(frozen=True)
class Directory:
    """The tags that pixels need, and the orientation; every other tag is left unread.

    `values` holds whole numbers, `entries` the 12 bytes each tag has in the file.
    """

    order: str
    values: dict[int, NDArray[np.unsignedinteger]]
    entries: dict[int, bytes]
    next_at: int

    def one(self, tag: int, default: int | None = None) -> int:
        """A tag's first value. Errors: PictureUnreadable when it is missing without a default."""
        if tag in self.values and self.values[tag].size:
            return int(self.values[tag][0])
        if default is None:
            raise PictureUnreadable(f"TIFF: tag {tag} is missing")
        return default

    def every(self, tag: int, default: int) -> set[int]:
        """A tag's distinct values, one for each sample in a sound file."""
        return {int(value) for value in self.values[tag][:8]} if tag in self.values else {default}


def read_directory(data: bytes) -> Directory:
    """Read the first directory. Errors: PictureUnreadable when it reaches out of the data."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        end = at + 2 + 12 * count
        (next_at,) = struct.unpack_from(order + "I", data, end)
    except struct.error:
        raise PictureUnreadable("TIFF: the header is cut short") from None
    values, entries = {}, {}
    for entry_at in range(at + 2, end, 12):
        (tag,) = struct.unpack_from(order + "H", data, entry_at)
        if tag not in _PIXEL_TAGS and tag != ORIENTATION:
            continue
        if tag in values:
            raise PictureUnreadable(f"TIFF: tag {tag} stands there twice")
        values[tag] = _read_values(data, order, entry_at)
        if tag != ORIENTATION and not 1 <= values[tag].size <= (len(data) if tag in _MANY else 1):
            raise PictureUnreadable(f"TIFF: tag {tag} has no sound value")
        entries[tag] = data[entry_at : entry_at + 12]
    return Directory(order, values, entries, next_at)


def _read_values(data: bytes, order: str, entry_at: int) -> NDArray[np.unsignedinteger]:
    """An entry's whole numbers, without copying them; empty for any other kind of value."""
    kind, count, value_at = struct.unpack_from(order + "HII", data, entry_at + 2)
    if kind not in _DTYPES:
        return np.empty(0, np.uint8)
    dtype = np.dtype(order + _DTYPES[kind])
    if count * dtype.itemsize <= 4:
        value_at = entry_at + 8
    if value_at + count * dtype.itemsize > len(data):
        raise PictureUnreadable("TIFF: a tag's values are cut short")
    return np.frombuffer(data, dtype, count, value_at)


def read_orientation(exif: bytes) -> int:
    """EXIF orientation 1..8; 1 where EXIF is broken, silent or out of range."""
    try:
        orientation = read_directory(exif).one(ORIENTATION, default=1)
    except PictureUnreadable:
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def keep_pixel_tags(data: bytes) -> bytes:
    """The same TIFF file with one directory of only the tags that its pixels need.

    What decoders stumble over and warn about (EXIF, colour profiles, vendors' tags) is gone, and
    so is the orientation, which some decoders apply and some do not.
    """
    directory = read_directory(data)
    entries = [directory.entries[tag] for tag in sorted(_PIXEL_TAGS & directory.entries.keys())]
    at = len(data) + len(data) % 2
    return b"".join(
        [
            data[:4] + struct.pack(directory.order + "I", at),
            memoryview(data)[8:],
            bytes(at - len(data)) + struct.pack(directory.order + "H", len(entries)),
            *entries,
            bytes(4),
        ]
    )
