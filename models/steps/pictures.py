"""Bytes <-> pixels: the one safe decoder for the service, training and the command line."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from models.arrays import Mask, Pixels, RgbImage
from models.errors import PictureTooLarge, PictureTooSmall, PictureUnreadable
from models.steps.headers import Header, png_chunks, read_header
from models.steps.tiff import keep_pixel_tags

Samples = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W), (H, W, 3) or (H, W, 4): what a decoder returned, alpha included."""


@dataclass(frozen=True)
class PictureLimits:
    """The most that is decoded; the defaults take any industrial camera's picture."""

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 64_000_000
    max_side_px: int = 30_000
    max_side_ratio: float = 200.0


@dataclass(frozen=True)
class Picture:
    """A decoded picture as its file had it, upright.

    Shapes: pixels (H, W) or (H, W, 3), uint8 or uint16, C-contiguous and writeable.
    """

    pixels: Pixels

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width, upright."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def white(self) -> int:
        """The brightest sample there can be: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)

    def as_rgb8(self) -> RgbImage:
        """The picture as 8-bit colour: grey repeated, 16 bits divided by 257 and rounded.

        8-bit colour is returned as it is, without a copy.
        """
        pixels = self.pixels
        if pixels.dtype == np.uint16:
            pixels = cast(Pixels, cv2.convertScaleAbs(pixels, alpha=1 / 257))
        if pixels.ndim == 2:
            pixels = cast(Pixels, cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))
        return cast(RgbImage, pixels)


def decode_picture(data: bytes | memoryview, limits: PictureLimits) -> Picture:
    """Decode a JPEG, PNG, BMP or TIFF file, recognised by its content, and turn it upright.

    Depth and channels stay the file's: 8 or 16 bits, grey or colour. Fewer bits are widened, a
    palette becomes its colours (in BMP, which has no other grey, a palette of greys becomes grey).
    An opaque alpha channel is dropped. Of an MPO file (several JPEGs) the first picture is taken.
    A picture is whole or refused: no decoder's guess at missing pixels is ever returned.

    Errors: PictureFormatUnknown, PictureTooLarge, PictureUnreadable; nothing else for any bytes.
    """
    header = check_header(data, limits)
    pixels = _DECODERS[header.format](bytes(data), header)
    if pixels.shape[:2] != header.hw or pixels.dtype.itemsize * 8 != header.bits:
        raise PictureUnreadable(f"{header.format}: the pixels do not fit the header")
    return Picture(_turn_upright(_drop_alpha(pixels, header), header.orientation))


def decode_mask(data: bytes | memoryview, limits: PictureLimits) -> Mask:
    """Decode any accepted picture as a mask: True where any channel is not zero.

    Errors: those of decode_picture.
    """
    pixels = decode_picture(data, limits).pixels
    if pixels.ndim == 3:
        pixels = cast(Pixels, pixels[..., 0] | pixels[..., 1] | pixels[..., 2])
    return cast(Mask, pixels != 0)


def check_header(data: bytes | memoryview, limits: PictureLimits) -> Header:
    """Read and check a picture's header; not a pixel is decoded, not even of a bomb.

    Errors: PictureFormatUnknown, PictureTooLarge, PictureUnreadable.
    """
    size_bytes = data.nbytes if isinstance(data, memoryview) else len(data)
    if size_bytes > limits.max_bytes:
        raise PictureTooLarge(f"{size_bytes} bytes; at most {limits.max_bytes} are taken")
    header = read_header(bytes(data))
    height, width = header.hw
    if min(height, width) < 1:
        raise PictureUnreadable(f"{header.format}: {width} x {height} pixels is no picture")
    if max(height, width) > limits.max_side_px:
        side_px = max(height, width)
        raise PictureTooLarge(f"a side of {side_px} px; at most {limits.max_side_px} are taken")
    if height * width > limits.max_pixels:
        pixels = f"{width} x {height} = {width * height} pixels"
        raise PictureTooLarge(f"{pixels}; at most {limits.max_pixels} are taken")
    if max(height, width) > limits.max_side_ratio * min(height, width):
        size, most = f"{width} x {height} px", f"{limits.max_side_ratio:g}"
        raise PictureTooLarge(f"{size}; a side of at most {most} times the other is taken")
    return header


def require_size(hw: tuple[int, int], *, min_side_px: int, max_pixels: int) -> None:
    """Refuse a picture that a bundle's graphs cannot take: PictureTooSmall, PictureTooLarge."""
    size = f"the picture is {hw[1]} × {hw[0]} px"
    if min(hw) < min_side_px:
        raise PictureTooSmall(f"{size}; its shorter side must be at least {min_side_px} px")
    if hw[0] * hw[1] > max_pixels:
        raise PictureTooLarge(f"{size}; this bundle takes {max_pixels} pixels")


def encode_png(pixels: Pixels | Mask) -> bytes:
    """Encode losslessly, depth and channels as given; a mask becomes 8-bit grey, 0 or 255.

    Run lengths over differences to the row above: noise does not compress any further. In one
    run, a photo-like picture of 12 MP took 0.47 s (20.8 MB), level 1 with every filter 0.84 s
    (20.5 MB), level 6 3.8 s (19.5 MB).
    """
    is_mask = pixels.dtype == np.bool_
    samples = cast(Pixels, pixels.astype(np.uint8) * np.uint8(255) if is_mask else pixels)
    if samples.ndim == 3:
        samples = cast(Pixels, cv2.cvtColor(samples, cv2.COLOR_RGB2BGR))
    how = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    how += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    _, encoded = cv2.imencode(".png", samples, how)
    return encoded.tobytes()


def encode_jpeg(image: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Encode (H, W) or (H, W, 3) uint8 as JPEG, colours at full resolution; quality 1..100."""
    is_grey = image.ndim == 2
    encoded = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image[..., None] if is_grey else image),
        quality=quality,
        colorspace="GRAY" if is_grey else "RGB",
        colorsubsampling="Gray" if is_grey else "444",
    )
    return cast(bytes, encoded)


def _decode_jpeg(data: bytes, header: Header) -> Samples:
    """Strict: libjpeg's warnings (cut short, corrupt) refuse the file instead of greying it."""
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if header.is_grey else "RGB", strict=True)
    except ValueError as error:
        raise PictureUnreadable(f"JPEG: {error}") from None
    return cast(Samples, pixels[..., 0] if header.is_grey else pixels)


def _decode_png(data: bytes, header: Header) -> Samples:
    """Only sound chunks that carry pixels reach libpng, which would print what it stumbles over."""
    view = memoryview(data)
    parts = [view[:8]]
    for kind, start, end in png_chunks(data):
        if kind not in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            continue
        if zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise PictureUnreadable("PNG: a checksum does not fit; the file is corrupt")
        parts.append(view[start - 8 : end + 4])
    pixels = _decode_with_opencv(b"".join(parts), header)
    if header.see_through is not None and bool((pixels == header.see_through).any()):
        raise _transparent(header)
    return pixels


def _decode_bmp(data: bytes, header: Header) -> Samples:
    return _decode_with_opencv(data, header)


def _decode_tiff(data: bytes, header: Header) -> Samples:
    """16 bits by OpenCV, fewer by Pillow: either would cut the other's depth or its errors."""
    plain = keep_pixel_tags(data)
    if header.bits == 8:
        return _decode_with_pillow(plain)
    pixels = _decode_with_opencv(plain, header)
    return ~pixels if header.is_inverted else pixels


def _decode_with_opencv(data: bytes, header: Header) -> Samples:
    """Red first; alpha, where there is one, last."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise PictureUnreadable(f"{header.format}: the pixels are corrupt or cut short")
    if pixels.ndim == 3:
        swap = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
        pixels = cv2.cvtColor(pixels, swap)
    return cast(Samples, pixels)


def _decode_with_pillow(tiff: bytes) -> NDArray[np.uint8]:
    """The plugin itself: Image.open would warn of sizes that the limits have already judged."""
    try:
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(tiff))
        image.load()
    except _PILLOW_ERRORS as error:
        raise PictureUnreadable(f"TIFF: the pixels are corrupt or cut short ({error})") from None
    modes = {"1": "L", "L": "L", "LA": "RGBA", "RGBA": "RGBA"}
    return np.array(image.convert(modes.get(image.mode, "RGB")))


def _drop_alpha(pixels: Samples, header: Header) -> Pixels:
    """Without an alpha channel that hides nothing. Errors: PictureUnreadable when it hides."""
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        if not bool((pixels[..., 3] == np.iinfo(pixels.dtype).max).all()):
            raise _transparent(header)
        grey_or_colour = pixels[..., 0] if header.is_grey else pixels[..., :3]
        return cast(Pixels, np.ascontiguousarray(grey_or_colour))
    return pixels


def _transparent(header: Header) -> PictureUnreadable:
    return PictureUnreadable(f"{header.format}: transparent pictures are not taken; flatten it")


def _turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation: 2..4 mirror or turn by 180°, 5..8 also swap the axes."""
    if orientation == 1:
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = cast(Pixels, cv2.transpose(pixels))
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
    return cast(Pixels, cv2.flip(pixels, flips[orientation])) if orientation in flips else pixels


_PILLOW_ERRORS = (
    *(OSError, EOFError, MemoryError, SyntaxError, SystemError, struct.error),
    *(ArithmeticError, LookupError, TypeError, ValueError),
)
"""All that Pillow's plugins raise for broken files; they promise no narrower set."""

_DECODERS = {
    "JPEG": _decode_jpeg,
    "PNG": _decode_png,
    "BMP": _decode_bmp,
    "TIFF": _decode_tiff,
}
